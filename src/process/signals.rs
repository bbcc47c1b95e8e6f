//! Signals as something to wait for.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use crate::end::End;
use crate::error::{Error, Result};
use crate::sys::epoch::Epoch;
use crate::sys::poll::POLLIN;
use crate::sys::signalfd::{self, Set};
use crate::wait::{Patience, Spin};

/// Signals that are read, one after the other, and waited for like an end, in place of handlers.
///
/// A handler may call almost nothing ([signal-safety(7)]), and interrupts any code. This is a descriptor:
/// [`Watch::readable(&signals)`](crate::Watch::readable) is ready when a signal has come, beside ends and children.
///
/// **The signals are held back in this thread** from when it is made: no handler and no default action runs.
/// Threads that are started afterwards hold them back too. When the last `Signals` for a signal is dropped, the thread has its
/// mask again. A signal that has come and was not read is forgotten, and does not end the process.
///
/// **A mask belongs to a thread**, so a `Signals` stays in the thread that made it: it is not `Send`. Make it first thing in
/// `main`.
///
/// **Children**: one that is forked has the mask as it was before, and no `Signals`; a value that reached it answers
/// [`Error::NotGiven`]. A Ctrl-C reaches every process of a terminal, and ends such a child.
/// [`Fork::hold_signals`](crate::Fork::hold_signals) leaves the signals blocked there, from its first moment on. A program that is
/// started has no signal blocked at all.
///
/// A signal that comes twice before it is read is one, unless it is a real-time signal. `SIGCHLD` is no exception: wait for
/// every child then, or for each [`Child`](crate::Child) by its own descriptor, which needs no signal.
///
/// It counts as one of [`open_ends`](crate::open_ends).
///
/// # Platform
///
/// [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html). In a process with threads, their masks are read from
/// `/proc/self/task`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// const SIGTERM: i32 = 15;
///
/// let signals = ipc::Signals::new(&[SIGTERM])?;
/// let child = ipc::Command::new("sh").arg("-c").arg(format!("kill -TERM {}", std::process::id())).spawn()?;
/// assert_eq!(signals.next_timeout(Duration::from_secs(60))?, SIGTERM); // nothing is interrupted
/// assert!(matches!(signals.try_next(), Err(ipc::Error::WouldBlock)));
/// child.wait()?;
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [signal-safety(7)]: https://man7.org/linux/man-pages/man7/signal-safety.7.html
#[doc(alias = "sigaction")]
#[doc(alias = "ctrl_c")]
#[doc(alias = "SIGINT")]
#[doc(alias = "signalfd")]
pub struct Signals {
    end: End,
    set: Set,
    /// The process that made it. (Not its number, which a child in another pid namespace may have too.)
    process: Epoch,
    /// The mask is a thread's.
    _thread: PhantomData<*const ()>,
}

impl Signals {
    /// Holds the signals back in this thread, and reads them from now on. Never blocks.
    ///
    /// Signals are numbers, such as `libc::SIGTERM`.
    ///
    /// # Errors
    ///
    /// - [`Error::MultiThreaded`]: another thread does not hold them back, and the kernel could give them to it.
    /// - [`Error::InvalidInput`]: `signals` is empty, or has a number that is no signal. A signal cannot be held back (`SIGKILL`,
    ///   `SIGSTOP`, and the two that libc keeps for itself).
    /// - [`Error::System`] of `signalfd`: no descriptor is left (`EMFILE`); of `mmap`: no memory.
    ///
    /// # Examples
    ///
    /// See [`Signals`].
    pub fn new(signals: &[i32]) -> Result<Self> {
        let set = Set::of(signals).filter(|set| !set.is_empty());
        let set = set.ok_or(Error::InvalidInput { what: "no signal is listed, or one that cannot be blocked" })?;
        match signalfd::are_held_back_elsewhere(set) {
            Ok(Ok(())) => {}
            Ok(Err(threads)) => return Err(Error::MultiThreaded { threads }),
            Err(errno) => return Err(Error::system("open", errno)),
        }
        let process = Epoch::now().map_err(|errno| Error::system("mmap", errno))?;
        let fd = signalfd::open(set).map_err(|errno| Error::system("signalfd", errno))?;
        let end = End::new(fd)?;
        signalfd::hold_back(set);
        Ok(Self { end, set, process, _thread: PhantomData })
    }

    /// Blocks until a signal comes, and returns its number. See [`Signals`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this is a child that was forked.
    pub fn next(&self) -> Result<i32> {
        self.take(Patience::Endless)
    }

    /// Returns the number of a signal that has come, without blocking. See [`Signals`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: none has come. Otherwise as [`next`](Self::next).
    pub fn try_next(&self) -> Result<i32> {
        self.take(Patience::None)
    }

    /// Blocks until a signal comes or the time is up, and returns its number. See [`Signals`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: none has come. Otherwise as [`next`](Self::next).
    pub fn next_timeout(&self, timeout: Duration) -> Result<i32> {
        self.take(Patience::timeout(timeout))
    }

    fn take(&self, patience: Patience) -> Result<i32> {
        // Also where no end was severed: the descriptor would read the signals of the calling process.
        if !self.is_ours() {
            return Err(Error::NotGiven);
        }
        patience.persist(&self.end, &Spin::default(), "read", POLLIN, None, |_| signalfd::read(self.end.as_fd()))
    }

    fn is_ours(&self) -> bool {
        self.process.lasts()
    }
}

/// Readable when a signal has come.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.end.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("end", &self.end).field("set", &self.set).finish()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // A child that was forked has its mask already.
        if self.is_ours() {
            signalfd::let_go(self.set);
        }
    }
}
