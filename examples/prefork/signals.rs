//! Signals as something to wait for.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that the master is steered by.
///
/// They are blocked and read from a signalfd, which each process reads its own signals from. A handler that writes to a
/// pipe would be inherited by the workers, with the writer: a Ctrl-C, which every process of a terminal gets, would be
/// counted once for each of them. Workers inherit that the signals are blocked, and do what the master tells them.
pub struct Signals(SignalFd);

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one that has arrived, without waiting.
    pub fn next(&self) -> std::io::Result<Option<Signal>> {
        match self.0.read_signal()? {
            Some(arrived) => Ok(Some(Signal::try_from(arrived.ssi_signo as i32)?)),
            None => Ok(None),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
