//! A child process, held by a pidfd.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::server::Reporter;
use crate::error::{Error, Result};
use crate::sys::{self, Errno};
use crate::wait::{Watch, wait_any};

/// The sleeps of [`Child::wait_timeout`] between its looks at a child that has left, and whose status is not to be had yet: the
/// first, and, each being twice as long as the one before, the longest.
const NAPS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// A process that this one started, by [`fork`](crate::fork()).
///
/// It is held by a pidfd, so that a signal or a wait never hits a stranger who got the number later. As a descriptor it
/// can be waited for together with ends: [`Watch::readable(&child)`](crate::Watch::readable) is ready when it has left.
///
/// **Dropping it neither kills nor waits**, but takes away the status of a child that has already left. One that leaves
/// later stays a zombie until this process ends: wait for it.
///
/// # Platform
///
/// pidfd_open(2), waitid(2) with `P_PIDFD`, pidfd_send_signal(2): Linux 5.4.
pub struct Child {
    id: u32,
    pidfd: OwnedFd,
    /// The kernel tells it once.
    status: Mutex<Option<ExitStatus>>,
    /// Of a process that is not this one's child.
    reporter: Option<Reporter>,
}

impl Child {
    /// Fails where no child could be held.
    pub(super) fn check() -> Result<()> {
        sys::process::check_children().map_err(|(call, errno)| Error::system(call, errno))
    }

    /// Takes a child over that was just started.
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        let id = pid.as_raw_nonzero().get().unsigned_abs();
        Self { id, pidfd, status: Mutex::new(None), reporter: None }
    }

    /// The same of a process that is another one's child.
    pub(super) fn reported_by(mut self, reporter: Reporter) -> Self {
        self.reporter = Some(reporter);
        self
    }

    /// Takes a child over that was just started, and that nobody has waited for. One that cannot be held is ended.
    pub(super) fn hold(pid: Pid) -> Result<Self> {
        match sys::process::pidfd(pid) {
            Ok(pidfd) => Ok(Self::new(pid, pidfd)),
            Err(errno) => {
                // Gone, if another thread has waited for it: then the number is perhaps somebody else's.
                if errno != Errno::SRCH {
                    sys::process::kill_and_reap(pid);
                }
                Err(Error::system("pidfd_open", errno))
            }
        }
    }

    /// The number of the process. Never blocks.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Blocks until the child has left, and says how. Waiting again gives the same status.
    ///
    /// A child that waits for the end of a stream whose writer this process still holds does not leave: close it first. One
    /// that another process traces, such as a debugger, counts as running until that has let go of it.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ECHILD`: somebody else has waited for it, or the child is another process's (its parent's,
    /// where this value came along in a fork).
    ///
    /// # Examples
    ///
    /// ```
    /// let child = ipc::fork((), |()| 3_u8)?;
    /// assert_eq!(child.wait()?.code(), Some(3));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            if self.reporter.is_some() {
                // Only its own parent can wait for it in one call.
                if let Some(status) = self.wait_until(None)? {
                    return Ok(status);
                }
            }
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // Not under the lock, and so it takes nothing. Who waits at the same time may be quicker to: the next look finds
            // what that one has noted, or that somebody else has it, which is the error.
            match sys::process::await_exit(self.pidfd.as_fd()) {
                Ok(()) | Err(Errno::CHILD) => {}
                // Whoever has the pidfd too has set its O_NONBLOCK, and that call does not wait any more.
                Err(Errno::AGAIN) => {
                    if let Some(status) = self.wait_until(None)? {
                        return Ok(status);
                    }
                }
                Err(errno) => return Err(Error::system("waitid", errno)),
            }
        }
    }

    /// How the child has left, without blocking. `None`: it runs.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        let mut status = self.status();
        if status.is_none() {
            let reaped = match &self.reporter {
                None => sys::process::reap(self.pidfd.as_fd()),
                Some(reporter) => reporter.reap(self.pidfd.as_fd()),
            };
            let reaped = reaped.map_err(|errno| Error::system("waitid", errno))?;
            *status = reaped.map(ExitStatus::from_raw);
        }
        Ok(*status)
    }

    /// Blocks until the child has left or the time is up, and says how it left. `None`: it runs.
    ///
    /// A timeout of zero looks once; [`Duration::MAX`] waits for ever. Of a child that another process traces, the status may
    /// come up to 50 ms late.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(reader, |reader| reader.read_timeout(&mut [0], Duration::MAX).map(drop))?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(10))?, None);
    /// drop(writer); // the end of the stream
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        match Instant::now().checked_add(timeout) {
            None => self.wait().map(Some),
            deadline => self.wait_until(deadline),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let [mut nap, longest] = NAPS;
        // First, so that a status that is known, or an error, does not wait.
        let mut status = self.try_wait()?;
        while status.is_none() && left() != Some(Duration::ZERO) {
            let has_left = wait_any(&mut [Watch::readable(self)], left())? > 0;
            status = self.try_wait()?;
            if has_left && status.is_none() {
                // It is traced, and its tracer has to see it off first. The pidfd is ready all the time until then, and nothing
                // that can be waited for with a deadline becomes ready when it happens. (A signal may end the nap.)
                let _ = sys::poll::poll(&mut [], Some(left().map_or(nap, |left| left.min(nap))));
                nap = longest.min(nap * 2);
                status = self.try_wait()?;
            }
        }
        Ok(status)
    }

    /// Kills the child with `SIGKILL`, without blocking. [`wait`](Self::wait) for it afterwards.
    ///
    /// That it has already left is no error.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `EPERM`: it runs as another user now.
    pub fn kill(&self) -> Result<()> {
        match sys::process::send_signal(self.pidfd.as_fd(), sys::process::SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::system("pidfd_send_signal", errno)),
        }
    }

    /// Sends the child a signal, by its number, without blocking. 0 sends none, and only looks whether that would work.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ESRCH`: it has left and was waited for; with `EINVAL`: there is no such signal; with
    /// `EPERM`: it runs as another user now.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::process::send_signal(self.pidfd.as_fd(), signal).map_err(|errno| Error::system("pidfd_send_signal", errno))
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        // Nothing panics while it is locked.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pidfd: readable when the child has left.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("status", &*self.status()).finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Another process waits for one that is reported.
        if self.reporter.is_none() {
            // One that runs goes on; an error would mean that somebody else has waited for it.
            let _ = self.try_wait();
        }
    }
}
