//! Where the kernel refuses to read or write a pipe without waiting, another way stands in, and nothing is different: short
//! writes go in whole or not at all, nothing is lost or doubled, and no descriptor stays behind (P6).

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{
    self, RWF_NOWAIT, Trial, asleep_in, become_nobody, exhaust_pipe_pages, exit_code, fill, kinds, limit_descriptors,
    read_all, read_some, refuse_flags, refused, spliced_once, with_interval_timer,
};
use ipc::{Error, PIPE_BUF, PipeReader, PipeWriter, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        the_kinds_need_another_way needs [NoWait],
        try_calls_answer_the_same_on_every_kind,
        a_short_write_goes_in_whole_or_not_at_all_on_every_kind,
        a_short_write_needs_no_more_than_a_page_on_every_kind,
        a_long_write_goes_in_as_far_as_there_is_room_on_every_kind,
        reads_of_any_length_get_what_is_there_on_every_kind,
        records_of_several_writers_never_mix_on_every_kind,
        nothing_is_lost_or_doubled_on_every_kind within 60,
        an_older_kernel_makes_no_difference within 60,
        a_splice_while_we_wait_to_read_makes_no_difference,
        a_splice_while_we_wait_to_write_makes_no_difference,
        a_full_table_refuses_the_other_way_to_write_and_loses_nothing,
        what_is_open_both_ways_is_read_and_lends_no_memory,
        small_pipes_are_enough_for_the_other_way_to_write needs [Alone],
        the_other_way_to_write_holds_nothing_that_a_program_would_inherit,
        the_other_way_to_write_leaves_the_standard_descriptors_free,
    ]
}

/// A byte that its place in the stream gives away.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

fn the_kinds_need_another_way() {
    use std::os::fd::AsRawFd;
    for (kind, reader, _writer) in kinds() {
        let mut byte = 0_u8;
        let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: one part with room for one byte.
        let result = unsafe { libc::preadv2(reader.as_raw_fd(), &part, 1, -1, RWF_NOWAIT as i32) };
        assert_eq!(result, -1, "{kind}");
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
        let refused = kind.contains("spliced") || kind.contains("FIFO");
        if refused {
            assert_eq!(errno, libc::EOPNOTSUPP, "{kind}");
        }
    }
}

fn try_calls_answer_the_same_on_every_kind() {
    for (kind, reader, writer) in kinds() {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)), "{kind}");
        assert_eq!(writer.try_write(b"abcdef").unwrap(), 6, "{kind}");
        assert_eq!(reader.available().unwrap(), 6, "{kind}");
        let mut buf = [0; 4];
        assert_eq!(reader.try_read(&mut buf).unwrap(), 4, "{kind}");
        assert_eq!(&buf, b"abcd", "{kind}");
        assert_eq!(reader.read_timeout(&mut buf, Duration::ZERO).unwrap(), 2, "{kind}");
        assert_eq!(&buf[..2], b"ef", "{kind}");
        assert_eq!(reader.try_read(&mut []).unwrap(), 0, "{kind}");
        assert_eq!(writer.try_write(&[]).unwrap(), 0, "{kind}");
        fill(&writer);
        assert!(matches!(writer.try_write(b"x"), Err(Error::WouldBlock)), "{kind}");
        drop(reader);
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)), "{kind}");
        assert!(matches!(writer.write_timeout(b"x", Duration::MAX), Err(Error::Closed)), "{kind}");
    }
    for (kind, reader, writer) in kinds() {
        assert_eq!(writer.try_write(b"x").unwrap(), 1, "{kind}");
        drop(writer);
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1, "{kind}");
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0, "{kind}");
        assert_eq!(reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 0, "{kind}");
    }
}

fn a_short_write_goes_in_whole_or_not_at_all_on_every_kind() {
    for (kind, reader, mut writer) in kinds() {
        // All pages but one are full, and that one has 100 bytes of room.
        for _ in 1..writer.capacity().unwrap() / PIPE_BUF {
            writer.write_all(&[1; PIPE_BUF]).unwrap();
        }
        writer.write_all(&[1; PIPE_BUF - 100]).unwrap();
        let queued = reader.available().unwrap();
        for len in [101, 1000, 4095, PIPE_BUF] {
            assert!(matches!(writer.try_write(&vec![2; len]), Err(Error::WouldBlock)), "{kind}, {len} bytes");
            let late = writer.write_timeout(&vec![2; len], Duration::from_millis(1));
            assert!(matches!(late, Err(Error::TimedOut)), "{kind}, {len} bytes");
            assert_eq!(reader.available().unwrap(), queued, "{kind}, {len} bytes");
        }
    }
}

fn a_short_write_needs_no_more_than_a_page_on_every_kind() {
    for (kind, reader, writer) in kinds() {
        let queued = fill(&writer);
        // None of them has room in the page of the one before it.
        for len in [PIPE_BUF, 4095, 100, PIPE_BUF] {
            read_some(&reader, PIPE_BUF);
            assert_eq!(writer.try_write(&vec![2; len]).unwrap(), len, "{kind}");
            assert!(matches!(writer.try_write(&[2; PIPE_BUF]), Err(Error::WouldBlock)), "{kind}");
        }
        assert_eq!(reader.available().unwrap(), queued - 2 * PIPE_BUF + 4095 + 100, "{kind}");
    }
}

fn a_long_write_goes_in_as_far_as_there_is_room_on_every_kind() {
    for (kind, reader, mut writer) in kinds() {
        writer.set_max_write(usize::MAX);
        let capacity = writer.capacity().unwrap();
        let data: Vec<u8> = (0..2 * capacity).map(byte_at).collect();
        let mut written = 0;
        while let Ok(len) = writer.try_write(&data[written..]) {
            assert!(len > 0, "{kind}");
            written += len;
        }
        assert_eq!(written, capacity, "{kind}");
        drop(writer);
        assert!(read_all(reader) == data[..capacity], "{kind}");
    }
}

fn reads_of_any_length_get_what_is_there_on_every_kind() {
    for (kind, reader, mut writer) in kinds() {
        let data: Vec<u8> = (0..60_000).map(byte_at).collect();
        writer.write_all(&data).unwrap();
        let mut place = 0;
        for len in [1, 2, 4095, 4097, 1, 20_000, 100_000] {
            let mut buf = vec![0; len];
            let read = reader.try_read(&mut buf).unwrap();
            assert!(read > 0 && buf[..read] == data[place..][..read], "{kind}, {len} bytes");
            assert!(buf[read..].iter().all(|byte| *byte == 0), "{kind}, {len} bytes: no more than it says");
            place += read;
        }
        while let Ok(read) = reader.try_read(&mut [0; 8192]) {
            place += read;
        }
        assert_eq!(place, data.len(), "{kind}");
    }
}

fn records_of_several_writers_never_mix_on_every_kind() {
    const RECORDS: usize = 200;
    for (kind, reader, writer) in kinds() {
        writer.set_capacity(2 * PIPE_BUF).unwrap(); // nearly full all the time
        let children = [1, 2, 3_u8].map(|id| {
            let writer = writer.try_clone().unwrap();
            let write = move |writer: PipeWriter| {
                for number in 0..RECORDS {
                    let body = vec![id; 1 + number * 977 % (PIPE_BUF - 2)];
                    let record = [&(body.len() as u16).to_le_bytes()[..], &body].concat();
                    assert_eq!(writer.write_timeout(&record, Duration::MAX).unwrap(), record.len());
                }
            };
            fork(writer, write).unwrap()
        });
        drop(writer);
        let mut reader = WithDeadlines(reader);
        let mut length = [0; 2];
        let mut count = 0;
        while reader.read(&mut length[..1]).unwrap() == 1 {
            reader.read_exact(&mut length[1..]).unwrap();
            let mut body = vec![0; usize::from(u16::from_le_bytes(length))];
            reader.read_exact(&mut body).unwrap();
            assert!(body.iter().all(|byte| *byte == body[0]), "{kind}: record {count} is of one writer");
            count += 1;
        }
        assert_eq!(count, 3 * RECORDS, "{kind}");
        assert!(children.iter().all(|child| exit_code(child) == 0), "{kind}");
    }
}

/// Reads by the calls that do not wait in `read`.
struct WithDeadlines(PipeReader);

impl Read for WithDeadlines {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        Ok(self.0.read_timeout(buf, Duration::MAX)?)
    }
}

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

const STREAM: usize = 2 << 20;

/// Writes the stream in pieces of any length, by every call.
fn write_stream(mut writer: PipeWriter) {
    let mut random = Random(1);
    let mut place = 0;
    while place < STREAM {
        writer.set_max_write(if random.below(2) == 0 { usize::MAX } else { 8192 });
        let len = 1 + random.below((STREAM - place).min(20_000));
        let data: Vec<u8> = (place..place + len).map(byte_at).collect();
        let written = match random.below(3) {
            0 => writer.try_write(&data),
            1 => writer.write_timeout(&data, Duration::from_micros(random.below(2000) as u64)),
            _ => writer.write(&data).map_err(Error::from),
        };
        match written {
            Ok(written) => place += written,
            Err(Error::WouldBlock | Error::TimedOut) => {}
            Err(error) => panic!("after {place} bytes: {error:?}"),
        }
    }
}

/// Reads and checks the stream, in the same manner.
fn read_stream(kind: &str, mut reader: PipeReader) {
    let mut random = Random(2);
    let mut place = 0;
    loop {
        let mut buf = vec![0; 1 + random.below(20_000)];
        let read = match random.below(3) {
            0 => reader.try_read(&mut buf),
            1 => reader.read_timeout(&mut buf, Duration::from_micros(random.below(2000) as u64)),
            _ => reader.read(&mut buf).map_err(Error::from),
        };
        match read {
            Ok(0) => break,
            Ok(read) => {
                let right = buf[..read].iter().enumerate().all(|(i, byte)| *byte == byte_at(place + i));
                assert!(right, "{kind}: {read} bytes from {place} on");
                place += read;
            }
            Err(Error::WouldBlock | Error::TimedOut) => {}
            Err(error) => panic!("{kind}, after {place} bytes: {error:?}"),
        }
    }
    assert_eq!(place, STREAM, "{kind}");
}

fn assert_streams_pass() {
    for (kind, reader, writer) in kinds() {
        let period = Duration::from_millis(1);
        let child = fork(writer, |writer| with_interval_timer(period, || write_stream(writer))).unwrap();
        with_interval_timer(period, || read_stream(kind, reader));
        assert_eq!(exit_code(&child), 0, "{kind}");
    }
}

fn nothing_is_lost_or_doubled_on_every_kind() {
    assert_streams_pass();
}

fn an_older_kernel_makes_no_difference() {
    refuse_flags(RWF_NOWAIT);
    try_calls_answer_the_same_on_every_kind();
    a_short_write_goes_in_whole_or_not_at_all_on_every_kind();
    a_short_write_needs_no_more_than_a_page_on_every_kind();
    a_long_write_goes_in_as_far_as_there_is_room_on_every_kind();
    reads_of_any_length_get_what_is_there_on_every_kind();
    assert_streams_pass();
}

fn a_splice_while_we_wait_to_read_makes_no_difference() {
    let (reader, mut writer) = pipe().unwrap();
    let other = reader.try_clone().unwrap();
    let child = fork(reader, |reader| {
        let mut buf = [0; 8];
        assert_eq!(reader.read_timeout(&mut buf, Duration::MAX).unwrap(), 3);
        assert_eq!(&buf[..3], b"abc");
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    spliced_once(&other);
    writer.write_all(b"abc").unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_splice_while_we_wait_to_write_makes_no_difference() {
    let (reader, writer) = pipe().unwrap();
    let other = writer.try_clone().unwrap();
    fill(&writer);
    let child = fork(writer, |writer| {
        assert_eq!(writer.write_timeout(b"abc", Duration::MAX).unwrap(), 3);
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    spliced_once(&other);
    drop(other);
    read_some(&reader, PIPE_BUF);
    assert_eq!(exit_code(&child), 0);
    assert!(read_all(reader).ends_with(b"abc"));
}

fn a_full_table_refuses_the_other_way_to_write_and_loses_nothing() {
    let (reader, mut writer) = pipe().unwrap();
    spliced_once(&reader);
    spliced_once(&writer);
    for free in [0, 1] {
        let full = limit_descriptors(free);
        assert_eq!(refused(writer.try_write(b"abc")).1, libc::EMFILE);
        assert_eq!(refused(writer.write_timeout(b"abc", Duration::MAX)).1, libc::EMFILE);
        assert_eq!(reader.available().unwrap(), 0);
        // Reading, and writing that waits, need no descriptor.
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        writer.write_all(b"abc").unwrap();
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 3);
        drop(full);
    }
    let _full = limit_descriptors(2);
    assert_eq!(writer.try_write(b"abc").unwrap(), 3);
}

/// The library's pipe ends are made of any descriptor, and ours of the library's.
fn what_is_open_both_ways_is_read_and_lends_no_memory() {
    use std::os::fd::{AsRawFd, OwnedFd};
    let (fifo, _writer) = support::named_fifo();
    let both = std::fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fifo.as_raw_fd()));
    let reader = PipeReader::from(std::io::PipeReader::from(OwnedFd::from(both.unwrap())));
    let mut buf = [7; 8];
    assert!(matches!(reader.try_read(&mut buf), Err(Error::WouldBlock)));
    assert_eq!((reader.available().unwrap(), buf), (0, [7; 8]));
    let mut writer = std::fs::File::from(OwnedFd::from(reader.try_clone().unwrap()));
    writer.write_all(b"abc").unwrap();
    assert_eq!((reader.try_read(&mut buf).unwrap(), &buf[..3]), (3, &b"abc"[..]));
}

fn small_pipes_are_enough_for_the_other_way_to_write() {
    let kinds = kinds();
    become_nobody();
    let _many = exhaust_pipe_pages();
    for (kind, reader, writer) in kinds {
        let data: Vec<u8> = (0..PIPE_BUF).map(byte_at).collect();
        assert_eq!(writer.try_write(&data).unwrap(), PIPE_BUF, "{kind}");
        assert_eq!(read_some(&reader, PIPE_BUF), data, "{kind}");
        assert!(writer.try_write(&[1; 8192]).unwrap() > 0, "{kind}");
    }
}

fn the_other_way_to_write_holds_nothing_that_a_program_would_inherit() {
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    spliced_once(&writer);
    let inheritable = |pid: u32| {
        let numbers = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().map(|entry| entry.unwrap().path());
        let mut inheritable: Vec<_> = numbers
            .filter(|path| {
                let info = std::fs::read_to_string(path).unwrap_or_default();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0");
                i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC == 0
            })
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        inheritable.sort();
        inheritable
    };
    let child = fork(writer, |writer| writer.write_timeout(&[1], Duration::MAX).unwrap() as u8).unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    // What this process was started with, and no more.
    assert_eq!(inheritable(child.id()), inheritable(std::process::id()));
    read_some(&reader, PIPE_BUF);
    assert_eq!(exit_code(&child), 1);
}

fn the_other_way_to_write_leaves_the_standard_descriptors_free() {
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    spliced_once(&writer);
    let child = fork(writer, |writer| {
        // SAFETY: nothing in Rust owns these three.
        (0..=2).for_each(|number| _ = unsafe { libc::close(number) });
        writer.write_timeout(&[1], Duration::MAX).unwrap() as u8
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    for number in 0..=2 {
        let there = std::fs::read_link(format!("/proc/{}/fd/{number}", child.id()));
        assert!(there.is_err(), "whoever reads or prints there would meet {there:?}");
    }
    read_some(&reader, PIPE_BUF);
    assert_eq!(exit_code(&child), 1);
}
