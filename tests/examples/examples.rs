//! The examples print what they are to print, and `count_words` what `wc -w` prints.

#[path = "count_words.rs"]
mod count_words;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{self, Folder, Trial, example, exit_code};
use count_words::*;
use ipc::Command;

pub fn trials() -> Vec<Trial> {
    #[allow(unused_mut)]
    let mut trials = support::trials![
        the_readme_lists_every_example,
        first_pipe_prints_what_went_in,
        sharing_pipes_prints_ten_lines,
        heavy_lifting_prints_four_answers_in_order,
        who_holds_names_the_culprit_and_the_end_arrives,
        who_holds_prints_a_picture_and_nothing_else,
        who_holds_refuses_what_is_no_process,
        explained_timeout_names_who_is_waited_for,
        count_words_prints_what_wc_prints within 60,
        count_words_counts_odd_text_as_wc_does within 120,
        count_words_loses_nothing_with_a_worker within 60,
        count_words_gives_up_on_a_file_that_cannot_be_read within 60,
        count_words_takes_names_that_are_no_text within 60,
        count_words_says_how_it_is_used,
        count_words_takes_stdin_as_wc_does,
        count_words_complains_as_wc_does,
        count_words_quotes_names_as_wc_does,
        count_words_counts_what_is_not_utf8_as_wc_does,
        count_words_dies_of_sigpipe_when_nobody_reads,
        count_words_fails_when_stdout_is_closed_or_full,
        count_words_leaves_no_worker_behind,
        count_words_workers_leave_by_their_lifeline_too,
        count_words_does_not_count_the_rest_of_a_stream_for_all_of_it,
        soak_counts_what_it_has_done within 120,
        soak_leaves_nobody_behind_when_it_is_stopped within 120,
        soak_says_how_it_is_used,
    ];
    #[cfg(feature = "channel")]
    trials.extend(support::trials![
        pool_prints_results_in_order_whatever_happens_to_its_workers within 60,
        pool_finishes_what_has_begun_when_it_is_stopped within 60,
        pool_workers_go_on_after_a_ctrl_c,
        pool_waits_for_no_worker_that_stays within 60,
        pool_shows_on_a_terminal_how_far_it_is,
        pool_says_how_it_is_used,
    ]);
    trials
}

fn run(name: &str, args: &[&str]) -> Output {
    Command::new(example(name)).args(args).output().unwrap()
}

#[track_caller]
fn assert_prints(output: &Output, expected: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{}", output.status);
}

fn the_readme_lists_every_example() {
    let readme = std::fs::read_to_string(in_repository("README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Examples\n")).expect("a section of them");
    let listed = section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    let entries = std::fs::read_dir(in_repository("examples")).unwrap().map(|entry| entry.unwrap().path());
    let examples = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), examples.collect());
}

fn first_pipe_prints_what_went_in() {
    assert_prints(&run("first_pipe", &[]), "Into the pipe I go...\n");
}

fn sharing_pipes_prints_ten_lines() {
    assert_prints(&run("sharing_pipes", &[]), &"Another one bites the dust\n".repeat(10));
}

fn heavy_lifting_prints_four_answers_in_order() {
    let expected = "Heavy lifting accomplished!\nHeavy lifting accomplished!\n\
                    Feather lifting accomplished!\nFeather lifting accomplished!\n";
    assert_prints(&run("heavy_lifting", &[]), expected);
}

fn who_holds_names_the_culprit_and_the_end_arrives() {
    let output = run("who_holds", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("holds a writer, as descriptor"), "{text}");
    assert!(text.ends_with("It is gone now, and the end arrives.\n"), "{text}");
    let map = text.lines().skip_while(|line| !line.ends_with(" master")).collect::<Vec<_>>();
    let culprit =
        map.iter().find_map(|line| line.strip_prefix("└─ ")?.strip_suffix(" second worker")).expect("a worker");
    assert!(text.contains("\n! both ends of pipe ") && text.contains(&format!(" are held by {culprit}: until")));
    assert!(text.contains(&format!("\n{culprit} (second worker) holds a writer, as descriptor")), "{text}");
}

fn who_holds_prints_a_picture_and_nothing_else() {
    let of_this = std::process::id().to_string();
    for (option, first, last) in [("--dot", "digraph ipc {\n", "\n}\n"), ("--mermaid", "flowchart LR\n", "\n")] {
        for args in [&[option][..], &[option, &of_this]] {
            let output = run("who_holds", args);
            assert!(output.status.success());
            let picture = String::from_utf8(output.stdout).unwrap();
            assert!(picture.starts_with(first) && picture.ends_with(last), "{picture}");
            assert!(!picture.contains("the answer is"), "{picture}");
            assert_eq!(args.len() == 1, String::from_utf8(output.stderr).unwrap().ends_with("the end arrives.\n"));
        }
    }
}

fn explained_timeout_names_who_is_waited_for() {
    let output = run("explained_timeout", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    // The numbers of processes and descriptors are of today.
    let lines = text.lines().filter(|line| !line.contains("could not be looked into"));
    let shape = lines
        .map(|line| line.split_whitespace().filter(|word| word.parse::<u32>().is_err()).collect::<Vec<_>>().join(" "));
    let expected = [
        "the result is",
        "nothing for 100ms; the channel is held by",
        "master fd reads (this process)",
        "sleepy fd writes",
        "",
        "the answer is yes",
        "nothing for 100ms; the channel is held by",
        "master fd this side (this process)",
        "deaf fd the other side",
    ];
    assert_eq!(shape.collect::<Vec<_>>(), expected, "{text}");
}

fn who_holds_refuses_what_is_no_process() {
    for args in [["banana"], ["4294967294"], ["-1"]] {
        let output = run("who_holds", &args);
        assert!(!output.status.success());
        // Which one, of those that somebody may have asked about.
        assert!(String::from_utf8_lossy(&output.stderr).contains(args[0]));
    }
}

/// The same files for both, and the same answer.
#[track_caller]
fn assert_like_wc(options: &[&str], files: &[impl AsRef<Path>]) {
    let files = || files.iter().map(|file| file.as_ref().as_os_str());
    let ours = Command::new(example("count_words")).args(options).args(files()).output().unwrap();
    let wc = Command::new("wc").arg("-w").args(files()).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&wc.stdout));
    assert_eq!(ours.status.code(), wc.status.code(), "{}", String::from_utf8_lossy(&ours.stderr));
}

fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn count_words_prints_what_wc_prints() {
    let files =
        ["README.md", "CHANGELOG.md", "Cargo.toml", "LICENSE", "src/lib.rs", "docs/four-ends.svg"].map(in_repository);
    assert_like_wc(&[], &files);
    assert_like_wc(&["--workers", "1"], &files);
    assert_like_wc(&["--workers", "17"], &files);
    for file in files {
        assert_like_wc(&[], &[file]);
    }
    assert_like_wc(&[], &["/dev/null", "README.md"]);
}

fn count_words_counts_odd_text_as_wc_does() {
    let folder = Folder::new();
    let pieces: [&[u8]; 20] = [
        b" ",
        b"\n",
        b"a",
        b"bc",
        "\u{a0}".as_bytes(),
        "\u{2003}".as_bytes(),
        b"\x01",
        b"\xff",
        b"\xe2\x80",
        "\u{1f600}".as_bytes(),
        b"\t",
        b"\r\n",
        "\u{2060}".as_bytes(),
        "é".as_bytes(),
        "\u{85}".as_bytes(),
        "\u{2028}".as_bytes(),
        b"\xf0\x9f",
        b"\xed\xa0\x80",
        b"\x0b\x0c",
        "\u{3000}".as_bytes(),
    ];
    // A small generator, so that every run counts the same.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut files = vec![folder.file("empty", b""), folder.file("no newline", b"the last word")];
    for i in 0..40 {
        let length = if i % 10 == 0 { 200_000 } else { random() % 300 };
        let text: Vec<u8> = (0..length).flat_map(|_| pieces[random() % pieces.len()]).copied().collect();
        files.push(folder.file(format!("{i}"), &text));
    }
    assert_like_wc(&[], &files);
}

fn count_words_loses_nothing_with_a_worker() {
    let folder = Folder::new();
    let large = folder.file("large", &b"three little words ".repeat(200_000));
    for workers in ["1", "2", "5"] {
        let files = [large.clone(), in_repository("README.md"), in_repository("Cargo.toml")];
        assert_like_wc(&["--kill-one", "--workers", workers], &files);
        let output =
            Command::new(example("count_words")).args(["--kill-one", "--workers", workers]).arg(&large).output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains("SIGKILL") && said.contains("goes to another"), "{said}");
    }
}

fn count_words_gives_up_on_a_file_that_cannot_be_read() {
    let folder = Folder::new();
    let fine = folder.file("fine", b"one two\n");
    let missing = folder.0.join("missing");
    assert_like_wc(&[], &[missing.clone(), folder.0.clone(), fine.clone()]);
    assert_like_wc(&[], std::slice::from_ref(&missing));
    let output = Command::new(example("count_words")).arg(&missing).arg(&folder.0).arg(&fine).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("missing: No such file or directory"), "{said}");
    assert!(said.contains(": Is a directory"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

fn count_words_takes_names_that_are_no_text() {
    let folder = Folder::new();
    let odd = folder.file(std::ffi::OsStr::from_bytes(b"\xff\xfe odd\tname"), b"one two three");
    let dashes = folder.file("--help", b"four");
    let output = Command::new(example("count_words"))
        .current_dir(&folder.0)
        .arg("--")
        .arg(odd.file_name().unwrap())
        .arg("--help");
    let output = output.output().unwrap();
    assert_eq!(output.stdout, b" 3 \xff\xfe odd\tname\n 1 --help\n 4 total\n");
    drop(dashes);
}

fn count_words_says_how_it_is_used() {
    let output = run("count_words", &["--help"]);
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"usage: count_words"));
    for wrong in [&["--workers"][..], &["--workers", "0"], &["--workers", "many"], &["--banana"]] {
        let output = run("count_words", wrong);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: count_words"));
    }
    // A child that is looked after like any other.
    let child = Command::new(example("count_words")).arg("--help").stdout(ipc::Stdio::null()).spawn().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn soak_counts_what_it_has_done() {
    let output = run("soak", &["--minutes", "0.01", "--workers", "1", "--seed", "1"]);
    let (table, lines) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{lines}");
    assert!(lines.contains("--seed 1"), "{lines}");
    for row in ["rounds", "processes killed", "messages received", "a kill was seen after, at most"] {
        assert!(table.contains(row), "{table}");
    }
    let one = run("soak", &["--round", "3"]);
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
}

fn soak_leaves_nobody_behind_when_it_is_stopped() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let (mut reader, writer) = ipc::pipe().unwrap();
        let soak = Command::new(example("soak")).stdout(ipc::Stdio::null()).stderr(writer).spawn().unwrap();
        let mut lines = Vec::new();
        while !lines.ends_with(b"ends passed\n") {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            lines.extend(byte);
        }
        soak.signal(signal).unwrap();
        // All that it has started have its stderr: it ends when they have.
        reader.read_to_end(&mut lines).unwrap();
        assert_eq!(exit_code(&soak), 130, "{}", String::from_utf8_lossy(&lines));
    }
}

fn soak_says_how_it_is_used() {
    assert!(run("soak", &["--help"]).stdout.starts_with(b"usage: soak"));
    for wrong in [&["--minutes"][..], &["--minutes", "-1"], &["--seed", "x"], &["--banana"]] {
        let output = run("soak", wrong);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: soak"));
    }
}

#[cfg(feature = "channel")]
fn pool_prints_results_in_order_whatever_happens_to_its_workers() {
    let expected =
        "9: [3, 3]\n10: [2, 5]\n35: [5, 7]\n15: [3, 5]\n97: [97]\n600851475143: [71, 839, 1471, 6857]\n1: []\n";
    let numbers = ["9", "10", "35", "15", "97", "600851475143", "1"];
    assert_prints(&run("pool", &numbers), expected);
    // Some crash, and one hangs.
    assert_prints(&run("pool", &[&["--trouble", "--workers", "2"], &numbers[..]].concat()), expected);
}

#[cfg(feature = "channel")]
fn pool_finishes_what_has_begun_when_it_is_stopped() {
    // The worker that hangs is replaced after the signal too, and the other job was not begun.
    let stop = |stderr: std::os::fd::OwnedFd| {
        let program = Command::new(example("pool")).args(["--trouble", "--workers", "1", "35", "97"]);
        let child = program.stdout(ipc::Stdio::null()).stderr(std::fs::File::from(stderr)).spawn().unwrap();
        // Its worker is there, so it has the signals blocked.
        support::poll_until("a worker", || !support::children_of(child.id()).is_empty());
        child.terminate().unwrap();
        child
    };
    let (reader, stderr) = ipc::pipe().unwrap();
    let (terminal, end) = terminal();
    let children = [stop(stderr.into()), stop(end)];
    assert_eq!(std::io::read_to_string(reader).unwrap(), "stopped: 1 of 2 jobs were not done\n");
    let seen = read_until(terminal, "not done\r\n");
    assert!(seen.ends_with("] 1 of 2\r\nstopped: 1 of 2 jobs were not done\r\n"), "{seen:?}");
    for child in children {
        assert_eq!(exit_code(&child), 1);
    }
}

/// A terminal, and the end of it that a program has.
#[cfg(feature = "channel")]
fn terminal() -> (std::fs::File, std::os::fd::OwnedFd) {
    use std::os::fd::{FromRawFd, OwnedFd};

    let (mut terminal, mut end) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: room for two descriptors, which are new and nobody else's.
    unsafe {
        assert_eq!(libc::openpty(&mut terminal, &mut end, none, none.cast(), none.cast()), 0);
        (OwnedFd::from_raw_fd(terminal).into(), OwnedFd::from_raw_fd(end))
    }
}

/// What a terminal shows, until it ends with `last`.
#[cfg(feature = "channel")]
fn read_until(mut terminal: std::fs::File, last: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(last.as_bytes()) {
        let mut buf = [0; 256];
        let len = terminal.read(&mut buf).unwrap();
        seen.extend_from_slice(&buf[..len]);
    }
    String::from_utf8(seen).unwrap()
}

#[cfg(feature = "channel")]
fn pool_workers_go_on_after_a_ctrl_c() {
    let child = Command::new(example("pool")).args(["--trouble", "--workers", "1", "35"]).spawn().unwrap();
    let held_back = |signal: libc::c_int| 1 << (signal - 1);
    let mut blocked = 0_u64;
    // While it is forked, a worker holds every signal back.
    support::poll_until("a worker", || {
        let [worker] = support::children_of(child.id())[..] else { return false };
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        blocked = line.map_or(u64::MAX, |set| u64::from_str_radix(set.trim(), 16).unwrap());
        blocked & held_back(libc::SIGUSR1) == 0
    });
    assert_eq!(blocked, held_back(libc::SIGINT) | held_back(libc::SIGTERM));
    child.kill().unwrap();
    child.wait().unwrap();
    support::await_orphans(1); // its worker
}

#[cfg(feature = "channel")]
fn pool_waits_for_no_worker_that_stays() {
    let (results, stdout) = ipc::pipe().unwrap();
    let program = Command::new(example("pool")).args(["--trouble", "--workers", "2", "35"]);
    let child = program.stdout(stdout).spawn().unwrap();
    support::poll_until("two workers", || support::children_of(child.id()).len() == 2);
    // One hangs as it is, and the other has no job.
    for worker in support::children_of(child.id()) {
        // SAFETY: two numbers. The worker is there until its parent reaps it, at the earliest when the time of its job is up.
        assert_eq!(unsafe { libc::kill(worker as libc::pid_t, libc::SIGSTOP) }, 0);
    }
    assert_eq!(std::io::read_to_string(results).unwrap(), "35: [5, 7]\n");
    assert_eq!(exit_code(&child), 0);
}

#[cfg(feature = "channel")]
fn pool_shows_on_a_terminal_how_far_it_is() {
    let (terminal, end) = terminal();
    let (results, stdout) = ipc::pipe().unwrap();
    let child = Command::new(example("pool"))
        .args(["--workers", "1", "6", "7", "8", "9"])
        .stdout(stdout)
        .stderr(std::fs::File::from(end))
        .spawn()
        .unwrap();
    let seen = read_until(terminal, &format!("[{}] 4 of 4\r\n", "#".repeat(40)));
    let half = format!("\r\x1b[K[{}{}] 2 of 4", "#".repeat(20), " ".repeat(20));
    assert!(seen.contains(&half), "{seen:?}");
    // The bar is the terminal's alone.
    assert_eq!(std::io::read_to_string(results).unwrap(), "6: [2, 3]\n7: [7]\n8: [2, 2, 2]\n9: [3, 3]\n");
    assert_eq!(exit_code(&child), 0);
}

#[cfg(feature = "channel")]
fn pool_says_how_it_is_used() {
    for wrong in
        [&["x"][..], &["0"], &["--nonsense"], &["--workers"], &["--workers", "zzz", "6"], &["--workers", "0", "6"]]
    {
        let output = run("pool", wrong);
        assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: pool "), "{wrong:?}");
    }
    let help = run("pool", &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"usage: pool "));
}
