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
