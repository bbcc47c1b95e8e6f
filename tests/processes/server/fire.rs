//! Workers and servers that are killed at any moment.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::callers::await_all_orphans;
use super::workers::echo;
use super::{MAKES_SIBLINGS, all_ways, signal};
use crate::support::{Trial, exit_code, poll_until, rounds};
use ipc::{Error, ForkServer, PipeReader, PipeWriter, Received, fork, pipe};

pub fn trials() -> Vec<Trial> {
    all_ways![
        workers_of_eight_threads_are_killed_at_random within 120,
        workers_of_eight_threads_and_their_servers_are_killed_at_random within 120,
        a_server_that_is_killed_at_any_moment_has_run_what_it_answered within 120,
        orders_that_time_out_at_any_moment_have_run_nothing within 120,
        a_caller_that_is_killed_at_any_moment_leaves_nobody within 120,
    ]
}

/// Numbers that look random, from a seed that the failing test prints.
struct Random(u64);

impl Random {
    fn new(number: u64) -> Self {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 ^ (number << 40);
        println!("seed {seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Its workers write their message, and again once the other end of their reader is closed.
fn twice() -> ForkServer {
    ForkServer::start(|message: Vec<u8>, mut ends: Received| -> ipc::Result<u8> {
        let mut reader: PipeReader = ends.take()?;
        let writer: PipeWriter = ends.take()?;
        writer.write_atomic(&message)?;
        reader.read_to_end(&mut Vec::new())?;
        writer.write_atomic(&message)?;
        Ok(7)
    })
    .unwrap()
}

/// Orders a worker of [`twice`], and kills it or not. Returns whether it did; `None` if the server is gone.
fn order(server: &ForkServer, random: &mut Random) -> Option<bool> {
    let (reader, stop) = pipe().unwrap();
    let (mut results, writer) = pipe().unwrap();
    let message = random.below(u64::MAX).to_ne_bytes();
    let child = match server.fork(&message, (reader, writer)) {
        Ok(child) => child,
        Err(refused) => {
            assert!(matches!(refused.error, Error::Closed), "{refused:?}");
            // Nothing has run, and everything is still here.
            refused.ends.1.write_atomic(b"mine").unwrap();
            drop(refused.ends);
            let mut said = Vec::new();
            results.read_to_end(&mut said).unwrap();
            assert_eq!(said, b"mine");
            return None;
        }
    };
    let kills = random.below(2) == 0;
    if kills {
        pause(Duration::from_micros(random.below(500)));
        child.kill().unwrap();
    }
    drop(stop);
    let mut said = Vec::new();
    results.read_to_end(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(said.chunks(8).all(|part| part == message) && said.len() <= 16, "{said:?}");
    match status.signal() {
        Some(libc::SIGKILL) if kills => Some(true),
        _ => {
            assert!(status.code() == Some(7) && said.len() == 16, "{status} {said:?}");
            Some(false)
        }
    }
}

fn workers_of_eight_threads_are_killed_at_random() {
    let server = twice();
    let each = rounds(13);
    let killed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (server, killed) = (&server, &killed);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for _ in 0..each {
                    let is_killed = order(server, &mut random).expect("the server is there");
                    killed.fetch_add(is_killed.into(), SeqCst);
                }
            });
        }
    });
    assert!(killed.load(SeqCst) > each, "{killed:?}");
    signal(server.id(), libc::SIGKILL);
    assert!(matches!(server.fork(b"", ()).unwrap_err().error, Error::Closed));
    if !MAKES_SIBLINGS.load(SeqCst) {
        // This process adopts orphans: those whose status was told and that the server had not waited for yet.
        drop(server);
        await_all_orphans();
    }
}

fn workers_of_eight_threads_and_their_servers_are_killed_at_random() {
    let wanted = rounds(100);
    let mut random = Random::new(8);
    let (begun, killed, mut servers) = (AtomicU64::new(0), AtomicU64::new(0), 0);
    while begun.load(SeqCst) < wanted {
        servers += 1;
        // A thread that was joined counts until it is gone, which takes long on a slow machine.
        poll_until("no thread is left", || std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        let server = twice();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (server, begun, killed) = (&server, &begun, &killed);
                let mut random = Random::new(thread);
                scope.spawn(move || {
                    while let Some(is_killed) = order(server, &mut random) {
                        begun.fetch_add(1, SeqCst);
                        killed.fetch_add(is_killed.into(), SeqCst);
                    }
                });
            }
            pause(Duration::from_micros(random.below(20_000)));
            signal(server.id(), libc::SIGKILL);
        });
        drop(server);
        if !MAKES_SIBLINGS.load(SeqCst) {
            // This process adopts orphans, and so those that the server had not waited for.
            await_all_orphans();
        }
    }
    println!("{begun:?} workers of {servers} servers, and {killed:?} of them were killed");
    assert!(killed.load(SeqCst) > 0);
}

fn a_server_that_is_killed_at_any_moment_has_run_what_it_answered() {
    let mut random = Random::new(0);
    for _ in 0..60 {
        // A thread that was joined counts until it is gone, which takes long on a slow machine.
        poll_until("no thread is left", || std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        let server = echo();
        let (reader, writer) = pipe().unwrap();
        let started = AtomicUsize::new(0);
        let goes_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while goes_on.load(SeqCst) {
                        match server.fork(b"!", &writer) {
                            Ok(child) => {
                                assert_eq!(exit_code(&child), 0);
                                started.fetch_add(1, SeqCst);
                            }
                            Err(refused) => {
                                assert!(matches!(refused.error, Error::Closed), "{refused:?}");
                                return;
                            }
                        }
                    }
                });
            }
            pause(Duration::from_micros(random.below(3000)));
            signal(server.id(), libc::SIGKILL);
        });
        goes_on.store(false, SeqCst);
        drop(writer);
        let mut begun = Vec::new();
        (&reader).read_to_end(&mut begun).unwrap();
        assert_eq!(begun.len(), started.load(SeqCst));
        if !MAKES_SIBLINGS.load(SeqCst) {
            // This process adopts orphans, and so those that the server had not waited for.
            drop(server);
            await_all_orphans();
        }
    }
}

fn orders_that_time_out_at_any_moment_have_run_nothing() {
    let mut random = Random::new(0);
    let server = echo();
    let (mut reader, writer) = pipe().unwrap();
    let (mut begun, mut late) = (0, 0);
    for _ in 0..rounds(60) {
        // A worker takes some hundred microseconds.
        match server.fork_timeout(b"!", &writer, Duration::from_micros(random.below(1000))) {
            Ok(child) => {
                assert_eq!(exit_code(&child), 0);
                begun += 1;
            }
            Err(refused) => {
                assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
                late += 1;
            }
        }
    }
    println!("{begun} have begun, {late} were late");
    drop((server, writer));
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert_eq!(said.len(), begun);
    if !MAKES_SIBLINGS.load(SeqCst) {
        // This process adopts orphans: a worker that came late may leave after the server.
        await_all_orphans();
    }
}

fn a_caller_that_is_killed_at_any_moment_leaves_nobody() {
    let mut random = Random::new(0);
    for _ in 0..rounds(8) {
        let (mut ready, told) = pipe().unwrap();
        let (results, writer) = pipe().unwrap();
        let caller = fork((told, writer), |(told, writer)| -> ! {
            let server = echo();
            std::thread::scope(|scope| {
                for thread in 0..2 {
                    let (server, told, writer) = (&server, &told, &writer);
                    scope.spawn(move || {
                        for round in 0.. {
                            let child = server.fork(b"!", writer).unwrap();
                            assert_eq!(exit_code(&child), 0);
                            if (thread, round) == (0, 0) {
                                told.write_atomic(b"!").unwrap();
                            }
                        }
                    });
                }
            });
            unreachable!("they go on for ever")
        })
        .unwrap();
        ready.read_exact(&mut [0]).unwrap();
        pause(Duration::from_micros(random.below(2000)));
        caller.kill().unwrap();
        assert_eq!(caller.wait().unwrap().signal(), Some(libc::SIGKILL));
        // The server, and every worker, are this process's by now.
        await_all_orphans();
        let mut begun = Vec::new();
        (&results).read_to_end(&mut begun).unwrap();
        assert!(!begun.is_empty() && begun.iter().all(|byte| *byte == b'!'));
    }
}
