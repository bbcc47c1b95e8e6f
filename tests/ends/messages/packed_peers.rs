//! Packed messages with peers that die, do not read, or mean harm; with deadlines, forks, and many at once.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::support::with_interval_timer;
use crate::support::{
    self, FAR, Trial, asleep_in, assert_next, assert_same, assert_times_out, exit_code, handled, message,
};
use ipc::{DatagramSocket, Error, Fork, PackedSocket, Ready, Watch, datagram_pair, fork, wait_any};

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
        a_request_without_room_goes_as_soon_as_there_is_some,
        nothing_is_taken_while_the_queue_is_full,
        deadlines_are_kept,
        deadlines_are_kept_under_a_storm_of_signals,
        a_socket_that_never_waits_does_not_wait_for_room,
        dropping_waits_for_a_slow_peer,
        dropping_does_not_wait_for_ever,
        dropping_while_a_panic_unwinds_does_not_wait,
        a_fork_sends_nothing_twice,
        a_socket_that_was_not_given_says_so,
        a_buffered_message_is_ready,
        what_has_no_room_makes_the_wait_end_with_room,
        a_peer_that_is_gone_is_ready,
    ]
}

const LONG: Duration = Duration::from_secs(10);

fn half_packed() -> (PackedSocket, DatagramSocket) {
    let pair = datagram_pair().unwrap();
    (PackedSocket::new(pair.parent), pair.child)
}

/// A pack with one message.
fn pack(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes()[..], message].concat()
}

/// Takes the packs apart.
fn unpack(mut pack: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = pack.split_first_chunk() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*head) as usize);
        messages.push(message.to_vec());
        pack = rest;
    }
    messages
}

type Receive = fn(&mut PackedSocket) -> ipc::Result<Option<&[u8]>>;

#[track_caller]
fn assert_reset(result: ipc::Result<Option<&[u8]>>) {
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
fn fill(socket: &mut PackedSocket, len: usize) -> usize {
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

/// The ways to receive that wait.
const WAITING: [Receive; 3] =
    [PackedSocket::recv, |socket| socket.recv_timeout(LONG), |socket| socket.recv_timeout(Duration::MAX)];

fn a_request_without_room_goes_as_soon_as_there_is_some() {
    for receive in WAITING {
        let pair = datagram_pair().unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        let filled = fill(&mut socket, 1000);
        let parent = std::process::id();
        let child = fork(pair.child, |socket| {
            let mut socket = PackedSocket::new(socket);
            asleep_in(parent, &[libc::SYS_ppoll]);
            // The last of them waits in the parent, which receives.
            for number in 0..filled {
                assert_next(socket.recv(), &message(number, 1000));
            }
            socket.send(b"answer").unwrap();
            socket.close().unwrap();
        })
        .unwrap();
        assert_next(receive(&mut socket), b"answer");
        assert_eq!(exit_code(&child), 0);
    }
}

/// Everything that was sent, and then the end.
fn drain(peer: &DatagramSocket) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(pack) = peer.recv_vec().unwrap() {
        messages.extend(unpack(&pack));
    }
    messages
}

fn nothing_is_taken_while_the_queue_is_full() {
    for len in [0, 100, 20_000, 40_000, 100_000] {
        let (mut socket, peer) = half_packed();
        let filled = fill(&mut socket, len);
        // A long message waits nowhere; so that something waits, there is a small one.
        if len > 32 << 10 {
            socket.send(b"waits").unwrap();
        }
        let refused = message(filled, len);
        for _ in 0..3 {
            assert!(matches!(socket.try_send(&refused), Err(Error::WouldBlock)), "{len}");
            assert!(matches!(socket.send_timeout(&refused, Duration::ZERO), Err(Error::TimedOut)), "{len}");
            assert!(matches!(socket.try_flush(), Err(Error::WouldBlock)), "{len}");
            assert!(matches!(socket.flush_timeout(Duration::ZERO), Err(Error::TimedOut)), "{len}");
            assert!(matches!(socket.try_recv(), Err(Error::WouldBlock)), "{len}");
            assert!(matches!(socket.recv_timeout(Duration::ZERO), Err(Error::TimedOut)), "{len}");
        }
        let child = fork(peer, |peer| {
            let received = drain(&peer);
            let mut expected: Vec<_> = (0..filled).map(|number| message(number, len)).collect();
            if len > 32 << 10 {
                expected.push(b"waits".to_vec());
            }
            expected.push(b"the last".to_vec());
            assert!(received == expected, "{} of {} messages", received.len(), expected.len());
        })
        .unwrap();
        socket.send(b"the last").unwrap();
        socket.close().unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

fn assert_deadlines_are_kept() {
    for timeout in [Duration::from_micros(1), Duration::from_millis(3), Duration::from_millis(30)] {
        let (mut socket, peer) = half_packed();
        assert_times_out("recv", timeout, |timeout| socket.recv_timeout(timeout).map(drop));
        peer.send(&pack(b"there")).unwrap();
        assert_next(socket.recv_timeout(timeout), b"there");
        fill(&mut socket, 100);
        assert_times_out("send", timeout, |timeout| socket.send_timeout(&[0; 100], timeout));
        assert_times_out("a long send", timeout, |timeout| socket.send_timeout(&[0; 100_000], timeout));
        assert_times_out("flush", timeout, |timeout| socket.flush_timeout(timeout));
        // It waits for room and for a message, and one deadline goes for both.
        assert_times_out("recv", timeout, |timeout| socket.recv_timeout(timeout).map(drop));
        drop(peer); // or dropping the socket waits for it
    }
}

fn deadlines_are_kept() {
    assert_deadlines_are_kept();
}

fn deadlines_are_kept_under_a_storm_of_signals() {
    with_interval_timer(Duration::from_millis(1), || {
        let before = handled();
        assert_deadlines_are_kept();
        assert!(handled() > before);
    });
}

fn a_socket_that_never_waits_does_not_wait_for_room() {
    let (socket, peer) = half_packed();
    let fd = OwnedFd::from(socket.into_inner().unwrap());
    // SAFETY: an open descriptor, and flags.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        assert_eq!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK), 0);
    }
    let mut socket = PackedSocket::new(DatagramSocket::try_from(fd).unwrap());
    assert!(matches!(socket.recv(), Err(Error::WouldBlock)));
    fill(&mut socket, 100);
    assert!(matches!(socket.recv(), Err(Error::WouldBlock)));
    assert!(matches!(socket.flush(), Err(Error::WouldBlock)));
    assert!(matches!(socket.send(&[0; 100]), Err(Error::WouldBlock)));
    drop(peer);
}

fn dropping_waits_for_a_slow_peer() {
    // It waits for a second, which a machine with too much to do can let pass; but hardly each time.
    assert!((0..5).any(|_| dropped_before_the_peer_receives()), "what waits is sent");
}

/// Whether all of it arrives.
fn dropped_before_the_peer_receives() -> bool {
    let pair = datagram_pair().unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    let filled = fill(&mut socket, 100);
    let parent = std::process::id();
    let child = fork(pair.child, |socket| {
        asleep_in(parent, &[libc::SYS_ppoll]);
        let received = drain(&socket);
        u8::from(received != (0..filled).map(|number| message(number, 100)).collect::<Vec<_>>())
    })
    .unwrap();
    drop(socket);
    exit_code(&child) == 0
}

fn dropping_does_not_wait_for_ever() {
    let (mut socket, _peer) = half_packed();
    fill(&mut socket, 100);
    let started = Instant::now();
    drop(socket);
    assert!(started.elapsed() < FAR);
}

fn dropping_while_a_panic_unwinds_does_not_wait() {
    // All of them would take far longer, if each waited for a second.
    let (mut sockets, peers): (Vec<_>, Vec<_>) = (0..8).map(|_| half_packed()).unzip();
    for socket in &mut sockets {
        fill(socket, 1000);
    }
    let started = Instant::now();
    support::panics(|| {
        let _sockets = sockets;
        panic!("on purpose");
    });
    assert!(started.elapsed() < FAR);
    drop(peers);
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

fn a_buffered_message_is_ready() {
    let (mut socket, peer) = half_packed();
    peer.send(&[pack(b"one"), pack(b"two")].concat()).unwrap();
    assert_next(socket.recv(), b"one");
    // The descriptor has nothing to read, and there is no end of time.
    let (quiet, _other) = ipc::pipe().unwrap();
    let mut on = [Watch::readable(&quiet), socket.watch().unwrap(), Watch::readable(&quiet)];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert_eq!(on.map(|wait| wait.ready()), [Ready::empty(), Ready::READ, Ready::empty()]);
    assert_next(socket.try_recv(), b"two");
    let mut on = [socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(on[0].ready(), Ready::empty());
    // Beside others that are ready, and with something to read too, it counts once.
    peer.send(&[pack(b"one"), pack(b"two")].concat()).unwrap();
    assert_next(socket.recv(), b"one");
    peer.send(&pack(b"three")).unwrap();
    let mut on = [Watch::writable(&peer), socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 2);
    assert_eq!(on.map(|wait| wait.ready()), [Ready::WRITE, Ready::READ]);
}

fn what_has_no_room_makes_the_wait_end_with_room() {
    let (mut socket, peer) = half_packed();
    let filled = fill(&mut socket, 1000);
    let mut on = [socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, Some(Duration::ZERO)).unwrap(), 0, "there is no room");
    let parent = std::process::id();
    let child = fork(peer, |peer| {
        asleep_in(parent, &[libc::SYS_ppoll]);
        let received = drain(&peer);
        assert!(received == (0..filled).map(|number| message(number, 1000)).collect::<Vec<_>>());
    })
    .unwrap();
    let mut on = [socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert_eq!(on[0].ready(), Ready::WRITE);
    assert!(matches!(socket.try_recv(), Err(Error::WouldBlock)));
    // That has sent it.
    let (mut on, timeout) = ([socket.watch().unwrap()], Duration::from_millis(10));
    assert_eq!(wait_any(&mut on, Some(timeout)).unwrap(), 0);
    socket.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_peer_that_is_gone_is_ready() {
    let (mut socket, peer) = half_packed();
    peer.send(&pack(b"last")).unwrap();
    drop(peer);
    socket.send(b"never").unwrap();
    let mut on = [socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert!(on[0].ready().contains(Ready::READ | Ready::HANGUP));
    assert_next(socket.try_recv(), b"last");
    assert_reset(socket.try_recv());
    let mut on = [socket.watch().unwrap()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert_eq!(socket.try_recv().unwrap(), None);
}
