//! Programs in other languages at the other side, and on the same end: they get every descriptor, and sockets as the kernel
//! makes them.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{self, Gate, Trial, exit_code};
use ipc::{
    Command, DatagramFlags, DatagramPair, DatagramSocket, Error, Fork, PipeReader, PipeWriter, StreamSocket,
    datagram_pair, datagram_pair_with, fork, open_ends, pipe, stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        python_gets_every_descriptor_and_sends_some needs [PYTHON] within 60,
        c_gets_every_descriptor_and_sends_some needs [CC] within 60,
        node_gets_a_socket_and_sends_one needs [NODE] within 60,
        a_program_on_an_end_that_is_kept_gets_every_descriptor needs [PYTHON] within 60,
        an_end_that_leaves_is_as_the_kernel_makes_it,
        an_end_that_comes_back_tells_an_empty_message_from_eof,
        an_end_that_does_not_leave_stays_as_it_was,
        receiving_ends_does_not_mark_what_a_program_was_given,
        a_send_that_fails_does_not_mark_what_a_program_was_given,
        an_empty_message_is_not_eof_after_a_copy_by_number_has_left,
        an_empty_message_is_not_eof_after_a_clone_has_left,
        an_empty_message_is_not_eof_after_another_process_let_the_end_leave,
        eof_arrives_on_an_end_whose_clone_has_left,
        the_first_send_gives_a_socket_no_name,
        what_the_user_set_goes_along,
        many_slices_of_one_buffer_are_too_long_and_take_no_memory,
        a_message_fills_several_slices,
        a_message_that_is_looked_at_stays_with_its_ends,
        an_iterator_ends_where_the_peer_is_gone,
        a_severed_end_does_not_become_an_open_one,
        a_number_that_a_severed_end_had_is_anybodys_again,
    ]
}

/// An option of the socket that is an int.
fn option(socket: impl AsFd, option: i32) -> i32 {
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

fn both_kinds() -> [DatagramPair; 2] {
    [datagram_pair().unwrap(), datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()]
}

fn all_of(mut end: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A program of this test, in a file of its own.
fn written(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("foreign-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// Plays the other side of [`PYTHON`] and [`C`]: descriptors one at a time and with room for no more, then two back.
#[track_caller]
fn talks(pair: DatagramPair, program: Command) {
    let child = program.give_at(5, pair.child).arg("5").spawn().unwrap();
    for text in [&b"one"[..], b"", b"three"] {
        let (reader, writer) = pipe().unwrap();
        pair.parent.send_with(text, writer).unwrap();
        assert_eq!(all_of(reader), [b"got ", text].concat());
    }
    let mut message = Vec::new();
    for number in 0..2 {
        let mut received = pair.parent.recv_with(&mut message).unwrap().expect("a message");
        assert_eq!((&message[..], received.len()), (&b"take"[..], 1), "{number}");
        let reader: PipeReader = received.take().unwrap();
        assert_eq!(all_of(reader), b"a present");
        let mut received = pair.parent.recv_with(&mut message).unwrap().expect("an empty message");
        assert!(message.is_empty() && received.take::<OwnedFd>().is_err());
    }
    assert_eq!(exit_code(&child), 0);
    assert!(matches!(pair.parent.send(b"into nothing"), Err(Error::Closed)));
}

const PYTHON: &str = r#"
import os, socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
for option in (socket.SO_PASSCRED, 29, 35):
    assert peer.getsockopt(socket.SOL_SOCKET, option) == 0, option
for _ in range(3):
    text, fds, flags, _ = socket.recv_fds(peer, 64, 1)
    assert len(fds) == 1 and not flags & socket.MSG_CTRUNC, (fds, flags)
    os.write(fds[0], b"got " + text)
    os.close(fds[0])
for _ in range(2):
    reader, writer = os.pipe()
    os.write(writer, b"a present")
    socket.send_fds(peer, [b"take"], [reader])
    peer.send(b"")
    os.close(reader)
    os.close(writer)
"#;

fn python_gets_every_descriptor_and_sends_some() {
    let script = written("peer.py", PYTHON);
    for pair in both_kinds() {
        talks(pair, Command::new(support::python()).arg(&script));
    }
    std::fs::remove_file(script).unwrap();
}

const C: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; };

int main(int argc, char **argv) {
    int peer = argc > 1 ? atoi(argv[1]) : 0;
    for (int i = 0; i < 3; i++) {
        char text[64] = "got ";
        union control control;
        struct iovec part = { text + 4, sizeof text - 4 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
        ssize_t len = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        if (len < 0 || message.msg_flags & MSG_CTRUNC || !head || head->cmsg_type != SCM_RIGHTS) return 1;
        int fd;
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
        if (write(fd, text, 4 + len) != 4 + len) return 2;
        close(fd);
    }
    for (int i = 0; i < 2; i++) {
        int fds[2];
        if (pipe(fds) || write(fds[1], "a present", 9) != 9) return 3;
        union control control;
        struct iovec part = { "take", 4 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fds[0], sizeof(int));
        if (sendmsg(peer, &message, MSG_NOSIGNAL) != 4 || send(peer, "", 0, MSG_NOSIGNAL) != 0) return 4;
        close(fds[0]);
        close(fds[1]);
    }
    return 0;
}
"#;

fn c_gets_every_descriptor_and_sends_some() {
    let source = written("peer.c", C);
    let program = source.with_extension("");
    let compiled = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).spawn().unwrap();
    assert_eq!(exit_code(&compiled), 0);
    for pair in both_kinds() {
        talks(pair, Command::new(&program));
    }
    [source, program].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// Node passes sockets over the channel that it makes for its children: lines of JSON, and a descriptor with the first byte.
const NODE: &str = r#"
const net = require('net');
process.on('message', (message, socket) => {
    socket.end('got ' + message.text);
    const server = net.createServer((peer) => peer.end('a present'));
    server.listen('\0foreign-' + process.pid, () => {
        const ours = net.connect('\0foreign-' + process.pid, () => {
            process.send({ text: 'take' }, ours);
            server.close();
        });
    });
});
"#;

fn node_gets_a_socket_and_sends_one() {
    let script = written("peer.js", NODE);
    let channel = stream_pair().unwrap();
    let program =
        Command::new("node").arg(&script).env("NODE_CHANNEL_FD", "5").env("NODE_CHANNEL_SERIALIZATION_MODE", "json");
    let child = program.give_at(5, channel.child).spawn().unwrap();

    let (ours, theirs) = stream_pair().unwrap().into();
    let line = concat!(r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"text":"one"}}"#, "\n");
    assert_eq!(channel.parent.send_with(line.as_bytes(), theirs).unwrap(), line.len());
    assert_eq!(all_of(ours), b"got one");

    // It acknowledges what it got, and then sends its own.
    let (mut text, mut present) = (Vec::new(), None);
    while present.is_none() {
        let mut buf = [0; 512];
        let (len, mut received) = channel.parent.recv_with(&mut buf).unwrap();
        assert_ne!(len, 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buf[..len]);
        present = received.take::<StreamSocket>().ok();
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("NODE_HANDLE_ACK") && text.contains(r#"{"text":"take"}"#), "{text}");
    let ack = concat!(r#"{"cmd":"NODE_HANDLE_ACK"}"#, "\n");
    (&channel.parent).write_all(ack.as_bytes()).unwrap();
    // Node leaves its sockets with `O_NONBLOCK`, which a call with a deadline does not mind.
    let (present, mut text) = (present.unwrap(), Vec::new());
    loop {
        let mut buf = [0; 64];
        match present.read_timeout(&mut buf, Duration::from_secs(30)).unwrap() {
            0 => break,
            len => text.extend_from_slice(&buf[..len]),
        }
    }
    assert_eq!(text, b"a present");
    drop((present, channel.parent)); // it leaves when nothing is open
    assert_eq!(exit_code(&child), 0);
    std::fs::remove_file(script).unwrap();
}

fn a_program_on_an_end_that_is_kept_gets_every_descriptor() {
    const TAKES_TWO: &str = r#"
import os, socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
for _ in range(2):
    text, fds, flags, _ = socket.recv_fds(peer, 64, 1)
    os.write(fds[0], b"got " + text)
    os.close(fds[0])
"#;
    let script = written("shared.py", TAKES_TWO);
    for pair in both_kinds() {
        // Before it was started, and after.
        let (first, writer) = pipe().unwrap();
        pair.parent.send_with(b"one", writer).unwrap();
        let program = Command::new(support::python()).arg(&script).give_at(5, pair.child.try_clone().unwrap()).arg("5");
        let child = program.spawn().unwrap();
        let (second, writer) = pipe().unwrap();
        pair.parent.send_with(b"two", writer).unwrap();
        assert_eq!(all_of(first), b"got one");
        assert_eq!(all_of(second), b"got two");
        assert_eq!(exit_code(&child), 0);
        // And the end that was kept still works.
        pair.parent.send(b"").unwrap();
        pair.parent.send(b"three").unwrap();
        assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(0));
        assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(5));
    }
    std::fs::remove_file(script).unwrap();
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

fn many_slices_of_one_buffer_are_too_long_and_take_no_memory() {
    let pair = datagram_pair().unwrap();
    let large = vec![0; 64 << 20];
    let parts = vec![IoSlice::new(&large); 200_000];
    let expected = large.len().saturating_mul(parts.len());
    let timeout = Duration::from_secs(5);
    let (all, few) = (&parts[..], &parts[..1024]);
    for refused in [
        pair.parent.try_send_vectored(all),
        pair.parent.send_vectored(all),
        pair.parent.send_vectored_timeout(all, timeout),
    ] {
        assert!(matches!(refused, Err(Error::TooLong { len, max: 212_960 }) if len == expected), "{refused:?}");
    }
    assert!(matches!(pair.parent.try_send_vectored(few), Err(Error::TooLong { .. })));
    assert!(matches!(pair.child.try_recv(&mut []), Err(Error::WouldBlock)), "nothing was sent");
    let small = vec![IoSlice::new(b"x"); 200_000];
    pair.parent.send_vectored(&small).unwrap();
    assert_eq!(pair.child.recv_vec().unwrap().unwrap(), vec![b'x'; 200_000]);
}

fn a_message_fills_several_slices() {
    let pair = datagram_pair().unwrap();
    let receive = |socket: &DatagramSocket| {
        let (mut first, mut second) = ([b'-'; 3], [b'-'; 4]);
        let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
        let len = socket.recv_vectored(&mut parts);
        len.map(|len| (len, first, second))
    };
    for (text, first, second) in
        [("", b"---", b"----"), ("ab", b"ab-", b"----"), ("abc", b"abc", b"----"), ("abcdefg", b"abc", b"defg")]
    {
        pair.child.send(text.as_bytes()).unwrap();
        assert_eq!(receive(&pair.parent).unwrap(), (Some(text.len()), *first, *second));
    }
    // What is too long is whole in the error.
    pair.child.send(b"abcdefgh").unwrap();
    let Err(Error::BufferTooSmall { message }) = receive(&pair.parent) else { panic!("too short") };
    assert_eq!(message, b"abcdefgh");
    pair.child.send(b"x").unwrap();
    assert!(matches!(pair.parent.recv_vectored(&mut []), Err(Error::BufferTooSmall { message }) if message == b"x"));
    // More slices than one call of the kernel's takes.
    let mut bytes = [0; 3000];
    let mut parts: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
    pair.child.send(&[7; 2500]).unwrap();
    assert_eq!(pair.parent.try_recv_vectored(&mut parts).unwrap(), Some(2500));
    assert!(matches!(pair.parent.try_recv_vectored(&mut parts), Err(Error::WouldBlock)));
    assert!(matches!(pair.parent.recv_vectored_timeout(&mut parts, Duration::ZERO), Err(Error::TimedOut)));
    assert_eq!((bytes[2499], bytes[2500]), (7, 0));
    drop(pair.child);
    assert_eq!(receive(&pair.parent).unwrap().0, None);
}

fn a_message_that_is_looked_at_stays_with_its_ends() {
    let pair = datagram_pair().unwrap();
    let mut buf = [0; 4];
    assert!(matches!(pair.parent.try_peek(&mut buf), Err(Error::WouldBlock)));
    pair.child.send_with(b"hello", File::open("/dev/null").unwrap()).unwrap();
    pair.child.send(b"").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..3 {
        assert_eq!(pair.parent.peek(&mut buf).unwrap(), Some(5));
        assert_eq!(&buf, b"hell");
        assert_eq!(pair.parent.peek_len().unwrap(), Some(5));
    }
    assert_eq!(open(), before);
    let mut message = Vec::new();
    assert_eq!(pair.parent.recv_with(&mut message).unwrap().unwrap().len(), 1);
    assert_eq!(message, b"hello");
    assert_eq!(pair.parent.peek(&mut buf).unwrap(), Some(0));
    assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(0));
    drop(pair.child);
    assert_eq!(pair.parent.peek(&mut buf).unwrap(), None);
}

fn an_iterator_ends_where_the_peer_is_gone() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        for number in 0..3 {
            socket.send(&vec![number; number.into()]).unwrap();
        }
    })
    .unwrap();
    let all: Vec<_> = pair.parent.iter().map(Result::unwrap).collect();
    assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_does_not_become_an_open_one() {
    let (reader, writer) = pipe().unwrap();
    let (socket, _peer) = datagram_pair().unwrap().into();
    let bytes = stream_pair().unwrap();
    let (first, second) = (pipe().unwrap(), pipe().unwrap());
    let (carrier, _other) = datagram_pair().unwrap().into();
    let child = fork(carrier, |carrier| {
        assert_eq!(open_ends(), 1);
        let fds = [OwnedFd::from(reader), OwnedFd::from(writer), OwnedFd::from(socket), OwnedFd::from(bytes.parent)];
        for fd in &fds {
            assert!(matches!(carrier.send_with(b"x", fd).unwrap_err().error, Error::NotGiven));
        }
        let [reader, writer, socket, bytes] = fds;
        let refused = Command::new("true").give("end", OwnedFd::from(first.0)).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let refused = Command::new("true").stdin(OwnedFd::from(second.0)).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let reader = PipeReader::try_from(reader).unwrap_err().fd;
        let socket = DatagramSocket::try_from(socket).unwrap_err().fd;
        assert!(PipeWriter::try_from(writer.try_clone().unwrap()).is_err());
        // Nor where nobody looks.
        // SAFETY: each is given up as it is taken over.
        let (mut reader, writer, socket) = unsafe {
            (
                PipeReader::from_raw_fd(reader.into_raw_fd()),
                PipeWriter::from(std::io::PipeWriter::from(writer)),
                DatagramSocket::from_raw_fd(socket.into_raw_fd()),
            )
        };
        let bytes = StreamSocket::from(std::os::unix::net::UnixStream::from(bytes));
        assert_eq!(open_ends(), 1);
        assert!(matches!(Error::from(reader.read(&mut [0]).unwrap_err()), Error::NotGiven));
        assert!(matches!(writer.try_write(b"x"), Err(Error::NotGiven)));
        assert!(matches!(socket.send(b"x"), Err(Error::NotGiven)));
        assert!(matches!(bytes.try_write(b"x"), Err(Error::NotGiven)));
        assert!(matches!(socket.try_clone(), Err(Error::NotGiven)));
        assert!(matches!(carrier.send_with(b"x", &socket).unwrap_err().error, Error::NotGiven));
        assert!(matches!(fork(&bytes, |_| ()), Err(refused) if matches!(refused.error, Error::NotGiven)));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_number_that_a_severed_end_had_is_anybodys_again() {
    let (reader, _writer) = pipe().unwrap();
    let (carrier, other) = datagram_pair().unwrap().into();
    let child = fork((carrier, other), |(carrier, other)| {
        let fd = OwnedFd::from(reader);
        let number = fd.as_raw_fd();
        drop(fd);
        let file = File::open("/dev/null").unwrap();
        let file = if file.as_raw_fd() == number {
            file
        } else {
            // SAFETY: integers; the number is free.
            assert_eq!(unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
            // SAFETY: it was just made, and is nobody else's.
            unsafe { File::from_raw_fd(number) }
        };
        carrier.send_with(b"a file", file).unwrap();
        assert_eq!(other.recv_with(&mut Vec::new()).unwrap().unwrap().len(), 1);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}
