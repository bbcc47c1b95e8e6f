//! Packed messages and time: sends without room, deadlines, sockets that never wait, dropping, and `wait_any`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::packed_peers::{LONG, Receive, assert_reset, fill, half_packed, pack, unpack};
use crate::support::with_interval_timer;
use crate::support::{self, FAR, Trial, asleep_in, assert_next, assert_times_out, exit_code, handled, message};
use ipc::{DatagramSocket, Error, PackedSocket, Ready, Watch, datagram_pair, fork, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_request_without_room_goes_as_soon_as_there_is_some,
        nothing_is_taken_while_the_queue_is_full,
        deadlines_are_kept,
        deadlines_are_kept_under_a_storm_of_signals,
        a_socket_that_never_waits_does_not_wait_for_room,
        dropping_waits_for_a_slow_peer,
        dropping_does_not_wait_for_ever,
        dropping_while_a_panic_unwinds_does_not_wait,
        a_buffered_message_is_ready,
        what_has_no_room_makes_the_wait_end_with_room,
        a_peer_that_is_gone_is_ready,
    ]
}

/// The ways to receive that wait.
pub(super) const WAITING: [Receive; 3] =
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
pub(super) fn drain(peer: &DatagramSocket) -> Vec<Vec<u8>> {
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
    let pairs = [(); 8].map(|()| half_packed());
    support::assert_unwinding_does_not_wait(pairs.map(|(mut socket, peer)| {
        fill(&mut socket, 1000);
        (socket, peer)
    }));
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
