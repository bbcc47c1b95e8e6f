//! Callers that die, that were forked themselves, and that may not start a server.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

use super::workers::{echo, in_a_thread};
use super::{all_ways, signal};
use crate::support::{
    self, Trial, asleep_in, children_of, exit_code, handle_signal, poll_until, process_state, read_all,
};
use ipc::{Child, Error, Fork, ForkServer, Forked, PipeReader, Received, fork, fork_raw, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    let in_one_way = support::trials![
        a_server_is_in_the_pid_namespace_of_its_caller needs [OwnPids],
    ];
    let in_all_ways: Vec<Trial> = all_ways![
        server_and_workers_see_that_their_caller_was_killed,
        a_worker_dies_with_its_caller_if_it_is_to,
        a_worker_that_was_not_told_to_begin_has_run_nothing,
        an_order_of_a_caller_that_died_meanwhile_runs_nothing,
        a_runtime_may_order,
        a_forked_child_cannot_order_and_harms_nobody,
        a_start_is_refused_like_a_fork,
    ];
    in_one_way.into_iter().chain(in_all_ways).map(|trial| trial.keeping(open_tokio)).collect()
}

/// The first runtime opens two sockets for signals, which stay.
fn open_tokio() {
    drop(tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap());
}

/// A caller that tells the numbers of its server and its worker, and then waits to be killed. The worker's entry writes one
/// byte to what it holds besides its ends.
fn caller(options: Fork, begun: &std::io::PipeWriter) -> (Child, [u32; 2]) {
    let (mut numbers, writer) = pipe().unwrap();
    let begun = begun.try_clone().unwrap();
    let caller = fork(writer, |mut writer| -> ! {
        let server = options
            .serve(move |_, mut ends: Received| {
                (&begun).write_all(b"!").unwrap();
                ends.take::<PipeReader>().unwrap().read_to_end(&mut Vec::new()).unwrap();
            })
            .unwrap();
        let (reader, _stop) = pipe().unwrap();
        let child = server.fork(b"", reader).unwrap();
        writer.write_all(&server.id().to_ne_bytes()).unwrap();
        writer.write_all(&child.id().to_ne_bytes()).unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let numbers = [(); 2].map(|()| {
        let mut number = [0; 4];
        numbers.read_exact(&mut number).unwrap();
        u32::from_ne_bytes(number)
    });
    (caller, numbers)
}

fn end(caller: &Child) {
    caller.kill().unwrap();
    assert_eq!(caller.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// Waits for the server, and the workers that it has not waited for, to leave.
pub fn await_all_orphans() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

fn server_and_workers_see_that_their_caller_was_killed() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (caller, _) = caller(Fork::new(), &writer);
    drop(writer);
    reader.read_exact(&mut [0]).unwrap();
    end(&caller);
    await_all_orphans();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

fn a_worker_dies_with_its_caller_if_it_is_to() {
    let (mut numbers, writer) = pipe().unwrap();
    let caller = fork(writer, |mut writer| -> ! {
        let server = Fork::new()
            .die_with_parent()
            .serve(|_, _| {
                loop {
                    std::thread::park();
                }
            })
            .unwrap();
        let child = server.fork(b"", ()).unwrap();
        writer.write_all(&child.id().to_ne_bytes()).unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let mut number = [0; 4];
    numbers.read_exact(&mut number).unwrap();
    let worker = u32::from_ne_bytes(number);
    // It gets that far.
    asleep_in(worker, &[libc::SYS_futex]);
    end(&caller);
    await_all_orphans();
    assert_eq!(process_state(worker), None);
}

/// A caller in whose name a server was stopped, and that waits for a worker. Both of them, and the server's number.
fn waiting_caller(begun: std::io::PipeWriter) -> (Child, u32) {
    let (mut number, writer) = pipe().unwrap();
    let caller = fork(writer, |mut writer| {
        let server = ForkServer::start(move |_, _| (&begun).write_all(b"!").unwrap()).unwrap();
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        writer.write_all(&server.id().to_ne_bytes()).unwrap();
        let _ = server.fork(b"", ());
    })
    .unwrap();
    let mut bytes = [0; 4];
    number.read_exact(&mut bytes).unwrap();
    let server = u32::from_ne_bytes(bytes);
    asleep_in(caller.id(), &[libc::SYS_ppoll]);
    (caller, server)
}

fn a_worker_that_was_not_told_to_begin_has_run_nothing() {
    let (mut begun, writer) = std::io::pipe().unwrap();
    let (caller, server) = waiting_caller(writer);
    caller.signal(libc::SIGSTOP).unwrap();
    poll_until("the caller is stopped", || process_state(caller.id()) == Some('T'));
    // SAFETY: numbers; the server lives.
    assert_eq!(unsafe { libc::kill(server as i32, libc::SIGCONT) }, 0);
    let workers = || {
        let all = [children_of(caller.id()), children_of(server)].concat();
        all.into_iter().filter(|number| *number != server).collect::<Vec<_>>()
    };
    poll_until("a worker was made", || !workers().is_empty());
    // It waits.
    asleep_in(workers()[0], &[libc::SYS_recvmsg]);
    end(&caller);
    await_all_orphans();
    assert_eq!(begun.read(&mut [0]).unwrap(), 0);
}

fn an_order_of_a_caller_that_died_meanwhile_runs_nothing() {
    let (mut begun, writer) = std::io::pipe().unwrap();
    let (caller, server) = waiting_caller(writer);
    end(&caller);
    // SAFETY: numbers; the server lives, and is this process's child by now.
    assert_eq!(unsafe { libc::kill(server as i32, libc::SIGCONT) }, 0);
    await_all_orphans();
    assert_eq!(begun.read(&mut [0]).unwrap(), 0);
}

fn a_runtime_may_order() {
    let server = echo();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            let (reader, writer) = pipe().unwrap();
            let child = server.fork(b"from a runtime", writer).unwrap();
            assert_eq!(read_all(reader), b"from a runtime");
            #[cfg(feature = "tokio")]
            assert!(ipc::tokio::Child::new(child).unwrap().wait().await.unwrap().success());
            #[cfg(not(feature = "tokio"))]
            assert_eq!(exit_code(&child), 0);
        }
    });
}

fn a_forked_child_cannot_order_and_harms_nobody() {
    let server = echo();
    let refused = |server: &ForkServer| {
        let (reader, writer) = pipe().unwrap();
        let refused = server.fork(b"x", writer).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        refused.ends.write_atomic(b"mine").unwrap();
        assert_eq!(reader.available().unwrap(), 4);
    };
    assert_eq!(exit_code(&fork((), |()| refused(&server)).unwrap()), 0);
    assert_eq!(exit_code(&Fork::new().keep_all_ends().spawn((), |()| refused(&server)).unwrap()), 0);
    // SAFETY: the child leaves with _exit, after it dropped the server and nothing else.
    match unsafe { fork_raw() }.unwrap() {
        Forked::Child => {
            refused(&server);
            drop(server);
            // SAFETY: no conditions.
            unsafe { libc::_exit(3) }
        }
        Forked::Parent(child) => assert_eq!(exit_code(&child), 3),
    }
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let child = server.fork(b"still there", writer).unwrap();
        assert_eq!(read_all(reader), b"still there");
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_start_is_refused_like_a_fork() {
    let late = in_a_thread(|| ForkServer::start(|_, _| ()).unwrap_err());
    assert!(matches!(late, Error::MultiThreaded { threads: 2.. }), "{late:?}");
    let kept = Fork::new().keep_all_ends().serve(|_, _| ()).unwrap_err();
    assert!(matches!(kept, Error::InvalidInput { .. }), "{kept:?}");
    let server = echo();
    // SAFETY: numbers.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    assert!(matches!(ForkServer::start(|_, _| ()).unwrap_err(), Error::SigchldIgnored));
    let (_reader, writer) = pipe().unwrap();
    let refused = server.fork(b"", writer).unwrap_err();
    assert!(matches!(refused.error, Error::SigchldIgnored), "{refused:?}");
    refused.ends.write_atomic(b"mine").unwrap();
    handle_signal(libc::SIGCHLD);
    assert_eq!(exit_code(&server.fork(b"", refused.ends).unwrap()), 0);
    assert_eq!(open_ends(), 2);
}

fn a_server_is_in_the_pid_namespace_of_its_caller() {
    let before = echo();
    assert!(support::own_pids());
    let refused = |why: &str| {
        let refused = ForkServer::start(|_, _| ()).unwrap_err();
        assert!(matches!(refused, Error::InvalidInput { .. }), "{why}: {refused:?}");
    };
    refused("the namespace has no process yet");
    // The numbers of these are those of this process's own namespace.
    let (_results, writer) = pipe().unwrap();
    let child = before.fork(b"", writer).unwrap();
    assert_eq!(exit_code(&child), 0);
    let (reader, stop) = pipe().unwrap();
    let first = fork(reader, |mut reader| {
        assert_eq!(std::process::id(), 1);
        let server = echo();
        let (_results, writer) = pipe().unwrap();
        assert_eq!(exit_code(&server.fork(b"", writer).unwrap()), 0);
        reader.read_to_end(&mut Vec::new()).unwrap();
    })
    .unwrap();
    refused("the namespace has a process");
    drop(stop);
    assert_eq!(exit_code(&first), 0);
}
