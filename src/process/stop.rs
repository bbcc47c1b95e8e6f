//! Stopping children: a guard that leaves none running, and how a group is asked to leave.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::child::Child;
use super::held::NAPS;
use crate::error::{Error, Result};
use crate::sys::{self, Errno};
use crate::wait::{Watch, wait_any};

/// A [`Child`] that is killed and waited for when this is dropped: made by [`Child::kill_on_drop`], which has an example.
///
/// A program that leads a group is killed with its group ([`Command::process_group(0)`](crate::Command::process_group),
/// [`new_session`](crate::Command::new_session)).
///
/// Dropping it blocks until the child is gone. After `SIGKILL` that is at once, unless another process traces it. A child that
/// runs as another user by now cannot be killed, and runs on.
#[derive(Debug)]
#[must_use = "dropping it kills the child"]
pub struct KillOnDrop(Option<Child>);

impl KillOnDrop {
    pub(super) fn new(child: Child) -> Self {
        Self(Some(child))
    }

    /// Takes the child out, without killing it.
    ///
    /// # Examples
    ///
    /// ```
    /// let guard = ipc::Command::new("true").spawn()?.kill_on_drop();
    /// let child = guard.release(); // nothing has failed
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
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
                // An error would mean that other code has waited for it.
                let _ = child.wait();
            }
        }
    }
}

/// Asks a child to leave, with the group that it leads, if it was made the leader of one.
pub(crate) fn ask(child: &Child) -> Result<()> {
    if !child.leads_group() {
        return child.terminate();
    }
    match child.signal_group(sys::process::SIGTERM) {
        Err(error) if is_gone(&error) => child.terminate(),
        done => done,
    }
}

/// Returns whether somebody of the group that a child leads goes on. As long as nobody has waited for the child, the group's
/// number is no other group's.
pub(crate) fn group_goes_on(child: &Child) -> bool {
    child.leads_group() && child.untaken().1.is_none() && sys::process::group_goes_on(child.id())
}

/// Blocks until nobody is left in the group that a child leads or the time is up. Does not wait for the child.
pub(super) fn await_group(child: &Child, deadline: Option<Instant>) -> Result<()> {
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    wait_any(&mut [Watch::readable(child)], left())?;
    let [mut nap, longest] = NAPS;
    while left() != Some(Duration::ZERO) && group_goes_on(child) {
        // Nothing becomes ready when the last of them leaves. (A signal may end the nap.)
        let _ = sys::poll::poll(&mut [], Some(left().map_or(nap, |left| left.min(nap))));
        nap = longest.min(nap * 2);
    }
    Ok(())
}

/// Returns whether no process is there to be signalled.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::System { source, .. } if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()))
}
