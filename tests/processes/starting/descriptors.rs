//! What a program has open: whatever it was given, and nothing else.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{errno, said, sh};
use crate::support::{self, Is, Kernel, Trial, closed_standard_descriptors, exit_code, read_all};
use ipc::{Command, Error, Stdio, fork, open_ends, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        nothing_else_leaks,
        nothing_else_leaks_on_an_older_kernel,
        an_exec_that_fails_closes_nothing_on_an_older_kernel,
        a_descriptor_that_is_not_close_on_exec_is_open_once,
        permutations_come_out_right,
        a_pidfd_keeps_above_the_standard_three,
        no_hidden_copy_is_made_of_what_is_given,
        a_socket_is_both_stdin_and_stdout,
        an_end_is_lent_and_shared,
        the_pipes_of_a_child_of_std_are_ends,
        this_processes_stdout_can_be_a_programs_stderr,
    ]
}

/// A descriptor that every program inherits.
fn inheritable() -> OwnedFd {
    let file = File::open("/dev/null").unwrap();
    // SAFETY: a number, and the copy that was just made.
    unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) }
}

/// The numbers that a program has open. (A listing of the directory would have one of its own.)
const OPEN: &str = "i=0; while [ $i -lt 200 ]; do [ -e /proc/$$/fd/$i ] && printf \"$i \"; i=$((i+1)); done; echo";

fn nothing_else_leaks() {
    let leaks: Vec<_> = (0..5).map(|_| inheritable()).collect();
    let high = leaks[4].as_raw_fd() + 100;
    // SAFETY: a number that nothing has.
    let high = unsafe { OwnedFd::from_raw_fd(libc::dup2(leaks[4].as_raw_fd(), high)) };
    assert!(said(sh(OPEN)).split_whitespace().count() >= 9, "they leak");
    assert_eq!(said(sh(OPEN).close_others()), "0 1 2 \n");
    let (reader, writer) = pipe().unwrap();
    let (one, two) = (leaks[1].as_raw_fd(), high.as_raw_fd() + 7);
    let text = said(sh(OPEN).close_others().give_at(one, reader).give_at(two, writer));
    assert_eq!(text, format!("0 1 2 {one} {two} \n"));
    // Also after an exec, and with another user, whose steps have a pipe to report on.
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh(OPEN).stdout(writer).close_others().exec())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!((&*text, exit_code(&child)), ("0 1 2 \n", 0));
    // SAFETY: an empty hook.
    assert_eq!(said(unsafe { sh(OPEN).close_others().pre_exec(|| Ok(())) }), "0 1 2 \n");
}

fn nothing_else_leaks_on_an_older_kernel() {
    // 5.10 closes, and marks nothing.
    Kernel::new().with(libc::SYS_close_range, 2, Is::AnyOf(4), libc::EINVAL).play();
    let _leaks: Vec<_> = (0..5).map(|_| inheritable()).collect();
    let (reader, _writer) = pipe().unwrap();
    assert_eq!(said(sh(OPEN).close_others().give_at(9, reader).die_with_parent()), "0 1 2 9 \n");
    // SAFETY: an empty hook.
    assert_eq!(said(unsafe { sh(OPEN).close_others().die_with_parent().pre_exec(|| Ok(())) }), "0 1 2 \n");
    let refused = Command::new("/no/such/program").close_others().spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    // SAFETY: a hook that only fails.
    let command = unsafe { sh(OPEN).close_others().pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EDOM))) };
    assert_eq!(errno(&command.spawn().unwrap_err().error), ("pre_exec", libc::EDOM), "which was told");
}

fn an_exec_that_fails_closes_nothing_on_an_older_kernel() {
    Kernel::new().with(libc::SYS_close_range, 2, Is::AnyOf(4), libc::EINVAL).play();
    let leak = inheritable();
    let (reader, mut writer) = pipe().unwrap();
    let refused = Command::new("/no/such/program").close_others().exec();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    writer.write_all(b"still here").unwrap();
    drop(writer);
    assert_eq!(read_all(reader), b"still here");
    assert_eq!(crate::support::descriptor_flags(&leak), libc::FD_CLOEXEC, "as the docs say");
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh(OPEN).stdout(writer).close_others().exec())).unwrap();
    assert_eq!((&*read_all(reader), exit_code(&child)), (&b"0 1 2 \n"[..], 0));
}

fn a_descriptor_that_is_not_close_on_exec_is_open_once() {
    a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program();
    // An exec puts it back if it fails.
    let fd = inheritable();
    let child = fork((), |()| {
        let refused = Command::new("/no/such/program").give_at(50, fd.try_clone().unwrap()).stdin(fd).exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        drop(refused);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

pub(super) fn a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program() {
    let own = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let has = |text: &str, number: &str| text.split_whitespace().any(|other| other == number);
    let fd = inheritable();
    let number = own(&fd);
    assert!(has(&said(sh(OPEN)), &number), "it is inherited");
    let text = said(sh(OPEN).give_at(50, fd));
    assert!(has(&text, "50") && !has(&text, &number), "{text}");
    let fd = inheritable();
    let number = own(&fd);
    let text = said(sh(OPEN).stdin(fd));
    assert!(!has(&text, &number), "{text}");
    // Given by its name, it keeps its number.
    let fd = inheritable();
    let number = own(&fd);
    assert!(has(&said(sh(OPEN).give("file", fd)), &number));
}

/// Every end in the place of another, in a table that has no place more than it needs.
fn permutations_come_out_right() {
    let text = |number: i32| format!("cat <&{number};");
    let ends: Vec<_> = (0..4_u8).map(|i| (i, pipe().unwrap())).collect();
    let mut ends: Vec<_> = ends
        .into_iter()
        .map(|(i, (reader, mut writer))| {
            writer.write_all(&[b'a' + i]).unwrap();
            reader
        })
        .collect();
    let numbers: Vec<_> = ends.iter().map(AsRawFd::as_raw_fd).collect();
    let script: String = numbers.iter().map(|number| text(*number)).collect();
    let mut command = sh(&script);
    // The one of the second goes to the first, and so on, and one is given by its name, which has to make way.
    ends.rotate_left(1);
    let named = ends.pop().unwrap();
    for (end, number) in ends.into_iter().zip(&numbers) {
        command = command.give_at(*number, end);
    }
    let output = command.give("named", named).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "bcd", "{numbers:?}");
}

fn a_pidfd_keeps_above_the_standard_three() {
    closed_standard_descriptors(|| {
        let child = Command::new("true").spawn().unwrap();
        assert!(child.as_raw_fd() > 2, "{}", child.as_raw_fd());
        assert_eq!(child.as_raw_fd(), child.as_fd().as_raw_fd());
        let forked = fork((), |()| ()).unwrap();
        assert!(forked.as_raw_fd() > 2);
        assert_eq!((child.wait().unwrap().code(), forked.wait().unwrap().code()), (Some(0), Some(0)));
    });
}

/// A copy of an end that the ledger does not know would be open in a child that another thread forks meanwhile.
fn no_hidden_copy_is_made_of_what_is_given() {
    let (reader, writer) = pipe().unwrap();
    let (other, _other_writer) = pipe().unwrap();
    let (own, inode) = (writer.as_raw_fd(), inode(writer.as_raw_fd()));
    // Its own number goes to another, and that one's to it.
    let command = Command::new("true").give_at(own, other).give_at(150, writer);
    // SAFETY: system calls alone.
    let command = unsafe {
        command.pre_exec(move || {
            match (3..1000).filter(|number| *number != 150 && self::inode(*number) == inode).count() {
                // The reader, and the one that the swap takes in the new process, where it is close-on-exec.
                2 => Ok(()),
                count => Err(std::io::Error::from_raw_os_error(count as i32)),
            }
        })
    };
    assert!(command.status().unwrap().success());
    assert_eq!(read_all(reader), b"");
}

fn inode(number: i32) -> Option<libc::ino_t> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a number, and room for what is said about it, which is integers.
    unsafe { (libc::fstat(number, stat.as_mut_ptr()) == 0).then(|| stat.assume_init().st_ino) }
}

fn a_socket_is_both_stdin_and_stdout() {
    let pair = stream_pair().unwrap();
    let socket = Arc::new(pair.child);
    let child = Command::new("cat").stdin(socket.clone()).stdout(socket).spawn().unwrap();
    let mut parent = pair.parent;
    parent.write_all(b"there and back").unwrap();
    let mut text = [0; 14];
    parent.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"there and back");
    drop(parent);
    assert_eq!(exit_code(&child), 0);
}

fn an_end_is_lent_and_shared() {
    let (reader, writer) = pipe().unwrap();
    let writer = Arc::new(writer);
    for word in ["one", "two"] {
        assert!(Command::new("echo").arg(word).stdout(&*writer).status().unwrap().success());
        let number = 9;
        assert!(sh("echo again >&9").give_at(number, writer.clone()).status().unwrap().success());
    }
    let open = open_ends();
    let command = Command::new("true").stdout(&*writer);
    assert_eq!(open_ends(), open + 1, "a copy, which is an end");
    drop((command, writer));
    assert_eq!(read_all(reader), b"one\nagain\ntwo\nagain\n");
    // What could not be lent is said as often as it is tried.
    let command = Command::new("true").stdin(&Vec::<File>::new());
    let refused = command.spawn().unwrap_err();
    assert!(matches!(refused.error, Error::InvalidInput { .. }));
    assert!(matches!(refused.command.spawn().unwrap_err().error, Error::InvalidInput { .. }));
}

fn the_pipes_of_a_child_of_std_are_ends() {
    let piped = std::process::Stdio::piped;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "cat; echo err >&2"]).stdin(piped()).stdout(piped()).stderr(piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = ipc::PipeWriter::from(child.stdin.take().unwrap());
    let stdout = ipc::PipeReader::from(child.stdout.take().unwrap());
    let stderr = ipc::PipeReader::from(child.stderr.take().unwrap());
    assert!(matches!(stdout.read_timeout(&mut [0], Duration::from_millis(1)), Err(Error::TimedOut)));
    stdin.write_all(b"in").unwrap();
    drop(stdin);
    assert_eq!((read_all(stdout), read_all(stderr)), (b"in".to_vec(), b"err\n".to_vec()));
    assert!(child.wait().unwrap().success());
}

fn this_processes_stdout_can_be_a_programs_stderr() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        // SAFETY: this process's own stdout.
        assert!(unsafe { libc::dup2(writer.as_raw_fd(), 1) } == 1);
        drop(writer);
        let command = sh("echo there >&2").stdout(Stdio::null()).stderr(std::io::stdout());
        assert!(command.status().unwrap().success());
    });
    assert_eq!(read_all(reader), b"there\n");
    assert_eq!(exit_code(&child.unwrap()), 0);
}
