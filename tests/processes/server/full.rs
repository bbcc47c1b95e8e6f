//! Where there is no place left: in the caller, in the server, in the kernel.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::workers::{echo, in_a_thread};
use super::{MAKES_SIBLINGS, all_ways, at_rest};
use crate::support::needs::Need;
use crate::support::{Trial, become_nobody, children, exit_code, limit, limit_descriptors, read_all, refuse_calls};
use ipc::{DatagramPair, Error, ForkServer, PipeWriter, Received, datagram_pair, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    let trials: Vec<Trial> = all_ways![
        a_full_table_in_the_caller_loses_no_worker,
        a_full_table_in_the_server_is_an_error,
        a_full_table_in_the_server_does_not_outlast_a_deadline,
        a_start_in_a_full_table_is_an_error,
        as_many_ends_as_a_message_carries,
        ends_over_the_limit_of_what_is_under_way_come_back,
        the_process_limit_is_an_error,
        a_server_without_memory_for_a_message_says_so,
    ];
    // These limits are one user's: another test of the same one would use them up.
    trials.into_iter().map(|trial| trial.needs([Need::Alone])).collect()
}

#[track_caller]
fn assert_errno(error: &Error, expected: i32) {
    match error {
        Error::System { source, .. } => assert_eq!(source.raw_os_error(), Some(expected), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

fn a_full_table_in_the_caller_loses_no_worker() {
    let server = echo();
    let mut worked = 0;
    for free in 0..8 {
        let (reader, writer) = pipe().unwrap();
        let full = limit_descriptors(free);
        match server.fork(b"x", writer) {
            Ok(child) => {
                drop(full);
                worked += 1;
                assert_eq!(read_all(reader), b"x");
                assert_eq!(exit_code(&child), 0);
            }
            Err(refused) => {
                drop(full);
                assert_errno(&refused.error, libc::EMFILE);
                refused.ends.write_atomic(b"mine").unwrap();
                assert_eq!(reader.available().unwrap(), 4);
            }
        }
    }
    assert!((1..8).contains(&worked), "{worked}");
    assert_eq!(open_ends(), 1);
}

fn a_full_table_in_the_server_is_an_error() {
    let mut worked = 0;
    for free in 4..16 {
        let full = limit_descriptors(free);
        let started = ForkServer::start(|message, mut ends: Received| {
            while let Ok(writer) = ends.take::<PipeWriter>() {
                writer.write_atomic(&message).unwrap();
            }
        });
        drop(full);
        let server = match started {
            Ok(server) => server,
            Err(error) => {
                assert_errno(&error, libc::EMFILE);
                continue;
            }
        };
        let (reader, writer) = pipe().unwrap();
        let ends = vec![writer.try_clone().unwrap(), writer.try_clone().unwrap(), writer];
        match server.fork(b"x", ends) {
            Ok(child) => {
                worked += 1;
                assert_eq!(read_all(reader), b"xxx");
                assert_eq!(exit_code(&child), 0);
            }
            Err(refused) => {
                assert_errno(&refused.error, libc::EMFILE);
                refused.ends[2].write_atomic(b"mine").unwrap();
                assert_eq!(reader.available().unwrap(), 4);
            }
        }
    }
    assert!((1..12).contains(&worked), "{worked}");
}

fn a_full_table_in_the_server_does_not_outlast_a_deadline() {
    let server = echo();
    at_rest(server.id());
    // SAFETY: a limit and room for it, and a process of the same user.
    unsafe {
        let mut none = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut none), 0);
        none.rlim_cur = 0;
        assert_eq!(libc::prlimit(server.id() as i32, libc::RLIMIT_NOFILE, &none, std::ptr::null_mut()), 0);
    }
    in_a_thread(|| {
        // Whether it is full or was killed is seen after 500 ms at most. Most calls are not held up by the machine.
        let mut took = [(); 9].map(|()| {
            let before = Instant::now();
            let refused = server.fork_timeout(b"", (), Duration::from_millis(50)).unwrap_err();
            assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
            before.elapsed()
        });
        took.sort_unstable();
        let took = took[took.len() / 2];
        assert!(took < Duration::from_millis(400), "{took:?}");
        assert_errno(&server.fork_timeout(b"", (), Duration::from_secs(30)).unwrap_err().error, libc::EMFILE);
        // Whether the server was killed cannot be told.
        refuse_calls(&[libc::SYS_waitid], libc::EPERM);
        assert_errno(&server.fork_timeout(b"", (), Duration::from_secs(30)).unwrap_err().error, libc::EPERM);
    });
}

fn a_start_in_a_full_table_is_an_error() {
    for free in 0..4 {
        let full = limit_descriptors(free);
        let started = ForkServer::start(|_, _| ());
        drop(full);
        match started {
            // The server's table is as full.
            Ok(server) => assert_errno(&server.fork(b"", ()).unwrap_err().error, libc::EMFILE),
            Err(error) => assert_errno(&error, libc::EMFILE),
        }
    }
}

fn as_many_ends_as_a_message_carries() {
    let server = ForkServer::start(|message, mut ends: Received| {
        let writers: Vec<PipeWriter> = (0..ends.len()).map(|_| ends.take().unwrap()).collect();
        writers.iter().for_each(|writer| writer.write_atomic(&message).unwrap());
    })
    .unwrap();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let child = server.fork(b"x", vec![&writer; 253]).unwrap();
        let refused = server.fork(b"x", vec![&writer; 254]).unwrap_err();
        assert!(matches!(refused.error, Error::TooLong { len: 254, max: 253 }), "{refused:?}");
        drop(writer);
        assert_eq!(read_all(reader).len(), 253);
        assert_eq!(exit_code(&child), 0);
    });
}

fn ends_over_the_limit_of_what_is_under_way_come_back() {
    become_nobody();
    limit(libc::RLIMIT_NOFILE, |_| 64);
    let server = echo();
    let order = || {
        let (reader, writer) = pipe().unwrap();
        match server.fork_timeout(b"x", writer, Duration::from_secs(30)) {
            Ok(child) => {
                assert_eq!(read_all(reader), b"x");
                assert_eq!(exit_code(&child), 0);
                true
            }
            Err(refused) => {
                assert_errno(&refused.error, libc::ETOOMANYREFS);
                refused.ends.write_atomic(b"mine").unwrap();
                assert_eq!(reader.available().unwrap(), 4);
                false
            }
        }
    };
    in_a_thread(|| {
        assert!(order());
        let DatagramPair { parent, child } = datagram_pair().unwrap();
        let (reader, _writer) = pipe().unwrap();
        // One by one, so that each of an order's own descriptors is once the one too many.
        let mut under_way = 0;
        let mut outcomes = Vec::new();
        while parent.try_send_with(b"", &reader).is_ok() {
            under_way += 1;
            outcomes.push(order());
        }
        assert!(under_way >= 60, "{under_way}");
        assert!(outcomes[0] && !outcomes[outcomes.len() - 1], "{outcomes:?}");
        drop((parent, child));
        assert!(order());
    });
}

fn the_process_limit_is_an_error() {
    become_nobody();
    let server = echo();
    limit(libc::RLIMIT_NPROC, |_| 0);
    // Of the server.
    let limit_processes = |most: &libc::rlimit| {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid limit, room for the one before, and a process of the same user.
        let set = unsafe { libc::prlimit(server.id() as i32, libc::RLIMIT_NPROC, most, &mut before) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        before
    };
    // SAFETY: room for a limit.
    let most = unsafe {
        let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_NPROC, &mut own), 0);
        own.rlim_max
    };
    let before = limit_processes(&libc::rlimit { rlim_cur: 0, rlim_max: most });
    let (_reader, writer) = pipe().unwrap();
    let refused = server.fork(b"", writer).unwrap_err();
    assert!(matches!(&refused.error, Error::System { call: "fork", .. }), "{refused:?}");
    assert_errno(&refused.error, libc::EAGAIN);
    // Later workers are children of whose they would have been.
    limit_processes(&before);
    let child = server.fork(b"", refused.ends).unwrap();
    let is_own = children().iter().any(|(pid, _)| *pid as u32 == child.id());
    assert_eq!(is_own, MAKES_SIBLINGS.load(Relaxed));
    assert_eq!(exit_code(&child), 0);
}

fn a_server_without_memory_for_a_message_says_so() {
    // So long that the C library asks the kernel for it.
    const LONG: usize = 190_000;
    let server = ForkServer::start(|message, mut ends: Received| {
        ends.take::<PipeWriter>().unwrap().write_atomic(&message.len().to_ne_bytes()).unwrap();
    })
    .unwrap();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let limit_memory = |bytes: libc::rlim_t| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a limit, and no room for the old one.
            let set = unsafe { libc::prlimit(server.id() as i32, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        };
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", server.id())).unwrap();
        let pages: libc::rlim_t = pages.split(' ').next().unwrap().parse().unwrap();
        limit_memory((pages + 8) * 4096);
        let refused = server.fork(&[0; LONG], &writer).unwrap_err();
        assert_errno(&refused.error, libc::ENOMEM);
        // What is short has room, and with more memory so has what is long.
        assert_eq!(exit_code(&server.fork(b"short", &writer).unwrap()), 0);
        limit_memory(libc::RLIM_INFINITY);
        assert_eq!(exit_code(&server.fork(&[0; LONG], writer).unwrap()), 0);
        let said = read_all(reader);
        let lengths: Vec<_> = said.chunks(8).map(|len| usize::from_ne_bytes(len.try_into().unwrap())).collect();
        assert_eq!(lengths, [5, LONG]);
    });
}
