//! Rings for which the kernel has no memory (`ENOBUFS`): no call fails for that, none that does not block waits for it, and no
//! wake-up is lost.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::support::{self, FAR, Gate, Trial, asleep_in, bytes, exit_code, refuse_calls};
use ipc::{Child, Error, RingReader, RingWriter, StreamSocket, fork, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_ring_that_the_kernel_has_no_memory_for_is_made_up_for,
        a_write_that_does_not_block_owes_the_ring,
        a_read_that_does_not_block_owes_the_ring,
        a_wait_does_not_begin_while_a_ring_is_owed,
        the_end_wakes_a_reader_that_cannot_be_rung_for,
        a_refused_ring_is_an_error_and_wakes_the_reader,
        a_refused_ring_is_an_error_of_a_reader_and_no_eof,
    ]
}

/// One thread of a process can be where `send` is refused, and another not.
fn where_rings_find_no_memory<T: Send>(errno: i32, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse_calls(&[libc::SYS_sendto], errno);
            run()
        });
        thread.join().unwrap()
    })
}

/// How often this thread has slept.
fn own_sleeps() -> i64 {
    // SAFETY: zeroed bytes are a valid rusage, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage.ru_nvcsw as i64
    }
}

/// Calls that do not sleep.
#[track_caller]
fn without_sleeping<T>(run: impl FnOnce() -> T) -> T {
    let before = own_sleeps();
    let result = run();
    assert_eq!(own_sleeps() - before, 0, "it slept");
    result
}

/// A ring of a page, and a reader of it that sleeps. It opens the gate when it was woken, and goes on to EOF.
fn with_sleeping_reader(woken: &Gate) -> (RingWriter, StreamSocket, Child) {
    let (pair, asleep) = (stream_pair().unwrap(), Gate::new());
    let copy = pair.parent.try_clone().unwrap();
    let child = fork(pair.child, |socket| {
        let mut ring = RingReader::new(socket).unwrap();
        ring.set_spin(Duration::ZERO);
        ring.read_exact(&mut [0; 1]).unwrap();
        asleep.open();
        let more = ring.read(&mut [0; 2]).unwrap();
        woken.open();
        if more > 0 {
            std::io::copy(&mut ring, &mut std::io::sink()).unwrap();
        }
    });
    let child = child.unwrap();
    let mut ring = RingWriter::with_capacity(pair.parent, 1).unwrap();
    ring.set_spin(Duration::ZERO);
    ring.write_all(&[1]).unwrap();
    asleep.pass();
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    (ring, copy, child)
}

fn a_ring_that_the_kernel_has_no_memory_for_is_made_up_for() {
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        for watches in [false, true] {
            let (pair, asleep, woken) = (stream_pair().unwrap(), Gate::new(), Gate::new());
            let child = fork(pair.child, |socket| {
                let mut ring = RingReader::new(socket).unwrap();
                ring.set_spin(Duration::ZERO);
                ring.read_exact(&mut [0; 1]).unwrap();
                asleep.open();
                ring.read_exact(&mut [0; 2]).unwrap();
                woken.open();
                std::io::copy(&mut ring, &mut std::io::sink()).unwrap();
            })
            .unwrap();
            let mut ring = RingWriter::with_capacity(pair.parent, 1).unwrap();
            ring.write_all(&[1]).unwrap();
            asleep.pass();
            support::asleep_in(child.id(), &[libc::SYS_recvfrom]);
            let mut ring = std::thread::spawn(move || {
                refuse_calls(&[libc::SYS_sendto], errno);
                ring.write_all(&[2]).unwrap();
                ring.write_all(&[3]).unwrap(); // it is no fault of the ring
                ring
            })
            .join()
            .unwrap();
            support::asleep_in(child.id(), &[libc::SYS_recvfrom]);
            if watches {
                // The wait rings, without another move.
                assert_eq!(wait_any(&mut [ring.watch()], None).unwrap(), 1);
            } else {
                ring.write_all(&[4]).unwrap();
            }
            woken.pass(); // not by the end
            drop(ring);
            assert_eq!(exit_code(&child), 0);
        }
    }
}

fn a_write_that_does_not_block_owes_the_ring() {
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let woken = Gate::new();
        let (mut ring, socket, child) = with_sleeping_reader(&woken);
        where_rings_find_no_memory(errno, || {
            without_sleeping(|| {
                assert_eq!(ring.try_write(&[2]).unwrap(), 1);
                assert_eq!(ring.write_timeout(&[3], FAR).unwrap(), 1);
                while ring.try_write(&[4; 1000]).is_ok() {}
                assert!(matches!(ring.try_write(&[5]), Err(Error::WouldBlock)));
            });
        });
        asleep_in(child.id(), &[libc::SYS_recvfrom]);
        // The next call rings, though it has no room to write.
        let tried = ring.try_write(&[6]);
        assert!(matches!(tried, Err(Error::WouldBlock) | Ok(1)), "{tried:?}");
        woken.pass();
        drop((ring, socket));
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_read_that_does_not_block_owes_the_ring() {
    let (pair, woken) = (stream_pair().unwrap(), Gate::new());
    let child = fork(pair.child, |socket| {
        let mut ring = RingWriter::with_capacity(socket, 1).unwrap();
        ring.set_spin(Duration::ZERO);
        ring.write_all(&bytes(page_size() + 1)).unwrap();
        woken.open();
    });
    let child = child.unwrap();
    let mut ring = RingReader::new(pair.parent).unwrap();
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    assert_eq!(ring.available().unwrap(), page_size());
    let mut buf = vec![0; 1 << 20];
    let len = where_rings_find_no_memory(libc::ENOBUFS, || {
        without_sleeping(|| {
            let len = ring.try_read(&mut buf).unwrap();
            assert!(matches!(ring.try_read(&mut buf), Err(Error::WouldBlock)));
            len
        })
    });
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    let tried = ring.try_read(&mut buf);
    assert!(matches!(tried, Err(Error::WouldBlock) | Ok(1)), "{tried:?}");
    woken.pass();
    let mut rest = Vec::new();
    ring.read_to_end(&mut rest).unwrap();
    assert_eq!(len + rest.len() + tried.unwrap_or(0), page_size() + 1);
    assert_eq!(exit_code(&child), 0);
}

fn page_size() -> usize {
    // SAFETY: no conditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Or both sides would sleep, and nobody would ring.
fn a_wait_does_not_begin_while_a_ring_is_owed() {
    let woken = Gate::new();
    let (mut ring, socket, child) = with_sleeping_reader(&woken);
    where_rings_find_no_memory(libc::ENOBUFS, || {
        while ring.try_write(&[2; 1000]).is_ok() {}
        // A watch is ready at once, and a call that waits looks again and again.
        assert_eq!(wait_any(&mut [ring.watch()], None).unwrap(), 1);
        let waited = ring.write_timeout(&[3], Duration::from_millis(5));
        assert!(matches!(waited, Err(Error::TimedOut)), "{waited:?}");
    });
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    assert_eq!(ring.write(&[3]).unwrap(), 1, "it rings, and waits for room");
    woken.pass();
    drop((ring, socket));
    assert_eq!(exit_code(&child), 0);
}

/// Also where a copy of the socket is left, which does not end then.
fn the_end_wakes_a_reader_that_cannot_be_rung_for() {
    for owes in [false, true] {
        let woken = Gate::new();
        let (mut ring, socket, child) = with_sleeping_reader(&woken);
        where_rings_find_no_memory(libc::ENOBUFS, || {
            without_sleeping(|| {
                if owes {
                    ring.try_write(&[2]).unwrap();
                }
                drop(ring);
            });
        });
        woken.pass();
        assert_eq!(exit_code(&child), 0);
        assert!(socket.as_fd().try_clone_to_owned().is_ok(), "the copy was there all the time");
    }
}

/// At once, and where one was owed before. The reader wakes though the writer stays, and copies of its socket too.
fn a_refused_ring_is_an_error_and_wakes_the_reader() {
    let calls: [fn(&mut RingWriter) -> io::Result<usize>; 4] = [
        |ring| ring.write(&[3]),
        |ring| Ok(ring.write_timeout(&[3], FAR)?),
        |ring| Ok(ring.try_write(&[3])?),
        |ring| {
            assert_eq!(wait_any(&mut [ring.watch()], None).unwrap(), 1);
            Ok(ring.try_write(&[3])?)
        },
    ];
    for owes in [false, true] {
        for call in calls {
            let woken = Gate::new();
            let (mut ring, socket, child) = with_sleeping_reader(&woken);
            let refused = || {
                if owes {
                    refuse_calls(&[libc::SYS_sendto], libc::ENOBUFS);
                    while ring.try_write(&[2; 1000]).is_ok() {}
                    refuse_calls(&[libc::SYS_sendto], libc::EPERM);
                } else {
                    refuse_calls(&[libc::SYS_sendto], libc::EPERM);
                    assert_eq!(ring.try_write(&[2]).unwrap(), 1, "they were written");
                }
                for _ in 0..2 {
                    let result = call(&mut ring);
                    assert!(matches!(&result, Err(error) if error.kind() == ErrorKind::PermissionDenied), "{result:?}");
                }
                assert_eq!(ring.write(&[]).unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            std::thread::scope(|scope| scope.spawn(refused).join().unwrap());
            woken.pass();
            assert_eq!(exit_code(&child), 0);
            drop((ring, socket));
        }
    }
}

fn a_refused_ring_is_an_error_of_a_reader_and_no_eof() {
    let pair = stream_pair().unwrap();
    let mut writer = RingWriter::with_capacity(pair.parent, 1).unwrap();
    let mut reader = RingReader::new(pair.child).unwrap();
    while writer.try_write(&[0; 1000]).is_ok() {}
    assert_eq!(wait_any(&mut [writer.watch()], Some(Duration::ZERO)).unwrap(), 0); // it waits from now on
    let refused = || {
        refuse_calls(&[libc::SYS_sendto], libc::ENOBUFS);
        assert_eq!(reader.try_read(&mut vec![0; 1 << 20]).unwrap(), page_size());
        refuse_calls(&[libc::SYS_sendto], libc::EPERM);
        for _ in 0..2 {
            let result = reader.try_read(&mut [0; 1]);
            assert!(matches!(result, Err(Error::System { .. })), "{result:?}");
        }
    };
    std::thread::scope(|scope| scope.spawn(refused).join().unwrap());
    assert!(writer.is_closed().unwrap());
}
