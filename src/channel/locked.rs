//! A lock whose callers wait no longer than until a deadline.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::sys::try_lock::{TryLock, TryLockGuard};
use crate::wait::Until;

/// How long a thread waits before it looks again by itself. The thread that unlocks looks for it without a barrier, and may miss
/// it: a barrier would take as long as the lock.
const LOOK: Duration = Duration::from_millis(5);

/// How often a call looks again before it sleeps. A lock is held for a copy into a buffer, or for as long as a peer takes.
const LOOKS: usize = 100;

/// A [`Link`](crate::Link) with a buffer behind a lock, so that the calls of a [`Sender`](crate::Sender) and a
/// [`Receiver`](crate::Receiver) can take `&self`.
///
/// The holder of the lock may be waiting for its peer. So a call waits for the lock no longer than it may wait for the peer.
///
/// # Examples
///
/// A [link of your own](crate::Link#a-link-of-your-own) locks itself for each call. Without other threads, no lock is taken:
///
/// ```
/// let mut locked = ipc::Locked::new(1);
/// *locked.get_mut() += 1;
/// assert_eq!(locked.into_inner(), 2);
/// ```
pub struct Locked<L> {
    link: TryLock<L>,
    /// Whether a call waits.
    waiting: AtomicBool,
    turn: Mutex<()>,
    free: Condvar,
}

impl<L> Locked<L> {
    /// Puts the link behind a lock. Never blocks. See the [example](Self#examples).
    pub fn new(link: L) -> Self {
        Self { link: TryLock::new(link), waiting: AtomicBool::new(false), turn: Mutex::new(()), free: Condvar::new() }
    }

    /// Blocks until no other call has the link, or no longer than `until`, and returns it. It is locked until the guard is
    /// dropped. See the [example](crate::Link#a-link-of-your-own) of a link.
    ///
    /// A panic while it was locked does not poison the lock: the link answers for its own state.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`](crate::Error::WouldBlock): another call has it, and this one may not wait.
    /// - [`Error::TimedOut`](crate::Error::TimedOut): another call had it until the time was up.
    #[inline]
    pub fn lock(&self, until: Until) -> Result<LockedGuard<'_, L>> {
        let link = match self.link.try_lock() {
            Some(link) => link,
            None => self.lock_late(until)?,
        };
        Ok(LockedGuard { link, _wake: Wake(self) })
    }

    #[cold]
    #[inline(never)]
    fn lock_late(&self, until: Until) -> Result<TryLockGuard<'_, L>> {
        let may_wait = until.left() != Some(Duration::ZERO);
        for _ in 0..if may_wait { LOOKS } else { 0 } {
            std::hint::spin_loop();
            if let Some(link) = self.link.try_lock() {
                return Ok(link);
            }
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_slept = false;
        loop {
            let was_waiting = self.waiting.swap(true, Relaxed);
            if let Some(link) = self.link.try_lock() {
                return Ok(link);
            }
            let left = until.left();
            if left == Some(Duration::ZERO) {
                self.free.notify_one(); // it may be this one that was woken
                return Err(until.error());
            }
            // The thread that unlocks after that sleep sees the flag that was set before it.
            let is_seen = was_waiting && has_slept;
            let nap = if is_seen { left } else { Some(left.map_or(LOOK, |left| left.min(LOOK))) };
            (turn, has_slept) = match nap {
                Some(nap) => {
                    let (turn, slept) = self.free.wait_timeout(turn, nap).unwrap_or_else(PoisonError::into_inner);
                    (turn, slept.timed_out())
                }
                None => (self.free.wait(turn).unwrap_or_else(PoisonError::into_inner), false),
            };
        }
    }

    /// Wakes a call that waits, which wakes the next when it unlocks. A call that found it locked sleeps once the turn is free.
    #[cold]
    fn wake(&self) {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.free.notify_one();
    }

    /// Returns the link through an exclusive reference. Never blocks. See the [example](Self#examples).
    pub fn get_mut(&mut self) -> &mut L {
        self.link.get_mut()
    }

    /// Gives the link back. Never blocks. See the [example](Self#examples).
    pub fn into_inner(self) -> L {
        self.link.into_inner()
    }
}

impl<L: fmt::Debug> fmt::Debug for Locked<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link.try_lock() {
            Some(link) => LockedGuard { link, _wake: Wake(self) }.fmt(f),
            None => f.write_str("<in use>"),
        }
    }
}

/// The link of a [`Locked`], which is free again when this is dropped. See the [example](crate::Link#a-link-of-your-own) of a link.
pub struct LockedGuard<'a, L> {
    /// The first of the fields, and so the first that is dropped.
    link: TryLockGuard<'a, L>,
    _wake: Wake<'a, L>,
}

impl<L> Deref for LockedGuard<'_, L> {
    type Target = L;

    #[inline]
    fn deref(&self) -> &L {
        &self.link
    }
}

impl<L> DerefMut for LockedGuard<'_, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut L {
        &mut self.link
    }
}

/// Wakes a call that waits, when the lock is free.
struct Wake<'a, L>(&'a Locked<L>);

impl<L> Drop for Wake<'_, L> {
    #[inline]
    fn drop(&mut self) {
        // The look comes after the store that unlocked, as the program is compiled. The processor may delay that store by nanoseconds.
        compiler_fence(SeqCst);
        if self.0.waiting.load(Relaxed) {
            self.0.waiting.store(false, Relaxed);
            self.0.wake();
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for LockedGuard<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
