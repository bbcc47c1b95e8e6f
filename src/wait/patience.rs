//! The patience of one call with one end, and its retries.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::spin::{Look, Spin};
use crate::end::{self, End};
use crate::error::{Error, Result};
use crate::sys::poll::{POLLNVAL, pollfd};
use crate::sys::{self, Errno};

/// How long a call waits while it can do nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all: `WouldBlock`.
    None,
    /// Leaves it to the system call, which waits unless the descriptor has `O_NONBLOCK`.
    Blocking,
    /// Waits until then: `TimedOut`.
    Until(Instant),
    /// Waits for ever.
    Endless,
}

impl Patience {
    /// Looks at least once, however short the time; a time too long for the clock is endless.
    pub(crate) fn timeout(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Patience::Endless, Patience::Until)
    }

    /// Returns whether a call waits for as long as it takes.
    pub(crate) fn is_endless(self) -> bool {
        matches!(self, Patience::Blocking | Patience::Endless)
    }

    /// Attempts something until it works, fails, or the patience is over.
    ///
    /// `first` is the errno of an attempt that the caller has made already. The attempt is told whether to wait by itself.
    /// Otherwise it answers `EAGAIN`, and in between this sleeps until `end` is ready. Others may be quicker when it is: then
    /// it sleeps again, for what is left of the time. Before the first sleep, the attempt is repeated for as long as `spin`
    /// says.
    ///
    /// Keep a single call site of the attempt, so that the compiler inlines the fast path. Each return after a system call
    /// is a branch that the processor mispredicts.
    #[inline(always)]
    pub(crate) fn persist<T>(
        self,
        end: &impl AsFd,
        spin: &Spin,
        call: &'static str,
        events: i16,
        first: Option<Errno>,
        mut attempt: impl FnMut(bool) -> sys::Result<T>,
    ) -> Result<T> {
        let mut look = self.look(spin);
        if let Some(errno) = first {
            self.go_on(end.as_fd(), call, events, &mut look, errno)?;
        }
        loop {
            match attempt(matches!(self, Patience::Blocking) && look.is_none()) {
                Ok(done) => {
                    look.iter().for_each(Look::found);
                    return Ok(done);
                }
                Err(errno) => self.go_on(end.as_fd(), call, events, &mut look, errno)?,
            }
        }
    }

    /// After an attempt that did not work: waits until another is worth it, or fails.
    #[cold]
    #[inline(never)]
    fn go_on(
        self,
        end: BorrowedFd<'_>,
        call: &'static str,
        events: i16,
        look: &mut Option<Look<'_>>,
        errno: Errno,
    ) -> Result<()> {
        match errno {
            Errno::INTR => {}
            Errno::AGAIN => {
                if look.as_mut().map_or(Ok(false), |look| self.looks_again(end, look))? {
                    std::hint::spin_loop();
                } else if look.take().is_none() || !matches!(self, Patience::Blocking) {
                    self.wait(end, events)?;
                } // otherwise spinning found nothing, and the next attempt waits in the kernel
            }
            // The kernel cannot try this end without waiting, and this call may wait.
            _ if sys::is_refused(errno) && look.is_some() && matches!(self, Patience::Blocking) => *look = None,
            _ => return Err(end::error(&[end], call, errno)),
        }
        Ok(())
    }

    /// Returns whether a call is to look again before it sleeps.
    #[inline]
    pub(crate) fn look(self, spin: &Spin) -> Option<Look<'_>> {
        if matches!(self, Patience::None) { None } else { spin.look() }
    }

    /// Returns whether to look once more, after a look that found nothing.
    pub(crate) fn looks_again(self, end: BorrowedFd<'_>, look: &mut Look<'_>) -> Result<bool> {
        if look.is_about_to_read_the_clock() && matches!(self, Patience::Blocking) && is_nonblocking(end)? {
            return Err(Error::WouldBlock); // an end with `O_NONBLOCK` does not spin for longer
        }
        Ok(self.has_time_to_look(look))
    }

    /// The same without a system call, which does not know whether the end waits at all.
    pub(crate) fn has_time_to_look(self, look: &mut Look<'_>) -> bool {
        look.again(match self {
            Patience::Until(deadline) => Some(deadline),
            _ => None,
        })
    }

    /// Returns whether a single plain system call comes first. `Some(true)`: one that waits; `Some(false)`: one that does not.
    #[inline(always)]
    pub(crate) fn first_call(self, spin: &Spin) -> Option<bool> {
        match self {
            Patience::None => Some(false),
            Patience::Blocking => spin.is_off().then_some(true),
            Patience::Until(_) | Patience::Endless => None,
        }
    }

    /// Ends a call that has made progress for many steps and is out of time.
    pub(crate) fn after_steps(self, steps: usize) -> Result<()> {
        match self {
            _ if steps < MANY => Ok(()),
            Patience::None => Err(Error::WouldBlock),
            Patience::Until(deadline) if deadline <= Instant::now() => Err(Error::TimedOut),
            _ => Ok(()),
        }
    }

    /// The patience of a destructor. One second is enough for a slow peer, and a peer that never reads cannot hold this process
    /// up for ever. While a panic unwinds there is no time at all.
    pub(crate) fn linger() -> Self {
        if std::thread::panicking() { Patience::None } else { Self::timeout(Duration::from_secs(1)) }
    }

    /// Sleeps until the end is ready for one of several events, which no single system call waits for. `Blocking` respects
    /// `O_NONBLOCK`, as a system call does.
    pub(crate) fn sleep(self, end: &impl AsFd, events: i16) -> Result<()> {
        let end = end.as_fd();
        match self {
            Patience::Blocking if !is_nonblocking(end)? => Patience::Endless.wait(end, events),
            patience => patience.wait(end, events),
        }
    }

    /// Sleeps until the end is ready, or a signal came.
    fn wait(self, end: BorrowedFd<'_>, events: i16) -> Result<()> {
        let left = match self {
            Patience::None | Patience::Blocking => return Err(Error::WouldBlock),
            Patience::Until(deadline) => match deadline.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Err(Error::TimedOut),
                left => Some(left),
            },
            Patience::Endless => None,
        };
        let mut fds = [pollfd { fd: end.as_raw_fd(), events, revents: 0 }];
        match sys::poll::poll(&mut fds, left) {
            // A number that is not open at all would never be ready.
            Ok(_) if fds[0].revents & POLLNVAL != 0 => Err(end::error(&[end], "poll", Errno::BADF)),
            // When the time is up there is one last attempt. poll reports room in a socket only when three quarters of its buffer
            // are free, and a send may work long before.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(end::error(&[end], "poll", errno)),
        }
    }
}

/// How many steps a call takes before it looks at the clock. Otherwise a peer could keep the call for ever: it feeds a reader byte
/// by byte, or makes room for a writer page by page.
const MANY: usize = 64;

fn is_nonblocking(end: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(end).map_err(|errno| end::error(&[end], "fcntl", errno))?;
    Ok(flags.contains(OFlags::NONBLOCK))
}

/// Returns whether the end is in that state now.
pub(crate) fn is_ready(end: &End, event: i16) -> Result<bool> {
    let events = sys::poll::look(end.as_fd(), 0).map_err(|errno| end.error("poll", errno))?;
    if events & POLLNVAL != 0 {
        return Err(end.error("poll", Errno::BADF));
    }
    Ok(events & event != 0)
}
