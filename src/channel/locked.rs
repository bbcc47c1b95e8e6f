//! A lock that is waited for no longer than a deadline.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::Result;
use crate::wait::{Patience, Until};

/// The thread that unlocks looks without a barrier whether another waits, and may miss it: a barrier would take as long as the lock. So
/// one that waits looks again by itself after this time.
const LOOK: Duration = Duration::from_millis(5);

/// A [`Link`](crate::Link) with a buffer behind a lock, so that the calls of a [`Sender`](crate::Sender) and a
/// [`Receiver`](crate::Receiver) can take `&self`.
///
/// The holder of the lock may be waiting for its peer. So the lock is waited for no longer than the call may wait.
pub struct Locked<L> {
    link: Mutex<L>,
    /// Whether somebody waits with a deadline.
    waiting: AtomicBool,
    turn: Mutex<()>,
    free: Condvar,
}

impl<L> Locked<L> {
    /// Puts the link behind a lock. Never blocks.
    pub fn new(link: L) -> Self {
        Self { link: Mutex::new(link), waiting: AtomicBool::new(false), turn: Mutex::new(()), free: Condvar::new() }
    }

    /// Blocks until no other call has the link, or no longer than `until`, and returns it. It is locked until the guard is
    /// dropped.
    ///
    /// A panic while it was locked does not matter: what the link is like then is what it says itself.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`](crate::Error::WouldBlock): another call has it, and this one may not wait.
    /// - [`Error::TimedOut`](crate::Error::TimedOut): another call had it until the time was up.
    #[inline]
    pub fn lock(&self, until: Until) -> Result<LockedGuard<'_, L>> {
        match self.try_lock() {
            Some(guard) => Ok(guard),
            None => self.lock_late(until.0),
        }
    }

    #[inline]
    fn try_lock(&self) -> Option<LockedGuard<'_, L>> {
        match self.link.try_lock() {
            Ok(guard) => Some(self.guard(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.guard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn guard<'a>(&'a self, guard: MutexGuard<'a, L>) -> LockedGuard<'a, L> {
        LockedGuard { guard: Some(guard), lock: self }
    }

    #[cold]
    fn lock_late(&self, patience: Patience) -> Result<LockedGuard<'_, L>> {
        let until = Until(patience);
        if matches!(patience, Patience::Blocking | Patience::Endless) {
            return Ok(self.guard(self.link.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.waiting.store(true, Relaxed);
            if let Some(guard) = self.try_lock() {
                return Ok(guard);
            }
            let left = until.left().unwrap_or(LOOK);
            if left.is_zero() {
                return Err(until.error());
            }
            turn = self.free.wait_timeout(turn, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes those that wait with a deadline. Whoever found it locked is asleep once the turn is free.
    #[cold]
    fn wake(&self) {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.free.notify_all();
    }

    /// Returns the link of a lock that nobody else can have. Never blocks.
    pub fn get_mut(&mut self) -> &mut L {
        self.link.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the link back. Never blocks.
    pub fn into_inner(self) -> L {
        self.link.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: fmt::Debug> fmt::Debug for Locked<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link.try_lock() {
            Ok(link) => link.fmt(f),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.get_ref().fmt(f),
            Err(TryLockError::WouldBlock) => f.write_str("<in use>"),
        }
    }
}

/// The link of a [`Locked`], which is free again when this is dropped.
pub struct LockedGuard<'a, L> {
    guard: Option<MutexGuard<'a, L>>,
    lock: &'a Locked<L>,
}

impl<L> Deref for LockedGuard<'_, L> {
    type Target = L;

    fn deref(&self) -> &L {
        self.guard.as_ref().expect(LOCKED)
    }
}

impl<L> DerefMut for LockedGuard<'_, L> {
    fn deref_mut(&mut self) -> &mut L {
        self.guard.as_mut().expect(LOCKED)
    }
}

const LOCKED: &str = "it is unlocked when it is dropped";

impl<L> Drop for LockedGuard<'_, L> {
    #[inline]
    fn drop(&mut self) {
        drop(self.guard.take());
        if self.lock.waiting.load(Relaxed) {
            self.lock.waiting.store(false, Relaxed);
            self.lock.wake();
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for LockedGuard<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
