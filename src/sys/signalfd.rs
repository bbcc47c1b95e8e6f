//! Signals as something to read ([signalfd(2)]), and the mask of the thread that keeps them from being handled.
//!
//! [signalfd(2)]: https://man7.org/linux/man-pages/man2/signalfd.2.html

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::gettid;

use super::fork::Permit;
use super::signal::Mask;
use super::{Errno, Result, errno, retry};

/// Numbers of signals that fit in a [`Set`]. Some processors have more signals, which cannot be read.
const SIGNALS: i32 = 64;

/// A set of signals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Set(u64);

impl Set {
    /// `None`: one of them is no signal, or one that cannot be held back.
    pub(crate) fn of(signals: &[i32]) -> Option<Self> {
        let mut set = Self::default();
        for &signal in signals {
            let libcs = !(1..=SIGNALS).contains(&signal) || set_of([signal]).is_none();
            if libcs || matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
                return None;
            }
            set.0 |= bit(signal);
        }
        Some(set)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn each(self) -> impl Iterator<Item = i32> {
        (1..=SIGNALS).filter(move |signal| self.0 & bit(*signal) != 0)
    }

    fn to_libc(self) -> libc::sigset_t {
        // Every one of them was looked at when the set was made.
        set_of(self.each()).unwrap_or_else(|| set_of([]).expect("an empty set"))
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// `None`: libc has no such signal, or keeps it for itself.
fn set_of(signals: impl IntoIterator<Item = i32>) -> Option<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and sigaddset refuses a number that is no signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        signals.into_iter().all(|signal| libc::sigaddset(&mut set, signal) == 0).then_some(set)
    }
}

/// The signals that a thread holds back for its readers.
#[derive(Clone, Copy)]
struct Kept {
    /// How many read each signal.
    readers: [u32; SIGNALS as usize],
    /// Those that the thread held back before the first.
    before: u64,
}

thread_local! {
    // Without a destructor, so that it is there to the last, and in a child that was forked.
    static KEPT: Cell<Kept> = const { Cell::new(Kept { readers: [0; SIGNALS as usize], before: 0 }) };
}

/// Holds the signals back in this thread, until it is told as often not to.
pub(crate) fn hold_back(set: Set) {
    let old = Mask::add(&set.to_libc());
    let mut kept = KEPT.get();
    for signal in set.each() {
        let readers = &mut kept.readers[signal as usize - 1];
        if *readers == 0 {
            kept.before &= !bit(signal);
            if old.has(signal) {
                kept.before |= bit(signal);
            }
        }
        *readers += 1;
    }
    KEPT.set(kept);
}

/// Unblocks the signals, unless another `Signals` reads them or the thread blocked them before. Signals that came meanwhile are
/// dropped, and do nothing to this process.
pub(crate) fn let_go(set: Set) {
    let mut kept = KEPT.get();
    let mut last = Set::default();
    for signal in set.each() {
        let readers = &mut kept.readers[signal as usize - 1];
        *readers = readers.saturating_sub(1);
        if *readers == 0 && kept.before & bit(signal) == 0 {
            last.0 |= bit(signal);
        }
    }
    KEPT.set(kept);
    if last.is_empty() {
        return;
    }
    let last = last.to_libc();
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid set and time, and nobody who asks for details.
    while unsafe { libc::sigtimedwait(&last, std::ptr::null_mut(), &at_once) } > 0 || errno() == Errno::INTR {}
    Mask::remove(&last);
}

/// The mask that this thread had before it held anything back for readers, which a child that was forked is to have: it has
/// none. In the child, they are forgotten.
pub(crate) fn forget(mask: &mut Mask) {
    let kept = KEPT.get();
    for signal in 1..=SIGNALS {
        if kept.readers[signal as usize - 1] > 0 && kept.before & bit(signal) == 0 {
            mask.take_out(signal);
        }
    }
    KEPT.set(Kept { readers: [0; SIGNALS as usize], before: 0 });
}

/// Checks that no other thread of this process can take one of the signals. Otherwise the error has the number of threads. The
/// kernel gives a signal to any thread that does not block it.
pub(crate) fn are_held_back_elsewhere(set: Set) -> Result<std::result::Result<(), usize>> {
    let Err(threads) = Permit::alone()? else { return Ok(Ok(())) };
    let tasks = std::fs::read_dir("/proc/self/task").map_err(super::from_io)?;
    let own = gettid().as_raw_nonzero().get().to_string();
    for task in tasks {
        let task = task.map_err(super::from_io)?;
        if task.file_name().to_str() == Some(&own) {
            continue;
        }
        // One that leaves meanwhile takes no signal.
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let held_back = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0);
        if held_back & set.0 != set.0 {
            return Ok(Err(threads));
        }
    }
    Ok(Ok(()))
}

/// A descriptor that the signals can be read from, by the process that reads. No other process shares it, so `O_NONBLOCK` is
/// in nobody's way.
pub(crate) fn open(set: Set) -> Result<OwnedFd> {
    let set = set.to_libc();
    // SAFETY: a valid set.
    match unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
        -1 => Err(errno()),
        // SAFETY: the kernel just made it, so nobody else owns it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// The number of the next signal, or `EAGAIN`.
pub(crate) fn read(fd: BorrowedFd<'_>) -> Result<i32> {
    // `signalfd_siginfo` begins with the number, and has that size on every architecture.
    let mut details = [0_u8; 128];
    match retry(|| rustix::io::read(fd.as_fd(), &mut details))? {
        0..4 => Err(Errno::AGAIN),
        _ => {
            let [a, b, c, d, ..] = details;
            Ok(i32::from_ne_bytes([a, b, c, d]))
        }
    }
}
