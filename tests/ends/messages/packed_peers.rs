//! Packed messages with peers that die, do not read, or mean harm; with deadlines, forks, and many at once.

use std::net::Shutdown;
use std::time::Duration;

use super::packed_waits::{WAITING, drain};
use crate::support::{self, Trial, asleep_in, assert_next, assert_same, exit_code, message};
use ipc::{DatagramSocket, Error, PackedSocket, datagram_pair, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_a_peer_sent_before_it_left_arrives_first,
        what_was_not_flushed_is_told_of_as_lost,
        what_was_not_read_is_told_of_as_lost,
        a_peer_that_is_gone_refuses_everything_at_once,
        closing_tells_that_the_peer_is_gone,
        a_peer_that_is_killed_ends_the_wait,
        a_side_that_was_shut_down_ends,
        what_waits_outlives_the_end_of_what_the_peer_sends,
        a_datagram_that_is_no_pack_is_given_back_whole,
        random_datagrams_do_no_harm within 60,
        a_receiver_takes_what_arrives_while_the_queue_is_full within 60,
    ]
}

pub(super) const LONG: Duration = Duration::from_secs(10);

pub(super) fn half_packed() -> (PackedSocket, DatagramSocket) {
    let pair = datagram_pair().unwrap();
    (PackedSocket::new(pair.parent), pair.child)
}

/// A pack with one message.
pub(super) fn pack(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes()[..], message].concat()
}

/// Takes the packs apart.
pub(super) fn unpack(mut pack: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = pack.split_first_chunk() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*head) as usize);
        messages.push(message.to_vec());
        pack = rest;
    }
    messages
}

pub(super) type Receive = fn(&mut PackedSocket) -> ipc::Result<Option<&[u8]>>;

#[track_caller]
pub(super) fn assert_reset(result: ipc::Result<Option<&[u8]>>) {
    assert!(matches!(result, Err(Error::Reset)), "{result:?}");
}

/// The end, and again.
#[track_caller]
fn assert_gone(socket: &mut PackedSocket) {
    for _ in 0..2 {
        assert_eq!(socket.recv().unwrap(), None);
        assert_eq!(socket.try_recv().unwrap(), None);
        assert_eq!(socket.recv_timeout(LONG).unwrap(), None);
    }
}

/// Sends numbered messages until nothing more is taken, and says how many were.
pub(super) fn fill(socket: &mut PackedSocket, len: usize) -> usize {
    for number in 0.. {
        match socket.try_send(&message(number, len)) {
            Ok(()) => {}
            Err(Error::WouldBlock) => return number,
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("a queue has an end")
}

fn what_a_peer_sent_before_it_left_arrives_first() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut socket = PackedSocket::new(socket);
        for number in 0..5000 {
            socket.send(&message(number, 30)).unwrap();
        }
        socket.close().unwrap();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    let mut socket = PackedSocket::new(pair.parent);
    for number in 0..5000 {
        assert_next(socket.recv(), &message(number, 30));
    }
    assert_gone(&mut socket);
}

fn what_was_not_flushed_is_told_of_as_lost() {
    let receive: [Receive; 3] = [PackedSocket::recv, PackedSocket::try_recv, |socket| socket.recv_timeout(LONG)];
    for receive in receive {
        let (mut socket, peer) = half_packed();
        peer.send(&pack(b"one")).unwrap();
        peer.send(&pack(b"two")).unwrap();
        drop(peer);
        socket.send(b"never").unwrap();
        assert_next(receive(&mut socket), b"one");
        assert_next(receive(&mut socket), b"two");
        assert_reset(receive(&mut socket));
        assert_gone(&mut socket);
        assert!(matches!(socket.send(b"nor this"), Err(Error::Closed)));
        assert_gone(&mut socket);
    }
    // Told to a sender first.
    for flush in [PackedSocket::flush, PackedSocket::try_flush, |socket: &mut PackedSocket| socket.flush_timeout(LONG)]
    {
        let (mut socket, peer) = half_packed();
        peer.send(&pack(b"one")).unwrap();
        drop(peer);
        socket.send(b"never").unwrap();
        assert!(matches!(flush(&mut socket), Err(Error::Closed)));
        assert_next(socket.recv(), b"one");
        assert_reset(socket.recv());
        assert_gone(&mut socket);
    }
}

fn what_was_not_read_is_told_of_as_lost() {
    let (mut socket, peer) = half_packed();
    socket.send(b"never read").unwrap();
    socket.flush().unwrap();
    socket.send(b"nor flushed").unwrap();
    peer.send(&pack(b"one")).unwrap();
    peer.send(&pack(b"")).unwrap();
    drop(peer);
    assert_next(socket.recv(), b"one");
    assert_next(socket.recv(), b"");
    assert_reset(socket.recv()); // once for both
    assert_gone(&mut socket);

    // Nothing was lost: nothing is told.
    let (mut socket, peer) = half_packed();
    socket.send(b"read").unwrap();
    socket.flush().unwrap();
    peer.recv_vec().unwrap();
    drop(peer);
    assert_gone(&mut socket);
}

fn a_peer_that_is_gone_refuses_everything_at_once() {
    let (mut socket, peer) = half_packed();
    drop(peer);
    socket.send(b"taken: nobody has asked the kernel").unwrap();
    let long = vec![0; 100_000];
    assert!(matches!(socket.send(&long), Err(Error::Closed)));
    for message in [b"small".as_slice(), b"", &long, &vec![0; 5 << 20]] {
        assert!(matches!(socket.send(message), Err(Error::Closed)));
        assert!(matches!(socket.try_send(message), Err(Error::Closed)));
        assert!(matches!(socket.send_timeout(message, LONG), Err(Error::Closed)));
    }
    assert_reset(socket.recv());
    assert_gone(&mut socket);
    // Who asks only at the end is told as well, and the socket can be had back.
    assert!(matches!(socket.flush(), Err(Error::Closed)));
    let mut socket = PackedSocket::new(socket.into_inner().unwrap());
    assert!(socket.send(b"lost").and_then(|()| socket.flush()).is_err());
    assert!(matches!(socket.close(), Err(Error::Closed)));
    // A long one is refused by itself, when nothing waits.
    let (mut socket, peer) = half_packed();
    drop(peer);
    assert!(matches!(socket.send(&long), Err(Error::Closed)));
    assert!(matches!(socket.send(b"small"), Err(Error::Closed)));
    assert_gone(&mut socket); // none was taken, so none was lost
}

fn closing_tells_that_the_peer_is_gone() {
    let (mut socket, peer) = half_packed();
    drop(peer);
    socket.send(b"never").unwrap();
    assert!(matches!(socket.close(), Err(Error::Closed)));

    let (mut socket, peer) = half_packed();
    drop(peer);
    socket.send(b"never").unwrap();
    let refused = socket.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Closed));
    // What could not go is lost, and said to be, so the socket can be had now.
    let socket = refused.unflushed.into_inner().unwrap();
    assert!(matches!(socket.recv_vec(), Err(Error::Reset)));
    assert_eq!(socket.recv_vec().unwrap(), None);
}

fn a_peer_that_is_killed_ends_the_wait() {
    type Wait = fn(&mut PackedSocket);
    let waits: [Wait; 4] = [
        |socket| assert_eq!(socket.recv().unwrap(), None),
        |socket| assert_eq!(socket.recv_timeout(LONG).unwrap(), None),
        |socket| {
            fill(socket, 100);
            assert!(matches!(socket.flush(), Err(Error::Closed)));
        },
        |socket| {
            fill(socket, 100);
            assert_reset(socket.recv()); // it waits for room and for a message
            assert_eq!(socket.recv().unwrap(), None);
        },
    ];
    for wait in waits {
        let pair = datagram_pair().unwrap();
        let holder = fork(pair.child, |_socket| loop_for_ever()).unwrap();
        let waiter = fork(pair.parent, |socket| wait(&mut PackedSocket::new(socket))).unwrap();
        asleep_in(waiter.id(), &[libc::SYS_recvmsg, libc::SYS_sendto, libc::SYS_ppoll]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(exit_code(&waiter), 0);
    }
}

fn loop_for_ever() {
    loop {
        std::thread::park();
    }
}

fn a_side_that_was_shut_down_ends() {
    let (mut socket, peer) = half_packed();
    peer.send(&pack(b"last")).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    socket.send(b"still goes").unwrap();
    assert_next(socket.recv(), b"last");
    assert_eq!(socket.recv().unwrap(), None);
    assert_same(&peer.recv_vec().unwrap().unwrap(), &pack(b"still goes"));
    socket.send(b"and this").unwrap();
    socket.flush().unwrap();
    assert_same(&peer.recv_vec().unwrap().unwrap(), &pack(b"and this"));
}

fn what_waits_outlives_the_end_of_what_the_peer_sends() {
    let (mut socket, peer) = half_packed();
    let filled = fill(&mut socket, 1000);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(socket.recv().unwrap(), None);
    assert!(matches!(socket.try_flush(), Err(Error::WouldBlock)));
    let mut arrived = unpack(&peer.recv_vec().unwrap().unwrap());
    socket.close().unwrap();
    arrived.extend(drain(&peer));
    assert!(arrived == (0..filled).map(|number| message(number, 1000)).collect::<Vec<_>>());
}

#[track_caller]
fn assert_malformed(result: ipc::Result<Option<&[u8]>>, datagram: &[u8]) {
    match result {
        Err(Error::Malformed { message }) => assert_same(&message, datagram),
        other => panic!("no pack: {other:?}"),
    }
}

fn a_datagram_that_is_no_pack_is_given_back_whole() {
    let head = |len: u32| len.to_le_bytes().to_vec();
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    let hostile = [
        vec![],
        vec![0],
        vec![0; 3],
        head(1),
        head(u32::MAX),
        [head(u32::MAX), vec![0xff; 8], b"more".to_vec()].concat(),
        [head(u32::MAX - 1), vec![7; 1000]].concat(),
        [head(5), b"four".to_vec()].concat(),
        [head(3), b"four".to_vec()].concat(),
        cut(pack(&message(1, 30_000))),
        cut([pack(b"whole"), pack(b""), pack(b"cut")].concat()),
        [pack(b"whole"), vec![0; 3]].concat(),
        [pack(b"whole"), head(1 << 31)].concat(),
        b"a plain message".to_vec(),
        message(2, 100_000),
    ];
    let (mut socket, peer) = half_packed();
    for datagram in &hostile {
        peer.send(&pack(b"before")).unwrap();
        peer.send(datagram).unwrap();
        peer.send(datagram).unwrap();
        peer.send(&[pack(b"after"), pack(b"")].concat()).unwrap();
        socket.send(b"waits meanwhile").unwrap();
        assert_next(socket.recv(), b"before");
        assert_malformed(socket.recv(), datagram);
        assert!(!socket.has_message());
        assert_malformed(socket.try_recv(), datagram);
        assert_next(socket.recv(), b"after");
        assert_next(socket.recv(), b"");
        assert_same(&peer.recv_vec().unwrap().unwrap(), &pack(b"waits meanwhile"));
    }
}

fn random_datagrams_do_no_harm() {
    let (mut socket, peer) = half_packed();
    let mut packs = 0;
    for number in 0..20_000 {
        let mut datagram = message(number, number % 67);
        // Small lengths, as random ones are all too long.
        for byte in datagram.iter_mut().skip(1) {
            *byte &= if number % 2 == 0 { 0 } else { 3 };
        }
        if let Some(first) = datagram.first_mut() {
            *first %= 64;
        }
        peer.send(&datagram).unwrap();
        peer.send(&pack(b"next")).unwrap();
        let mut whole = Vec::new();
        loop {
            match socket.recv() {
                Ok(Some(b"next")) => break,
                Ok(Some(message)) => whole.extend(pack(message)),
                Err(Error::Malformed { message }) => {
                    assert!(whole.is_empty(), "all of it or nothing");
                    whole = message;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_same(&whole, &datagram);
        packs += usize::from(!datagram.is_empty() && unpack_all(&datagram));
    }
    assert!(packs > 100, "some were packs: {packs}");
}

fn unpack_all(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk() {
        match rest.get(u32::from_le_bytes(*head) as usize..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty()
}

fn a_receiver_takes_what_arrives_while_the_queue_is_full() {
    for receive in WAITING {
        let pair = datagram_pair().unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        let filled = fill(&mut socket, 1000);
        // The child sends far more than fits before it receives anything.
        let child = fork(pair.child, |socket| {
            let mut socket = PackedSocket::new(socket);
            (0..5000).for_each(|number| socket.send(&message(number, 1000)).unwrap());
            socket.flush().unwrap();
            for number in 0..filled {
                assert_next(socket.recv(), &message(number, 1000));
            }
            socket.send(b"all of it").unwrap();
            socket.close().unwrap();
        })
        .unwrap();
        for number in 0..5000 {
            assert_next(receive(&mut socket), &message(number, 1000));
        }
        assert_next(receive(&mut socket), b"all of it");
        assert_eq!(receive(&mut socket).unwrap(), None);
        assert_eq!(exit_code(&child), 0);
    }
}
