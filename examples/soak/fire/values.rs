//! Rounds in which typed values travel, with ends in them.

use std::io::Read;
use std::time::Duration;

use ipc::{Blob, Error, PIPE_BUF, PipeReader, PipeWriter, Receiver, Sender, Unsent, channel, pipe};
use serde::{Deserialize, Serialize};

use super::content::{bytes, check, check_message, message};
use super::random::mix;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The longest text that goes in a datagram here, the longest of all, and the most values.
const LONGEST: usize = 3000;
const HUGE: usize = 600_000;
const MOST: u64 = 300;

#[derive(Debug, Serialize, Deserialize)]
enum Value {
    Nothing,
    Text {
        number: u64,
        text: Vec<u8>,
    },
    /// Pipes with something in them, and a pipe to answer through.
    Ends {
        number: u64,
        readers: Vec<PipeReader>,
        answer: Option<PipeWriter>,
    },
    Shared {
        number: u64,
        blob: Blob,
    },
}

/// The kind of value that it is.
fn kind(key: u64, number: u64) -> u64 {
    mix(key ^ number) % 8
}

fn longest(key: u64, number: u64) -> usize {
    if mix(!key ^ number).is_multiple_of(40) { HUGE } else { LONGEST }
}

fn how_many(key: u64, number: u64) -> u64 {
    mix(key.rotate_left(7) ^ number) % 6
}

pub fn killed_peer(round: &mut Round) {
    let (sender, receiver) = channel::<Value>().expect("there is room for a channel");
    let (key, count) = (round.random.next(), round.random.amount(MOST));
    let theirs = round.fork(sender, |round, sender| send_all(round, &sender, key, count));
    if round.random.once_in(2) {
        let ours = round.fork(receiver, |round, receiver| receive_all(round, &receiver, key, count));
        let killer = round.killer(&[&theirs, &ours], count);
        let fates = round.fates(&killer, [&theirs, &ours]);
        assert_cut_by_a_kill(&fates);
    } else {
        let killer = round.killer(&[&theirs], count);
        let fate = receive_all(round, &receiver, key, count);
        let [theirs] = round.fates(&killer, [&theirs]);
        assert_cut_by_a_kill(&[fate, theirs]);
    }
}

fn send_all(round: &mut Round, sender: &Sender<Value>, key: u64, count: u64) -> Fate {
    for number in 0..count {
        let (value, answer) = value(key, number);
        let sent = send(round, sender, value).and_then(|()| match answer {
            Some(reader) => answered(reader, key ^ number),
            None => Ok(()),
        });
        match sent {
            Ok(()) => {}
            Err(Error::Closed) => {
                round.parted();
                return Fate::Cut;
            }
            Err(error) => panic!("{error:?} after {number} values"),
        }
    }
    Fate::Done
}

/// Value `number`, and where its answer will come.
fn value(key: u64, number: u64) -> (Value, Option<PipeReader>) {
    match kind(key, number) {
        0 => (Value::Nothing, None),
        1 => {
            let readers = (0..how_many(key, number)).map(|at| filled(key ^ number ^ at)).collect();
            (Value::Ends { number, readers, answer: None }, None)
        }
        2 => {
            let (reader, writer) = pipe().expect("there is room for a pipe");
            (Value::Ends { number, readers: Vec::new(), answer: Some(writer) }, Some(reader))
        }
        3 => {
            let blob = Blob::new(&message(key, number, HUGE)).expect("there is memory");
            (Value::Shared { number, blob }, None)
        }
        _ => (Value::Text { number, text: message(key, number, longest(key, number)) }, None),
    }
}

/// Sends by one call or another. A value that is given back is sent again.
fn send(round: &mut Round, sender: &Sender<Value>, value: Value) -> ipc::Result<()> {
    let mut value = value;
    loop {
        let sent = match round.random.below(3) {
            0 => sender.send(value),
            1 => sender.try_send(value),
            _ => sender.send_timeout(value, Duration::from_micros(300)),
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(Unsent { error: Error::WouldBlock | Error::TimedOut, value: back, .. }) => value = back,
            Err(unsent) => {
                // It is whole, and its ends are open.
                if let Value::Ends { number: _, readers, answer } = &unsent.value {
                    assert!(readers.iter().all(|reader| reader.available().is_ok_and(|there| there == PIPE_BUF)));
                    assert!(answer.as_ref().is_none_or(|answer| answer.capacity().is_ok()));
                }
                return Err(unsent.error);
            }
        }
    }
}

/// All of the answer, or none of it: then the receiver has gone, with the writer.
fn answered(mut reader: PipeReader, key: u64) -> ipc::Result<()> {
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer)?;
    check(key, 0, &answer);
    if answer.len() == PIPE_BUF { Ok(()) } else { Err(Error::Closed) }
}

/// The reader of a pipe with something in it, that has ended.
fn filled(key: u64) -> PipeReader {
    let (reader, writer) = pipe().expect("there is room for a pipe");
    writer.write_atomic(&bytes(key, 0, PIPE_BUF)).expect("an empty pipe");
    reader
}

fn receive_all(round: &mut Round, receiver: &Receiver<Value>, key: u64, count: u64) -> Fate {
    for number in 0.. {
        let received = match round.random.below(3) {
            0 => receiver.recv(),
            1 => receiver.recv_timeout(limit()),
            _ => loop {
                match receiver.try_recv() {
                    Err(Error::WouldBlock) => std::thread::yield_now(),
                    received => break received,
                }
            },
        };
        match received {
            Ok(Some(value)) => {
                unpack(round, value, key, number);
                round.board.received(1);
                round.board.values.add(1);
            }
            Ok(None) if number == count => return Fate::Done,
            Ok(None) => {
                round.parted();
                return Fate::Cut;
            }
            // It sends nothing here that could be lost.
            Err(error) => panic!("{error:?} after {number} values"),
        }
    }
    unreachable!("there is no last number")
}

fn unpack(round: &mut Round, value: Value, key: u64, expected: u64) {
    match (kind(key, expected), value) {
        (0, Value::Nothing) => {}
        (1, Value::Ends { number, readers, answer: None }) => {
            assert_eq!((number, readers.len() as u64), (expected, how_many(key, number)));
            round.board.ends.add(readers.len() as u64);
            for (at, mut reader) in (0..).zip(readers) {
                let mut inside = Vec::new();
                reader.read_to_end(&mut inside).expect("a pipe can be read");
                assert_eq!(inside.len(), PIPE_BUF, "the pipe was filled before it was sent");
                check(key ^ number ^ at, 0, &inside);
            }
        }
        (2, Value::Ends { number, answer: Some(answer), .. }) => {
            assert_eq!(number, expected);
            round.board.ends.add(1);
            match answer.write_atomic(&bytes(key ^ number, 0, PIPE_BUF)) {
                Ok(()) | Err(Error::Closed) => {} // the sender may be gone
                Err(error) => panic!("{error:?}"),
            }
        }
        (3, Value::Shared { number, blob }) => {
            assert_eq!(number, expected);
            check_message(key, number, HUGE, &blob);
            round.board.bytes.add(blob.len() as u64);
        }
        (_, Value::Text { number, text }) => {
            assert_eq!(number, expected);
            check_message(key, number, longest(key, number), &text);
            round.board.bytes.add(text.len() as u64);
        }
        (kind, value) => panic!("value {expected} is of kind {kind}, and this came: {value:?}"),
    }
}
