//! A child to be awaited.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitStatus;
use std::sync::Arc;

use ::tokio::io::Interest;

use super::Watched;
use crate::error::{Error, Result};
use crate::sys::poll::{POLLIN, look};

/// A child process, for tokio: a [`Child`](crate::Child) whose exit can be awaited.
///
/// It is watched by its pidfd: no signal handler, no thread, and nobody else's children are touched. As with
/// [`Child`](crate::Child), dropping it neither kills nor waits.
///
/// To ask it to leave, and to kill it after a grace, call [`Child::shut_down`](crate::Child::shut_down) in `spawn_blocking`, as
/// the chapter on [tokio](crate::guide::tokio) does.
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
#[doc(alias = "shut_down")]
#[doc(alias = "kill_on_drop")]
pub struct Child {
    child: Watched<Pidfd>,
    /// Where another process waits for the child and reports.
    report: Option<Watched<Arc<OwnedFd>>>,
}

/// The child by its pidfd, which the runtime watches.
#[derive(Debug)]
struct Pidfd(crate::process::Child);

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
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
        Ok(Self { child: Watched::new(Pidfd(child), Interest::READABLE)?, report })
    }

    /// Gives the child back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> crate::process::Child {
        self.child.into_inner().0
    }

    /// Returns the number of the process. Never blocks.
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.child.end().0.id()
    }

    /// Waits until the child has left, and says how. Waiting again gives the same status.
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
        let so_far = |child: &crate::process::Child| child.status_so_far()?.ok_or(Error::WouldBlock);
        if let Some(report) = &self.report {
            // It leaves first. The pidfd need not tell of the report, which may come later.
            let has_left = |child: &Pidfd| match look(child.0.as_fd(), POLLIN) {
                Ok(0) => Err(Error::WouldBlock),
                looked => looked.map_err(|errno| Error::system("poll", errno)),
            };
            self.child.call(Interest::READABLE, has_left).await?;
            return report.call(Interest::READABLE, |_| so_far(&self.child.end().0)).await;
        }
        // Readiness without a status is spurious: the runtime forgets it, and waits again.
        self.child.call(Interest::READABLE, |child| so_far(&child.0)).await
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
    ///
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// child.kill()?;
    /// assert_eq!(child.wait().await?.signal(), Some(SIGKILL));
    ///
    /// let child = ipc::tokio::Child::new(ipc::Command::new("sleep").arg("1000").spawn()?)?;
    /// child.signal(SIGUSR1)?;
    /// assert_eq!(child.wait().await?.signal(), Some(SIGUSR1));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        self.child.end().0.kill()
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
    #[doc(alias = "terminate")]
    #[doc(alias = "SIGTERM")]
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.child.end().0.signal(signal)
    }

    /// Sends a signal to the group that the child leads, by its number: to the child and what it started.
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
    /// const SIGTERM: i32 = 15;
    ///
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let family = ipc::Command::new("sh").args(["-c", "sleep 1000 & wait"]).process_group(0).spawn()?;
    /// let family = ipc::tokio::Child::new(family)?;
    /// family.signal_group(SIGTERM)?;
    /// assert_eq!(family.wait().await?.signal(), Some(SIGTERM));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "killpg")]
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        self.child.end().0.signal_group(signal)
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.end().0.as_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}
