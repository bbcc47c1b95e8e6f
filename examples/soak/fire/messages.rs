//! Rounds in which messages are passed on, both ways.

use std::io::IoSlice;
use std::time::Duration;

use ipc::{DatagramFlags, DatagramSocket, Error, Watch, datagram_pair, datagram_pair_with, wait_any};

use super::content::{check_message, message};
use super::random::Random;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The longest message, and the most of them in one direction.
const LONGEST: usize = 30_000;
const MOST: u64 = 500;

/// A wait that seldom suffices.
const SHORT: Duration = Duration::from_micros(200);

pub fn killed_peer(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let (keys, count) = ([round.random.next(), round.random.next()], round.random.amount(MOST));
    let swapped = [keys[1], keys[0]];
    let child = round.fork(pair.child, |round, socket| talk(round, socket, keys, count));
    if round.random.once_in(2) {
        let other = round.fork(pair.parent, |round, socket| talk(round, socket, swapped, count));
        let killer = round.killer(&[&child, &other], 2 * count);
        let fates = round.fates(&killer, [&child, &other]);
        assert_cut_by_a_kill(&fates);
    } else {
        let killer = round.killer(&[&child], 2 * count);
        let fate = talk(round, pair.parent, swapped, count);
        let [child] = round.fates(&killer, [&child]);
        assert_cut_by_a_kill(&[fate, child]);
    }
}

/// Sends messages and receives others, as it comes, until all are through or the peer is gone.
fn talk(round: &mut Round, mut socket: DatagramSocket, [out, back]: [u64; 2], count: u64) -> Fate {
    if round.random.once_in(2) {
        socket.set_spin(Duration::from_micros(30));
    }
    let clone = socket.try_clone().expect("there is room for an end");
    let (mut sent, mut got) = (0, 0);
    let mut closed = false;
    while got < count || (sent < count && !closed) {
        if sent < count && !closed {
            match send_one(&mut round.random, &clone, &message(out, sent, LONGEST)) {
                Ok(true) => sent += 1,
                Ok(false) => {}
                // Messages that the peer sent before can still be received.
                Err(Error::Closed) => closed = true,
                Err(error) => panic!("{error:?} after {sent} messages"),
            }
        }
        if got < count {
            match receive_one(&mut round.random, &socket, sent == count || closed) {
                Ok(Some(None)) => return gone(round, &socket),
                Ok(Some(Some(text))) => {
                    check_message(back, got, LONGEST, &text);
                    got += 1;
                    round.board.received(1);
                    round.board.messages.add(1);
                }
                Ok(None) => {}
                Err(Error::Reset) => {
                    round.board.resets.add(1);
                    return gone(round, &socket);
                }
                Err(error) => panic!("{error:?} after {got} messages"),
            }
        }
    }
    if closed {
        round.parted();
        return Fate::Cut;
    }
    Fate::Done
}

/// The peer is gone, for every call, and was so already.
fn gone(round: &Round, socket: &DatagramSocket) -> Fate {
    for _ in 0..2 {
        assert_eq!(socket.recv_timeout(&mut [0; 8], limit()).expect("the end"), None, "the end stays");
        assert_eq!(socket.peek_len().expect("the end"), None);
        let refused = socket.send_timeout(b"x", limit());
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    round.parted();
    Fate::Cut
}

/// Returns whether it was sent. Never waits for long: the peer may be sending too.
fn send_one(random: &mut Random, socket: &DatagramSocket, text: &[u8]) -> ipc::Result<bool> {
    let sent = match random.below(4) {
        0 => socket.try_send(text),
        1 => socket.send_timeout(text, SHORT),
        2 => socket.try_send_with(text, ()).map_err(Error::from),
        _ => socket.send_with_timeout(text, (), SHORT).map_err(Error::from),
    };
    match sent {
        Err(Error::WouldBlock | Error::TimedOut) => Ok(false),
        sent => sent.map(|()| true),
    }
}

/// The outer `None`: no message is there yet.
fn receive_one(random: &mut Random, socket: &DatagramSocket, may_wait: bool) -> ipc::Result<Option<Option<Vec<u8>>>> {
    let mut text = Vec::new();
    let received = match random.below(if may_wait { 9 } else { 6 }) {
        0 => whole(|buf| socket.try_recv(buf)),
        1 => whole(|buf| socket.recv_timeout(buf, SHORT)),
        2 => socket.try_recv_vec(),
        3 => socket.recv_vec_timeout(SHORT),
        4 => socket.try_recv_with(&mut text).map(|received| received.map(|_| text)),
        5 => socket.recv_with_timeout(&mut text, SHORT).map(|received| received.map(|_| text)),
        6 => whole(|buf| socket.recv(buf)),
        7 => match socket.peek_len() {
            Ok(None) => Ok(None),
            Ok(Some(len)) => socket.recv_vec().inspect(|text| {
                assert_eq!(text.as_ref().map(Vec::len), Some(len), "what was looked at");
            }),
            Err(error) => Err(error),
        },
        _ => socket.recv_with(&mut text).map(|received| received.map(|_| text)),
    };
    match received {
        Err(Error::WouldBlock | Error::TimedOut) => Ok(None),
        received => received.map(Some),
    }
}

/// A message, many of which do not fit.
fn whole(recv: impl FnOnce(&mut [u8]) -> ipc::Result<Option<usize>>) -> ipc::Result<Option<Vec<u8>>> {
    let mut buf = [0; 500];
    match recv(&mut buf) {
        Err(Error::BufferTooSmall { message }) => Ok(Some(message)),
        received => Ok(received?.map(|len| buf[..len].to_vec())),
    }
}

/// Of this kind, only senders are told that the peer is gone.
pub fn killed_connectionless_peer(round: &mut Round) {
    let pair = datagram_pair_with(DatagramFlags::CONNECTIONLESS).expect("there is room for a pair");
    let (key, count) = (round.random.next(), round.random.amount(MOST));
    let child = round.fork(pair.child, |round, socket| {
        for number in 0..count {
            let text = message(key, number, LONGEST);
            let (first, second) = text.split_at(text.len() / 2);
            match round.random.below(2) {
                0 => socket.send(&text).expect("the peer is there"),
                _ => socket.send_vectored(&[IoSlice::new(first), IoSlice::new(second)]).expect("the peer is there"),
            }
        }
        Fate::Done
    });
    let killer = round.killer(&[&child], count);
    let mut got = 0;
    loop {
        let left =
            wait_any(&mut [Watch::readable(&child)], Some(Duration::ZERO)).expect("a child can be waited for") > 0;
        match receive_one(&mut round.random, &pair.parent, false).expect("no end and no reset") {
            Some(text) => {
                check_message(key, got, LONGEST, &text.expect("no end"));
                got += 1;
                round.board.received(1);
                round.board.messages.add(1);
            }
            None if left => break, // it was gone before there was nothing
            None => {}
        }
    }
    let refused = pair.parent.try_send(b"x");
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let [fate] = round.fates(&killer, [&child]);
    assert!(fate == Fate::Killed || (fate, got) == (Fate::Done, count), "{fate:?}: {got} of {count}");
    if fate == Fate::Killed {
        round.parted();
    }
}
