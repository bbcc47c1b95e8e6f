//! Descriptors that a tokio runtime watches.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the current runtime watch a descriptor.
///
/// Only for the ends and the children of this crate, and for borrowed descriptors. Each owns or borrows one descriptor, returns its
/// number as long as it lives, and lends nothing that could replace it.
pub(crate) fn watch<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the owner moves into the `AsyncFd`, which drops its registration before it. Until then nobody can close the
    // descriptor: closing and converting take the owner by value, and a borrowed descriptor stays open. Severing in a forked
    // child replaces it in the child's table alone, where the number stays open.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}

/// A descriptor that is readable from `left` on, and so it stays. A runtime's own timers may not be enabled.
///
/// [timerfd_create(2)](https://man7.org/linux/man-pages/man2/timerfd_create.2.html)
pub(crate) fn timer(left: Duration) -> io::Result<OwnedFd> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    // Zero would disarm the timer, and a time that is too long for the kernel's clock never comes.
    let left = left.clamp(Duration::from_nanos(1), Duration::from_secs(u32::MAX.into()));
    let it_value = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(timer)
}
