//! Messages over streams that are no pipes, and over pipes of packets: as over a plain pipe, each arrives whole and in order,
//! deadlines hold, a peer that has gone is seen, and `O_NONBLOCK` is nobody's business.

use std::fmt::Debug;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::{
    self, Gate, Sigpipe, Trial, assert_all_arrive, assert_ends_are_told, assert_same, exit_code, message, sigpipe,
    tcp_pair,
};
use ipc::{
    ByteReader, ByteWriter, Ends, Error, MessageReader, MessageWriter, Ready, StreamSocket, Watch, fork, stream_pair,
    wait_any,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_arrive_whole_and_in_order_over_every_stream within 60,
        both_directions_of_a_socket_carry_messages,
        a_stream_that_ends_inside_a_message_says_so_wherever_it_ends within 60,
        a_peer_that_is_killed_is_seen_after_all_that_it_sent,
        a_peer_that_has_gone_is_closed_and_no_signal,
        what_was_lost_with_the_peer_is_told_once_and_after_all_that_it_sent,
        hostile_lengths_over_a_socket_take_no_memory,
        a_message_that_is_begun_is_taken_and_never_torn within 60,
        every_stream_can_be_watched,
    ]
}

pub(super) const LONG: Duration = Duration::from_secs(20);
pub(super) const SHORT: Duration = Duration::from_millis(50);

/// A stream that carries messages, both ways.
pub(super) trait Stream: ByteReader + ByteWriter + Ends + AsFd + Debug + Sized {
    fn pair() -> (Self, Self);
    fn raw(&self) -> UnixStream {
        self.as_fd().try_clone_to_owned().unwrap().into()
    }
}

impl Stream for StreamSocket {
    fn pair() -> (Self, Self) {
        let pair = stream_pair().unwrap();
        (pair.parent, pair.child)
    }
}

impl Stream for UnixStream {
    fn pair() -> (Self, Self) {
        UnixStream::pair().unwrap()
    }
}

impl Stream for TcpStream {
    fn pair() -> (Self, Self) {
        tcp_pair()
    }
}

/// Calls it for each sort of stream.
macro_rules! over_every_stream {
    ($check:ident) => {
        $check::<StreamSocket>();
        $check::<UnixStream>();
        $check::<TcpStream>();
    };
}
pub(super) use over_every_stream;

pub(super) fn ends<S: Stream>() -> (MessageReader<S>, MessageWriter<S>) {
    let (one, other) = S::pair();
    (MessageReader::new(one), MessageWriter::new(other))
}

fn messages_arrive_whole_and_in_order_over_every_stream() {
    fn check<S: Stream>() {
        let mut lengths = vec![0, 1, 2, 3, 4, 5, 0, 0, 4095, 4096, 0];
        lengths.extend((0..20).map(|less| (8 << 10) + 10 - less));
        lengths.extend((0..20).map(|less| (64 << 10) + 10 - less));
        lengths.extend([8 << 20, 0, 70_000, (1 << 20) + 1, 3]);
        lengths.extend((0..support::rounds(600) as usize).map(|number| number * number % 611));
        let (one, other) = S::pair();
        let child = fork(other, |other| {
            let mut writer = MessageWriter::new(other);
            lengths.iter().enumerate().for_each(|(number, len)| writer.send(&message(number, *len)).unwrap());
            writer.close().unwrap();
        })
        .unwrap();
        let mut reader = MessageReader::new(one);
        assert_all_arrive(&mut reader, &lengths);
        assert_eq!(exit_code(&child), 0);
        reader.close().unwrap();
    }
    over_every_stream!(check);
}

fn both_directions_of_a_socket_carry_messages() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut writer = MessageWriter::new(socket.try_clone().unwrap());
        let mut reader = MessageReader::new(socket);
        while let Some(message) = reader.recv().unwrap() {
            writer.send(&message.to_ascii_uppercase()).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
    })
    .unwrap();
    let mut reader = MessageReader::new(pair.parent.try_clone().unwrap());
    let mut writer = MessageWriter::new(pair.parent);
    for word in ["one", "", "three"] {
        writer.send(word.as_bytes()).unwrap();
        writer.flush().unwrap();
        assert_eq!(reader.recv().unwrap(), Some(word.to_ascii_uppercase().as_bytes()));
    }
    writer.into_inner().unwrap().shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn a_stream_that_ends_inside_a_message_says_so_wherever_it_ends() {
    fn check<S: Stream>() {
        assert_ends_are_told(|bytes| {
            let (one, other) = S::pair();
            other.raw().write_all(bytes).unwrap();
            one
        });
    }
    over_every_stream!(check);
}

fn a_peer_that_is_killed_is_seen_after_all_that_it_sent() {
    fn check<S: Stream>() {
        let (one, other) = S::pair();
        let gate = Gate::new();
        let child = fork(other, |other| {
            let mut writer = MessageWriter::new(other);
            writer.send(b"last words").unwrap();
            writer.send(&[7; 100_000][..30_000]).unwrap();
            writer.flush().unwrap();
            writer.get_ref().raw().write_all(b"\x64\0\0\0and th").unwrap();
            gate.open();
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        gate.pass();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut reader = MessageReader::new(one);
        assert_eq!(reader.recv().unwrap(), Some(&b"last words"[..]));
        assert_eq!(reader.recv().unwrap(), Some(&[7; 30_000][..]));
        assert!(
            matches!(reader.recv(), Err(Error::Truncated { expected: Some(100), message }) if message == b"and th")
        );
        assert_eq!(reader.recv().unwrap(), None);
    }
    over_every_stream!(check);
}

fn a_peer_that_has_gone_is_closed_and_no_signal() {
    fn check<S: Stream>() {
        has_gone::<S>(false);
        has_gone::<S>(true);
    }
    fn has_gone<S: Stream>(with_something_unread: bool) {
        let (reader, mut writer) = ends::<S>();
        if with_something_unread {
            writer.send(b"unread").unwrap();
            writer.flush().unwrap();
        }
        drop(reader);
        // A TCP connection learns of it by the answer to the first segment.
        let started = Instant::now();
        let lost = loop {
            if let Err(error) = writer.send(&[1; 20_000]) {
                break error;
            }
            assert!(started.elapsed() < LONG);
        };
        assert!(matches!(lost, Error::Closed), "{lost:?}");
        for _ in 0..3 {
            assert!(matches!(writer.send(b""), Err(Error::Closed)));
            assert!(matches!(writer.try_send(&[1; 100_000]), Err(Error::Closed)));
            assert!(matches!(writer.send_timeout(b"x", LONG), Err(Error::Closed)));
            assert!(matches!(writer.flush(), Err(Error::Closed)));
            assert!(matches!(writer.try_flush(), Err(Error::Closed)));
        }
        writer.into_inner().unwrap();
    }
    sigpipe(Sigpipe::Default);
    over_every_stream!(check);
}

fn what_was_lost_with_the_peer_is_told_once_and_after_all_that_it_sent() {
    fn check<S: Stream>() {
        let (one, other) = S::pair();
        one.raw().write_all(b"nobody reads this").unwrap();
        let mut writer = MessageWriter::new(other);
        writer.send(b"first").unwrap();
        writer.flush().unwrap();
        writer.get_ref().raw().write_all(b"\x64\0\0\0half").unwrap();
        writer.close().unwrap();
        let mut reader = MessageReader::new(one);
        assert_eq!(reader.recv().unwrap(), Some(&b"first"[..]));
        assert!(matches!(reader.recv(), Err(Error::Reset)));
        assert!(matches!(reader.recv(), Err(Error::Truncated { expected: Some(100), message }) if message == b"half"));
        assert_eq!(reader.recv().unwrap(), None);
    }
    over_every_stream!(check);
}

fn hostile_lengths_over_a_socket_take_no_memory() {
    fn check<S: Stream>() {
        for length in [u64::MAX, u64::MAX - 11, 1 << 63, 1 << 40] {
            let (one, other) = S::pair();
            let head = [&[0xff; 4][..], &length.to_le_bytes()].concat();
            other.raw().write_all(&[&head[..], &[7; 1000]].concat()).unwrap();
            let mut reader = MessageReader::new(one);
            assert!(matches!(reader.recv(), Err(Error::TooLong { max: 0x400_0000, .. })));
            assert!(reader.has_message(), "the answer is there");
            reader.set_max_message(usize::MAX);
            assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)));
            drop(other);
            match reader.recv() {
                Err(Error::Truncated { message, expected }) => {
                    assert_eq!((message, expected), (vec![7; 1000], Some(length)));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    support::limit(libc::RLIMIT_AS, |_| 1 << 30);
    over_every_stream!(check);
}

fn a_message_that_is_begun_is_taken_and_never_torn() {
    fn check<S: Stream>() {
        let (mut reader, mut writer) = ends::<S>();
        let mut sent = 0;
        for number in 0.. {
            match writer.send_timeout(&message(number, 700_000), Duration::ZERO) {
                Ok(()) => sent += 1,
                Err(Error::TimedOut) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(sent > 0);
        // TCP moves bytes to the other side by itself, and has room again for a while.
        loop {
            match writer.try_send(&message(sent, 700_000)) {
                Ok(()) => sent += 1,
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        // What was taken arrives, and nothing else.
        let mut number = 0;
        while number < sent {
            let _ = writer.try_flush();
            match reader.try_recv() {
                Ok(received) => {
                    assert_same(received.unwrap(), &message(number, 700_000));
                    number += 1;
                }
                Err(Error::WouldBlock) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        writer.close().unwrap();
        assert_eq!(reader.recv().unwrap(), None);
    }
    over_every_stream!(check);
}

fn every_stream_can_be_watched() {
    fn check<S: Stream>() {
        let (mut reader, mut writer) = ends::<S>();
        assert_eq!(wait_any(&mut [reader.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
        writer.send(b"one").unwrap();
        writer.send(b"two").unwrap();
        writer.flush().unwrap();
        for word in [b"one", b"two"] {
            let mut on = [reader.watch().unwrap()];
            assert_eq!(wait_any(&mut on, Some(LONG)).unwrap(), 1);
            assert!(on[0].ready().contains(Ready::READ));
            assert_eq!(reader.try_recv().unwrap(), Some(&word[..]));
        }
        assert_eq!(wait_any(&mut [reader.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
        assert_eq!(wait_any(&mut [Watch::writable(writer.get_ref())], Some(LONG)).unwrap(), 1);
        drop(writer);
        assert_eq!(wait_any(&mut [reader.watch().unwrap()], Some(LONG)).unwrap(), 1);
        assert_eq!(reader.try_recv().unwrap(), None);
    }
    over_every_stream!(check);
}
