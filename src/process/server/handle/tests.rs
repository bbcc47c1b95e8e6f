//! The parts of the caller's side that need no server.

use std::process::{Command, Stdio};

use super::*;

#[test]
fn a_worker_without_a_pidfd_holds_nobody_past_a_deadline() {
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(cat.id() as i32).unwrap();
    let late = Late::Number(pid).settled(Instant::now()).expect("it runs, and is kept");
    drop(cat.stdin.take());
    assert!(late.settled(Instant::now() + Duration::from_secs(60)).is_none());
    assert!(cat.try_wait().is_err(), "its status was taken");
}

#[test]
fn an_answer_is_heard_although_the_worker_left_its_message_unread() {
    let (line, worker) = line().unwrap();
    line.send(b"message").unwrap();
    ancillary::send(worker.as_fd(), &Answer::Left(9).to_bytes(), &[], false).unwrap();
    // The kernel tells of the message first, and then passes on the answer.
    drop(worker);
    assert_eq!(said(&line).unwrap().map(|(answer, _)| answer), Some(Answer::Left(9)));
    assert!(said(&line).unwrap().is_none());
}

/// A worker that has left, the line on which its server reports, and the programs that stand for the two.
fn reported() -> (Arc<Child>, End, [std::process::Child; 2]) {
    let programs = ["true", "cat"].map(|name| Command::new(name).stdin(Stdio::piped()).spawn().unwrap());
    let child = |program: &std::process::Child| {
        let pid = Pid::from_raw(program.id() as i32).unwrap();
        Child::new(pid, rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap())
    };
    let [worker, server] = [&programs[0], &programs[1]].map(child);
    let ((control, _server), (line, reporting)) = (self::line().unwrap(), self::line().unwrap());
    let server = Arc::new(Handle::new(control, server));
    let line = Arc::new(line.end.into_fd());
    let worker = Arc::new(worker.reported_by(Reporter { line, server, adopted: OnceLock::new() }));
    poll(&mut [pollfd { fd: worker.as_fd().as_raw_fd(), events: POLLIN, revents: 0 }], None).unwrap();
    (worker, reporting, programs)
}

/// Does something on another thread.
fn elsewhere<T: Send + 'static>(
    worker: &Arc<Child>,
    call: impl FnOnce(&Child) -> T + Send + 'static,
) -> std::sync::mpsc::Receiver<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let worker = Arc::clone(worker);
    std::thread::spawn(move || tell.send(call(&worker)));
    told
}

#[test]
fn a_look_does_not_wait_for_a_thread_that_waits_for_the_report() {
    let (worker, reporting, mut programs) = reported();
    let (others_wait, status) = worker.untaken();
    drop(status);
    let told = elsewhere(&worker, |worker| worker.try_wait().unwrap().and_then(|status| status.code()));
    // As `/proc` has it.
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Some(0)));
    drop(others_wait);
    // A status that is known stays as it is.
    ancillary::send(reporting.as_fd(), &Answer::Left(9).to_bytes(), &[], false).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    drop(programs[1].stdin.take());
}

#[test]
fn a_deadline_is_kept_while_another_thread_waits_for_the_report() {
    let (worker, reporting, mut programs) = reported();
    let (others_wait, status) = worker.untaken();
    drop(status);
    let wait =
        |worker: &Child| worker.wait_timeout(Duration::from_millis(10)).unwrap().and_then(|status| status.code());
    let told = elsewhere(&worker, wait);
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Some(0)));
    drop((others_wait, reporting, programs[1].stdin.take()));
}
