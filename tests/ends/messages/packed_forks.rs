//! Packed messages and forks: nothing is sent twice, and a socket that was not given says so.

use super::packed_peers::{half_packed, pack};
use super::packed_waits::drain;
use crate::support::{self, Trial, assert_next, exit_code};
use ipc::{Error, Fork, PackedSocket, datagram_pair, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![a_fork_sends_nothing_twice, a_socket_that_was_not_given_says_so,]
}

fn a_fork_sends_nothing_twice() {
    let pair = datagram_pair().unwrap();
    let peer = pair.child;
    let mut socket = PackedSocket::new(pair.parent);
    socket.send(b"once").unwrap();
    // The closure takes it along, and the child drops it.
    let mut held = Some(socket);
    let child = fork((), |()| {
        let socket = held.take().unwrap();
        drop(socket);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    assert!(matches!(peer.try_recv_vec(), Err(Error::WouldBlock)));
    held.take().unwrap().close().unwrap();
    assert_eq!(drain(&peer), [b"once"]);

    // In a child that has all ends, both have the buffer: the documentation says to flush before.
    let (mut socket, peer) = half_packed();
    socket.send(b"flushed before").unwrap();
    socket.flush().unwrap();
    let mut held = Some(socket);
    let child = Fork::new().keep_all_ends().spawn((), |()| drop(held.take())).unwrap();
    assert_eq!(exit_code(&child), 0);
    drop(held);
    assert_eq!(drain(&peer), [b"flushed before"]);
}

fn a_socket_that_was_not_given_says_so() {
    let (mut socket, peer) = half_packed();
    peer.send(&[pack(b"one"), pack(b"arrived before the fork")].concat()).unwrap();
    assert_next(socket.recv(), b"one");
    socket.send(b"waits").unwrap();
    let child = fork((), |()| {
        assert_next(socket.recv(), b"arrived before the fork");
        assert!(matches!(socket.recv(), Err(Error::NotGiven)));
        assert!(matches!(socket.flush(), Err(Error::NotGiven)));
        assert!(matches!(socket.watch(), Err(Error::NotGiven)));
        assert!(matches!(socket.send(&[0; 100_000]), Err(Error::NotGiven)));
        assert!(matches!(socket.max_message(), Err(Error::NotGiven)));
        let refused = socket.into_inner().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        assert!(matches!(refused.unflushed.close(), Err(Error::NotGiven)));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}
