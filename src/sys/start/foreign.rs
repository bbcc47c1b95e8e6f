//! Descriptors for a program that the standard library starts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use rustix::io::FdFlags;

use crate::sys::descriptor::{identity, is_open, put};
use crate::sys::ledger::{self, Entry};
use crate::sys::{Errno, Result, process};

/// A copy of a descriptor for such a program. The fields are dropped in their order: the entry goes before the descriptor is closed.
pub(crate) struct Foreign {
    /// The entry of an end, so that a fork does not take it along.
    entry: Option<Entry>,
    copy: OwnedFd,
}

impl Foreign {
    /// At the number itself if that is free. So the pipe on which std reports a failed start is not there, and stays open.
    pub(crate) fn new(fd: BorrowedFd<'_>, number: RawFd) -> Result<Self> {
        let copy = match rustix::io::fcntl_dupfd_cloexec(fd, number) {
            // The number is over the limit, as dup2 says it.
            Err(Errno::INVAL) => return Err(Errno::BADF),
            copy => copy?,
        };
        let entry = ledger::is_live(fd.as_raw_fd()).then(|| Entry::new(copy.as_raw_fd()));
        Ok(Self { entry, copy })
    }

    /// Puts it at a number above 2, in every program that the command starts. Until it is dropped, the command has the copy here.
    pub(crate) fn give(self, command: &mut std::process::Command, number: RawFd) {
        let held = self.at(number);
        let known = [identity(number), identity(held.copy.as_raw_fd())];
        process::keep_own();
        // SAFETY: in the new process it makes a few system calls that are async-signal-safe, allocates nothing, and takes no lock.
        // Where the process is not new, it does nothing.
        unsafe { command.pre_exec(move || Ok(held.place(number, known)?)) };
    }

    /// The number may be free by now: it was that of the end which was given.
    fn at(self, number: RawFd) -> Self {
        if self.copy.as_raw_fd() == number {
            return self;
        }
        let again = Self::new(self.copy.as_fd(), number).ok();
        again.filter(|again| again.copy.as_raw_fd() == number).unwrap_or(self)
    }

    /// In the new process.
    fn place(&self, number: RawFd, known: [Option<(u64, u64)>; 2]) -> Result<()> {
        // `CommandExt::exec`: the descriptor at the number has an owner, who goes on if there is no program.
        if process::is_kept() {
            return Err(Errno::OPNOTSUPP);
        }
        let copy = self.copy.as_raw_fd();
        // A fork has left the command to a child, and the end not.
        if self.entry.is_some() && ledger::is_severed(copy) {
            return Err(Errno::BADF);
        }
        if copy == number {
            return rustix::io::fcntl_setfd(self.copy.as_fd(), FdFlags::empty());
        }
        // A descriptor that came there since may be the pipe on which std reports a failed start.
        let there = identity(number);
        if is_open(number) && (there.is_none() || !known.contains(&there)) {
            return Err(Errno::BUSY);
        }
        // SAFETY: this process is a copy that runs a program next. At the number is nothing, or what was there when the caller asked
        // for it, or the same file.
        unsafe { put(copy, number, FdFlags::empty()) }
    }
}
