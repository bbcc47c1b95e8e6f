//! The check that a fork is safe, the fork itself, and the gate at which a child waits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, SocketType};
use rustix::process::Pid;
use rustix::thread::Timespec;

use super::ledger::Entry;
use super::{Errno, Result, errno, retry};

/// How long a thread that has been joined may still be on its way out. On a busy machine, it waits for a processor meanwhile.
const LEAVING: Duration = Duration::from_millis(100);

/// The two processes after a fork.
pub(crate) enum Side {
    Child,
    Parent(Pid),
}

/// Proof that a fork is safe, or that its caller answers for it.
pub(crate) struct Permit {
    /// Other threads may run, and wait for children.
    is_promise: bool,
}

impl Permit {
    /// For a process with a single thread; otherwise the number of threads.
    pub(crate) fn alone() -> Result<std::result::Result<Self, usize>> {
        Ok(match second_thread()? {
            None => Ok(Self { is_promise: false }),
            Some(threads) => Err(threads),
        })
    }

    /// For a process that may have more.
    ///
    /// # Safety
    ///
    /// The child may only do what is async-signal-safe until it leaves or starts a program ([fork(2)]).
    ///
    /// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
    pub(crate) unsafe fn promised() -> Self {
        Self { is_promise: true }
    }

    /// A socket at which a child waits until it is held, where another thread could wait for it before.
    pub(crate) fn gate(&self) -> Result<Option<Gate>> {
        if self.is_promise { Gate::new().map(Some) } else { Ok(None) }
    }

    /// [fork(2)], through libc, so that its own locks are in order in the child. Both processes then hold the values in the frames
    /// on the stack.
    ///
    /// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
    pub(crate) fn fork(self) -> Result<Side> {
        // SAFETY: a permit is there if this is the only thread, or if the caller of `promised` answers for the child.
        match unsafe { libc::fork() } {
            -1 => Err(errno()),
            0 => {
                super::process::forked();
                Ok(Side::Child)
            }
            pid => Pid::from_raw(pid).map(Side::Parent).ok_or(Errno::SRCH),
        }
    }
}

/// Keeps a child from running before its parent holds it. Known to the ledger, so that other forks do not take it along.
///
/// A child severs nothing before it has passed its gate, so it keeps the gates open that were made before its own. A gate is
/// made and forked over under stdout's lock: of two children the later one has the other's gate, and never both.
pub(crate) struct Gate {
    parents: (Entry, OwnedFd),
    childs: (Entry, OwnedFd),
}

impl Gate {
    fn new() -> Result<Self> {
        let (one, other) = super::socket::pair(SocketType::STREAM)?;
        let enter = |fd: OwnedFd| {
            let fd = super::descriptor::above_standard(fd, None);
            (Entry::new(fd.as_raw_fd()), fd)
        };
        Ok(Self { parents: enter(one), childs: enter(other) })
    }

    /// In the child: whether the parent holds it.
    pub(crate) fn wait(self) -> bool {
        let Self { parents, childs } = self;
        drop(parents);
        let mut answer = [0; 1];
        retry(|| rustix::io::read(&childs.1, &mut answer)) == Ok(1) && answer == Self::GO
    }

    /// In the parent: lets the child go on.
    pub(super) fn open(self) {
        self.answer(Self::GO);
    }

    /// In the parent: has the child leave.
    pub(super) fn refuse(self) {
        self.answer(Self::LEAVE);
    }

    const GO: [u8; 1] = *b"!";
    const LEAVE: [u8; 1] = *b"-";

    /// A byte also for a refusal, because EOF waits for every copy: a fork by other code, which knows no ledger, may have one.
    fn answer(self, answer: [u8; 1]) {
        // A child that was killed meanwhile hears nothing.
        let _ = retry(|| rustix::net::send(&self.parents.1, &answer, SendFlags::NOSIGNAL));
    }
}

/// Returns how many threads this process has, if more than one. Waits a little for a thread that is leaving.
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
    // A sandbox may refuse unshare as well. The directory has two links, and one for each thread.
    match rustix::fs::stat(c"/proc/self/task") {
        Ok(tasks) => match (tasks.st_nlink as usize).saturating_sub(2) {
            0 | 1 => Ok(None),
            threads => Ok(Some(threads)),
        },
        Err(_) if refused == Errno::INVAL => Ok(Some(2)),
        Err(_) => Err(refused),
    }
}
