//! A server that is killed or stopped, and orders that nobody waits for any more.

use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::workers::{echo, in_a_thread};
use super::{all_ways, at_rest, descriptors, signal};
use crate::support::{Trial, asleep_in, exit_code, handle_signal, handled, poll_until, process_state, read_all};
use ipc::{DatagramSocket, Error, ForkServer, PipeReader, PipeWriter, Received, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    all_ways![
        a_server_that_was_killed_is_closed_and_gives_the_ends_back,
        workers_go_on_without_their_server,
        ctrl_c_right_after_the_start_does_not_end_the_server,
        signals_to_the_group_do_not_end_the_server,
        a_server_that_was_stopped_times_out_and_nothing_has_run,
        orders_that_a_stopped_server_does_not_answer_take_few_descriptors,
        a_stopped_server_that_is_dropped_is_gone,
        a_worker_that_does_not_leave_holds_nobody_past_a_deadline,
        a_stopped_server_that_is_killed_answers_who_waits,
        a_look_at_a_worker_does_not_wait_for_its_server,
        a_worker_of_a_stopped_server_is_waited_for,
    ]
}

fn a_server_that_was_killed_is_closed_and_gives_the_ends_back() {
    let server = echo();
    in_a_thread(|| {
        signal(server.id(), libc::SIGKILL);
        for _ in 0..3 {
            let (reader, writer) = pipe().unwrap();
            let refused = server.fork(b"x", writer).unwrap_err();
            assert!(matches!(refused.error, Error::Closed), "{refused:?}");
            refused.ends.write_atomic(b"mine").unwrap();
            assert_eq!(reader.available().unwrap(), 4);
        }
        assert_eq!(open_ends(), 1);
    });
}

fn workers_go_on_without_their_server() {
    let server = ForkServer::start(|_, mut ends: Received| -> ipc::Result<u8> {
        let mut reader: PipeReader = ends.take()?;
        let writer: PipeWriter = ends.take()?;
        writer.write_atomic(b"it runs, ")?;
        reader.read_to_end(&mut Vec::new())?;
        writer.write_atomic(b"and on")?;
        Ok(3)
    })
    .unwrap();
    in_a_thread(|| {
        let mut workers = [(); 2].map(|()| {
            let (reader, stop) = pipe().unwrap();
            let (results, writer) = pipe().unwrap();
            let child = server.fork(b"", (reader, writer)).unwrap();
            let mut first = [0; 9];
            (&results).read_exact(&mut first).unwrap();
            (child, Some(stop), results)
        });
        signal(server.id(), libc::SIGKILL);
        assert!(matches!(server.fork(b"", ()).unwrap_err().error, Error::Closed));
        for (child, stop, _) in &mut workers {
            assert_eq!(child.try_wait().unwrap(), None);
            drop(stop.take());
        }
        let [(first, _, results), (second, _, _)] = workers;
        assert_eq!(read_all(results), b"and on");
        // This process adopts orphans, so that their status is its own to know, whosever children they were.
        assert_eq!(exit_code(&first), 3);
        drop(server);
        assert_eq!(exit_code(&second), 3);
    });
}

fn ctrl_c_right_after_the_start_does_not_end_the_server() {
    handle_signal(libc::SIGINT);
    // SAFETY: this process has one thread. The child makes system calls until it is killed.
    let storm = unsafe { libc::fork() };
    if storm == 0 {
        // SAFETY: numbers. The test leads a group of its own.
        unsafe {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            loop {
                libc::kill(0, libc::SIGINT);
                libc::usleep(50);
            }
        }
    }
    poll_until("the storm comes", || handled() > 0);
    for _ in 0..20 {
        let server = ForkServer::start(|_, _| 7_u8).unwrap();
        // With the handler of the start.
        assert_eq!(in_a_thread(|| exit_code(&server.fork(b"", ()).unwrap())), 7);
    }
    signal(storm as u32, libc::SIGKILL);
    // The last of the signals may interrupt it.
    // SAFETY: a child that nobody has waited for.
    while unsafe { libc::waitpid(storm, std::ptr::null_mut(), 0) } != storm {}
}

fn signals_to_the_group_do_not_end_the_server() {
    for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTERM, libc::SIGTSTP, libc::SIGALRM] {
        // With the handlers of the start, which is none.
        let server = ForkServer::start(|_, mut ends: Received| {
            ends.take::<PipeReader>().unwrap().read_to_end(&mut Vec::new()).unwrap();
        })
        .unwrap();
        handle_signal(number);
        in_a_thread(|| {
            let (reader, writer) = pipe().unwrap();
            let child = server.fork(b"", reader).unwrap();
            asleep_in(child.id(), &[libc::SYS_read, libc::SYS_preadv2, libc::SYS_ppoll]);
            // SAFETY: numbers. The test leads a group of its own.
            unsafe { libc::kill(0, number) };
            if number == libc::SIGTSTP {
                poll_until("the worker is stopped", || process_state(child.id()) == Some('T'));
                child.signal(libc::SIGCONT).unwrap();
                drop(writer);
                assert_eq!(exit_code(&child), 0);
            } else {
                assert_eq!(child.wait().unwrap().signal(), Some(number));
            }
            let (reader, _) = pipe().unwrap();
            assert_eq!(exit_code(&server.fork(b"", reader).unwrap()), 0);
        });
        // SAFETY: numbers.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn a_server_that_was_stopped_times_out_and_nothing_has_run() {
    let server = echo();
    in_a_thread(|| {
        // So that it is what it will be.
        let (reader, writer) = pipe().unwrap();
        assert_eq!(exit_code(&server.fork(b"", writer).unwrap()), 0);
        drop(reader);
        let held = at_rest(server.id());
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        let (reader, writer) = pipe().unwrap();
        for timeout in [0, 1, 20] {
            let timeout = Duration::from_millis(timeout);
            let before = Instant::now();
            let refused = server.fork_timeout(b"late", &writer, timeout).unwrap_err();
            assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
            assert!(before.elapsed() >= timeout);
        }
        signal(server.id(), libc::SIGCONT);
        let child = server.fork(b"now", writer).unwrap();
        assert_eq!(read_all(reader), b"now");
        assert_eq!(exit_code(&child), 0);
        poll_until("the server holds what it held before", || descriptors(server.id()) == held);
    });
}

fn orders_that_a_stopped_server_does_not_answer_take_few_descriptors() {
    let server = echo();
    in_a_thread(|| {
        let own = || descriptors(std::process::id()).len();
        let (reader, writer) = pipe().unwrap();
        assert_eq!(exit_code(&server.fork(b"", &writer).unwrap()), 0);
        let before = (own(), at_rest(server.id()));
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        for _ in 0..200 {
            let refused = server.fork_timeout(b"late", &writer, Duration::from_micros(100)).unwrap_err();
            assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
        }
        assert!(own() <= before.0 + 64, "{}", own());
        signal(server.id(), libc::SIGCONT);
        assert_eq!(exit_code(&server.fork_timeout(b"now", &writer, Duration::from_secs(30)).unwrap()), 0);
        poll_until("the server holds what it held before", || descriptors(server.id()) == before.1);
        // Whatever has settled by now is let go of with the next order.
        assert_eq!(exit_code(&server.fork(b", then", &writer).unwrap()), 0);
        assert_eq!(own(), before.0);
        drop(writer);
        assert_eq!(read_all(reader), b"now, then");
    });
}

fn a_stopped_server_that_is_dropped_is_gone() {
    let server = echo();
    signal(server.id(), libc::SIGSTOP);
    let refused = server.fork_timeout(b"late", (), Duration::ZERO).unwrap_err();
    assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
    let id = server.id();
    drop(server);
    assert_eq!(process_state(id), None);
}

/// A copy of the server's end of its control socket.
fn control_of(server: u32) -> DatagramSocket {
    let (number, _) = at_rest(server).into_iter().find(|(_, target)| target.starts_with("socket:")).unwrap();
    // SAFETY: numbers, and then a descriptor that is nobody else's.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, server, 0) as i32;
        let copy = libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0) as i32;
        assert!(copy >= 0, "{}", std::io::Error::last_os_error());
        libc::close(pidfd);
        OwnedFd::from_raw_fd(copy).try_into().unwrap()
    }
}

/// Played by this test, which has the worker's end of an order that the server never answers.
fn a_worker_that_does_not_leave_holds_nobody_past_a_deadline() {
    let mut took = Vec::new();
    for _ in 0..5 {
        poll_until("no thread is left", || std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        let server = echo();
        let control = control_of(server.id());
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        let held = std::thread::scope(|scope| {
            let order = scope.spawn(|| {
                let before = Instant::now();
                let refused = server.fork_timeout(b"x", (), Duration::from_millis(300)).unwrap_err();
                assert!(matches!(refused.error, Error::Closed | Error::TimedOut), "{refused:?}");
                took.push(before.elapsed());
            });
            let held = control.recv_with(&mut Vec::new()).unwrap().unwrap();
            assert_eq!(held.len(), 1);
            drop(control);
            signal(server.id(), libc::SIGKILL);
            order.join().unwrap();
            held
        });
        drop(held);
        drop(server);
    }
    // A worker that was told to leave has a second for it, and most of the calls are not held up by the machine.
    took.sort_unstable();
    let took = took[took.len() / 2];
    assert!(took < Duration::from_millis(900), "{took:?}");
}

fn a_stopped_server_that_is_killed_answers_who_waits() {
    let server = echo();
    signal(server.id(), libc::SIGSTOP);
    std::thread::scope(|scope| {
        let waiting = [(); 4].map(|()| {
            scope.spawn(|| {
                let (reader, writer) = pipe().unwrap();
                let refused = server.fork(b"x", writer).unwrap_err();
                assert!(matches!(refused.error, Error::Closed), "{refused:?}");
                drop(refused.ends);
                assert_eq!(read_all(reader), b"");
            })
        });
        // Once all of them wait.
        let tasks = || std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name());
        let me = std::process::id().to_string();
        poll_until("all of them wait", || {
            let others: Vec<_> = tasks().filter(|task| *task != *me).collect();
            let asleep =
                |task: &&std::ffi::OsString| process_state(task.to_str().unwrap().parse().unwrap()) == Some('S');
            others.len() == 4 && others.iter().filter(asleep).count() == 4
        });
        signal(server.id(), libc::SIGKILL);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn a_look_at_a_worker_does_not_wait_for_its_server() {
    // Whether the kernel says how a process has left that its parent has not waited for.
    for number in [0_u8, 5] {
        let server = ForkServer::start(|message: Vec<u8>, mut ends: Received| -> ipc::Result<u8> {
            ends.take::<PipeReader>()?.read_to_end(&mut Vec::new())?;
            Ok(message[0])
        })
        .unwrap();
        let (hold, release) = pipe().unwrap();
        let child = server.fork(&[number], hold).unwrap();
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        assert_eq!(child.try_wait().unwrap(), None);
        drop(release);
        ipc::wait_any(&mut [ipc::Watch::readable(&child)], None).unwrap();
        // The server will not say so as long as it is stopped.
        assert_eq!(child.try_wait().unwrap().map(|status| status.code()), Some(Some(number.into())));
        signal(server.id(), libc::SIGCONT);
        assert_eq!(exit_code(&child), number.into());
    }
}

fn a_worker_of_a_stopped_server_is_waited_for() {
    let server = ForkServer::start(|_message: Vec<u8>, _ends: Received| -> () {
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let workers = [(); 4].map(|()| server.fork(b"", ()).unwrap());
    let shut_down = server.fork(b"", ()).unwrap();
    signal(server.id(), libc::SIGSTOP);
    poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
    let [waited, timed, looked, dropped] = workers;
    for worker in [&waited, &timed, &looked] {
        worker.kill().unwrap();
        ipc::wait_any(&mut [ipc::Watch::readable(worker)], None).unwrap();
    }
    let killed = |status: std::process::ExitStatus| status.signal() == Some(libc::SIGKILL);
    assert!(killed(waited.wait().unwrap()));
    assert!(timed.wait_timeout(Duration::from_millis(10)).unwrap().is_some_and(killed));
    assert!(looked.wait_timeout(Duration::ZERO).unwrap().is_some_and(killed));
    drop(dropped.kill_on_drop());
    assert_eq!(shut_down.shut_down(Duration::from_secs(60)).unwrap().signal(), Some(libc::SIGTERM));
    signal(server.id(), libc::SIGCONT);
}
