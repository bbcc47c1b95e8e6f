//! Waiting: until a deadline, for several at once, and by looking again before going to sleep.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::end::{self, End};
use crate::sys::poll::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, pollfd};
use crate::sys::{self, Errno, ledger};
use crate::{Error, Result};

/// What a call does when there is nothing to do.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Says so: `WouldBlock`.
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

    /// Attempts something until it works, fails, or the patience is at its end.
    ///
    /// The attempt is told whether to wait by itself. Otherwise it answers `EAGAIN`, and in between this sleeps until `end`
    /// is ready. Others may be quicker when it is: then it sleeps again, for what is left of the time. Before the first
    /// sleep, the attempt is repeated for as long as `spin` says.
    ///
    /// What works at once, as nearly everything does, is inlined whole, for which the attempt may be called at one place
    /// only: each return after a system call costs the processor a wrong guess.
    #[inline(always)]
    pub(crate) fn persist<T>(
        self,
        end: &impl AsFd,
        spin: &Spin,
        call: &'static str,
        events: i16,
        mut attempt: impl FnMut(bool) -> sys::Result<T>,
    ) -> Result<T> {
        let mut look = if matches!(self, Patience::None) { None } else { spin.look() };
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
                if look.as_mut().map_or(Ok(false), |look| look.again(self, end))? {
                    std::hint::spin_loop();
                } else if look.take().is_none() || !matches!(self, Patience::Blocking) {
                    self.wait(end, events)?;
                } // or it was looked at in vain, and now the call itself waits
            }
            // This end cannot be looked at without waiting, and this call may wait.
            _ if sys::is_refused(errno) && look.is_some() && matches!(self, Patience::Blocking) => *look = None,
            _ => return Err(end::error(&[end], call, errno)),
        }
        Ok(())
    }

    /// Whether it is left to the system call from the start.
    #[inline]
    pub(crate) fn is_the_calls(self, spin: &Spin) -> bool {
        matches!(self, Patience::Blocking) && spin.whole.is_zero()
    }

    fn is_over(self, now: Instant) -> bool {
        matches!(self, Patience::Until(deadline) if deadline <= now)
    }

    /// What a destructor has: a second, so that a peer which is slow gets what was sent to it, and one that never reads
    /// holds nobody up for ever; and no time at all while a panic unwinds.
    pub(crate) fn linger() -> Self {
        if std::thread::panicking() { Patience::None } else { Self::timeout(Duration::from_secs(1)) }
    }

    /// Sleeps until the end is ready for one of several events, where no single system call would: as that would.
    pub(crate) fn sleep(self, end: &impl AsFd, events: i16) -> Result<()> {
        match self {
            Patience::Blocking if !is_nonblocking(end.as_fd())? => Patience::Endless.wait(end.as_fd(), events),
            patience => patience.wait(end.as_fd(), events),
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
            // Also when the time is up: then there is one last attempt. A socket has room long before poll says so, which
            // is when three quarters of its buffer are free.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(end::error(&[end], "poll", errno)),
        }
    }
}

fn is_nonblocking(end: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(end).map_err(|errno| end::error(&[end], "fcntl", errno))?;
    Ok(flags.contains(OFlags::NONBLOCK))
}

/// Whether the end is in that state now.
pub(crate) fn is_ready(end: &End, event: i16) -> Result<bool> {
    let events = sys::poll::look(end.as_fd(), 0).map_err(|errno| end.error("poll", errno))?;
    if events & POLLNVAL != 0 {
        return Err(end.error("poll", Errno::BADF));
    }
    Ok(events & event != 0)
}

/// Looking again before sleeping: for how long, as the user set it, and whether that is worth it just now.
///
/// Going to sleep and being woken costs far more than looking a few times, as long as the other side runs on another
/// core. Where it does not, every look takes time from it. So after some calls in a row that looked in vain, calls sleep
/// at once, and now and then one looks again: ever more rarely, for as long as that is in vain. On a pipe a call that can
/// look is dearer than a plain one. So where there never is anything to wait for, as with a pipe that has room, most calls
/// are plain, and every fourth looks whether that is still so.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// Zero: off.
    whole: Duration,
    /// A call that looks takes longer than a plain one, also when it finds something.
    dear: bool,
    /// Calls in a row that looked in vain.
    vain: AtomicU32,
    /// Calls in a row that looked, and found at once what they were for; counted where that is dear.
    at_once: AtomicU32,
    /// Calls that did not look, since one did.
    rested: AtomicU32,
}

/// So many calls in a row look in vain before they sleep at once.
const ENOUGH: u32 = 4;

/// So many calls sleep at once, at first, before one looks again.
const REST: u32 = 64;

/// How often that doubles.
const DOUBLINGS: u32 = 4;

/// So many calls in a row find at once what they are for, before most are plain.
const NEVER_WAITED: u32 = 1024;

/// So many of them, before one looks. They sleep when there is something to wait for again.
const PLAIN: u32 = 3;

impl Spin {
    pub(crate) fn of_pipe() -> Self {
        Self { dear: true, ..Self::default() }
    }

    pub(crate) fn set(&mut self, spin: Duration) {
        *self = Self { whole: spin, dear: self.dear, ..Self::default() };
    }

    /// For a call: whether it is to look again.
    #[inline]
    fn look(&self) -> Option<Look<'_>> {
        (!self.whole.is_zero() && self.is_worth_it()).then_some(Look { spin: self, vain: 0, began: None })
    }

    fn is_worth_it(&self) -> bool {
        let rest = match self.vain.load(Relaxed).checked_sub(ENOUGH) {
            Some(too_many) => REST << too_many.min(DOUBLINGS),
            None if self.at_once.load(Relaxed) >= NEVER_WAITED => PLAIN,
            None => return true,
        };
        let rested = self.rested.fetch_add(1, Relaxed) >= rest;
        if rested {
            self.rested.store(0, Relaxed);
        }
        rested
    }
}

/// A copy with the same setting and no experience.
impl Clone for Spin {
    fn clone(&self) -> Self {
        Self { whole: self.whole, dear: self.dear, ..Self::default() }
    }
}

/// A call that looks again.
struct Look<'a> {
    spin: &'a Spin,
    /// Looks of this call that found nothing.
    vain: u32,
    /// When the clock was read for the first time.
    began: Option<Instant>,
}

/// A peer that is at work answers within so many looks: 3 µs or so, for which nothing else is asked of the kernel, and no
/// clock is read where there is no deadline.
const AT_ONCE: u32 = 8;

impl Look<'_> {
    /// Whether to look once more, after a look that found nothing.
    fn again(&mut self, patience: Patience, end: BorrowedFd<'_>) -> Result<bool> {
        if self.vain == 0 {
            self.spin.at_once.store(0, Relaxed);
        }
        self.vain = self.vain.saturating_add(1);
        if self.vain < AT_ONCE && !matches!(patience, Patience::Until(_)) {
            return Ok(true);
        }
        if self.vain == AT_ONCE && matches!(patience, Patience::Blocking) && is_nonblocking(end)? {
            return Err(Error::WouldBlock); // an end that never waits is not to be kept waiting here
        }
        let now = Instant::now();
        let more = now.duration_since(*self.began.get_or_insert(now)) < self.spin.whole;
        if !more {
            self.spin.vain.fetch_add(1, Relaxed);
        }
        Ok(more && !patience.is_over(now))
    }

    /// It was there. Had it been there at once, that says nothing about how long it is worth while to look. (Two calls at
    /// the same time may count as one, which does no harm.)
    #[inline]
    fn found(&self) {
        if self.vain > 0 {
            self.spin.vain.store(0, Relaxed);
        } else if self.spin.dear {
            self.spin.at_once.store(self.spin.at_once.load(Relaxed).saturating_add(1), Relaxed);
        }
    }
}

bitflags::bitflags! {
    /// What [`wait_any`] found about one of those that it waited for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Ready: u8 {
        /// Reading would not block: there is something, or the end. Of a [`Child`](crate::Child): it has left.
        const READ = 1;
        /// Writing would not block: there is room, or nobody is left to read.
        const WRITE = 2;
        /// The other side is gone, or has finished writing. What it sent before can still be read.
        const HANGUP = 4;
        /// An error stands on the descriptor. Of a pipe's writer: no reader is left.
        const ERROR = 8;
    }
}

/// One of those that [`wait_any`] waits for: an end to be readable or writable, or a child to leave.
///
/// Whatever has a descriptor that poll(2) knows can be waited for, also sockets of the standard library. What has a buffer
/// in front of its descriptor makes one itself, which knows of the buffer:
/// [`PackedSocket::watch`](crate::PackedSocket::watch), [`MessageReader::watch`](crate::MessageReader::watch).
pub struct Watch<'a> {
    fd: BorrowedFd<'a>,
    events: i16,
    /// Ready, whatever the descriptor says: what is waited for has arrived in a buffer.
    buffered: bool,
    ready: Ready,
}

impl<'a> Watch<'a> {
    /// For something to read, or the end; of a [`Child`](crate::Child), for its exit.
    pub fn readable(on: &'a impl AsFd) -> Self {
        Self { fd: on.as_fd(), events: POLLIN | POLLRDHUP, buffered: false, ready: Ready::empty() }
    }

    /// For room to write, or for nobody to be left to read.
    ///
    /// A socket counts as having room when three quarters of its buffer are free; a `try_` call may find some before.
    pub fn writable(on: &'a impl AsFd) -> Self {
        Self { fd: on.as_fd(), events: POLLOUT, buffered: false, ready: Ready::empty() }
    }

    /// Or for room to write.
    pub(crate) fn or_writable(self) -> Self {
        Self { events: self.events | POLLOUT, ..self }
    }

    /// With a buffer in front of the descriptor, and something in it or not.
    pub(crate) fn buffered(self, buffered: bool) -> Self {
        Self { buffered, ..self }
    }

    /// What the last [`wait_any`] found: nothing, if the time was up.
    pub fn ready(&self) -> Ready {
        self.ready
    }

    fn take(&mut self, revents: i16) {
        let gone = revents & (POLLHUP | POLLERR) != 0;
        self.ready = Ready::empty();
        let readable = self.buffered || gone || revents & (POLLIN | POLLRDHUP) != 0;
        self.ready.set(Ready::READ, self.events & POLLIN != 0 && readable);
        self.ready.set(Ready::WRITE, self.events & POLLOUT != 0 && (gone || revents & POLLOUT != 0));
        self.ready.set(Ready::HANGUP, revents & (POLLHUP | POLLRDHUP) != 0);
        self.ready.set(Ready::ERROR, revents & POLLERR != 0);
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.events & POLLIN != 0 { "readable" } else { "writable" };
        f.debug_struct("Watch").field(what, &self.fd.as_raw_fd()).field("ready", &self.ready).finish()
    }
}

/// So many fit without asking for memory.
const FEW: usize = 32;

/// Blocks until at least one of several is ready, and says how many are; 0: the time is up.
///
/// Each [`Watch`] then says of itself, with [`ready`](Watch::ready), what it found. `None` waits for ever, a timeout of zero
/// looks once. This is what a master of many workers sits in: one call over all their ends and the children themselves.
///
/// Readiness is a hint: another process that holds the same end may be quicker, so read with
/// [`try_read`](crate::PipeReader::try_read) where ends are shared.
///
/// A reader whose writers are all gone is ready, and stays so: leave it out once its end was read, or the next call
/// returns at once again.
///
/// # Errors
///
/// - [`Error::NotGiven`]: one of them is an end that this process was not given.
/// - [`Error::System`]: `poll` refused, which means more of them than `RLIMIT_NOFILE`; or nothing to wait for and no
///   timeout, so that nothing could ever end the call (`EINVAL`).
///
/// # Platform
///
/// ppoll(2), which every supported kernel has. A signal does not end the call, and does not make it longer.
///
/// # Examples
///
/// ```
/// use ipc::{Ready, Watch};
/// use std::io::Write;
/// use std::time::Duration;
///
/// let (quiet, _keep) = ipc::pipe()?;
/// let (busy, mut writer) = ipc::pipe()?;
/// writer.write_all(b"news")?;
///
/// let mut on = [Watch::readable(&quiet), Watch::readable(&busy)];
/// assert_eq!(ipc::wait_any(&mut on, Some(Duration::from_secs(1)))?, 1);
/// assert_eq!(on[0].ready(), Ready::empty());
/// assert_eq!(on[1].ready(), Ready::READ);
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn wait_any(on: &mut [Watch<'_>], timeout: Option<Duration>) -> Result<usize> {
    if on.is_empty() && timeout.is_none() {
        return Err(Error::system("poll", Errno::INVAL));
    }
    // What is in a buffer is there already.
    let timeout = if on.iter().any(|wait| wait.buffered) { Some(Duration::ZERO) } else { timeout };
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut few = [pollfd { fd: -1, events: 0, revents: 0 }; FEW];
    let mut many = Vec::new();
    let fds = match few.get_mut(..on.len()) {
        Some(fds) => fds,
        None => {
            many.resize(on.len(), few[0]);
            &mut many[..]
        }
    };
    for (fd, wait) in fds.iter_mut().zip(&*on) {
        *fd = pollfd { fd: wait.fd.as_raw_fd(), events: wait.events, revents: 0 };
    }
    let count = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match sys::poll::poll(fds, left) {
            Ok(count) => break count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::system("poll", errno)),
        }
    };
    for (wait, fd) in on.iter_mut().zip(&*fds) {
        if fd.revents & POLLNVAL != 0 {
            return Err(match ledger::is_severed(fd.fd) {
                true => Error::NotGiven,
                false => Error::system("poll", Errno::BADF),
            });
        }
        wait.take(fd.revents);
    }
    let buffered = on.iter().zip(&*fds).filter(|(wait, fd)| wait.buffered && fd.revents == 0).count();
    Ok(count + buffered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls do not look before one does.
    fn rests(spin: &Spin) -> u32 {
        (0..).take_while(|_| spin.look().is_none()).count() as u32
    }

    #[test]
    fn looking_in_vain_is_given_up_and_tried_again_ever_more_rarely() {
        let mut spin = Spin::default();
        assert!(spin.look().is_none(), "off");
        spin.set(Duration::from_nanos(1));
        for _ in 0..ENOUGH {
            assert_eq!(rests(&spin), 0);
            spin.vain.fetch_add(1, Relaxed);
        }
        for rest in [64, 128, 256, 512, 1024, 1024, 1024] {
            assert_eq!(rests(&spin), rest);
            spin.vain.fetch_add(1, Relaxed);
        }
        // A copy has to learn for itself, and one look that finds something is enough.
        assert_eq!(rests(&spin.clone()), 0);
        assert_eq!(rests(&spin), 1024);
        found(&spin, 0);
        assert_eq!(rests(&spin), 1024, "what was there at once says nothing");
        found(&spin, 1);
        assert_eq!((rests(&spin), rests(&spin)), (0, 0));
    }

    #[test]
    fn where_nothing_is_waited_for_most_calls_are_plain_until_something_is() {
        let mut spin = Spin::of_pipe();
        spin.set(Duration::from_nanos(1));
        for _ in 0..NEVER_WAITED {
            assert_eq!(rests(&spin), 0);
            found(&spin, 0);
        }
        for _ in 0..3 {
            assert_eq!(rests(&spin), PLAIN);
            found(&spin, 0);
        }
        // One vain look is enough, whatever comes of it.
        let end = End::adopt(crate::pipe().unwrap().0.into());
        let mut look = Look { spin: &spin, vain: 0, began: None };
        assert!(look.again(Patience::Blocking, end.as_fd()).unwrap());
        assert_eq!((rests(&spin), rests(&spin)), (0, 0));
    }

    #[test]
    fn where_a_look_costs_nothing_every_call_looks() {
        let mut spin = Spin::default();
        spin.set(Duration::from_nanos(1));
        for _ in 0..2 * NEVER_WAITED {
            assert_eq!(rests(&spin), 0);
            found(&spin, 0);
        }
    }

    #[test]
    fn looking_for_as_long_as_one_likes_does_not_overflow() {
        let mut spin = Spin::default();
        spin.set(Duration::MAX);
        let end = End::adopt(crate::pipe().unwrap().0.into());
        let mut look = Look { spin: &spin, vain: u32::MAX - 1, began: None };
        for _ in 0..3 {
            assert!(look.again(Patience::Endless, end.as_fd()).unwrap());
        }
    }

    fn found(spin: &Spin, vain: u32) {
        Look { spin, vain, began: None }.found();
    }
}
