//! Bytes both ways: [`StreamSocket`] reads and writes like a pipe, in two directions, and never raises a signal.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::{self, Sigpipe, Trial, asleep_in, exit_code, handle_signal, handled, sigpipe};
use ipc::{Error, StreamPair, StreamSocket, fork, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_go_both_ways,
        much_goes_both_ways_at_once,
        borders_of_writes_are_not_kept,
        the_end_arrives_when_the_peer_leaves,
        the_end_arrives_when_the_peer_is_killed,
        a_half_that_is_shut_down_ends_alone,
        shutting_down_goes_for_all_that_hold_the_end,
        empty_buffers_tell_nothing,
        several_buffers_are_one_call,
        empty_leading_buffers_are_no_end,
        more_buffers_than_the_kernel_takes_are_clamped,
        writing_to_nobody_is_an_error_and_never_a_signal,
        a_loss_is_said_once_and_then_it_is_the_end,
        a_sender_hears_of_a_loss_as_closed,
    ]
}

pub(super) const NOW: Duration = Duration::ZERO;
pub(super) const SHORT: Duration = Duration::from_millis(20);

/// Fills the way to the peer, and says with how much.
pub(super) fn fill(socket: &StreamSocket) -> usize {
    let mut written = 0;
    loop {
        match socket.try_write(&[1; 4096]) {
            Ok(more) => written += more,
            Err(Error::WouldBlock) => return written,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn bytes_go_both_ways() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        let mut question = [0; 4];
        while socket.read_exact(&mut question).is_ok() {
            question.reverse();
            socket.write_all(&question).unwrap();
        }
    })
    .unwrap();
    // Through a reference, as two holders would.
    let (mut reader, mut writer) = (&pair.parent, &pair.parent);
    for round in 0..100_u32 {
        writer.write_all(&round.to_le_bytes()).unwrap();
        let mut answer = [0; 4];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(answer, round.to_be_bytes());
    }
    writer.flush().unwrap();
    drop(pair.parent);
    assert_eq!(exit_code(&child), 0);
}

fn much_goes_both_ways_at_once() {
    const LEN: usize = 4 << 20;
    let pair = stream_pair().unwrap();
    let exchange = |socket: &StreamSocket, byte: u8| {
        // Reads while it waits to write: neither side waits for the other.
        let (mut sent, mut arrived, mut buf) = (0, 0, vec![0; 64 << 10]);
        while sent < LEN || arrived < LEN {
            if sent < LEN {
                match socket.try_write(&vec![byte; (LEN - sent).min(64 << 10)]) {
                    Ok(more) => sent += more,
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            // Once it has everything, the peer may leave.
            if arrived < LEN {
                match socket.read_timeout(&mut buf, if sent < LEN { NOW } else { Duration::MAX }) {
                    Ok(more) => {
                        assert!(more > 0 && buf[..more].iter().all(|other| *other == !byte));
                        arrived += more;
                    }
                    Err(Error::TimedOut) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let child = fork(pair.child, |socket| exchange(&socket, 0x0f)).unwrap();
    exchange(&pair.parent, 0xf0);
    assert_eq!(exit_code(&child), 0);
}

fn borders_of_writes_are_not_kept() {
    let StreamPair { mut parent, mut child } = stream_pair().unwrap();
    child.write_all(b"one ").unwrap();
    child.write_all(b"two").unwrap();
    let mut buf = [0; 99];
    assert_eq!(parent.read(&mut buf[..2]).unwrap(), 2);
    assert_eq!(parent.read(&mut buf[2..]).unwrap(), 5);
    assert_eq!(&buf[..7], b"one two");
}

fn the_end_arrives_when_the_peer_leaves() {
    let mut pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| socket.write_all(b"last words").unwrap()).unwrap();
    assert_eq!(std::io::read_to_string(&mut pair.parent).unwrap(), "last words");
    for _ in 0..2 {
        assert_eq!(pair.parent.read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.parent.try_read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [0], NOW).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [0], Duration::MAX).unwrap(), 0);
    }
    assert_eq!(exit_code(&child), 0);
}

fn the_end_arrives_when_the_peer_is_killed() {
    let mut pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        socket.write_all(b"half").unwrap();
        let _ = socket.read(&mut [0]);
    })
    .unwrap();
    let mut half = [0; 4];
    pair.parent.read_exact(&mut half).unwrap();
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    child.kill().unwrap();
    assert_eq!(pair.parent.read(&mut [0]).unwrap(), 0);
    child.wait().unwrap();
}

fn a_half_that_is_shut_down_ends_alone() {
    let mut pair = stream_pair().unwrap();
    pair.parent.write_all(b"that was all").unwrap();
    pair.parent.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(pair.parent.try_write(b"more"), Err(Error::Closed)));
    assert_eq!(std::io::read_to_string(&mut pair.child).unwrap(), "that was all");
    pair.child.write_all(b"and back").unwrap();
    let mut text = [0; 8];
    pair.parent.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"and back");
    pair.parent.shutdown(Shutdown::Read).unwrap();
    assert_eq!(pair.parent.read(&mut text).unwrap(), 0);
    assert!(matches!(pair.child.try_write(b"more"), Err(Error::Closed)));
    pair.parent.shutdown(Shutdown::Both).unwrap();

    let pair = stream_pair().unwrap();
    pair.parent.shutdown(Shutdown::Both).unwrap();
    assert_eq!(pair.child.try_read(&mut text).unwrap(), 0);
    assert!(matches!(pair.child.try_write(b"more"), Err(Error::Closed)));
}

fn shutting_down_goes_for_all_that_hold_the_end() {
    let pair = stream_pair().unwrap();
    let other = pair.parent.try_clone().unwrap();
    let child = fork(pair.parent, |socket| socket.shutdown(Shutdown::Write).unwrap()).unwrap();
    assert_eq!(exit_code(&child), 0);
    assert_eq!(pair.child.try_read(&mut [0]).unwrap(), 0);
    assert!(matches!(other.try_write(b"x"), Err(Error::Closed)));
}

fn empty_buffers_tell_nothing() {
    let pair = stream_pair().unwrap();
    let mut parent = &pair.parent;
    for gone in [false, true] {
        assert_eq!(parent.read(&mut []).unwrap(), 0);
        assert_eq!(pair.parent.try_read(&mut []).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [], Duration::MAX).unwrap(), 0);
        assert_eq!(parent.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(parent.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!(parent.write(&[]).unwrap(), 0);
        assert_eq!(pair.parent.try_write(&[]).unwrap(), 0);
        assert_eq!(pair.parent.write_timeout(&[], NOW).unwrap(), 0);
        assert_eq!(parent.write_vectored(&[]).unwrap(), 0);
        assert_eq!(parent.write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
        if !gone {
            assert!(matches!(pair.child.try_read(&mut [0]), Err(Error::WouldBlock)), "nothing was sent");
            pair.child.shutdown(Shutdown::Both).unwrap();
        }
    }
}

fn several_buffers_are_one_call() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let parts = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b" two")];
    assert_eq!(parent.write_vectored(&parts).unwrap(), 7);
    let (mut first, mut second) = ([0; 5], [0; 9]);
    let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 7);
    assert_eq!((&first, &second[..2]), (b"one t", &b"wo"[..]));
    // Through the value too.
    let StreamPair { mut parent, mut child } = pair;
    assert_eq!(parent.write_vectored(&[IoSlice::new(b"x")]).unwrap(), 1);
    assert_eq!(child.read_vectored(&mut [IoSliceMut::new(&mut first)]).unwrap(), 1);
}

fn empty_leading_buffers_are_no_end() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let mut parts = vec![IoSlice::new(b""); 3000];
    parts.push(IoSlice::new(b"after all"));
    assert_eq!(parent.write_vectored(&parts).unwrap(), 9);
    let mut buf = [0; 9];
    let mut bufs: Vec<_> = (0..3000).map(|_| IoSliceMut::new(&mut [])).collect();
    bufs.push(IoSliceMut::new(&mut buf));
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 9);
    assert_eq!(&buf, b"after all");
}

fn more_buffers_than_the_kernel_takes_are_clamped() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let bytes: Vec<u8> = (0..3000).map(|i| i as u8).collect();
    let parts: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
    assert_eq!(parent.write_vectored(&parts).unwrap(), 1024);
    parent.write_all(&bytes[1024..]).unwrap();
    let mut read = vec![0; 3000];
    let mut bufs: Vec<_> = read.chunks_mut(1).map(IoSliceMut::new).collect();
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 1024);
    child.read_exact(&mut read[1024..]).unwrap();
    assert!(read == bytes);
}

fn writing_to_nobody_is_an_error_and_never_a_signal() {
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        // At its default, the signal would end this test.
        sigpipe(disposition);
        let pair = stream_pair().unwrap();
        drop(pair.child);
        for _ in 0..2 {
            let mut parent = &pair.parent;
            assert_eq!(parent.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(parent.write_vectored(&[IoSlice::new(b"x")]).unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
            assert!(matches!(pair.parent.write_timeout(b"x", NOW), Err(Error::Closed)));
        }
    }
    handle_signal(libc::SIGPIPE);
    let pair = stream_pair().unwrap();
    drop(pair.child);
    assert!((&pair.parent).write(b"x").is_err());
    assert_eq!(handled(), 0);
}

fn a_loss_is_said_once_and_then_it_is_the_end() {
    type ReadOne = fn(&StreamSocket) -> Result<usize, Error>;
    let ways: [ReadOne; 4] = [
        |mut socket| Ok(socket.read(&mut [0; 9])?),
        |socket| socket.try_read(&mut [0; 9]),
        |socket| socket.read_timeout(&mut [0; 9], NOW),
        |mut socket| Ok(socket.read_vectored(&mut [IoSliceMut::new(&mut [0; 9])])?),
    ];
    for read in ways {
        let pair = stream_pair().unwrap();
        (&pair.child).write_all(b"theirs").unwrap();
        (&pair.parent).write_all(b"unread").unwrap();
        drop(pair.child);
        assert_eq!(read(&pair.parent).unwrap(), 6, "what it sent comes first");
        let said = read(&pair.parent);
        assert!(matches!(said, Err(Error::Reset)), "{said:?}");
        for _ in 0..2 {
            assert_eq!(read(&pair.parent).unwrap(), 0);
        }
    }
    let pair = stream_pair().unwrap();
    (&pair.parent).write_all(b"unread").unwrap();
    drop(pair.child);
    assert_eq!((&pair.parent).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_sender_hears_of_a_loss_as_closed() {
    let pair = stream_pair().unwrap();
    (&pair.child).write_all(b"theirs").unwrap();
    (&pair.parent).write_all(b"unread").unwrap();
    drop(pair.child);
    assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
    assert_eq!(pair.parent.try_read(&mut [0; 9]).unwrap(), 6);
    assert!(matches!(pair.parent.try_read(&mut [0; 9]), Err(Error::Reset)));
    assert_eq!(pair.parent.try_read(&mut [0; 9]).unwrap(), 0);
    assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
}
