//! How `count_words` behaves at a shell: as `wc -w` does, and when somebody dies.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use ipc::{Child, Command, PipeReader, PipeWriter, Stdio};

use super::support::{Folder, Is, Kernel, children_of, example, exit_code, poll_until, process_state};

/// A small generator, so that every run tries the same.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 1_u64;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    }
}

fn count_words() -> Command {
    Command::new(example("count_words"))
}

/// Runs a line of shell in the folder twice, `COUNT` being `count_words` and `wc -w`. Both print the same, to stdout and to
/// stderr, and leave with the same status.
#[track_caller]
fn assert_like_wc_at_a_shell(folder: &Path, line: &str) {
    let run = |count: &OsStr| {
        let shell = Command::new("sh").args(["-c", &line.replace("COUNT", "\"$@\""), "sh"]).arg(count);
        let shell = if count == "wc" { shell.arg("-w") } else { shell };
        let output = shell.current_dir(folder).env("LC_ALL", "C.UTF-8").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace("count_words: ", "wc: ");
        (String::from_utf8_lossy(&output.stdout).into_owned(), said, output.status.code())
    };
    assert_eq!(run(example("count_words").as_os_str()), run(OsStr::new("wc")), "{line}");
}

pub fn count_words_takes_stdin_as_wc_does() {
    let folder = Folder::new();
    folder.file("file", b"one two\nthree");
    folder.file("much", &b"three little words\n".repeat(100_000));
    for line in [
        "COUNT < file",
        "COUNT < /dev/null",
        "COUNT - < file",
        "COUNT -- - < file",
        "COUNT - file < file",
        "COUNT file - < file",
        "cat much | COUNT",
        "cat much | COUNT file -",
        "cat much | COUNT - - -", // the first one gets it all
        "COUNT - - < much",
        // `wc` says it once more when it closes it.
        "COUNT <&- 2>/dev/null",
        "COUNT - <&- 2>/dev/null",
        "COUNT - file <&- 2>/dev/null",
        "COUNT < .",
        "COUNT - file < .",
    ] {
        assert_like_wc_at_a_shell(&folder.0, line);
    }
    let output = Command::new("sh").args(["-c", "exec \"$0\" <&-"]).arg(example("count_words")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "count_words: 'standard input': Bad file descriptor\n");
    folder.file("-", b"a file of that name");
    assert_like_wc_at_a_shell(&folder.0, "COUNT ./- - < file");
}

pub fn count_words_complains_as_wc_does() {
    let folder = Folder::new();
    folder.file("file", b"one two\nthree");
    std::fs::create_dir(folder.0.join("folder")).unwrap();
    for line in [
        "COUNT missing",
        "COUNT folder",
        "COUNT folder file missing",
        "COUNT file file/",
        "COUNT ''",
        "COUNT '' file",
        "COUNT file '' missing",
        "COUNT missing folder/missing",
    ] {
        assert_like_wc_at_a_shell(&folder.0, line);
    }
}

pub fn count_words_quotes_names_as_wc_does() {
    let folder = Folder::new();
    // Of missing files, in messages.
    let mut names: Vec<Vec<u8>> = (1..=255).filter(|byte| *byte != b'/').map(|byte| vec![byte, b'a']).collect();
    names.extend((1..=255).filter(|byte| !b"/.-".contains(byte)).map(|byte| vec![byte]));
    let atoms = ["'", "'", "a", " ", ":", "#", "~", "{", "}", "\n", "\x01", "\\", "\u{7f}", "é", "😀", "\u{2028}", "$"];
    let mut random = random();
    for _ in 0..1000 {
        let mut name = Vec::new();
        for _ in 0..random(5) + 1 {
            match random(atoms.len() + 3) {
                atom if atom < atoms.len() => name.extend(atoms[atom].bytes()),
                more => name.extend([[0xff].as_slice(), b"\xe2\x80", b"-"][more - atoms.len()]),
            }
        }
        names.push(name);
    }
    names.retain(|name| name != b"-" && name != b".");
    let run = |command: Command| {
        let command = command.arg("--").args(names.iter().map(|name| OsStr::from_bytes(name)));
        let output = command.current_dir(&folder.0).env("LC_ALL", "C.UTF-8").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap().replace("count_words: ", "wc: ")
    };
    let (ours, theirs) = (run(count_words()), run(Command::new("wc").arg("-w")));
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.lines().count(), names.len());

    // Of files that are there, beside their numbers: only those of several lines are quoted.
    for name in ["two\nlines", "it's\n\ttwo", "\n", "it's one", "a: b", "$HOME \"x\""] {
        folder.file(name, b"some words");
    }
    folder.file(OsStr::from_bytes(b"\xff\n"), b"some words");
    assert_like_wc_at_a_shell(&folder.0, "COUNT *");
}

/// The `wc` of coreutils 9.1 does. Another may take them for parts of words.
fn wc_passes_over_what_is_not_utf8() -> bool {
    let output = Command::new("sh").args(["-c", r"printf '\377' | wc -w"]).env("LC_ALL", "C.UTF-8").output().unwrap();
    output.stdout == b"0\n"
}

pub fn count_words_counts_what_is_not_utf8_as_wc_does() {
    if !wc_passes_over_what_is_not_utf8() {
        return;
    }
    let folder = Folder::new();
    let mut random = random();
    for i in 0..50 {
        let length = if i % 10 == 0 { 300_000 } else { random(2000) };
        // Enough white space that there are words, and no whole character above what is assigned.
        let byte = |byte: usize| if byte.is_multiple_of(5) { b' ' } else { byte as u8 };
        let bytes: Vec<u8> =
            (0..length).map(|_| byte(random(256))).filter(|byte| !(0xcd..0xf8).contains(byte)).collect();
        folder.file(format!("{i}"), &bytes);
    }
    folder.file("latin", b"un caf\xe9 cr\xe8me \xe0 emporter, d\xe9j\xe0 \xa0 \xff\n");
    assert_like_wc_at_a_shell(&folder.0, "COUNT *");
}

pub fn count_words_dies_of_sigpipe_when_nobody_reads() {
    let folder = Folder::new();
    let file = folder.file("file", b"one two three");
    for arguments in [&[file.as_os_str()][..], &[file.as_os_str(), file.as_os_str()], &[OsStr::new("--help")]] {
        let (reader, writer) = ipc::pipe().unwrap();
        drop(reader);
        let output = count_words().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    // Whoever has it ignored is told, as by `wc`.
    let (reader, writer) = ipc::pipe().unwrap();
    drop(reader);
    let shell = Command::new("sh").args(["-c", "trap '' PIPE; exec \"$@\"", "sh"]).arg(example("count_words"));
    let output = shell.arg(&file).stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "count_words: write error: Broken pipe\n");
    assert_eq!(output.status.code(), Some(1));
}

pub fn count_words_fails_when_stdout_is_closed_or_full() {
    let folder = Folder::new();
    folder.file("file", b"one two three");
    for line in ["COUNT file >&-", "COUNT file file >&-", "COUNT missing >&-", "COUNT < file >&-", "COUNT --help >&-"] {
        assert_like_wc_at_a_shell(&folder.0, line);
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = count_words().arg(folder.0.join("file")).stdout(full).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "count_words: write error: No space left on device\n");
    assert_eq!(output.status.code(), Some(1));
}

/// One that counts, and what it and its workers say on their stderr, which ends with the last of them.
fn start(command: Command) -> (Child, PipeReader) {
    let (said, writer) = ipc::pipe().unwrap();
    (command.stdout(Stdio::null()).stderr(writer).spawn().unwrap(), said)
}

/// Its workers, once it has that many and all sleep, as they do when they have opened a FIFO or try to.
#[track_caller]
fn sleeping_workers(master: &Child, count: usize) -> Vec<u32> {
    let sleeps = |worker: &u32| process_state(*worker) == Some('S');
    poll_until("the workers wait for their files", || {
        let workers = children_of(master.id());
        workers.len() == count && workers.iter().all(sleeps) && process_state(master.id()) == Some('S')
    });
    children_of(master.id())
}

pub fn count_words_leaves_no_worker_behind() {
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGINT] {
        let folder = Folder::new();
        // One is blocked in open, one in read, and two have nothing to do.
        let (nobody, somebody) = (folder.0.join("nobody"), folder.0.join("somebody"));
        assert!(Command::new("mkfifo").arg(&nobody).arg(&somebody).status().unwrap().success());
        let files = [nobody.as_path(), &somebody, Path::new("/dev/null"), Path::new("/dev/null")];
        let (master, mut said) = start(count_words().args(["--workers", "4"]).args(files));
        let mut feeder = File::options().write(true).open(&somebody).unwrap();
        feeder.write_all(b"some words").unwrap();
        sleeping_workers(&master, 4);
        master.signal(signal).unwrap();
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap(); // its EOF: nobody is left
        assert_eq!(text, "");
        assert_eq!(master.wait().unwrap().signal(), Some(signal));
        super::support::await_orphans(4);
    }
}

pub fn count_words_workers_leave_by_their_lifeline_too() {
    // As where the kernel does not end them with their parent, and says that it would.
    let folder = Folder::new();
    let fifo = fifo_in(&folder);
    Kernel::new().with(libc::SYS_prctl, 0, Is::Equal(libc::PR_SET_PDEATHSIG as u32), 0).play();
    let (master, mut said) = start(count_words().args(["--workers", "1"]).arg(&fifo));
    let mut feeder = File::options().write(true).open(&fifo).unwrap();
    sleeping_workers(&master, 1);
    master.kill().unwrap();
    master.wait().unwrap();
    // It has something to count for ever, and leaves at the first piece.
    while feeder.write_all(b"some words\n").is_ok() {}
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
    super::support::await_orphans(1);
}

fn fifo_in(folder: &Folder) -> std::path::PathBuf {
    let path = folder.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

pub fn count_words_does_not_count_the_rest_of_a_stream_for_all_of_it() {
    let folder = Folder::new();
    let file = folder.file("file", b"one two three");
    let fifo = fifo_in(&folder);
    for (name, stdin) in [("-", true), (fifo.to_str().unwrap(), false)] {
        let (input, output): (PipeReader, PipeWriter) = ipc::pipe().unwrap();
        let (mut printed, stdout) = ipc::pipe().unwrap();
        let (mut said, stderr) = ipc::pipe().unwrap();
        let command = count_words().args(["--workers", "1", name]).arg(&file);
        let master = command.stdin(input).stdout(stdout).stderr(stderr).spawn().unwrap();
        let mut feeder: Box<dyn Write> =
            if stdin { Box::new(output) } else { Box::new(File::options().write(true).open(&fifo).unwrap()) };
        feeder.write_all(b"some words ").unwrap();
        let [worker] = sleeping_workers(&master, 1)[..] else { panic!("one worker") };
        // SAFETY: two numbers.
        assert_eq!(unsafe { libc::kill(worker as libc::pid_t, libc::SIGKILL) }, 0);
        // Whoever took it up again would count what comes now.
        let _ = feeder.write_all(b"and some more");
        drop(feeder);
        let (mut numbers, mut messages) = (String::new(), String::new());
        printed.read_to_string(&mut numbers).unwrap();
        said.read_to_string(&mut messages).unwrap();
        assert_eq!(exit_code(&master), 1, "{messages}");
        assert!(messages.contains(&format!("{name}: given up, as a worker was lost on it")), "{messages}");
        assert_eq!(numbers.split_whitespace().collect::<Vec<_>>(), ["3", file.to_str().unwrap(), "3", "total"]);
    }
    // And the one that is to die dies of what can be counted again.
    folder.file("words", b"some words");
    let line = "\"$0\" --kill-one --workers 1 - file < words";
    let output = Command::new("sh").args(["-c", line]).arg(example("count_words")).current_dir(&folder.0).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), " 2 -\n 3 file\n 5 total\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("file goes to another"));
    assert_eq!(output.status.code(), Some(0));
}
