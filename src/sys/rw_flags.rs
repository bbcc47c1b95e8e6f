//! Whether this kernel heeds the flags of [preadv2(2)] and [pwritev2(2)] on pipes. gVisor takes every flag and heeds none: a read
//! that is not to wait waits, and a write that is to raise no signal raises it.
//!
//! [preadv2(2)]: https://man7.org/linux/man-pages/man2/preadv2.2.html
//! [pwritev2(2)]: https://man7.org/linux/man-pages/man2/pwritev2.2.html

use std::io::IoSlice;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::io::ReadWriteFlags;

use super::Errno;
use super::pipe::{CURRENT, private};

/// The answers so far, as bits.
static KNOWN: AtomicU8 = AtomicU8::new(0);

/// The question of [`ask`] was answered.
const ASKED: u8 = 1;
/// Flags are taken, and not heeded.
const IGNORED: u8 = 2;
/// `RWF_NOSIGNAL` was refused.
const NO_NOSIGNAL: u8 = 4;

/// A flag that no kernel knows. One that heeds flags refuses it.
const UNKNOWN: ReadWriteFlags = ReadWriteFlags::from_bits_retain(1 << 30);

/// Asks whether flags are heeded, once a process. Call it for each end of a pipe that is made or adopted, and not at the first read.
/// By then the process may have a filter that kills for calls it does not expect.
#[inline]
pub(crate) fn ask() {
    if KNOWN.load(Relaxed) & ASKED == 0 {
        ask_now();
    }
}

#[cold]
fn ask_now() {
    // In a full table there is no answer. Flags then count as heeded, and the next end asks again.
    let Ok((_reader, writer)) = private() else { return };
    // It has room and a reader, so the write neither waits nor raises a signal, whatever becomes of the flag.
    let known = match rustix::io::pwritev2(&writer, &[IoSlice::new(&[0])], CURRENT, UNKNOWN) {
        Ok(_) => ASKED | IGNORED,
        Err(Errno::INTR) => return,
        Err(_) => ASKED,
    };
    KNOWN.fetch_or(known, Relaxed);
}

/// The answers so far.
#[derive(Clone, Copy)]
pub(super) struct Known(u8);

/// Returns what is known, for one load.
#[inline]
pub(super) fn known() -> Known {
    Known(KNOWN.load(Relaxed))
}

impl Known {
    /// Returns whether flags are taken and not heeded.
    #[inline]
    pub(super) fn are_ignored(self) -> bool {
        self.0 & IGNORED != 0
    }

    /// Returns whether `RWF_NOSIGNAL` is worth a try: flags are heeded, as far as is known, and this one was not refused.
    #[inline]
    pub(super) fn may_avoid_signal(self) -> bool {
        self.0 & (IGNORED | NO_NOSIGNAL) == 0
    }
}

/// Notes that the kernel has refused `RWF_NOSIGNAL`.
#[cold]
pub(super) fn note_no_nosignal() {
    KNOWN.fetch_or(NO_NOSIGNAL, Relaxed);
}
