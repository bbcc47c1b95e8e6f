//! Rounds with many small messages: packed into datagrams, both ways, and through a pipe.

use std::time::Duration;

use ipc::{DatagramSocket, Error, MessageReader, MessageWriter, PackedSocket, PipeReader, PipeWriter, datagram_pair};

use super::bytes::some_pipe;
use super::content::{check_message, message};
use super::random::Random;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The longest message, and the most of them in one direction.
const LONGEST: usize = 500;
const MOST: u64 = 5000;

/// A wait that seldom suffices.
const SHORT: Duration = Duration::from_micros(200);

pub fn killed_peer(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let (keys, count) = ([round.random.next(), round.random.next()], round.random.amount(MOST));
    let swapped = [keys[1], keys[0]];
    let child = round.fork(pair.child, |round, socket| talk(round, socket, keys, count));
    let killer = round.killer(&[&child], 2 * count);
    let fate = talk(round, pair.parent, swapped, count);
    let [child] = round.fates(&killer, [&child]);
    assert_cut_by_a_kill(&[fate, child]);
}

/// Sends messages and receives others, as it comes, until all are through or the peer is gone.
fn talk(round: &mut Round, socket: DatagramSocket, [out, back]: [u64; 2], count: u64) -> Fate {
    let mut socket = PackedSocket::new(socket);
    let (mut sent, mut got) = (0, 0);
    let mut closed = false;
    while got < count || (sent < count && !closed) {
        if sent < count && !closed {
            match send_one(&mut round.random, &mut socket, &message(out, sent, LONGEST)) {
                Ok(()) => sent += 1,
                Err(Error::WouldBlock | Error::TimedOut) => {}
                // Messages that the peer sent before can still be received.
                Err(Error::Closed) => closed = true,
                Err(error) => panic!("{error:?} after {sent} messages"),
            }
        }
        let through = sent == count || closed;
        if got < count && (through || socket.has_message() || round.random.once_in(50)) {
            match receive_one(&mut round.random, &mut socket, through) {
                Ok(Some(text)) => {
                    check_message(back, got, LONGEST, text);
                    got += 1;
                    round.board.received(1);
                    round.board.messages.add(1);
                }
                Ok(None) => return gone(round, socket),
                Err(Error::WouldBlock | Error::TimedOut) => {}
                Err(Error::Reset) => {
                    round.board.resets.add(1);
                    return gone(round, socket);
                }
                Err(error) => panic!("{error:?} after {got} messages"),
            }
        }
    }
    match socket.close() {
        Ok(()) if !closed => Fate::Done,
        Ok(()) | Err(Error::Closed) => {
            round.parted();
            Fate::Cut
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn send_one(random: &mut Random, socket: &mut PackedSocket, text: &[u8]) -> ipc::Result<()> {
    match random.below(4) {
        0 => socket.send_timeout(text, SHORT),
        1 if random.once_in(20) => {
            socket.try_send(text)?;
            // It was taken, whatever becomes of the pack.
            match socket.flush_timeout(SHORT) {
                Err(Error::WouldBlock | Error::TimedOut | Error::Closed) | Ok(()) => Ok(()),
                Err(error) => Err(error),
            }
        }
        _ => socket.try_send(text),
    }
}

fn receive_one<'a>(random: &mut Random, socket: &'a mut PackedSocket, may_wait: bool) -> ipc::Result<Option<&'a [u8]>> {
    match random.below(if may_wait { 3 } else { 2 }) {
        0 => socket.try_recv(),
        1 => socket.recv_timeout(SHORT),
        _ => socket.recv(),
    }
}

/// The peer is gone, for every call, and was so already.
fn gone(round: &Round, mut socket: PackedSocket) -> Fate {
    for _ in 0..2 {
        assert_eq!(socket.recv_timeout(limit()).expect("the end"), None, "the end stays");
    }
    let refused = socket.send(b"x").and_then(|()| socket.flush());
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    round.parted();
    Fate::Cut
}

pub fn killed_writer(round: &mut Round) {
    let (reader, writer) = some_pipe(&mut round.random);
    let (key, count) = (round.random.next(), round.random.amount(MOST));
    let child = round.fork(writer, |round, writer| send_all(round, writer, key, count));
    let killer = round.killer(&[&child], count);
    let fate = receive_all(round, reader, key, count);
    let [child] = round.fates(&killer, [&child]);
    assert_cut_by_a_kill(&[fate, child]);
}

fn send_all(round: &mut Round, writer: PipeWriter, key: u64, count: u64) -> Fate {
    let mut writer = MessageWriter::new(writer);
    let mut number = 0;
    while number < count {
        let text = message(key, number, LONGEST);
        let sent = match round.random.below(3) {
            0 => writer.send(&text),
            1 => writer.try_send(&text),
            _ => writer.send_timeout(&text, SHORT),
        };
        match sent {
            Ok(()) => number += 1,
            Err(Error::WouldBlock | Error::TimedOut) => {}
            Err(error) => panic!("{error:?} after {number} messages"),
        }
    }
    writer.close().expect("somebody reads");
    Fate::Done
}

fn receive_all(round: &mut Round, reader: PipeReader, key: u64, count: u64) -> Fate {
    let mut reader = MessageReader::new(reader);
    let mut got = 0;
    loop {
        match receive_through(&mut round.random, &mut reader) {
            Ok(Some(text)) => {
                check_message(key, got, LONGEST, text);
                got += 1;
                round.board.received(1);
                round.board.messages.add(1);
            }
            Ok(None) => break,
            Err(Error::WouldBlock | Error::TimedOut) => {}
            // Killed within a message: its part is no message.
            Err(Error::Truncated { .. }) => assert!(got < count, "a piece of message {got}"),
            Err(error) => panic!("{error:?} after {got} messages"),
        }
    }
    assert_eq!(reader.try_recv().expect("the end"), None, "the end stays");
    if got == count {
        return Fate::Done;
    }
    round.parted();
    Fate::Cut
}

fn receive_through<'a>(random: &mut Random, reader: &'a mut MessageReader) -> ipc::Result<Option<&'a [u8]>> {
    match random.below(3) {
        0 => reader.try_recv(),
        1 => reader.recv_timeout(SHORT),
        _ => reader.recv(),
    }
}
