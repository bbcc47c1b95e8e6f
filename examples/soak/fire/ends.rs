//! Rounds in which ends travel in messages.

use std::io::Read;
use std::time::Duration;

use ipc::{DatagramSocket, Error, PIPE_BUF, PipeReader, PipeWriter, Received, datagram_pair, pipe};

use super::content::{bytes, check, check_message, message};
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The longest message, and the most of them.
const LONGEST: usize = 2000;
const MOST: u64 = 200;

/// How much is in a pipe that travels.
const WITHIN: usize = 1000;

/// The ends that go with a message.
enum Goods {
    /// Readers of pipes that have something in them, and no writer any more.
    Readers,
    /// A writer of a pipe that the sender reads from.
    Writer,
}

fn goods(number: u64) -> Goods {
    if number.is_multiple_of(3) { Goods::Writer } else { Goods::Readers }
}

/// Returns how many readers go with that message.
fn how_many(key: u64, number: u64) -> u64 {
    super::random::mix(key ^ number) % 12
}

pub fn killed_peer(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let (key, count) = (round.random.next(), round.random.amount(MOST));
    let sender = round.fork(pair.child, |round, socket| send(round, &socket, key, count));
    if round.random.once_in(2) {
        let receiver = round.fork(pair.parent, |round, socket| receive(round, &socket, key, count));
        let killer = round.killer(&[&sender, &receiver], count);
        let fates = round.fates(&killer, [&sender, &receiver]);
        assert_cut_by_a_kill(&fates);
    } else {
        let killer = round.killer(&[&sender], count);
        let fate = receive(round, &pair.parent, key, count);
        let [sender] = round.fates(&killer, [&sender]);
        assert_cut_by_a_kill(&[fate, sender]);
    }
}

fn send(round: &mut Round, socket: &DatagramSocket, key: u64, count: u64) -> Fate {
    for number in 0..count {
        let text = message(key, number, LONGEST);
        let sent = match goods(number) {
            Goods::Readers => {
                let readers: Vec<PipeReader> = (0..how_many(key, number)).map(|at| filled(key ^ number ^ at)).collect();
                send_with(round, socket, &text, readers)
            }
            Goods::Writer => {
                let (reader, writer) = pipe().expect("there is room for a pipe");
                send_with(round, socket, &text, writer).and_then(|()| {
                    // All of the answer, or none of it: then the receiver has gone, with the writer.
                    let answer = read_to_end(reader);
                    check(key ^ number, 0, &answer);
                    if answer.len() == WITHIN { Ok(()) } else { Err(Error::Closed) }
                })
            }
        };
        match sent {
            Ok(()) => {}
            Err(Error::Closed) => {
                round.parted();
                return Fate::Cut;
            }
            Err(error) => panic!("{error:?} after {number} messages"),
        }
    }
    Fate::Done
}

fn send_with(round: &mut Round, socket: &DatagramSocket, text: &[u8], ends: impl ipc::Ends) -> ipc::Result<()> {
    let mut ends = ends;
    loop {
        let sent = match round.random.below(3) {
            0 => socket.send_with(text, ends),
            1 => socket.try_send_with(text, ends),
            _ => socket.send_with_timeout(text, ends, Duration::from_micros(200)),
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(refused) => match refused.error {
                Error::WouldBlock | Error::TimedOut => ends = refused.ends,
                error => return Err(error),
            },
        }
    }
}

/// The reader of a pipe with something in it, that has ended.
fn filled(key: u64) -> PipeReader {
    let (reader, writer) = pipe().expect("there is room for a pipe");
    writer.write_atomic(&bytes(key, 0, WITHIN)).expect("an empty pipe");
    reader
}

fn read_to_end(mut reader: PipeReader) -> Vec<u8> {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).expect("a pipe can be read");
    all
}

fn receive(round: &mut Round, socket: &DatagramSocket, key: u64, count: u64) -> Fate {
    let mut text = Vec::new();
    let mut got = 0;
    loop {
        let received = match round.random.below(2) {
            0 => socket.recv_with(&mut text),
            _ => socket.recv_with_timeout(&mut text, limit()),
        };
        match received {
            Ok(Some(received)) => {
                check_message(key, got, LONGEST, &text);
                unpack(round, received, key, got);
                got += 1;
                round.board.received(1);
                round.board.messages.add(1);
            }
            Ok(None) if got == count => return Fate::Done,
            Ok(None) => {
                round.parted();
                return Fate::Cut;
            }
            // It receives nothing here that could be lost.
            Err(error) => panic!("{error:?} after {got} messages"),
        }
    }
}

/// Takes what came, all of it and nothing else.
fn unpack(round: &mut Round, mut received: Received, key: u64, number: u64) {
    round.board.ends.add(received.len() as u64);
    match goods(number) {
        Goods::Writer => {
            let writer: PipeWriter = received.take().expect("a writer");
            match writer.write_atomic(&bytes(key ^ number, 0, WITHIN)) {
                Ok(()) | Err(Error::Closed) => {} // the sender may be gone
                Err(error) => panic!("{error:?}"),
            }
        }
        Goods::Readers if round.random.once_in(5) => return, // what nobody takes is closed
        Goods::Readers => {
            for at in 0..how_many(key, number) {
                let inside = read_to_end(received.take().expect("a reader"));
                assert_eq!(inside.len(), WITHIN, "the pipe was filled before it was sent");
                check(key ^ number ^ at, 0, &inside);
            }
        }
    }
    assert!(received.is_empty(), "{} ends too many", received.len());
}

/// Ends that are in a queue when its owner is killed: the holder of one's other side sees it go.
pub fn killed_receiver(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let (count, taken) = (round.random.up_to(60), round.random.up_to(60));
    let victim = round.fork(pair.child, |round, socket| {
        let mut all = Vec::new();
        for _ in 0..taken.min(count) {
            let received = socket.recv_with(&mut Vec::new()).expect("a message").expect("the sender is there");
            round.board.received(1);
            all.extend(received);
        }
        loop {
            std::thread::park(); // until it is killed
        }
    });
    let mut readers = Vec::new();
    for number in 0..count {
        let (reader, writer) = pipe().expect("there is room for a pipe");
        let sent = if number % 2 == 0 {
            pair.parent.send_with_timeout(b"a writer", writer, limit()).map_err(Error::from)
        } else {
            // Inside of a message that is in the queue of a socket that is itself under way.
            let inner = datagram_pair().expect("there is room for a pair");
            inner.parent.send_with(b"a writer", writer).expect("an empty queue");
            pair.parent.send_with_timeout(b"a socket", inner.child, limit()).map_err(Error::from)
        };
        sent.expect("the victim lives");
        readers.push(reader);
    }
    for reader in &readers {
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "the writer is under way, or there");
    }
    let killer = round.fork((), |round, ()| {
        (0..round.random.up_to(1 << 16)).for_each(|_| std::hint::spin_loop());
        round.board.kill();
        victim.kill().expect("the victim is there");
        Fate::Done
    });
    for reader in readers {
        let mut buf = [0; PIPE_BUF];
        assert_eq!(reader.read_timeout(&mut buf, limit()).expect("the end"), 0);
    }
    round.board.ends.add(count);
    let first = pair.parent.recv_timeout(&mut [0; 8], limit());
    match first {
        Ok(None) => {}
        Err(Error::Reset) => round.board.resets.add(1),
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.parent.recv_timeout(&mut [0; 8], limit()).expect("the end"), None);
    round.parted();
    assert_eq!(round.fates(&killer, [&victim]), [Fate::Killed]);
}
