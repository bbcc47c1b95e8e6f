//! Workers that their caller is not told of: the server cannot say so, or dies before it does.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{MAKES_SIBLINGS, all_ways, descriptors, signal};
use crate::support::{self, Held, Is, Kernel, Trial, children, exit_code, poll_until, process_state, read_all};
use ipc::{Error, ForkServer, PipeWriter, Received, Watch, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = all_ways![
        a_worker_that_cannot_be_reported_is_ended within 20,
        an_order_that_was_given_up_is_let_go_of_by_a_later_one,
        an_order_waits_until_there_is_room_beside_those_that_were_given_up,
        a_worker_whose_pidfd_cannot_be_sent_is_held_by_its_number,
    ];
    trials.extend(support::trials![
        a_worker_whose_server_died_before_it_said_so_leaves_and_is_waited_for,
        a_worker_that_leaves_late_is_waited_for_when_its_server_is_dropped,
        a_worker_whose_message_cannot_be_sent_is_ended,
        a_worker_that_was_killed_before_it_began_is_one_that_was_killed,
    ]);
    trials
}

/// Of a send that does not wait: the server sends so, and its workers.
const DOES_NOT_WAIT: u32 = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;
/// A caller without a deadline sends so.
const WAITS: u32 = libc::MSG_NOSIGNAL as u32;

/// The next call that is held.
fn next(listener: &OwnedFd) -> Held<'_> {
    assert_eq!(wait_any(&mut [Watch::readable(listener)], Some(support::SOON)).unwrap(), 1, "nobody says anything");
    Held::next(listener)
}

fn server() -> ForkServer {
    ForkServer::start(|_, mut ends: Received| ends.take::<PipeWriter>()?.write_atomic(b"it runs")).unwrap()
}

fn a_worker_that_cannot_be_reported_is_ended() {
    Kernel::new().with(libc::SYS_sendmsg, 2, Is::Equal(DOES_NOT_WAIT), libc::EPERM).play();
    let server = server();
    let (reader, writer) = pipe().unwrap();
    // It would wait for its message for ever, and keep the line open on which the caller waits.
    let refused = server.fork(b"", writer).unwrap_err();
    assert!(matches!(refused.error, Error::System { call: "recvmsg", .. }), "{refused:?}");
    drop(refused.ends);
    assert_eq!(read_all(reader), b"");
}

fn a_worker_whose_server_died_before_it_said_so_leaves_and_is_waited_for() {
    with_unheard_worker(false);
}

fn a_worker_that_leaves_late_is_waited_for_when_its_server_is_dropped() {
    with_unheard_worker(true);
}

fn with_unheard_worker(is_late: bool) {
    let listener = support::hold_calls_with(libc::SYS_sendmsg, 2, DOES_NOT_WAIT);
    let server = server();
    let (reader, writer) = pipe().unwrap();
    let worker = std::thread::scope(|scope| {
        let order = scope.spawn(|| {
            let refused = server.fork(b"", writer).unwrap_err();
            assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        });
        // What it is about to say is never heard.
        assert_eq!(next(&listener).pid, server.id());
        signal(server.id(), libc::SIGKILL);
        let unused = next(&listener);
        let worker = unused.pid;
        if is_late {
            order.join().unwrap();
            unused.go_on();
        } else {
            unused.go_on();
            order.join().unwrap();
        }
        worker
    });
    assert_eq!(read_all(reader), b"");
    drop(server);
    assert_eq!(process_state(worker), None);
}

fn a_worker_whose_pidfd_cannot_be_sent_is_held_by_its_number() {
    let listener = support::hold_calls_with(libc::SYS_sendmsg, 2, DOES_NOT_WAIT);
    let server = server();
    let (reader, writer) = pipe().unwrap();
    std::thread::scope(|scope| {
        let order = scope.spawn(|| server.fork(b"", writer).unwrap());
        next(&listener).refuse(libc::ETOOMANYREFS);
        next(&listener).go_on();
        let worker = order.join().unwrap();
        if !MAKES_SIBLINGS.load(Relaxed) {
            next(&listener).go_on(); // how it left
        }
        assert_eq!(exit_code(&worker), 0);
    });
    assert_eq!(read_all(reader), b"it runs");
}

fn a_worker_whose_message_cannot_be_sent_is_ended() {
    let listener = support::hold_calls_with(libc::SYS_sendmsg, 2, WAITS);
    let server = server();
    let (reader, writer) = pipe().unwrap();
    std::thread::scope(|scope| {
        let order = scope.spawn(|| server.fork(b"", writer).unwrap_err());
        next(&listener).go_on(); // the order
        next(&listener).refuse(libc::ENOMEM);
        let refused = order.join().unwrap();
        let Error::System { source, .. } = &refused.error else { panic!("{refused:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
    });
    assert_eq!(read_all(reader), b"");
    assert_eq!(children().len(), 1, "the server");
}

fn a_worker_that_was_killed_before_it_began_is_one_that_was_killed() {
    let listener = support::hold_calls_with(libc::SYS_sendmsg, 2, WAITS);
    let server = server();
    std::thread::scope(|scope| {
        let order = scope.spawn(|| server.fork(b"", ()).unwrap());
        next(&listener).go_on(); // the order
        let message = next(&listener);
        let worker = children().into_iter().map(|(pid, _)| pid as u32).find(|pid| *pid != server.id()).unwrap();
        signal(worker, libc::SIGKILL);
        poll_until("the worker has left", || process_state(worker) == Some('Z'));
        super::at_rest(server.id());
        message.go_on();
        assert_eq!(order.join().unwrap().wait().unwrap().signal(), Some(libc::SIGKILL));
    });
}

fn an_order_waits_until_there_is_room_beside_those_that_were_given_up() {
    let server = ForkServer::start(|_, _| ()).unwrap();
    signal(server.id(), libc::SIGSTOP);
    poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
    for _ in 0..65 {
        let refused = server.fork_timeout(b"", (), Duration::ZERO).unwrap_err();
        assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
    }
    std::thread::scope(|scope| {
        let order = scope.spawn(|| server.fork_timeout(b"", (), support::SOON).unwrap());
        let me = std::process::id().to_string();
        let tasks = || std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name());
        let sleeps = |task: String| task != me && process_state(task.parse().unwrap()) == Some('S');
        poll_until("the order waits", || {
            order.is_finished() || tasks().any(|task| sleeps(task.into_string().unwrap()))
        });
        signal(server.id(), libc::SIGCONT);
        assert_eq!(exit_code(&order.join().unwrap()), 0);
    });
}

fn an_order_that_was_given_up_is_let_go_of_by_a_later_one() {
    let server = ForkServer::start(|_, _| ()).unwrap();
    let own = || descriptors(std::process::id());
    assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
    let before = own();
    signal(server.id(), libc::SIGSTOP);
    poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
    let refused = server.fork_timeout(b"", (), Duration::ZERO).unwrap_err();
    assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
    signal(server.id(), libc::SIGCONT);
    // When the server has answered the second one, it has let go of the first. The third one sees that.
    for _ in 0..2 {
        assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
    }
    assert_eq!(own(), before);
}
