//! Calls whose futures are dropped, tens of thousands of them: what each was to move was moved whole or not at all.
//! `IPC_TESTS_ROUNDS=50 cargo test --all-features --test ends dropped_calls` makes it a million.

use std::io::{Read, Write};
use std::ops::AsyncFnMut;

use super::messages::polled;
use super::on_one_thread;
use crate::support::{self, Trial, exit_code};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ipc::tokio::{DatagramSocket, PipeReader, PipeWriter, Receiver, RingReader, RingWriter, Sender};
use ipc::{Child, channel, datagram_pair, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![dropped_calls_lose_nothing_and_repeat_nothing within 300]
}

/// Of each of the eight kinds.
fn dropped_of_each() -> u64 {
    support::rounds(2500)
}

fn dropped_calls_lose_nothing_and_repeat_nothing() {
    let kinds: [fn() -> (u64, Child); 8] = [
        messages_received,
        messages_sent,
        values_received,
        values_sent,
        bytes_read,
        bytes_written,
        ring_bytes_read,
        ring_bytes_written,
    ];
    // On one core a queue is empty, and another one full, whenever it is the other side's turn.
    support::run_on_core(0);
    let mut done = 0;
    for kind in kinds {
        let (moved, child) = kind();
        assert_eq!(exit_code(&child), 0);
        done += moved;
    }
    println!("{} calls were dropped, {done} were not", 8 * dropped_of_each());
}

/// Makes calls, and drops each of them after a few polls, until so many were not done by then, and some were. Returns how many
/// were.
async fn until_dropped(mut call: impl AsyncFnMut(usize, u64) -> bool) -> u64 {
    let (limit, mut dropped, mut done) = (dropped_of_each(), 0, 0);
    while dropped < limit || done <= limit / 20 {
        if call(1 + dropped as usize % 3, done).await {
            done += 1;
        } else {
            dropped += 1;
            tokio::task::yield_now().await;
        }
    }
    done
}

fn messages_received() -> (u64, Child) {
    let pair = datagram_pair().unwrap();
    // Until nobody receives any more.
    let child = fork(pair.child, |socket| drop((0_u64..).try_for_each(|number| socket.send(&number.to_ne_bytes()))));
    let done = on_one_thread().block_on(async {
        let socket = DatagramSocket::new(pair.parent).unwrap();
        until_dropped(async |times, next| match polled(times, socket.recv_vec()).await {
            Some(message) => message.unwrap().unwrap() == next.to_ne_bytes() || panic!("not {next}"),
            None => false,
        })
        .await
    });
    (done, child.unwrap())
}

/// The last message says how many there were.
const END: u64 = u64::MAX;

fn messages_sent() -> (u64, Child) {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let next = || u64::from_ne_bytes(socket.recv_vec().unwrap().unwrap().try_into().unwrap());
        let count = (0..).find(|number| match next() {
            END => true,
            found => found != *number && panic!("{found} instead of {number}"),
        });
        assert_eq!(next(), count.unwrap());
    });
    let done = on_one_thread().block_on(async {
        let socket = DatagramSocket::new(pair.parent).unwrap();
        let sent = async |times, next: u64| polled(times, socket.send(&next.to_ne_bytes())).await.map(Result::unwrap);
        let done = until_dropped(async |times, next| sent(times, next).await.is_some()).await;
        socket.send(&END.to_ne_bytes()).await.unwrap();
        socket.send(&done.to_ne_bytes()).await.unwrap();
        done
    });
    (done, child.unwrap())
}

/// Now and then one that is too large for a datagram.
fn value(number: u64) -> (u64, Vec<u8>) {
    (number, vec![number as u8; if number % 500 == 499 { 300_000 } else { number as usize % 50 }])
}

fn values_received() -> (u64, Child) {
    let (sender, receiver) = channel().unwrap();
    let child = fork(sender, |sender| drop((0_u64..).try_for_each(|number| sender.send(value(number)))));
    let done = on_one_thread().block_on(async {
        let receiver = Receiver::new(receiver).unwrap();
        until_dropped(async |times, next| match polled(times, receiver.recv()).await {
            Some(received) => received.unwrap().unwrap() == value(next) || panic!("not {next}"),
            None => false,
        })
        .await
    });
    (done, child.unwrap())
}

fn values_sent() -> (u64, Child) {
    let (sender, receiver) = channel::<(u64, Vec<u8>)>().unwrap();
    let child = fork(receiver, |receiver| {
        let count = (0..).find(|number| match receiver.recv().unwrap().unwrap() {
            (END, _) => true,
            found => found != value(*number) && panic!("{} instead of {number}", found.0),
        });
        assert_eq!(receiver.recv().unwrap().unwrap().0, count.unwrap());
    });
    let done = on_one_thread().block_on(async {
        let sender = Sender::new(sender).unwrap();
        let sent = async |times, next| polled(times, sender.send(value(next))).await.map(|sent| sent.unwrap());
        let done = until_dropped(async |times, next| sent(times, next).await.is_some()).await;
        sender.send((END, Vec::new())).await.unwrap();
        sender.send((done, Vec::new())).await.unwrap();
        done
    });
    (done, child.unwrap())
}

/// A stream that shows each byte that is missing or comes twice.
struct Bytes(u8);

impl Bytes {
    fn next(&mut self) -> u8 {
        // Of a length that no buffer is a multiple of.
        self.0 = (self.0 + 1) % 251;
        self.0
    }

    fn fill(&mut self, buf: &mut [u8]) {
        buf.fill_with(|| self.next());
    }

    fn check(&mut self, buf: &[u8]) {
        assert!(buf.iter().all(|byte| *byte == self.next()));
    }
}

fn write_for_ever(mut to: impl Write) {
    let (mut bytes, mut buf) = (Bytes(0), [0; 1000]);
    loop {
        bytes.fill(&mut buf);
        if to.write_all(&buf).is_err() {
            return; // nobody reads any more
        }
    }
}

fn read_to_the_end(mut from: impl Read) {
    let (mut bytes, mut buf) = (Bytes(0), [0; 1000]);
    loop {
        match from.read(&mut buf).unwrap() {
            0 => return,
            len => bytes.check(&buf[..len]),
        }
    }
}

async fn read(mut from: impl tokio::io::AsyncRead + Unpin) -> u64 {
    let (mut bytes, mut buf) = (Bytes(0), vec![0; 100_000]);
    until_dropped(async |times, _| match polled(times, from.read(&mut buf)).await {
        Some(len) => {
            bytes.check(&buf[..len.unwrap()]);
            true
        }
        None => false,
    })
    .await
}

async fn write(mut to: impl tokio::io::AsyncWrite + Unpin) -> u64 {
    // The bytes that are still to be written.
    let (mut bytes, mut left) = (Bytes(0), Vec::new());
    until_dropped(async |times, _| {
        let had = left.len();
        left.resize(1000, 0);
        bytes.fill(&mut left[had..]);
        match polled(times, to.write(&left)).await {
            Some(len) => {
                left.drain(..len.unwrap());
                true
            }
            None => false,
        }
    })
    .await
}

fn bytes_read() -> (u64, Child) {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, write_for_ever).unwrap();
    (on_one_thread().block_on(async { read(PipeReader::new(reader).unwrap()).await }), child)
}

fn bytes_written() -> (u64, Child) {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, read_to_the_end).unwrap();
    (on_one_thread().block_on(async { write(PipeWriter::new(writer).unwrap()).await }), child)
}

fn ring_bytes_read() -> (u64, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| write_for_ever(ipc::RingWriter::new(socket).unwrap())).unwrap();
    let ring = async { RingReader::new(ipc::RingReader::new(pair.parent).unwrap()).unwrap() };
    (on_one_thread().block_on(async { read(ring.await).await }), child)
}

fn ring_bytes_written() -> (u64, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| read_to_the_end(ipc::RingReader::new(socket).unwrap())).unwrap();
    let ring = async { RingWriter::new(ipc::RingWriter::with_capacity(pair.parent, 4096).unwrap()).unwrap() };
    (on_one_thread().block_on(async { write(ring.await).await }), child)
}
