//! A pair of sockets, for messages or for bytes, and what it is to answer.
//!
//! Each side has a queue, of which the peer fills as little here that there always is room. A side is at its end when its
//! queue is empty and the peer is gone, or one of the two has shut that direction down. A peer that goes with something in
//! its queue is a reset, said once, at the end (unix.7).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use ipc::{DatagramSocket, Error, StreamSocket, datagram_pair, stream_pair};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::content::{bytes, check};
use super::partner::{Answer, Handle, Handles, Kind, Model, follow, in_words};
use super::random::mix;

/// What a call does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// `WouldBlock`.
    None,
    /// `TimedOut`.
    Zero,
    /// It waits, and so is not made.
    Endless,
}
use Patience::{Endless, None as Never, Zero};

const NOW: Duration = Duration::ZERO;

#[derive(Clone, Debug)]
pub enum Op {
    /// With that call of those that there are, and with so many ends where it takes some.
    Send {
        call: usize,
        len: usize,
        ends: usize,
    },
    Receive {
        call: usize,
        room: usize,
    },
    Shutdown(Shutdown),
    Clone,
    Close,
}

/// A step, and which of the handles takes it.
pub fn op() -> impl Strategy<Value = (Op, usize)> {
    let len = || prop_oneof![Just(0_usize), 1..10_usize, 1..3000_usize];
    let how = prop_oneof![Just(Shutdown::Read), Just(Shutdown::Write), Just(Shutdown::Both)];
    let op = prop_oneof![
        12 => (any::<usize>(), len(), 0..3_usize).prop_map(|(call, len, ends)| Op::Send { call, len, ends }),
        12 => (any::<usize>(), len()).prop_map(|(call, room)| Op::Receive { call, room }),
        1 => how.prop_map(Op::Shutdown),
        1 => Just(Op::Clone),
        2 => Just(Op::Close),
    ];
    (op, any::<usize>())
}

/// Sends something with ends, if it can.
type Send<S, T> = (Patience, bool, fn(&S, &[u8], Vec<File>) -> ipc::Result<T>);

const SEND_MESSAGE: [Send<DatagramSocket, ()>; 7] = [
    (Never, false, |socket, text, _| socket.try_send(text)),
    (Zero, false, |socket, text, _| socket.send_timeout(text, NOW)),
    (Endless, false, |socket, text, _| socket.send(text)),
    (Endless, false, |socket, text, _| socket.send_vectored(&halves(text))),
    (Never, true, |socket, text, ends| Ok(socket.try_send_with(text, ends)?)),
    (Zero, true, |socket, text, ends| Ok(socket.send_with_timeout(text, ends, NOW)?)),
    (Endless, true, |socket, text, ends| Ok(socket.send_with(text, ends)?)),
];

const SEND_BYTES: [Send<StreamSocket, usize>; 4] = [
    (Never, false, |socket, text, _| socket.try_write(text)),
    (Zero, false, |socket, text, _| socket.write_timeout(text, NOW)),
    (Endless, false, |mut socket, text, _| Ok(socket.write(text)?)),
    (Endless, false, |mut socket, text, _| Ok(socket.write_vectored(&halves(text))?)),
];

fn halves(text: &[u8]) -> [IoSlice<'_>; 2] {
    let (first, second) = text.split_at(text.len() / 2);
    [IoSlice::new(first), IoSlice::new(second)]
}

/// What is received: a message and how many ends it brings, or how many bytes were put into the buffer.
type Receive<S, T> = (Patience, fn(&S, &mut [u8]) -> ipc::Result<T>);
type Message = Option<(Vec<u8>, usize)>;

const RECEIVE_MESSAGE: [Receive<DatagramSocket, Message>; 9] = [
    (Never, |socket, buf| within(buf, |buf| socket.try_recv(buf))),
    (Zero, |socket, buf| within(buf, |buf| socket.recv_timeout(buf, NOW))),
    (Endless, |socket, buf| within(buf, |buf| socket.recv(buf))),
    (Never, |socket, _| Ok(socket.try_recv_vec()?.map(|text| (text, 0)))),
    (Zero, |socket, _| Ok(socket.recv_vec_timeout(NOW)?.map(|text| (text, 0)))),
    (Endless, |socket, _| Ok(socket.recv_vec()?.map(|text| (text, 0)))),
    (Never, |socket, _| with_ends(|text| socket.try_recv_with(text))),
    (Zero, |socket, _| with_ends(|text| socket.recv_with_timeout(text, NOW))),
    (Endless, |socket, _| with_ends(|text| socket.recv_with(text))),
];

/// The first so many of those calls look at the size of the buffer; those from there on bring ends.
const WITHIN: usize = 3;
const WITH_ENDS: usize = 6;

const RECEIVE_BYTES: [Receive<StreamSocket, usize>; 6] = [
    (Never, |socket, buf| socket.try_read(buf)),
    (Zero, |socket, buf| socket.read_timeout(buf, NOW)),
    (Endless, |mut socket, buf| Ok(socket.read(buf)?)),
    (Endless, |mut socket, buf| {
        let (first, second) = buf.split_at_mut(buf.len() / 2);
        Ok(socket.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?)
    }),
    (Never, |socket, buf| socket.try_recv_with(buf).map(|(len, _)| len)),
    (Endless, |socket, buf| socket.recv_with(buf).map(|(len, _)| len)),
];

fn within(buf: &mut [u8], recv: impl FnOnce(&mut [u8]) -> ipc::Result<Option<usize>>) -> ipc::Result<Message> {
    Ok(recv(buf)?.map(|len| (buf[..len].to_vec(), 0)))
}

fn with_ends(recv: impl FnOnce(&mut Vec<u8>) -> ipc::Result<Option<ipc::Received>>) -> ipc::Result<Message> {
    let mut text = Vec::new();
    let received = recv(&mut text)?;
    Ok(received.map(|received| (text, received.len())))
}

/// Of one side.
pub enum Socket {
    Messages(DatagramSocket),
    Bytes(StreamSocket),
}

impl ipc::Ends for Socket {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        match self {
            Socket::Messages(socket) => socket.each(visit),
            Socket::Bytes(socket) => socket.each(visit),
        }
    }
}

/// The call that looks at the next message and leaves it; it comes after those that receive.
const PEEK: usize = RECEIVE_MESSAGE.len();

impl Handle for Socket {
    type Op = (Op, usize);

    fn perform(&self, (op, _): &Self::Op, at: u64) -> Answer {
        match (self, op) {
            (Socket::Messages(socket), Op::Send { call, len, ends }) => {
                let ends = (0..*ends).map(|_| File::open("/dev/null").expect("/dev/null")).collect();
                in_words(SEND_MESSAGE[call % SEND_MESSAGE.len()].2(socket, &bytes(mix(at), 0, *len), ends))
            }
            (Socket::Bytes(socket), Op::Send { call, len, .. }) => in_words(SEND_BYTES[call % SEND_BYTES.len()].2(
                socket,
                &bytes(mix(at >> 32), at as u32 as u64, *len),
                Vec::new(),
            )),
            (Socket::Messages(socket), Op::Receive { call, room }) => match call % (PEEK + 1) {
                PEEK => in_words(socket.peek_len()),
                call => {
                    let result = RECEIVE_MESSAGE[call].1(socket, &mut vec![0; *room]);
                    match &result {
                        Ok(Some((text, _))) | Err(Error::BufferTooSmall { message: text }) => check(mix(at), 0, text),
                        _ => {}
                    }
                    in_words(result.map(|received| received.map(|(text, ends)| (text.len(), ends))))
                }
            },
            (Socket::Bytes(socket), Op::Receive { call, room }) => {
                let mut buf = vec![0; *room];
                let result = RECEIVE_BYTES[call % RECEIVE_BYTES.len()].1(socket, &mut buf);
                if let Ok(len) = result {
                    check(mix(at >> 32), at as u32 as u64, &buf[..len]);
                }
                in_words(result)
            }
            (Socket::Messages(socket), Op::Shutdown(how)) => in_words(socket.shutdown(*how)),
            (Socket::Bytes(socket), Op::Shutdown(how)) => in_words(socket.shutdown(*how)),
            _ => panic!("{op:?} is no call"),
        }
    }

    fn clone_of(&self) -> Self {
        match self {
            Socket::Messages(socket) => Socket::Messages(socket.try_clone().expect("there is room for an end")),
            Socket::Bytes(socket) => Socket::Bytes(socket.try_clone().expect("there is room for an end")),
        }
    }
}

/// One side of the pair.
#[derive(Default)]
struct Side {
    /// What was sent to it: a place in the stream or the number of a message, the length, and how many ends.
    queue: VecDeque<(u64, usize, usize)>,
    no_more_in: bool,
    no_more_out: bool,
    /// The peer went with something unread, and nobody was told.
    reset: bool,
}

struct Pair {
    messages: bool,
    /// Whether the kernel counts a single empty message as something unread. Newer ones do not.
    empty_counts: bool,
    sides: [Side; 2],
    handles: Handles,
    /// What the next message or byte that is sent from each side has for its place.
    next: [u64; 2],
}

/// So much in a queue always has room.
const QUEUE: usize = 16;

impl Pair {
    /// What is to be answered. `None`: the call would wait, and is not made.
    fn call(&mut self, side: usize, op: &Op) -> Option<Answer> {
        match op {
            Op::Send { call, len, ends } => self.send(side, *call, *len, *ends),
            Op::Receive { call, room } if self.messages => self.receive_message(side, call % (PEEK + 1), *room),
            Op::Receive { call, room } => self.receive_bytes(side, RECEIVE_BYTES[call % RECEIVE_BYTES.len()].0, *room),
            Op::Shutdown(how) => {
                if *how != Shutdown::Write {
                    self.sides[side].no_more_in = true;
                    self.sides[1 - side].no_more_out = true;
                }
                if *how != Shutdown::Read {
                    self.sides[side].no_more_out = true;
                    self.sides[1 - side].no_more_in = true;
                }
                Some("()".to_owned())
            }
            Op::Clone | Op::Close => unreachable!("these are no calls on a handle"),
        }
    }

    fn send(&mut self, side: usize, call: usize, len: usize, ends: usize) -> Option<Answer> {
        if !self.messages && len == 0 {
            return Some("0".to_owned()); // tells nothing
        }
        if self.sides[side].no_more_out {
            return Some("Closed".to_owned());
        }
        if self.sides[1 - side].queue.len() >= QUEUE {
            return None;
        }
        let takes_ends = self.messages && SEND_MESSAGE[call % SEND_MESSAGE.len()].1;
        self.sides[1 - side].queue.push_back((self.next[side], len, if takes_ends { ends } else { 0 }));
        self.next[side] += if self.messages { 1 } else { len as u64 };
        Some(if self.messages { "()".to_owned() } else { len.to_string() })
    }

    /// Nothing is in the queue.
    fn nothing(&mut self, side: usize, patience: Patience, end: &str) -> Option<Answer> {
        let side = &mut self.sides[side];
        match patience {
            _ if side.no_more_in && side.reset => {
                side.reset = false;
                Some("Reset".to_owned())
            }
            _ if side.no_more_in => Some(end.to_owned()),
            Never => Some("WouldBlock".to_owned()),
            Zero => Some("TimedOut".to_owned()),
            Endless => None,
        }
    }

    fn receive_message(&mut self, side: usize, call: usize, room: usize) -> Option<Answer> {
        let patience = RECEIVE_MESSAGE.get(call).map_or(Endless, |(patience, _)| *patience);
        let Some(&(_, len, ends)) = self.sides[side].queue.front() else { return self.nothing(side, patience, "None") };
        if call == PEEK {
            return Some(format!("Some({len})"));
        }
        self.sides[side].queue.pop_front();
        if call < WITHIN && len > room {
            return Some(format!("BufferTooSmall {len}"));
        }
        let ends = if call < WITH_ENDS { 0 } else { ends };
        Some(format!("Some(({len}, {ends}))"))
    }

    fn receive_bytes(&mut self, side: usize, patience: Patience, room: usize) -> Option<Answer> {
        if room == 0 {
            return Some("0".to_owned()); // tells nothing
        }
        let queue = &mut self.sides[side].queue;
        if queue.is_empty() {
            return self.nothing(side, patience, "0");
        }
        let mut got = 0;
        while let Some((at, len, _)) = queue.front_mut().filter(|_| got < room) {
            let more = (*len).min(room - got);
            (*at, *len, got) = (*at + more as u64, *len - more, got + more);
            if *len == 0 {
                queue.pop_front();
            }
        }
        Some(got.to_string())
    }

    /// What the call is to send or to receive: a number or a place, and for bytes also from which side.
    fn at(&self, side: usize, op: &Op) -> u64 {
        let (from, at) = match op {
            Op::Send { .. } => (side, self.next[side]),
            _ => (1 - side, self.sides[side].queue.front().map_or(0, |(at, ..)| *at)),
        };
        (from as u64) << 32 | at
    }
}

impl Model for Pair {
    type Op = Op;

    fn kind(op: &Op) -> Kind {
        match op {
            Op::Clone => Kind::Clone,
            Op::Close => Kind::Close,
            _ => Kind::Call,
        }
    }

    fn side(_: &Op) -> Option<usize> {
        None
    }

    fn handles(&mut self) -> &mut Handles {
        &mut self.handles
    }

    fn answer(&mut self, side: usize, op: &Op) -> Option<(u64, Answer)> {
        let at = self.at(side, op);
        Some((at, self.call(side, op)?))
    }

    fn closed(&mut self, side: usize) {
        if self.handles.count(side) > 0 {
            return;
        }
        let unread = match self.sides[side].queue.make_contiguous() {
            [] => false,
            [(_, 0, _)] => self.empty_counts,
            _ => true,
        };
        let peer = &mut self.sides[1 - side];
        (peer.no_more_in, peer.no_more_out) = (true, true);
        peer.reset |= unread;
    }
}

fn an_empty_message_counts() -> bool {
    let pair = datagram_pair().expect("there is room for a pair");
    pair.parent.send(b"").expect("an empty queue");
    drop(pair.child);
    matches!(pair.parent.recv_vec(), Err(Error::Reset))
}

pub fn try_steps(messages: bool, ops: &[(Op, usize)], here: [bool; 2]) -> Result<(), TestCaseError> {
    let sockets = if messages {
        let pair = datagram_pair().expect("there is room for a pair");
        [Socket::Messages(pair.parent), Socket::Messages(pair.child)]
    } else {
        let pair = stream_pair().expect("there is room for a pair");
        [Socket::Bytes(pair.parent), Socket::Bytes(pair.child)]
    };
    let model = Pair {
        messages,
        empty_counts: messages && an_empty_message_counts(),
        sides: [Side::default(), Side::default()],
        handles: Handles::new(here),
        next: [0; 2],
    };
    follow(model, ops, here, sockets)
}
