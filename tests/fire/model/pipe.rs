//! A pipe, and what it is to answer.
//!
//! It keeps its bytes in as many pages as its capacity has. A write goes on in the last page if all of what is over whole
//! pages fits there, and takes new ones otherwise; a page is free again when all of it was read (pipe.7 says little of it).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

use ipc::{Error, PIPE_BUF, PipeReader, PipeWriter, pipe};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::content::{bytes, check};
use super::partner::{Answer, Handle, Handles, Kind, Model, follow, in_words};
use crate::support::has_nowait;

const KEY: u64 = 0x5eed;

/// Writes are cut to this at first.
const CUT: usize = 8 << 10;

/// One step, with any of the handles that can do it.
#[derive(Clone, Debug)]
pub enum Op {
    TryWrite(usize),
    WriteTimeout(usize),
    Write(usize),
    WriteAtomic(usize),
    IsClosed,
    TryRead(usize),
    ReadTimeout(usize),
    Read(usize),
    Available,
    Capacity,
    SetCapacity(usize),
    Clone,
    Close,
}

/// A step, and which of the handles takes it.
pub fn op() -> impl Strategy<Value = (Op, usize)> {
    let len = prop_oneof![
        Just(0_usize),
        1..20_usize,
        PIPE_BUF - 2..PIPE_BUF + 3,
        CUT - 2..CUT + 3,
        1..PIPE_BUF,
        1..20_000_usize,
    ];
    let len = || len.clone();
    let op = prop_oneof![
        5 => len().prop_map(Op::TryWrite),
        2 => len().prop_map(Op::WriteTimeout),
        3 => len().prop_map(Op::Write),
        3 => len().prop_map(Op::WriteAtomic),
        1 => Just(Op::IsClosed),
        5 => len().prop_map(Op::TryRead),
        2 => len().prop_map(Op::ReadTimeout),
        3 => len().prop_map(Op::Read),
        1 => Just(Op::Available),
        1 => Just(Op::Capacity),
        1 => prop_oneof![Just(0), Just(1), 1..100_000_usize].prop_map(Op::SetCapacity),
        1 => Just(Op::Clone),
        1 => Just(Op::Close),
    ];
    (op, any::<usize>())
}

pub enum End {
    Reader(PipeReader),
    Writer(PipeWriter),
}

impl ipc::Ends for End {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        match self {
            End::Reader(reader) => reader.each(visit),
            End::Writer(writer) => writer.each(visit),
        }
    }
}

impl Handle for End {
    type Op = (Op, usize);

    fn perform(&self, (op, _): &Self::Op, at: u64) -> Answer {
        let zero = Duration::ZERO;
        match (self, op) {
            (End::Writer(writer), Op::TryWrite(len)) => in_words(writer.try_write(&bytes(KEY, at, *len))),
            (End::Writer(writer), Op::WriteTimeout(len)) => in_words(writer.write_timeout(&bytes(KEY, at, *len), zero)),
            (End::Writer(writer), Op::Write(len)) => {
                in_words((&*writer).write(&bytes(KEY, at, *len)).map_err(Error::from))
            }
            (End::Writer(writer), Op::WriteAtomic(len)) => in_words(writer.write_atomic(&bytes(KEY, at, *len))),
            (End::Writer(writer), Op::IsClosed) => in_words(writer.is_closed()),
            (End::Reader(reader), Op::TryRead(len)) => read(*len, at, |buf| reader.try_read(buf)),
            (End::Reader(reader), Op::ReadTimeout(len)) => read(*len, at, |buf| reader.read_timeout(buf, zero)),
            (End::Reader(reader), Op::Read(len)) => read(*len, at, |buf| Ok((&*reader).read(buf)?)),
            (End::Reader(reader), Op::Available) => in_words(reader.available()),
            (End::Reader(reader), Op::Capacity) => in_words(reader.capacity()),
            (End::Writer(writer), Op::Capacity) => in_words(writer.capacity()),
            (End::Reader(reader), Op::SetCapacity(size)) => in_words(reader.set_capacity(*size)),
            (End::Writer(writer), Op::SetCapacity(size)) => in_words(writer.set_capacity(*size)),
            _ => panic!("{op:?} is not for this end"),
        }
    }

    fn clone_of(&self) -> Self {
        match self {
            End::Reader(reader) => End::Reader(reader.try_clone().expect("there is room for an end")),
            End::Writer(writer) => End::Writer(writer.try_clone().expect("there is room for an end")),
        }
    }
}

fn read(len: usize, at: u64, read: impl FnOnce(&mut [u8]) -> ipc::Result<usize>) -> Answer {
    let mut buf = vec![0; len];
    in_words(read(&mut buf).inspect(|got| check(KEY, at, &buf[..*got])))
}

const READERS: usize = 0;
const WRITERS: usize = 1;

/// How far a page is filled, and how much of that was read.
struct Page {
    filled: usize,
    read: usize,
}

struct Pipe {
    page: usize,
    capacity: usize,
    /// Whether writes that do not wait are as any other. Otherwise they are spliced, and begin with a page of their own.
    nowait: bool,
    pages: VecDeque<Page>,
    /// Where the next byte that is written or read has its place.
    written: u64,
    read: u64,
    handles: Handles,
}

impl Pipe {
    fn available(&self) -> usize {
        self.pages.iter().map(|page| page.filled - page.read).sum()
    }

    /// How much of a write goes in.
    fn room_for(&self, len: usize, joins: bool) -> usize {
        let rest = len % self.page;
        let joins = joins && self.joins(rest).is_some();
        let free = (self.capacity - self.pages.len()) * self.page;
        if joins { rest + (len - rest).min(free) } else { len.min(free) }
    }

    /// The last page, if so much of a write goes on in it.
    fn joins(&self, rest: usize) -> Option<usize> {
        let last = self.pages.back().filter(|last| rest > 0 && last.filled + rest <= self.page)?;
        Some(last.filled + rest)
    }

    fn put(&mut self, len: usize, joins: bool) {
        let rest = len % self.page;
        let mut left = len;
        if let (true, Some(filled)) = (joins, self.joins(rest)) {
            self.pages.back_mut().expect("it is there").filled = filled;
            left -= rest;
        }
        while left > 0 {
            let filled = left.min(self.page);
            self.pages.push_back(Page { filled, read: 0 });
            left -= filled;
        }
        self.written += len as u64;
    }

    fn get(&mut self, len: usize) {
        let mut left = len;
        while left > 0 {
            let first = self.pages.front_mut().expect("as much as is available");
            let read = left.min(first.filled - first.read);
            first.read += read;
            left -= read;
            if first.read == first.filled {
                self.pages.pop_front();
            }
        }
        self.read += len as u64;
    }

    /// A write that may be cut, and that does not wait.
    fn write(&mut self, len: usize, joins: bool, otherwise: &str) -> Answer {
        let room = self.room_for(len, joins);
        match room {
            _ if len == 0 => "0".to_owned(),
            _ if self.handles.count(READERS) == 0 => "Closed".to_owned(),
            0 => otherwise.to_owned(),
            _ => {
                self.put(room, joins);
                room.to_string()
            }
        }
    }

    fn read(&mut self, len: usize, otherwise: &str) -> Answer {
        let got = len.min(self.available());
        match got {
            _ if len == 0 => "0".to_owned(),
            0 if self.handles.count(WRITERS) == 0 => "0".to_owned(),
            0 => otherwise.to_owned(),
            _ => {
                self.get(got);
                got.to_string()
            }
        }
    }

    fn set_capacity(&mut self, bytes: usize) -> Answer {
        let pages = bytes.div_ceil(self.page).max(1).next_power_of_two();
        if pages < self.pages.len() {
            return format!("fcntl: {:?}", Some(libc::EBUSY));
        }
        self.capacity = pages;
        (pages * self.page).to_string()
    }

    /// What is to be answered. `None`: the call would wait, and is not made.
    fn call(&mut self, op: &Op) -> Option<Answer> {
        Some(match op {
            Op::TryWrite(len) => self.write((*len).min(CUT), self.nowait, "WouldBlock"),
            Op::WriteTimeout(len) => self.write((*len).min(CUT), self.nowait, "TimedOut"),
            Op::Write(len) => {
                let len = (*len).min(CUT);
                if self.handles.count(READERS) > 0 && self.room_for(len, true) < len {
                    return None;
                }
                self.write(len, true, "")
            }
            Op::WriteAtomic(len) if *len > PIPE_BUF => format!("TooLong {{ len: {len}, max: {PIPE_BUF} }}"),
            Op::WriteAtomic(len) => {
                if self.handles.count(READERS) > 0 && self.room_for(*len, true) < *len {
                    return None;
                }
                let written = self.write(*len, true, "");
                if written == len.to_string() { "()".to_owned() } else { written }
            }
            Op::IsClosed => (self.handles.count(READERS) == 0).to_string(),
            Op::TryRead(len) => self.read(*len, "WouldBlock"),
            Op::ReadTimeout(len) => self.read(*len, "TimedOut"),
            Op::Read(len) => {
                if *len > 0 && self.available() == 0 && self.handles.count(WRITERS) > 0 {
                    return None;
                }
                self.read(*len, "")
            }
            Op::Available => self.available().to_string(),
            Op::Capacity => (self.capacity * self.page).to_string(),
            Op::SetCapacity(bytes) => self.set_capacity(*bytes),
            Op::Clone | Op::Close => unreachable!("these are no calls on a handle"),
        })
    }
}

impl Model for Pipe {
    type Op = Op;

    fn kind(op: &Op) -> Kind {
        match op {
            Op::Clone => Kind::Clone,
            Op::Close => Kind::Close,
            _ => Kind::Call,
        }
    }

    fn side(op: &Op) -> Option<usize> {
        match op {
            Op::TryWrite(_) | Op::WriteTimeout(_) | Op::Write(_) | Op::WriteAtomic(_) | Op::IsClosed => Some(WRITERS),
            Op::TryRead(_) | Op::ReadTimeout(_) | Op::Read(_) | Op::Available => Some(READERS),
            Op::Capacity | Op::SetCapacity(_) | Op::Clone | Op::Close => None,
        }
    }

    fn handles(&mut self) -> &mut Handles {
        &mut self.handles
    }

    fn answer(&mut self, side: usize, op: &Op) -> Option<(u64, Answer)> {
        let at = if side == WRITERS { self.written } else { self.read };
        Some((at, self.call(op)?))
    }
}

pub fn try_steps(ops: &[(Op, usize)], here: [bool; 2]) -> Result<(), TestCaseError> {
    let (reader, writer) = pipe().expect("there is room for a pipe");
    // SAFETY: no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let model = Pipe {
        page,
        capacity: writer.capacity().expect("a pipe") / page,
        nowait: has_nowait(),
        pages: VecDeque::new(),
        written: 0,
        read: 0,
        handles: Handles::new(here),
    };
    follow(model, ops, here, [End::Reader(reader), End::Writer(writer)])
}
