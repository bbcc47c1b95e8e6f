//! Messages over a ring: as over every other stream, each arrives whole and in order, deadlines hold, and a peer that has gone
//! is seen after all that it sent.

use std::io::Write;
use std::time::Duration;

use super::rings::alone;
use crate::support::{
    self, FAR, Gate, Trial, assert_all_arrive, assert_ends_are_told, assert_next, assert_same, assert_times_out,
    exit_code, message,
};
use ipc::{Error, MessageReader, MessageWriter, RingReader, RingWriter, fork, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_arrive_whole_and_in_order,
        a_ring_that_ends_inside_a_message_says_so_wherever_it_ends,
        a_writer_that_is_killed_is_seen_after_all_that_it_sent,
        a_reader_that_has_gone_is_closed,
        hostile_lengths_take_no_memory,
        a_message_that_is_begun_is_taken_and_never_torn,
        a_message_that_comes_in_parts_has_one_deadline,
        messages_that_a_child_has_copies_of_go_once,
    ]
}

fn ends(capacity: usize) -> (MessageReader<RingReader>, MessageWriter<RingWriter>) {
    let (reader, writer) = alone(capacity);
    (MessageReader::new(reader), MessageWriter::new(writer))
}

fn messages_arrive_whole_and_in_order() {
    for capacity in [4096, 256 << 10] {
        // Around the sizes of a long message, of a batch, and of either ring.
        let mut lengths = vec![0, 1, 2, 0, 0, 4095, 4096, 3, 8 << 20, 0];
        for edge in [2 << 10, 4 << 10, 16 << 10, 256 << 10] {
            lengths.extend((0..20).map(|less| edge + 10 - less));
        }
        lengths.extend((0..support::rounds(600) as usize).map(|number| number * number % 4099));
        let pair = stream_pair().unwrap();
        let child = fork(pair.child, |socket| {
            let mut writer = MessageWriter::new(RingWriter::with_capacity(socket, capacity).unwrap());
            lengths.iter().enumerate().for_each(|(number, len)| writer.send(&message(number, *len)).unwrap());
            writer.close().unwrap();
        })
        .unwrap();
        let mut reader = MessageReader::new(RingReader::new(pair.parent).unwrap());
        assert_all_arrive(&mut reader, &lengths);
        assert_eq!(exit_code(&child), 0);
        reader.close().unwrap();
    }
}

fn a_ring_that_ends_inside_a_message_says_so_wherever_it_ends() {
    assert_ends_are_told(|bytes| {
        let (reader, mut writer) = alone(4096);
        writer.write_all(bytes).unwrap();
        reader
    });
}

fn a_writer_that_is_killed_is_seen_after_all_that_it_sent() {
    let (pair, gate) = (stream_pair().unwrap(), Gate::new());
    let child = fork(pair.child, |socket| {
        let mut writer = MessageWriter::new(RingWriter::with_capacity(socket, 64 << 10).unwrap());
        writer.send(b"last words").unwrap();
        writer.send(&message(1, 30_000)).unwrap();
        // It fills the ring, and nobody reads.
        writer.send_timeout(&message(2, 100_000), Duration::ZERO).unwrap();
        gate.open();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut reader = MessageReader::new(RingReader::new(pair.parent).unwrap());
    assert_eq!(reader.recv().unwrap(), Some(&b"last words"[..]));
    assert_next(reader.recv(), &message(1, 30_000));
    let Err(Error::Truncated { message: part, expected: Some(100_000) }) = reader.recv_vec() else {
        panic!("a part of it came")
    };
    assert!(part.len() > 30_000, "{} bytes", part.len());
    assert_same(&part, &message(2, 100_000)[..part.len()]);
    assert_eq!(reader.recv().unwrap(), None);
}

fn a_reader_that_has_gone_is_closed() {
    for is_killed in [false, true] {
        let (pair, read) = (stream_pair().unwrap(), Gate::new());
        let child = fork(pair.child, |socket| {
            let mut reader = MessageReader::new(RingReader::new(socket).unwrap());
            assert_next(reader.recv(), b"one");
            read.open();
            if is_killed {
                loop {
                    std::thread::park();
                }
            }
        })
        .unwrap();
        let mut writer = MessageWriter::new(RingWriter::new(pair.parent).unwrap());
        writer.send(b"one").unwrap();
        writer.flush().unwrap();
        read.pass();
        if is_killed {
            child.kill().unwrap();
        }
        assert_eq!(child.wait().unwrap().success(), !is_killed);
        let lost = (0..100).find_map(|_| writer.send(&[1; 20_000]).err());
        assert!(matches!(lost, Some(Error::Closed)), "{lost:?}");
        assert!(matches!(writer.send(b""), Err(Error::Closed)));
        assert!(matches!(writer.try_send(&[1; 100_000]), Err(Error::Closed)));
        assert!(matches!(writer.send_timeout(b"x", FAR), Err(Error::Closed)));
        assert!(matches!(writer.flush(), Err(Error::Closed)));
        writer.into_inner().unwrap();
    }
}

fn hostile_lengths_take_no_memory() {
    for length in [u64::MAX, u64::MAX - 11, 1 << 63, 1 << 40] {
        let (reader, mut writer) = alone(4096);
        writer.write_all(&[&[0xff; 4][..], &length.to_le_bytes(), &[7; 1000]].concat()).unwrap();
        let mut reader = MessageReader::new(reader);
        assert!(matches!(reader.recv(), Err(Error::TooLong { max: 0x400_0000, .. })));
        assert!(reader.has_message(), "the answer is there");
        reader.set_max_message(usize::MAX);
        assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)));
        drop(writer);
        match reader.recv() {
            Err(Error::Truncated { message, expected: Some(expected) }) => {
                assert_eq!((message, expected), (vec![7; 1000], length));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_message_that_is_begun_is_taken_and_never_torn() {
    let (mut reader, mut writer) = ends(4096);
    let mut sent = vec![message(1, 50_000)];
    writer.send_timeout(&sent[0], Duration::ZERO).unwrap();
    // The ring is full of it. What comes after it waits behind its rest, or is refused.
    for number in 2..100 {
        match writer.try_send(&message(number, 1000)) {
            Ok(()) => sent.push(message(number, 1000)),
            Err(Error::WouldBlock) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
    }
    assert_times_out("send", Duration::from_millis(10), |timeout| writer.send_timeout(&[1; 20_000], timeout));
    assert_times_out("flush", Duration::from_millis(10), |timeout| writer.flush_timeout(timeout));
    sent.iter().for_each(|expected| {
        loop {
            match reader.try_recv() {
                Ok(message) => break assert_same(message.unwrap(), expected),
                Err(Error::WouldBlock) => drop(writer.try_flush()),
                Err(other) => panic!("{other:?}"),
            }
        }
    });
    writer.close().unwrap();
    assert_eq!(reader.recv().unwrap(), None);
}

fn a_message_that_comes_in_parts_has_one_deadline() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut ring = RingWriter::with_capacity(socket, 4096).unwrap();
        ring.write_all(b"\xff\xff\xff\x03").unwrap();
        // A byte at a time: there is always something, and never all of it.
        while ring.write_all(b"x").is_ok() {}
    })
    .unwrap();
    let mut reader = MessageReader::new(RingReader::new(pair.parent).unwrap());
    assert_times_out("recv", Duration::from_millis(50), |timeout| reader.recv_timeout(timeout).map(drop));
    drop(reader);
    assert_eq!(exit_code(&child), 0);
}

/// The buffer is copied by a fork. The ring is not, so that the copy can go nowhere.
fn messages_that_a_child_has_copies_of_go_once() {
    let (mut reader, mut writer) = ends(4096);
    (0..5_u8).for_each(|number| writer.send(&[number]).unwrap());
    let mut writer = Some(writer);
    let child = fork((), |()| {
        let mut copy = writer.take().unwrap();
        assert!(matches!(copy.flush(), Err(Error::NotGiven)));
        drop(copy);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)), "the child has sent nothing, and ended nothing");
    writer.unwrap().close().unwrap();
    for number in 0..5_u8 {
        assert_next(reader.recv(), &[number]);
    }
    assert_eq!(reader.recv().unwrap(), None);
}
