//! Starts among other threads, signals, and whoever waits for every child.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::{errno, said, sh};
use crate::support::{self, FAR, Trial, exit_code, handle_signal, handled, poll_until, read_all, with_interval_timer};
use ipc::{Command, Error, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_exec_that_fails_among_threads_makes_no_signal_of_their_errors,
        an_exec_that_fails_among_threads_leaves_their_handlers_alone,
        a_failed_start_is_nobodys_child,
        whoever_waits_for_every_child_takes_no_program_away,
        a_hundred_threads_start_programs_at_once within 120,
        signals_all_the_time_do_no_harm within 120,
        a_fork_with_threads_holds_its_child within 120,
        an_exec_among_threads_changes_nothing,
        an_exec_of_a_failing_program_runs_no_handler_on_a_given_end,
    ]
}

fn an_exec_that_fails_among_threads_makes_no_signal_of_their_errors() {
    support::sigpipe(support::Sigpipe::Ignore);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                assert!(matches!(writer.write_atomic(b"x"), Err(Error::Closed)));
                started.store(true, SeqCst);
            }
        });
        while !started.load(SeqCst) {
            std::thread::yield_now();
        }
        execs_that_fail_among_threads();
        stop.store(true, SeqCst);
    });
}

/// Each takes 20 ms, in which the other thread could have left.
fn execs_that_fail_among_threads() {
    for _ in 0..support::rounds(3) {
        let refused = Command::new("/no/such/program").exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    }
}

fn an_exec_that_fails_among_threads_leaves_their_handlers_alone() {
    let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut lost = 0;
            while !stop.load(SeqCst) {
                for handler in [libc::SIG_IGN, libc::SIG_DFL] {
                    // SAFETY: two dispositions that are no functions.
                    unsafe { libc::signal(libc::SIGUSR1, handler) };
                    // SAFETY: as above.
                    lost += i32::from(unsafe { libc::signal(libc::SIGUSR1, handler) } != handler);
                }
                started.store(true, SeqCst);
            }
            lost
        });
        while !started.load(SeqCst) {
            std::thread::yield_now();
        }
        execs_that_fail_among_threads();
        stop.store(true, SeqCst);
        assert_eq!(other.join().unwrap(), 0, "set by that thread, and put back by this one");
    });
}

fn a_failed_start_is_nobodys_child() {
    handle_signal(libc::SIGCHLD);
    for _ in 0..100 {
        let refused = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    }
    assert_eq!(handled(), 0, "no signal came of one");
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) }, -1, "and none is left");
    assert_eq!(exit_code(&Command::new("true").spawn().unwrap()), 0);
    assert_eq!(handled(), 1);
}

/// Takes every child away, all the time, until it is told to stop.
pub(super) fn reaper(stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

fn whoever_waits_for_every_child_takes_no_program_away() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| reaper(&stop));
        for _ in 0..support::rounds(20) {
            let (reader, writer) = pipe().unwrap();
            let child = Command::new("echo").arg("hello").stdout(writer).spawn().expect("it is held");
            assert_eq!(read_all(reader), b"hello\n");
            match child.wait() {
                Ok(status) => assert!(status.success()),
                Err(Error::StatusTaken { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
            let refused = Command::new("/no/such/program").spawn().unwrap_err();
            assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        }
        stop.store(true, SeqCst);
    });
}

fn a_hundred_threads_start_programs_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..100 {
            scope.spawn(move || {
                for round in 0..support::rounds(1) {
                    let text = format!("{thread} {round}");
                    assert_eq!(said(Command::new("echo").arg(&text).close_others()), format!("{text}\n"));
                    let refused = Command::new("/no/such/program").spawn().unwrap_err();
                    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
                }
            });
        }
    });
    assert_eq!(open_ends(), 0);
}

fn signals_all_the_time_do_no_harm() {
    handle_signal(libc::SIGALRM);
    with_interval_timer(Duration::from_micros(100), || {
        let before = handled();
        for _ in 0..100 {
            // The timer is this process's, and a program has none. A handler that ran in it would count here.
            assert_eq!(sh("cat").communicate(b"input", Some(FAR)).unwrap().stdout, b"input");
            let refused = Command::new("no-such-program").spawn().unwrap_err();
            assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        }
        poll_until("a signal came", || handled() > before);
    });
}

fn a_fork_with_threads_holds_its_child() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| reaper(&stop));
        for _ in 0..support::rounds(30) {
            // SAFETY: the child leaves at once.
            let child = unsafe { ipc::fork_unchecked((), |()| 7_u8) }.expect("it is held");
            match child.wait() {
                Ok(status) => assert_eq!(status.code(), Some(7)),
                Err(Error::StatusTaken { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, SeqCst);
    });
}

fn an_exec_among_threads_changes_nothing() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let refused = sh("echo hello").stdout(writer).exec();
        assert!(matches!(refused.error, Error::MultiThreaded { threads: 2 }), "{refused:?}");
        let refused = sh("echo hello").current_dir("/").exec();
        assert!(matches!(refused.error, Error::MultiThreaded { .. }), "{refused:?}");
        let refused = sh("echo hello").umask(0).exec();
        assert!(matches!(refused.error, Error::MultiThreaded { .. }), "{refused:?}");
        let refused = Command::new("/no/such/program").exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        // What is given nothing may go.
        let refused = sh("exit 5").exec();
        drop((stop, thread));
        panic!("{refused:?}")
    });
    assert_eq!(exit_code(&child.unwrap()), 5);
    assert_eq!(read_all(reader), b"");
}

/// Where a handler writes to, as into a pipe of its own.
static SELF_PIPE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

extern "C" fn write_to_it(_: libc::c_int) {
    // SAFETY: one byte, to whatever stands at the number.
    unsafe { libc::write(SELF_PIPE.load(SeqCst), b"!".as_ptr().cast(), 1) };
}

fn an_exec_of_a_failing_program_runs_no_handler_on_a_given_end() {
    let (own, own_writer) = pipe().unwrap();
    SELF_PIPE.store(own_writer.as_raw_fd(), SeqCst);
    // SAFETY: a handler that makes one system call.
    unsafe { libc::signal(libc::SIGALRM, write_to_it as *const () as libc::sighandler_t) };
    let (reader, writer) = pipe().unwrap();
    let writer = Arc::new(writer);
    with_interval_timer(Duration::from_micros(100), || {
        for _ in 0..500 {
            let command = Command::new("no-such-program").give_at(own_writer.as_raw_fd(), writer.clone());
            assert_eq!(errno(&command.exec().error), ("execve", libc::ENOENT));
            let _ = own.try_read(&mut [0; 64]);
        }
    });
    assert_eq!(reader.available().unwrap(), 0, "no handler wrote into the end that was to be given");
}
