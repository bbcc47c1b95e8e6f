//! Calls whose futures are dropped, a hundred thousand of them: what each was to move was moved whole or not at all, and no end is
//! left open. `IPC_TESTS_ROUNDS=10 cargo test --all-features --test tokio dropped_calls` makes it a million.

use std::io::{Read, Write};
use std::ops::AsyncFnMut;
use std::pin::Pin;

use serde_bytes::ByteBuf;

use super::messages::polled;
use super::{on_one_thread, on_threads};
use crate::support::{self, Trial, exit_code};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::runtime::Runtime;
use ipc::tokio::{DatagramSocket, Duplex, PipeReader, PipeWriter, Receiver, RingReader, RingWriter, Sender, Signals};
use ipc::{Child, Ends, Error, channel, datagram_pair, duplex, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        dropped_calls_lose_nothing_and_repeat_nothing_on_one_thread within 300,
        dropped_calls_lose_nothing_and_repeat_nothing_on_threads within 300,
    ]
}

fn dropped_calls_lose_nothing_and_repeat_nothing_on_one_thread() {
    drop_calls(on_one_thread);
}

fn dropped_calls_lose_nothing_and_repeat_nothing_on_threads() {
    drop_calls(on_threads);
}

/// Of each kind, under each of the two runtimes.
fn dropped_of_each() -> u64 {
    support::rounds(3200)
}

/// A process, and the calls that are made on the other end.
struct Kind {
    child: Child,
    calls: Pin<Box<dyn Future<Output = Count>>>,
}

impl Kind {
    fn new<E: Ends, F: Future<Output = Count> + 'static>(
        ends: E,
        child: impl FnOnce(E, Turns),
        calls: impl FnOnce(Turn) -> F,
    ) -> Self {
        let (turns, turn) = pipe().unwrap();
        let child = fork((ends, turns), |(ends, turns)| child(ends, Turns { turns, left: 0 }));
        Self { child: child.unwrap(), calls: Box::pin(calls(Turn(turn))) }
    }
}

/// The process does some of its work at its turn, so that a queue is empty, or full, in between. In the end it does all.
struct Turns {
    turns: ipc::PipeReader,
    left: u32,
}

impl Turns {
    fn one(&mut self) {
        if self.left == 0 {
            self.left = match self.turns.read(&mut [0]).unwrap() {
                0 => u32::MAX,
                _ => 30,
            };
        }
        self.left -= 1;
    }
}

/// Gives the process its turns. When it is dropped, that is the last one.
struct Turn(ipc::PipeWriter);

/// How many calls were dropped, and how many were not.
struct Count {
    dropped: u64,
    done: u64,
}

fn drop_calls(runtime: fn() -> Runtime) {
    // All processes are forked before there is a runtime, which may have threads.
    let kinds = [
        messages_received(),
        messages_sent(),
        ends_received_with_messages(),
        ends_sent_with_messages(),
        values_received(),
        values_sent(),
        ends_received_in_values(),
        ends_sent_in_values(),
        values_received_both_ways(),
        values_sent_both_ways(),
        called(),
        bytes_read(),
        bytes_written(),
        ring_bytes_read(),
        ring_bytes_written(),
        signals_awaited(),
    ];
    let runtime = runtime();
    let mut all = Count { dropped: 0, done: 0 };
    for Kind { child, calls } in kinds {
        let count = runtime.block_on(calls);
        assert_eq!(exit_code(&child), 0);
        all = Count { dropped: all.dropped + count.dropped, done: all.done + count.done };
    }
    assert_eq!(ipc::open_ends(), 0);
    println!("{} calls were dropped, {} were not", all.dropped, all.done);
}

/// Makes calls, and drops each of them after a few polls, until so many were not done by then, and some were.
async fn until_dropped(turn: &Turn, mut call: impl AsyncFnMut(usize, u64) -> bool) -> Count {
    let (limit, mut count) = (dropped_of_each(), Count { dropped: 0, done: 0 });
    while count.dropped < limit || count.done <= limit / 20 {
        if call(1 + count.dropped as usize % 3, count.done).await {
            count.done += 1;
        } else {
            count.dropped += 1;
            if count.dropped % 25 == 0 {
                // It may have some to come already, and more than a pipe holds.
                let _ = turn.0.try_write(&[0]);
            }
            tokio::task::yield_now().await;
        }
    }
    count
}

/// The last number says how many there were.
const END: u64 = u64::MAX;

/// Receives numbers, each of which is one more than the last.
async fn receive(turn: Turn, recv: impl AsyncFn() -> u64) -> Count {
    until_dropped(&turn, async |times, next| match polled(times, recv()).await {
        Some(number) => number == next || panic!("{number} instead of {next}"),
        None => false,
    })
    .await
}

/// Until nobody receives any more.
fn send_for_ever<E>(mut turns: Turns, mut send: impl FnMut(u64) -> Result<(), E>) {
    let mut send = |number| {
        turns.one();
        send(number)
    };
    drop((0..).try_for_each(&mut send));
}

async fn send(turn: Turn, send: impl AsyncFn(u64)) -> Count {
    let count = until_dropped(&turn, async |times, next| polled(times, send(next)).await.is_some()).await;
    drop(turn);
    send(END).await;
    send(count.done).await;
    count
}

fn receive_to_the_end(mut turns: Turns, mut recv: impl FnMut() -> u64) {
    let mut recv = || {
        turns.one();
        recv()
    };
    let count = (0..).find(|number| match recv() {
        END => true,
        found => found != *number && panic!("{found} instead of {number}"),
    });
    assert_eq!(recv(), count.unwrap());
}

fn number(message: impl AsRef<[u8]>) -> u64 {
    u64::from_ne_bytes(message.as_ref().try_into().unwrap())
}

fn messages_received() -> Kind {
    let pair = datagram_pair().unwrap();
    Kind::new(
        pair.child,
        |socket, turns| send_for_ever(turns, |number| socket.send(&number.to_ne_bytes())),
        async |turn| {
            let socket = DatagramSocket::new(pair.parent).unwrap();
            receive(turn, async || number(socket.recv_vec().await.unwrap().unwrap())).await
        },
    )
}

fn messages_sent() -> Kind {
    let pair = datagram_pair().unwrap();
    Kind::new(
        pair.child,
        |socket, turns| receive_to_the_end(turns, || number(socket.recv_vec().unwrap().unwrap())),
        async |turn| {
            let socket = DatagramSocket::new(pair.parent).unwrap();
            send(turn, async |number| socket.send(&number.to_ne_bytes()).await.unwrap()).await
        },
    )
}

/// None of the writers that were sent is open any more.
async fn await_eof(reader: ipc::PipeReader) {
    let mut reader = PipeReader::new(reader).unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
}

fn ends_received_with_messages() -> Kind {
    let (pair, (reader, writer)) = (datagram_pair().unwrap(), pipe().unwrap());
    Kind::new(
        (pair.child, writer),
        |(socket, writer), turns| {
            send_for_ever(turns, |number| socket.send_with(&number.to_ne_bytes(), &writer));
        },
        async |turn| {
            let socket = DatagramSocket::new(pair.parent).unwrap();
            let count = receive(turn, async || {
                let mut message = Vec::new();
                let mut received = socket.recv_with(&mut message).await.unwrap().unwrap();
                received.take::<ipc::PipeWriter>().unwrap();
                number(message)
            });
            let count = count.await;
            drop(socket);
            await_eof(reader).await;
            count
        },
    )
}

fn ends_sent_with_messages() -> Kind {
    let (pair, (reader, writer)) = (datagram_pair().unwrap(), pipe().unwrap());
    Kind::new(
        pair.child,
        |socket, turns| {
            receive_to_the_end(turns, || {
                let mut message = Vec::new();
                let mut received = socket.recv_with(&mut message).unwrap().unwrap();
                received.take::<ipc::PipeWriter>().unwrap();
                number(message)
            });
        },
        async |turn| {
            let socket = DatagramSocket::new(pair.parent).unwrap();
            let count = send(turn, async |number| {
                let end = writer.try_clone().unwrap();
                socket.send_with(&number.to_ne_bytes(), end).await.unwrap();
            });
            let count = count.await;
            drop(writer);
            await_eof(reader).await;
            count
        },
    )
}

type Value = (u64, ByteBuf);

/// Now and then one that is too large for a datagram.
fn value(number: u64) -> Value {
    let len = if number % 500 == 499 { 300_000 } else { number as usize % 50 };
    (number, ByteBuf::from(vec![number as u8; len]))
}

/// The number of a value that is whole.
fn checked(found: Value) -> u64 {
    assert!(found == value(found.0), "{}", found.0);
    found.0
}

fn values_received() -> Kind {
    let (sender, receiver) = channel().unwrap();
    Kind::new(
        sender,
        |sender, turns| send_for_ever(turns, |number| sender.send(value(number))),
        async |turn| {
            let receiver = Receiver::new(receiver).unwrap();
            receive(turn, async || checked(receiver.recv().await.unwrap().unwrap())).await
        },
    )
}

fn values_sent() -> Kind {
    let (sender, receiver) = channel().unwrap();
    Kind::new(
        receiver,
        |receiver, turns| receive_to_the_end(turns, || checked(receiver.recv().unwrap().unwrap())),
        async |turn| {
            let sender = Sender::new(sender).unwrap();
            send(turn, async |number| sender.send(value(number)).await.unwrap()).await
        },
    )
}

fn ends_received_in_values() -> Kind {
    let ((sender, receiver), (reader, writer)) = (channel().unwrap(), pipe().unwrap());
    Kind::new(
        (sender, writer),
        |(sender, writer), turns| {
            send_for_ever(turns, |number| {
                sender.send((value(number), writer.try_clone().unwrap())).map_err(Error::from)
            });
        },
        async |turn| {
            let receiver = Receiver::new(receiver).unwrap();
            let count = receive(turn, async || {
                let (value, _end): (_, ipc::PipeWriter) = receiver.recv().await.unwrap().unwrap();
                checked(value)
            });
            let count = count.await;
            drop(receiver);
            await_eof(reader).await;
            count
        },
    )
}

fn ends_sent_in_values() -> Kind {
    let ((sender, receiver), (reader, writer)) = (channel().unwrap(), pipe().unwrap());
    Kind::new(
        receiver,
        |receiver, turns| {
            receive_to_the_end(turns, || {
                let (value, _end): (_, ipc::PipeWriter) = receiver.recv().unwrap().unwrap();
                checked(value)
            });
        },
        async |turn| {
            let sender = Sender::new(sender).unwrap();
            let count = send(turn, async |number| {
                sender.send((value(number), writer.try_clone().unwrap())).await.unwrap();
            });
            let count = count.await;
            drop(writer);
            await_eof(reader).await;
            count
        },
    )
}

fn values_received_both_ways() -> Kind {
    let pair = duplex::<(), _>().unwrap();
    Kind::new(
        pair.child,
        |end, turns| send_for_ever(turns, |number| end.send(value(number))),
        async |turn| {
            let end = Duplex::new(pair.parent).unwrap();
            receive(turn, async || checked(end.recv().await.unwrap().unwrap())).await
        },
    )
}

fn values_sent_both_ways() -> Kind {
    let pair = duplex::<_, ()>().unwrap();
    Kind::new(
        pair.child,
        |end, turns| receive_to_the_end(turns, || checked(end.recv().unwrap().unwrap())),
        async |turn| {
            let end = Duplex::new(pair.parent).unwrap();
            send(turn, async |number| end.send(value(number)).await.unwrap()).await
        },
    )
}

fn called() -> Kind {
    let pair = duplex::<u64, Value>().unwrap();
    Kind::new(
        pair.child,
        |end, turns| {
            // The last answer may not be received.
            send_for_ever(turns, |number| match end.recv() {
                Ok(None) | Err(Error::Reset) => Err(Error::Closed),
                asked => {
                    assert_eq!(asked.unwrap(), Some(number), "each question comes once");
                    Ok(end.send(value(number))?)
                }
            });
        },
        async |turn| {
            let mut end = Duplex::new(pair.parent).unwrap();
            until_dropped(&turn, async |times, next| {
                let answer = match polled(times, end.call(next)).await {
                    // A call that was dropped has sent the question.
                    Some(Err(unsent)) => {
                        assert!(matches!(unsent.error, Error::Unread) && unsent.unsent == Some(next), "{unsent:?}");
                        polled(times, end.recv()).await.map(Result::unwrap)
                    }
                    answer => answer.map(Result::unwrap),
                };
                answer.is_some_and(|answer| checked(answer.unwrap()) == next || panic!("not {next}"))
            })
            .await
        },
    )
}

fn signals_awaited() -> Kind {
    const SIGNALS: [i32; 2] = [libc::SIGUSR1, libc::SIGUSR2];
    // They are blocked in the threads of the runtime too.
    let signals = ipc::Signals::new(&SIGNALS).unwrap();
    let (wanted, want) = pipe().unwrap();
    let parent = std::process::id() as i32;
    Kind::new(
        wanted,
        |mut wanted, mut turns| {
            for signal in SIGNALS.into_iter().cycle() {
                if wanted.read(&mut [0]).unwrap() == 0 {
                    break;
                }
                turns.one();
                // SAFETY: numbers; the parent is there.
                assert_eq!(unsafe { libc::kill(parent, signal) }, 0);
            }
        },
        async move |turn| {
            let signals = Signals::new(signals).unwrap();
            want.write_atomic(&[0]).unwrap();
            let count = until_dropped(&turn, async |times, next| match polled(times, signals.next()).await {
                Some(signal) => {
                    assert_eq!(signal.unwrap(), SIGNALS[next as usize % 2]);
                    want.write_atomic(&[0]).unwrap();
                    true
                }
                None => false,
            });
            let count = count.await;
            drop(turn);
            // The last one that was wanted.
            signals.next().await.unwrap();
            count
        },
    )
}

/// A stream that shows each byte that is missing or comes twice.
struct Bytes {
    /// The same few, over and over. No buffer is a multiple of their number.
    pattern: Vec<u8>,
    next: usize,
}

impl Bytes {
    const PERIOD: u8 = 251;

    /// No longer than that many at once.
    fn new(most: usize) -> Self {
        let pattern = (0..Self::PERIOD).cycle().take(usize::from(Self::PERIOD) + most).collect();
        Self { pattern, next: 0 }
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let start = self.next;
        self.next = (start + len) % usize::from(Self::PERIOD);
        &self.pattern[start..start + len]
    }

    fn check(&mut self, buf: &[u8]) {
        assert!(self.take(buf.len()) == buf);
    }
}

fn write_for_ever(mut to: impl Write, mut turns: Turns) {
    let mut bytes = Bytes::new(1000);
    while to.write_all(bytes.take(1000)).is_ok() {
        turns.one();
    } // until nobody reads any more
}

fn read_to_the_end(mut from: impl Read, mut turns: Turns) {
    let (mut bytes, mut buf) = (Bytes::new(1000), [0; 1000]);
    loop {
        turns.one();
        match from.read(&mut buf).unwrap() {
            0 => return,
            len => bytes.check(&buf[..len]),
        }
    }
}

async fn read(turn: Turn, mut from: impl tokio::io::AsyncRead + Unpin) -> Count {
    let (mut bytes, mut buf) = (Bytes::new(1000), vec![0; 1000]);
    until_dropped(&turn, async |times, _| match polled(times, from.read(&mut buf)).await {
        Some(len) => {
            bytes.check(&buf[..len.unwrap()]);
            true
        }
        None => false,
    })
    .await
}

async fn write(turn: Turn, mut to: impl tokio::io::AsyncWrite + Unpin) -> Count {
    // The bytes that are still to be written.
    let (mut bytes, mut left) = (Bytes::new(1000), Vec::new());
    until_dropped(&turn, async |times, _| {
        left.extend_from_slice(bytes.take(1000 - left.len()));
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

fn bytes_read() -> Kind {
    let (reader, writer) = pipe().unwrap();
    Kind::new(writer, write_for_ever, async |turn| read(turn, PipeReader::new(reader).unwrap()).await)
}

fn bytes_written() -> Kind {
    let (reader, writer) = pipe().unwrap();
    Kind::new(reader, read_to_the_end, async |turn| write(turn, PipeWriter::new(writer).unwrap()).await)
}

fn ring_bytes_read() -> Kind {
    let pair = stream_pair().unwrap();
    Kind::new(
        pair.child,
        |socket, turns| write_for_ever(ipc::RingWriter::new(socket).unwrap(), turns),
        async |turn| read(turn, RingReader::new(ipc::RingReader::new(pair.parent).unwrap()).unwrap()).await,
    )
}

fn ring_bytes_written() -> Kind {
    let pair = stream_pair().unwrap();
    Kind::new(
        pair.child,
        |socket, turns| read_to_the_end(ipc::RingReader::new(socket).unwrap(), turns),
        async |turn| {
            let ring = ipc::RingWriter::with_capacity(pair.parent, 4096).unwrap();
            write(turn, RingWriter::new(ring).unwrap()).await
        },
    )
}
