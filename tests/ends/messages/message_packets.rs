//! Pipes of packets, and pipes that are too small for a message: each arrives whole.

use std::io::{Read, Write};

use super::message_streams::LONG;
use crate::support::{self, Trial, assert_next, assert_same, become_nobody, exhaust_pipe_pages, exit_code, message};
use ipc::{Deadline, MessageReader, MessageWriter, PipeReader, PipeWriter, fork, pipe};
use rustix::pipe::{PipeFlags, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        packets_of_a_pipe_arrive_whole within 60,
        packets_of_a_pipe_are_read_to_the_end,
        reading_to_the_end_is_that_of_the_standard_library within 60,
        // It uses up what one user's pipes may have.
        a_pipe_is_made_larger_for_a_message_that_does_not_fit needs [Alone],
    ]
}

/// A pipe of packets, as `dd oflag=direct` makes one of its standard output.
pub(super) fn packets() -> (PipeReader, PipeWriter) {
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
