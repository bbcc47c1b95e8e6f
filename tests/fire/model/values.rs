//! A typed channel, and what it is to answer: whole values in order, with their ends, and EOF.

use std::collections::VecDeque;
use std::io::Read;
use std::time::Duration;

use ipc::{Error, PipeReader, Receiver, Sender, Unsent, channel, pipe};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::{Deserialize, Serialize};

use super::content::{bytes, check_message, message};
use super::partner::{Answer, Handle, Handles, Kind, Model, follow, in_words};

const KEY: u64 = 0x5eed;

/// More than goes in a datagram of a usual machine, and so few values at once that they fit the queue.
const LONGEST: usize = 400_000;
const MOST: usize = 12;

#[derive(Clone, Debug)]
pub enum Op {
    Send,
    TrySend,
    SendTimeout,
    Recv,
    TryRecv,
    RecvTimeout,
    Clone,
    Close,
}

/// A step, and which of the handles takes it.
pub fn op() -> impl Strategy<Value = (Op, usize)> {
    let op = prop_oneof![
        4 => Just(Op::Send),
        4 => Just(Op::TrySend),
        2 => Just(Op::SendTimeout),
        4 => Just(Op::Recv),
        4 => Just(Op::TryRecv),
        2 => Just(Op::RecvTimeout),
        2 => Just(Op::Clone),
        1 => Just(Op::Close),
    ];
    (op, any::<usize>())
}

/// Its number says what is in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Value {
    number: u64,
    text: Vec<u8>,
    readers: Vec<PipeReader>,
}

impl Value {
    fn new(number: u64) -> Self {
        // One in four is large.
        let longest = if number.is_multiple_of(4) { LONGEST } else { 2000 };
        let filled = |at| {
            let (reader, writer) = pipe().expect("there is room for a pipe");
            writer.write_atomic(&bytes(KEY ^ at, 0, 100)).expect("an empty pipe");
            reader
        };
        Self { number, text: message(KEY, number, longest), readers: (0..number % 3).map(filled).collect() }
    }

    /// That it is value `number`, whole, and that its ends are what they were.
    fn check(self, number: u64) -> u64 {
        assert_eq!((self.number, self.readers.len() as u64), (number, number % 3));
        check_message(KEY, number, if number.is_multiple_of(4) { LONGEST } else { 2000 }, &self.text);
        for (at, mut reader) in (0..).zip(self.readers) {
            let mut inside = Vec::new();
            reader.read_to_end(&mut inside).expect("a pipe can be read");
            assert_eq!(inside, bytes(KEY ^ at, 0, 100));
        }
        number
    }
}

pub enum End {
    Sender(Sender<Value>),
    Receiver(Receiver<Value>),
}

impl ipc::Ends for End {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        match self {
            End::Sender(sender) => sender.each(visit),
            End::Receiver(receiver) => receiver.each(visit),
        }
    }
}

impl Handle for End {
    type Op = (Op, usize);

    fn perform(&self, (op, _): &Self::Op, at: u64) -> Answer {
        let zero = Duration::ZERO;
        match (self, op) {
            (End::Sender(sender), Op::Send) => sent(sender.send(Value::new(at)), at),
            (End::Sender(sender), Op::TrySend) => sent(sender.try_send(Value::new(at)), at),
            (End::Sender(sender), Op::SendTimeout) => sent(sender.send_timeout(Value::new(at), zero), at),
            (End::Receiver(receiver), Op::Recv) => received(receiver.recv(), at),
            (End::Receiver(receiver), Op::TryRecv) => received(receiver.try_recv(), at),
            (End::Receiver(receiver), Op::RecvTimeout) => received(receiver.recv_timeout(zero), at),
            _ => panic!("{op:?} is not for this end"),
        }
    }

    fn clone_of(&self) -> Self {
        match self {
            End::Sender(sender) => End::Sender(sender.try_clone().expect("there is room for an end")),
            End::Receiver(receiver) => End::Receiver(receiver.try_clone().expect("there is room for an end")),
        }
    }
}

/// A value that is given back is whole, and its ends are open.
fn sent(result: Result<(), Unsent<Value>>, at: u64) -> Answer {
    in_words(result.map_err(|unsent| {
        unsent.value.check(at);
        unsent.error
    }))
}

fn received(result: ipc::Result<Option<Value>>, at: u64) -> Answer {
    in_words(result.map(|value| value.map(|value| value.check(at))))
}

const RECEIVERS: usize = 0;
const SENDERS: usize = 1;

struct Channel {
    queue: VecDeque<u64>,
    next: u64,
    handles: Handles,
}

impl Model for Channel {
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
            Op::Send | Op::TrySend | Op::SendTimeout => Some(SENDERS),
            Op::Recv | Op::TryRecv | Op::RecvTimeout => Some(RECEIVERS),
            Op::Clone | Op::Close => None,
        }
    }

    fn handles(&mut self) -> &mut Handles {
        &mut self.handles
    }

    /// `None` too where there is enough in the queue.
    fn answer(&mut self, _: usize, op: &Op) -> Option<(u64, Answer)> {
        match op {
            Op::Send | Op::TrySend | Op::SendTimeout => {
                let no_receiver = self.handles.count(RECEIVERS) == 0;
                if !no_receiver && self.queue.len() == MOST {
                    return None;
                }
                self.next += 1;
                if no_receiver {
                    return Some((self.next, in_words::<()>(Err(Error::Closed))));
                }
                self.queue.push_back(self.next);
                Some((self.next, in_words(Ok(()))))
            }
            Op::Recv | Op::TryRecv | Op::RecvTimeout => {
                let over = self.handles.count(SENDERS) == 0;
                Some(match (self.queue.pop_front(), op) {
                    (Some(number), _) => (number, in_words(Ok(Some(number)))),
                    (None, _) if over => (0, in_words::<Option<u64>>(Ok(None))),
                    (None, Op::TryRecv) => (0, in_words::<()>(Err(Error::WouldBlock))),
                    (None, Op::RecvTimeout) => (0, in_words::<()>(Err(Error::TimedOut))),
                    (None, _) => return None,
                })
            }
            Op::Clone | Op::Close => unreachable!("these are no calls on a handle"),
        }
    }

    fn closed(&mut self, _: usize) {
        if self.handles.count(RECEIVERS) == 0 {
            self.queue.clear();
        }
    }
}

pub fn try_steps(ops: &[(Op, usize)], here: [bool; 2]) -> Result<(), TestCaseError> {
    let (sender, receiver) = channel().expect("there is room for a channel");
    let model = Channel { queue: VecDeque::new(), next: 0, handles: Handles::new(here) };
    follow(model, ops, here, [End::Receiver(receiver), End::Sender(sender)])
}
