//! An end that leaves this crate is a socket as the kernel makes it, and tells an empty message from EOF once it is back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{self, Gate, Trial, exit_code};
use ipc::{Command, DatagramFlags, DatagramPair, DatagramSocket, Error, Fork, datagram_pair, datagram_pair_with, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_end_that_leaves_is_as_the_kernel_makes_it,
        an_end_that_comes_back_tells_an_empty_message_from_eof,
        an_end_that_does_not_leave_stays_as_it_was,
        an_end_stays_as_it_was_where_no_program_was_started,
        receiving_ends_does_not_mark_what_a_program_was_given,
        a_send_that_fails_does_not_mark_what_a_program_was_given,
        nor_what_a_program_is_given_while_it_waits,
        an_empty_message_is_not_eof_after_a_copy_by_number_has_left,
        an_empty_message_is_not_eof_after_a_clone_has_left,
        an_empty_message_is_not_eof_after_another_process_let_the_end_leave,
        eof_arrives_on_an_end_whose_clone_has_left,
        the_first_send_gives_a_socket_no_name,
        what_the_user_set_goes_along,
    ]
}

/// An option of the socket that is an int.
pub(super) fn option(socket: impl AsFd, option: i32) -> i32 {
    let mut value = -1;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option is an int, and the length says so.
    let result = unsafe {
        let value = (&raw mut value).cast::<libc::c_void>();
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, option, value, &mut len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

#[track_caller]
fn assert_plain(socket: impl AsFd) {
    for name in [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, libc::SO_PASSCRED, libc::SO_PASSSEC] {
        assert_eq!(option(&socket, name), 0, "option {name}");
    }
}

#[track_caller]
fn assert_marked(socket: impl AsFd) {
    let marks = [libc::SO_TIMESTAMP, libc::SO_PASSSEC].map(|name| option(&socket, name) != 0);
    assert!(marks == [true, false] || marks == [false, true], "{marks:?}");
}

pub(super) fn both_kinds() -> [DatagramPair; 2] {
    [datagram_pair().unwrap(), datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()]
}

fn an_end_that_leaves_is_as_the_kernel_makes_it() {
    for pair in both_kinds() {
        assert_marked(&pair.parent);
        assert_marked(&pair.child);
        assert_plain(OwnedFd::from(pair.parent));
        // SAFETY: it was just given up.
        assert_plain(unsafe { OwnedFd::from_raw_fd(pair.child.into_raw_fd()) });
    }
    // The option is the socket's, so a clone that is kept sees it.
    let pair = datagram_pair().unwrap();
    let kept = pair.parent.try_clone().unwrap();
    drop(std::process::Stdio::from(pair.parent));
    assert_plain(&kept);
    for place in 0..5 {
        let pair = datagram_pair().unwrap();
        let kept = pair.parent.try_clone().unwrap();
        assert_marked(&kept);
        let command = Command::new("true");
        let command = match place {
            0 => command.give("end", pair.parent),
            1 => command.give_at(7, pair.parent),
            2 => command.give_path(pair.parent),
            3 => command.stdin(pair.parent),
            _ => command.stderr(pair.parent),
        };
        assert_eq!(exit_code(&command.spawn().unwrap()), 0);
        assert_plain(&kept);
    }
    // In a message, given away and lent.
    let (carrier, foreign) = datagram_pair().unwrap().into();
    let foreign = OwnedFd::from(foreign);
    for lent in [false, true] {
        let pair = datagram_pair().unwrap();
        let kept = pair.parent.try_clone().unwrap();
        if lent {
            carrier.send_with(b"lent", (&pair.parent, &pair.child)).unwrap();
        } else {
            carrier.send_with(b"given", [pair.parent, pair.child]).unwrap();
        }
        assert_plain(&kept);
        let foreign = DatagramSocket::try_from(foreign.try_clone().unwrap()).unwrap();
        let received = foreign.recv_with(&mut Vec::new()).unwrap().unwrap();
        for fd in received {
            assert_plain(fd);
        }
    }
    // A fork is no leaving.
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| assert_marked(&socket)).unwrap();
    assert_eq!(exit_code(&child), 0);
    assert_marked(&pair.parent);
}

#[track_caller]
fn assert_tells(receiver: &DatagramSocket, sender: DatagramSocket) {
    sender.send(b"").unwrap();
    sender.send(b"").unwrap();
    drop(sender);
    let mut buf = [0; 8];
    assert_eq!(receiver.recv(&mut buf).unwrap(), Some(0));
    assert!(receiver.recv_with(&mut Vec::new()).unwrap().is_some());
    assert_eq!(receiver.recv(&mut buf).unwrap(), None);
}

fn an_end_that_comes_back_tells_an_empty_message_from_eof() {
    let pair = datagram_pair().unwrap();
    let back = DatagramSocket::try_from(OwnedFd::from(pair.parent)).unwrap();
    assert_tells(&back, pair.child);

    let pair = datagram_pair().unwrap();
    // SAFETY: it was just given up.
    let back = unsafe { DatagramSocket::from_raw_fd(pair.parent.into_raw_fd()) };
    assert_tells(&back, pair.child);

    let (carrier, other) = datagram_pair().unwrap().into();
    let pair = datagram_pair().unwrap();
    carrier.send_with(b"take it", &pair.parent).unwrap();
    let back: DatagramSocket = other.recv_with(&mut Vec::new()).unwrap().unwrap().take().unwrap();
    assert_marked(&pair.parent);
    drop(pair.parent);
    assert_tells(&back, pair.child);
}

fn an_end_that_does_not_leave_stays_as_it_was() {
    let (carrier, other) = datagram_pair().unwrap().into();
    drop(other);
    let pair = datagram_pair().unwrap();
    let refused = carrier.send_with(b"to nobody", pair.parent).unwrap_err();
    assert!(matches!(refused.error, Error::Closed));
    assert_tells(&refused.ends, pair.child);

    let (carrier, other) = datagram_pair().unwrap().into();
    let pair = datagram_pair().unwrap();
    while carrier.try_send_with(b"full", ()).is_ok() {}
    let refused = carrier.try_send_with(b"no room", pair.parent).unwrap_err();
    assert!(matches!(refused.error, Error::WouldBlock));
    assert_tells(&refused.ends, pair.child);
    drop(other);
}

fn an_end_stays_as_it_was_where_no_program_was_started() {
    let missing = || Command::new("/no/such/program");
    for place in 0..6 {
        let pair = datagram_pair().unwrap();
        let shared = Arc::new(pair.parent);
        let command = match place {
            0 => missing().give("end", Arc::clone(&shared)),
            1 => missing().give_at(7, Arc::clone(&shared)),
            2 => missing().stdin(Arc::clone(&shared)),
            3 => missing().stdout(&*shared),
            // Refused before anything is tried.
            4 => missing().give("end", Arc::clone(&shared)).give("end", Arc::clone(&shared)),
            _ => missing().stdin(Arc::clone(&shared)).arg("\0"),
        };
        drop(command.spawn().unwrap_err());
        assert_tells(&shared, pair.child);
    }
    let pair = datagram_pair().unwrap();
    drop(Command::new("true").stdin(&pair.parent)); // never started
    assert_tells(&pair.parent, pair.child);

    // In a child, which goes on where it does not become the program.
    let pair = datagram_pair().unwrap();
    let child = fork(pair.parent, |end| {
        let shared = Arc::new(end);
        drop(missing().stdin(Arc::clone(&shared)).exec());
        assert_marked(&*shared);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn receiving_ends_does_not_mark_what_a_program_was_given() {
    let message = &mut Vec::new();
    for pair in both_kinds() {
        let clone = pair.child.try_clone().unwrap();
        assert!(matches!(pair.child.try_recv_with(message), Err(Error::WouldBlock)));
        assert_eq!([libc::SO_TIMESTAMP, libc::SO_PASSSEC].map(|name| option(&pair.child, name)), [1, 0]);
        assert!(matches!(clone.try_recv_with(message), Err(Error::WouldBlock)));
        assert_marked(&clone);
    }
    // The first time after the clone is a program's.
    for pair in both_kinds() {
        let program = OwnedFd::from(pair.child.try_clone().unwrap());
        for _ in 0..2 {
            assert!(matches!(pair.child.try_recv_with(message), Err(Error::WouldBlock)));
            assert_plain(&program);
        }
    }
}

fn a_send_that_fails_does_not_mark_what_a_program_was_given() {
    let (carrier, other) = datagram_pair().unwrap().into();
    drop(other);
    let pair = datagram_pair().unwrap();
    let clone = pair.child.try_clone().unwrap();
    // A clone that receives ends needs a mark that these see.
    assert!(matches!(clone.try_recv_with(&mut Vec::new()), Err(Error::WouldBlock)));
    carrier.send_with(b"to nobody", &pair.child).unwrap_err();
    assert_eq!([libc::SO_TIMESTAMP, libc::SO_PASSSEC].map(|name| option(&clone, name)), [1, 0]);

    let program = OwnedFd::from(clone);
    carrier.send_with(b"to nobody", &pair.child).unwrap_err();
    assert_plain(&program);
}

fn nor_what_a_program_is_given_while_it_waits() {
    for from_std in [false, true] {
        let (carrier, other) = datagram_pair().unwrap().into();
        while carrier.try_send(b"until it is full").is_ok() {}
        let pair = datagram_pair().unwrap();
        assert_marked(&pair.child);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| carrier.send_with(b"no room", &pair.child).unwrap_err());
            support::poll_until("it is about to leave", || {
                [libc::SO_TIMESTAMP, libc::SO_PASSSEC].iter().all(|name| option(&pair.child, *name) == 0)
            });
            let clone = pair.child.try_clone().unwrap();
            let program = match from_std {
                false => Command::new("true").stdin(clone).spawn().map(|program| program.wait().unwrap()).unwrap(),
                true => std::process::Command::new("true").stdin(OwnedFd::from(clone)).status().unwrap(),
            };
            assert!(program.success());
            drop(other); // the other end is not sent
            waiting.join().unwrap();
        });
        assert_plain(&pair.child);
    }
}

fn an_empty_message_is_not_eof_after_a_copy_by_number_has_left() {
    let pair = datagram_pair().unwrap();
    assert!(matches!(pair.parent.try_recv_with(&mut Vec::new()), Err(Error::WouldBlock)));
    let copy = DatagramSocket::try_from(pair.parent.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_plain(OwnedFd::from(copy));
    pair.child.send(b"").unwrap();
    assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), Some(0));
    pair.child.send(b"").unwrap();
    assert!(pair.parent.recv_with(&mut Vec::new()).unwrap().is_some());
}

fn an_empty_message_is_not_eof_after_a_clone_has_left() {
    for pair in both_kinds() {
        let left = OwnedFd::from(pair.parent.try_clone().unwrap());
        let mut buf = [0; 8];
        for text in [&b""[..], b"", b"text", b""] {
            pair.child.send(text).unwrap();
            pair.child.send(text).unwrap();
            assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(text.len()));
            let mut message = b"before".to_vec();
            assert!(pair.parent.try_recv_with(&mut message).unwrap().is_some());
            assert_eq!(message, text);
        }
        assert!(matches!(pair.parent.try_recv(&mut buf), Err(Error::WouldBlock)));
        drop(left);
    }
}

fn an_empty_message_is_not_eof_after_another_process_let_the_end_leave() {
    // It is lent; or the fork leaves all ends in both.
    for lent in [true, false] {
        let pair = datagram_pair().unwrap();
        let gate = Gate::new();
        let leave = || {
            drop(OwnedFd::from(pair.parent.try_clone().unwrap()));
            gate.open();
        };
        let child = match lent {
            true => fork(&pair.parent, |_| leave()).unwrap(),
            false => Fork::new().keep_all_ends().spawn((), |()| leave()).unwrap(),
        };
        gate.pass();
        assert_plain(&pair.parent);
        for _ in 0..2 {
            pair.child.send(b"").unwrap();
            assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), Some(0));
        }
        assert_eq!(exit_code(&child), 0);
    }
}

fn eof_arrives_on_an_end_whose_clone_has_left() {
    let pair = datagram_pair().unwrap();
    let _left = OwnedFd::from(pair.parent.try_clone().unwrap());
    pair.child.send(b"last").unwrap();
    drop(pair.child);
    let mut buf = [0; 8];
    assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(4));
    for _ in 0..2 {
        assert_eq!(pair.parent.recv(&mut buf).unwrap(), None);
        assert_eq!(pair.parent.recv_timeout(&mut buf, Duration::from_secs(5)).unwrap(), None);
    }
}

fn the_first_send_gives_a_socket_no_name() {
    for pair in both_kinds() {
        for socket in [&pair.parent, &pair.child] {
            socket.send(b"x").unwrap();
            assert_eq!(name_len(socket.as_fd()), 2);
            assert_eq!(option(socket, libc::SO_PASSCRED), 0);
        }
    }
}

fn name_len(fd: BorrowedFd<'_>) -> libc::socklen_t {
    // SAFETY: integers, for which zeroes are a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address and its length.
    assert_eq!(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) }, 0);
    len
}

fn what_the_user_set_goes_along() {
    let pair = datagram_pair().unwrap();
    pair.parent.set_passcred(true).unwrap();
    let fd = OwnedFd::from(pair.parent);
    assert_ne!(option(&fd, libc::SO_PASSCRED), 0);
    assert_eq!([libc::SO_TIMESTAMP, libc::SO_PASSSEC].map(|name| option(&fd, name)), [0, 0]);

    // Also what is a mark on other sockets.
    let (socket, _peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let on = 1_i32;
    // SAFETY: the option is an int, and the length says so.
    let result = unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSSEC,
            on,
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        let socket = DatagramSocket::try_from(socket).unwrap();
        assert!(matches!(socket.try_recv_with(&mut Vec::new()), Err(Error::WouldBlock)));
        assert_ne!(option(OwnedFd::from(socket), libc::SO_PASSSEC), 0);
    }
}
