//! A lock that is waited for no longer than a deadline.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::error::Result;
use crate::wait::{Patience, Until};

/// A [`Link`](crate::Link) with a buffer behind a lock, so that the calls of a [`Sender`](crate::Sender) and a
/// [`Receiver`](crate::Receiver) can take `&self`.
///
/// Whoever holds the lock may be waiting for its peer. So the lock is waited for no longer than the call may wait.
pub struct Locked<L> {
    link: Mutex<L>,
    /// How many wait with a deadline.
    waiting: AtomicUsize,
    turn: Mutex<()>,
    free: Condvar,
}

impl<L> Locked<L> {
    /// Puts the link behind a lock. Never blocks.
    pub fn new(link: L) -> Self {
        Self { link: Mutex::new(link), waiting: AtomicUsize::new(0), turn: Mutex::new(()), free: Condvar::new() }
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
        // It is looked at once more after it was said that somebody waits, as whoever unlocks looks at that afterwards.
        let _waits = Waits::new(&self.waiting);
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(guard) = self.try_lock() {
                return Ok(guard);
            }
            match until.left() {
                Some(left) if left.is_zero() => return Err(until.error()),
                Some(left) => turn = self.free.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner).0,
                None => turn = self.free.wait(turn).unwrap_or_else(PoisonError::into_inner),
            }
        }
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

/// Says that somebody waits, for as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        fence(SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
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
        // Unlocking is before looking: either this sees who waits, or they see that it is free.
        fence(SeqCst);
        if self.lock.waiting.load(SeqCst) > 0 {
            // Whoever looked and found it locked is asleep once this can be locked.
            drop(self.lock.turn.lock().unwrap_or_else(PoisonError::into_inner));
            self.lock.free.notify_all();
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for LockedGuard<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
