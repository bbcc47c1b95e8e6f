//! What a parent can do with a forked child: wait for it, with and without a deadline, watch it, signal it, and drop it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::support::{
    self, Gate, Later, SOON, Trial, asleep_in, await_orphans, exit_code, poll_until, process_state, processor_time,
    traced_zombie,
};
use ipc::{Child, Error, Watch, fork, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        waiting_again_gives_the_same_status,
        waiting_has_deadlines,
        a_deadline_of_waiting_holds_under_signals,
        threads_that_wait_at_once_get_the_same_status,
        waiting_waits_whatever_the_flags_of_the_pidfd,
        a_deadline_of_waiting_for_a_traced_child_is_kept_without_a_busy_loop,
        waiting_for_a_traced_child_sleeps_until_its_tracer_lets_go,
        a_child_can_be_waited_for_with_ends,
        a_signal_reaches_the_child_and_never_a_stranger,
        an_elder_sibling_can_be_watched_and_not_waited_for,
        dropping_reaps_one_that_has_left,
        dropping_neither_kills_nor_waits,
    ]
}

fn waiting_again_gives_the_same_status() {
    let child = fork((), |()| 5_u8).unwrap();
    for _ in 0..3 {
        assert_eq!(child.wait().unwrap().code(), Some(5));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(5));
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().unwrap().code(), Some(5));
    }
    assert!(format!("{child:?}").contains(&child.id().to_string()));
}

fn waiting_has_deadlines() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    let started = Instant::now();
    assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    assert!(started.elapsed() >= Duration::from_millis(20));
    drop(writer);
    assert!(child.wait_timeout(Duration::MAX).unwrap().unwrap().success());
}

fn a_deadline_of_waiting_holds_under_signals() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    support::with_interval_timer(Duration::from_millis(1), || {
        let started = Instant::now();
        assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(started.elapsed() < SOON);
        drop(writer);
        assert!(child.wait().unwrap().success());
    });
}

fn threads_that_wait_at_once_get_the_same_status() {
    for _ in 0..100 {
        // A thread that was joined counts until it is gone, which takes long on a slow machine.
        poll_until("no thread is left", || std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        let (reader, writer) = pipe().unwrap();
        let child = fork(reader, |mut reader| reader.read(&mut [0]).map(|_| 7_u8)).unwrap();
        let barrier = std::sync::Barrier::new(5);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (child, barrier) = (&child, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let status = match number {
                        0 => child.wait_timeout(SOON).unwrap().expect("the child leaves"),
                        _ => child.wait().unwrap(),
                    };
                    assert_eq!(status.code(), Some(7));
                });
            }
            barrier.wait();
            drop(writer);
        });
    }
}

fn waiting_waits_whatever_the_flags_of_the_pidfd() {
    for timeout in [None, Some(SOON), Some(Duration::MAX)] {
        let (reader, writer) = pipe().unwrap();
        let child = fork(reader, |mut reader| reader.read(&mut [0]).map(|_| 7_u8)).unwrap();
        // As whoever puts it into an event loop does.
        rustix::fs::fcntl_setfl(&child, rustix::fs::OFlags::NONBLOCK).unwrap();
        let later = Later::new(writer, |writer| writer.write_all(b"x").unwrap());
        let status = match timeout {
            None => child.wait().unwrap(),
            Some(timeout) => child.wait_timeout(timeout).unwrap().expect("the child leaves"),
        };
        assert_eq!(status.code(), Some(7));
        later.done();
    }
}

fn a_deadline_of_waiting_for_a_traced_child_is_kept_without_a_busy_loop() {
    let stay = Gate::new();
    let (child, tracer) = traced_zombie(|| stay.pass());
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    let timeout = Duration::from_millis(200);
    let (started, busy) = (Instant::now(), processor_time());
    assert_eq!(child.wait_timeout(timeout).unwrap(), None);
    let (took, busy) = (started.elapsed(), processor_time() - busy);
    assert!(took >= timeout && took < SOON && busy < timeout / 10, "{took:?}, of which busy {busy:?}");
    stay.open();
    assert_eq!(exit_code(&tracer), 0);
    assert_eq!(exit_code(&child), 7);
}

fn waiting_for_a_traced_child_sleeps_until_its_tracer_lets_go() {
    type Wait = fn(&Child) -> Option<std::process::ExitStatus>;
    let ways: [(libc::c_long, Wait); 3] = [
        (libc::SYS_waitid, |child| Some(child.wait().unwrap())),
        (libc::SYS_waitid, |child| child.wait_timeout(Duration::MAX).unwrap()),
        (libc::SYS_ppoll, |child| child.wait_timeout(SOON).unwrap()),
    ];
    for (call, wait) in ways {
        let parent = std::process::id();
        let waits = Gate::new();
        let (child, tracer) = traced_zombie(|| {
            waits.pass();
            asleep_in(parent, &[call]);
        });
        waits.open();
        assert_eq!(wait(&child).expect("the child has left").code(), Some(7));
        assert_eq!(exit_code(&tracer), 0);
    }
}

fn a_child_can_be_waited_for_with_ends() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    assert_eq!(wait_any(&mut [Watch::readable(&child)], Some(Duration::ZERO)).unwrap(), 0);
    drop(writer);
    let mut on = [Watch::readable(&child)];
    assert_eq!(wait_any(&mut on, Some(SOON)).unwrap(), 1);
    assert!(on[0].ready().contains(ipc::Ready::READ));
    assert!(child.try_wait().unwrap().is_some());
}

fn a_signal_reaches_the_child_and_never_a_stranger() {
    let (reader, _writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    child.signal(0).unwrap();
    let refused = child.signal(1000).unwrap_err();
    assert!(matches!(refused, Error::System { call: "pidfd_send_signal", .. }), "{refused:?}");
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    match child.signal(libc::SIGTERM).unwrap_err() {
        Error::System { source, .. } => assert_eq!(source.raw_os_error(), Some(libc::ESRCH)),
        other => panic!("{other:?}"),
    }
    child.kill().unwrap();
}

fn an_elder_sibling_can_be_watched_and_not_waited_for() {
    let (reader, _writer) = pipe().unwrap();
    let elder = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    let younger = fork((), |()| {
        elder.signal(libc::SIGTERM).unwrap();
        assert_eq!(wait_any(&mut [Watch::readable(&elder)], Some(SOON)).unwrap(), 1);
        for refused in [elder.try_wait().map(drop), elder.wait().map(drop), elder.wait_timeout(SOON).map(drop)] {
            assert_eq!(support::refused(refused), ("waitid", libc::ECHILD));
        }
    })
    .unwrap();
    assert_eq!(exit_code(&younger), 0);
    assert_eq!(elder.wait().unwrap().signal(), Some(libc::SIGTERM));
}

fn dropping_reaps_one_that_has_left() {
    let child = fork((), |()| ()).unwrap();
    let pid = child.id();
    assert_eq!(wait_any(&mut [Watch::readable(&child)], Some(SOON)).unwrap(), 1);
    assert_eq!(process_state(pid), Some('Z'));
    drop(child);
    assert_eq!(process_state(pid), None);
}

fn dropping_neither_kills_nor_waits() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop)).unwrap();
    let pid = child.id();
    asleep_in(pid, &[libc::SYS_read]);
    drop(child);
    assert_eq!(process_state(pid), Some('S'));
    drop(writer);
    await_orphans(1);
}
