//! `wait_any`: what each kind of end, and a child, says of itself; deadlines; errors; and the master that sits in it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::{
    self, Gate, Trial, asleep_in, exit_code, fill, handle_signal, handled, refused, with_interval_timer,
};
use ipc::{Child, Error, PipeReader, Ready, Watch, datagram_pair, fork, pipe, stream_pair, wait_any, wait_ready};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_reader_is_ready_with_something_to_read_and_at_the_end,
        a_writer_is_ready_with_room_and_when_nobody_reads,
        a_message_socket_is_ready_with_a_message_and_at_the_end,
        a_stream_socket_is_ready_with_bytes_and_at_the_end,
        a_half_that_was_shut_down_is_a_hangup,
        a_child_is_ready_when_it_has_left,
        a_child_that_is_killed_is_ready,
        only_those_that_are_ready_say_so,
        what_was_found_before_is_forgotten,
        a_zero_timeout_looks_once,
        no_timeout_waits_until_there_is_something,
        deadlines_hold_under_signals,
        a_signal_does_not_end_the_wait,
        nothing_to_wait_for_is_an_error_without_a_timeout,
        an_end_that_was_not_given_says_so,
        a_number_that_is_not_open_is_an_error,
        more_than_the_table_holds_is_an_error,
        many_can_be_waited_for,
        the_same_end_can_be_waited_for_twice,
        sockets_of_the_standard_library_can_be_waited_for,
        a_master_waits_for_reports_and_exits_of_its_workers,
        what_is_ready_comes_back_with_its_key,
    ]
}

const LONG: Duration = Duration::from_secs(10);
const READ: Ready = Ready::READ;
const WRITE: Ready = Ready::WRITE;
const HANGUP: Ready = Ready::HANGUP;
const ERROR: Ready = Ready::ERROR;
const NOTHING: Ready = Ready::empty();

fn look(mut wait: Watch<'_>) -> Ready {
    let count = wait_any(std::slice::from_mut(&mut wait), Some(Duration::ZERO)).unwrap();
    assert_eq!(count, usize::from(!wait.ready().is_empty()));
    wait.ready()
}

fn a_reader_is_ready_with_something_to_read_and_at_the_end() {
    let (mut reader, mut writer) = pipe().unwrap();
    assert_eq!(look(Watch::readable(&reader)), NOTHING);
    writer.write_all(b"x").unwrap();
    assert_eq!(look(Watch::readable(&reader)), READ);
    drop(writer);
    assert_eq!(look(Watch::readable(&reader)), READ | HANGUP);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(look(Watch::readable(&reader)), READ | HANGUP, "the end can be read without blocking, too");
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(look(Watch::readable(&reader)), READ | HANGUP, "and stays");
}

fn a_writer_is_ready_with_room_and_when_nobody_reads() {
    let (reader, writer) = pipe().unwrap();
    assert_eq!(look(Watch::writable(&writer)), WRITE);
    fill(&writer);
    assert_eq!(look(Watch::writable(&writer)), NOTHING);
    assert_eq!(reader.try_read(&mut [0; 8192]).unwrap(), 8192);
    assert_eq!(look(Watch::writable(&writer)), WRITE);
    fill(&writer);
    drop(reader);
    assert_eq!(look(Watch::writable(&writer)), WRITE | ERROR, "no write would block");
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));

    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(look(Watch::writable(&writer)), WRITE | ERROR);
    assert_eq!(look(Watch::readable(&writer)), READ | ERROR, "nobody reads: seen without asking for room");
}

fn a_message_socket_is_ready_with_a_message_and_at_the_end() {
    let pair = datagram_pair().unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), NOTHING);
    assert_eq!(look(Watch::writable(&pair.parent)), WRITE);
    pair.child.send(b"").unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), READ, "an empty message is one");
    while pair.parent.try_send(&[0; 1000]).is_ok() {}
    assert_eq!(look(Watch::writable(&pair.parent)), NOTHING);
    assert_eq!(look(Watch::readable(&pair.parent)), READ);
    drop(pair.child);
    assert_eq!(look(Watch::readable(&pair.parent)) & (READ | HANGUP), READ | HANGUP);
    assert_eq!(look(Watch::writable(&pair.parent)) & (WRITE | HANGUP), WRITE | HANGUP);
    assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), Some(0));
    assert!(matches!(pair.parent.recv(&mut [0; 8]), Err(Error::Reset)));
    assert_eq!(look(Watch::readable(&pair.parent)), READ | HANGUP);
}

fn a_stream_socket_is_ready_with_bytes_and_at_the_end() {
    let mut pair = stream_pair().unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), NOTHING);
    assert_eq!(look(Watch::writable(&pair.parent)), WRITE);
    pair.child.write_all(b"x").unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), READ);
    drop(pair.child);
    assert_eq!(look(Watch::readable(&pair.parent)), READ | HANGUP);
    assert_eq!(look(Watch::writable(&pair.parent)) & WRITE, WRITE);
    assert_eq!(pair.parent.read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(look(Watch::readable(&pair.parent)), READ | HANGUP);
}

fn a_half_that_was_shut_down_is_a_hangup() {
    let pair = datagram_pair().unwrap();
    pair.child.shutdown(Shutdown::Write).unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), READ | HANGUP);
    assert_eq!(look(Watch::writable(&pair.parent)), WRITE, "the other direction goes on");
    let pair = stream_pair().unwrap();
    pair.child.shutdown(Shutdown::Write).unwrap();
    assert_eq!(look(Watch::readable(&pair.parent)), READ | HANGUP);
}

/// Stays until the gate opens.
fn waiting_child(gate: &Gate) -> Child {
    fork((), |()| gate.pass()).unwrap()
}

fn a_child_is_ready_when_it_has_left() {
    let gate = Gate::new();
    let child = waiting_child(&gate);
    assert_eq!(look(Watch::readable(&child)), NOTHING);
    gate.open();
    let mut on = [Watch::readable(&child)];
    assert_eq!(wait_any(&mut on, Some(LONG)).unwrap(), 1);
    assert_eq!(on[0].ready() & READ, READ);
    assert!(child.try_wait().unwrap().expect("it has left").success());
}

fn a_child_that_is_killed_is_ready() {
    let child = waiting_child(&Gate::new());
    child.kill().unwrap();
    let mut on = [Watch::readable(&child)];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert_eq!(on[0].ready() & READ, READ);
    assert!(child.try_wait().unwrap().is_some());
}

fn only_those_that_are_ready_say_so() {
    let (quiet, _keep) = pipe().unwrap();
    let (busy, mut writer) = pipe().unwrap();
    let (ended, _) = pipe().unwrap();
    let (_reader, full) = pipe().unwrap();
    fill(&full);
    let pair = datagram_pair().unwrap();
    pair.child.send(b"x").unwrap();
    let (gate, still) = (Gate::new(), Gate::new());
    let (leaves, stays) = (waiting_child(&gate), waiting_child(&still));
    gate.open();
    leaves.wait().unwrap();
    writer.write_all(b"x").unwrap();
    let mut on = [
        Watch::readable(&quiet),
        Watch::readable(&busy),
        Watch::readable(&ended),
        Watch::writable(&full),
        Watch::writable(&writer),
        Watch::readable(&pair.parent),
        Watch::readable(&pair.child),
        Watch::readable(&stays),
        Watch::readable(&leaves),
    ];
    assert_eq!(wait_any(&mut on, None).unwrap(), 5);
    let found: Vec<_> = on.iter().map(Watch::ready).collect();
    assert_eq!(found[..8], [NOTHING, READ, READ | HANGUP, NOTHING, WRITE, READ, NOTHING, NOTHING]);
    assert_eq!(found[8] & READ, READ);
    still.open();
    assert_eq!(exit_code(&stays), 0);
}

fn what_was_found_before_is_forgotten() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let mut on = [Watch::readable(&reader)];
    assert_eq!(on[0].ready(), NOTHING, "before anything was looked at");
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert_eq!(on[0].ready(), READ);
    reader.try_read(&mut [0; 8]).unwrap();
    assert_eq!(wait_any(&mut on, Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(on[0].ready(), NOTHING);
}

fn a_zero_timeout_looks_once() {
    let (reader, _writer) = pipe().unwrap();
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(wait_any(&mut [Watch::readable(&reader)], Some(Duration::ZERO)).unwrap(), 0);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

fn no_timeout_waits_until_there_is_something() {
    for timeout in [None, Some(Duration::MAX), Some(LONG)] {
        let (reader, mut writer) = pipe().unwrap();
        let child = fork(reader, move |reader| {
            let mut on = [Watch::readable(&reader)];
            assert_eq!(wait_any(&mut on, timeout).unwrap(), 1);
            assert_eq!(on[0].ready(), READ);
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        writer.write_all(b"x").unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

fn deadlines_hold_under_signals() {
    let (reader, _writer) = pipe().unwrap();
    with_interval_timer(Duration::from_millis(1), || {
        for timeout in [1, 20, 80].map(Duration::from_millis) {
            let before = handled();
            let started = Instant::now();
            let mut on = [Watch::readable(&reader)];
            assert_eq!(wait_any(&mut on, Some(timeout)).unwrap(), 0);
            let took = started.elapsed();
            assert!(took >= timeout && took < support::FAR, "{took:?} instead of {timeout:?}");
            // As many as find the process running: on a busy machine several become one.
            assert!(handled() > before || timeout < Duration::from_millis(20), "signals came");
        }
    });
}

fn a_signal_does_not_end_the_wait() {
    let (reader, mut writer) = pipe().unwrap();
    handle_signal(libc::SIGUSR1);
    let child = fork(reader, |reader| {
        let mut on = [Watch::readable(&reader)];
        assert_eq!(wait_any(&mut on, None).unwrap(), 1);
        assert!(handled() > 0);
    })
    .unwrap();
    for _ in 0..10 {
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        child.signal(libc::SIGUSR1).unwrap();
    }
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    writer.write_all(b"x").unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn nothing_to_wait_for_is_an_error_without_a_timeout() {
    for for_ever in [None, Some(Duration::MAX)] {
        assert!(matches!(wait_any(&mut [], for_ever), Err(Error::InvalidInput { .. })));
    }
    let timeout = Duration::from_millis(20);
    let started = Instant::now();
    assert_eq!(wait_any(&mut [], Some(timeout)).unwrap(), 0);
    assert!(started.elapsed() >= timeout);
}

fn what_is_ready_comes_back_with_its_key() {
    let ends: Vec<_> = (0..40).map(|_| pipe().unwrap()).collect();
    let watches = || ends.iter().enumerate().map(|(number, (reader, _))| (number, Watch::readable(reader)));
    assert_eq!(wait_ready(watches(), Some(Duration::ZERO)).unwrap(), [], "the time is up");
    for number in [3, 39] {
        ends[number].1.write_atomic(b"x").unwrap();
    }
    assert_eq!(wait_ready(watches(), None).unwrap(), [(3, READ), (39, READ)]);
    // Any key will do, and one may come twice.
    let twice = [("read", Watch::readable(&ends[3].0)), ("write", Watch::writable(&ends[3].1))];
    let found = wait_ready(twice, None).unwrap();
    assert!(found[0].1.is_readable() && !found[0].1.is_writable() && !found[0].1.is_hangup() && !found[0].1.is_error());
    assert!(found[1] == ("write", Ready::WRITE) && found[1].1.is_writable());
    let nothing: [((), Watch); 0] = [];
    assert!(matches!(wait_ready(nothing, None), Err(Error::InvalidInput { .. })));
}

fn an_end_that_was_not_given_says_so() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let (given, mut keep) = pipe().unwrap();
    let child = fork(given, |given| {
        for severed in [reader.as_fd(), writer.as_fd(), pair.parent.as_fd(), pair.child.as_fd()] {
            // Alone and among others, and whether or not these are ready.
            for timeout in [None, Some(Duration::ZERO), Some(LONG)] {
                for wait in [Watch::readable, Watch::writable] {
                    let mut on = [Watch::readable(&given), wait(&severed)];
                    let result = wait_any(&mut on, timeout);
                    assert!(matches!(result, Err(Error::NotGiven)), "{on:?}: {result:?}");
                    let result = wait_any(&mut on[1..], timeout);
                    assert!(matches!(result, Err(Error::NotGiven)), "{on:?}: {result:?}");
                }
            }
        }
        // The one that was given works.
        assert_eq!(wait_any(&mut [Watch::readable(&given)], None).unwrap(), 1);
    })
    .unwrap();
    keep.write_all(b"x").unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_number_that_is_not_open_is_an_error() {
    let (reader, writer) = pipe().unwrap();
    let number = writer.into_raw_fd();
    // SAFETY: it was just given up, and is closed once. Nothing opens a descriptor until the end of the test.
    let fd = unsafe {
        assert_eq!(libc::close(number), 0);
        BorrowedFd::borrow_raw(number)
    };
    for timeout in [None, Some(Duration::ZERO), Some(LONG)] {
        assert_eq!(refused(wait_any(&mut [Watch::readable(&fd)], timeout)), ("poll", libc::EBADF));
        assert_eq!(refused(wait_any(&mut [Watch::readable(&reader), Watch::writable(&fd)], timeout)).1, libc::EBADF);
    }
}

fn more_than_the_table_holds_is_an_error() {
    let (reader, _writer) = pipe().unwrap();
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit, and valid ones.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut before), 0);
        let limit = libc::rlimit { rlim_cur: 16, ..before };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    let mut on: Vec<_> = (0..17).map(|_| Watch::readable(&reader)).collect();
    let result = wait_any(&mut on, Some(Duration::ZERO));
    // SAFETY: the limit that was there before.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &before) };
    assert_eq!(refused(result), ("poll", libc::EINVAL));
}

fn many_can_be_waited_for() {
    for count in [31, 32, 33, 64, 300] {
        let mut pipes: Vec<_> = (0..count).map(|_| pipe().unwrap()).collect();
        for ready in [0, count / 2, count - 1] {
            pipes[ready].1.write_all(b"x").unwrap();
            let mut on: Vec<_> = pipes.iter().map(|(reader, _)| Watch::readable(reader)).collect();
            assert_eq!(wait_any(&mut on, None).unwrap(), 1);
            for (number, wait) in on.iter().enumerate() {
                assert_eq!(wait.ready(), if number == ready { READ } else { NOTHING }, "{number} of {count}");
            }
            pipes[ready].0.read_exact(&mut [0; 1]).unwrap();
        }
        for (_, writer) in &mut pipes {
            writer.write_all(b"x").unwrap();
        }
        let mut on: Vec<_> = pipes.iter().map(|(reader, _)| Watch::readable(reader)).collect();
        assert_eq!(wait_any(&mut on, None).unwrap(), count);
        assert!(on.iter().all(|wait| wait.ready() == READ));
    }
}

fn the_same_end_can_be_waited_for_twice() {
    let mut pair = stream_pair().unwrap();
    pair.child.write_all(b"x").unwrap();
    let mut on = [Watch::readable(&pair.parent), Watch::writable(&pair.parent)];
    assert_eq!(wait_any(&mut on, None).unwrap(), 2);
    assert_eq!((on[0].ready(), on[1].ready()), (READ, WRITE));
}

fn sockets_of_the_standard_library_can_be_waited_for() {
    let (one, mut other) = UnixStream::pair().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    assert_eq!((look(Watch::readable(&one)), look(Watch::writable(&one))), (NOTHING, WRITE));
    other.write_all(b"x").unwrap();
    writer.write_all(b"x").unwrap();
    let (one, borrowed) = (&one, reader.as_fd());
    let mut on = [Watch::readable(one), Watch::readable(&borrowed)];
    assert_eq!(wait_any(&mut on, None).unwrap(), 2);
    drop((other, writer));
    assert_eq!(look(Watch::readable(one)), READ | HANGUP);
    assert_eq!(look(Watch::readable(&borrowed)), READ | HANGUP);
}

struct Worker {
    child: Child,
    left: bool,
    /// Until its end was read.
    report: Option<PipeReader>,
    read: Vec<u8>,
}

fn a_master_waits_for_reports_and_exits_of_its_workers() {
    let mut workers: Vec<_> = (0..5_u8)
        .map(|number| {
            let (report, writer) = pipe().unwrap();
            let child = fork(writer, move |mut writer| {
                for _ in 0..100 {
                    writer.write_all(&[number; 1000]).unwrap();
                }
                match number {
                    3 => std::process::abort(),
                    number => number,
                }
            })
            .unwrap();
            Worker { child, left: false, report: Some(report), read: Vec::new() }
        })
        .collect();
    let mut buf = [0; 1500];
    while workers.iter().any(|worker| !worker.left || worker.report.is_some()) {
        let (mut on, mut whose) = (Vec::new(), Vec::new());
        for (number, worker) in workers.iter().enumerate() {
            if let Some(report) = &worker.report {
                on.push(Watch::readable(report));
                whose.push((number, false));
            }
            if !worker.left {
                on.push(Watch::readable(&worker.child));
                whose.push((number, true));
            }
        }
        let count = wait_any(&mut on, Some(LONG)).unwrap();
        assert!(count > 0, "nothing came from those that are there");
        let ready: Vec<_> = on.iter().map(|wait| !wait.ready().is_empty()).collect();
        assert_eq!(ready.iter().filter(|ready| **ready).count(), count);
        for ((number, is_exit), _) in whose.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let worker = &mut workers[number];
            if is_exit {
                let status = worker.child.try_wait().unwrap().expect("it has left");
                assert_eq!(status.code(), if number == 3 { None } else { Some(number as i32) });
                worker.left = true;
            } else {
                match worker.report.as_ref().expect("it was waited for").try_read(&mut buf).unwrap() {
                    0 => worker.report = None,
                    len => worker.read.extend_from_slice(&buf[..len]),
                }
            }
        }
    }
    for (number, worker) in workers.iter().enumerate() {
        assert_eq!(worker.read.len(), 100_000);
        assert!(worker.read.iter().all(|byte| usize::from(*byte) == number));
    }
}
