//! The kernel, as this crate needs it. The only home of `unsafe`, of libc, and of the substitutes for calls that older kernels
//! do not have. Names no public type; failures are bare errnos.

#![allow(unsafe_code)]

pub(crate) mod ancillary;
#[cfg(feature = "testing")]
pub(crate) mod before_main;
pub(crate) mod descriptor;
pub(crate) mod empty;
pub(crate) mod epoch;
pub(crate) mod exec;
pub(crate) mod fork;
pub(crate) mod frozen;
pub(crate) mod inherited;
pub(crate) mod ledger;
pub(crate) mod membarrier;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod process;
#[cfg(feature = "tokio")]
pub(crate) mod runtime;
pub(crate) mod rw_flags;
pub(crate) mod shared_memory;
pub(crate) mod sibling;
pub(crate) mod signal;
pub(crate) mod signalfd;
pub(crate) mod socket;
pub(crate) mod start;
#[cfg(feature = "channel")]
pub(crate) mod tcp;
#[cfg(feature = "channel")]
pub(crate) mod try_lock;

use std::ops::{Deref, Range};

pub(crate) use rustix::io::Errno;

/// The result of a system call.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The errno of a libc call that just returned −1.
#[cold]
#[inline(never)]
fn errno() -> Errno {
    // `last_os_error` reads errno, and always has a raw code.
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// The errno of an error of the standard library's.
fn from_io(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Returns whether the errno means that this kernel lacks a call that moves bytes, or its flag. An older kernel returns
/// `EOPNOTSUPP` or `ENOSYS`. Many a sandbox returns `EPERM`, which none of these calls returns for a pipe otherwise.
pub(crate) fn is_refused(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM)
}

/// The kernel refuses more slices than this in one vectored call (`IOV_MAX`, [readv(2)]).
///
/// [readv(2)]: https://man7.org/linux/man-pages/man2/readv.2.html
pub(crate) const MOST_SLICES: usize = 1024;

/// The slices that one vectored call takes: from the first that is not empty, as many as the kernel takes. With empty ones first
/// there may be no room for a byte, and 0 would look like EOF. `None`: all of them are empty.
pub(crate) fn for_one_call(slices: &[impl Deref<Target = [u8]>]) -> Option<Range<usize>> {
    let first = slices.iter().position(|slice| !slice.is_empty())?;
    Some(first..slices.len().min(first + MOST_SLICES))
}

/// Returns how many leading slices have at most that many bytes together.
pub(crate) fn leading(slices: &[impl Deref<Target = [u8]>], mut room: usize) -> usize {
    let fitting = slices.iter().take_while(|slice| {
        let fits = slice.len() <= room;
        room = room.saturating_sub(slice.len());
        fits
    });
    fitting.count()
}

/// The core that this thread runs on, now.
pub(crate) fn core() -> usize {
    rustix::thread::sched_getcpu()
}

/// Lets others run that wait for this core.
pub(crate) fn give_core_away() {
    rustix::thread::sched_yield();
}

/// Makes a call again for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            done => return done,
        }
    }
}
