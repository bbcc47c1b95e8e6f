//! Messages over streams that are no pipes, and over pipes of packets: as over a plain pipe, each arrives whole and in order,
//! deadlines hold, a peer that has gone is seen, and `O_NONBLOCK` is nobody's business.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::{
    self, Gate, Sigpipe, Trial, assert_next, assert_same, assert_times_out, become_nobody, exhaust_pipe_pages,
    exit_code, message, read_all, read_some, sigpipe, status_flags, tcp_pair, with_interval_timer,
};
use ipc::{
    ByteReader, ByteWriter, Deadline, Ends, Error, MessageReader, MessageWriter, PackedSocket, PipeReader, PipeWriter,
    Ready, StreamSocket, TimedRead, TimedWrite, Watch, datagram_pair, fork, pipe, stream_pair, wait_any,
};
use rustix::pipe::{PipeFlags, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_arrive_whole_and_in_order_over_every_stream within 60,
        both_directions_of_a_socket_carry_messages,
        a_stream_that_ends_inside_a_message_says_so_wherever_it_ends within 60,
        a_peer_that_is_killed_is_seen_after_all_that_it_sent,
        a_peer_that_has_gone_is_closed_and_no_signal,
        what_was_lost_with_the_peer_is_told_once_and_after_all_that_it_sent,
        deadlines_are_kept_across_signals within 60,
        a_message_that_comes_in_parts_has_one_deadline,
        a_peer_that_feeds_byte_by_byte_keeps_no_call needs [NoWait],
        a_reader_that_makes_room_bit_by_bit_keeps_no_call,
        the_try_calls_wait_for_nobody_and_change_no_flag,
        a_stream_that_never_waits_answers_would_block,
        a_timeout_of_the_stream_itself_loses_nothing,
        hostile_lengths_over_a_socket_take_no_memory,
        a_message_that_is_begun_is_taken_and_never_torn within 60,
        every_stream_can_be_watched,
        dropping_waits_for_a_second_at_most within 60,
        a_stream_of_the_standard_library_can_be_put_under_a_deadline,
        packets_of_a_pipe_arrive_whole within 60,
        packets_of_a_pipe_are_read_to_the_end,
        reading_to_the_end_is_that_of_the_standard_library within 60,
        // It uses up what one user's pipes may have.
        a_pipe_is_made_larger_for_a_message_that_does_not_fit needs [Alone],
        messages_can_be_iterated_over,
        an_error_that_would_come_again_ends_an_iteration,
        what_waits_to_be_received_is_not_lost_with_the_wrapper,
    ]
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

/// A stream that carries messages, both ways.
trait Stream: ByteReader + ByteWriter + Ends + AsFd + Debug + Sized {
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

fn ends<S: Stream>() -> (MessageReader<S>, MessageWriter<S>) {
    let (one, other) = S::pair();
    (MessageReader::new(one), MessageWriter::new(other))
}

fn messages_arrive_whole_and_in_order_over_every_stream() {
    fn check<S: Stream>() {
        let mut lengths = vec![0, 1, 2, 3, 4, 5, 0, 0, 4095, 4096, 0];
        lengths.extend((0..20).map(|less| (8 << 10) + 10 - less));
        lengths.extend((0..20).map(|less| (64 << 10) + 10 - less));
        lengths.extend([8 << 20, 0, 70_000, (1 << 20) + 1, 3]);
        lengths.extend((0..5000).map(|number| number * number % 611));
        let (one, other) = S::pair();
        let child = fork(other, |other| {
            let mut writer = MessageWriter::new(other);
            lengths.iter().enumerate().for_each(|(number, len)| writer.send(&message(number, *len)).unwrap());
            writer.close().unwrap();
        })
        .unwrap();
        let mut reader = MessageReader::new(one);
        for (number, len) in lengths.iter().enumerate() {
            assert_next(reader.recv(), &message(number, *len));
        }
        assert_eq!(reader.recv().unwrap(), None);
        assert_eq!(reader.try_recv().unwrap(), None);
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
        let whole = [&b"\x02\0\0\0ok\x64\0\0\0"[..], &[7; 100]].concat();
        for len in 0..=whole.len() {
            let (one, other) = S::pair();
            other.raw().write_all(&whole[..len]).unwrap();
            drop(other);
            let mut reader = MessageReader::new(one);
            if len >= 6 {
                assert_eq!(reader.recv().unwrap(), Some(&b"ok"[..]));
            }
            let got = reader.recv_vec();
            match len {
                0 | 6 => assert_eq!(got.unwrap(), None),
                110 => assert_eq!(got.unwrap(), Some(vec![7; 100])),
                10.. => match got {
                    Err(Error::Truncated { message, expected: Some(100) }) => assert_eq!(message, vec![7; len - 10]),
                    other => panic!("{len}: {other:?}"),
                },
                4..6 => assert!(matches!(got, Err(Error::Truncated { expected: Some(2), .. })), "{len}: {got:?}"),
                _ => assert!(matches!(got, Err(Error::Truncated { expected: None, .. })), "{len}: {got:?}"),
            }
            assert_eq!(reader.recv().unwrap(), None);
        }
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

/// Sends until there is no room.
fn stuff<S: Stream>(writer: &mut MessageWriter<S>) {
    while writer.send_timeout(&[1; 1000], SHORT).is_ok() {}
}

/// The answer to a call for which there is no room. TCP has some more a while after it had none, and is stuffed again then.
fn without_room<S: Stream>(
    writer: &mut MessageWriter<S>,
    mut call: impl FnMut(&mut MessageWriter<S>) -> ipc::Result<()>,
) -> ipc::Result<()> {
    loop {
        call(writer)?;
        stuff(writer);
    }
}

fn deadlines_are_kept_across_signals() {
    fn check<S: Stream>() {
        let (mut reader, mut writer) = ends::<S>();
        with_interval_timer(Duration::from_millis(3), || {
            assert_times_out("recv", SHORT, |timeout| reader.recv_timeout(timeout).map(drop));
            assert_times_out("recv", Duration::ZERO, |timeout| reader.recv_timeout(timeout).map(drop));
            stuff(&mut writer);
            let mut times_out = |what, call: fn(&mut MessageWriter<S>, Duration) -> ipc::Result<()>| {
                assert_times_out(what, SHORT, |timeout| without_room(&mut writer, |writer| call(writer, timeout)));
            };
            times_out("send", |writer, timeout| writer.send_timeout(&[1; 1000], timeout));
            times_out("a long send", |writer, timeout| writer.send_timeout(&[1; 1 << 20], timeout));
            times_out("flush", |writer, timeout| writer.flush_timeout(timeout));
        });
        drop(reader);
        drop(writer.into_inner());
    }
    over_every_stream!(check);
}

fn a_message_that_comes_in_parts_has_one_deadline() {
    fn check<S: Stream>() {
        let (one, other) = S::pair();
        let child = fork(other, |other| {
            let mut raw = other.raw();
            raw.write_all(b"\xff\xff\xff\x03").unwrap();
            // A byte at a time: there is always something, and never all of it.
            while raw.write_all(b"x").is_ok() {}
        })
        .unwrap();
        let mut reader = MessageReader::new(one);
        assert_times_out("recv", SHORT, |timeout| reader.recv_timeout(timeout).map(drop));
        drop(reader);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The signal of a plain write, which is not what is tested here.
    sigpipe(Sigpipe::Ignore);
    over_every_stream!(check);
}

fn a_peer_that_feeds_byte_by_byte_keeps_no_call() {
    // In a pipe of packets each read takes one byte, however many there are.
    let (reader, writer) = packets();
    writer.set_capacity(1 << 20).unwrap();
    [0xff, 0, 0, 0].into_iter().chain([7; 246]).for_each(|byte| writer.write_atomic(&[byte]).unwrap());
    let mut reader = MessageReader::new(reader);
    let left = |reader: &MessageReader| reader.get_ref().available().unwrap();
    assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)));
    assert!(left(&reader) > 150, "{} bytes are left", left(&reader));
    assert!(matches!(reader.recv_timeout(Duration::ZERO), Err(Error::TimedOut)));
    assert!(left(&reader) > 50, "{} bytes are left", left(&reader));
    // Nothing is lost by it.
    writer.write_atomic(&[7; 9]).unwrap();
    drop(writer);
    assert_eq!(reader.recv().unwrap(), Some(&[7; 255][..]));
}

fn a_reader_that_makes_room_bit_by_bit_keeps_no_call() {
    // A pipe with room for many times what goes after the time is up.
    let (reader, writer) = pipe().unwrap();
    assert_eq!(writer.set_capacity(1 << 20).unwrap(), 1 << 20);
    let long = message(1, 3 << 20);
    let mut writer = MessageWriter::new(writer);
    let mut stream = Vec::new();
    for call in 0..2 {
        match call {
            0 => writer.send_timeout(&long, Duration::ZERO).unwrap(),
            _ => assert!(matches!(writer.flush_timeout(Duration::ZERO), Err(Error::TimedOut))),
        }
        let went = reader.available().unwrap();
        assert!(went > 0 && went < 600_000, "{went} bytes went after the time was up");
        stream.extend(read_some(&reader, went));
    }
    // One that is not to wait goes on while there is room, and nothing is lost.
    assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
    assert_eq!(reader.available().unwrap(), 1 << 20);
    let child = fork(reader, |reader| {
        stream.extend(read_all(reader));
        assert_same(&stream[4..], &long);
    })
    .unwrap();
    writer.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn the_try_calls_wait_for_nobody_and_change_no_flag() {
    fn check<S: Stream>() {
        let (mut reader, mut writer) = ends::<S>();
        let before = (status_flags(reader.get_ref()), status_flags(writer.get_ref()));
        assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)));
        stuff(&mut writer);
        let sent = without_room(&mut writer, |writer| writer.try_send(&[1; 10_000]));
        assert!(matches!(sent, Err(Error::WouldBlock)));
        let flushed = without_room(&mut writer, |writer| writer.try_flush());
        assert!(matches!(flushed, Err(Error::WouldBlock)));
        assert!(matches!(reader.recv_timeout(LONG), Ok(Some(message)) if message == [1; 1000]));
        assert_eq!(before, (status_flags(reader.get_ref()), status_flags(writer.get_ref())));
        drop(reader);
    }
    over_every_stream!(check);
}

fn a_stream_that_never_waits_answers_would_block() {
    fn check<S: Stream>() {
        let (one, other) = S::pair();
        one.raw().set_nonblocking(true).unwrap();
        other.raw().set_nonblocking(true).unwrap();
        let (mut reader, mut writer) = (MessageReader::new(one), MessageWriter::new(other));
        assert!(matches!(reader.recv(), Err(Error::WouldBlock)));
        assert_times_out("recv", SHORT, |timeout| reader.recv_timeout(timeout).map(drop));
        writer.send(b"here").unwrap();
        writer.flush().unwrap();
        assert_eq!(reader.recv_timeout(LONG).unwrap(), Some(&b"here"[..]));
        stuff(&mut writer);
        let flushed = without_room(&mut writer, |writer| writer.flush());
        assert!(matches!(flushed, Err(Error::WouldBlock)));
        assert_times_out("flush", SHORT, |timeout| without_room(&mut writer, |writer| writer.flush_timeout(timeout)));
        drop(reader);
    }
    over_every_stream!(check);
}

fn a_timeout_of_the_stream_itself_loses_nothing() {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (mut reader, mut raw) = (MessageReader::new(one), other);
    raw.write_all(b"\x05\0\0\0hel").unwrap();
    assert!(matches!(reader.recv(), Err(Error::WouldBlock)));
    raw.write_all(b"lo").unwrap();
    assert_eq!(reader.recv().unwrap(), Some(&b"hello"[..]));
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

fn dropping_waits_for_a_second_at_most() {
    fn check<S: Stream>() {
        let (reader, mut writer) = ends::<S>();
        stuff(&mut writer);
        let flushed = without_room(&mut writer, |writer| writer.flush_timeout(Duration::from_millis(100)));
        assert!(matches!(flushed, Err(Error::TimedOut)));
        let started = Instant::now();
        drop(writer);
        assert!(started.elapsed() >= Duration::from_millis(900));
        drop(reader);
    }
    std::thread::scope(|scope| {
        scope.spawn(check::<StreamSocket>);
        scope.spawn(check::<UnixStream>);
        scope.spawn(check::<TcpStream>);
    });
}

fn a_stream_of_the_standard_library_can_be_put_under_a_deadline() {
    fn check(one: impl TimedRead, other: impl TimedWrite) {
        let (mut one, mut other) = (Deadline::after(one, SHORT), Deadline::after(other, LONG));
        assert_eq!(one.read(&mut [0; 5]).unwrap_err().kind(), ErrorKind::TimedOut);
        other.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        one.set_after(LONG);
        one.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        other.set_after(SHORT);
        assert_eq!(other.write_all(&vec![1; 64 << 20]).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(one);
        sigpipe(Sigpipe::Default);
        other.set_after(LONG);
        let lost = other.write_all(&vec![1; 64 << 20]).unwrap_err().kind();
        assert!(matches!(lost, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{lost:?}");
    }
    let (one, other) = UnixStream::pair().unwrap();
    check(one, other);
    let (one, other) = tcp_pair();
    check(one, other);
}

/// A pipe of packets, as `dd oflag=direct` makes one of its standard output.
fn packets() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).unwrap();
    (reader.try_into().unwrap(), writer.try_into().unwrap())
}

fn packets_of_a_pipe_arrive_whole() {
    // Lengths with which the room in the reader's buffer is used up at every possible place.
    for len in [1, 100, 3000, 4092, 4093, 5000, 60_000, 65_000, 65_530, 100_000, 300_000] {
        let (reader, writer) = packets();
        let child = fork(writer, |writer| {
            let mut writer = MessageWriter::new(writer);
            (0..50).for_each(|number| writer.send(&message(number, len)).unwrap());
            writer.close().unwrap();
        })
        .unwrap();
        let mut reader = MessageReader::new(reader);
        for number in 0..50 {
            assert_next(reader.recv(), &message(number, len));
        }
        assert_eq!(reader.recv().unwrap(), None);
        assert_eq!(exit_code(&child), 0);
    }
}

fn packets_of_a_pipe_are_read_to_the_end() {
    let lengths = || [4096, 1, 3000, 4095, 17, 4096, 4096, 2000].into_iter().cycle().take(100).enumerate();
    let start = || {
        let (reader, mut writer) = packets();
        let child = fork(writer.try_clone().unwrap(), |mut writer| {
            lengths().for_each(|(number, len)| writer.write_all(&text(number, len)).unwrap());
        });
        writer.flush().unwrap();
        (reader, child.unwrap())
    };
    let expected: Vec<u8> = lengths().flat_map(|(number, len)| text(number, len)).collect();
    for capacity in [0, 3, 4095, 5000, 1 << 20] {
        let (mut reader, child) = start();
        let mut all = Vec::with_capacity(capacity);
        all.extend_from_slice(b"was");
        assert_eq!(reader.read_to_end(&mut all).unwrap(), expected.len());
        assert_same(&all, &[b"was", &expected[..]].concat());
        assert_eq!(exit_code(&child), 0);
    }
    let (reader, child) = start();
    assert_same(std::io::read_to_string(Deadline::after(reader, LONG)).unwrap().as_bytes(), &expected);
    assert_eq!(exit_code(&child), 0);
    let (reader, child) = start();
    assert_same(std::io::read_to_string(reader).unwrap().as_bytes(), &expected);
    assert_eq!(exit_code(&child), 0);
}

/// Letters that can be told from each other.
fn text(number: usize, len: usize) -> Vec<u8> {
    message(number, len).iter().map(|byte| b'a' + byte % 26).collect()
}

fn reading_to_the_end_is_that_of_the_standard_library() {
    let reader_of = |bytes: &[u8]| {
        let (reader, mut writer) = pipe().unwrap();
        writer.set_capacity(1 << 20).unwrap();
        writer.write_all(bytes).unwrap();
        reader
    };
    for len in [0, 1, 31, 32, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000] {
        let bytes = message(1, len);
        for capacity in [0, 1, len, len + 1, len + 4096] {
            let (mut ours, mut theirs) = (Vec::with_capacity(capacity), b"x".to_vec());
            ours.push(b'x');
            assert_eq!(reader_of(&bytes).read_to_end(&mut ours).unwrap(), len);
            theirs.extend_from_slice(&bytes);
            assert_same(&ours, &theirs);
        }
        let mut string = "x".to_string();
        assert_eq!(reader_of(&text(1, len)).read_to_string(&mut string).unwrap(), len);
        assert_same(&string.as_bytes()[1..], &text(1, len));
    }
    // What is no text leaves the string as it was.
    let mut string = "before".to_string();
    let error = reader_of(b"abc\xff").read_to_string(&mut string).unwrap_err();
    assert_eq!((error.kind(), string.as_str()), (std::io::ErrorKind::InvalidData, "before"));
    // What was read before an error is kept.
    let (reader, mut writer) = ipc::pipe_with(ipc::PipeFlags::NONBLOCK).unwrap();
    writer.write_all(&text(2, 10_000)[..8000]).unwrap();
    let mut all = b"x".to_vec();
    let error = (&reader).read_to_end(&mut all).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert_same(&all[1..], &text(2, 10_000)[..8000]);
    writer.write_all(b"more").unwrap();
    let mut string = "and ".to_string();
    assert_eq!((&reader).read_to_string(&mut string).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(string, "and more");
}

fn a_pipe_is_made_larger_for_a_message_that_does_not_fit() {
    const USUAL: usize = 64 << 10;
    // The length of the message, what the pipe holds before, and what it holds afterwards.
    for (len, before, after) in [
        (9000, USUAL, USUAL),
        (USUAL - 4, USUAL, USUAL),
        (USUAL - 3, USUAL, 2 * USUAL),
        (2 * USUAL - 4, USUAL, 2 * USUAL),
        (2 * USUAL - 3, USUAL, USUAL),
        (1 << 20, USUAL, USUAL),
        (USUAL, 4096, 4096),
        (USUAL, USUAL / 2, USUAL / 2),
        (5 * USUAL, 4 * USUAL, 4 * USUAL),
    ] {
        let (reader, writer) = pipe().unwrap();
        writer.set_capacity(before).unwrap();
        let mut writer = MessageWriter::new(writer);
        writer.try_send(&message(1, len)).unwrap();
        assert_eq!(writer.get_ref().capacity().unwrap(), after, "{len} bytes into a pipe of {before}");
        drop(reader); // or dropping the writer would wait for it
    }
    // A reader who is late gets no more room to be late in.
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"\0\0\0\0").unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.try_send(&message(1, USUAL)).unwrap();
    assert_eq!(writer.get_ref().capacity().unwrap(), USUAL);
    drop(reader);
    // Whoever may not have more gets along with what there is.
    become_nobody();
    let (reader, writer) = pipe().unwrap();
    let _many = exhaust_pipe_pages();
    let child = fork(writer, |writer| {
        let mut writer = MessageWriter::new(writer);
        writer.send(&message(1, USUAL)).unwrap();
        assert_eq!(writer.get_ref().capacity().unwrap(), USUAL);
        writer.close().unwrap();
    })
    .unwrap();
    assert_next(MessageReader::new(reader).recv(), &message(1, USUAL));
    assert_eq!(exit_code(&child), 0);
}

fn messages_can_be_iterated_over() {
    let words = || [&b"one"[..], b"", b"three"].into_iter();
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    words().for_each(|word| writer.send(word).unwrap());
    writer.close().unwrap();
    let mut reader = MessageReader::new(reader);
    assert_eq!(reader.iter().next().unwrap().unwrap(), b"one");
    let mut rest = Vec::new();
    for message in &mut reader {
        rest.push(message.unwrap());
    }
    assert!(rest.iter().eq(words().skip(1).collect::<Vec<_>>()));
    assert!(reader.iter().next().is_none());

    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut socket = PackedSocket::new(socket);
        words().for_each(|word| socket.send(word).unwrap());
        socket.close().unwrap();
    })
    .unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    let all = socket.iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(all.iter().eq(words().collect::<Vec<_>>()));
    assert!((&mut socket).into_iter().next().is_none());
    assert_eq!((socket.recv_vec().unwrap(), socket.try_recv_vec().unwrap()), (None, None));
    assert_eq!(exit_code(&child), 0);
}

fn an_error_that_would_come_again_ends_an_iteration() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&[7; 2000]).unwrap();
    writer.flush().unwrap();
    let mut reader = MessageReader::new(reader);
    reader.set_max_message(1000);
    // The writer is there: an iteration that went on would never end.
    assert!(matches!(&reader.iter().collect::<Vec<_>>()[..], [Err(Error::TooLong { len: 2000, max: 1000 })]));
    assert_eq!(reader.iter().filter_map(Result::ok).count(), 0);
    reader.set_max_message(2000);
    writer.close().unwrap();
    assert!(matches!(&reader.iter().collect::<Vec<_>>()[..], [Ok(message)] if message.len() == 2000));

    // One after which the next message can be received ends nothing.
    let pair = datagram_pair().unwrap();
    pair.child.send(b"no pack").unwrap();
    pair.child.send(b"\x02\0\0\0ok").unwrap();
    drop(pair.child);
    let mut socket = PackedSocket::new(pair.parent);
    match &socket.iter().collect::<Vec<_>>()[..] {
        [Err(Error::Malformed { message }), Ok(next)] => {
            assert_eq!((&message[..], &next[..]), (&b"no pack"[..], &b"ok"[..]))
        }
        other => panic!("{other:?}"),
    }
}

fn what_waits_to_be_received_is_not_lost_with_the_wrapper() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"\x03\0\0\0one\x03\0\0\0tw").unwrap();
    let mut reader = MessageReader::new(reader);
    assert_eq!(reader.recv_vec().unwrap().unwrap(), b"one");
    let refused = reader.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Unread));
    let mut reader = refused.unflushed;
    writer.write_all(b"o").unwrap();
    assert_eq!(reader.recv_vec_timeout(LONG).unwrap().unwrap(), b"two");
    let mut bare = reader.into_inner().unwrap();
    writer.write_all(b"plain").unwrap();
    let mut plain = [0; 5];
    bare.read_exact(&mut plain).unwrap();
    assert_eq!(&plain, b"plain");
}
