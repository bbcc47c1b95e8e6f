//! Programs in other languages at the other side, and on the same end: they get every descriptor, and sockets as the kernel
//! makes them.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::marks::both_kinds;
use crate::support::{self, Trial, exit_code};
use ipc::{Command, DatagramPair, Error, PipeReader, StreamSocket, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        python_gets_every_descriptor_and_sends_some needs [PYTHON] within 60,
        c_gets_every_descriptor_and_sends_some needs [CC] within 60,
        node_gets_a_socket_and_sends_one needs [NODE] within 60,
        a_program_on_an_end_that_is_kept_gets_every_descriptor needs [PYTHON] within 60,
    ]
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
