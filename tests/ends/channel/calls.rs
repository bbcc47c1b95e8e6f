//! Calls: a value there, and an answer back.

use std::time::Duration;

use crate::support::{self, FAR, Gate, Trial, exit_code, with_interval_timer};
use ipc::{CallError, Duplex, Error, duplex, fork, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_answer_that_there_was_no_memory_for_is_not_late,
        an_answer_that_could_not_be_mapped_is_not_late,
        a_call_gets_its_answer,
        a_clone_of_a_duplex_has_its_limit,
        values_go_both_ways_at_once,
        a_duplex_has_every_call_of_a_receiver_and_of_a_sender,
        an_answer_that_does_not_come_is_eof,
        a_call_to_nobody_gives_the_value_back,
        a_late_answer_is_received_before_the_next_call,
        a_late_answer_that_a_clone_received_is_not_late_any_more,
        an_answer_that_is_none_is_not_late,
        a_call_that_was_not_sent_leaves_nothing_to_come,
        a_late_peer_that_leaves_is_eof,
        after_a_reset_no_answer_is_to_come,
        an_end_goes_there_and_another_comes_back,
        a_duplex_goes_through_a_duplex,
    ]
}

const SHORT: Duration = Duration::from_millis(20);

fn a_call_gets_its_answer() {
    let pair = duplex::<String, usize>().unwrap();
    let child = fork(pair.child, |calls| {
        while let Some(text) = calls.recv().unwrap() {
            calls.send(text.len()).unwrap();
        }
    })
    .unwrap();
    let mut calls = pair.parent;
    for len in [0, 1, 1000, 300_000] {
        assert_eq!(calls.call("x".repeat(len)).unwrap(), Some(len));
        assert_eq!(calls.call_timeout("x".repeat(len), FAR).unwrap(), Some(len));
    }
    calls.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_clone_of_a_duplex_has_its_limit() {
    let pair = duplex::<String, String>().unwrap();
    pair.parent.set_max_message(10);
    let clone = pair.parent.try_clone().unwrap();
    assert_eq!(clone.max_message(), 10);
    pair.child.send("x".repeat(10)).unwrap(); // and its length
    assert!(matches!(clone.recv(), Err(Error::TooLong { len: 11, max: 10 })));
}

fn values_go_both_ways_at_once() {
    let pair = duplex::<u32, String>().unwrap();
    let child = fork(pair.child, |there| {
        (0..100).for_each(|number| there.send(number.to_string()).unwrap());
        assert!(there.iter().map(Result::unwrap).eq(0..100));
    })
    .unwrap();
    (0..100).for_each(|number| pair.parent.send(number).unwrap());
    for number in 0..100 {
        assert_eq!(pair.parent.recv().unwrap(), Some(number.to_string()));
    }
    drop(pair.parent);
    assert_eq!(exit_code(&child), 0);
}

fn a_duplex_has_every_call_of_a_receiver_and_of_a_sender() {
    let pair = duplex::<u32, u32>().unwrap();
    let (mut here, there) = (pair.parent, pair.child);
    assert_eq!(here.try_iter().count(), 0);
    assert_eq!(wait_any(&mut [here.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
    there.send(1).unwrap();
    there.send(2).unwrap();
    there.try_flush().unwrap();
    there.flush_timeout(FAR).unwrap();
    assert_eq!(wait_any(&mut [here.watch().unwrap()], Some(FAR)).unwrap(), 1);
    assert!(here.try_iter().map(Result::unwrap).eq([1, 2]));
    there.send(3).unwrap();
    drop(there);
    assert!(here.try_iter().map(Result::unwrap).eq([3]));
    assert_eq!(here.try_iter().count(), 0);
}

fn an_answer_that_does_not_come_is_eof() {
    let pair = duplex::<u8, u8>().unwrap();
    let child = fork(pair.child, |calls| assert_eq!(calls.recv().unwrap(), Some(1))).unwrap();
    let mut calls = pair.parent;
    assert_eq!(calls.call(1).unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn a_call_to_nobody_gives_the_value_back() {
    let pair = duplex::<String, u8>().unwrap();
    drop(pair.child);
    let mut calls = pair.parent;
    let refused = calls.call("a".to_owned()).unwrap_err();
    assert!(matches!(&refused, CallError { unsent: Some(value), error: Error::Closed } if value == "a"), "{refused:?}");
    // That is so again, and nothing is to come.
    assert!(calls.call("b".to_owned()).unwrap_err().unsent.is_some());
}

fn a_late_answer_is_received_before_the_next_call() {
    let pair = duplex::<u32, u32>().unwrap();
    let gate = Gate::new();
    let child = fork(pair.child, |calls| {
        gate.pass();
        while let Some(number) = calls.recv().unwrap() {
            calls.send(2 * number).unwrap();
        }
    })
    .unwrap();
    let mut calls = pair.parent;
    let late = with_interval_timer(Duration::from_millis(3), || calls.call_timeout(1, SHORT).unwrap_err());
    assert!(matches!(late, CallError { unsent: None, error: Error::TimedOut }), "{late:?}");
    for _ in 0..2 {
        let refused = calls.call(2).unwrap_err();
        assert!(matches!(refused, CallError { unsent: Some(2), error: Error::Unread }), "{refused:?}");
    }
    // So is it with a clone that is made meanwhile.
    let refused = calls.try_clone().unwrap().call(3).unwrap_err();
    assert!(matches!(refused, CallError { unsent: Some(3), error: Error::Unread }), "{refused:?}");
    // Looking in vain changes nothing.
    assert!(matches!(calls.try_recv(), Err(Error::WouldBlock)));
    assert!(matches!(calls.call(2).unwrap_err().error, Error::Unread));
    gate.open();
    assert_eq!(calls.recv().unwrap(), Some(2));
    assert_eq!(calls.call(2).unwrap(), Some(4));
    drop(calls);
    assert_eq!(exit_code(&child), 0);
}

fn a_late_answer_that_a_clone_received_is_not_late_any_more() {
    let pair = duplex::<u32, u32>().unwrap();
    let (mut calls, peer) = (pair.parent, pair.child);
    for receives in [false, true] {
        assert!(matches!(calls.call_timeout(1, SHORT).unwrap_err().error, Error::TimedOut));
        let mut clone = calls.try_clone().unwrap();
        let (receiver, caller) = if receives { (&mut calls, &mut clone) } else { (&mut clone, &mut calls) };
        peer.send(2).unwrap();
        assert_eq!(receiver.recv().unwrap(), Some(2));
        peer.send(4).unwrap();
        assert_eq!(caller.call(2).unwrap(), Some(4));
    }
}

fn an_answer_that_is_none_is_not_late() {
    let pair = duplex::<u32, u8>().unwrap();
    let (mut calls, peer) = (pair.parent, pair.child.into_inner());
    peer.send(&[1, 2, 3]).unwrap();
    let error = calls.call(1).unwrap_err();
    assert!(
        matches!(&error, CallError { unsent: None, error: Error::Decode { message, .. } } if message == &[1, 2, 3])
    );
    peer.send(&[7]).unwrap();
    assert_eq!(calls.call(2).unwrap(), Some(7));
}

fn a_call_that_was_not_sent_leaves_nothing_to_come() {
    let pair = duplex::<String, u8>().unwrap();
    let (mut calls, peer) = (pair.parent, pair.child);
    while calls.try_send("x".repeat(1000)).is_ok() {}
    let refused = calls.call_timeout("late".to_owned(), SHORT).unwrap_err();
    assert!(matches!(&refused, CallError { unsent: Some(value), error: Error::TimedOut } if value == "late"));
    while peer.try_recv().is_ok() {}
    peer.send(9).unwrap();
    assert_eq!(calls.call("again".to_owned()).unwrap(), Some(9));
}

fn a_late_peer_that_leaves_is_eof() {
    let pair = duplex::<u8, u8>().unwrap();
    let mut calls = pair.parent;
    calls.call_timeout(1, SHORT).unwrap_err();
    assert_eq!(pair.child.recv().unwrap(), Some(1));
    drop(pair.child);
    assert!(matches!(calls.call(2).unwrap_err().error, Error::Unread));
    assert_eq!(calls.recv().unwrap(), None);
    assert!(matches!(calls.call(2).unwrap_err().error, Error::Closed));
}

fn after_a_reset_no_answer_is_to_come() {
    let pair = duplex::<u8, u8>().unwrap();
    let mut calls = pair.parent;
    calls.call_timeout(1, SHORT).unwrap_err();
    drop(pair.child); // without having received it
    let reset = calls.recv();
    assert!(matches!(reset, Err(Error::Reset)), "{reset:?}");
    let refused = calls.call(3).unwrap_err();
    assert!(matches!(refused, CallError { unsent: Some(3), error: Error::Closed }), "{refused:?}");
    assert_eq!(calls.recv().unwrap(), None);
}

fn an_end_goes_there_and_another_comes_back() {
    let pair = duplex::<ipc::PipeReader, ipc::PipeWriter>().unwrap();
    let child = fork(pair.child, |calls| {
        let reader = calls.recv().unwrap().unwrap();
        let (mut copy, writer) = pipe().unwrap();
        calls.send(writer).unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "there");
        let mut back = String::new();
        std::io::Read::read_to_string(&mut copy, &mut back).unwrap();
        assert_eq!(back, "back");
    })
    .unwrap();
    let mut calls = pair.parent;
    let (reader, mut writer) = pipe().unwrap();
    let mut answer = calls.call(reader).unwrap().unwrap();
    std::io::Write::write_all(&mut writer, b"there").unwrap();
    std::io::Write::write_all(&mut answer, b"back").unwrap();
    drop((writer, answer));
    assert_eq!(exit_code(&child), 0);
}

fn a_duplex_goes_through_a_duplex() {
    let (outer, inner) = (duplex::<Duplex<u8, u8>, ()>().unwrap(), duplex::<u8, u8>().unwrap());
    outer.parent.send(inner.parent).unwrap();
    let mut calls = outer.child.recv().unwrap().unwrap();
    inner.child.send(2).unwrap();
    assert_eq!(calls.call(1).unwrap(), Some(2));
    assert_eq!(inner.child.recv().unwrap(), Some(1));
}

fn an_answer_that_there_was_no_memory_for_is_not_late() {
    let mut pair = ipc::duplex::<u8, String>().unwrap();
    pair.child.send("first".to_owned()).unwrap();
    pair.parent.call(1).unwrap(); // the thread's memory for messages is there
    pair.child.send("x".repeat(200_000)).unwrap();
    support::limit(libc::RLIMIT_AS, |_| support::own_size() as libc::rlim_t);
    let free = || {
        let mut memory = Vec::<u8>::new();
        memory.try_reserve_exact(100_000).ok().map(|()| memory)
    };
    let taken: Vec<_> = std::iter::from_fn(free).collect();
    let refused = pair.parent.call(2);
    support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
    drop(taken);
    assert_eq!(support::refused(refused.map_err(Error::from)), ("malloc", libc::ENOMEM));
    pair.child.send("next".to_owned()).unwrap();
    assert_eq!(pair.parent.call(3).unwrap().as_deref(), Some("next"));
}

fn an_answer_that_could_not_be_mapped_is_not_late() {
    let mut pair = ipc::duplex::<u8, String>().unwrap();
    pair.child.send("first".to_owned()).unwrap();
    pair.parent.call(1).unwrap(); // the thread's memory for messages is there
    pair.child.send("x".repeat(32 << 20)).unwrap(); // goes as memory
    support::limit(libc::RLIMIT_AS, |_| (support::own_size() + (16 << 20)) as libc::rlim_t);
    let refused = pair.parent.call(2);
    support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
    assert_eq!(support::refused(refused.map_err(Error::from)), ("mmap", libc::ENOMEM));
    // It is lost, and no other is to come.
    pair.child.send("next".to_owned()).unwrap();
    assert_eq!(pair.parent.call(3).unwrap().as_deref(), Some("next"));
}
