//! Rings in shared memory keep every promise that pipes keep: EOF and death are seen, deadlines are kept, nothing leaks, and
//! what was written arrives.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::ptr::null_mut;

use super::ring_forks::mappings;
use crate::support::{
    self, FAR, Gate, Inventory, Sigpipe, Trial, asleep_in, bytes, exit_code, limit_descriptors, refused, sigpipe,
};
use ipc::{Child, Error, RingReader, RingWriter, fork, open_ends, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_arrive_whole_and_in_order within 120,
        what_write_took_can_be_read_when_it_returns,
        eof_comes_after_everything_that_was_written,
        eof_comes_when_the_writer_is_killed,
        a_writer_that_leaves_before_its_hello_is_eof,
        a_clone_of_the_socket_does_not_keep_eof_from_coming_after_a_drop,
        writing_to_a_reader_that_left_is_an_error_and_no_signal,
        the_next_write_says_that_the_reader_left_whether_it_looked_or_not,
        a_writer_learns_of_a_killed_reader_when_it_asks_and_when_it_is_full,
        closing_says_that_all_is_well,
        vectored_calls_take_and_fill_all_slices,
        slices_that_are_longer_than_memory_together_fill_the_ring,
        empty_buffers_do_nothing,
        capacities_are_powers_of_two_of_pages,
        a_ring_that_is_too_large_gives_the_socket_back,
        a_ring_that_no_file_may_hold_gives_the_socket_back,
        a_reader_takes_no_more_memory_than_it_agreed_to,
        a_ring_takes_one_descriptor_and_counts_as_one_end,
        a_full_table_is_an_error_and_loses_nothing,
        rings_by_the_thousand_leave_nothing within 120,
    ]
}

/// A child that has one side of a ring, and the other side here.
#[track_caller]
pub(super) fn with_reader(child: impl FnOnce(RingReader)) -> (RingWriter, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| child(RingReader::new(socket).unwrap())).unwrap();
    (RingWriter::new(pair.parent).unwrap(), child)
}

#[track_caller]
pub(super) fn with_writer(child: impl FnOnce(RingWriter)) -> (RingReader, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| child(RingWriter::new(socket).unwrap())).unwrap();
    (RingReader::new(pair.parent).unwrap(), child)
}

/// Both sides in this process, for what needs no other.
#[track_caller]
pub(super) fn alone(capacity: usize) -> (RingReader, RingWriter) {
    let pair = stream_pair().unwrap();
    (RingReader::new(pair.parent).unwrap(), RingWriter::with_capacity(pair.child, capacity).unwrap())
}

#[track_caller]
pub(super) fn read_to_end(ring: &mut RingReader) -> Vec<u8> {
    let mut data = Vec::new();
    ring.read_to_end(&mut data).unwrap();
    data
}

#[track_caller]
pub(super) fn fill(ring: &mut RingWriter) -> usize {
    let mut written = 0;
    loop {
        match ring.try_write(&[1; 1000]) {
            Ok(count) => written += count,
            Err(Error::WouldBlock) => return written,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn bytes_arrive_whole_and_in_order() {
    for capacity in [1, 64 << 10, 1 << 20] {
        for len in [1, 13, 4096, 70_001, 300_000] {
            let pair = stream_pair().unwrap();
            let total = bytes((len * 10).max(200_000));
            let child = fork(pair.child, |socket| {
                let mut ring = RingWriter::with_capacity(socket, capacity).unwrap();
                for piece in total.chunks(len) {
                    ring.write_all(piece).unwrap();
                }
            });
            let mut ring = RingReader::new(pair.parent).unwrap();
            let (mut read, mut buf) = (Vec::new(), vec![0; len + 7]);
            loop {
                match ring.read(&mut buf).unwrap() {
                    0 => break,
                    count => read.extend_from_slice(&buf[..count]),
                }
            }
            assert!(read == total, "pieces of {len} through {capacity}");
            assert_eq!(exit_code(&child.unwrap()), 0);
        }
    }
}

fn what_write_took_can_be_read_when_it_returns() {
    let (mut reader, mut writer) = alone(4096);
    for number in 1..=200 {
        assert_eq!(writer.write(&[number; 61]).unwrap(), 61);
        assert_eq!(reader.available().unwrap(), 61);
        let mut buf = [0; 100];
        assert_eq!(reader.try_read(&mut buf).unwrap(), 61);
        assert_eq!(buf[..61], [number; 61]);
        assert!(matches!(reader.try_read(&mut buf), Err(Error::WouldBlock)));
    }
}

fn eof_comes_after_everything_that_was_written() {
    let (mut reader, child) = with_writer(|mut ring| {
        ring.write_all(&bytes(100_000)).unwrap();
        ring.close().unwrap();
    });
    assert_eq!(exit_code(&child), 0);
    assert_eq!(reader.available().unwrap(), 100_000);
    assert!(read_to_end(&mut reader) == bytes(100_000));
    for _ in 0..3 {
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(reader.read_timeout(&mut [0; 8], FAR).unwrap(), 0);
        assert_eq!(reader.available().unwrap(), 0);
    }
}

fn eof_comes_when_the_writer_is_killed() {
    let written = Gate::new();
    let (mut reader, child) = with_writer(|mut ring| {
        ring.write_all(&bytes(100_000)).unwrap();
        written.open();
        Gate::new().pass();
    });
    written.pass();
    child.kill().unwrap();
    assert!(read_to_end(&mut reader) == bytes(100_000));
    child.wait().unwrap();
    // And one that is asleep at the time.
    let (mut reader, child) = with_writer(|mut ring| {
        ring.write_all(b"x").unwrap();
        Gate::new().pass();
    });
    reader.read_exact(&mut [0]).unwrap();
    let killer = fork((), |()| {
        asleep_in(parent(), &[libc::SYS_recvfrom, libc::SYS_recvmsg]);
        child.kill().unwrap();
    });
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    child.wait().unwrap();
    assert_eq!(exit_code(&killer.unwrap()), 0);
}

pub(super) fn parent() -> u32 {
    // SAFETY: no conditions.
    unsafe { libc::getppid() as u32 }
}

fn a_writer_that_leaves_before_its_hello_is_eof() {
    let pair = stream_pair().unwrap();
    let mut ring = RingReader::new(pair.child).unwrap();
    assert!(matches!(ring.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    assert_eq!(ring.available().unwrap(), 0);
    drop(pair.parent);
    assert_eq!(ring.available().unwrap(), 0);
    assert_eq!(ring.try_read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(ring.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(wait_any(&mut [ring.watch()], None).unwrap(), 1);
    // Or with bytes of ours that it has not read.
    let pair = stream_pair().unwrap();
    (&pair.child).write_all(b"?").unwrap();
    let mut ring = RingReader::new(pair.child).unwrap();
    drop(pair.parent);
    assert_eq!(ring.read(&mut [0; 8]).unwrap(), 0);
}

fn a_clone_of_the_socket_does_not_keep_eof_from_coming_after_a_drop() {
    let pair = stream_pair().unwrap();
    let _kept = pair.child.try_clone().unwrap();
    let (mut reader, mut writer) = (RingReader::new(pair.parent).unwrap(), RingWriter::new(pair.child).unwrap());
    writer.write_all(b"last").unwrap();
    drop(writer);
    assert_eq!(read_to_end(&mut reader), b"last");
    // The other way round: nobody can read from a ring whose reader was dropped.
    let pair = stream_pair().unwrap();
    let _kept = pair.parent.try_clone().unwrap();
    let (mut reader, mut writer) = (RingReader::new(pair.parent).unwrap(), RingWriter::new(pair.child).unwrap());
    assert_eq!(reader.available().unwrap(), 0);
    drop(reader);
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    assert!(writer.is_closed().unwrap());
}

fn writing_to_a_reader_that_left_is_an_error_and_no_signal() {
    for disposition in [Sigpipe::Default, Sigpipe::Ignore] {
        sigpipe(disposition);
        // With the memory taken, with a reader that never looked, with bytes unread, and full.
        for (looks, len) in [(true, 0), (false, 0), (true, 10), (false, 10), (true, 256 << 10)] {
            let gate = Gate::new();
            let (mut writer, child) = with_reader(|mut ring| {
                gate.pass();
                if looks {
                    let _ = ring.try_read(&mut [0; 1]);
                }
            });
            assert!(!writer.is_closed().unwrap());
            writer.write_all(&bytes(len)).unwrap();
            gate.open();
            assert_eq!(exit_code(&child), 0);
            assert!(writer.is_closed().unwrap(), "{looks} {len}");
            let mut result = writer.write_all(&bytes(300_000));
            for _ in 0..3 {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
                result = writer.write_all(&bytes(300_000));
            }
            writer.close().unwrap();
        }
    }
}

fn the_next_write_says_that_the_reader_left_whether_it_looked_or_not() {
    for (looks, closes) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut reader, mut writer) = alone(4096);
        writer.write_all(b"xy").unwrap();
        if looks {
            reader.read_exact(&mut [0]).unwrap();
        }
        if closes {
            reader.close().unwrap()
        } else {
            drop(reader)
        }
        assert_eq!(writer.write(b"z").unwrap_err().kind(), ErrorKind::BrokenPipe, "{looks} {closes}");
    }
    // A copy of a reader that has not looked yet takes nothing from it.
    let (mut reader, mut writer) = alone(4096);
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            drop(reader);
            // SAFETY: no conditions.
            unsafe { libc::_exit(0) }
        }
        pid => {
            // SAFETY: a child of this process, and nobody else waits for it.
            assert_eq!(unsafe { libc::waitpid(pid, null_mut(), 0) }, pid);
            writer.write_all(b"x").unwrap();
            assert_eq!(reader.read(&mut [0; 2]).unwrap(), 1);
        }
    }
}

fn a_writer_learns_of_a_killed_reader_when_it_asks_and_when_it_is_full() {
    let ready = Gate::new();
    let (mut writer, child) = with_reader(|mut ring| {
        ring.read_exact(&mut [0]).unwrap();
        ready.open();
        Gate::new().pass();
    });
    writer.write_all(b"x").unwrap();
    ready.pass();
    assert!(!writer.is_closed().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(writer.is_closed().unwrap());
    let error = writer.write_all(&bytes(600_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    assert!(matches!(writer.write_timeout(b"x", FAR), Err(Error::Closed)));
}

fn closing_says_that_all_is_well() {
    let (reader, writer) = alone(1);
    reader.close().unwrap();
    writer.close().unwrap();
    let (reader, writer) = alone(1);
    writer.close().unwrap();
    reader.close().unwrap();
}

fn vectored_calls_take_and_fill_all_slices() {
    let (mut reader, mut writer) = alone(4096);
    let empty = [IoSlice::new(b""), IoSlice::new(b"")];
    assert_eq!(writer.write_vectored(&empty).unwrap(), 0);
    let slices = [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
    assert_eq!(writer.write_vectored(&slices).unwrap(), 5);
    let (mut one, mut two, mut three) = ([0; 1], [0; 0], [0; 10]);
    let mut slices = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two), IoSliceMut::new(&mut three)];
    assert_eq!(reader.read_vectored(&mut slices).unwrap(), 5);
    assert_eq!((&one, &three[..4]), (b"a", &b"bcde"[..]));
    // As much as there is room for.
    let large = [0; 3000];
    assert_eq!(writer.write_vectored(&[IoSlice::new(&large), IoSlice::new(&large)]).unwrap(), 4096);
    let mut large = [0; 5000];
    assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut large)]).unwrap(), 4096);
    drop(writer);
    assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut large)]).unwrap(), 0);
}

fn slices_that_are_longer_than_memory_together_fill_the_ring() {
    const LEN: usize = 1 << (usize::BITS - 18);
    // SAFETY: a new mapping of zeroes, which are read and not written, and which stays.
    let zeroes: &'static [u8] = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = libc::mmap(null_mut(), LEN, libc::PROT_READ, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        std::slice::from_raw_parts(start.cast(), LEN)
    };
    let many = vec![IoSlice::new(zeroes); 1 << 18];
    let (mut reader, mut writer) = alone(4096);
    assert_eq!(writer.write_vectored(&many).unwrap(), 4096);
    assert_eq!(reader.available().unwrap(), 4096);
}

fn empty_buffers_do_nothing() {
    let (mut reader, mut writer) = alone(4096);
    fill(&mut writer);
    assert_eq!(writer.write(&[]).unwrap(), 0);
    assert_eq!(writer.try_write(&[]).unwrap(), 0);
    reader.read_exact(&mut [0; 4096]).unwrap();
    assert_eq!(reader.read(&mut []).unwrap(), 0);
    assert_eq!(reader.try_read(&mut []).unwrap(), 0);
    assert_eq!(reader.read_vectored(&mut []).unwrap(), 0);
    writer.flush().unwrap();
}

fn capacities_are_powers_of_two_of_pages() {
    // SAFETY: no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for (asked, got) in [(0, page), (1, page), (page, page), (page + 1, 2 * page), (3 << 20, 4 << 20)] {
        let (_reader, writer) = alone(asked);
        assert_eq!(writer.capacity(), got);
    }
    let pair = stream_pair().unwrap();
    assert_eq!(RingWriter::new(pair.parent).unwrap().capacity(), 256 << 10);
}

fn a_ring_that_is_too_large_gives_the_socket_back() {
    let mut pair = stream_pair().unwrap();
    for bytes in [(1 << 30) + 1, usize::MAX] {
        let refused = RingWriter::with_capacity(pair.parent, bytes).unwrap_err();
        assert!(matches!(refused.error, Error::InvalidInput { .. }), "{refused:?}");
        pair.parent = refused.socket;
    }
    pair.parent.write_all(b"x").unwrap();
    pair.child.read_exact(&mut [0]).unwrap();
    // And a peer that is gone is an error at once.
    drop(pair.child);
    let refused = RingWriter::new(pair.parent).unwrap_err();
    assert!(matches!(refused.error, Error::Closed));
    assert!(matches!(Error::from(refused), Error::Closed));
}

fn a_ring_that_no_file_may_hold_gives_the_socket_back() {
    let mut pair = stream_pair().unwrap();
    crate::support::limit(libc::RLIMIT_FSIZE, |_| 8192);
    for bytes in [1 << 16, 1 << 30] {
        let refused = RingWriter::with_capacity(pair.parent, bytes).unwrap_err();
        let Error::System { call: "fallocate", source } = &refused.error else { panic!("{refused:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EFBIG));
        pair.parent = refused.socket;
    }
    pair.parent.write_all(b"x").unwrap();
}

fn a_reader_takes_no_more_memory_than_it_agreed_to() {
    let (mut reader, mut writer) = alone(128 << 20);
    writer.write_all(b"x").unwrap();
    for _ in 0..3 {
        let error = reader.read_timeout(&mut [0; 8], FAR).unwrap_err();
        assert!(matches!(error, Error::TooLong { len, max } if len == 128 << 20 && max == 64 << 20), "{error:?}");
    }
    assert!(reader.available().is_err());
    assert!(writer.is_closed().unwrap(), "the writer is told at once");
    drop(reader);
    let (mut reader, mut writer) = alone(8192);
    reader.set_max_capacity(8191);
    writer.write_all(b"x").unwrap();
    assert!(matches!(reader.available(), Err(Error::TooLong { len: 8192, max: 8191 })));
    let (mut reader, mut writer) = alone(128 << 20);
    reader.set_max_capacity(usize::MAX);
    writer.write_all(b"x").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
}

fn a_ring_takes_one_descriptor_and_counts_as_one_end() {
    let pair = stream_pair().unwrap();
    let before = Inventory::take();
    let (mut reader, mut writer) = (RingReader::new(pair.parent).unwrap(), RingWriter::new(pair.child).unwrap());
    writer.write_all(b"x").unwrap();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(before.compare(&Inventory::take()), None);
    assert_eq!(open_ends(), 2);
    assert!(format!("{reader:?} {writer:?}").starts_with("RingReader { socket: StreamSocket("));
}

fn a_full_table_is_an_error_and_loses_nothing() {
    let pair = stream_pair().unwrap();
    let full = limit_descriptors(0);
    let refused_ring = RingWriter::new(pair.child).unwrap_err();
    assert_eq!(refused::<()>(Err(refused_ring.error)), ("memfd_create", libc::EMFILE));
    drop(full);
    let mut writer = RingWriter::new(refused_ring.socket).unwrap();
    writer.write_all(b"x").unwrap();
    let full = limit_descriptors(0);
    let mut reader = RingReader::new(pair.parent).unwrap();
    for _ in 0..2 {
        assert_eq!(refused(reader.try_read(&mut [0; 8])).1, libc::EMFILE);
    }
    drop(full);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1);
}

fn rings_by_the_thousand_leave_nothing() {
    let before = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    for number in 0..support::rounds(1000) {
        let (mut reader, mut writer) = alone(4096);
        writer.write_all(b"x").unwrap();
        match number % 3 {
            0 => assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1),
            1 => drop(reader),
            _ => drop(writer),
        }
    }
    assert_eq!(mappings(), 0);
    let after = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(after <= before + 10, "{before} mappings, and then {after}");
}
