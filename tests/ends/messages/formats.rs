//! The formats of packed messages (docs/packed.md): peers in Python, as the page has them; and arbitrary messages through
//! both, between two processes.

use crate::support::{self, Trial, assert_next, exit_code, message, rounds};
use ipc::{Child, Command, MessageReader, MessageWriter, PackedSocket, datagram_pair, fork, pipe};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_in_python_packs_messages needs [PYTHON] within 60,
        a_peer_in_python_reads_and_writes_a_stream needs [PYTHON] within 60,
        arbitrary_messages_go_through_a_packed_socket within 120,
        arbitrary_messages_go_through_a_pipe within 120,
    ]
}

/// The program on the page with that number, in a file of its own.
fn python(number: usize) -> Command {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/packed.md")).unwrap();
    let block = page.split("```python\n").nth(number + 1).expect("a program").split("```").next().unwrap().to_owned();
    Command::new(support::python()).args(["-c", &block])
}

/// Letters, and not only small ones.
fn text(number: usize, len: usize) -> Vec<u8> {
    message(number, len).iter().map(|byte| b'A' + byte % 58).collect()
}

fn lengths() -> impl Iterator<Item = usize> {
    let few = [0, 1, 0, 100, 4096, 40_000, 200_000, 0, 3];
    few.into_iter().chain((0..5000).map(|number| number * number % 301))
}

#[track_caller]
fn assert_leaves(child: &Child) {
    assert_eq!(exit_code(child), 0);
}

fn a_peer_in_python_packs_messages() {
    let pair = datagram_pair().unwrap();
    let child = python(0).give_at(5, pair.child).arg("5").spawn().unwrap();
    // Another process sends, as the peer answers before it takes more.
    let sender = fork(pair.parent.try_clone().unwrap(), |socket| {
        let mut socket = PackedSocket::new(socket);
        for (number, len) in lengths().enumerate() {
            socket.send(&text(number, len)).unwrap();
        }
        socket.close().unwrap();
    })
    .unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    for (number, len) in lengths().enumerate() {
        assert_next(socket.recv(), &text(number, len).to_ascii_uppercase());
    }
    socket.close().unwrap();
    assert_leaves(&sender);
    assert_leaves(&child);
}

fn a_peer_in_python_reads_and_writes_a_stream() {
    let ((stdin, to), (from, stdout)) = (pipe().unwrap(), pipe().unwrap());
    let child = python(1).stdin(stdin).stdout(stdout).spawn().unwrap();
    let sender = fork(to, |to| {
        let mut to = MessageWriter::new(to);
        for (number, len) in lengths().chain([3 << 20]).enumerate() {
            to.send(&text(number, len)).unwrap();
        }
        to.close().unwrap();
    })
    .unwrap();
    let mut from = MessageReader::new(from);
    for (number, len) in lengths().chain([3 << 20]).enumerate() {
        assert_next(from.recv(), &text(number, len).to_ascii_uppercase());
    }
    assert_eq!(from.recv().unwrap(), None);
    assert_leaves(&sender);
    assert_leaves(&child);
}

/// What one side does, besides receiving.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Flush,
}

/// Small lengths mostly, those around the sizes of buffers, and some long ones.
fn step(longest: usize) -> impl Strategy<Value = Step> {
    let length = prop_oneof![
        8 => 0_usize..200,
        2 => 0_usize..10_000,
        1 => 8150_usize..8200,
        1 => 32_740_usize..32_780,
        1 => 0..longest,
    ];
    prop_oneof![9 => length.prop_map(Step::Send), 1 => Just(Step::Flush)]
}

fn check(longest: usize, steps: usize, property: impl Fn(&[Step])) {
    let config = Config { cases: rounds(16) as u32, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&vec(step(longest), 0..steps), |steps| {
            property(&steps);
            Ok(())
        })
        .unwrap();
}

/// The messages of these steps.
fn messages(steps: &[Step]) -> impl Iterator<Item = Vec<u8>> {
    let lengths = steps.iter().filter_map(|step| if let Step::Send(len) = step { Some(*len) } else { None });
    lengths.enumerate().map(|(number, len)| message(number, len))
}

/// Sends the messages, and flushes in between where the steps say so.
fn follow<T>(
    steps: &[Step],
    to: &mut T,
    send: fn(&mut T, &[u8]) -> ipc::Result<()>,
    flush: fn(&mut T) -> ipc::Result<()>,
) {
    let mut messages = messages(steps);
    for step in steps {
        match step {
            Step::Send(_) => send(to, &messages.next().expect("one for each")).unwrap(),
            Step::Flush => flush(to).unwrap(),
        }
    }
}

fn arbitrary_messages_go_through_a_packed_socket() {
    // There, and after that back again.
    check(200_000, 200, |steps| {
        let pair = datagram_pair().unwrap();
        let child = fork(pair.child, |socket| {
            let mut socket = PackedSocket::new(socket);
            for message in messages(steps) {
                assert_next(socket.recv(), &message);
            }
            follow(steps, &mut socket, PackedSocket::send, PackedSocket::flush);
            socket.close().unwrap();
        })
        .unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        follow(steps, &mut socket, PackedSocket::send, PackedSocket::flush);
        for message in messages(steps) {
            assert_next(socket.recv(), &message);
        }
        socket.flush().unwrap();
        assert_eq!(socket.recv().unwrap(), None);
        assert_leaves(&child);
    });
}

fn arbitrary_messages_go_through_a_pipe() {
    check(1 << 20, 100, |steps| {
        let (reader, writer) = pipe().unwrap();
        let child = fork(writer, |writer| {
            let mut writer = MessageWriter::new(writer);
            follow(steps, &mut writer, MessageWriter::send, MessageWriter::flush);
            writer.close().unwrap();
        })
        .unwrap();
        let mut reader: MessageReader = MessageReader::new(reader);
        for message in messages(steps) {
            assert_next(reader.recv(), &message);
        }
        assert_eq!(reader.recv().unwrap(), None);
        assert_leaves(&child);
    });
}
