//! Descriptors that are about to leave this crate, as plain ones, for a program or for another process.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::sys::ledger;
use crate::sys::socket::Mark;

/// Counts each removal of marks, before and after it. A thread that puts a mark back sees whether another one has let an end leave
/// meanwhile: that may be the same socket, and a program may have it.
static REMOVALS: AtomicU64 = AtomicU64::new(0);

/// Removes the mark of a descriptor that is about to leave. A receiver that does not know of it would lose ends.
pub(crate) fn leave(fd: BorrowedFd<'_>) {
    Leaving::default().leave(fd);
}

/// The removals that one call makes, which it takes back if nothing leaves.
pub(crate) struct Leaving {
    /// How many there are, if no other thread makes any.
    expected: u64,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { expected: REMOVALS.load(SeqCst) }
    }
}

impl Leaving {
    /// Removes the mark of a descriptor. Returns whether there was one.
    pub(crate) fn leave(&mut self, fd: BorrowedFd<'_>) -> bool {
        let marks = match ledger::mark(fd.as_raw_fd()) {
            None => return false,
            Some(Mark::Time) => &[Mark::Time][..],
            // A clone may have replaced the label by the time.
            Some(Mark::Label) => &[Mark::Label, Mark::Time],
        };
        self.expected += 2;
        REMOVALS.fetch_add(1, SeqCst);
        let mut was_marked = false;
        for mark in marks {
            was_marked |= mark.is_set(fd) != Ok(false);
            let _ = mark.set(fd, false); // no socket at all, or one in a sandbox that refuses it, stays as it is
        }
        REMOVALS.fetch_add(1, SeqCst);
        was_marked
    }

    /// Marks a descriptor again that did not leave. With the time, which every receive sees: another holder may receive ends.
    pub(crate) fn stay(&self, fd: BorrowedFd<'_>) {
        if self.is_alone() {
            let _ = Mark::Time.set(fd, true); // it could be marked before
            if !self.is_alone() {
                let _ = Mark::Time.set(fd, false);
            }
        }
    }

    fn is_alone(&self) -> bool {
        REMOVALS.load(SeqCst) == self.expected
    }
}
