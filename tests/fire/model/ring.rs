//! A ring, and what it is to answer: as many bytes as its capacity, in order, and EOF.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use ipc::{Error, RingReader, RingWriter, StreamSocket, stream_pair, wait_any};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::content::{bytes, check};
use super::partner::{Answer, Handle, Handles, Kind, Model, follow, in_words};

const KEY: u64 = 0x5eed;

/// Small, so that it is often full. The kernel's pages are as large on every processor that this runs on, or larger.
const CAPACITY: usize = 64 << 10;

const READER: usize = 0;
const WRITER: usize = 1;

#[derive(Clone, Debug)]
pub enum Op {
    TryWrite(usize),
    WriteTimeout(usize),
    Write(usize),
    WriteVectored(usize),
    IsClosed,
    TryRead(usize),
    ReadTimeout(usize),
    Read(usize),
    ReadVectored(usize),
    Available,
    /// Whether that side is ready, as `wait_any` sees it.
    Watch(usize),
    /// That side.
    Close(usize),
}

/// A step, which the one handle of its side takes.
pub fn op() -> impl Strategy<Value = (Op, usize)> {
    let len = prop_oneof![Just(0_usize), 1..20_usize, 1..5000_usize, 1..2 * CAPACITY, CAPACITY - 2..CAPACITY + 3,];
    let len = || len.clone();
    let op = prop_oneof![
        5 => len().prop_map(Op::TryWrite),
        2 => len().prop_map(Op::WriteTimeout),
        3 => len().prop_map(Op::Write),
        1 => len().prop_map(Op::WriteVectored),
        1 => Just(Op::IsClosed),
        5 => len().prop_map(Op::TryRead),
        2 => len().prop_map(Op::ReadTimeout),
        3 => len().prop_map(Op::Read),
        1 => len().prop_map(Op::ReadVectored),
        1 => Just(Op::Available),
        3 => (READER..=WRITER).prop_map(Op::Watch),
        1 => (READER..=WRITER).prop_map(Op::Close),
    ];
    (op, Just(0))
}

/// A side of the ring. A socket travels to its process, and the ring is put on it there.
pub struct Side {
    writes: bool,
    socket: StreamSocket,
    ring: RefCell<Option<Ring>>,
}

enum Ring {
    Reader(RingReader),
    Writer(RingWriter),
}

impl Side {
    fn new(writes: bool, socket: StreamSocket) -> Self {
        Self { writes, socket, ring: RefCell::default() }
    }

    fn put_on(&self) -> Ring {
        let socket = self.socket.try_clone().expect("there is room for an end");
        match self.writes {
            true => Ring::Writer(RingWriter::with_capacity(socket, CAPACITY).expect("there is memory")),
            false => {
                let mut reader = RingReader::new(socket).expect("there is room for a reader");
                assert_eq!(reader.available().expect("a writer that has said hello"), 0);
                Ring::Reader(reader)
            }
        }
    }
}

impl ipc::Ends for Side {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        self.socket.each(visit);
    }
}

impl Handle for Side {
    type Op = (Op, usize);

    fn perform(&self, (op, _): &Self::Op, at: u64) -> Answer {
        let zero = Duration::ZERO;
        let mut ring = self.ring.borrow_mut();
        match (ring.get_or_insert_with(|| self.put_on()), op) {
            (Ring::Writer(ring), Op::TryWrite(len)) => in_words(ring.try_write(&bytes(KEY, at, *len))),
            (Ring::Writer(ring), Op::WriteTimeout(len)) => in_words(ring.write_timeout(&bytes(KEY, at, *len), zero)),
            (Ring::Writer(ring), Op::Write(len)) => in_words(ring.write(&bytes(KEY, at, *len)).map_err(Error::from)),
            (Ring::Writer(ring), Op::WriteVectored(len)) => {
                let bytes = bytes(KEY, at, *len);
                let (one, two) = bytes.split_at(len / 3);
                let slices = [IoSlice::new(one), IoSlice::new(two)];
                in_words(ring.write_vectored(&slices).map_err(Error::from))
            }
            (Ring::Writer(ring), Op::Watch(_)) => in_words(wait_any(&mut [ring.watch()], Some(zero))),
            (Ring::Writer(ring), Op::IsClosed) => in_words(ring.is_closed()),
            (Ring::Reader(ring), Op::TryRead(len)) => read(*len, at, |buf| ring.try_read(buf)),
            (Ring::Reader(ring), Op::ReadTimeout(len)) => read(*len, at, |buf| ring.read_timeout(buf, zero)),
            (Ring::Reader(ring), Op::Read(len)) => read(*len, at, |buf| Ok(ring.read(buf)?)),
            (Ring::Reader(ring), Op::ReadVectored(len)) => read(*len, at, |buf| {
                let (one, two) = buf.split_at_mut(len / 3);
                Ok(ring.read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(two)])?)
            }),
            (Ring::Reader(ring), Op::Watch(_)) => in_words(wait_any(&mut [ring.watch()], Some(zero))),
            (Ring::Reader(ring), Op::Available) => in_words(ring.available()),
            _ => panic!("{op:?} is not for this side"),
        }
    }

    fn clone_of(&self) -> Self {
        unreachable!("nobody else can have a side of a ring")
    }
}

fn read(len: usize, at: u64, read: impl FnOnce(&mut [u8]) -> ipc::Result<usize>) -> Answer {
    let mut buf = vec![0; len];
    in_words(read(&mut buf).inspect(|got| check(KEY, at, &buf[..*got])))
}

struct Counters {
    written: u64,
    read: u64,
    handles: Handles,
}

impl Counters {
    fn is_open(&self, side: usize) -> bool {
        self.handles.count(side) > 0
    }

    fn available(&self) -> usize {
        (self.written - self.read) as usize
    }

    fn write(&mut self, len: usize, otherwise: &str) -> Answer {
        let room = len.min(CAPACITY - self.available());
        match room {
            _ if len == 0 => "0".to_owned(),
            _ if !self.is_open(READER) => "Closed".to_owned(),
            0 => otherwise.to_owned(),
            _ => {
                self.written += room as u64;
                room.to_string()
            }
        }
    }

    fn read(&mut self, len: usize, otherwise: &str) -> Answer {
        let got = len.min(self.available());
        match got {
            _ if len == 0 => "0".to_owned(),
            0 if !self.is_open(WRITER) => "0".to_owned(),
            0 => otherwise.to_owned(),
            _ => {
                self.read += got as u64;
                got.to_string()
            }
        }
    }

    /// What is to be answered. `None`: the call would wait, and is not made.
    fn call(&mut self, op: &Op) -> Option<Answer> {
        Some(match op {
            Op::TryWrite(len) => self.write(*len, "WouldBlock"),
            Op::WriteTimeout(len) => self.write(*len, "TimedOut"),
            Op::Write(len) | Op::WriteVectored(len) => {
                if *len > 0 && self.is_open(READER) && self.available() == CAPACITY {
                    return None;
                }
                self.write(*len, "")
            }
            Op::IsClosed => (!self.is_open(READER)).to_string(),
            Op::TryRead(len) => self.read(*len, "WouldBlock"),
            Op::ReadTimeout(len) => self.read(*len, "TimedOut"),
            Op::Read(len) | Op::ReadVectored(len) => {
                if *len > 0 && self.available() == 0 && self.is_open(WRITER) {
                    return None;
                }
                self.read(*len, "")
            }
            Op::Available => self.available().to_string(),
            Op::Watch(READER) => u8::from(self.available() > 0 || !self.is_open(WRITER)).to_string(),
            Op::Watch(_) => u8::from(self.available() < CAPACITY || !self.is_open(READER)).to_string(),
            Op::Close(_) => unreachable!("that is no call on a side"),
        })
    }
}

impl Model for Counters {
    type Op = Op;

    fn kind(op: &Op) -> Kind {
        if matches!(op, Op::Close(_)) { Kind::Close } else { Kind::Call }
    }

    fn side(op: &Op) -> Option<usize> {
        Some(match op {
            Op::TryWrite(_) | Op::WriteTimeout(_) | Op::Write(_) | Op::WriteVectored(_) | Op::IsClosed => WRITER,
            Op::TryRead(_) | Op::ReadTimeout(_) | Op::Read(_) | Op::ReadVectored(_) | Op::Available => READER,
            Op::Watch(side) | Op::Close(side) => *side,
        })
    }

    fn handles(&mut self) -> &mut Handles {
        &mut self.handles
    }

    fn answer(&mut self, side: usize, op: &Op) -> Option<(u64, Answer)> {
        let at = if side == WRITER { self.written } else { self.read };
        Some((at, self.call(op)?))
    }
}

pub fn try_steps(ops: &[(Op, usize)], here: [bool; 2]) -> Result<(), TestCaseError> {
    // The first two make the ring: the writer says hello, and the reader hears it.
    let ops: Vec<_> = [(Op::IsClosed, 0), (Op::Available, 0)].into_iter().chain(ops.iter().cloned()).collect();
    let pair = stream_pair().expect("there is room for a pair");
    let model = Counters { written: 0, read: 0, handles: Handles::new(here) };
    follow(model, &ops, here, [Side::new(false, pair.parent), Side::new(true, pair.child)])
}
