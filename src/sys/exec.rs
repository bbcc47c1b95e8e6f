//! Becoming another program: the steps of a start, in this process, and the way back where they fail.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;

use super::descriptor::{duplicate, put};
use super::signal::{Actions, KernelMask};
use super::start::{Failed, Plan, Stage, Steps, apart_from};
use super::{Errno, Result};

/// Becomes the program. Returns only if that does not work: then this process has its descriptors, directory, `umask` and
/// signals as before. Among threads, nothing may be moved and nothing changed.
pub(crate) fn exec(plan: Plan<'_>, stage: Stage) -> Failed {
    match try_exec(plan, stage) {
        Ok(failed) | Err(failed) => failed,
    }
}

fn try_exec(plan: Plan<'_>, stage: Stage) -> std::result::Result<Failed, Failed> {
    let mut before = Before {
        numbers: Vec::new(),
        directory: None,
        umask: None,
        actions: Actions::save(stage == Stage::AmongThreads),
        mask: KernelMask::block_all(),
    };
    // From here on, an early return puts everything back.
    before.save(&plan)?;
    let mut steps = Steps::new(plan, stage)?;
    let failed = steps.run();
    for number in steps.numbers.scratch.drain(..) {
        // SAFETY: the steps opened it for themselves. One that something was moved over is put back below.
        unsafe { libc::close(number) };
    }
    drop(before);
    Ok(failed)
}

/// This process as it was; put back when dropped.
struct Before {
    /// Each number that changes.
    numbers: Vec<(RawFd, Stood)>,
    directory: Option<OwnedFd>,
    umask: Option<Mode>,
    actions: Actions,
    mask: KernelMask,
}

/// The descriptor that a number stood for.
enum Stood {
    Nothing,
    /// A copy of it, and whether it was close-on-exec.
    For(OwnedFd, FdFlags),
    /// The descriptor that it still stands for, which was perhaps not close-on-exec.
    Same(FdFlags),
}

impl Before {
    fn save(&mut self, plan: &Plan<'_>) -> std::result::Result<(), Failed> {
        if plan.directory.is_some() {
            let here = rustix::fs::openat(CWD, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            self.directory = Some(here.map_err(Failed::of("open"))?);
        }
        if plan.options.umask.is_some() {
            let mask = rustix::process::umask(Mode::empty());
            rustix::process::umask(mask);
            self.umask = Some(mask);
        }
        let mut targets: Vec<_> = plan.moves.iter().map(|(_, target)| *target).collect();
        targets.sort_unstable();
        let limits = plan.options.limits.iter().filter(|(which, ..)| *which == libc::RLIMIT_NOFILE as i32);
        if let (Some(last), Some(limit)) = (targets.last(), limits.map(|(_, soft, _)| *soft).min()) {
            // The descriptor that was there could not be put back under that limit.
            if u64::from(last.unsigned_abs()) >= limit {
                return Err(Failed { call: "dup2", errno: Errno::BADF });
            }
        }
        for &target in &targets {
            self.numbers.push((target, what_is_at(target, &targets).map_err(Failed::of("fcntl"))?));
        }
        for (source, _) in plan.moves {
            let number = source.as_raw_fd();
            if targets.binary_search(&number).is_err() {
                let flags = rustix::io::fcntl_getfd(source).map_err(Failed::of("fcntl"))?;
                self.numbers.push((number, Stood::Same(flags)));
            }
        }
        Ok(())
    }
}

/// A copy of what a number stands for, at one that nothing is moved to.
fn what_is_at(number: RawFd, targets: &[RawFd]) -> Result<Stood> {
    // SAFETY: borrowed for two calls that cope with a number that is not open.
    let there = unsafe { BorrowedFd::borrow_raw(number) };
    match rustix::io::fcntl_getfd(there) {
        Ok(flags) => Ok(Stood::For(apart_from(duplicate(there)?, targets)?, flags)),
        Err(_) => Ok(Stood::Nothing),
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        for (number, stood) in self.numbers.drain(..).rev() {
            match stood {
                // The descriptor from before is put back by the same call that displaced it, into a place that exists.
                Stood::For(fd, flags) => {
                    // SAFETY: its owner has had that file there, and gets it back.
                    let _ = unsafe { put(fd.as_raw_fd(), number, flags) };
                }
                Stood::Same(flags) => {
                    // SAFETY: its owner has it open, and lends it as long as the plan.
                    let _ = rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, flags);
                }
                Stood::Nothing => {
                    // SAFETY: there was nothing, and anything that is there now was put there for nobody else.
                    unsafe { libc::close(number) };
                }
            }
        }
        if let Some(directory) = &self.directory {
            let _ = rustix::process::fchdir(directory);
        }
        if let Some(umask) = self.umask {
            rustix::process::umask(umask);
        }
        self.actions.restore();
        self.mask.restore();
    }
}
