//! The harness of the other tests: what goes wrong in a test is a failure of it, whatever it is.

mod support;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::{Gate, Is, Kernel, LIMIT, RWF_NOWAIT, judge, limit_descriptors, refuse_flags, with_interval_timer};

fn main() -> ExitCode {
    support::run([support::trials![
        a_test_that_is_fine_passes,
        what_a_test_prints_is_shown_when_it_fails,
        a_panic_is_a_failure,
        an_error_is_a_failure,
        a_hang_is_a_failure_and_is_ended,
        a_hang_is_ended_with_all_its_processes,
        a_death_by_signal_is_a_failure,
        an_exit_is_a_failure,
        a_leaked_descriptor_is_a_failure,
        a_closed_descriptor_is_a_failure,
        a_replaced_descriptor_is_a_failure,
        a_leaked_end_is_a_failure,
        a_child_that_nobody_waited_for_is_a_failure,
        a_child_that_still_runs_is_a_failure,
        an_orphan_is_a_failure,
        a_process_that_left_the_group_is_found,
        a_killed_orphan_is_let_go,
        an_expected_orphan_is_no_failure,
        a_child_that_comes_back_is_not_taken_for_the_test,
        a_table_has_as_many_places_as_were_left,
        the_standard_descriptors_come_back,
        the_timer_interrupts_and_stops,
        a_gate_lets_as_many_through_as_it_was_opened_for,
        memory_that_is_lost_is_a_failure_where_it_is_looked_for,
        an_older_kernel_can_be_played,
        a_rule_goes_for_the_arguments_that_it_names,
    ]])
}

/// What the harness says about a body that is wrong.
#[track_caller]
fn failure(limit: Duration, body: fn() -> Result<(), String>) -> String {
    judge(limit, body).expect_err("a failure")
}

#[track_caller]
fn assert_says(message: &str, words: &str) {
    assert!(message.contains(words), "expected \"{words}\" in:\n{message}");
}

/// A child made without the crate, so that nothing looks after it.
fn bare_fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread, and the child leaves with _exit.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: no conditions.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    }
}

fn reap(pid: libc::pid_t) {
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
}

fn wait_for_ever() {
    loop {
        // SAFETY: no conditions.
        unsafe { libc::pause() };
    }
}

fn a_test_that_is_fine_passes() {
    judge(LIMIT, || {
        println!("this is not shown");
        let _file = File::open("/dev/null").unwrap();
        reap(bare_fork(|| ()));
        Ok(())
    })
    .unwrap();
}

fn what_a_test_prints_is_shown_when_it_fails() {
    let message = failure(LIMIT, || {
        print!("to stdout, no line; ");
        eprintln!("to stderr");
        reap(bare_fork(|| eprintln!("from a child")));
        Err("the last word".to_owned())
    });
    for words in ["to stdout, no line; ", "to stderr", "from a child", "the last word", "exit status 1"] {
        assert_says(&message, words);
    }
}

fn a_panic_is_a_failure() {
    let message = failure(LIMIT, || panic!("in a panic"));
    assert_says(&message, "exit status 101");
    assert_says(&message, "in a panic");
}

fn an_error_is_a_failure() {
    let message = failure(LIMIT, || support::Verdict::verdict(Err(ipc::Error::TimedOut)));
    assert_says(&message, "Error: TimedOut");
}

fn a_hang_is_a_failure_and_is_ended() {
    let started = Instant::now();
    let message = failure(Duration::from_millis(100), || {
        wait_for_ever();
        Ok(())
    });
    assert_says(&message, "hung");
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(10));
}

fn a_hang_is_ended_with_all_its_processes() {
    let message = failure(Duration::from_millis(100), || {
        for _ in 0..3 {
            bare_fork(wait_for_ever);
        }
        wait_for_ever();
        Ok(())
    });
    assert_says(&message, "hung");
    // This process is the one that adopts orphans.
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }, -1);
}

fn a_death_by_signal_is_a_failure() {
    let message = failure(LIMIT, || {
        // SAFETY: no conditions.
        unsafe { libc::abort() }
    });
    assert_says(&message, "killed by signal 6");
}

fn an_exit_is_a_failure() {
    for status in [0, 3] {
        let message = judge(LIMIT, || std::process::exit(status)).unwrap_err();
        assert_says(&message, &format!("exit status {status}"));
    }
}

fn a_leaked_descriptor_is_a_failure() {
    let message = failure(LIMIT, || {
        let _ = File::open("/dev/null").unwrap().into_raw_fd();
        Ok(())
    });
    assert_says(&message, "descriptors leaked: ");
    assert_says(&message, "/dev/null");
}

fn a_closed_descriptor_is_a_failure() {
    let message = failure(LIMIT, || {
        // SAFETY: nothing in Rust owns it.
        unsafe { libc::close(0) };
        Ok(())
    });
    assert_says(&message, "closed that are not the test's: 0 → ");
}

fn a_replaced_descriptor_is_a_failure() {
    let message = failure(LIMIT, || {
        let other = File::open("/proc/self/status").unwrap();
        // SAFETY: two open numbers; nothing in Rust owns 0.
        unsafe { libc::dup2(other.as_raw_fd(), 0) };
        Ok(())
    });
    assert_says(&message, "descriptors changed: 0 → ");
}

fn a_leaked_end_is_a_failure() {
    let message = failure(LIMIT, || {
        let (reader, _writer) = ipc::pipe().unwrap();
        std::mem::forget(reader);
        Ok(())
    });
    assert_says(&message, "1 ends are open after the test");
    assert_says(&message, "descriptors leaked: ");
    assert_says(&message, "pipe:[");
}

fn a_child_that_nobody_waited_for_is_a_failure() {
    let message = failure(LIMIT, || {
        bare_fork(|| ());
        Ok(())
    });
    assert_says(&message, "nobody waited for the child");
}

fn a_child_that_still_runs_is_a_failure() {
    let message = failure(LIMIT, || {
        bare_fork(wait_for_ever);
        Ok(())
    });
    assert_says(&message, "left a process behind");
}

fn an_orphan_is_a_failure() {
    let message = failure(LIMIT, || {
        reap(bare_fork(|| {
            bare_fork(wait_for_ever);
        }));
        Ok(())
    });
    assert_says(&message, "left a process behind");
}

fn a_process_that_left_the_group_is_found() {
    let message = failure(LIMIT, || {
        // A session of its own, and then the test dies before anybody could look for children.
        let gate = Gate::new();
        bare_fork(|| {
            // SAFETY: no conditions.
            unsafe { libc::setsid() };
            gate.open();
            wait_for_ever();
        });
        gate.pass();
        std::process::exit(0);
    });
    assert_says(&message, "left a process behind");
}

fn a_killed_orphan_is_let_go() {
    judge(LIMIT, || {
        let gate = Gate::new();
        let child = bare_fork(|| {
            bare_fork(|| {
                // SAFETY: numbers only.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                gate.open();
                wait_for_ever();
            });
            wait_for_ever();
        });
        gate.pass();
        // SAFETY: a child that nobody has waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
        reap(child);
        Ok(())
    })
    .unwrap();
}

fn an_expected_orphan_is_no_failure() {
    judge(LIMIT, || {
        reap(bare_fork(|| {
            bare_fork(|| ());
        }));
        support::await_orphans(1);
        Ok(())
    })
    .unwrap();
}

fn a_child_that_comes_back_is_not_taken_for_the_test() {
    let message = failure(LIMIT, || {
        // SAFETY: this process has one thread. Both go on from here.
        match unsafe { libc::fork() } {
            0 => Ok(()),
            pid => {
                let mut status = 0;
                // SAFETY: a child of ours, and room for its status.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                Err(format!("it left with {}", libc::WEXITSTATUS(status)))
            }
        }
    });
    assert_says(&message, "it left with 1");
    assert_says(&message, "came back");
}

fn a_table_has_as_many_places_as_were_left() {
    let hole = File::open("/dev/null").unwrap();
    let _above = File::open("/dev/null").unwrap();
    drop(hole);
    for free in [0, 1, 5] {
        let full = limit_descriptors(free);
        let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert_eq!(files.len(), free);
        drop(full);
        File::open("/dev/null").unwrap();
    }
}

fn the_standard_descriptors_come_back() {
    support::closed_standard_descriptors(|| {
        for number in 0..=2 {
            // SAFETY: a number that may be closed.
            assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1);
        }
    });
    let message = failure(LIMIT, || {
        support::closed_standard_descriptors(|| panic!("heard all the same"));
        Ok(())
    });
    assert_says(&message, "heard all the same");
}

fn the_timer_interrupts_and_stops() {
    with_interval_timer(Duration::from_millis(1), || {
        let before = support::handled();
        support::poll_until("ten signals came", || support::handled() >= before + 10);
        let mut fds: [libc::pollfd; 0] = [];
        // SAFETY: no descriptors to wait for, only the time.
        let result = unsafe { libc::poll(fds.as_mut_ptr(), 0, 5000) };
        assert_eq!(result, -1, "it was interrupted");
    });
    let after = support::handled();
    let mut fds: [libc::pollfd; 0] = [];
    // SAFETY: no descriptors to wait for, only the time.
    assert_eq!(unsafe { libc::poll(fds.as_mut_ptr(), 0, 20) }, 0, "nothing interrupts any more");
    assert_eq!(support::handled(), after);
}

fn a_gate_lets_as_many_through_as_it_was_opened_for() {
    let gate = Gate::new();
    assert!(!gate.is_open());
    gate.open();
    gate.open();
    gate.pass();
    gate.pass();
    assert!(!gate.is_open());
}

fn memory_that_is_lost_is_a_failure_where_it_is_looked_for() {
    let verdict = judge(LIMIT, || {
        std::mem::forget(std::hint::black_box(vec![1_u8; 1000]));
        Ok(())
    });
    match cfg!(sanitizers) {
        true => assert!(verdict.is_err_and(|wrong| wrong.contains("memory leaked") && wrong.contains("1000 byte(s)"))),
        false => assert_eq!(verdict, Ok(())),
    }
}

fn an_older_kernel_can_be_played() {
    let file = File::open("/dev/zero").unwrap();
    let read = |flags: u32| {
        let mut byte = 1_u8;
        let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: one part with room for one byte.
        unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, -1, flags as i32) }
    };
    refuse_flags(RWF_NOWAIT);
    assert_eq!((read(RWF_NOWAIT), read(0)), (-1, 1));
}

fn a_rule_goes_for_the_arguments_that_it_names() {
    let socket = |family: i32, kind: i32| {
        // SAFETY: integers; the descriptor is new.
        match unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap(),
            fd => {
                // SAFETY: nobody else has it.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
                0
            }
        }
    };
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let both = [(0, Is::Equal(libc::AF_UNIX as u32)), (1, Is::Equal((datagram | libc::SOCK_CLOEXEC) as u32))];
    let kernel = Kernel::new().with_all(libc::SYS_socket, &both, libc::EPROTONOSUPPORT);
    kernel.with(libc::SYS_socket, 0, Is::Equal(libc::AF_NETLINK as u32), libc::EPERM).play();
    assert_eq!(socket(libc::AF_UNIX, datagram), libc::EPROTONOSUPPORT);
    assert_eq!(socket(libc::AF_UNIX, stream), 0, "the first test fits, and the second does not");
    assert_eq!(socket(libc::AF_NETLINK, datagram), libc::EPERM, "the second rule comes after the first");
}
