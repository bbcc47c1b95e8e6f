//! `ppoll(2)` with what is left of the time.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

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

/// Whether that number is a pipe's writer in this process, with that inode, and the pipe has no reader.
pub(crate) fn is_without_reader(number: RawFd, inode: u64) -> bool {
    // SAFETY: borrowed for calls that cope with a number that is not open, or is somebody else's by now.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let is_the_pipe = || rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == inode);
    is_the_pipe() && look(fd, 0).is_ok_and(|events| events & POLLERR != 0) && is_the_pipe()
}
