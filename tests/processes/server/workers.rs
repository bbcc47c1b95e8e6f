//! A worker is a child like any, with its message and its ends and nothing else.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{MAKES_SIBLINGS, all_ways, at_rest, descriptors, signal};
use crate::support::{
    Gate, Trial, block_signal, exit_code, handle_signal, handled, poll_until, process_state, read_all, signal_mask,
    with_interval_timer,
};
use ipc::{
    DatagramSocket, Error, Fork, ForkServer, PipeReader, PipeWriter, Received, Watch, datagram_pair, fork, open_ends,
    pipe, wait_any,
};

pub fn trials() -> Vec<Trial> {
    all_ways![
        a_worker_has_its_message_and_its_ends,
        threads_start_workers_at_the_same_moment,
        what_a_worker_returns_becomes_its_status,
        a_worker_is_waited_for_like_any_child,
        a_dropped_worker_runs_on,
        eof_arrives_although_other_workers_run,
        a_worker_has_no_end_but_its_own,
        ends_that_the_entry_captured_are_not_given,
        the_server_keeps_nothing_of_an_order,
        messages_of_every_length_arrive_or_are_refused,
        ends_can_be_lent,
        a_worker_is_as_the_program_was_at_the_start,
        a_worker_has_the_signals_of_the_start,
        a_workers_signals_can_be_reset,
        a_worker_may_have_threads_locks_and_children,
        nothing_is_printed_twice,
        forks_under_a_storm_of_signals,
        the_server_is_an_end_and_a_child_until_it_is_dropped,
    ]
}

/// Runs something in a second thread, so that this process is not to be forked.
pub fn in_a_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A server whose workers write their message to their one end.
pub fn echo() -> ForkServer {
    ForkServer::start(|message, mut ends: Received| ends.take::<PipeWriter>()?.write_all(&message)).unwrap()
}

fn a_worker_has_its_message_and_its_ends() {
    let server = ForkServer::start(|message: Vec<u8>, mut ends: Received| -> ipc::Result<u8> {
        let mut reader: PipeReader = ends.take()?;
        let mut writer: PipeWriter = ends.take()?;
        assert!(ends.is_empty() && ends.sender().is_none());
        assert_eq!(ends.message_len(), message.len());
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        writer.write_all(text.as_bytes())?;
        writer.write_all(&message)?;
        Ok(7)
    })
    .unwrap();
    in_a_thread(|| {
        assert!(matches!(fork((), |()| ()).unwrap_err().error, Error::MultiThreaded { .. }));
        let (reader, mut orders) = pipe().unwrap();
        let (results, writer) = pipe().unwrap();
        let child = server.fork(b"job 7", (reader, writer)).unwrap();
        orders.write_all(b"the first ").unwrap();
        drop(orders);
        assert_eq!(read_all(results), b"the first job 7");
        assert_eq!(exit_code(&child), 7);
    });
}

fn threads_start_workers_at_the_same_moment() {
    let server = echo();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..25 {
                    let (reader, writer) = pipe().unwrap();
                    let child = server.fork(&[thread, round], writer).unwrap();
                    assert_eq!(read_all(reader), [thread, round]);
                    assert_eq!(exit_code(&child), 0);
                }
            });
        }
    });
}

fn what_a_worker_returns_becomes_its_status() {
    let server = ForkServer::start(|message: Vec<u8>, _| -> Result<u8, String> {
        match message[0] {
            0 => Ok(message[1]),
            1 => Err("an error".to_owned()),
            2 => panic!("a panic"),
            3 => std::process::exit(9),
            _ => std::process::abort(),
        }
    })
    .unwrap();
    in_a_thread(|| {
        let status = |message: &[u8]| server.fork(message, ()).unwrap().wait().unwrap();
        assert_eq!(status(&[0, 255]).code(), Some(255));
        assert_eq!(status(&[1]).code(), Some(1));
        assert_eq!(status(&[2]).code(), Some(101));
        assert_eq!(status(&[3]).code(), Some(9));
        assert_eq!(status(&[4]).signal(), Some(libc::SIGABRT));
    });
    let printed = std::fs::read_to_string("/proc/self/fd/1").unwrap();
    assert!(printed.contains("Error: \"an error\"") && printed.contains("a panic"), "{printed}");
}

/// A server whose workers wait for EOF, and leave with their message.
fn waiting() -> ForkServer {
    ForkServer::start(|message: Vec<u8>, mut ends: Received| -> ipc::Result<u8> {
        ends.take::<PipeReader>()?.read_to_end(&mut Vec::new())?;
        Ok(message[0])
    })
    .unwrap()
}

fn a_worker_is_waited_for_like_any_child() {
    let server = waiting();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let child = server.fork(&[3], reader).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(child.wait_timeout(Duration::from_millis(1)).unwrap(), None);
        child.signal(0).unwrap();
        assert_eq!(wait_any(&mut [Watch::readable(&child)], Some(Duration::ZERO)).unwrap(), 0);
        drop(writer);
        assert_eq!(wait_any(&mut [Watch::readable(&child)], None).unwrap(), 1);
        let mut status = child.try_wait().unwrap();
        if !MAKES_SIBLINGS.load(Relaxed) {
            // For a moment, until the server has reported it, it is not known.
            poll_until("it is reported", || {
                status = status.or_else(|| child.try_wait().unwrap());
                status.is_some()
            });
        }
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(exit_code(&child), 3);
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().unwrap().code(), Some(3));
        child.kill().unwrap();

        let (reader, _writer) = pipe().unwrap();
        let child = server.fork(&[3], reader).unwrap();
        std::thread::scope(|scope| {
            let waiters = [(); 3].map(|()| scope.spawn(|| child.wait().unwrap()));
            child.kill().unwrap();
            waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap().signal(), Some(libc::SIGKILL)));
        });
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        child.kill().unwrap();
        child.signal(libc::SIGTERM).unwrap_err();
    });
}

fn a_dropped_worker_runs_on() {
    let server = waiting();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let id = server.fork(&[3], &reader).unwrap().id();
        signal(id, 0);
        drop(reader);
        // Still there: it holds the last reader.
        writer.write_atomic(b"x").unwrap();
        drop(writer);
        poll_until("the worker leaves", || {
            let mut status = 0;
            // SAFETY: room for a status. Where it is the server's child, that waits for it.
            unsafe { libc::waitpid(id as i32, &mut status, libc::WNOHANG) };
            process_state(id).is_none()
        });
    });
}

fn eof_arrives_although_other_workers_run() {
    let server = ForkServer::start(|_, mut ends: Received| -> ipc::Result<()> {
        let mut reader: PipeReader = ends.take()?;
        let _writer: PipeWriter = ends.take()?;
        reader.read_to_end(&mut Vec::new())?;
        Ok(())
    })
    .unwrap();
    in_a_thread(|| {
        let mut workers = Vec::new();
        for _ in 0..3 {
            let (reader, stop) = pipe().unwrap();
            let (end, writer) = pipe().unwrap();
            workers.push((server.fork(b"", (reader, writer)).unwrap(), stop, end));
        }
        // The one in the middle first.
        for place in [1, 0, 0] {
            let (child, stop, end) = workers.remove(place);
            drop(stop);
            assert_eq!(read_all(end), b"");
            assert_eq!(exit_code(&child), 0);
        }
    });
}

fn a_worker_has_no_end_but_its_own() {
    let (_reader, _writer) = pipe().unwrap();
    let server = ForkServer::start(|_, mut ends: Received| -> ipc::Result<()> {
        let socket: DatagramSocket = ends.take()?;
        let own = descriptors(std::process::id());
        // Every other one that is a channel is an inert one by now.
        let channels = own.iter().filter(|(_, target)| target.starts_with("socket:") || target.contains("pidfd"));
        assert_eq!(channels.map(|(number, _)| *number).collect::<Vec<_>>(), [socket.as_raw_fd()]);
        // The standard ones are those of whoever runs the tests.
        assert!(!own.range(3..).any(|(_, target)| target.starts_with("pipe:")), "{own:?}");
        assert_eq!(open_ends(), 1);
        socket.send(format!("{}", own.len()).as_bytes())?;
        socket.recv_vec()?;
        Ok(())
    })
    .unwrap();
    in_a_thread(|| {
        // Whoever comes later has no more of them.
        let mut lengths = Vec::new();
        let workers = [(); 3].map(|()| {
            let pair = datagram_pair().unwrap();
            let child = server.fork(b"", pair.child).unwrap();
            lengths.push(pair.parent.recv_vec().unwrap().expect("the worker is fine"));
            (child, pair.parent)
        });
        assert!(lengths.iter().all(|len| *len == lengths[0]), "{lengths:?}");
        for (child, socket) in workers {
            drop(socket);
            assert_eq!(exit_code(&child), 0);
        }
    });
}

fn ends_that_the_entry_captured_are_not_given() {
    let (reader, writer) = pipe().unwrap();
    let server = ForkServer::start(move |_, _| {
        assert!(matches!(writer.write_atomic(b"x"), Err(Error::NotGiven)));
    })
    .unwrap();
    // What was captured is dropped here.
    assert_eq!(read_all(reader), b"");
    assert_eq!(in_a_thread(|| exit_code(&server.fork(b"", ()).unwrap())), 0);
}

fn the_server_keeps_nothing_of_an_order() {
    let server = echo();
    in_a_thread(|| {
        let order = || {
            let (reader, writer) = pipe().unwrap();
            let child = server.fork(b"x", writer).unwrap();
            assert_eq!(read_all(reader), b"x");
            assert_eq!(exit_code(&child), 0);
        };
        order();
        let before = at_rest(server.id());
        (0..50).for_each(|_| order());
        poll_until("the server holds what it held before", || descriptors(server.id()) == before);
    });
}

fn messages_of_every_length_arrive_or_are_refused() {
    let server = echo();
    in_a_thread(|| {
        for len in [0, 1, 4096, 100_000, 212_960, 1 << 20, 4160 << 10] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (reader, writer) = pipe().unwrap();
            match server.fork(&message, writer) {
                Ok(child) => {
                    assert!(read_all(reader) == message, "{len}");
                    assert_eq!(exit_code(&child), 0);
                }
                // As an ordinary user.
                Err(refused) => {
                    assert!(matches!(refused.error, Error::TooLong { len: long, .. } if long == len), "{refused:?}");
                    assert!(len > 200_000);
                    let most = datagram_pair().unwrap().parent.set_max_message(len).unwrap();
                    assert!(most < len, "the kernel allows {most}");
                    refused.ends.write_atomic(b"mine").unwrap();
                }
            }
        }
        let refused = server.fork(&vec![0; 8 << 20], ()).unwrap_err();
        assert!(matches!(refused.error, Error::TooLong { len: 0x80_0000, max: 1.. }), "{refused:?}");
        assert_eq!(open_ends(), 1);
    });
}

fn ends_can_be_lent() {
    let server = echo();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        for number in 0..3 {
            assert_eq!(exit_code(&server.fork(&[number], &writer).unwrap()), 0);
        }
        drop(writer);
        assert_eq!(read_all(reader), [0, 1, 2]);
        // And what is no end of this crate.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = server.fork(b"std", OwnedFd::from(writer)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "std");
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_worker_is_as_the_program_was_at_the_start() {
    let set = |value: &str| {
        std::env::set_current_dir(value).unwrap();
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("OF_THE_START", value) };
    };
    set("/proc");
    block_signal(libc::SIGUSR2);
    let (captured, mask) = (vec![1, 2, 3], signal_mask());
    let server = ForkServer::start(move |message: Vec<u8>, _| {
        assert_eq!(message, captured);
        assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/proc"));
        assert_eq!(std::env::var("OF_THE_START").as_deref(), Ok("/proc"));
        assert!(std::env::var_os("OF_LATER").is_none());
        assert_eq!(signal_mask(), mask);
        5_u8
    })
    .unwrap();
    set("/");
    // SAFETY: as above.
    unsafe { std::env::set_var("OF_LATER", "") };
    block_signal(libc::SIGHUP);
    assert_eq!(in_a_thread(|| exit_code(&server.fork(&[1, 2, 3], ()).unwrap())), 5);
}

fn a_worker_has_the_signals_of_the_start() {
    handle_signal(libc::SIGUSR1);
    block_signal(libc::SIGUSR2);
    let before = signal_mask();
    let expected = before.clone();
    let server = ForkServer::start(move |_, _| {
        assert_eq!(signal_mask(), expected);
        // SAFETY: numbers.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(handled(), 1);
        // SAFETY: numbers.
        unsafe { libc::raise(libc::SIGHUP) };
    })
    .unwrap();
    assert_eq!(signal_mask(), before);
    block_signal(libc::SIGHUP);
    handle_signal(libc::SIGHUP);
    let status = in_a_thread(|| server.fork(b"", ()).unwrap().wait().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGHUP));
}

fn a_workers_signals_can_be_reset() {
    handle_signal(libc::SIGUSR1);
    block_signal(libc::SIGUSR1);
    let server = Fork::new()
        .reset_signals()
        .serve(|_, _| {
            assert_eq!(signal_mask(), []);
            // SAFETY: numbers.
            unsafe { libc::raise(libc::SIGUSR1) };
        })
        .unwrap();
    let status = in_a_thread(|| server.fork(b"", ()).unwrap().wait().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGUSR1));
}

fn a_worker_may_have_threads_locks_and_children() {
    let server = ForkServer::start(|_, _| {
        // The number that libc keeps of the thread is the thread's: a mutex that looks for deadlocks uses it.
        // SAFETY: a mutex and its attributes, initialised here and used by this thread.
        unsafe {
            let mut kind = std::mem::zeroed();
            libc::pthread_mutexattr_init(&mut kind);
            libc::pthread_mutexattr_settype(&mut kind, libc::PTHREAD_MUTEX_ERRORCHECK);
            let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
            libc::pthread_mutex_init(&mut mutex, &kind);
            assert_eq!(libc::pthread_mutex_lock(&mut mutex), 0);
            if cfg!(all(target_env = "gnu", target_pointer_width = "64")) {
                // __lock, __count, __owner
                let owner = (&raw const mutex).cast::<i32>().add(2).read();
                assert_eq!(owner, libc::gettid());
            }
            assert_eq!(libc::pthread_mutex_unlock(&mut mutex), 0);
            assert_eq!(libc::gettid(), libc::getpid());
            // What the kernel knows of its robust mutexes.
            let mut head = (std::ptr::null_mut::<libc::c_void>(), 0_usize);
            assert_eq!(libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head.0, &raw mut head.1), 0);
            assert!(!head.0.is_null());
        }
        let threads: Vec<_> = (0..8).map(|number| std::thread::spawn(move || number)).collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>(), 28);
        assert_eq!(exit_code(&fork((), |()| 5_u8).unwrap()), 5);
        let inner = ForkServer::start(|message: Vec<u8>, _| message[0]).unwrap();
        assert_eq!(in_a_thread(|| exit_code(&inner.fork(&[6], ()).unwrap())), 6);
    })
    .unwrap();
    assert_eq!(in_a_thread(|| exit_code(&server.fork(b"", ()).unwrap())), 0);
}

fn nothing_is_printed_twice() {
    print!("before the start; ");
    let server = ForkServer::start(|_, _| print!("by a worker; ")).unwrap();
    print!("after the start; ");
    in_a_thread(|| {
        for _ in 0..2 {
            assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
        }
    });
    drop(server);
    std::io::stdout().flush().unwrap();
    let printed = std::fs::read_to_string("/proc/self/fd/1").unwrap();
    for (text, times) in [("before the start; ", 1), ("by a worker; ", 2), ("after the start; ", 1)] {
        assert_eq!(printed.matches(text).count(), times, "{printed}");
    }
}

fn forks_under_a_storm_of_signals() {
    with_interval_timer(Duration::from_micros(200), || {
        let server = ForkServer::start(|message: Vec<u8>, _| message[0]).unwrap();
        in_a_thread(|| {
            for number in 0..100 {
                let child = server.fork_timeout(&[number], (), Duration::from_secs(30)).unwrap();
                assert_eq!(child.wait().unwrap().code(), Some(number.into()));
            }
        });
    });
}

fn the_server_is_an_end_and_a_child_until_it_is_dropped() {
    let server = ForkServer::start(|_, _| ()).unwrap();
    assert_eq!(open_ends(), 1);
    signal(server.id(), 0);
    // Nobody finds out from it whether the server is there but by asking; a second one is another.
    let other = ForkServer::start(|_, _| 1_u8).unwrap();
    assert_ne!(server.id(), other.id());
    in_a_thread(|| {
        assert_eq!(exit_code(&other.fork(b"", ()).unwrap()), 1);
        assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
    });
    drop(server);
    in_a_thread(|| assert_eq!(exit_code(&other.fork(b"", ()).unwrap()), 1));
    let gate = Gate::new();
    gate.open();
    gate.pass();
}
