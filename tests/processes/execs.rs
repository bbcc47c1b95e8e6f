//! Becoming another program: `exec` keeps the process and gives the ends, and one that fails changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

use super::command_start::{Directory, errno, set_of};
use crate::support::{
    self, Sigpipe, Trial, block_signal, closed_standard_descriptors, exit_code, limit_descriptors, read_all,
    signal_mask, sigpipe,
};
use ipc::{Command, Error, Stdio, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        exec_keeps_the_process_and_gives_the_ends,
        what_was_printed_before_an_exec_is_not_lost,
        exec_comes_right_with_closed_standard_descriptors,
        an_exec_that_fails_changes_nothing,
        an_exec_that_fails_puts_back_what_it_kept_on_a_given_number,
        an_exec_with_a_full_table_changes_nothing,
        an_exec_that_failed_can_be_tried_again,
    ]
}

fn exec_keeps_the_process_and_gives_the_ends() {
    let (reader, writer) = pipe().unwrap();
    let (from, mut to) = pipe().unwrap();
    let (named, mut to_named) = pipe().unwrap();
    let child = fork((writer, from, named), |(writer, from, named)| {
        let script = "echo $$; pwd; cat; cat <&9; echo \"$IPC_ENDS\"; echo $A";
        let command = Command::new("sh").args(["-c", script]).current_dir("/").env("A", "a");
        Err::<(), _>(command.stdout(writer).stdin(from).give_at(9, named).exec())
    })
    .unwrap();
    to.write_all(b"input\n").unwrap();
    to_named.write_all(b"nine\n").unwrap();
    drop((to, to_named));
    let said = String::from_utf8(read_all(reader)).unwrap();
    assert_eq!(said, format!("{}\n/\ninput\nnine\n\na\n", child.id()));
    assert_eq!(exit_code(&child), 0);
}

fn what_was_printed_before_an_exec_is_not_lost() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        // SAFETY: two numbers. This process's stdout is the pipe from here on.
        assert_eq!(unsafe { libc::dup2(writer.as_raw_fd(), 1) }, 1);
        drop(writer);
        print!("before, ");
        Err::<(), _>(Command::new("echo").arg("after").exec())
    })
    .unwrap();
    assert_eq!(read_all(reader), b"before, after\n");
    assert_eq!(exit_code(&child), 0);
}

/// Everything that an exec changes in a process.
#[derive(Debug, PartialEq)]
struct State {
    /// What each number stands for, and whether it is close-on-exec.
    table: BTreeMap<RawFd, (PathBuf, i32)>,
    directory: PathBuf,
    mask: Vec<i32>,
    ignored: u64,
}

fn exec_comes_right_with_closed_standard_descriptors() {
    let (from, mut to) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let child = fork((from, writer), |(from, writer)| {
        let refused = closed_standard_descriptors(|| Command::new("cat").stdin(from).stdout(writer).exec());
        Err::<(), _>(refused)
    })
    .unwrap();
    to.write_all(b"hello").unwrap();
    drop(to);
    assert_eq!(read_all(reader), b"hello");
    assert_eq!(exit_code(&child), 0);
}

fn state() -> State {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<RawFd> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let table = numbers.into_iter().filter_map(|number| {
        let target = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        // SAFETY: an open number.
        Some((number, (target, unsafe { libc::fcntl(number, libc::F_GETFD) })))
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    State {
        table: table.collect(),
        directory: std::env::current_dir().unwrap(),
        mask: signal_mask(),
        ignored: set_of(&status, "SigIgn:"),
    }
}

fn an_exec_that_fails_changes_nothing() {
    block_signal(libc::SIGUSR1);
    let file = File::open("/dev/null").unwrap();
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        sigpipe(disposition);
        for (program, directory) in [("/no/such/program", "/"), ("/dev/null", "/"), ("true", "/no/such/directory")] {
            let (from, to) = pipe().unwrap();
            let (reader, writer) = pipe().unwrap();
            let (extra, _extra_writer) = pipe().unwrap();
            let (one, two) = (from.as_raw_fd(), writer.as_raw_fd());
            let command = Command::new(program).current_dir(directory).stdin(Stdio::null()).stdout(writer);
            // Onto each other, onto a file of this process, and onto nothing.
            let command = command.give_at(two, from).give_at(one, extra.try_clone().unwrap());
            let command = command.give_at(file.as_raw_fd(), extra.try_clone().unwrap()).give_at(300, extra);
            let before = state();
            let open = open_ends();
            let refused = command.exec();
            assert!(matches!(refused.error, Error::System { .. }), "{refused:?}");
            assert_eq!(state(), before);
            assert_eq!(open_ends(), open);
            assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
            drop(refused);
            assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
            assert!(to.is_closed().unwrap());
        }
    }
}

/// What a number stood for is kept on the lowest one that is free, and that may be given as well.
fn an_exec_that_fails_puts_back_what_it_kept_on_a_given_number() {
    let file = File::open("/dev/null").unwrap();
    let ((one, _one_writer), (two, _two_writer)) = (pipe().unwrap(), pipe().unwrap());
    // The copies of the two ends go to the first two, and the file is kept on the third.
    // SAFETY: numbers, which may stand for nothing.
    let free: Vec<_> = (3..).filter(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } == -1).take(3).collect();
    let before = state();
    let refused = Command::new("/no/such/program").give_at(file.as_raw_fd(), one).give_at(free[2], two).exec();
    assert!(matches!(refused.error, Error::System { call: "execve", .. }), "{refused:?}");
    assert_eq!(state(), before);
}

fn an_exec_with_a_full_table_changes_nothing() {
    let mut refused_for_the_table = 0;
    for free in 0..16 {
        let (from, _to) = pipe().unwrap();
        let (_reader, writer) = pipe().unwrap();
        let (named, _named_writer) = pipe().unwrap();
        let command = Command::new("/no/such/program").current_dir("/").stdin(from).stdout(writer).give("named", named);
        let full = limit_descriptors(free);
        // Looking takes descriptors too.
        let open = open_ends();
        let refused = command.exec();
        assert_eq!(open_ends(), open);
        match errno(&refused.error) {
            Some(libc::EMFILE) => refused_for_the_table += 1,
            Some(libc::ENOENT) => {}
            other => panic!("with {free} free places: {other:?}"),
        }
        drop(full);
        let before = state();
        let refused = refused.command.exec();
        assert_eq!(errno(&refused.error), Some(libc::ENOENT));
        assert_eq!(state(), before);
    }
    assert!((3..14).contains(&refused_for_the_table), "{refused_for_the_table}");
}

fn an_exec_that_failed_can_be_tried_again() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let refused = Command::new("./true-later").stdout(writer).arg("x").exec();
        assert_eq!(errno(&refused.error), Some(libc::ENOENT));
        std::env::set_current_dir("/").unwrap();
        let directory = Directory::new();
        std::env::set_current_dir(&directory.0).unwrap();
        directory.file("true-later", "#!/bin/sh\nrm \"$0\"; rmdir \"$PWD\"; echo \"done $1\"\n", 0o755);
        let refused = refused.command.exec();
        eprintln!("{refused:?}");
    })
    .unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "done x\n");
    assert_eq!(exit_code(&child), 0);
}
