//! `ppoll(2)` with what is left of the time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::descriptor::{is_open, is_the_same};
use super::{Result, errno, retry};

pub(crate) use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, pollfd};

/// Looks at all of `fds` once, and waits for one of them for at most `timeout` (`None`: for ever). Says how many have
/// something to report. May return `EINTR`.
pub(crate) fn poll(fds: &mut [pollfd], timeout: Option<Duration>) -> Result<usize> {
    let timeout = timeout.map(|left| libc::timespec {
        // A time that is too long for the type becomes 68 years, which fit any width.
        tv_sec: left.as_secs().try_into().unwrap_or(i32::MAX.into()),
        // Less than 1e9, which fits any width.
        tv_nsec: left.subsec_nanos() as _,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the slice is valid for its length, and the timeout is null or points to a live timespec. A null mask leaves the
    // signal mask alone.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, std::ptr::null()) };
    if ready < 0 { Err(errno()) } else { Ok(ready as usize) }
}

/// The state of one descriptor now: of `events`, and of those that poll always reports.
pub(crate) fn look(fd: BorrowedFd<'_>, events: i16) -> Result<i16> {
    let mut fds = [pollfd { fd: fd.as_raw_fd(), events, revents: 0 }];
    retry(|| poll(&mut fds, Some(Duration::ZERO)))?;
    Ok(fds[0].revents)
}

/// Returns whether the pipe with that device and inode has no reader, by its writer under that number in this process or
/// another one. `None`: the number is no such writer (any more), or may not be looked at; or 0, 1 or 2 is
/// free here.
///
/// The kernel counts readers that no process shows: in a message, or in a process that is hidden.
pub(crate) fn is_without_reader(process: Option<Pid>, number: RawFd, (device, inode): (u64, u64)) -> Option<bool> {
    let copy = match process {
        // The copy would be at one of them for a moment, and get what another thread prints.
        Some(_) if !(0..=2).all(is_open) => return None,
        Some(pid) => {
            let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            Some(pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?)
        }
        None => None,
    };
    // SAFETY: borrowed for calls that cope with a number that is not open, or is somebody else's by now.
    let own = || unsafe { BorrowedFd::borrow_raw(number) };
    let fd = copy.as_ref().map_or_else(own, AsFd::as_fd);
    if !is_the_same(fd, device, inode) {
        return None;
    }
    let events = look(fd, 0).ok()?;
    is_the_same(fd, device, inode).then_some(events & POLLERR != 0)
}
