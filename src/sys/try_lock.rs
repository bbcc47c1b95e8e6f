//! A lock that nobody waits for here. Freeing it is a store, and no second atomic operation.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

/// A value that one caller at a time has.
pub(crate) struct TryLock<T> {
    is_locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time uses the value, the one that took the lock, and its owner drops it. It goes from thread to thread,
// and is never in two.
unsafe impl<T: Send> Sync for TryLock<T> {}

impl<T> UnwindSafe for TryLock<T> {}
impl<T> RefUnwindSafe for TryLock<T> {}

impl<T> TryLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { is_locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Takes it, unless somebody has it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<TryLockGuard<'_, T>> {
        let was_locked = self.is_locked.swap(true, Acquire);
        if was_locked { None } else { Some(TryLockGuard { lock: self, value: PhantomData }) }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// The value of a [`TryLock`], which is free again when this is dropped.
pub(crate) struct TryLockGuard<'a, T> {
    lock: &'a TryLock<T>,
    /// Shared between threads and sent to them as that is.
    value: PhantomData<&'a mut T>,
}

impl<T> Deref for TryLockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: there is one guard at a time: `is_locked` went from false to true for this one, and is false again when it is
        // dropped. `get_mut` and `into_inner` need the lock itself, which this borrows.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for TryLockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the one guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for TryLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.is_locked.store(false, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::TryLock;

    #[test]
    fn one_at_a_time_has_the_value() {
        let lock = TryLock::new(0_u64);
        let guard = lock.try_lock().expect("nobody has it");
        assert!(lock.try_lock().is_none());
        drop(guard);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let mut value = loop {
                            match lock.try_lock() {
                                Some(value) => break value,
                                None => std::thread::yield_now(),
                            }
                        };
                        *value += 1;
                    }
                });
            }
        });
        assert_eq!(lock.into_inner(), 2000);
    }
}
