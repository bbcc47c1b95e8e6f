//! Looking again before going to sleep.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Looking again before sleeping: for how long, as the user set it, and whether that is worth it just now.
///
/// Going to sleep and being woken costs far more than looking a few times, as long as the other side runs on another
/// core. Where it does not, every look takes time from it. So after some calls in a row that looked in vain, calls sleep
/// at once, and now and then one looks again: ever more rarely, for as long as that is in vain. On a pipe a call that can
/// look takes longer than a plain one. So where calls never have to wait, as with a pipe that has room, most calls are plain,
/// and every fourth checks that this still holds.
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

/// How many calls in a row look in vain before calls sleep at once.
const ENOUGH: u32 = 4;

/// How many calls sleep at once, at first, before one looks again.
const REST: u32 = 64;

/// How often that doubles.
const DOUBLINGS: u32 = 4;

/// How many calls in a row find at once what they are for, before most go without looking.
const NEVER_WAITED: u32 = 1024;

/// How many calls go without looking before one looks.
const PLAIN: u32 = 3;

impl Spin {
    pub(crate) fn of_pipe() -> Self {
        Self { dear: true, ..Self::default() }
    }

    pub(crate) fn set(&mut self, spin: Duration) {
        *self = Self { whole: spin, dear: self.dear, ..Self::default() };
    }

    #[inline]
    pub(super) fn is_off(&self) -> bool {
        self.whole.is_zero()
    }

    /// For a call: whether it is to look again.
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

/// A call that looks again.
pub(crate) struct Look<'a> {
    spin: &'a Spin,
    /// Looks of this call that found nothing.
    vain: u32,
    /// When the clock was read for the first time.
    began: Option<Instant>,
}

/// How many looks come before the clock is read: 3 µs or so, within which a peer that is at work answers. They make no other
/// system call.
const AT_ONCE: u32 = 8;

impl Look<'_> {
    /// Whether the first looks, without a clock, are used up.
    pub(super) fn is_about_to_read_the_clock(&self) -> bool {
        self.vain.saturating_add(1) == AT_ONCE
    }

    /// Whether to look once more, after a look that found nothing.
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

    /// The look found something. A find at the first look does not show that looking again is worth it. (Two calls at
    /// the same time may count as one, which does no harm.)
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
