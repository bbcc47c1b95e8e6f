//! Ends at numbers of a program that the standard library starts.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;

use crate::support::{self, Trial, exit_code, read_all};
use ipc::{Blob, Command, Error, datagram_pair, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_command_of_std_gives_ends_at_numbers,
        a_command_of_std_says_that_a_start_failed_whatever_it_gives,
        a_command_of_std_says_so_where_the_numbers_are_free_by_then,
        a_command_of_std_refuses_what_it_cannot_give,
        a_command_of_std_replaces_nothing_of_a_process_that_goes_on,
        a_command_of_std_in_a_child_has_no_end_that_the_child_was_not_given,
        a_command_of_std_holds_what_is_no_end_as_what_it_is,
    ]
}

/// Prints what it has at these numbers. (Not every shell has numbers of two digits.)
fn cat_of_std(numbers: &[RawFd]) -> std::process::Command {
    let mut command = std::process::Command::new("cat");
    command.args(numbers.iter().map(|number| format!("/dev/fd/{number}")));
    command
}

fn a_command_of_std_gives_ends_at_numbers() {
    let with = |text: &str| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader
    };
    let lowest = with("").as_raw_fd();
    // Where nothing is, where something is, and where std puts what it opens itself.
    for number in [50, lowest, lowest + 1, lowest + 2] {
        let reader = with("lent");
        let mut command = cat_of_std(&[number]);
        ipc::give_at(&mut command, number, &reader).unwrap();
        assert_eq!(command.output().unwrap().stdout, b"lent", "{number}");
        drop(command);
        assert_eq!(read_all(reader), b"", "it is still here, and nothing else has the writer");
    }
    // Two change places.
    let (one, other) = (with("one"), with("other"));
    let (first, second) = (one.as_raw_fd(), other.as_raw_fd());
    let mut command = cat_of_std(&[first, second]);
    ipc::give_at(&mut command, second, &one).unwrap();
    ipc::give_at(&mut command, first, &other).unwrap();
    assert_eq!(command.output().unwrap().stdout, b"otherone");
    drop(command);
    // What is given is closed here, and goes to no other program and no child.
    let (reader, writer) = pipe().unwrap();
    let mut command = std::process::Command::new("true");
    ipc::give_at(&mut command, 50, writer).unwrap();
    let (stay, leave) = pipe().unwrap();
    let child = ipc::fork(stay, |stay| read_all(stay).len() as u8).unwrap();
    let cat = Command::new("cat").stdin(reader.try_clone().unwrap()).spawn().unwrap();
    drop(command);
    assert_eq!(exit_code(&cat), 0, "EOF comes when the command is gone");
    drop(leave);
    assert_eq!(exit_code(&child), 0);
}

fn a_command_of_std_says_that_a_start_failed_whatever_it_gives() {
    let (reader, _writer) = pipe().unwrap();
    for number in 3..reader.as_raw_fd() + 8 {
        let mut command = std::process::Command::new("/no/such/program");
        ipc::give_at(&mut command, number, &reader).unwrap();
        assert_eq!(command.status().unwrap_err().raw_os_error(), Some(libc::ENOENT), "{number}");
    }
}

fn a_command_of_std_says_so_where_the_numbers_are_free_by_then() {
    // By value, each at the number that it has.
    let (reader, writer) = pipe().unwrap();
    let (one, other) = (reader.as_raw_fd(), writer.as_raw_fd());
    let mut command = std::process::Command::new("/no/such/program");
    ipc::give_at(&mut command, one, reader).unwrap();
    ipc::give_at(&mut command, other, writer).unwrap();
    assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    // What is there is another file, or none, at the start.
    for count in 1..8 {
        let (reader, writer) = pipe().unwrap();
        let there: Vec<_> = (0..count).map(|_| File::open("/dev/null").unwrap()).collect();
        let number = there.last().unwrap().as_raw_fd();
        let mut command = std::process::Command::new("/no/such/program");
        ipc::give_at(&mut command, number, &writer).unwrap();
        drop(there);
        let refused = command.spawn().unwrap_err().raw_os_error();
        assert!([Some(libc::ENOENT), Some(libc::EBUSY)].contains(&refused), "{number}: {refused:?}");
        drop((command, writer));
        assert_eq!(read_all(reader), b"", "std's report is no message");
    }
}

fn a_command_of_std_refuses_what_it_cannot_give() {
    let (reader, _writer) = pipe().unwrap();
    let mut command = std::process::Command::new("true");
    for number in [-1, 0, 2] {
        let refused = ipc::give_at(&mut command, number, &reader);
        assert!(matches!(refused, Err(Error::InvalidInput { .. })), "{refused:?}");
    }
    let refused = ipc::give_at(&mut command, 7, (&reader, &reader));
    assert!(matches!(refused, Err(Error::InvalidInput { .. })), "{refused:?}");
    assert_eq!(support::refused(ipc::give_at(&mut command, 1 << 30, &reader)), ("fcntl", libc::EBADF));
    let child = ipc::fork((), |()| {
        let refused = ipc::give_at(&mut std::process::Command::new("true"), 7, &reader);
        assert!(matches!(refused, Err(Error::NotGiven)), "{refused:?}");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert!(command.status().unwrap().success());
    // The mark of a lent socket is removed when it is given, and not before.
    let pair = datagram_pair().unwrap();
    let is_marked = || {
        let (mut on, mut len) = ([0; 2], 4);
        for (option, on) in [libc::SO_PASSSEC, libc::SO_TIMESTAMP].into_iter().zip(&mut on) {
            // SAFETY: room for an int, and its length.
            let done = unsafe {
                let on: *mut i32 = on;
                libc::getsockopt(pair.parent.as_raw_fd(), libc::SOL_SOCKET, option, on.cast(), &mut len)
            };
            assert_eq!(done, 0);
        }
        on != [0; 2]
    };
    assert!(is_marked());
    ipc::give_at(&mut command, 1 << 30, &pair.parent).unwrap_err();
    assert!(is_marked());
    ipc::give_at(&mut command, 7, &pair.parent).unwrap();
    assert!(!is_marked());
}

/// Of a program that this process would become.
fn refused_exec(command: &mut std::process::Command) -> Option<i32> {
    command.exec().raw_os_error()
}

fn a_command_of_std_replaces_nothing_of_a_process_that_goes_on() {
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"of the pipe").unwrap();
    let is_mine = |mut file: &File| {
        let mut first = [0; 4];
        file.read_exact(&mut first).unwrap();
        first == [0; 4]
    };
    let mine = File::open("/dev/zero").unwrap();
    let mut command = std::process::Command::new("/no/such/program");
    ipc::give_at(&mut command, mine.as_raw_fd(), &reader).unwrap();
    assert_eq!(refused_exec(&mut command), Some(libc::EOPNOTSUPP));
    assert!(is_mine(&mine));
    // In a child too, which has what is no end.
    let mut command = std::process::Command::new("/no/such/program");
    ipc::give_at(&mut command, mine.as_raw_fd(), File::open("/dev/null").unwrap()).unwrap();
    let child = ipc::fork((), |()| {
        assert_eq!(refused_exec(&mut command), Some(libc::EOPNOTSUPP));
        assert!(is_mine(&mine));
        assert_eq!(command.status().unwrap_err().raw_os_error(), Some(libc::ENOENT), "a start goes on");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_command_of_std_in_a_child_has_no_end_that_the_child_was_not_given() {
    let (reader, writer) = pipe().unwrap();
    for number in [50, reader.as_raw_fd()] {
        let mut command = std::process::Command::new("true");
        ipc::give_at(&mut command, number, &reader).unwrap();
        let child = ipc::fork((), |()| {
            assert_eq!(command.status().unwrap_err().raw_os_error(), Some(libc::EBADF));
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
        assert!(command.status().unwrap().success(), "it is as before here");
    }
    drop(writer);
}

fn a_command_of_std_holds_what_is_no_end_as_what_it_is() {
    let blob = Blob::new(b"for a program").unwrap();
    let open = open_ends();
    let mut command = cat_of_std(&[50]);
    ipc::give_at(&mut command, 50, &blob).unwrap();
    assert_eq!(open_ends(), open);
    assert_eq!(command.output().unwrap().stdout, b"for a program");
    let child = ipc::fork((), |()| assert_eq!(command.output().unwrap().stdout, b"for a program"));
    assert_eq!(exit_code(&child.unwrap()), 0);
}
