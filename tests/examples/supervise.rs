//! The supervisor of the examples: what it starts, what it starts again, and what it leaves behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;

use ipc::{Child, Command, PipeReader};

use crate::support::{
    self, Folder, Kernel, Trial, await_orphans, await_whoever_is_left, example, exit_code, poll_until, process_state,
    read_all,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_programs_say_has_their_name_in_front,
        one_that_fails_is_started_again,
        sigterm_asks_all_of_them_to_stop,
        one_that_does_not_stop_is_killed,
        nothing_outlives_a_supervisor_that_is_killed,
        nothing_runs_that_the_keeper_does_not_know,
        a_program_has_the_standard_three_alone,
        a_file_that_is_none_is_refused,
    ]
}

/// Starts it, with its output to be read.
fn supervise(folder: &Folder, programs: &str, options: &[&str]) -> (Child, PipeReader) {
    let file = folder.file("programs", programs.as_bytes());
    let (reader, writer) = ipc::pipe().unwrap();
    let command = Command::new(example("supervise")).args(options).arg(file);
    (command.stdout(writer).stderr(ipc::Stdio::null()).spawn().unwrap(), reader)
}

fn text(reader: PipeReader) -> String {
    String::from_utf8(read_all(reader)).unwrap()
}

fn what_programs_say_has_their_name_in_front() {
    let folder = Folder::new();
    let programs = "# a comment\n\none: echo first; echo second\n two : echo wrong >&2; printf 'no end'\nmuch: yes | head -c 300000\n";
    let (child, reader) = supervise(&folder, programs, &[]);
    let said = text(reader);
    let of = |name: &str| said.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(of("one"), ["one | first", "one | second"]);
    let mut two = of("two");
    two.sort_unstable();
    assert_eq!(two, ["two ! wrong", "two | no end"]);
    assert_eq!(of("much").len(), 150_000);
    assert_eq!(exit_code(&child), 0);
}

fn one_that_fails_is_started_again() {
    let folder = Folder::new();
    let runs = folder.0.join("runs");
    let programs = format!("flaky: echo run >> '{0}'; test $(wc -l < '{0}') = 3 && echo enough\n", runs.display());
    let file = folder.file("programs", programs.as_bytes());
    let output = Command::new(example("supervise")).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"flaky | enough\n");
    // Each pause is twice as long as the one before.
    let notes = String::from_utf8(output.stderr).unwrap();
    let pauses: Vec<_> =
        notes.lines().filter_map(|line| line.split_once("again in ")).map(|(_, pause)| pause).collect();
    assert_eq!(pauses, ["100ms", "200ms"], "{notes}");
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\nrun\nrun\n");
}

/// Reads until a program says something.
fn await_line(lines: impl BufRead, expected: &str) {
    // The shell may say what became of its child.
    let is_it = |line: std::io::Result<String>| line.unwrap() == expected;
    assert!(lines.lines().any(is_it), "{expected}");
}

fn sigterm_asks_all_of_them_to_stop() {
    let folder = Folder::new();
    // The shell waits for what it starts, whatever comes, and so leaves no orphan.
    let programs = "polite: trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done\n";
    let (child, reader) = supervise(&folder, programs, &[]);
    let mut lines = BufReader::new(reader);
    await_line(&mut lines, "polite | ready");
    child.terminate().unwrap();
    await_line(&mut lines, "polite | bye");
    assert_eq!(exit_code(&child), 0);
    support::await_whoever_is_left();
}

fn one_that_does_not_stop_is_killed() {
    let folder = Folder::new();
    let programs = "stubborn: trap '' TERM; echo ready; sleep 1000\n";
    let (child, reader) = supervise(&folder, programs, &["--grace", "0.2"]);
    let mut lines = BufReader::new(reader);
    await_line(&mut lines, "stubborn | ready");
    child.terminate().unwrap();
    assert_eq!(exit_code(&child), 0);
    // A second signal does not wait for the time.
    let (child, reader) = supervise(&folder, programs, &["--grace", "1000"]);
    let mut lines = BufReader::new(reader);
    await_line(&mut lines, "stubborn | ready");
    child.terminate().unwrap();
    poll_until("it has been told once", || !is_pending_in(child.id()));
    child.signal(libc::SIGINT).unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// Whether a signal waits to be read by a process.
fn is_pending_in(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pending = |line: &str| line.strip_prefix("ShdPnd:").is_some_and(|set| !set.trim().trim_matches('0').is_empty());
    status.lines().any(pending)
}

fn nothing_outlives_a_supervisor_that_is_killed() {
    let folder = Folder::new();
    let programs = "family: sleep 1000 & echo $! $$; exec sleep 1000\n";
    let (child, reader) = supervise(&folder, programs, &[]);
    let mut line = String::new();
    BufReader::new(&reader).read_line(&mut line).unwrap();
    let pids: Vec<u32> =
        line.trim_start_matches("family | ").split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{line}");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    // The program, what it started, and the keeper.
    await_orphans(3);
    assert!(pids.iter().all(|pid| process_state(*pid).is_none()));
}

fn nothing_runs_that_the_keeper_does_not_know() {
    let folder = Folder::new();
    let programs = format!("early: touch '{}'\n", folder.0.join("ran").display());
    // Nobody can tell the keeper anything, and the supervisor gives up.
    let kernel = Kernel::new().without(libc::SYS_sendto, libc::EPERM).without(libc::SYS_sendmsg, libc::EPERM);
    // There, one call does for all of sockets (socketcall.2): send, sendto, sendmsg.
    #[cfg(target_arch = "x86")]
    let kernel = [9, 11, 16]
        .into_iter()
        .fold(kernel, |kernel, which| kernel.with(libc::SYS_socketcall, 0, support::Is::Equal(which), libc::EPERM));
    kernel.play();
    let (child, reader) = supervise(&folder, &programs, &[]);
    assert_eq!(exit_code(&child), 1);
    // The program, if that was not waited for by then, and the keeper.
    assert_eq!(text(reader), "");
    await_whoever_is_left();
    assert!(!folder.0.join("ran").exists());
}

fn a_program_has_the_standard_three_alone() {
    let folder = Folder::new();
    let programs = "open: for i in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$i && echo $i; done; echo done\n";
    let (child, reader) = supervise(&folder, programs, &[]);
    assert_eq!(text(reader), "open | done\n");
    assert_eq!(exit_code(&child), 0);
}

fn a_file_that_is_none_is_refused() {
    let folder = Folder::new();
    let run = |args: &[&str]| {
        let output = Command::new(example("supervise")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let file = folder.file("programs", b"one: true\nno colon\n");
    let (status, said) = run(&[file.to_str().unwrap()]);
    assert_eq!((status, &*said), (Some(1), "supervise: line 2 is not `NAME: COMMAND`\n"));
    let (status, said) = run(&["/no/such/file"]);
    assert!(status == Some(1) && said.contains("/no/such/file: No such file"), "{said}");
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["--grace", "x", "file"]).0, Some(2));
    let help = Command::new(example("supervise")).arg("--help").output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"usage: supervise"));
}
