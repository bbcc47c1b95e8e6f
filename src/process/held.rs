//! A child as the kernel knows it: its pidfd, and its status, which is told once.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
#[cfg(feature = "tokio")]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::server::Reporter;
use crate::error::{Error, Result};
use crate::sys::epoch::Process;
use crate::sys::{self, Errno};
use crate::wait::{Watch, wait_any};

/// The sleeps between two looks at a change for which no descriptor becomes ready: the first, and the longest. Each is twice
/// as long as the one before.
pub(crate) const NAPS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// The pidfd of a child, and the status that was taken.
pub(super) struct Held {
    id: u32,
    pub(super) pidfd: OwnedFd,
    /// The process that it is a child of.
    parent: Process,
    /// Locked for no longer than a look takes.
    status: Mutex<Option<ExitStatus>>,
    /// Of a process that is not this one's child.
    reporter: Option<Reporter>,
    /// Locked by the one thread that asks the reporter, which may take a while. No other thread waits for it.
    asking: Mutex<()>,
}

impl Held {
    /// Of a child of this process.
    pub(super) fn new(id: u32, pidfd: OwnedFd) -> Self {
        Self { id, pidfd, parent: Process::this(), status: Mutex::new(None), reporter: None, asking: Mutex::new(()) }
    }

    /// Makes it that of another process's child.
    pub(super) fn set_reporter(&mut self, reporter: Reporter) {
        self.reporter = Some(reporter);
    }

    pub(super) fn is_reported(&self) -> bool {
        self.reporter.is_some()
    }

    /// Where another process reports about the child: the descriptor that is readable when it has.
    #[cfg(feature = "tokio")]
    pub(super) fn report(&self) -> Option<Arc<OwnedFd>> {
        self.reporter.as_ref().map(|reporter| Arc::clone(reporter.line()))
    }

    /// Returns whether it is this process's child, and not that of the one that forked this.
    pub(super) fn is_ours(&self) -> bool {
        self.parent.is_this()
    }

    /// Its status, if it was waited for.
    pub(super) fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        // Nothing panics while it is locked.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, while no thread takes the status of a reported one either, for which it waits as long as [`look`](Self::look).
    pub(super) fn untaken(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, Option<ExitStatus>>) {
        (self.asking.lock().unwrap_or_else(PoisonError::into_inner), self.status())
    }

    /// One look. Another process that reports about a child that has left gets that much time to do so. It may be stopped, and then
    /// /proc may say.
    pub(super) fn look(&self, patience: Duration) -> Result<Option<ExitStatus>> {
        match self.look_at_report(patience)? {
            None if self.reporter.as_ref().is_some_and(Reporter::is_silent) => Ok(self.look_into_proc()),
            status => Ok(status),
        }
    }

    /// The same without /proc. A report that another thread is waiting for is not there yet: that thread may have more time.
    pub(super) fn look_at_report(&self, patience: Duration) -> Result<Option<ExitStatus>> {
        let unwaitable = |errno| self.unwaitable(errno);
        let Some(reporter) = &self.reporter else {
            let mut status = self.status();
            if status.is_none() {
                *status = sys::process::reap(self.pidfd.as_fd()).map_err(unwaitable)?.map(ExitStatus::from_raw);
            }
            return Ok(*status);
        };
        let asking = self.asking.try_lock();
        if asking.is_ok() && self.status().is_none() {
            let reported = reporter.reap(self.pidfd.as_fd(), patience);
            // Another thread may have found it in /proc meanwhile.
            let mut status = self.status();
            if status.is_none() {
                *status = reported.map_err(unwaitable)?.map(ExitStatus::from_raw);
            }
            return Ok(*status);
        }
        Ok(*self.status())
    }

    /// The status of a child that has left and is not reported yet. `None` where it runs, or /proc does not say.
    fn look_into_proc(&self) -> Option<ExitStatus> {
        let mut status = self.status();
        if status.is_none() {
            *status = sys::sibling::unreaped_status(self.id, self.pidfd.as_fd()).map(ExitStatus::from_raw);
        }
        *status
    }

    /// Blocks until the child has left.
    pub(super) fn wait(&self) -> Result<ExitStatus> {
        loop {
            if self.is_reported() {
                // Only its own parent can wait for it in one call.
                if let Some(status) = self.wait_until(None)? {
                    return Ok(status);
                }
            }
            if let Some(status) = self.look(Duration::ZERO)? {
                return Ok(status);
            }
            // Not under the lock, so it takes nothing. Another thread that waits may be quicker to take the status: the next
            // look finds it noted. If it was taken by other means, the next look is the error.
            match sys::process::await_exit(self.pidfd.as_fd()) {
                Ok(()) | Err(Errno::CHILD) => {}
                // Another holder of the pidfd has set its O_NONBLOCK, and the call does not wait any more.
                Err(Errno::AGAIN) => {
                    if let Some(status) = self.wait_until(None)? {
                        return Ok(status);
                    }
                }
                Err(errno) => return Err(self.unwaitable(errno)),
            }
        }
    }

    /// Blocks until the child has left or the time is up.
    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let [mut nap, longest] = NAPS;
        // First, so that a status that is known, or an error, does not wait.
        let mut status = self.look(left().unwrap_or(Duration::MAX))?;
        while status.is_none() && left() != Some(Duration::ZERO) {
            let has_left = wait_any(&mut [Watch::readable(&self.pidfd)], left())? > 0;
            status = self.look(left().unwrap_or(Duration::MAX))?;
            if has_left && status.is_none() {
                // It is traced, and its tracer has to let go of it first. Until then the pidfd is ready all the time, and
                // no descriptor becomes ready when it happens. (A signal may end the nap.)
                let _ = sys::poll::poll(&mut [], Some(left().map_or(nap, |left| left.min(nap))));
                nap = longest.min(nap * 2);
                status = self.look(left().unwrap_or(Duration::MAX))?;
            }
        }
        Ok(status)
    }

    /// The error of a child that cannot be waited for.
    fn unwaitable(&self, errno: Errno) -> Error {
        match errno {
            Errno::CHILD if self.is_ours() => Error::StatusTaken { stdout: Vec::new(), stderr: Vec::new() },
            errno => Error::system("waitid", errno),
        }
    }
}
