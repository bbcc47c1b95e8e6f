//! Messages that were lost with the peer are told of once (P5), to a receiver, after everything that the peer had sent.

#[allow(dead_code)] // one counter of it is needed here
#[path = "../../../examples/soak/fire/board.rs"]
mod board;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::receivers::{LONG, RECEIVERS};
use crate::support::{self, Trial, asleep_in, exit_code, read_all};
use ipc::{DatagramPair, DatagramSocket, Error, StreamPair, datagram_pair, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        the_loss_is_told_once_after_everything_else,
        the_loss_is_told_to_receivers_also_when_a_sender_met_it_first,
        the_loss_is_told_to_the_clone_that_receives,
        the_loss_that_a_waiting_sender_met_is_told_to_the_clone_that_receives,
        a_long_write_tells_of_a_loss_where_there_is_one,
        a_long_write_that_a_shutdown_cuts_short_has_lost_nothing,
        the_loss_is_told_of_a_killed_peer,
        a_blocked_receiver_is_told_of_the_loss,
        without_a_loss_there_is_no_reset,
        whatever_comes_last_comes_before_the_end within 60,
    ]
}

/// Whoever receives is told of the end, and nothing else any more; whoever sends, that nobody receives.
#[track_caller]
fn assert_gone(socket: &DatagramSocket) {
    for (call, recv) in RECEIVERS {
        assert_eq!(recv(socket).unwrap(), None, "{call}");
    }
    assert_eq!(socket.peek_len().unwrap(), None);
    assert_closed(socket);
    assert_eq!(socket.recv(&mut []).unwrap(), None);
}

#[track_caller]
fn assert_closed(socket: &DatagramSocket) {
    for result in [socket.send(b"x"), socket.try_send(b""), socket.send_timeout(b"x", LONG)] {
        assert!(matches!(result, Err(Error::Closed)), "{result:?}");
    }
}

#[track_caller]
fn assert_reset<T: std::fmt::Debug>(result: ipc::Result<T>) {
    assert!(matches!(result, Err(Error::Reset)), "{result:?}");
}

/// A process that has the end, and does nothing with it until it is killed.
fn holder(socket: DatagramSocket) -> ipc::Child {
    fork(socket, |_socket| {
        loop {
            std::thread::park();
        }
    })
    .unwrap()
}

/// An end whose peer sent two messages and an empty one, and left with messages of ours unread.
fn left_with_messages_unread() -> DatagramSocket {
    let pair = datagram_pair().unwrap();
    pair.parent.send(b"never read").unwrap();
    pair.parent.send(b"nor this").unwrap();
    let child = fork(pair.child, |socket| {
        for message in SENT {
            socket.send(message).unwrap();
        }
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    pair.parent
}

const SENT: [&[u8]; 3] = [b"one", b"two", b""];

fn the_loss_is_told_once_after_everything_else() {
    for (call, recv) in RECEIVERS {
        let socket = left_with_messages_unread();
        for message in SENT {
            assert_eq!(recv(&socket).unwrap().as_deref(), Some(message), "{call}");
        }
        assert_reset(recv(&socket));
        assert_gone(&socket);

        // Met by a call that leaves the messages where they are.
        let socket = left_with_messages_unread();
        assert_eq!(socket.peek_len().unwrap(), Some(SENT[0].len()), "{call}");
        for message in SENT {
            assert_eq!(recv(&socket).unwrap().as_deref(), Some(message), "{call}");
        }
        assert_reset(recv(&socket));
        assert_gone(&socket);
    }
    // Or told by that call, when there is nothing more.
    let socket = left_with_messages_unread();
    for message in SENT {
        assert_eq!(socket.recv_vec().unwrap().as_deref(), Some(message));
    }
    assert_reset(socket.peek_len());
    assert_gone(&socket);
    // A buffer that is too short is no way to lose it.
    let socket = left_with_messages_unread();
    for message in &SENT[..2] {
        match socket.recv(&mut [0; 1]) {
            Err(Error::BufferTooSmall { message: whole }) => assert_eq!(&whole, message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(socket.recv(&mut [0; 1]).unwrap(), Some(0));
    assert_reset(socket.recv(&mut [0; 1]));
    assert_gone(&socket);
}

fn the_loss_is_told_to_receivers_also_when_a_sender_met_it_first() {
    let sends: [fn(&DatagramSocket) -> ipc::Result<()>; 4] = [
        |socket| socket.send(b"x"),
        |socket| socket.try_send(b"x"),
        |socket| socket.send_timeout(b"x", LONG),
        |socket| socket.send_vectored(&[]),
    ];
    for send in sends {
        for (call, recv) in RECEIVERS {
            let socket = left_with_messages_unread();
            let result = send(&socket);
            assert!(matches!(result, Err(Error::Closed)), "{result:?}");
            for message in SENT {
                assert_eq!(recv(&socket).unwrap().as_deref(), Some(message), "{call}");
                assert_closed(&socket);
            }
            assert_reset(recv(&socket));
            assert_gone(&socket);
        }
    }
}

fn the_loss_is_told_to_the_clone_that_receives() {
    for clone_receives in [false, true] {
        let socket = left_with_messages_unread();
        let clone = socket.try_clone().unwrap();
        let (sender, receiver) = if clone_receives { (&socket, &clone) } else { (&clone, &socket) };
        assert_closed(sender);
        for message in SENT {
            assert_eq!(receiver.recv_vec().unwrap().as_deref(), Some(message));
        }
        assert_reset(receiver.recv_vec());
        assert_gone(receiver);
        assert_gone(sender);

        let StreamPair { parent, child } = stream_pair().unwrap();
        let clone = parent.try_clone().unwrap();
        let (sender, receiver) = if clone_receives { (&parent, &clone) } else { (&clone, &parent) };
        assert_eq!(sender.try_write(b"never read").unwrap(), 10);
        drop(child);
        assert!(matches!(sender.try_write(b"x"), Err(Error::Closed)));
        assert_reset(receiver.try_read(&mut [0; 8]));
        assert_eq!(receiver.try_read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(sender.try_read(&mut [0; 8]).unwrap(), 0);
    }
}

/// A sender that waits takes the kernel's word for it away from everybody else.
fn the_loss_that_a_waiting_sender_met_is_told_to_the_clone_that_receives() {
    let parent = std::process::id();
    // Also in the middle of a long write, of which it says how much went.
    for (clone_receives, len) in [(false, 64), (true, 64), (false, 4 << 20), (true, 4 << 20)] {
        let pair = stream_pair().unwrap();
        let child = fork(pair.child, |mut socket| {
            asleep_in(parent, &[libc::SYS_sendto]);
            socket.write_all(b"the last") // and leaves, with all the rest unread
        })
        .unwrap();
        let clone = pair.parent.try_clone().unwrap();
        let (mut sender, receiver) = if clone_receives { (&pair.parent, &clone) } else { (&clone, &pair.parent) };
        let refused = std::iter::repeat_with(|| sender.write(&vec![0; len])).find_map(Result::err).unwrap();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        assert_eq!(receiver.try_read(&mut [0; 9]).unwrap(), 8);
        assert_reset(receiver.try_read(&mut [0; 9]));
        assert_eq!(receiver.try_read(&mut [0; 9]).unwrap(), 0);
        assert_eq!(exit_code(&child), 0);
    }
}

/// A peer that takes what is there and leaves, in the middle of a write: something is lost if it was accepted and not read.
fn a_long_write_tells_of_a_loss_where_there_is_one() {
    let bytes = vec![0; 1 << 20];
    for round in 0..400 {
        let pair = stream_pair().unwrap();
        let (report, to_report) = pipe().unwrap();
        let child = fork((pair.child, to_report), |(mut socket, report)| {
            let mut buf = [0; 64 << 10];
            let mut taken = socket.read(&mut buf).unwrap();
            while let Ok(count) = socket.try_read(&mut buf) {
                taken += count;
            }
            report.write_atomic(&taken.to_le_bytes())
        })
        .unwrap();
        let mut socket = pair.parent;
        let written = match round % 2 {
            0 => socket.write(&bytes).unwrap(),
            _ => std::iter::from_fn(|| socket.try_write(&bytes).ok()).sum(),
        };
        let taken: [u8; size_of::<usize>()] = read_all(report).try_into().unwrap();
        assert_eq!(exit_code(&child), 0);
        match written - usize::from_le_bytes(taken) {
            0 => assert_eq!(socket.try_read(&mut [0; 8]).unwrap(), 0, "round {round}: nothing was lost"),
            _ => assert_reset(socket.try_read(&mut [0; 8])),
        }
    }
}

fn a_long_write_that_a_shutdown_cuts_short_has_lost_nothing() {
    let parent = std::process::id();
    let bytes = vec![0; 4 << 20];
    for own in [false, true] {
        let pair = stream_pair().unwrap();
        let clone = pair.parent.try_clone().unwrap();
        let child = fork((pair.child, clone), |(socket, clone)| {
            asleep_in(parent, &[libc::SYS_sendto]);
            if own { &clone } else { &socket }.shutdown(Shutdown::Both).unwrap();
            drop(clone);
            assert!((&socket).read_to_end(&mut Vec::new()).unwrap() > 0);
        });
        let mut socket = pair.parent;
        let written = socket.write(&bytes).unwrap();
        assert!(written < bytes.len());
        assert_eq!(exit_code(&child.unwrap()), 0);
        assert_eq!(socket.try_read(&mut [0; 8]).unwrap(), 0);
    }
}

fn the_loss_is_told_of_a_killed_peer() {
    let pair = datagram_pair().unwrap();
    pair.child.send(b"last words").unwrap();
    let holder = holder(pair.child);
    pair.parent.send(b"never read").unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"last words");
    assert_reset(pair.parent.recv_vec());
    assert_gone(&pair.parent);
}

fn a_blocked_receiver_is_told_of_the_loss() {
    for (call, recv) in [RECEIVERS[0], RECEIVERS[2], RECEIVERS[3], RECEIVERS[5]] {
        let DatagramPair { parent, child } = datagram_pair().unwrap();
        let holder = holder(child);
        let receiver = fork(parent, |socket| {
            socket.send(b"never read").unwrap();
            assert_reset(recv(&socket));
            assert_gone(&socket);
        })
        .unwrap();
        asleep_in(receiver.id(), &[libc::SYS_recvmsg, libc::SYS_ppoll]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(exit_code(&receiver), 0, "{call}");
    }
}

fn without_a_loss_there_is_no_reset() {
    let pair = datagram_pair().unwrap();
    pair.parent.send(b"read").unwrap();
    let child = fork(pair.child, |socket| {
        assert_eq!(socket.recv_vec().unwrap().expect("a message"), b"read");
        socket.send(b"answer").unwrap();
    })
    .unwrap();
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"answer");
    assert_gone(&pair.parent);
    assert_eq!(exit_code(&child), 0);
}

/// The peer leaves while the receiver looks, again and again, at every moment of it: what the peer did last is never
/// overtaken by the end, which the kernel says of a queue that it found empty a moment before.
fn whatever_comes_last_comes_before_the_end() {
    const PAIRS: usize = 100;
    for round in 0..support::rounds(8) as usize {
        let pairs: Vec<_> = (0..PAIRS).map(|_| datagram_pair().unwrap()).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().map(|pair| (pair.parent, pair.child)).unzip();
        // Half of the peers leave a message of ours unread, and the others say something with their last breath.
        let is_loss = |number: usize| number.is_multiple_of(2);
        for (number, socket) in ours.iter().enumerate().filter(|(number, _)| is_loss(*number)) {
            socket.send(&number.to_ne_bytes()).unwrap();
        }
        let turn = &board::Board::shared().rounds;
        let child = fork(theirs, |theirs| {
            for (number, socket) in theirs.into_iter().enumerate() {
                let mut spins = 0;
                while turn.get() <= number as u64 {
                    std::hint::spin_loop();
                    spins += 1;
                    if spins > 10_000 {
                        std::thread::yield_now();
                    }
                }
                (0..(number * 7 + round * 13) % 200).for_each(|_| std::hint::spin_loop());
                if !is_loss(number) {
                    socket.send(b"last words").unwrap();
                }
            }
        })
        .map_err(Error::from)
        .unwrap();
        for (number, socket) in ours.into_iter().enumerate() {
            turn.add(1);
            let waits = round % 3 == 0;
            let first = loop {
                match if waits { socket.recv_vec() } else { socket.try_recv_vec() } {
                    Err(Error::WouldBlock) => {}
                    first => break first,
                }
            };
            match first {
                Err(Error::Reset) if is_loss(number) => {}
                Ok(Some(text)) if !is_loss(number) => assert_eq!(text, b"last words"),
                other => panic!("round {round}, pair {number}: {other:?} came first"),
            }
            // The other half of the peers may still be about to leave.
            assert_eq!(socket.recv_vec().unwrap(), None);
        }
        assert_eq!(exit_code(&child), 0);
    }
}
