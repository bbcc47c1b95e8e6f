//! Workers that their caller is not told of: the server cannot say so, or dies before it does.

use super::{all_ways, signal};
use crate::support::{self, Held, Is, Kernel, Trial, process_state, read_all};
use ipc::{Error, ForkServer, PipeWriter, Received, Watch, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = all_ways![a_worker_that_cannot_be_reported_is_ended within 20];
    trials.extend(support::trials![a_worker_whose_server_died_before_it_said_so_leaves_and_is_waited_for]);
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
        let order = scope.spawn(|| server.fork(b"", writer).unwrap_err());
        // What it is about to say is never heard.
        assert_eq!(next().pid, server.id());
        signal(server.id(), libc::SIGKILL);
        let unused = next();
        let worker = unused.pid;
        unused.go_on();
        let refused = order.join().unwrap();
        assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        worker
    });
    assert_eq!(read_all(reader), b"");
    // Where it was so late that the order did not wait for it, this does.
    drop(server);
    assert_eq!(process_state(worker), None);
}
