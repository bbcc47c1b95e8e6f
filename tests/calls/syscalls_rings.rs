//! A ring makes no system call while both sides are awake. To sleep takes a barrier and one call, and to wake one (P11), as strace
//! sees it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::support::{self, Gate, Trial, asleep_in, measured};
use ipc::{Child, Error, PipeWriter, RingReader, RingWriter, StreamSocket, fork, pipe, stream_pair, wait_any};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    support::run_traced(traced())
}

pub fn trials() -> Vec<Trial> {
    support::traced_trials(module_path!(), traced())
}

const LONG: Duration = Duration::from_secs(10);
const CAPACITY: usize = 64 << 10;

/// Sleeps at once where there is nothing to do.
fn writer(socket: StreamSocket) -> RingWriter {
    let mut ring = RingWriter::with_capacity(socket, CAPACITY).unwrap();
    ring.set_spin(Duration::ZERO);
    ring
}

/// The same for one that has heard the hello.
fn reader(socket: StreamSocket) -> RingReader {
    let mut ring = RingReader::new(socket).unwrap();
    ring.set_spin(Duration::ZERO);
    ring.available().unwrap();
    ring
}

/// The first wait of a process looks once where the kernel has put the function that tells the core.
fn wait_once() {
    let (mut reader, _writer) = both();
    let late = reader.read_timeout(&mut [0; 8], Duration::from_micros(1));
    assert!(matches!(late, Err(Error::TimedOut)));
}

/// Both sides in this process. They know of one another.
fn both() -> (RingReader, RingWriter) {
    let pair = stream_pair().unwrap();
    let mut writer = writer(pair.parent);
    let mut reader = reader(pair.child);
    writer.write_all(b"hello").unwrap();
    reader.read_exact(&mut [0; 5]).unwrap();
    (reader, writer)
}

/// A process at the other side, which stays until it is done with.
struct Peer {
    child: Child,
    stay: PipeWriter,
}

impl Peer {
    /// It has taken its side when this returns, and acts when this process sleeps.
    fn that_acts<R>(socket: StreamSocket, side: fn(StreamSocket) -> R, act: fn(&mut R)) -> Self {
        wait_once();
        let (parent, there) = (std::process::id(), Gate::new());
        let (leave, stay) = pipe().unwrap();
        let child = fork((socket, leave), |(socket, mut leave)| {
            let mut ring = side(socket);
            there.open();
            asleep_in(parent, &[libc::SYS_recvfrom, libc::SYS_ppoll]);
            act(&mut ring);
            // Its leaving would be a signal to the parent in the middle of the measurement.
            let _ = leave.read(&mut [0; 1]);
        });
        there.pass();
        Self { child: child.unwrap(), stay }
    }

    /// It sleeps at its side when this returns.
    fn that_sleeps<R>(socket: StreamSocket, side: fn(StreamSocket) -> R, sleep: fn(&mut R)) -> Self {
        wait_once();
        let (leave, stay) = pipe().unwrap();
        let child = fork((socket, leave), |(socket, mut leave)| {
            sleep(&mut side(socket));
            let _ = leave.read(&mut [0; 1]);
        });
        let child = child.unwrap();
        asleep_in(child.id(), &[libc::SYS_recvfrom]);
        Self { child, stay }
    }

    fn done(self) {
        drop(self.stay);
        assert!(self.child.wait().unwrap().success());
    }
}

/// A reader in this process. Its writer writes five bytes when this process sleeps.
fn reader_at_rest() -> (RingReader, Peer) {
    let pair = stream_pair().unwrap();
    let peer = Peer::that_acts(pair.child, writer, |ring| ring.write_all(b"hello").unwrap());
    (reader(pair.parent), peer)
}

/// A full writer in this process. Its reader reads ten bytes when this process sleeps.
fn full_writer() -> (RingWriter, Peer) {
    let pair = stream_pair().unwrap();
    let mut writer = writer(pair.parent);
    let peer = Peer::that_acts(pair.child, reader, |ring| ring.read_exact(&mut [0; 10]).unwrap());
    assert_eq!(writer.write(&[1; CAPACITY + 1]).unwrap(), CAPACITY);
    (writer, peer)
}

support::traced! {
    sides_that_are_awake_make_no_call => [] {
        let (mut reader, mut writer) = both();
        let mut buf = [0; 5000];
        measured(|| {
            for _ in 0..1000 {
                assert_eq!(writer.write(&[7; 5000]).unwrap(), 5000);
                assert_eq!(reader.read(&mut buf).unwrap(), 5000);
            }
        });
    }

    every_way_to_write_and_to_read_makes_no_call => [] {
        let (mut reader, mut writer) = both();
        let (mut one, mut two) = ([0; 2], [0; 3]);
        measured(|| {
            assert_eq!(writer.try_write(b"hello").unwrap(), 5);
            assert_eq!(writer.write_timeout(b"hello", LONG).unwrap(), 5);
            assert_eq!(writer.write_vectored(&[IoSlice::new(b"hel"), IoSlice::new(b"lo")]).unwrap(), 5);
            writer.flush().unwrap();
            assert_eq!(reader.available().unwrap(), 15);
            assert_eq!(reader.try_read(&mut [0; 5]).unwrap(), 5);
            assert_eq!(reader.read_timeout(&mut [0; 5], LONG).unwrap(), 5);
            let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
            assert_eq!(reader.read_vectored(&mut bufs).unwrap(), 5);
        });
    }

    filling_and_emptying_a_ring_makes_no_call => [] {
        let (mut reader, mut writer) = both();
        let mut buf = vec![0; 2 * CAPACITY];
        measured(|| {
            assert_eq!(writer.write(&[1; 2 * CAPACITY]).unwrap(), CAPACITY);
            assert_eq!(reader.read(&mut buf).unwrap(), CAPACITY);
        });
    }

    the_end_of_a_ring_that_was_closed_makes_no_call => [] {
        let (mut reader, mut writer) = both();
        writer.write_all(b"hello").unwrap();
        drop(writer);
        let mut buf = [0; 8];
        let (last, end) = measured(|| (reader.read(&mut buf), reader.read(&mut [0; 8])));
        assert_eq!((last.unwrap(), end.unwrap()), (5, 0));
    }

    trying_in_vain_is_one_call_each => ["recvfrom", "recvfrom"] {
        let (mut reader, _writer) = both();
        let (_reader, mut writer) = both();
        writer.write_all(&[1; CAPACITY]).unwrap();
        let (read, written) = measured(|| (reader.try_read(&mut [0; 8]), writer.try_write(b"hello")));
        assert!(matches!((read, written), (Err(Error::WouldBlock), Err(Error::WouldBlock))));
    }

    a_reader_that_sleeps_makes_a_barrier_and_a_call => ["membarrier", "recvfrom"] {
        let (mut reader, peer) = reader_at_rest();
        assert_eq!(measured(|| reader.read(&mut [0; 8])).unwrap(), 5);
        peer.done();
    }

    a_writer_that_sleeps_makes_a_barrier_and_a_call => ["membarrier", "recvfrom"] {
        let (mut writer, peer) = full_writer();
        assert_eq!(measured(|| writer.write(&[1; 100])).unwrap(), 10);
        peer.done();
    }

    // A socket that never waits is not asked for: it says so when the side sleeps.
    a_reader_that_looks_again_first_makes_no_call_more => ["membarrier", "recvfrom"] {
        let (mut reader, peer) = reader_at_rest();
        reader.set_spin(Duration::from_micros(100));
        assert_eq!(measured(|| reader.read(&mut [0; 8])).unwrap(), 5);
        peer.done();
    }

    a_writer_that_looks_again_first_makes_no_call_more => ["membarrier", "recvfrom"] {
        let (mut writer, peer) = full_writer();
        writer.set_spin(Duration::from_micros(100));
        assert_eq!(measured(|| writer.write(&[1; 100])).unwrap(), 10);
        peer.done();
    }

    // Both poll(2) and then take the ring.
    sleeping_with_a_deadline_is_one_call_more => ["membarrier", "ppoll", "recvfrom"] {
        let (mut reader, peer) = reader_at_rest();
        assert_eq!(measured(|| reader.read_timeout(&mut [0; 8], LONG)).unwrap(), 5);
        peer.done();
    }

    a_writer_that_sleeps_with_a_deadline_is_the_same => ["membarrier", "ppoll", "recvfrom"] {
        let (mut writer, peer) = full_writer();
        assert_eq!(measured(|| writer.write_timeout(&[1; 100], LONG)).unwrap(), 10);
        peer.done();
    }

    // The first one takes the rings that have piled up.
    waiting_for_a_ring_among_others_is_three_calls => ["recvfrom", "membarrier", "ppoll"] {
        let (mut reader, peer) = reader_at_rest();
        let (ready, read) = measured(|| (wait_any(&mut [reader.watch()], None), reader.try_read(&mut [0; 8])));
        assert_eq!((ready.unwrap(), read.unwrap()), (1, 5));
        peer.done();
    }

    waking_a_reader_is_one_call => ["sendto"] {
        let pair = stream_pair().unwrap();
        let mut writer = writer(pair.parent);
        let side = |socket| {
            let mut ring = RingReader::new(socket).unwrap();
            ring.set_spin(Duration::ZERO);
            ring
        };
        let peer = Peer::that_sleeps(pair.child, side, |ring| assert_eq!(ring.read(&mut [0; 8]).unwrap(), 5));
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
        peer.done();
    }

    waking_a_writer_is_one_call => ["sendto"] {
        let pair = stream_pair().unwrap();
        let peer = Peer::that_sleeps(pair.child, writer, |ring| ring.write_all(&[1; CAPACITY + 1]).unwrap());
        let mut reader = reader(pair.parent);
        assert_eq!(reader.available().unwrap(), CAPACITY);
        assert_eq!(measured(|| reader.read(&mut [0; 10])).unwrap(), 10);
        peer.done();
    }
}
