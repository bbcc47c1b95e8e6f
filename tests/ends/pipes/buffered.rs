//! Buffered ends: the right buffer, and no error lost.

use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::time::Duration;

use crate::support::{self, Sigpipe, Trial, assert_same, exit_code, fill, message, read_all, read_some, sigpipe};
use ipc::{BufferedWriter, Error, FlushError, PipeFlags, PipeReader, fork, pipe, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        lines_are_read_one_by_one,
        small_writes_go_together_in_8_kib,
        a_long_write_goes_past_the_buffer,
        everything_arrives_in_another_process,
        nothing_goes_before_it_is_flushed,
        closing_writes_the_rest,
        closing_tells_that_nobody_reads,
        closing_tells_that_there_is_no_room,
        the_writer_comes_back_flushed,
        what_could_not_be_written_comes_back,
        dropping_writes_the_rest,
        dropping_while_a_panic_unwinds_waits_for_nobody within 20,
        a_fork_writes_nothing_twice,
        an_end_that_was_not_given_says_so,
        what_is_buffered_can_be_seen,
    ]
}

const BUFFER: usize = 8 << 10;

fn lines_are_read_one_by_one() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let mut writer = BufferedWriter::new(writer);
        (0..10_000).for_each(|number| writeln!(writer, "line {number}").unwrap());
        writer.close().unwrap();
    })
    .unwrap();
    let reader = std::io::BufReader::new(reader);
    assert_eq!(reader.capacity(), BUFFER);
    for (number, line) in reader.lines().enumerate() {
        assert_eq!(line.unwrap(), format!("line {number}"));
    }
    assert_eq!(exit_code(&child), 0);
}

/// What is in the pipe now.
fn there(reader: &PipeReader) -> usize {
    reader.available().unwrap()
}

fn small_writes_go_together_in_8_kib() {
    for len in [1, 16, 64, 256, 1000, 1024] {
        let (reader, writer) = pipe().unwrap();
        let mut writer = BufferedWriter::new(writer);
        let fit = BUFFER / len;
        for number in 0..=fit {
            assert_eq!(there(&reader), 0, "after {number} of {len} bytes");
            writer.write_all(&message(number, len)).unwrap();
        }
        assert_eq!(there(&reader), fit * len);
        writer.close().unwrap();
        let expected: Vec<_> = (0..=fit).flat_map(|number| message(number, len)).collect();
        assert_same(&read_all(reader), &expected);
    }
}

fn a_long_write_goes_past_the_buffer() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"first").unwrap();
    // One call of the pipe's own, with its cut, after what waits.
    assert_eq!(writer.write(&message(1, 30_000)).unwrap(), BUFFER);
    assert_eq!(there(&reader), 5 + BUFFER);
    writer.write_all(&message(1, 30_000)[BUFFER..]).unwrap();
    assert_eq!(writer.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"last")]).unwrap(), 4);
    writer.close().unwrap();
    assert_same(&read_all(reader), &[b"first", message(1, 30_000).as_slice(), b"last"].concat());
}

fn everything_arrives_in_another_process() {
    let (reader, writer) = pipe().unwrap();
    let lengths = || (0..3000).map(|number| number * number % 20_011);
    let child = fork(writer, |writer| {
        let mut writer = BufferedWriter::new(writer);
        for (number, len) in lengths().enumerate() {
            writer.write_all(&message(number, len)).unwrap();
        }
        writer.close().unwrap();
    })
    .unwrap();
    let mut reader = std::io::BufReader::new(reader);
    for (number, len) in lengths().enumerate() {
        let mut buf = vec![0; len];
        reader.read_exact(&mut buf).unwrap();
        assert_same(&buf, &message(number, len));
    }
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(exit_code(&child), 0);
}

fn nothing_goes_before_it_is_flushed() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    for round in 0..3 {
        writer.write_all(&message(round, 100)).unwrap();
        assert_eq!(there(&reader), 0);
        writer.flush().unwrap();
        assert_same(&read_some(&reader, 100), &message(round, 100));
    }
}

fn closing_writes_the_rest() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"the rest").unwrap();
    writer.close().unwrap();
    assert_same(&read_all(reader), b"the rest");
}

fn closing_tells_that_nobody_reads() {
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        sigpipe(disposition);
        let (reader, writer) = pipe().unwrap();
        let mut writer = BufferedWriter::new(writer);
        writer.write_all(b"the rest").unwrap();
        drop(reader);
        assert!(matches!(writer.close(), Err(Error::Closed)));
        assert_eq!(ipc::open_ends(), 0);
        // Nothing waits: nothing is wrong.
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        BufferedWriter::new(writer).close().unwrap();
    }
}

/// A writer with something in its buffer, and no room for it.
fn without_room() -> (PipeReader, BufferedWriter, usize) {
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let filled = fill(&writer);
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(&message(0, 100)).unwrap();
    (reader, writer, filled)
}

fn closing_tells_that_there_is_no_room() {
    let (reader, writer, filled) = without_room();
    assert!(matches!(writer.close(), Err(Error::WouldBlock)));
    assert_eq!(ipc::open_ends(), 1);
    assert_eq!(read_all(reader).len(), filled);
}

fn the_writer_comes_back_flushed() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"buffered").unwrap();
    let writer = writer.into_inner().unwrap();
    writer.write_atomic(b" bare").unwrap();
    drop(writer);
    assert_same(&read_all(reader), b"buffered bare");
}

fn what_could_not_be_written_comes_back() {
    let (reader, mut writer, filled) = without_room();
    let error = writer.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let FlushError { unflushed, error } = writer.into_inner().unwrap_err();
    assert!(matches!(error, Error::WouldBlock), "{error:?}");
    read_some(&reader, filled);
    // It is all there, and goes now.
    let writer = unflushed.into_inner().unwrap();
    assert_same(&read_some(&reader, 100), &message(0, 100));
    drop(reader);
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"nobody").unwrap();
    let refused = writer.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Closed), "{:?}", refused.error);
}

fn dropping_writes_the_rest() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let mut writer = BufferedWriter::new(writer);
        writer.write_all(&message(0, 100)).unwrap();
    })
    .unwrap();
    assert_same(&read_all(reader), &message(0, 100));
    assert_eq!(exit_code(&child), 0);
}

fn dropping_while_a_panic_unwinds_waits_for_nobody() {
    for full in [false, true] {
        let (reader, writer) = pipe().unwrap();
        let filled = if full { fill(&writer) } else { 0 };
        let mut writer = BufferedWriter::new(writer);
        writer.write_all(b"the rest").unwrap();
        support::panics(|| {
            let _writer = writer;
            panic!("on purpose");
        });
        // What there is room for is written all the same.
        let read = read_all(reader);
        assert_same(&read[filled..], if full { b"" } else { b"the rest" });
    }
}

fn a_fork_writes_nothing_twice() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"once").unwrap();
    // The closure takes it along, and the child drops it.
    let mut held = Some(writer);
    let child = fork((), |()| drop(held.take())).unwrap();
    assert_eq!(exit_code(&child), 0);
    held.take().unwrap().close().unwrap();
    assert_same(&read_all(reader), b"once");
}

fn an_end_that_was_not_given_says_so() {
    let (_reader, writer) = pipe().unwrap();
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"waits").unwrap();
    let child = fork((), |()| {
        let error = writer.flush().unwrap_err();
        assert!(matches!(error.into(), Error::NotGiven));
        assert!(matches!(writer.close(), Err(Error::NotGiven)));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn what_is_buffered_can_be_seen() {
    let (reader, writer) = pipe().unwrap();
    let text = format!("{writer:?}");
    let mut writer = BufferedWriter::new(writer);
    writer.write_all(b"hello").unwrap();
    assert_eq!(format!("{writer:?}"), format!("BufferedWriter {{ writer: {text}, unflushed: 5 }}"));
    assert!(!writer.get_ref().is_closed().unwrap());
    assert!(matches!(reader.read_timeout(&mut [0; 8], Duration::ZERO), Err(Error::TimedOut)));
}
