//! The work of every contender: one way, and there and back.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Instant;

use crate::machine::Core;
use crate::peer::Peer;
use crate::turns::{Contender, Pass};

/// Sends messages.
pub trait Sender {
    /// Comes first, in the process that will send: for what cannot be made before a fork.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Comes after the last message for a while.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives messages.
pub trait Receiver {
    /// Comes first, in the process that will receive.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for messages, in the way that is its own, and shows each one in memory that the sender cannot change any more:
    /// in `buf`, or where the crate in question has put it. Returns how many there were, but never more than `most`.
    fn receive(&mut self, buf: &mut [u8], most: u64, each: impl FnMut(&[u8])) -> io::Result<u64>;
}

/// A stream as a channel of messages that are all as long as the buffer.
pub struct Records<T>(pub T);

impl<W: Write> Sender for Records<W> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<R: Read> Receiver for Records<R> {
    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        self.0.read_exact(buf)?;
        each(buf);
        Ok(1)
    }
}

/// Both directions, of two channels of one.
impl<S: Sender, R> Sender for (S, R) {
    fn open(&mut self) -> io::Result<()> {
        self.0.open()
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S, R: Receiver> Receiver for (S, R) {
    fn open(&mut self) -> io::Result<()> {
        self.1.open()
    }

    fn receive(&mut self, buf: &mut [u8], most: u64, each: impl FnMut(&[u8])) -> io::Result<u64> {
        self.1.receive(buf, most, each)
    }
}

/// Two channels of one direction, crossed.
pub fn both_ways<S, R>(make: impl Fn() -> io::Result<(S, R)>) -> io::Result<((S, R), (S, R))> {
    let ((sender, their_receiver), (their_sender, receiver)) = (make()?, make()?);
    Ok(((sender, receiver), (their_sender, their_receiver)))
}

/// Every byte of what is sent.
pub const FILL: u8 = 7;

/// Reads every byte: the sum of the words, and of what is left over.
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().map(|byte| u64::from(*byte)).sum();
    words.map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))).fold(rest, u64::wrapping_add)
}

/// The order that comes before any count.
const OPEN: u64 = 0;

/// Messages from a peer to here.
pub struct OneWay<R> {
    receiver: R,
    buf: Vec<u8>,
    peer: Peer,
}

impl<R: Receiver> OneWay<R> {
    pub fn new((mut sender, mut receiver): (impl Sender, R), size: usize, core: Core) -> io::Result<Self> {
        let message = vec![FILL; size];
        let peer = Peer::start(core, move |count| {
            if count == OPEN {
                sender.open()?;
            }
            (0..count).try_for_each(|_| sender.send(&message))?;
            sender.flush()?;
            Ok(0)
        })?;
        receiver.open()?;
        peer.order(OPEN)?;
        peer.answer()?;
        Ok(Self { receiver, buf: vec![0; size], peer })
    }
}

impl<R: Receiver> Contender for OneWay<R> {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        let (mut left, mut bytes, mut total) = (count, 0, 0_u64);
        let started = Instant::now();
        self.peer.order(count)?;
        while left > 0 {
            left -= self.receiver.receive(&mut self.buf, left, |message| {
                bytes += message.len() as u64;
                total = total.wrapping_add(sum(message));
            })?;
        }
        let time = started.elapsed();
        self.peer.answer()?;
        let expected = sum(&vec![FILL; self.buf.len()]).wrapping_mul(count);
        if (bytes, total) != (count * self.buf.len() as u64, expected) {
            return Err(io::Error::other("what arrived is not what was sent"));
        }
        Ok(Pass::of(time, count))
    }
}

/// A stream from a peer to here: the peer writes so much at a time, and here is read what there is, up to 64 KiB.
pub struct Stream<R> {
    reader: R,
    size: usize,
    buf: Vec<u8>,
    peer: Peer,
}

impl<R: Read> Stream<R> {
    pub fn new((reader, mut writer): (R, impl Write), size: usize, core: Core) -> io::Result<Self> {
        let message = vec![FILL; size];
        let peer = Peer::start(core, move |count| {
            (0..count).try_for_each(|_| writer.write_all(&message))?;
            writer.flush()?;
            Ok(0)
        })?;
        Ok(Self { reader, size, buf: vec![0; 64 << 10], peer })
    }
}

impl<R: Read> Contender for Stream<R> {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        let mut left = count as usize * self.size;
        let started = Instant::now();
        self.peer.order(count)?;
        while left > 0 {
            let len = self.reader.read(&mut self.buf)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            black_box(sum(&self.buf[..len]));
            left -= len;
        }
        let time = started.elapsed();
        self.peer.answer()?;
        Ok(Pass::of(time, count))
    }
}

/// A message to a peer and an answer of the same length, each one timed.
pub struct RoundTrip<L> {
    link: L,
    message: Vec<u8>,
    buf: Vec<u8>,
    times: Vec<u64>,
    peer: Peer,
}

impl<L: Sender + Receiver> RoundTrip<L> {
    pub fn new((mut link, mut theirs): (L, L), size: usize, core: Core) -> io::Result<Self> {
        let message = vec![FILL; size];
        let (answer, mut buf) = (message.clone(), vec![0; size]);
        let peer = Peer::start(core, move |count| {
            if count == OPEN {
                Receiver::open(&mut theirs)?;
                Sender::open(&mut theirs)?;
            }
            for _ in 0..count {
                theirs.receive(&mut buf, 1, |message| {
                    black_box(sum(message));
                })?;
                theirs.send(&answer)?;
                theirs.flush()?;
            }
            Ok(0)
        })?;
        Receiver::open(&mut link)?;
        Sender::open(&mut link)?;
        peer.order(OPEN)?;
        peer.answer()?;
        Ok(Self { link, buf: vec![0; size], message, times: Vec::new(), peer })
    }
}

impl<L: Sender + Receiver> Contender for RoundTrip<L> {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        self.times.clear();
        self.times.reserve(count as usize);
        self.peer.order(count)?;
        let mut before = Instant::now();
        for _ in 0..count {
            self.link.send(&self.message)?;
            self.link.flush()?;
            self.link.receive(&mut self.buf, 1, |message| {
                black_box(sum(message));
            })?;
            let now = Instant::now();
            self.times.push(now.duration_since(before).as_nanos() as u64);
            before = now;
        }
        self.peer.answer()?;
        Ok(Pass::of_each(&mut self.times))
    }
}
