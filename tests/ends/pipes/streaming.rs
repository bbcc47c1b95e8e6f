//! Pipes as streams: the end arrives when the last writer is gone, wherever it was, and not before; reading and writing
//! wait and are woken; short writes stay in one piece.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use crate::support::{self, Gate, Trial, asleep_in, exit_code, fill, has_nowait, poll_until, read_all};
use ipc::{Error, PIPE_BUF, PipeReader, PipeWriter, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        eof_arrives_when_the_last_writer_is_dropped,
        a_vector_that_cannot_be_doubled_loses_nothing,
        eof_arrives_when_the_writer_is_closed,
        eof_does_not_arrive_while_a_clone_is_left,
        eof_arrives_when_the_process_with_the_writer_leaves,
        eof_arrives_when_the_process_with_the_writer_is_killed,
        eof_waits_for_the_last_of_several_processes,
        what_was_written_is_read_before_the_end,
        a_read_blocks_until_there_is_something,
        a_read_blocks_until_the_end,
        a_vectored_read_blocks_until_there_is_something,
        a_full_pipe_blocks_and_a_read_wakes_the_writer,
        a_writer_that_waits_is_told_when_the_last_reader_goes,
        everything_passes_in_order_between_two_processes,
        a_try_write_up_to_pipe_buf_goes_in_whole_or_not_at_all,
        a_longer_try_write_goes_in_as_far_as_there_is_room,
        room_is_counted_in_pages,
        write_atomic_refuses_what_is_too_long_and_writes_nothing,
        write_atomic_waits_until_all_of_it_fits,
        records_of_several_writers_never_mix,
        is_closed_tells_when_no_reader_is_left,
        is_closed_tells_of_a_killed_reader,
        both_ends_work_by_reference,
    ]
}

fn a_vector_that_cannot_be_doubled_loses_nothing() {
    const ROOM: usize = 64 << 20;
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |mut writer| {
        let piece = vec![7; 1 << 20];
        (0..ROOM / piece.len()).try_for_each(|_| writer.write_all(&piece))?;
        writer.write_all(b"and more")
    });
    let mut all = Vec::with_capacity(ROOM);
    support::limit(libc::RLIMIT_AS, |_| (support::own_size() + (32 << 20)) as libc::rlim_t);
    let read = reader.read_to_end(&mut all);
    support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
    assert_eq!(read.unwrap(), ROOM + 8);
    assert!(all.ends_with(b"and more"));
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn eof_arrives_when_the_last_writer_is_dropped() {
    let (mut reader, writer) = pipe().unwrap();
    let clone = writer.try_clone().unwrap();
    drop(writer);
    drop(clone);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "and every time");
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(reader.read_timeout(&mut [0; 8], Duration::ZERO).unwrap(), 0);
    assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]).unwrap(), 0);
}

fn eof_arrives_when_the_writer_is_closed() {
    let (mut reader, writer) = pipe().unwrap();
    writer.close().unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

fn eof_does_not_arrive_while_a_clone_is_left() {
    let (reader, writer) = pipe().unwrap();
    let clone = writer.try_clone().unwrap();
    drop(writer);
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    drop(clone);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
}

fn eof_arrives_when_the_process_with_the_writer_leaves() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |mut writer| writer.write_all(b"all of it")).unwrap();
    assert_eq!(read_all(reader), b"all of it");
    assert_eq!(exit_code(&child), 0);
}

fn eof_arrives_when_the_process_with_the_writer_is_killed() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |mut writer| {
        writer.write_all(b"so far").unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let mut text = [0; 6];
    reader.read_exact(&mut text).unwrap();
    child.kill().unwrap();
    assert_eq!(read_all(reader), b"");
    assert!(!child.wait().unwrap().success());
}

fn eof_waits_for_the_last_of_several_processes() {
    let (reader, writer) = pipe().unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let gate = Gate::new();
            let writer = writer.try_clone().unwrap();
            let child = fork(writer, |_writer| gate.pass()).unwrap();
            (gate, child)
        })
        .collect();
    drop(writer);
    for (gate, child) in children {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)), "one writer is left");
        gate.open();
        assert_eq!(exit_code(&child), 0);
    }
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
}

fn what_was_written_is_read_before_the_end() {
    let (mut reader, mut writer) = pipe().unwrap();
    writer.write_all(b"last words").unwrap();
    drop(writer);
    let mut some = [0; 5];
    reader.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"last ");
    assert_eq!(read_all(reader), b"words");
}

fn a_read_blocks_until_there_is_something() {
    let (reader, mut writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| {
        let mut byte = [0];
        assert_eq!(reader.read(&mut byte).unwrap(), 1);
        byte[0]
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_read]);
    writer.write_all(&[42]).unwrap();
    assert_eq!(exit_code(&child), 42);
}

fn a_read_blocks_until_the_end() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0; 8]).unwrap() as u8).unwrap();
    asleep_in(child.id(), &[libc::SYS_read]);
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn a_vectored_read_blocks_until_there_is_something() {
    let (reader, mut writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| {
        let (mut first, mut second) = ([0; 2], [0; 2]);
        let len = reader.read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]).unwrap();
        assert_eq!((len, first, second), (3, [1, 2], [3, 0]));
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_readv]);
    writer.write_all(&[1, 2, 3]).unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_full_pipe_blocks_and_a_read_wakes_the_writer() {
    let (mut reader, writer) = pipe().unwrap();
    let full = fill(&writer);
    let child = fork(writer, |mut writer| writer.write_all(b"the last")).unwrap();
    asleep_in(child.id(), &[libc::SYS_write, libc::SYS_pwritev2]);
    let mut page = [0; PIPE_BUF];
    reader.read_exact(&mut page).unwrap();
    assert_eq!(exit_code(&child), 0);
    let rest = read_all(reader);
    assert_eq!(rest.len(), full - PIPE_BUF + 8);
    assert!(rest.ends_with(b"the last"));
}

fn a_writer_that_waits_is_told_when_the_last_reader_goes() {
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let child = fork(writer, |mut writer| {
        assert_eq!(writer.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_write, libc::SYS_pwritev2]);
    drop(reader);
    assert_eq!(exit_code(&child), 0);
}

fn everything_passes_in_order_between_two_processes() {
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    for cut in [1000, 8192, usize::MAX] {
        let (reader, mut writer) = pipe().unwrap();
        writer.set_max_write(cut);
        let child = fork(writer, |mut writer| writer.write_all(&data)).unwrap();
        assert!(read_all(reader) == data, "with a cut of {cut}");
        assert_eq!(exit_code(&child), 0);
    }
}

/// A pipe with exactly so many bytes of room in its last page, and what is in it.
fn with_room(bytes: usize) -> (PipeReader, PipeWriter, usize) {
    let (reader, writer) = pipe().unwrap();
    let mut queued = 0;
    for _ in 0..writer.capacity().unwrap() / PIPE_BUF - 1 {
        queued += writer.try_write(&[1; PIPE_BUF]).unwrap();
    }
    queued += writer.try_write(&[1; PIPE_BUF][bytes..]).unwrap();
    assert_eq!(queued + bytes, writer.capacity().unwrap());
    (reader, writer, queued)
}

fn a_try_write_up_to_pipe_buf_goes_in_whole_or_not_at_all() {
    let (reader, writer, queued) = with_room(100);
    for len in [101, 1000, 4095, PIPE_BUF] {
        assert!(matches!(writer.try_write(&vec![2; len]), Err(Error::WouldBlock)), "{len} bytes");
        let late = writer.write_timeout(&vec![2; len], Duration::from_millis(1));
        assert!(matches!(late, Err(Error::TimedOut)), "{len} bytes");
        assert_eq!(reader.available().unwrap(), queued, "{len} bytes");
    }
    // What stands in on an older kernel needs a page of its own.
    if has_nowait() {
        assert_eq!(writer.try_write(&[2; 100]).unwrap(), 100);
    }
    assert!(matches!(writer.try_write(&[2]), Err(Error::WouldBlock)));
}

fn a_longer_try_write_goes_in_as_far_as_there_is_room() {
    let (reader, mut writer) = pipe().unwrap();
    writer.set_max_write(usize::MAX);
    let capacity = writer.capacity().unwrap();
    assert_eq!(writer.try_write(&vec![1; capacity + 1]).unwrap(), capacity);
    assert!(matches!(writer.try_write(&vec![1; capacity + 1]), Err(Error::WouldBlock)));
    assert_eq!(reader.available().unwrap(), capacity);
}

fn room_is_counted_in_pages() {
    let (mut reader, writer) = pipe().unwrap();
    fill(&writer);
    reader.read_exact(&mut [0; PIPE_BUF - 1]).unwrap();
    assert!(matches!(writer.try_write(&[1]), Err(Error::WouldBlock)));
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(writer.try_write(&[1]).unwrap(), 1);
}

fn write_atomic_refuses_what_is_too_long_and_writes_nothing() {
    let (reader, writer) = pipe().unwrap();
    for len in [PIPE_BUF + 1, 100_000] {
        let refused = writer.write_atomic(&vec![1; len]);
        assert!(matches!(refused, Err(Error::TooLong { len: l, max: PIPE_BUF }) if l == len), "{refused:?}");
        assert_eq!(reader.available().unwrap(), 0);
    }
    writer.write_atomic(&[1; PIPE_BUF]).unwrap();
    assert_eq!(reader.available().unwrap(), PIPE_BUF);
    writer.write_atomic(&[]).unwrap();
    assert_eq!(reader.available().unwrap(), PIPE_BUF);
}

fn write_atomic_waits_until_all_of_it_fits() {
    let (mut reader, writer, queued) = with_room(100);
    let child = fork(writer, |writer| writer.write_atomic(&[2; 101])).unwrap();
    asleep_in(child.id(), &[libc::SYS_write, libc::SYS_pwritev2]);
    assert_eq!(reader.available().unwrap(), queued, "nothing of it is in yet");
    reader.read_exact(&mut [0; PIPE_BUF]).unwrap();
    assert_eq!(exit_code(&child), 0);
    assert!(read_all(reader).ends_with(&[2; 101]));
}

fn records_of_several_writers_never_mix() {
    const WRITERS: u8 = 4;
    const RECORDS: usize = 500;
    let (mut reader, writer) = pipe().unwrap();
    writer.set_capacity(PIPE_BUF).unwrap(); // always nearly full
    let children: Vec<_> = (0..WRITERS)
        .map(|id| {
            let mut writer = writer.try_clone().unwrap();
            writer.set_max_write(7); // which does not go for atomic ones
            fork(writer, move |writer| {
                for number in 0..RECORDS {
                    // Its length, whose it is, and that again for all of it.
                    let len = 3 + number * 977 % (PIPE_BUF - 2);
                    let mut record = vec![id; len];
                    record[..2].copy_from_slice(&(len as u16).to_le_bytes());
                    writer.write_atomic(&record).unwrap();
                }
            })
            .unwrap()
        })
        .collect();
    drop(writer);
    let mut count = 0;
    let mut len = [0; 2];
    while reader.read(&mut len[..1]).unwrap() == 1 {
        reader.read_exact(&mut len[1..]).unwrap();
        let mut rest = vec![0; usize::from(u16::from_le_bytes(len)) - 2];
        reader.read_exact(&mut rest).unwrap();
        assert!(rest[0] < WRITERS && rest.iter().all(|byte| *byte == rest[0]), "record {count} is of one writer");
        count += 1;
    }
    assert_eq!(count, usize::from(WRITERS) * RECORDS);
    assert!(children.iter().all(|child| exit_code(child) == 0));
}

fn is_closed_tells_when_no_reader_is_left() {
    let (reader, writer) = pipe().unwrap();
    let clone = reader.try_clone().unwrap();
    assert!(!writer.is_closed().unwrap());
    drop(reader);
    assert!(!writer.is_closed().unwrap(), "a clone is left");
    fill(&writer);
    assert!(!writer.is_closed().unwrap(), "full is not closed");
    drop(clone);
    assert!(writer.is_closed().unwrap());
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
}

fn is_closed_tells_of_a_killed_reader() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |_reader| {
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    assert!(!writer.is_closed().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    poll_until("the reader is gone", || writer.is_closed().unwrap());
}

fn both_ends_work_by_reference() {
    let (reader, writer) = pipe().unwrap();
    (&writer).write_all(b"by reference").unwrap();
    assert_eq!((&writer).write_vectored(&[IoSlice::new(b", "), IoSlice::new(b"twice")]).unwrap(), 7);
    (&writer).flush().unwrap();
    drop(writer);
    let mut text = String::new();
    (&reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "by reference, twice");
    let mut byte = [0];
    assert_eq!((&reader).read_vectored(&mut [IoSliceMut::new(&mut byte)]).unwrap(), 0);
}
