//! Descriptors that a tokio runtime watches.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the current runtime watch a descriptor.
///
/// For the ends and the children of this crate alone: each owns one descriptor, answers its number as long as it lives, and
/// lends out nothing that could replace it.
pub(crate) fn watch<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the owner moves into the `AsyncFd`, which drops its registration before it. Until then nobody can close the
    // descriptor: closing, or turning into something else, takes the owner by value. Severing in a forked child replaces it
    // in the child's table alone, where the number stays open.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}
