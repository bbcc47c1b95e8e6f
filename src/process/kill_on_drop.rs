//! A guard that leaves no child running.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use super::child::Child;

/// A [`Child`] that is killed and waited for when this is dropped: made by [`Child::kill_on_drop`].
///
/// A program that leads a group is killed with its group ([`Command::process_group(0)`](crate::Command::process_group),
/// [`new_session`](crate::Command::new_session)).
///
/// Dropping it blocks until the child is gone, which after `SIGKILL` is at once, unless another process traces it. One that
/// runs as another user by now cannot be killed, and runs on.
#[derive(Debug)]
#[must_use = "dropping it kills the child"]
pub struct KillOnDrop(pub(super) Option<Child>);

impl KillOnDrop {
    /// Takes the child out, which is not killed then.
    #[must_use = "dropping the child lets it run on without anybody waiting for it"]
    pub fn release(mut self) -> Child {
        self.0.take().expect(HELD)
    }
}

const HELD: &str = "the child is taken out last of all";

impl Deref for KillOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect(HELD)
    }
}

/// The pidfd: readable when the child has left.
impl AsFd for KillOnDrop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Where this value came along in a fork, the child is the other process's.
        if let Some(child) = self.0.take().filter(Child::is_ours) {
            if child.end().is_ok() {
                // An error would mean that somebody else has waited for it.
                let _ = child.wait();
            }
        }
    }
}
