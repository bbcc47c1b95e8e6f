//! When a side sleeps and when it is rung for: the words of the protocol. [`Line`](super::line::Line) is the socket, and
//! [`Half`](super::half::Half) brings them together.
//!
//! Each side counts its bytes in a word of its own, and sees in the other's word how far that side is. A side that finds
//! nothing to do says that it waits, looks once more, and sleeps. A side that has moved its counter looks whether the other
//! one waits, and rings. Each needs a barrier between its store and its look, or both looks may come too early. Then one
//! sleeps, and the other does not know.
//!
//! The side that moves is in a hurry, and the one that is about to sleep is not. So where the kernel can, the sleeper makes
//! the barrier for both.

use super::layout::bits::{BARS, CLOSED, CORE, CORE_SHIFT, REGISTERED, WAITING};
use super::layout::{Word, Words};

/// The other side's counter is where it cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) own: u64,
    pub(super) other: u64,
}

/// One side of a ring: its counter, and its knowledge of the other. Each word of the other side is read once, and checked
/// before it is used. A side never reads its own words back.
#[derive(Debug)]
pub(super) struct Side<W, const WRITER: bool> {
    pub(super) words: W,
    capacity: u64,
    /// How far this side is, in bytes.
    done: u64,
    /// How far the other side was at the last look.
    other: u64,
    /// The state that this side shows, but for [`WAITING`].
    says: u64,
    /// The state that the other side showed last.
    heard: u64,
    /// The other side makes the barriers.
    spared: bool,
    /// A barrier for both was refused after it had been promised: the other side may not ring any more.
    unsure: bool,
    /// The other side waits, and the kernel had no memory for a ring.
    owed: bool,
}

impl<W: Words, const WRITER: bool> Side<W, WRITER> {
    const OWN: Word = if WRITER { Word::Head } else { Word::Tail };
    const OTHER: Word = if WRITER { Word::Tail } else { Word::Head };
    const OWN_SAYS: Word = if WRITER { Word::Writer } else { Word::Reader };
    const OTHER_SAYS: Word = if WRITER { Word::Reader } else { Word::Writer };

    /// Begins. `registered`: this process takes part in the barriers of others.
    pub(super) fn new(words: W, capacity: usize, registered: bool) -> Self {
        let mut side = Self {
            words,
            capacity: capacity as u64,
            done: 0,
            other: 0,
            says: if registered { REGISTERED } else { 0 },
            heard: 0,
            spared: false,
            unsure: false,
            owed: false,
        };
        side.heed(side.words.load(Self::OTHER_SAYS));
        side.disarm();
        side
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Where in the stream this side is.
    #[inline(always)]
    pub(super) fn position(&self) -> u64 {
        self.done
    }

    /// Returns how many bytes this side can go on by, as far as it knows: what can be read, or what there is room for.
    #[inline(always)]
    pub(super) fn left(&self) -> usize {
        // At most the capacity: `look` has checked it.
        let left = if WRITER {
            self.capacity - self.done.wrapping_sub(self.other)
        } else {
            self.other.wrapping_sub(self.done)
        };
        left as usize
    }

    /// Looks how far the other side is, and how many bytes this side can go on by now.
    #[inline(always)]
    pub(super) fn look(&mut self) -> Result<usize, Impossible> {
        let other = self.words.load(Self::OTHER);
        let apart = if WRITER { self.done.wrapping_sub(other) } else { other.wrapping_sub(self.done) };
        if apart > self.capacity {
            return Err(Impossible { own: self.done, other });
        }
        self.other = other;
        Ok(self.left())
    }

    /// Returns whether the other side has said that it is done.
    #[inline(always)]
    pub(super) fn is_other_closed(&self) -> bool {
        self.words.load(Self::OTHER_SAYS) & CLOSED != 0
    }

    /// Moves on by that many bytes, at most those that are left. Returns whether the other side is to be rung for.
    #[inline(always)]
    #[must_use]
    pub(super) fn advance(&mut self, by: usize) -> bool {
        self.done = self.done.wrapping_add(by as u64);
        self.words.store(Self::OWN, self.done);
        if self.spared {
            self.words.no_barrier()
        } else {
            self.words.barrier()
        }
        let says = self.words.load(Self::OTHER_SAYS);
        if says == self.heard {
            return false;
        }
        self.heed(says);
        let waits = says & WAITING != 0 && self.take_waiting();
        self.take_owed() | waits
    }

    /// Of several that see it, one rings.
    fn take_waiting(&self) -> bool {
        self.words.clear(Self::OTHER_SAYS, WAITING) & WAITING != 0
    }

    /// Notes that the other side could not be rung for. The next move says again that it is to be.
    pub(super) fn ring_later(&mut self) {
        self.owed = true;
        self.heard = !0; // so that the next move looks closer
    }

    /// Returns whether a ring is owed.
    pub(super) fn owes(&self) -> bool {
        self.owed
    }

    /// Returns whether a ring is owed, which the caller makes now.
    #[must_use]
    pub(super) fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// Stores the core of this side. Returns whether the other side has stored the same one.
    pub(super) fn is_at(&mut self, core: usize) -> bool {
        let core = (core as u64).wrapping_add(1) << CORE_SHIFT;
        if self.says & CORE != core {
            self.says = self.says & !CORE | core;
            self.disarm();
        }
        self.words.load(Self::OTHER_SAYS) & CORE == core
    }

    /// Draws conclusions from the other side's state. It is never remembered as waiting, so that it is seen each time.
    #[cold]
    fn heed(&mut self, says: u64) {
        self.heard = says & !WAITING;
        self.spared = says & BARS != 0 && self.says & REGISTERED != 0;
        if says & REGISTERED != 0 && self.says & BARS == 0 && !self.unsure {
            // From here on this side makes the barrier whenever it is about to sleep.
            self.says |= BARS;
            self.disarm();
        }
    }

    /// Says that this side is about to sleep. It has to look once more after this.
    pub(super) fn arm(&mut self) {
        self.words.store(Self::OWN_SAYS, self.says | WAITING);
        if self.says & BARS == 0 {
            self.words.barrier();
        } else if !self.words.barrier_for_both() {
            self.says &= !BARS;
            self.unsure = true;
            self.words.store(Self::OWN_SAYS, self.says | WAITING);
            self.words.barrier();
        }
    }

    /// Says that this side does not sleep.
    pub(super) fn disarm(&mut self) {
        self.words.store(Self::OWN_SAYS, self.says);
    }

    /// Returns whether a sleep needs a time limit, as the other side may not ring.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Says that this side is done. Returns whether the other side is to be rung for.
    #[must_use]
    pub(super) fn close(&mut self) -> bool {
        self.says |= CLOSED;
        self.words.store(Self::OWN_SAYS, self.says);
        self.words.barrier();
        let waits = self.words.load(Self::OTHER_SAYS) & WAITING != 0 && self.take_waiting();
        self.take_owed() | waits
    }
}
