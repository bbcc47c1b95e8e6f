//! Signals to be awaited.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ::tokio::io::Interest;

use super::Watched;
use crate::error::Result;

/// Signals that are read, for tokio: [`Signals`](crate::Signals) whose next one can be awaited.
///
/// Make the [`Signals`](crate::Signals) first thing in `main`, before the runtime has threads: they block the signals too
/// then. It is not `Send`, and neither is this. Use it on the thread that made it, in the future that `block_on` runs, or
/// in a `LocalSet`.
///
/// In a runtime with worker threads, only signals that are sent to the process are seen. A signal that is sent to one thread, as
/// [raise(3)](https://man7.org/linux/man-pages/man3/raise.3.html) does, is seen on a current-thread runtime only.
///
/// The descriptor of the signals is no end: it is made with `O_NONBLOCK`, and no other process has it.
///
/// # Examples
///
/// ```
/// const SIGTERM: i32 = 15;
///
/// let signals = ipc::Signals::new(&[SIGTERM])?;
/// let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build()?;
/// runtime.block_on(async {
///     let signals = ipc::tokio::Signals::new(signals)?;
///     let me = std::process::id().to_string();
///     let child = ipc::tokio::Child::new(ipc::Command::new("kill").arg("-TERM").arg(me).spawn()?)?;
///     assert_eq!(signals.next().await?, SIGTERM);
///     child.wait().await?;
///     Ok::<(), ipc::Error>(())
/// })?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct Signals(Watched<crate::process::Signals>);

impl Signals {
    /// Puts the runtime's watch on signals. Never blocks.
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
    /// See [`Signals`].
    pub fn new(signals: crate::process::Signals) -> io::Result<Self> {
        Watched::new(signals, Interest::READABLE).map(Self)
    }

    /// Gives the signals back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> crate::process::Signals {
        self.0.into_inner()
    }

    /// Waits until a signal comes, and returns its number.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a signal is taken, or left for the next call.
    ///
    /// # Errors
    ///
    /// As [`Signals::next`](crate::Signals::next).
    ///
    /// # Examples
    ///
    /// See [`Signals`].
    pub async fn next(&self) -> Result<i32> {
        self.0.call(Interest::READABLE, crate::process::Signals::try_next).await
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}
