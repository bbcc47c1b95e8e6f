//! Groups and sessions, and how programs are ended: with their parent, when they are asked to, and by a guard.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::{said, sh};
use crate::support::{
    self, FAR, Gate, Held, SOON, Trial, await_orphans, await_whoever_is_left, exit_code, poll_until, process_state,
    read_all, refused,
};
use ipc::{Command, Error, Fork, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_group_is_signalled_and_the_caller_is_not,
        a_group_can_be_killed_after_its_leader_was_waited_for,
        a_child_without_a_group_has_none_to_signal,
        a_session_has_no_terminal,
        ctrl_c_hits_the_terminals_group_alone,
        a_program_dies_with_its_parent,
        a_starter_that_dies_before_the_kernel_is_asked_leaves_nothing,
        a_program_dies_with_the_thread_that_started_it,
        terminate_asks_and_shut_down_insists,
        a_guard_kills_and_waits,
        a_group_is_shut_down_with_its_leader,
        a_group_has_the_grace_after_its_leader_has_left,
        a_process_whose_first_thread_has_left_has_the_grace_too,
        a_group_without_proc_is_killed_when_its_leader_has_left needs [HiddenProc],
        a_guard_kills_the_group_with_its_leader,
    ]
}

/// The process group and the session, as the program sees them.
const GROUP: &str = "set -- $(cat /proc/self/stat); echo $5 $6 $$";

fn a_group_is_signalled_and_the_caller_is_not() {
    // SAFETY: no conditions.
    let own = unsafe { libc::getpgrp() };
    let text = said(sh(GROUP).process_group(0));
    let [group, _, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(group, pid);
    assert!(said(sh(GROUP)).starts_with(&format!("{own} ")));
    assert!(said(sh(GROUP).process_group(own)).starts_with(&format!("{own} ")));

    let (mut reader, writer) = pipe().unwrap();
    // The leader waits for neither of the others.
    let family = sh("sleep 1000 & sleep 1000 & echo; exec sleep 1000").stdout(writer);
    let child = family.process_group(0).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    child.signal_group(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(read_all(reader), b"", "all of them are gone");
    await_orphans(2);
    let (call, errno) = refused(child.signal_group(10_000));
    assert_eq!((call, errno == libc::EINVAL || errno == libc::ESRCH), ("pidfd_send_signal", true));
    let invalid = Command::new("true").process_group(-1).spawn().unwrap_err();
    assert!(matches!(invalid.error, Error::InvalidInput { .. }));
}

fn a_group_can_be_killed_after_its_leader_was_waited_for() {
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("sleep 1000 & echo").stdout(writer).process_group(0).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(exit_code(&child), 0);
    // Since Linux 6.9 the group is found by the pidfd.
    match child.signal_group(libc::SIGKILL) {
        Ok(()) => {}
        Err(_) => {
            // SAFETY: the group is the test's, and has a process.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        }
    }
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
    child.kill_group().unwrap();
}

fn a_child_without_a_group_has_none_to_signal() {
    let child = sh("exec sleep 1000").spawn().unwrap();
    assert_eq!(refused(child.signal_group(libc::SIGKILL)), ("pidfd_send_signal", libc::ESRCH));
    child.kill_group().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(refused(child.signal_group(0)), ("pidfd_send_signal", libc::ESRCH));
}

fn a_session_has_no_terminal() {
    let text = said(sh(GROUP).new_session());
    let [group, session, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((group, session), (pid, pid));
    let child = sh("exec sleep 1000").new_session().spawn().unwrap();
    child.kill_group().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

fn ctrl_c_hits_the_terminals_group_alone() {
    let (mut terminal, mut end) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: room for two descriptors, which are new and nobody else's.
    let (terminal, end) = unsafe {
        assert_eq!(libc::openpty(&mut terminal, &mut end, none, none.cast(), none.cast()), 0);
        (File::from(OwnedFd::from_raw_fd(terminal)), OwnedFd::from_raw_fd(end))
    };
    let child = fork((), |()| {
        // SAFETY: a session of its own, with that terminal.
        unsafe {
            assert!(libc::setsid() > 0);
            assert_eq!(libc::ioctl(end.as_raw_fd(), libc::TIOCSCTTY, 0), 0);
        }
        let signals = ipc::Signals::new(&[libc::SIGINT]).unwrap();
        let (mut reader, writer) = pipe().unwrap();
        let start = || sh("echo; exec sleep 1000").stdout(&writer);
        let same = start().spawn().unwrap();
        let others = [start().process_group(0).spawn().unwrap(), start().new_session().spawn().unwrap()];
        reader.read_exact(&mut [0; 3]).unwrap();
        (&terminal).write_all(&[3]).unwrap();
        assert_eq!(same.wait().unwrap().signal(), Some(libc::SIGINT));
        assert_eq!(signals.next_timeout(FAR).unwrap(), libc::SIGINT);
        for other in others {
            assert_eq!(other.try_wait().unwrap(), None);
            assert_eq!(other.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
        }
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_program_dies_with_its_parent() {
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let child = fork(writer, |writer| {
        let _program = sh("exec sleep 1000").stdout(writer).die_with_parent().spawn().unwrap();
        gate.open();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
}

fn a_starter_that_dies_before_the_kernel_is_asked_leaves_nothing() {
    for is_program in [true, false] {
        let (reader, writer) = pipe().unwrap();
        let line = ipc::datagram_pair().unwrap();
        let starter = fork((writer, line.child), |(writer, line)| {
            let listener = support::hold_calls(libc::SYS_prctl, libc::PR_SET_PDEATHSIG as u32);
            line.send_with(b"held", &listener).unwrap();
            drop(listener);
            if is_program {
                sh("echo it runs").stdout(writer).die_with_parent().spawn().map(drop).unwrap();
            } else {
                Fork::new()
                    .die_with_parent()
                    .spawn(writer, |writer| writer.write_atomic(b"it runs"))
                    .map(drop)
                    .unwrap();
            }
        });
        let starter = starter.unwrap();
        let mut received = line.parent.recv_with(&mut Vec::new()).unwrap().unwrap();
        let listener: OwnedFd = received.take().unwrap();
        loop {
            let held = Held::next(&listener);
            if held.pid == starter.id() {
                held.go_on();
                continue;
            }
            starter.kill().unwrap();
            starter.wait().unwrap();
            held.go_on();
            break;
        }
        assert_eq!(read_all(reader), b"");
        await_orphans(1);
    }
}

fn a_program_dies_with_the_thread_that_started_it() {
    let (reader, writer) = pipe().unwrap();
    let start = move || sh("exec sleep 1000").stdout(writer).die_with_parent().spawn().unwrap();
    let child = std::thread::spawn(start).join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "as the documentation says");
    assert_eq!(read_all(reader), b"");
}

fn terminate_asks_and_shut_down_insists() {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    child.terminate().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    child.terminate().unwrap();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM), "again is the same");
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("trap '' TERM; echo; exec sleep 1000").stdout(writer).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(child.shut_down(Duration::from_millis(50)).unwrap().signal(), Some(libc::SIGKILL));
}

fn a_guard_kills_and_waits() {
    let (reader, writer) = pipe().unwrap();
    let guard = Command::new("sleep").arg("1000").stdout(writer).spawn().unwrap().kill_on_drop();
    let id = guard.id();
    assert!(process_state(id).is_some());
    // In a child that is forked, the value is not the one that kills.
    assert_eq!(exit_code(&fork((), |()| _ = guard.as_fd()).unwrap()), 0);
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    drop(guard);
    assert_eq!(read_all(reader), b"");
    assert_eq!(process_state(id), None, "it was waited for");
    let child = Command::new("sleep").arg("1000").spawn().unwrap().kill_on_drop().release();
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_group_is_shut_down_with_its_leader() {
    let stubborn = "(trap '' TERM; echo; exec sleep 1000) & wait";
    let plain = "sleep 1000 & echo; wait";
    // What runs in the background has no handler of its shell's any more when it says so.
    let left = "trap 'exit 3' TERM; sh -c 'echo; exec sleep 1000' & wait";
    for (script, grace, code) in [(plain, FAR, None), (left, FAR, Some(3)), (stubborn, Duration::from_millis(50), None)]
    {
        for command in [sh(script).process_group(0), sh(script).new_session()] {
            let (mut reader, writer) = pipe().unwrap();
            let child = command.stdout(writer).spawn().unwrap();
            reader.read_exact(&mut [0]).unwrap();
            let status = child.shut_down(grace).unwrap();
            assert_eq!((status.code(), status.signal()), (code, code.is_none().then_some(libc::SIGTERM)), "{script}");
            assert_eq!(read_all(reader), b"", "{script}: nobody is left");
            await_whoever_is_left();
        }
    }
    // Without a group of its own, the program alone is asked.
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("sleep 1000 & echo $!; wait").stdout(writer).spawn().unwrap();
    let mut pid = [0; 20];
    let len = reader.read(&mut pid).unwrap();
    let pid: i32 = std::str::from_utf8(&pid[..len]).unwrap().trim().parse().unwrap();
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
    // SAFETY: the number of a process that nobody has waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
}

/// Its leader leaves at once, and the other one when it is told to, after it was asked.
const SLOW: &str = "(trap 'read line <&3; echo saved; exit' TERM; echo; while :; do sleep 0.01; done) & wait";

fn a_group_has_the_grace_after_its_leader_has_left() {
    let (mut reader, writer) = pipe().unwrap();
    let (wait, mut go) = pipe().unwrap();
    let child = sh(SLOW).process_group(0).stdout(writer).give_at(3, wait).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            poll_until("its leader has left", || process_state(child.id()) == Some('Z'));
            go.write_all(b"go\n").unwrap();
        });
        assert_eq!(child.shut_down(SOON).unwrap().signal(), Some(libc::SIGTERM));
    });
    assert_eq!(read_all(reader), b"saved\n");
    await_whoever_is_left();
}

/// /proc shows it as one that has left.
fn a_process_whose_first_thread_has_left_has_the_grace_too() {
    let (reader, writer) = pipe().unwrap();
    let (wait, mut go) = pipe().unwrap();
    let leader = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let group = leader.id() as libc::pid_t;
    let member = fork((wait, writer), |(wait, mut writer)| {
        // SAFETY: numbers, and a set that is initialised before it is used.
        let asked = unsafe {
            assert_eq!(libc::setpgid(0, group), 0);
            let mut asked = std::mem::zeroed();
            libc::sigemptyset(&mut asked);
            libc::sigaddset(&mut asked, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &asked, std::ptr::null_mut());
            asked
        };
        std::thread::spawn(move || {
            // SAFETY: a set, and room for a number.
            assert_eq!(unsafe { libc::sigwait(&asked, &mut 0) }, 0);
            read_all(wait);
            writer.write_all(b"saved").unwrap();
            std::process::exit(0);
        });
        // SAFETY: no conditions. It ends this thread, whose stack stays.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    })
    .unwrap();
    poll_until("the first thread has left", || process_state(member.id()) == Some('Z'));
    assert_eq!(member.try_wait().unwrap(), None);
    // SAFETY: no conditions.
    let waits = format!("/proc/self/task/{}/status", unsafe { libc::syscall(libc::SYS_gettid) });
    let waits =
        || std::fs::read_to_string(&waits).unwrap().lines().find(|line| line.starts_with("vol")).map(str::to_owned);
    let is_shut_down = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            poll_until("the leader has left", || process_state(leader.id()) == Some('Z'));
            for _ in 0..3 {
                let before = waits();
                poll_until("it is waited for", || is_shut_down.load(SeqCst) || waits() != before);
            }
            go.write_all(b"go").unwrap();
            drop(go);
        });
        assert_eq!(leader.shut_down(SOON).unwrap().signal(), Some(libc::SIGTERM));
        is_shut_down.store(true, SeqCst);
    });
    assert_eq!(read_all(reader), b"saved");
    assert_eq!(exit_code(&member), 0);
}

fn a_group_without_proc_is_killed_when_its_leader_has_left() {
    let (mut reader, writer) = pipe().unwrap();
    let (wait, _go) = pipe().unwrap();
    let child = sh(SLOW).process_group(0).stdout(writer).give_at(3, wait).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    let hidden = support::WithoutProc::new().unwrap();
    assert_eq!(child.shut_down(Duration::MAX).unwrap().signal(), Some(libc::SIGTERM));
    drop(hidden);
    assert_eq!(read_all(reader), b"");
    await_whoever_is_left();
}

fn a_guard_kills_the_group_with_its_leader() {
    let (mut reader, writer) = pipe().unwrap();
    let command = sh("sleep 1000 & echo; wait").process_group(0).stdout(writer);
    let guard = command.spawn().unwrap().kill_on_drop();
    reader.read_exact(&mut [0]).unwrap();
    drop(guard);
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
}
