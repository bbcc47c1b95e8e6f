//! Rings in shared memory keep every promise that pipes keep: EOF and death are seen, deadlines are kept, nothing leaks, and
//! what was written arrives.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::time::Duration;

use crate::support::{
    self, FAR, Gate, Inventory, Sigpipe, Trial, asleep_in, assert_times_out, bytes, exit_code, handled,
    limit_descriptors, poll_until, refused, sigpipe, with_interval_timer,
};
use ipc::{
    Child, Command, Error, Fork, Forked, Ready, RingReader, RingWriter, StreamSocket, Watch, datagram_pair, fork,
    fork_raw, open_ends, stream_pair, wait_any,
};

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
        a_full_ring_and_an_empty_one_would_block,
        deadlines_are_kept,
        deadlines_are_kept_before_the_hello,
        deadlines_are_kept_across_signals,
        a_blocked_reader_sleeps_and_is_woken,
        a_blocked_writer_sleeps_and_is_woken,
        a_socket_that_never_waits_is_not_waited_for,
        vectored_calls_take_and_fill_all_slices,
        slices_that_are_longer_than_memory_together_fill_the_ring,
        empty_buffers_do_nothing,
        capacities_are_powers_of_two_of_pages,
        a_ring_that_is_too_large_gives_the_socket_back,
        a_reader_takes_no_more_memory_than_it_agreed_to,
        a_ring_takes_one_descriptor_and_counts_as_one_end,
        a_full_table_is_an_error_and_loses_nothing,
        waiting_for_a_ring_and_others,
        a_watched_writer_is_ready_when_there_is_room,
        a_watch_does_not_miss_what_came_before,
        rings_that_nobody_waited_for_wake_nobody,
        a_socket_travels_and_becomes_a_ring,
        a_captured_ring_is_not_given,
        a_ring_that_was_copied_by_a_raw_fork_is_not_given,
        a_ring_that_a_child_drops_goes_on,
        a_severed_socket_becomes_no_ring,
        a_child_makes_rings_of_its_own,
        rings_by_the_thousand_leave_nothing within 120,
        spinning_changes_no_answer,
    ]
}

/// A child that has one side of a ring, and the other side here.
#[track_caller]
fn with_reader(child: impl FnOnce(RingReader)) -> (RingWriter, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| child(RingReader::new(socket).unwrap())).unwrap();
    (RingWriter::new(pair.parent).unwrap(), child)
}

#[track_caller]
fn with_writer(child: impl FnOnce(RingWriter)) -> (RingReader, Child) {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| child(RingWriter::new(socket).unwrap())).unwrap();
    (RingReader::new(pair.parent).unwrap(), child)
}

/// Both sides in this process, for what needs no other.
#[track_caller]
fn alone(capacity: usize) -> (RingReader, RingWriter) {
    let pair = stream_pair().unwrap();
    (RingReader::new(pair.parent).unwrap(), RingWriter::with_capacity(pair.child, capacity).unwrap())
}

#[track_caller]
fn read_to_end(ring: &mut RingReader) -> Vec<u8> {
    let mut data = Vec::new();
    ring.read_to_end(&mut data).unwrap();
    data
}

#[track_caller]
fn fill(ring: &mut RingWriter) -> usize {
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
            let total = bytes((len * 20).max(500_000));
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

fn parent() -> u32 {
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

fn a_full_ring_and_an_empty_one_would_block() {
    let (mut reader, mut writer) = alone(8192);
    for _ in 0..5 {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        assert_eq!(fill(&mut writer), 8192);
        assert!(matches!(writer.try_write(&[0]), Err(Error::WouldBlock)));
        // A byte of room is room, and what does not fit does not go.
        assert_eq!(reader.try_read(&mut [0; 5]).unwrap(), 5);
        assert_eq!(writer.try_write(&[0; 100]).unwrap(), 5);
        assert_eq!(reader.try_read(&mut [0; 10_000]).unwrap(), 8192);
    }
}

fn deadlines_are_kept() {
    let (mut reader, mut writer) = alone(4096);
    for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
        reader.set_spin(spin);
        writer.set_spin(spin);
        for timeout in [Duration::ZERO, Duration::from_millis(5)] {
            assert_times_out("read", timeout, |timeout| reader.read_timeout(&mut [0; 8], timeout));
        }
        fill(&mut writer);
        for timeout in [Duration::ZERO, Duration::from_millis(5)] {
            assert_times_out("write", timeout, |timeout| writer.write_timeout(&[0; 8], timeout));
        }
        assert_eq!(reader.read_timeout(&mut [0; 8192], Duration::ZERO).unwrap(), 4096);
        assert_eq!(writer.write_timeout(&[0; 8], Duration::ZERO).unwrap(), 8);
        assert_eq!(reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 8);
    }
}

fn deadlines_are_kept_before_the_hello() {
    let pair = stream_pair().unwrap();
    let mut ring = RingReader::new(pair.parent).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        assert_times_out("read", timeout, |timeout| ring.read_timeout(&mut [0; 8], timeout));
    }
    let mut writer = RingWriter::new(pair.child).unwrap();
    assert_times_out("read", Duration::from_millis(5), |timeout| ring.read_timeout(&mut [0; 8], timeout));
    writer.write_all(b"late").unwrap();
    assert_eq!(ring.read_timeout(&mut [0; 8], Duration::ZERO).unwrap(), 4);
}

fn deadlines_are_kept_across_signals() {
    let (mut reader, mut writer) = alone(4096);
    fill(&mut writer);
    with_interval_timer(Duration::from_micros(500), || {
        assert_times_out("write", Duration::from_millis(30), |timeout| writer.write_timeout(&[0; 8], timeout));
        reader.read_exact(&mut [0; 4096]).unwrap();
        assert_times_out("read", Duration::from_millis(30), |timeout| reader.read_timeout(&mut [0; 8], timeout));
    });
    assert!(handled() > 10);
    // And a call without a deadline goes on.
    let (mut reader, child) = with_writer(|mut ring| {
        asleep_in(parent(), &[libc::SYS_recvfrom]);
        asleep_in(parent(), &[libc::SYS_recvfrom]);
        ring.write_all(&bytes(1_000_000)).unwrap();
    });
    let data = with_interval_timer(Duration::from_micros(300), || read_to_end(&mut reader));
    assert!(data == bytes(1_000_000));
    assert_eq!(exit_code(&child), 0);
}

fn a_blocked_reader_sleeps_and_is_woken() {
    let (mut reader, child) = with_writer(|mut ring| {
        for number in 0..20 {
            asleep_in(parent(), &[libc::SYS_recvfrom, libc::SYS_ppoll]);
            ring.write_all(&[number]).unwrap();
        }
    });
    for number in 0..20 {
        let mut byte = [0];
        if number % 2 == 0 {
            reader.read_exact(&mut byte).unwrap();
        } else {
            assert_eq!(reader.read_timeout(&mut byte, FAR).unwrap(), 1);
        }
        assert_eq!(byte, [number]);
    }
    assert_eq!(exit_code(&child), 0);
}

fn a_blocked_writer_sleeps_and_is_woken() {
    let (mut writer, child) = with_reader(|mut ring| {
        for _ in 0..20 {
            asleep_in(parent(), &[libc::SYS_recvfrom, libc::SYS_ppoll]);
            ring.read_exact(&mut [0; 10]).unwrap();
        }
        // A parent that was woken and has not run yet counts as asleep, so it may still have to write.
        std::io::copy(&mut ring, &mut std::io::sink()).unwrap();
    });
    let full = fill(&mut writer);
    assert_eq!(full, writer.capacity());
    for number in 0..20 {
        if number % 2 == 0 {
            writer.write_all(&[0; 10]).unwrap();
        } else {
            assert_eq!(writer.write_timeout(&[0; 10], FAR).unwrap(), 10);
        }
    }
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn a_socket_that_never_waits_is_not_waited_for() {
    let pair = stream_pair().unwrap();
    for socket in [&pair.parent, &pair.child] {
        // SAFETY: an open descriptor and a number.
        assert_eq!(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    }
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut writer = RingWriter::with_capacity(pair.child, 1).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    fill(&mut writer);
    assert_eq!(writer.write(&[0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // A deadline is waited for all the same.
    assert_times_out("write", Duration::from_millis(5), |timeout| writer.write_timeout(&[0; 8], timeout));
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

fn waiting_for_a_ring_and_others() {
    let go = Gate::new();
    let (mut reader, child) = with_writer(|mut ring| {
        for _ in 0..10 {
            go.pass();
            ring.write_all(b"x").unwrap();
        }
    });
    let (quiet, _keep) = ipc::pipe().unwrap();
    for _ in 0..10 {
        // Nothing, and it sleeps through the time.
        poll_until("nothing is there", || {
            wait_any(&mut [Watch::readable(&quiet), reader.watch()], Some(Duration::ZERO)).unwrap() == 0
        });
        go.open();
        let mut on = [Watch::readable(&quiet), reader.watch()];
        assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
        assert!(on[0].ready().is_empty() && on[1].ready().contains(Ready::READ));
        poll_until("a byte is there", || match reader.try_read(&mut [0; 8]) {
            Ok(count) => {
                assert_eq!(count, 1);
                true
            }
            Err(Error::WouldBlock) => false, // the hello came
            Err(error) => panic!("{error:?}"),
        });
    }
    assert_eq!(exit_code(&child), 0);
    let mut on = [reader.watch()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert!(on[0].ready().contains(Ready::READ));
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
}

fn a_watched_writer_is_ready_when_there_is_room() {
    let go = Gate::new();
    let (mut writer, child) = with_reader(|mut ring| {
        for _ in 0..10 {
            go.pass();
            ring.read_exact(&mut [0; 100]).unwrap();
        }
        go.pass();
    });
    assert_eq!(wait_any(&mut [writer.watch()], None).unwrap(), 1);
    fill(&mut writer);
    for _ in 0..10 {
        assert_eq!(wait_any(&mut [writer.watch()], Some(Duration::ZERO)).unwrap(), 0);
        go.open();
        let mut on = [writer.watch()];
        assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
        assert_eq!(on[0].ready(), Ready::WRITE);
        assert_eq!(writer.try_write(&[0; 100]).unwrap(), 100);
    }
    go.open();
    let mut on = [writer.watch()];
    assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
    assert!(on[0].ready().contains(Ready::WRITE));
    assert_eq!(exit_code(&child), 0);
    assert!(matches!(writer.try_write(&[0; 100]), Err(Error::Closed)));
}

fn a_watch_does_not_miss_what_came_before() {
    let (mut reader, mut writer) = alone(4096);
    assert_eq!(reader.available().unwrap(), 0);
    for _ in 0..1000 {
        let _ = reader.watch();
        writer.write_all(b"x").unwrap();
        assert_eq!(wait_any(&mut [reader.watch()], None).unwrap(), 1);
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1);
    }
    // Armed when it was written to, and by another process.
    let (mut reader, child) = with_writer(|mut ring| (0..1000).for_each(|_| ring.write_all(b"x").unwrap()));
    let mut read = 0;
    while read < 1000 {
        assert_eq!(wait_any(&mut [reader.watch()], Some(FAR)).unwrap(), 1);
        match reader.try_read(&mut [0; 3]) {
            Ok(count) => read += count,
            Err(Error::WouldBlock) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(exit_code(&child), 0);
}

fn rings_that_nobody_waited_for_wake_nobody() {
    let (mut reader, mut writer) = alone(4096);
    for _ in 0..100 {
        // Each watch arms, and each write rings.
        let _ = reader.watch();
        writer.write_all(b"x").unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    }
    assert_eq!(wait_any(&mut [reader.watch()], Some(Duration::ZERO)).unwrap(), 0);
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
}

fn a_socket_travels_and_becomes_a_ring() {
    // By exec.
    let pair = stream_pair().unwrap();
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me).args(["worker", "ring"]).give("ring", pair.child).spawn().unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&bytes(1 << 20)).unwrap();
    drop(ring);
    assert_eq!(exit_code(&child), 0);
    // In a message, with the hello under way before anybody holds the other end.
    let messages = datagram_pair().unwrap();
    let child = fork(messages.child, |messages| {
        let socket: StreamSocket = messages.recv_with(&mut Vec::new()).unwrap().unwrap().take().unwrap();
        assert!(read_to_end(&mut RingReader::new(socket).unwrap()) == bytes(100_000));
    });
    let pair = stream_pair().unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&bytes(100_000)).unwrap();
    messages.parent.send_with(b"", pair.child).unwrap();
    ring.close().unwrap();
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// That every call says that it is not given.
#[track_caller]
fn assert_not_given(reader: &mut RingReader, writer: &mut RingWriter) {
    let not_given = |result: ipc::Result<usize>| assert!(matches!(result, Err(Error::NotGiven)), "{result:?}");
    let read = reader.read(&mut [0; 8]).map_err(Error::from);
    let write = writer.write(&[0; 8]).map_err(Error::from);
    not_given(read);
    not_given(write);
    not_given(reader.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]).map_err(Error::from));
    not_given(writer.write_vectored(&[IoSlice::new(&[0; 8])]).map_err(Error::from));
    not_given(reader.try_read(&mut [0; 8]));
    not_given(writer.try_write(&[0; 8]));
    not_given(reader.read_timeout(&mut [0; 8], FAR));
    not_given(writer.write_timeout(&[0; 8], FAR));
    not_given(reader.available());
    not_given(writer.is_closed().map(usize::from));
    // Ready at once, or refused as any end that was severed.
    for watch in [reader.watch(), writer.watch()] {
        assert!(matches!(wait_any(&mut [watch], Some(FAR)), Ok(1) | Err(Error::NotGiven)));
    }
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("memfd:ipc-ring")).count()
}

fn a_captured_ring_is_not_given() {
    let (mut reader, mut writer) = alone(4096);
    writer.write_all(b"before").unwrap();
    reader.read_exact(&mut [0; 1]).unwrap();
    assert!(mappings() > 0);
    for fork in [Fork::new(), Fork::new().keep_all_ends()] {
        let child = fork.spawn((), |()| {
            assert_eq!(mappings(), 0, "a child does not have the memory");
            assert_not_given(&mut reader, &mut writer);
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    let mut data = [0; 5];
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"efore");
    writer.write_all(b"after").unwrap();
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"after");
}

#[allow(unsafe_code)]
fn a_ring_that_was_copied_by_a_raw_fork_is_not_given() {
    let (mut reader, mut writer) = alone(4096);
    writer.write_all(b"x").unwrap();
    assert_eq!(reader.available().unwrap(), 1);
    // SAFETY: the child leaves with exit, below.
    match unsafe { fork_raw() }.unwrap() {
        Forked::Child => {
            assert_not_given(&mut reader, &mut writer);
            assert!(matches!(writer.close(), Err(Error::NotGiven)));
            drop(reader);
            std::process::exit(0);
        }
        Forked::Parent(child) => assert_eq!(exit_code(&child), 0),
        #[allow(unreachable_patterns)]
        _ => unreachable!(),
    }
    assert!(!writer.is_closed().unwrap());
    writer.write_all(b"y").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 2);
    // Forked by somebody who knows nothing of this crate.
    // SAFETY: the child leaves with exit, below.
    match unsafe { libc::fork() } {
        0 => {
            assert_not_given(&mut reader, &mut writer);
            drop((reader, writer));
            std::process::exit(0);
        }
        pid => {
            let mut status = 0;
            // SAFETY: a child, and room for its status.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0);
        }
    }
    writer.write_all(b"z").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
}

fn a_ring_that_a_child_drops_goes_on() {
    let (reader, writer) = alone(4096);
    let (mut reader, mut writer) = (Some(reader), Some(writer));
    writer.as_mut().unwrap().write_all(b"x").unwrap();
    assert_eq!(reader.as_mut().unwrap().available().unwrap(), 1);
    for fork in [Fork::new(), Fork::new().keep_all_ends()] {
        let child = fork.spawn((), |()| drop((reader.take(), writer.take())));
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    assert!(!writer.as_ref().unwrap().is_closed().unwrap());
    assert!(matches!(reader.as_mut().unwrap().read(&mut [0; 8]), Ok(1)));
    assert!(matches!(reader.as_mut().unwrap().try_read(&mut [0; 8]), Err(Error::WouldBlock)));
}

fn a_severed_socket_becomes_no_ring() {
    let pair = stream_pair().unwrap();
    let child = fork((), |()| {
        let refused = RingWriter::new(pair.parent).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let refused = RingReader::new(pair.child).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_child_makes_rings_of_its_own() {
    let (mut reader, mut writer) = alone(4096);
    let child = fork((), |()| {
        let (mut own_reader, mut own_writer) = alone(4096);
        own_writer.write_all(b"own").unwrap();
        assert_eq!(own_reader.read(&mut [0; 8]).unwrap(), 3);
        assert_not_given(&mut reader, &mut writer);
        let grandchild = fork((), |()| assert_not_given(&mut own_reader, &mut own_writer)).unwrap();
        assert_eq!(exit_code(&grandchild), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    writer.write_all(b"x").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
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

fn spinning_changes_no_answer() {
    for spin in [Duration::ZERO, Duration::from_micros(50), Duration::from_millis(5)] {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            let (mut there, mut back) = (RingReader::new(there).unwrap(), RingWriter::new(back).unwrap());
            there.set_spin(spin);
            back.set_spin(spin);
            std::io::copy(&mut there, &mut back).unwrap();
        });
        let (mut there, mut back) = (RingWriter::new(there.parent).unwrap(), RingReader::new(back.parent).unwrap());
        there.set_spin(spin);
        back.set_spin(spin);
        for number in 0..2000_u32 {
            there.write_all(&number.to_le_bytes()).unwrap();
            let mut answer = [0; 4];
            back.read_exact(&mut answer).unwrap();
            assert_eq!(answer, number.to_le_bytes());
        }
        drop(there);
        assert_eq!(back.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}
