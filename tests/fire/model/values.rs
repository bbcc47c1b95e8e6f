//! A typed channel, and what it is to answer: whole values in order, with their ends, and EOF.

use std::collections::VecDeque;
use std::io::Read;
use std::time::Duration;

use ipc::{Error, PipeReader, Receiver, Sender, Unsent, channel, pipe};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::{Deserialize, Serialize};

use super::content::{bytes, check_message, message};
use super::partner::{Answer, Handle, Step, Two, in_words};

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

struct Model {
    queue: VecDeque<u64>,
    next: u64,
    /// Each handle: whether it sends, whether it is in this process. `None`: closed.
    handles: Vec<Option<(bool, bool)>>,
}

impl Model {
    fn count(&self, senders: bool) -> usize {
        self.handles.iter().flatten().filter(|(sends, _)| *sends == senders).count()
    }

    /// The number of the value that is sent or comes next, and what is to be answered. `None`: the call is not made, as it
    /// would wait, or as there is enough in the queue.
    fn answer(&mut self, op: &Op) -> Option<(u64, Answer)> {
        match op {
            Op::Send | Op::TrySend | Op::SendTimeout => {
                if self.count(false) > 0 && self.queue.len() == MOST {
                    return None;
                }
                self.next += 1;
                if self.count(false) == 0 {
                    return Some((self.next, in_words::<()>(Err(Error::Closed))));
                }
                self.queue.push_back(self.next);
                Some((self.next, in_words(Ok(()))))
            }
            Op::Recv | Op::TryRecv | Op::RecvTimeout => {
                let over = self.count(true) == 0;
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

    /// The handle that takes the step, if there is one that can.
    fn choose(&self, op: &Op, which: usize) -> Option<usize> {
        let side = match op {
            Op::Send | Op::TrySend | Op::SendTimeout => Some(true),
            Op::Recv | Op::TryRecv | Op::RecvTimeout => Some(false),
            Op::Clone | Op::Close => None,
        };
        let fits =
            |handle: &Option<(bool, bool)>| handle.is_some_and(|(sends, _)| side.is_none_or(|side| side == sends));
        let able: Vec<usize> = (0..self.handles.len()).filter(|&number| fits(&self.handles[number])).collect();
        able.get(which.checked_rem(able.len())?).copied()
    }
}

/// Takes the steps, and compares each answer with the model's.
pub fn follow(ops: &[(Op, usize)], sender_here: bool, receiver_here: bool) -> Result<(), TestCaseError> {
    let (sender, receiver) = channel().expect("there is room for a channel");
    let mut two = Two::new(ops, vec![(sender_here, End::Sender(sender)), (receiver_here, End::Receiver(receiver))]);
    let handles = vec![Some((true, sender_here)), Some((false, receiver_here))];
    let mut model = Model { queue: VecDeque::new(), next: 0, handles };
    for (number, (op, which)) in ops.iter().enumerate() {
        let Some(handle) = model.choose(op, *which) else { continue };
        let (sends, is_here) = model.handles[handle].expect("a handle that is open");
        let (step, expected) = match op {
            Op::Clone => {
                model.handles.push(Some((sends, is_here)));
                (Step::Clone { from: handle, to: model.handles.len() - 1 }, "cloned".to_owned())
            }
            Op::Close => {
                model.handles[handle] = None;
                if model.count(false) == 0 {
                    model.queue.clear();
                }
                (Step::Close { handle }, "closed".to_owned())
            }
            op => {
                let Some((at, expected)) = model.answer(op) else { continue };
                (Step::Perform { op: number, handle, at }, expected)
            }
        };
        let answer = two.take(is_here, step);
        prop_assert_eq!(answer, expected, "step {}: {:?} with handle {}", number, op, handle);
    }
    prop_assert_eq!(two.end(), Some(0));
    prop_assert_eq!(ipc::open_ends(), 0);
    Ok(())
}
