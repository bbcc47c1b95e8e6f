//! Forking, leaving, and looking after a child.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::Timespec;

use super::{Errno, Result, errno, retry};

/// How long a thread that has been joined may still be on its way out.
const LEAVING: Duration = Duration::from_millis(20);

/// Which process this is after a fork.
pub(crate) enum Side {
    Child,
    Parent(Pid),
}

/// That a fork is safe, or somebody answers for it.
pub(crate) struct Permit(());

impl Permit {
    /// For a process with a single thread; otherwise the number of threads.
    pub(crate) fn alone() -> Result<std::result::Result<Self, usize>> {
        Ok(match second_thread()? {
            None => Ok(Self(())),
            Some(threads) => Err(threads),
        })
    }

    /// For a process that may have more.
    ///
    /// # Safety
    ///
    /// The child may only do what is async-signal-safe until it leaves or starts a program (fork.2).
    pub(crate) unsafe fn promised() -> Self {
        Self(())
    }

    /// fork(2), through libc, so that its own locks are in order in the child. What the frames on the stack hold is held by
    /// both processes afterwards.
    pub(crate) fn fork(self) -> Result<Side> {
        // SAFETY: a permit is there if this is the only thread, or if the caller of `promised` answers for the child.
        match unsafe { libc::fork() } {
            -1 => Err(errno()),
            0 => Ok(Side::Child),
            pid => Pid::from_raw(pid).map(Side::Parent).ok_or(Errno::SRCH),
        }
    }
}

/// Leaves the process at once: no destructors, no `atexit` handlers.
pub(crate) fn exit(status: u8) -> ! {
    // SAFETY: _exit has no conditions.
    unsafe { libc::_exit(status.into()) }
}

/// Leaves a child that cannot be what was promised of it, before it runs anything of the caller's.
pub(crate) fn give_up(why: &str) -> ! {
    // Allocates nothing and takes no lock. That nobody reads it must not stop the child from leaving.
    let _ = rustix::io::write(rustix::stdio::stderr(), why.as_bytes());
    exit(101)
}

/// How many threads this process has, if more than one. A thread that is just leaving is given time to.
fn second_thread() -> Result<Option<usize>> {
    let mut started = None;
    loop {
        let Some(threads) = threads_now()? else { return Ok(None) };
        let started = started.get_or_insert_with(Instant::now);
        if started.elapsed() >= LEAVING {
            return Ok(Some(threads));
        }
        // A signal may end it sooner; then there is one more look.
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 50_000 });
    }
}

fn threads_now() -> Result<Option<usize>> {
    // SAFETY: unsharing a thread from its own thread group changes nothing where it is alone, and is refused with
    // EINVAL where it is not.
    let refused = match unsafe { libc::unshare(libc::CLONE_THREAD) } {
        0 => return Ok(None),
        _ => errno(),
    };
    // Or a sandbox has its own opinion on unshare: the directory has two links and one for each thread.
    match rustix::fs::stat(c"/proc/self/task") {
        Ok(tasks) => match (tasks.st_nlink as usize).saturating_sub(2) {
            0 | 1 => Ok(None),
            threads => Ok(Some(threads)),
        },
        Err(_) if refused == Errno::INVAL => Ok(Some(2)),
        Err(_) => Err(refused),
    }
}

/// The number of this process.
pub(crate) fn own_pid() -> Pid {
    rustix::process::getpid()
}

/// Fails where [`die_with`] would, in the child.
pub(crate) fn check_die_with() -> Result<()> {
    rustix::process::set_parent_process_death_signal(rustix::process::parent_process_death_signal()?)
}

/// Asks the kernel to kill this process when the thread that forked it ends.
pub(crate) fn die_with(parent: Pid) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Too late to be told? Then another process is the parent now. (None: the parent is in an outer pid namespace.)
    match rustix::process::getppid() {
        Some(now) if now != parent => rustix::process::kill_process(rustix::process::getpid(), Signal::KILL),
        _ => Ok(()),
    }
}

/// A descriptor that stands for the child of that number. It must not have been waited for.
pub(crate) fn pidfd(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Set when the kernel has been seen to have what children are held by.
static CHILDREN_CAN_BE_HELD: AtomicBool = AtomicBool::new(false);

/// Fails, with the name of the call, where a child could not be held or waited for: before there is one, which would
/// have to be ended in the middle of what it does. Kernels have had both calls since 5.4; a sandbox may not.
pub(crate) fn check_children() -> std::result::Result<(), (&'static str, Errno)> {
    if CHILDREN_CAN_BE_HELD.load(Ordering::Relaxed) {
        return Ok(());
    }
    let myself = match pidfd(own_pid()) {
        Ok(myself) => myself,
        // Nothing is known, and whoever makes the child finds the table full as well.
        Err(Errno::MFILE | Errno::NFILE) => return Ok(()),
        Err(errno) => return Err(("pidfd_open", errno)),
    };
    match reap(myself.as_fd()) {
        // No process is its own child.
        Err(Errno::CHILD) => CHILDREN_CAN_BE_HELD.store(true, Ordering::Relaxed),
        Err(errno) => return Err(("waitid", errno)),
        Ok(_) => {}
    }
    Ok(())
}

/// Ends a child that there is no pidfd for.
pub(crate) fn kill_and_reap(pid: Pid) {
    // It is our child, and nobody has waited for it, so the number is still its own, and neither call can fail.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = retry(|| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
}

/// Blocks until the child has left and its status can be had, and leaves it there.
pub(crate) fn await_exit(pidfd: BorrowedFd<'_>) -> Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)).map(drop)
}

/// The wait status (wait.2) of the child if it has left, which nobody can ask for again.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    wait_status(pidfd, WaitIdOptions::empty())
}

/// The same, which can be asked for again.
pub(crate) fn peek(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    wait_status(pidfd, WaitIdOptions::NOWAIT)
}

fn wait_status(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<i32>> {
    let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let Some(status) = retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options))? else {
        return Ok(None);
    };
    Ok(Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | 0x80,
        (None, Some(signal)) => signal,
        (None, None) => return Ok(None), // stopped or continued, which was not asked for
    }))
}

pub(crate) use libc::SIGKILL;

/// Sends a signal to exactly that process.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers and a null pointer; without details the kernel fills in those of kill(2).
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, details, 0) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}
