//! One test in a process of its own, watched from outside.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::inventory::{Inventory, no_child_is_left};
use super::places::memory_file;
use super::processes::children;

/// How much of what a test printed is shown.
const SHOWN: usize = 64 << 10;

/// How long a process that was killed may take to go.
const DYING: Duration = Duration::from_secs(5);

/// The status of a process whose test is fine. Not 0, so that a test does not pass by calling `exit`.
const FINE: libc::c_int = 99;

/// Runs a test in a process of its own, and says what was wrong: the test itself, something that it left behind, or
/// that it was not done within the limit.
///
/// Every process that is a child of the caller afterwards counts as left behind, so the caller has no others.
///
/// Built with sanitizers, which slow everything down, it has four times as long; and `IPC_TESTS_SLOW=10` says that the machine needs
/// ten times as long.
pub fn judge(limit: Duration, body: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    judge_after(|| (), limit, body)
}

/// The same, where the process first opens what it keeps until its end.
pub fn judge_after(keep: fn(), limit: Duration, body: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let slow = std::env::var("IPC_TESTS_SLOW").map_or(1, |times| times.parse().expect("IPC_TESTS_SLOW is a number"));
    let limit = limit * slow * if cfg!(sanitizers) { 4 } else { 1 };
    adopt_orphans();
    // It never blocks the test, and whoever writes last is last in it.
    let output = memory_file();
    // Or the test's process would print it again.
    std::io::stdout().flush().expect("stdout can be flushed");
    // SAFETY: the harness has one thread, so the child may do everything. It leaves with _exit.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => panic!("the test's process could not be forked: {}", std::io::Error::last_os_error()),
        0 => run_and_leave(&output, keep, body),
        _ => {}
    }
    // Also in the child: whoever comes first. Here it fails where the test is over already.
    // SAFETY: two numbers.
    unsafe { libc::setpgid(pid, pid) };

    let mut wrong = Vec::new();
    if !left_within(pid, limit) {
        // SAFETY: two numbers. The group is the test's: its leader was not waited for, so the number is its own.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        wrong.push(format!("hung: killed after {limit:?}"));
    }
    let mut status = 0;
    // SAFETY: a child that nobody has waited for, and room for its status.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid, "the test's process can be waited for");
    let left_behind = end_stragglers();
    if wrong.is_empty() {
        match status {
            _ if libc::WIFSIGNALED(status) => wrong.push(format!("killed by signal {}", libc::WTERMSIG(status))),
            _ if libc::WEXITSTATUS(status) == FINE => {}
            _ => wrong.push(format!("failed with exit status {}", libc::WEXITSTATUS(status))),
        }
        if !left_behind.is_empty() {
            wrong.push(format!("left a process behind: {}", left_behind.join(", ")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{}", wrong.join("\n"), shown(output))) }
}

/// The test's process, from its start to its end.
fn run_and_leave(output: &File, keep: fn(), body: impl FnOnce() -> Result<(), String>) -> ! {
    // SAFETY: numbers only; 1 and 2 are this process's stdout and stderr.
    let me = unsafe {
        libc::setpgid(0, 0);
        libc::dup2(output.as_raw_fd(), 1);
        libc::dup2(output.as_raw_fd(), 2);
        libc::getpid()
    };
    adopt_orphans();
    let wrong = catch_unwind(AssertUnwindSafe(|| {
        keep();
        let before = Inventory::take();
        let mut wrong = Vec::from_iter(open_ends("before"));
        wrong.extend(body().err());
        // SAFETY: no conditions.
        if unsafe { libc::getpid() } != me {
            return vec!["a child that the test forked came back from it".to_owned()];
        }
        wrong.extend(open_ends("after"));
        wrong.extend(before.compare(&Inventory::take()));
        wrong.extend(no_child_is_left());
        wrong.extend(leaks());
        wrong
    }));
    // A panic has been printed.
    let status = match wrong {
        Ok(wrong) if wrong.is_empty() => FINE,
        Ok(wrong) => {
            eprintln!("{}", wrong.join("\n"));
            1
        }
        Err(_) => 101,
    };
    let _ = std::io::stdout().flush();
    // SAFETY: no conditions.
    unsafe { libc::_exit(status) }
}

fn open_ends(when: &str) -> Option<String> {
    match ipc::open_ends() {
        0 => None,
        open => Some(format!("{open} ends are open {when} the test")),
    }
}

/// What LeakSanitizer finds, where the test is built with it: by itself it looks only when a process returns from `main`.
fn leaks() -> Option<String> {
    #[cfg(sanitizers)]
    {
        unsafe extern "C" {
            safe fn __lsan_do_recoverable_leak_check() -> libc::c_int;
        }
        // It takes some memory and a process, and the test may have limited what there is.
        super::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
        super::limit(libc::RLIMIT_NPROC, |limit| limit.rlim_max);
        if __lsan_do_recoverable_leak_check() != 0 {
            return Some("memory leaked".to_owned());
        }
    }
    None
}

/// Processes whose parent has gone become children of this one, and not of init.
fn adopt_orphans() {
    // SAFETY: integers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert_eq!(result, 0, "prctl: {}", std::io::Error::last_os_error());
}

/// Whether the child has left, after waiting for it for at most that long. It is not reaped.
fn left_within(pid: libc::pid_t, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    // SAFETY: a child that nobody has waited for; the descriptor is new and close-on-exec.
    let pidfd = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if pidfd < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            return left_by(pid, deadline); // gVisor
        }
        assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(pidfd as i32)
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fd = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Rounded up, so that the last wait is not a busy one.
        // SAFETY: one pollfd.
        match unsafe { libc::poll(&mut fd, 1, left.as_millis() as i32 + 1) } {
            1 => return true,
            _ if left.is_zero() => return false,
            _ => {}
        }
    }
}

/// The same where the kernel has no pidfds: it looks again and again.
fn left_by(pid: libc::pid_t, deadline: Instant) -> bool {
    loop {
        // SAFETY: room for what is said, for which zeroes are valid; a child that stays one.
        unsafe {
            let mut said: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            assert_eq!(libc::waitid(libc::P_PID, pid as libc::id_t, &mut said, how), 0);
            if said.si_pid() != 0 || Instant::now() > deadline {
                return said.si_pid() != 0;
            }
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Kills and reaps whatever is still a child of this process, and says what that was.
fn end_stragglers() -> Vec<String> {
    let mut ended = Vec::new();
    let deadline = Instant::now() + DYING;
    loop {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            -1 => return ended, // ECHILD: none is left
            0 if Instant::now() > deadline => {
                ended.push("(and one that cannot be killed)".to_owned());
                return ended;
            }
            0 => {}
            _ => continue,
        }
        for (pid, name) in children() {
            // SAFETY: a child that nobody has waited for, so the number is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            if !ended.contains(&name) {
                ended.push(name);
            }
        }
        std::thread::yield_now();
    }
}

fn shown(mut output: File) -> String {
    let mut bytes = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut bytes)).expect("what the test printed can be read");
    let start = bytes.len().saturating_sub(SHOWN);
    format!("{}{}", if start > 0 { "…\n" } else { "" }, String::from_utf8_lossy(&bytes[start..]))
}
