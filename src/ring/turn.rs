//! Giving the core to the other side, instead of sleeping, where both share one.
//!
//! On one core, a side that keeps looking keeps the other from working. A side that sleeps has to be woken, which takes a
//! system call at each side. A side that gives its core away need not be woken: the other side goes on, and gives it back.
//! A message and its answer take less than half of the time.
//!
//! A third process that wants the core too may keep it for a slice of the scheduler's. A slice is some milliseconds, though
//! the answer was there long ago. So a turn that took long counts as some in vain. After a few of these, calls sleep at once,
//! and one in many tries again, ever more rarely, as in looking again.

use std::time::{Duration, Instant};

use crate::sys;

/// How many turns in a row are given in vain before calls sleep at once.
const ENOUGH: u32 = 4;

/// How many calls sleep at once, at first, before one gives its turn again.
const REST: u32 = 64;

/// How often that doubles.
const DOUBLINGS: u32 = 8;

/// A turn that took longer was not the other side's alone, or sleeping costs little beside it. It counts as several in vain.
const LONG: Duration = Duration::from_micros(500);
const MUCH: u32 = 3;

/// Knows whether giving the core away is worth it just now.
#[derive(Debug, Default)]
pub(super) struct Turn {
    is_off: bool,
    /// Turns in a row that were given in vain.
    vain: u32,
    /// Calls that gave none, since one did.
    rested: u32,
}

impl Turn {
    /// Never gives the core away.
    pub(super) fn off() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    /// Gives the core away, if the other side is there too and it is worth it. Returns whether there is something to do then.
    pub(super) fn give(&mut self, is_shared: bool, look: impl FnOnce() -> bool) -> bool {
        if !is_shared || !self.is_worth_it() {
            return false;
        }
        let began = Instant::now();
        sys::give_core_away();
        let found = look();
        self.note(found, began.elapsed());
        found
    }

    fn is_worth_it(&mut self) -> bool {
        if self.is_off {
            return false;
        }
        let Some(too_many) = self.vain.checked_sub(ENOUGH) else { return true };
        self.rested += 1;
        let is_over = self.rested > REST << too_many.min(DOUBLINGS);
        if is_over {
            self.rested = 0;
        }
        is_over
    }

    fn note(&mut self, found: bool, took: Duration) {
        self.vain = match found {
            // A process that had the core meanwhile would have had it during a sleep too.
            false => self.vain.saturating_add(1),
            true if took >= LONG => self.vain.max(ENOUGH).saturating_add(MUCH),
            // One at a time, as the next one may be long again.
            true => self.vain.min(ENOUGH + DOUBLINGS).saturating_sub(1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many calls sleep at once before one gives its turn.
    fn rests(turn: &mut Turn) -> u32 {
        (0..).take_while(|_| !turn.is_worth_it()).count() as u32
    }

    #[test]
    fn turns_in_vain_are_given_up_and_tried_again_ever_more_rarely() {
        let mut turn = Turn::default();
        for _ in 0..ENOUGH {
            assert_eq!(rests(&mut turn), 0);
            turn.note(false, Duration::ZERO);
        }
        for doublings in 0..=DOUBLINGS + 1 {
            assert_eq!(rests(&mut turn), 64 << doublings.min(DOUBLINGS));
            turn.note(false, Duration::ZERO);
        }
        // Good ones bring it back, step by step.
        for doublings in (0..DOUBLINGS).rev() {
            turn.note(true, Duration::ZERO);
            assert_eq!(rests(&mut turn), 64 << doublings);
        }
        turn.note(true, Duration::ZERO);
        assert_eq!((rests(&mut turn), rests(&mut turn)), (0, 0));
    }

    #[test]
    fn a_long_turn_counts_as_many_in_vain() {
        let mut turn = Turn::default();
        turn.note(true, LONG);
        assert_eq!(rests(&mut turn), 64 << MUCH);
        let mut turn = Turn::default();
        turn.note(false, LONG);
        assert_eq!(rests(&mut turn), 0, "but not where sleeping would have been as long");
    }

    #[test]
    fn no_turn_is_given_where_the_core_is_not_shared() {
        let mut turn = Turn::default();
        assert!(!turn.give(false, || unreachable!("it does not look")));
        assert!(!Turn::off().give(true, || unreachable!("it does not look")));
        assert!(turn.give(true, || true));
        assert!(!turn.give(true, || false));
    }
}
