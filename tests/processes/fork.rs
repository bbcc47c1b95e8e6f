//! A fork that cannot be safe does not happen (P9); what a child returns; and what its parent can do with it.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{self, Gate, SOON, Sigpipe, Trial, await_orphans, exit_code, poll_until};
use ipc::{Child, Error, Fork, Forked, fork, fork_raw, fork_unchecked, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_starts_a_thread_when_it_is_asked_for_its_ends_is_not_forked,
        a_thread_that_holds_stderr_and_prints_is_no_deadlock,
        children_in_a_namespace_of_their_own_die_with_their_parent needs [OwnPids],
        a_second_thread_refuses_the_fork_and_gives_the_ends_back,
        a_thread_that_was_joined_does_not_count,
        a_threaded_process_can_answer_for_itself,
        a_child_that_cannot_be_held_leaves_and_is_not_killed_by_its_number,
        what_a_child_returns_becomes_its_status,
        a_panic_is_printed_and_becomes_101,
        an_error_is_printed_and_becomes_1,
        a_child_that_leaves_by_itself_is_no_trouble,
        a_child_that_loops_for_ever_can_be_killed,
        nothing_is_printed_twice,
        what_a_child_prints_without_a_newline_is_printed,
        destructors_of_the_parents_frames_do_not_run_in_the_child,
        handlers_of_the_parents_exit_do_not_run_in_the_child,
        ignored_children_refuse_the_fork,
        a_status_taken_by_somebody_else_is_an_error,
        a_child_with_its_parents_number_has_none_of_its_children needs [OwnPids],
        the_process_limit_is_not_would_block,
        a_child_dies_with_its_parent,
        a_childs_signals_can_be_reset,
        a_childs_signals_are_its_parents_otherwise,
        the_bare_fork_leaves_everything_open,
        the_bare_fork_is_refused_like_any,
        forks_under_a_storm_of_signals,
    ]
}

#[track_caller]
fn assert_multi_threaded(error: &Error) {
    assert!(matches!(error, Error::MultiThreaded { threads: 2.. }), "{error:?}");
}

fn a_second_thread_refuses_the_fork_and_gives_the_ends_back() {
    let (reader, writer) = pipe().unwrap();
    std::thread::scope(|scope| {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || wait.recv().unwrap_err());
        let refused = fork(writer, |_| ()).unwrap_err();
        assert_multi_threaded(&refused.error);
        let refused = Fork::new().die_with_parent().spawn(refused.ends, |_| ()).unwrap_err();
        assert_multi_threaded(&refused.error);
        refused.ends.write_atomic(b"still mine").unwrap();
        drop(stop);
    });
    assert_eq!(reader.available().unwrap(), 10);
}

fn a_thread_that_was_joined_does_not_count() {
    for round in 0..200 {
        match round % 2 {
            0 => std::thread::spawn(|| ()).join().unwrap(),
            _ => std::thread::scope(|scope| {
                scope.spawn(|| ());
            }),
        }
        assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    }
}

fn a_threaded_process_can_answer_for_itself() {
    let (reader, writer) = pipe().unwrap();
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().unwrap_err());
    // SAFETY: the child makes one system call and leaves.
    let child = unsafe { fork_unchecked(writer, |writer| u8::from(writer.write_atomic(b"x").is_err())) }.unwrap();
    assert_eq!(exit_code(&child), 0);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
    drop(stop);
    thread.join().unwrap();
}

fn what_a_child_returns_becomes_its_status() {
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    assert_eq!(exit_code(&fork((), |()| 0_u8).unwrap()), 0);
    assert_eq!(exit_code(&fork((), |()| 255_u8).unwrap()), 255);
    assert_eq!(exit_code(&fork((), |()| Ok::<(), String>(())).unwrap()), 0);
    assert_eq!(exit_code(&fork((), |()| Ok::<u8, String>(7)).unwrap()), 7);
    assert_eq!(exit_code(&fork((), |()| Err::<u8, _>("no")).unwrap()), 1);
    assert_eq!(exit_code(&fork((), |()| Ok::<Result<u8, ()>, ()>(Err(()))).unwrap()), 1);
    assert_eq!(exit_code(&fork((), |()| -> ! { std::process::exit(9) }).unwrap()), 9);
}

/// All that this test has printed; its stdout and stderr are one file.
fn printed() -> String {
    std::fs::read_to_string("/proc/self/fd/1").unwrap()
}

fn a_panic_is_printed_and_becomes_101() {
    assert_eq!(exit_code(&fork((), |()| panic!("a word")).unwrap()), 101);
    assert!(printed().contains("a word"));
    // A payload whose destructor panics again.
    struct Twice;
    impl Drop for Twice {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    assert_eq!(exit_code(&fork((), |()| -> () { std::panic::panic_any(Twice) }).unwrap()), 101);
}

fn an_error_is_printed_and_becomes_1() {
    let child = fork((), |()| Err::<(), _>(Error::TooLong { len: 2, max: 1 })).unwrap();
    assert_eq!(exit_code(&child), 1);
    assert!(printed().ends_with("Error: TooLong { len: 2, max: 1 }\n"), "{}", printed());
}

fn a_child_that_leaves_by_itself_is_no_trouble() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        writer.write_atomic(b"x").unwrap();
        std::process::exit(3);
    });
    let child: Child = child.unwrap();
    assert_eq!(exit_code(&child), 3);
    assert_eq!(reader.try_read(&mut [0; 2]).unwrap(), 1);
    assert_eq!(reader.try_read(&mut [0; 2]).unwrap(), 0);
}

fn a_child_that_loops_for_ever_can_be_killed() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |_writer| {
        loop {
            std::hint::spin_loop();
        }
    })
    .unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its writer went with it");
    child.kill().unwrap();
}

fn nothing_is_printed_twice() {
    print!("once, ");
    for _ in 0..3 {
        assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    }
    std::io::stdout().flush().unwrap();
    assert_eq!(printed().matches("once, ").count(), 1);
}

fn what_a_child_prints_without_a_newline_is_printed() {
    assert_eq!(exit_code(&fork((), |()| print!("the last word")).unwrap()), 0);
    assert!(printed().ends_with("the last word"));
    // Held by whoever forks, the lock is the child's too.
    let lock = std::io::stdout().lock();
    assert_eq!(exit_code(&fork((), |()| println!("through the lock")).unwrap()), 0);
    drop(lock);
    assert!(printed().ends_with("through the lock\n"));
}

fn destructors_of_the_parents_frames_do_not_run_in_the_child() {
    struct Loud<'a>(&'a Gate);
    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.0.open();
        }
    }
    let gate = Gate::new();
    let loud = Loud(&gate);
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    assert_eq!(exit_code(&fork((), |()| panic!("unwinding stops at the fork")).unwrap()), 101);
    assert!(!gate.is_open());
    drop(loud);
    assert!(gate.is_open());
}

fn handlers_of_the_parents_exit_do_not_run_in_the_child() {
    static GATE: Mutex<Option<Gate>> = Mutex::new(None);
    extern "C" fn note() {
        GATE.lock().unwrap().iter().for_each(Gate::open);
    }
    let noted = || GATE.lock().unwrap().as_ref().unwrap().is_open();
    *GATE.lock().unwrap() = Some(Gate::new());
    // SAFETY: a function that may run at any time. This process itself leaves without it.
    assert_eq!(unsafe { libc::atexit(note) }, 0);
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    assert_eq!(exit_code(&fork((), |()| Err::<(), _>("an error")).unwrap()), 1);
    assert!(!noted());
    let child = fork((), |()| -> () { std::process::exit(0) });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert!(noted(), "what leaves by itself runs them");
    *GATE.lock().unwrap() = None;
}

/// Sets the flags and the handler of a signal.
fn set_action(signal: i32, handler: libc::sighandler_t, flags: i32) {
    // SAFETY: zeroed bytes are a valid action; handlers are SIG_IGN or SIG_DFL here.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn ignored_children_refuse_the_fork() {
    let (reader, writer) = pipe().unwrap();
    set_action(libc::SIGCHLD, libc::SIG_IGN, 0);
    let refused = fork(writer, |_| ()).unwrap_err();
    assert!(matches!(refused.error, Error::SigchldIgnored));
    set_action(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT);
    let refused = fork(refused.ends, |_| ()).unwrap_err();
    assert!(matches!(refused.error, Error::SigchldIgnored));
    set_action(libc::SIGCHLD, libc::SIG_DFL, 0);
    assert_eq!(exit_code(&fork(refused.ends, |writer| writer.write_atomic(b"x")).unwrap()), 0);
    assert_eq!(reader.available().unwrap(), 1);
}

fn a_status_taken_by_somebody_else_is_an_error() {
    let child = fork((), |()| ()).unwrap();
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(child.id() as i32, std::ptr::null_mut(), 0) }, child.id() as i32);
    for result in [child.try_wait().map(drop), child.wait().map(drop), child.wait_timeout(SOON).map(drop)] {
        let taken = result.unwrap_err();
        assert!(
            matches!(&taken, Error::StatusTaken { stdout, stderr } if stdout.is_empty() && stderr.is_empty()),
            "{taken:?}"
        );
    }
}

fn the_process_limit_is_not_would_block() {
    // SAFETY: numbers, and a valid limit. Root has no such limit, so this process is somebody else from here on.
    unsafe {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &limit), 0);
        if libc::geteuid() == 0 {
            assert_eq!(libc::setresuid(54_321, 54_321, 54_321), 0);
        }
    }
    let (_reader, writer) = pipe().unwrap();
    let refused = fork(writer, |_| ()).unwrap_err();
    match &refused.error {
        Error::System { call: "fork", source } => assert_eq!(source.raw_os_error(), Some(libc::EAGAIN)),
        other => panic!("{other:?}"),
    }
    assert!(!refused.ends.is_closed().unwrap());
    assert!(support::signal_mask().is_empty(), "signals come again");
}

fn a_child_dies_with_its_parent() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let grandchild = Fork::new().die_with_parent().spawn(writer, |writer| {
            writer.write_atomic(b"here").unwrap();
            loop {
                // SAFETY: no conditions. Nothing else than its parent's end is to end it.
                unsafe { libc::pause() };
            }
        });
        grandchild.unwrap().wait().map(drop)
    })
    .unwrap();
    reader.read_exact(&mut [0; 4]).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the grandchild is gone too");
    await_orphans(1);
}

/// A set of signals of this process's status, such as those that it ignores; without 32 and 33, which libc keeps to itself.
fn status_field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":")).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap() & !(0b11 << 31)
}

fn a_childs_signals_can_be_reset() {
    support::sigpipe(Sigpipe::Ignore);
    support::handle_signal(libc::SIGUSR1);
    support::block_signal(libc::SIGUSR2);
    let (reader, mut writer) = pipe().unwrap();
    drop(reader);
    let child = Fork::new().reset_signals().spawn(writer.as_fd(), |_| {
        for field in ["SigIgn", "SigCgt", "SigBlk"] {
            assert_eq!(status_field(field), 0, "{field}");
        }
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    // A writer that was made when SIGPIPE was ignored does not die of it.
    let child = Fork::new().keep_all_ends().reset_signals().spawn((), |()| {
        assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_childs_signals_are_its_parents_otherwise() {
    support::handle_signal(libc::SIGUSR1);
    support::block_signal(libc::SIGUSR2);
    let before = (status_field("SigIgn"), status_field("SigCgt"), support::signal_mask());
    let child = fork((), |()| {
        assert_eq!((status_field("SigIgn"), status_field("SigCgt"), support::signal_mask()), before);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    assert_eq!((status_field("SigIgn"), status_field("SigCgt"), support::signal_mask()), before);
}

fn the_bare_fork_leaves_everything_open() {
    let (mut reader, mut writer) = pipe().unwrap();
    // SAFETY: the child leaves with _exit, and no guard of this frame matters to it.
    match unsafe { fork_raw() }.unwrap() {
        Forked::Child => {
            let fine = open_ends() == 2 && reader.close().is_ok() && writer.write_all(b"by hand").is_ok();
            // SAFETY: no conditions.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) }
        }
        Forked::Parent(child) => {
            assert_eq!(exit_code(&child), 0);
            assert_eq!(open_ends(), 2);
            assert_eq!(reader.read(&mut [0; 16]).unwrap(), 7);
            // The writer here is the one that everybody forgets.
            assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
            writer.close().unwrap();
            assert_eq!(reader.read(&mut [0; 16]).unwrap(), 0);
        }
    }
}

fn the_bare_fork_is_refused_like_any() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().unwrap_err());
    // SAFETY: it is refused.
    let refused = unsafe { fork_raw() }.unwrap_err();
    assert_multi_threaded(&refused);
    drop(stop);
    thread.join().unwrap();
}

fn forks_under_a_storm_of_signals() {
    support::with_interval_timer(Duration::from_micros(200), || {
        for _ in 0..support::rounds(20) {
            let (mut reader, writer) = pipe().unwrap();
            let child = fork(writer, |mut writer| writer.write_all(&[7; 100_000])).unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, [7; 100_000]);
            assert!(child.wait().unwrap().success());
        }
    });
    poll_until("some signals came", || support::handled() > 0);
}

/// An end that makes the process one with threads when it is visited.
struct Threading(ipc::PipeWriter, std::sync::Mutex<Option<std::thread::JoinHandle<()>>>);

impl ipc::Ends for Threading {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        let mut thread = self.1.lock().unwrap();
        thread.get_or_insert_with(|| std::thread::spawn(std::thread::park));
        self.0.each(visit);
    }
}

fn what_starts_a_thread_when_it_is_asked_for_its_ends_is_not_forked() {
    let ends = Threading(pipe().unwrap().1, std::sync::Mutex::new(None));
    let refused = fork(ends, |_| ()).unwrap_err();
    assert!(matches!(refused.error, Error::MultiThreaded { threads: 2 }), "{refused:?}");
    let thread = refused.ends.1.lock().unwrap().take().unwrap();
    thread.thread().unpark();
    thread.join().unwrap();
    assert!(support::signal_mask().is_empty(), "signals come again");
}

fn a_thread_that_holds_stderr_and_prints_is_no_deadlock() {
    use std::io::Write;
    let (held, is_held) = std::sync::mpsc::channel();
    let (stop, is_stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _stderr = std::io::stderr().lock();
            held.send(()).unwrap();
            while is_stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                write!(std::io::stdout().lock(), ".").unwrap();
            }
        });
        is_held.recv().unwrap();
        for _ in 0..50 {
            // SAFETY: the child leaves at once.
            let child = unsafe { fork_unchecked((), |()| ()) }.unwrap();
            assert_eq!(exit_code(&child), 0);
        }
        drop(stop);
    });
}

fn a_child_that_cannot_be_held_leaves_and_is_not_killed_by_its_number() {
    let (reader, writer) = pipe().unwrap();
    // What is looked at once has been looked at.
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    let kernel = support::Kernel::new().without(libc::SYS_pidfd_open, libc::EMFILE);
    kernel.with(libc::SYS_kill, 1, support::Is::Equal(libc::SIGKILL as u32), libc::EPERM).play();
    // SAFETY: a system call.
    let failed = unsafe { fork_unchecked(writer, |writer| u8::from(writer.write_atomic(b"x").is_err())) }.unwrap_err();
    assert_eq!(support::refused(Err::<(), _>(failed.error)), ("pidfd_open", libc::EMFILE));
    drop(failed.ends);
    assert_eq!(support::read_all(reader), b"", "it has not run");
    // SAFETY: a number, and nobody who asks for a status.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }, -1, "and was waited for");
}

fn a_child_with_its_parents_number_has_none_of_its_children() {
    let child = fork((), |()| {
        assert!(support::own_pids());
        // The first process of a namespace, whose child is the first of another.
        let first = fork((), |()| {
            assert_eq!(std::process::id(), 1);
            let (reader, writer) = pipe().unwrap();
            let guard = fork(reader, |reader| reader.read_timeout(&mut [0], Duration::MAX).map(drop)).unwrap();
            let id = guard.id() as libc::pid_t;
            // Dropped in the child alone.
            let guard = std::mem::ManuallyDrop::new(guard.kill_on_drop());
            assert!(support::own_pids());
            let nested = fork((), move |()| {
                assert_eq!(std::process::id(), 1);
                assert_eq!(support::refused(guard.wait()), ("waitid", libc::ECHILD));
                drop(std::mem::ManuallyDrop::into_inner(guard));
            });
            assert_eq!(exit_code(&nested.unwrap()), 0);
            drop(writer);
            let mut status = -1;
            // SAFETY: a number, and room for another.
            assert_eq!(unsafe { libc::waitpid(id, &raw mut status, 0) }, id);
            assert_eq!(status, 0, "it left by itself");
        });
        assert_eq!(exit_code(&first.unwrap()), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn children_in_a_namespace_of_their_own_die_with_their_parent() {
    let (reader, writer) = pipe().unwrap();
    let gate = support::Gate::new();
    let child = fork(writer, |writer| {
        assert!(support::own_pids());
        // The first process there, which sees no parent.
        let grandchild = Fork::new().die_with_parent().spawn(writer, |_writer| {
            assert_eq!(std::process::id(), 1);
            gate.open();
            loop {
                std::thread::park();
            }
        });
        let _grandchild = grandchild.unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(support::read_all(reader), b"");
    support::await_orphans(1);
}
