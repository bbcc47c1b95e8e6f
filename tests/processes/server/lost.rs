//! Workers that their caller is not told of: the server cannot say so, or dies before it does.

use std::time::Duration;

use super::{all_ways, descriptors, signal};
use crate::support::{self, Held, Is, Kernel, Trial, exit_code, poll_until, process_state, read_all};
use ipc::{Error, ForkServer, PipeWriter, Received, Watch, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = all_ways![
        a_worker_that_cannot_be_reported_is_ended within 20,
        an_order_that_was_given_up_is_let_go_of_by_a_later_one,
    ];
    trials.extend(support::trials![
        a_worker_whose_server_died_before_it_said_so_leaves_and_is_waited_for,
        a_worker_that_leaves_late_is_waited_for_when_its_server_is_dropped,
    ]);
    trials
}

/// Of a send that does not wait: the server sends so, and its workers. A caller without a deadline waits.
const DOES_NOT_WAIT: u32 = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;

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
    let next = || {
        assert_eq!(
            wait_any(&mut [Watch::readable(&listener)], Some(support::SOON)).unwrap(),
            1,
            "nobody says anything"
        );
        Held::next(&listener)
    };
    let server = server();
    let (reader, writer) = pipe().unwrap();
    let worker = std::thread::scope(|scope| {
        let order = scope.spawn(|| {
            let refused = server.fork(b"", writer).unwrap_err();
            assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        });
        // What it is about to say is never heard.
        assert_eq!(next().pid, server.id());
        signal(server.id(), libc::SIGKILL);
        let unused = next();
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
