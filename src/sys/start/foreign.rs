//! Descriptors for a program that the standard library starts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;

use rustix::io::FdFlags;

use crate::sys::descriptor::put;
use crate::sys::ledger::Entry;
use crate::sys::{Errno, Result};

/// Puts a copy of the descriptor at a number above 2, in every program that the command starts. Until it is dropped, the command
/// has a copy here.
pub(crate) fn give_at(command: &mut std::process::Command, number: RawFd, fd: BorrowedFd<'_>) -> Result<()> {
    // At the number itself if that is free. So the pipe on which std reports a failed start is not there, and stays open.
    let copy = match rustix::io::fcntl_dupfd_cloexec(fd, number) {
        // The number is over the limit, as dup2 says it.
        Err(Errno::INVAL) => return Err(Errno::BADF),
        copy => copy?,
    };
    // Known to the ledger, so that a fork does not take it along. It is dropped first.
    let held = (Entry::new(copy.as_raw_fd()), copy);
    let place = move || {
        let (_, copy) = &held;
        match copy.as_raw_fd() == number {
            true => rustix::io::fcntl_setfd(copy.as_fd(), FdFlags::empty())?,
            false => put(copy.as_raw_fd(), number, FdFlags::empty())?,
        }
        Ok(())
    };
    // SAFETY: in the new process it makes one system call, which is async-signal-safe, allocates nothing, and takes no lock. The
    // number is the program's to have, and what else stood for it there is this process's own.
    unsafe { command.pre_exec(place) };
    Ok(())
}
