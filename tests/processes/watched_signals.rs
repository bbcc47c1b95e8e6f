//! Signals that are read: whose they are, and what becomes of the mask.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, SOON, Trial, exit_code, handle_signal, handled, is_pending, read_all, refused, signal_mask,
};
use ipc::{Command, Error, Fork, Forked, Signals, Watch, fork, open_ends, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        signals_come_one_after_the_other,
        waiting_has_a_deadline,
        what_cannot_be_read_is_refused,
        a_thread_that_could_take_one_is_an_error,
        two_may_end_in_any_order,
        a_signal_that_was_blocked_before_stays_blocked,
        what_is_pending_at_the_end_does_not_kill,
        a_forked_child_has_the_mask_as_it_was,
        a_child_may_keep_the_signals_blocked_that_are_read_here,
        a_forked_child_has_no_signals,
        a_child_with_the_same_number_has_none_either needs [OwnPids],
        a_value_that_is_dropped_in_a_child_changes_nothing_there,
        a_program_has_none_blocked,
        they_are_waited_for_beside_ends_and_children,
        a_full_table_leaves_the_mask_alone,
    ]
}

const TERM: i32 = libc::SIGTERM;
const USR1: i32 = libc::SIGUSR1;

fn raise(signal: i32) {
    // SAFETY: numbers. To the process, as from outside.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

fn blocks(signal: i32) -> bool {
    signal_mask().contains(&signal)
}

fn signals_come_one_after_the_other() {
    let signals = Signals::new(&[TERM, USR1, libc::SIGRTMIN() + 1]).unwrap();
    assert!(matches!(signals.try_next(), Err(Error::WouldBlock)));
    raise(USR1);
    raise(USR1);
    raise(TERM);
    let mut both = [signals.next().unwrap(), signals.try_next().unwrap()];
    both.sort_unstable();
    assert_eq!(both, [USR1, TERM], "one that comes twice is one");
    assert!(matches!(signals.try_next(), Err(Error::WouldBlock)));
    raise(libc::SIGRTMIN() + 1);
    raise(libc::SIGRTMIN() + 1);
    assert_eq!((signals.next().unwrap(), signals.next().unwrap()), (libc::SIGRTMIN() + 1, libc::SIGRTMIN() + 1));
    // Also one that is ignored by default, and one that this process ignores.
    let children = Signals::new(&[libc::SIGCHLD, libc::SIGPIPE]).unwrap();
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    assert_eq!(children.next().unwrap(), libc::SIGCHLD);
    raise(libc::SIGPIPE);
    assert_eq!(children.next().unwrap(), libc::SIGPIPE);
}

fn waiting_has_a_deadline() {
    let signals = Signals::new(&[TERM]).unwrap();
    let started = Instant::now();
    assert!(matches!(signals.next_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert!(matches!(signals.next_timeout(Duration::ZERO), Err(Error::TimedOut)));
    raise(TERM);
    assert_eq!(signals.next_timeout(Duration::ZERO).unwrap(), TERM);
    let me = std::process::id();
    let child = Command::new("sh").arg("-c").arg(format!("sleep 0.1; kill -TERM {me}")).spawn().unwrap();
    assert_eq!(signals.next_timeout(FAR).unwrap(), TERM);
    assert_eq!(exit_code(&child), 0);
}

fn what_cannot_be_read_is_refused() {
    let before = signal_mask();
    for signals in [&[][..], &[0], &[-1], &[65], &[1000], &[libc::SIGKILL], &[TERM, libc::SIGSTOP], &[32], &[i32::MIN]]
    {
        assert!(matches!(Signals::new(signals), Err(Error::InvalidInput { .. })), "{signals:?}");
    }
    assert_eq!(signal_mask(), before);
    drop(Signals::new(&[TERM, TERM]).unwrap());
    assert_eq!((signal_mask(), open_ends()), (before, 0));
}

fn a_thread_that_could_take_one_is_an_error() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let before = signal_mask();
    assert!(matches!(Signals::new(&[TERM]), Err(Error::MultiThreaded { threads: 2 })));
    assert_eq!((signal_mask(), open_ends()), (before, 0));
    drop(stop);
    thread.join().unwrap().unwrap_err();
    // Whoever is started afterwards holds them back, and so may read them too.
    let signals = Signals::new(&[TERM, USR1]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let own = Signals::new(&[USR1]).unwrap();
            raise(USR1);
            assert_eq!(own.next().unwrap(), USR1);
            drop(own);
            assert!(blocks(USR1), "as it was when the thread began");
        });
    });
    raise(TERM);
    assert_eq!(signals.next().unwrap(), TERM);
}

fn two_may_end_in_any_order() {
    let before = signal_mask();
    for first in [true, false] {
        let one = Signals::new(&[TERM, USR1]).unwrap();
        let other = Signals::new(&[TERM]).unwrap();
        let left = if first {
            drop(one);
            assert!(!blocks(USR1));
            other
        } else {
            drop(other);
            assert!(blocks(USR1));
            one
        };
        assert!(blocks(TERM));
        raise(TERM);
        assert_eq!(left.next().unwrap(), TERM);
        drop(left);
        assert_eq!(signal_mask(), before);
    }
}

fn a_signal_that_was_blocked_before_stays_blocked() {
    support::block_signal(TERM);
    let signals = Signals::new(&[TERM, USR1]).unwrap();
    drop(signals);
    assert!(blocks(TERM) && !blocks(USR1));
    raise(TERM);
    assert!(is_pending(TERM), "it is whoever's who blocked it");
}

fn what_is_pending_at_the_end_does_not_kill() {
    handle_signal(USR1);
    let signals = Signals::new(&[TERM, USR1, libc::SIGRTMIN() + 1]).unwrap();
    for signal in [TERM, USR1, libc::SIGRTMIN() + 1, libc::SIGRTMIN() + 1] {
        raise(signal);
    }
    drop(signals);
    assert_eq!(handled(), 0);
    raise(USR1);
    assert_eq!(handled(), 1, "it is handled again");
}

fn a_forked_child_has_the_mask_as_it_was() {
    support::block_signal(libc::SIGHUP);
    let before = signal_mask();
    let _signals = Signals::new(&[TERM, USR1, libc::SIGHUP]).unwrap();
    assert_eq!(exit_code(&fork((), |()| assert_eq!(signal_mask(), before)).unwrap()), 0);
    let kept = Fork::new().keep_all_ends().spawn((), |()| assert_eq!(signal_mask(), before));
    assert_eq!(exit_code(&kept.unwrap()), 0);
    assert_eq!(exit_code(&Fork::new().reset_signals().spawn((), |()| assert!(signal_mask().is_empty())).unwrap()), 0);
    // SAFETY: the child leaves at once.
    match unsafe { ipc::fork_raw() }.unwrap() {
        Forked::Child => std::process::exit(i32::from(signal_mask() != before)),
        Forked::Parent(child) => assert_eq!(exit_code(&child), 0),
    }
    // It dies of one, and can read its own.
    let child = fork((), |()| {
        let own = Signals::new(&[USR1]).unwrap();
        raise(USR1);
        assert_eq!(own.next().unwrap(), USR1);
        drop(own);
        raise(TERM);
    });
    assert_eq!(child.unwrap().wait().unwrap().signal(), Some(TERM));
    assert!(blocks(TERM));
}

fn a_child_may_keep_the_signals_blocked_that_are_read_here() {
    let _signals = Signals::new(&[TERM, USR1]).unwrap();
    let look = || {
        assert!(blocks(TERM) && blocks(USR1));
        raise(TERM);
        // What it starts has the mask as it was, as from here.
        assert_eq!(exit_code(&fork((), |()| assert_eq!(signal_mask(), [])).unwrap()), 0);
        let program = Command::new("sh").args(["-c", "kill -USR1 $$; exit 1"]).spawn().unwrap();
        assert_eq!(program.wait().unwrap().signal(), Some(USR1));
        let own = Signals::new(&[TERM]).unwrap();
        assert_eq!(own.next().unwrap(), TERM);
        drop(own);
        assert!(blocks(TERM));
    };
    assert_eq!(exit_code(&Fork::new().hold_signals().spawn((), |()| look()).unwrap()), 0);
    let none = Fork::new().hold_signals().reset_signals();
    let free = |()| {
        assert_eq!(signal_mask(), []);
        drop(Signals::new(&[TERM]).unwrap());
        assert_eq!(signal_mask(), []);
    };
    assert_eq!(exit_code(&none.spawn((), free).unwrap()), 0);
    // Workers of a fork server too.
    let server = Fork::new().hold_signals().serve(move |_, _| look()).unwrap();
    assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
    let server = none.serve(move |_, _| free(())).unwrap();
    assert_eq!(exit_code(&server.fork(b"", ()).unwrap()), 0);
}

fn a_forked_child_has_no_signals() {
    let signals = Signals::new(&[TERM]).unwrap();
    raise(TERM);
    let look = |_: ()| {
        assert!(matches!(signals.try_next(), Err(Error::NotGiven)));
        assert!(matches!(signals.next(), Err(Error::NotGiven)));
        assert!(matches!(signals.next_timeout(SOON), Err(Error::NotGiven)));
    };
    assert_eq!(exit_code(&fork((), look).unwrap()), 0);
    assert_eq!(exit_code(&Fork::new().keep_all_ends().spawn((), look).unwrap()), 0);
    // SAFETY: the child leaves at once.
    match unsafe { ipc::fork_raw() }.unwrap() {
        Forked::Child => std::process::exit(i32::from(!matches!(signals.try_next(), Err(Error::NotGiven)))),
        Forked::Parent(child) => assert_eq!(exit_code(&child), 0),
    }
    assert_eq!(signals.next().unwrap(), TERM, "it is still there");
}

fn a_value_that_is_dropped_in_a_child_changes_nothing_there() {
    let signals = Signals::new(&[TERM]).unwrap();
    let child = fork((), move |()| {
        support::block_signal(TERM);
        raise(TERM);
        drop(signals);
        assert!(blocks(TERM) && is_pending(TERM));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert!(!blocks(TERM), "here it was dropped too");
}

fn a_program_has_none_blocked() {
    let _signals = Signals::new(&[TERM, USR1]).unwrap();
    let output = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "SigBlk:\t0000000000000000");
    let refused = Command::new("/no/such/program").exec();
    assert!(matches!(refused.error, Error::System { call: "execve", .. }));
    assert!(blocks(TERM), "an exec that failed");
}

fn they_are_waited_for_beside_ends_and_children() {
    let signals = Signals::new(&[TERM]).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let child = Command::new("cat").stdin(pipe().unwrap().0).spawn().unwrap();
    assert_eq!(exit_code(&child), 0);
    let ready = |signals: &Signals| {
        let mut on = [Watch::readable(signals), Watch::readable(&reader)];
        wait_any(&mut on, Some(Duration::ZERO)).unwrap();
        on.map(|watch| watch.ready().is_readable())
    };
    assert_eq!(ready(&signals), [false, false]);
    raise(TERM);
    assert_eq!(ready(&signals), [true, false]);
    writer.write_all(b"x").unwrap();
    assert_eq!(ready(&signals), [true, true]);
    assert_eq!(signals.next().unwrap(), TERM);
    assert_eq!(ready(&signals), [false, true]);
    assert!(signals.as_raw_fd() > 2);
    drop(writer);
    assert_eq!(read_all(reader), b"x");
}

fn a_full_table_leaves_the_mask_alone() {
    let before = signal_mask();
    let full = support::limit_descriptors(0);
    let refused_for = Signals::new(&[TERM]).map(drop);
    drop(full);
    assert_eq!(refused(refused_for), ("signalfd", libc::EMFILE));
    assert_eq!(signal_mask(), before);
}

fn a_child_with_the_same_number_has_none_either() {
    let child = fork((), |()| {
        assert!(support::own_pids());
        // The first process of a namespace, whose child is the first of another.
        let first = fork((), |()| {
            assert_eq!(std::process::id(), 1);
            let signals = Signals::new(&[libc::SIGUSR1]).unwrap();
            assert!(support::own_pids());
            let child = Fork::new().keep_all_ends().spawn((), |()| {
                assert_eq!(std::process::id(), 1);
                support::block_signal(libc::SIGUSR1);
                assert!(matches!(signals.try_next(), Err(Error::NotGiven)));
                drop(signals);
                assert!(signal_mask().contains(&libc::SIGUSR1), "which this process has blocked");
            });
            assert_eq!(exit_code(&child.unwrap()), 0);
        });
        assert_eq!(exit_code(&first.unwrap()), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}
