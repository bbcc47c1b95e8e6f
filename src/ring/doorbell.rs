//! When a side sleeps and when it is rung for: the protocol, and the socket that it sleeps at.
//!
//! Each side counts what it has done in a word of its own, and sees in the other one's how far that is. A side that finds
//! nothing to do says that it waits, looks once more, and sleeps; a side that has moved its counter looks whether the other
//! one waits, and rings. Between the store and the look of each there has to be a barrier, or both looks may come too early:
//! then one sleeps, and the other does not know.
//!
//! The side that moves is in a hurry, and the one that is about to sleep is not. So where the kernel can, the sleeper makes
//! the barrier for both.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::layout::bits::{BARS, CLOSED, CORE, CORE_SHIFT, REGISTERED, WAITING};
use super::layout::{Word, Words};
use crate::sys::{self, Errno};

/// The other side's counter is where it cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) own: u64,
    pub(super) other: u64,
}

/// One side of a ring: its counter, and what it knows of the other. What the other side wrote is read once and looked at
/// before it is used, and of its own words a side reads none.
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
    /// A barrier for both was refused after it had been promised: being rung for cannot be relied on any more.
    unsure: bool,
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

    /// How many bytes this side can go on by, as far as it knows: what can be read, or what there is room for.
    #[inline(always)]
    pub(super) fn left(&self) -> usize {
        // At most the capacity: `look` has seen to it.
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

    /// Whether the other side has said that it is done.
    #[inline(always)]
    pub(super) fn is_other_closed(&self) -> bool {
        self.words.load(Self::OTHER_SAYS) & CLOSED != 0
    }

    /// Goes on by so many bytes, at most those that are left, and says whether the other side is to be rung for.
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
        if says & WAITING == 0 {
            return false;
        }
        self.take_waiting()
    }

    /// Of several that see it, one rings.
    fn take_waiting(&self) -> bool {
        self.words.clear(Self::OTHER_SAYS, WAITING) & WAITING != 0
    }

    /// Whether the other side waits for something that was done, and could not be rung for.
    pub(super) fn owes_ring(&self) -> bool {
        self.words.load(Self::OTHER_SAYS) & WAITING != 0 && self.take_waiting()
    }

    /// Notes that the other side could not be rung for: the next move finds that it waits.
    pub(super) fn ring_later(&self) {
        self.words.set(Self::OTHER_SAYS, WAITING);
    }

    /// Says at which core this side is, and whether the other one was there when it said so last.
    pub(super) fn is_at(&mut self, core: usize) -> bool {
        let core = (core as u64).wrapping_add(1) << CORE_SHIFT;
        if self.says & CORE != core {
            self.says = self.says & !CORE | core;
            self.disarm();
        }
        self.words.load(Self::OTHER_SAYS) & CORE == core
    }

    /// Draws conclusions from what the other side says. It is never remembered as waiting, so that it is seen each time.
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

    /// Whether a sleep has to end by itself, as nobody may ring.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Says that this side is done, and whether the other side is to be rung for.
    #[must_use]
    pub(super) fn close(&mut self) -> bool {
        self.says |= CLOSED;
        self.words.store(Self::OWN_SAYS, self.says);
        self.words.barrier();
        self.words.load(Self::OTHER_SAYS) & WAITING != 0 && self.take_waiting()
    }
}

/// The outcome of a look at the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Silence,
    /// That somebody rang, or a signal came: it is time to look.
    Bell,
    /// That nobody is there any more.
    End,
}

/// Takes what rings there are, or waits for one.
pub(super) fn hear(fd: BorrowedFd<'_>, wait: bool) -> sys::Result<Heard> {
    match sys::socket::read(fd, &mut [0; 256], wait) {
        Ok(0) => Ok(Heard::End),
        Ok(_) | Err(Errno::INTR) => Ok(Heard::Bell),
        Err(Errno::AGAIN) => Ok(Heard::Silence),
        // The peer has not heard all of our rings.
        Err(Errno::CONNRESET | Errno::NOTCONN) => Ok(Heard::End),
        Err(errno) => Err(errno),
    }
}

/// What became of a ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// It is on its way.
    Heard,
    /// The kernel has no memory for it just now.
    Later,
    /// Nobody is there any more.
    Nobody,
}

/// How often a ring is tried for which the kernel has no memory, and how long it waits in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Rings.
#[cold]
#[inline(never)]
pub(super) fn ring(fd: BorrowedFd<'_>) -> sys::Result<Rung> {
    let mut tries = 0;
    loop {
        return match sys::socket::write(fd, &[1], false) {
            // No room: then it has not heard the rings before this one.
            Ok(_) | Err(Errno::AGAIN) => Ok(Rung::Heard),
            Err(Errno::INTR) => continue,
            Err(Errno::NOBUFS | Errno::NOMEM) if tries < TRIES => {
                tries += 1;
                let _ = sys::poll::poll(&mut [], Some(PAUSE)); // a signal may end it
                continue;
            }
            Err(Errno::NOBUFS | Errno::NOMEM) => Ok(Rung::Later),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Rung::Nobody),
            Err(errno) => Err(errno),
        };
    }
}
