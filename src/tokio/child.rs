//! A child to be awaited.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tokio::io::Interest;

use super::{Watched, nap, until};
use crate::error::{Error, Result};
use crate::process::{self, NAPS};
use crate::sys::poll::{POLLIN, look};

/// How long a server is waited for that is to report about a child that has left.
const REPORTING: Duration = Duration::from_secs(1);

/// A child process, for tokio: a [`Child`](crate::Child) whose exit can be awaited.
///
/// It is watched by its pidfd. It uses no signal handler and no thread, and leaves other children alone. As with
/// [`Child`](crate::Child), dropping it neither kills nor waits.
///
/// # Examples
///
/// ```
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let child = ipc::Command::new("sh").args(["-c", "exit 3"]).spawn()?;
/// let child = ipc::tokio::Child::new(child)?;
/// assert_eq!(child.wait().await?.code(), Some(3));
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Child {
    child: Watched<crate::process::Child>,
    /// The line of another process that waits for the child and reports.
    report: Option<Watched<Arc<OwnedFd>>>,
}

impl Child {
    /// Puts the runtime's watch on a child. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`](super::PipeReader::new).
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled.
    ///
    /// # Examples
    ///
    /// See [`Child`].
    pub fn new(child: crate::process::Child) -> io::Result<Self> {
        let report = child.report().map(|line| Watched::new(line, Interest::READABLE)).transpose()?;
        Ok(Self { child: Watched::new(child, Interest::READABLE)?, report })
    }

    /// Gives the child back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> crate::process::Child {
        self.child.into_inner()
    }

    /// Returns the number of the process (PID). Never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let child = ipc::Command::new("true").spawn()?;
    /// let id = child.id();
    /// let child = ipc::tokio::Child::new(child)?;
    /// assert_eq!(child.id(), id);
    /// child.wait().await?;
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.child.end().id()
    }

    /// Waits until the child has left, and returns its status. Waiting again returns the same status.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the status is kept for the next call.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`](crate::Child::wait).
    ///
    /// # Examples
    ///
    /// See [`Child`].
    pub async fn wait(&self) -> Result<ExitStatus> {
        let Some(report) = &self.report else {
            // Readiness without a status is spurious: the runtime forgets it, and waits again.
            return self.child.call(Interest::READABLE, |child| child.status_so_far()?.ok_or(Error::WouldBlock)).await;
        };
        // It leaves first. The report may come later, and the pidfd does not tell of it.
        self.has_left().await?;
        let child = self.child.end();
        let [mut time, longest] = NAPS;
        loop {
            if let Some(status) = child.status_so_far()? {
                return Ok(status);
            }
            let said = |line: &Arc<OwnedFd>| match child.status().is_none() && look_at(line.as_fd())? == 0 {
                true => Err(Error::WouldBlock),
                false => Ok(()),
            };
            match until(Instant::now().checked_add(REPORTING), report.call(Interest::READABLE, said)).await {
                Ok(reported) => reported.unwrap_or(Ok(()))?,
                // There is no descriptor for a timer.
                Err(_) => report.call(Interest::READABLE, said).await?,
            }
            // The server may be stopped, and then /proc may say.
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            // The server was killed, and the process that has the worker now is about to wait for it. No descriptor becomes
            // ready then.
            nap(time).await?;
            time = longest.min(time * 2);
        }
    }

    /// Returns the child's status without waiting, or `None` as long as it is not known.
    ///
    /// # Errors
    ///
    /// As [`Child::try_wait`](crate::Child::try_wait).
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// assert_eq!(child.try_wait()?, None); // it runs
    /// child.kill()?;
    /// let status = child.wait().await?;
    /// assert_eq!(child.try_wait()?, Some(status));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.child.end().try_wait()
    }

    /// Asks the child to leave, with `SIGTERM`, and waits until it has. Kills it if it takes longer than `grace`. Returns
    /// its status.
    ///
    /// A program that leads a group ([`process_group(0)`](crate::Command::process_group),
    /// [`new_session`](crate::Command::new_session)) is shut down with its group. Otherwise the same as
    /// [`Child::shut_down`](crate::Child::shut_down), but awaited.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the child was asked, and is neither killed nor lost. The next call asks again, with a `grace` of its own.
    ///
    /// # Errors
    ///
    /// As [`Child::shut_down`](crate::Child::shut_down).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use std::time::Duration;
    ///
    /// const SIGKILL: i32 = 9;
    /// const SIGTERM: i32 = 15;
    ///
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// let status = child.shut_down(Duration::from_secs(60)).await?;
    /// assert_eq!(status.signal(), Some(SIGTERM));
    ///
    /// let script = "trap '' TERM; echo; while :; do sleep 1; done";
    /// let (ready, said) = ipc::pipe()?;
    /// let stubborn = ipc::Command::new("sh").args(["-c", script]).process_group(0).stdout(said).spawn()?;
    /// ready.read_timeout(&mut [0], Duration::MAX)?;
    /// let stubborn = ipc::tokio::Child::new(stubborn)?;
    /// let status = stubborn.shut_down(Duration::from_millis(10)).await?;
    /// assert_eq!(status.signal(), Some(SIGKILL));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "stop")]
    pub async fn shut_down(&self, grace: Duration) -> Result<ExitStatus> {
        let child = self.child.end();
        let deadline = Instant::now().checked_add(grace);
        process::ask(child)?;
        if child.leads_group() {
            // It is not waited for before: its number is the group's.
            if let Some(left) = until(deadline, self.has_left()).await? {
                left?;
            }
            let [mut time, longest] = NAPS;
            let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
            while !is_late() && process::group_goes_on(child) {
                nap(time).await?;
                time = longest.min(time * 2);
            }
        } else if let Some(status) = until(deadline, self.wait()).await? {
            return status;
        }
        child.end()?;
        self.wait().await
    }

    /// Waits until the child has left, and leaves its status to be waited for.
    async fn has_left(&self) -> Result<()> {
        let has_left = |child: &crate::process::Child| match child.status().is_none() && look_at(child.as_fd())? == 0 {
            true => Err(Error::WouldBlock),
            false => Ok(()),
        };
        self.child.call(Interest::READABLE, has_left).await
    }

    /// Kills the child with `SIGKILL`. [`wait`](Self::wait) for it afterwards.
    ///
    /// # Errors
    ///
    /// As [`Child::kill`](crate::Child::kill).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// const SIGKILL: i32 = 9;
    /// const SIGUSR1: i32 = 10;
    /// const SIGTERM: i32 = 15;
    ///
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// child.kill()?;
    /// assert_eq!(child.wait().await?.signal(), Some(SIGKILL));
    ///
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// child.signal(SIGUSR1)?;
    /// assert_eq!(child.wait().await?.signal(), Some(SIGUSR1));
    ///
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// child.terminate()?;
    /// assert_eq!(child.wait().await?.signal(), Some(SIGTERM));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        self.child.end().kill()
    }

    /// Asks the child to leave, with `SIGTERM`; no-op if it has left. [`shut_down`](Self::shut_down) also waits for it. See
    /// [`kill`](Self::kill) for an example.
    ///
    /// # Errors
    ///
    /// As [`Child::terminate`](crate::Child::terminate).
    #[doc(alias = "SIGTERM")]
    pub fn terminate(&self) -> Result<()> {
        self.child.end().terminate()
    }

    /// Sends the child a signal, by its number.
    ///
    /// # Errors
    ///
    /// As [`Child::signal`](crate::Child::signal).
    ///
    /// # Examples
    ///
    /// See [`kill`](Self::kill).
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.child.end().signal(signal)
    }

    /// Sends a signal, by its number, to the group that the child leads: to the child and the processes that it started.
    ///
    /// # Errors
    ///
    /// As [`Child::signal_group`](crate::Child::signal_group).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// const SIGKILL: i32 = 9;
    /// const SIGTERM: i32 = 15;
    ///
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let family = || ipc::Command::new("sh").args(["-c", "sleep 1000 & wait"]).process_group(0).spawn();
    /// let first = ipc::tokio::Child::new(family()?)?;
    /// first.signal_group(SIGTERM)?;
    /// assert_eq!(first.wait().await?.signal(), Some(SIGTERM));
    ///
    /// let second = ipc::tokio::Child::new(family()?)?;
    /// second.kill_group()?;
    /// assert_eq!(second.wait().await?.signal(), Some(SIGKILL));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "killpg")]
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        self.child.end().signal_group(signal)
    }

    /// Kills every process of the group that the child leads; no-op if no process is left in it, or if it leads none.
    ///
    /// # Errors
    ///
    /// As [`Child::kill_group`](crate::Child::kill_group).
    ///
    /// # Examples
    ///
    /// See [`signal_group`](Self::signal_group).
    pub fn kill_group(&self) -> Result<()> {
        self.child.end().kill_group()
    }
}

/// Returns whether there is something to read, or its other end is closed.
fn look_at(fd: BorrowedFd<'_>) -> Result<i16> {
    look(fd, POLLIN).map_err(|errno| Error::system("poll", errno))
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.end().as_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}
