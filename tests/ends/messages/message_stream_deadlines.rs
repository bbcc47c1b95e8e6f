//! Messages over streams that are no pipes: deadlines hold, whatever the peer does, and calls that do not wait change no flag.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::message_packets::packets;
use super::message_streams::{LONG, SHORT, Stream, ends, over_every_stream};
use crate::support::{
    self, Sigpipe, Trial, assert_same, assert_times_out, exit_code, message, read_all, read_some, sigpipe,
    status_flags, tcp_pair, with_interval_timer,
};
use ipc::{Deadline, Error, MessageReader, MessageWriter, StreamSocket, TimedRead, TimedWrite, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        deadlines_are_kept_across_signals within 60,
        a_message_that_comes_in_parts_has_one_deadline,
        a_peer_that_feeds_byte_by_byte_keeps_no_call needs [NoWait],
        a_reader_that_makes_room_bit_by_bit_keeps_no_call,
        the_try_calls_wait_for_nobody_and_change_no_flag,
        a_stream_that_never_waits_answers_would_block,
        a_timeout_of_the_stream_itself_loses_nothing,
        dropping_waits_for_a_second_at_most within 60,
        a_stream_of_the_standard_library_can_be_put_under_a_deadline,
    ]
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
