//! The example that counts words on several machines, one of which fails: it prints what `wc -w` prints.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{self, Folder, Trial, example};

pub fn trials() -> Vec<Trial> {
    support::trials![
        totals_are_those_of_wc_over_each_link,
        a_machine_that_is_killed_is_noticed,
        a_machine_that_leaves_before_it_connects_is_said,
        a_file_that_cannot_be_read_is_said,
        a_folder_is_said_and_has_a_line_as_with_wc,
        wrong_arguments_are_said_with_the_usage,
        help_prints_the_usage,
        a_machine_in_a_namespace_that_is_killed_is_noticed needs [OwnNetwork, IP],
        a_machine_that_is_cut_off_is_noticed needs [OwnNetwork, IP] within 120,
        values_go_through_tls,
    ]
}

const LINKS: [&str; 3] = ["tcp", "zeromq", "rpc"];

fn files(folder: &Folder) -> Vec<PathBuf> {
    let words = ["naïve", "façade", "a", "\u{a0}", "\x07", "\n", "  ", "longer-than-others"];
    let file = |number: usize| {
        let mut text = String::new();
        for word in 0..number * 40_000 {
            write!(text, "{} ", words[(word * 7 + number) % words.len()]).unwrap();
        }
        let path = folder.0.join(format!("{number}.txt"));
        std::fs::write(&path, text).unwrap();
        path
    };
    (0..7).map(file).collect()
}

/// What it said beside the counts, which are those of `wc -w`.
#[track_caller]
fn assert_counts(arguments: &[&str]) -> String {
    let folder = Folder::new();
    let files = files(&folder);
    let wc = Command::new("wc").arg("-w").args(&files).env("LC_ALL", "C.UTF-8").output().unwrap();
    let output = Command::new(example("count_words_cluster")).args(arguments).args(&files).output().unwrap();
    // A machine that is killed leaves its worker, which sees EOF and leaves too.
    support::await_whoever_is_left();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&wc.stdout), "{arguments:?}: {said}");
    said
}

/// The same, with a first machine that fails half-way.
#[track_caller]
fn assert_one_is_gone(arguments: &[&str]) {
    let said = assert_counts(arguments);
    assert!(said.contains("machine 1 is gone, and its piece goes to another one: "), "{arguments:?}: {said}");
}

fn totals_are_those_of_wc_over_each_link() {
    for link in LINKS {
        let said = assert_counts(&["--link", link, "--on", "loopback", "--fault", "none"]);
        assert_eq!(said, "", "{link}");
    }
}

fn a_machine_that_is_killed_is_noticed() {
    for link in LINKS {
        assert_one_is_gone(&["--link", link, "--on", "loopback", "--fault", "kill"]);
    }
}

fn a_machine_in_a_namespace_that_is_killed_is_noticed() {
    for link in LINKS {
        assert_one_is_gone(&["--link", link, "--on", "namespaces", "--fault", "kill"]);
    }
}

fn a_machine_that_is_cut_off_is_noticed() {
    for link in LINKS {
        assert_one_is_gone(&["--link", link, "--on", "namespaces", "--fault", "cut"]);
    }
}

fn a_machine_that_leaves_before_it_connects_is_said() {
    // The programs that make a machine, of which one makes none that can connect.
    let folder = Folder::new();
    for (program, does) in [
        ("ip", "exit 0"),
        ("nsenter", "exit 0"),
        ("unshare", "shift 2; exec \"$1\" --link \"$3\" --worker 127.0.0.1:1 \"$6\""),
    ] {
        let path = folder.0.join(program);
        std::fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for link in ["tcp", "rpc"] {
        let output = Command::new(example("count_words_cluster"))
            .args(["--link", link, "--on", "namespaces", "/dev/null"])
            .env("COUNT_WORDS_CLUSTER_ENTERED", "1")
            .env("PATH", &folder.0)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{link}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.ends_with("machine 1 has left before it connected\n"), "{link}: {said}");
    }
}

fn a_file_that_cannot_be_read_is_said() {
    let folder = Folder::new();
    let missing = folder.0.join("missing");
    let output =
        Command::new(example("count_words_cluster")).args(["--on", "loopback"]).arg(&missing).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = format!("count_words_cluster: {}: No such file or directory\n", missing.display());
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}

fn a_folder_is_said_and_has_a_line_as_with_wc() {
    let folder = Folder::new();
    let arguments = |command: &mut Command| command.arg(&folder.0).arg("Cargo.toml").output().unwrap();
    let ours = arguments(Command::new(example("count_words_cluster")).args(["--on", "loopback"]));
    let theirs = arguments(Command::new("wc").arg("-w").env("LC_ALL", "C.UTF-8"));
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)));
    assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&theirs.stdout));
    let said = format!("count_words_cluster: {}: Is a directory\n", folder.0.display());
    assert!(String::from_utf8_lossy(&ours.stderr).starts_with(&said), "{ours:?}");
}

fn wrong_arguments_are_said_with_the_usage() {
    for (arguments, wrong) in [
        ("--unknown file", "invalid option '--unknown'"),
        ("--link none file", "no link is called none"),
        ("--machines 0 file", "--machines takes a number over 0"),
        ("", "there is no FILE"),
    ] {
        let output = Command::new(example("count_words_cluster")).args(arguments.split_whitespace()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(&format!("count_words_cluster: {wrong}\nusage: ")), "{arguments}: {said}");
    }
}

fn help_prints_the_usage() {
    let output = Command::new(example("count_words_cluster")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for option in ["--link", "--machines", "--on", "--fault", "--help"] {
        assert!(help.starts_with("usage: count_words_cluster") && help.contains(&format!("\n  {option} ")), "{help}");
    }
}

fn values_go_through_tls() {
    let output = Command::new(example("tls")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000 answers, the longest of 1000000 bytes\n");
}
