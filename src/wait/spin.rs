//! Spinning: trying again a few times before the thread sleeps.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the calls on an end spin, as the user set it, and whether spinning is worth it now.
///
/// Sleeping and being woken takes far longer than a few attempts, as long as the other side runs on another core. On one
/// shared core, each attempt takes time from the other side. So after [`ENOUGH`] calls in a row that spun in vain, calls sleep
/// at once. Now and then one spins again, ever more rarely as long as that is in vain.
///
/// On a pipe, an attempt that does not wait takes longer than a plain call. Calls on a pipe that has room never have to wait, so
/// most of them are plain. Every fourth one checks that this still holds.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// Zero: off.
    whole: Duration,
    /// An attempt that does not wait takes longer than a plain call, as on a pipe.
    dear: bool,
    /// Calls in a row that spun in vain.
    vain: AtomicU32,
    /// Calls in a row whose first attempt worked. Only counted if `dear`.
    at_once: AtomicU32,
    /// Calls since the last one that could spin.
    rested: AtomicU32,
}

/// How many calls in a row spin in vain before calls sleep at once.
const ENOUGH: u32 = 4;

/// How many calls sleep at once before one spins again, at first.
const REST: u32 = 64;

/// How many times [`REST`] doubles at most.
const DOUBLINGS: u32 = 4;

/// How many calls in a row succeed at once before most calls are plain.
const NEVER_WAITED: u32 = 1024;

/// How many calls are plain before one can spin.
const PLAIN: u32 = 3;

impl Spin {
    pub(crate) fn of_pipe() -> Self {
        Self { dear: true, ..Self::default() }
    }

    #[cfg(feature = "channel")]
    pub(crate) fn of(spin: Duration) -> Self {
        Self { whole: spin, ..Self::default() }
    }

    pub(crate) fn set(&mut self, spin: Duration) {
        *self = Self { whole: spin, dear: self.dear, ..Self::default() };
    }

    #[inline]
    pub(super) fn is_off(&self) -> bool {
        self.whole.is_zero()
    }

    /// Begins a call that can spin. `None`: this call is a plain one.
    #[inline]
    pub(super) fn look(&self) -> Option<Look<'_>> {
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

/// One call that can spin.
pub(crate) struct Look<'a> {
    spin: &'a Spin,
    /// Attempts of this call that found nothing.
    vain: u32,
    /// When the clock was read for the first time.
    began: Option<Instant>,
}

/// How many attempts come before the clock is read. They take about 3 µs, within which a busy peer answers, and make no other
/// system call.
const AT_ONCE: u32 = 8;

impl Look<'_> {
    /// Returns whether the first attempts, without a clock, are used up.
    pub(super) fn is_about_to_read_the_clock(&self) -> bool {
        self.vain.saturating_add(1) == AT_ONCE
    }

    /// Returns whether to try once more, after an attempt that found nothing.
    pub(super) fn again(&mut self, deadline: Option<Instant>) -> bool {
        if self.vain == 0 {
            self.spin.at_once.store(0, Relaxed);
        }
        self.vain = self.vain.saturating_add(1);
        if self.vain < AT_ONCE && deadline.is_none() {
            return true;
        }
        let now = Instant::now();
        let more = now.duration_since(*self.began.get_or_insert(now)) < self.spin.whole;
        if !more {
            self.spin.vain.fetch_add(1, Relaxed);
        }
        more && deadline.is_none_or(|deadline| now < deadline)
    }

    /// Notes that an attempt worked. A first attempt that works does not show that spinning is worth it. Two calls at the same
    /// time may count as one, which does no harm.
    #[inline]
    pub(crate) fn found(&self) {
        if self.vain > 0 {
            self.spin.vain.store(0, Relaxed);
        } else if self.spin.dear {
            self.spin.at_once.store(self.spin.at_once.load(Relaxed).saturating_add(1), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the plain calls before the next one that can spin.
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
        // A copy starts without experience, and one attempt that works is enough.
        assert_eq!(rests(&spin.clone()), 0);
        assert_eq!(rests(&spin), 1024);
        found(&spin, 0);
        assert_eq!(rests(&spin), 1024, "a first attempt that works shows nothing");
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
        // One attempt in vain is enough, whatever follows.
        let mut look = Look { spin: &spin, vain: 0, began: None };
        assert!(look.again(None));
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
        let mut look = Look { spin: &spin, vain: u32::MAX - 1, began: None };
        for _ in 0..3 {
            assert!(look.again(None));
        }
    }

    fn found(spin: &Spin, vain: u32) {
        Look { spin, vain, began: None }.found();
    }
}
