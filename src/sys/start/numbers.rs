//! The numbers that descriptors have in the program, the order of the moves, and the numbers that are closed. As all
//! steps, it allocates nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::FdFlags;

use super::{Failed, Stage};
use crate::sys::descriptor::put;
use crate::sys::{Errno, errno};

/// The numbers that descriptors get.
pub(in crate::sys) struct Numbers {
    pub(super) moves: Vec<Move>,
    /// The numbers that something is moved to, in order.
    pub(super) targets: Vec<RawFd>,
    /// Descriptors that were opened besides, with room for all that may have to be. In a new process it goes when its program runs; a process
    /// that goes on closes it.
    pub(in crate::sys) scratch: Vec<RawFd>,
}

/// A descriptor, and the number that it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) source: RawFd,
    pub(super) target: RawFd,
}

impl Numbers {
    pub(super) fn new(moves: &[(BorrowedFd<'_>, RawFd)]) -> Self {
        let moves: Vec<_> = moves.iter().map(|(fd, target)| Move { source: fd.as_raw_fd(), target: *target }).collect();
        let mut targets: Vec<_> = moves.iter().map(|each| each.target).collect();
        targets.sort_unstable();
        Self { scratch: Vec::with_capacity(2 * moves.len()), moves, targets }
    }

    /// Puts every descriptor at its number, and makes sure that it is open at no other.
    pub(super) fn place(&mut self) -> Result<(), Failed> {
        for i in 0..self.moves.len() {
            let Some(&Move { source, .. }) = self.moves.get(i) else { continue };
            // Another move goes to this number, before this one or after.
            if self.moves.iter().enumerate().any(|(j, other)| j != i && other.target == source) {
                let apart = self.duplicate_apart(source).map_err(Failed::of("fcntl"))?;
                if let Some(each) = self.moves.get_mut(i) {
                    each.source = apart;
                }
            }
        }
        for &Move { source, target } in &self.moves {
            // SAFETY: borrowed for calls that cope with a number that is not open.
            let fd = unsafe { BorrowedFd::borrow_raw(source) };
            if source == target {
                rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(Failed::of("fcntl"))?;
                continue;
            }
            // SAFETY: a new process that runs a program next, or one that keeps what stood there and puts it back if there is none.
            unsafe { put(source, target, FdFlags::empty()) }.map_err(Failed::of("dup2"))?;
        }
        for number in self.left_behind() {
            // SAFETY: as above.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(Failed::of("fcntl"))?;
        }
        Ok(())
    }

    /// The numbers that descriptors were moved from, and that nothing else is moved to. The program is to have none of them.
    /// (The standard three are there anyhow.)
    pub(super) fn left_behind(&self) -> impl Iterator<Item = RawFd> {
        let sources = self.moves.iter().map(|each| each.source);
        sources.filter(|source| *source > 2 && self.targets.binary_search(source).is_err())
    }

    /// A copy at a number that nothing is moved to.
    fn duplicate_apart(&mut self, source: RawFd) -> Result<RawFd, Errno> {
        loop {
            // SAFETY: two numbers.
            let copy = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, 3) };
            if copy < 0 {
                return Err(match errno() {
                    Errno::INVAL => Errno::MFILE,
                    errno => errno,
                });
            }
            // At most one for each move, and one for each number that is passed over: there is room, made before.
            if self.scratch.len() < self.scratch.capacity() {
                self.scratch.push(copy);
            }
            if self.targets.binary_search(&copy).is_err() {
                return Ok(copy);
            }
        }
    }

    pub(super) fn close_others(&self, spared: [RawFd; 2], stage: Stage) -> Result<(), Errno> {
        const CLOSE_RANGE_CLOEXEC: u32 = 4;
        match self.each_gap(|first, last| close_range(first, last, CLOSE_RANGE_CLOEXEC)) {
            // The same, where the descriptors have owners, who keep them if there is no program.
            Err(Errno::INVAL) if stage != Stage::New => self.mark_others(),
            // Linux 5.10. Descriptors that are still needed here are spared.
            Err(Errno::INVAL) => self.each_gap(|first, last| {
                let mut first = first;
                for spared in in_order(spared) {
                    if (first..=last).contains(&spared) {
                        if spared > first {
                            close_range(first, spared - 1, 0)?;
                        }
                        first = spared.saturating_add(1);
                    }
                }
                if first <= last { close_range(first, last, 0) } else { Ok(()) }
            }),
            done => done,
        }
    }

    /// Marks one after the other to be closed. For a process with a single thread, which may allocate.
    fn mark_others(&self) -> Result<(), Errno> {
        let open = std::fs::read_dir("/proc/self/fd").map_err(crate::sys::from_io)?;
        for entry in open {
            let name = entry.map_err(crate::sys::from_io)?.file_name();
            let number: Option<RawFd> = name.to_str().and_then(|digits| digits.parse().ok());
            if let Some(number) = number.filter(|number| *number > 2 && self.targets.binary_search(number).is_err()) {
                // SAFETY: borrowed for one call. It is open: nobody else is here to close it.
                rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
            }
        }
        Ok(())
    }

    /// The numbers from 3 on that nothing was moved to.
    fn each_gap(&self, close: impl Fn(u32, u32) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut first = 3;
        for &target in self.targets.iter().filter(|target| **target > 2) {
            let target = target.unsigned_abs();
            if target > first {
                close(first, target - 1)?;
            }
            first = target + 1;
        }
        close(first, LAST)
    }
}

/// No descriptor has a higher number, and gVisor refuses one here.
const LAST: u32 = i32::MAX as u32;

/// Those of two that are descriptors, the lower one first.
fn in_order([one, two]: [RawFd; 2]) -> impl Iterator<Item = u32> {
    [one.min(two), one.max(two)].into_iter().filter(|number| *number >= 0).map(i32::unsigned_abs)
}

/// The same descriptor, or a copy, at a number above 2 that is not in the list.
pub(in crate::sys) fn apart_from(mut fd: OwnedFd, sorted: &[RawFd]) -> Result<OwnedFd, Errno> {
    let mut passed = Vec::new();
    while fd.as_raw_fd() <= 2 || sorted.binary_search(&fd.as_raw_fd()).is_ok() {
        let next = crate::sys::descriptor::duplicate(fd.as_fd())?;
        passed.push(std::mem::replace(&mut fd, next));
    }
    Ok(fd)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: numbers. The new process has a table of descriptors of its own. Otherwise they only become close-on-exec, as the
    // caller of `exec` asked.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}
