//! Parts that the links share: a socket that several threads use, the token of a process, and the limit on messages that
//! are passed over.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipc::{Result, Until};

/// How long a call that waits keeps the socket from others.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// How many messages that are no values a call passes over, at least, before it heeds that its time is up. So a call that
/// may not wait finds a value behind them.
pub(super) const PASSED_OVER: usize = 64;

/// A socket that several threads use, one after the other.
///
/// A waiting thread has the queue meanwhile. A thread that has just had a turn waits there before its next one. With the
/// inner lock alone that thread would be first each time, since it need not wake up.
pub(super) struct Turns<T> {
    queue: Mutex<()>,
    inner: Mutex<T>,
}

impl<T> Turns<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { queue: Mutex::new(()), inner: Mutex::new(inner) }
    }

    pub(super) fn take_turn<R>(&self, turn: impl FnOnce(&mut T) -> R) -> R {
        let first = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        drop(first);
        turn(&mut inner)
    }

    /// Attempts something until it is done or the time is up, which is `Ok(false)`. Others have their turns meanwhile.
    pub(super) fn in_slices(
        &self,
        within: Option<Duration>,
        mut attempt: impl FnMut(&mut T, Duration) -> Result<bool>,
    ) -> Result<bool> {
        let deadline = within.and_then(|time| Instant::now().checked_add(time));
        loop {
            let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
            let is_done = self.take_turn(|inner| attempt(inner, left.min(SLICE)))?;
            if is_done || left.is_zero() {
                return Ok(is_done);
            }
        }
    }
}

/// Tells a worker from others that had its name before.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Token([u8; 8]);

impl Token {
    pub(super) fn random() -> Self {
        // The random state alone is the same in two processes that were forked from one.
        let chance = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
        Self(chance.to_le_bytes())
    }

    /// A word with this token.
    pub(super) fn word(self, word: &[u8]) -> Vec<u8> {
        [word, &self.0].concat()
    }

    /// The token of that word. `None`: it is another one.
    pub(super) fn of(said: &[u8], word: &[u8]) -> Option<Self> {
        said.strip_prefix(word)?.try_into().ok().map(Self)
    }
}

/// Counts a message that was no value. Fails if there were many and the time is up, so that a flood of them keeps no deadline
/// waiting.
pub(super) fn pass_over(passed: &mut usize, until: Until) -> Result<()> {
    *passed += 1;
    if *passed >= PASSED_OVER && until.left().is_some_and(|left| left.is_zero()) { Err(until.error()) } else { Ok(()) }
}
