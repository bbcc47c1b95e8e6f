//! Parts that the links share: a socket that several threads use, the token of a process, and the limit on messages that
//! are passed over.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipc::{Result, Until};
use zmq::PollItem;

use super::{Engine, failed};

/// How long a call waits before it looks again by itself. Another call on the socket may have taken the signal for it.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// How many messages other than values a call passes over, at least, before it looks at its deadline. So a call that may
/// not wait finds a value behind them.
pub(super) const PASSED_OVER: usize = 64;

/// A value that several threads use, one after the other.
pub(super) trait Shared {
    /// The socket, to be waited for.
    fn engine(&self) -> &Engine;

    /// Returns whether something has come since this was asked last that may be for another thread.
    fn has_news(&mut self) -> bool;
}

/// The outcome of an attempt.
pub(super) enum Attempt<T> {
    Done(T),
    /// Something came that was not for this call.
    Passed,
    Nothing,
}

/// A socket that several threads use, one after the other. No thread keeps it while it waits. One of the calls that wait watches
/// the socket's signal for all of them.
pub(super) struct Turns<T> {
    /// A thread that has just had a turn waits here before its next one. With the inner lock alone that thread would be first
    /// each time, since it need not wake up.
    queue: Mutex<()>,
    inner: Mutex<Inner<T>>,
    news: Condvar,
    /// Of the socket's signal.
    fd: RawFd,
}

struct Inner<T> {
    shared: T,
    /// Whether a call watches the signal.
    is_watched: bool,
}

impl<T: Shared> Turns<T> {
    pub(super) fn new(shared: T) -> Result<Self> {
        let fd = shared.engine().socket.get_fd().map_err(failed("zmq_getsockopt"))?;
        let inner = Mutex::new(Inner { shared, is_watched: false });
        Ok(Self { queue: Mutex::new(()), inner, news: Condvar::new(), fd })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        let _first = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a use of the socket: wakes the calls that wait if something came.
    fn tell(&self, inner: &mut Inner<T>) {
        if inner.shared.has_news() {
            self.news.notify_all();
        }
    }

    /// Does something that does not wait.
    pub(super) fn take_turn<R>(&self, turn: impl FnOnce(&mut T) -> R) -> R {
        let mut inner = self.lock();
        let done = turn(&mut inner.shared);
        self.tell(&mut inner);
        done
    }

    /// Attempts something that does not wait until it is done or the time is up, which is `None`. Others have their turns
    /// meanwhile. It is attempted again after `pause`, though nothing came.
    pub(super) fn attempt<R>(
        &self,
        within: Option<Duration>,
        pause: Duration,
        mut attempt: impl FnMut(&mut T) -> Result<Attempt<R>>,
    ) -> Result<Option<R>> {
        let deadline = within.and_then(|time| Instant::now().checked_add(time));
        let left = || deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let mut passed = 0;
        let mut inner = self.lock();
        let done = loop {
            let attempted = attempt(&mut inner.shared);
            self.tell(&mut inner);
            match attempted {
                Ok(Attempt::Done(done)) => break Ok(Some(done)),
                Err(error) => break Err(error),
                Ok(Attempt::Passed) => {
                    passed += 1;
                    if passed >= PASSED_OVER && left().is_zero() {
                        break Ok(None);
                    }
                    drop(inner);
                    inner = self.lock();
                }
                Ok(Attempt::Nothing) => match left().min(pause) {
                    Duration::ZERO => break Ok(None),
                    nap => inner = self.wait(inner, nap),
                },
            }
        };
        if !inner.is_watched {
            self.news.notify_one(); // another one watches now
        }
        done
    }

    /// Waits until something came, or for that long.
    fn wait<'a>(&'a self, mut inner: MutexGuard<'a, Inner<T>>, nap: Duration) -> MutexGuard<'a, Inner<T>> {
        if inner.is_watched {
            return self.news.wait_timeout(inner, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.is_watched = true;
        drop(inner);
        // Rounded up, so that no deadline is early.
        let millis = nap.min(SLICE).as_micros().div_ceil(1000) as i64;
        // It fails only for a signal. The next attempt reports its own result.
        let is_signalled = zmq::poll(&mut [PollItem::from_fd(self.fd, zmq::POLLIN)], millis) != Ok(0);
        let mut inner = self.lock();
        inner.is_watched = false;
        if is_signalled {
            self.news.notify_all(); // there may be room to send, too
        }
        inner
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
