//! What travels beside the bytes of a message: descriptors, and who sent it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::descriptor::duplicate;
use super::{Errno, Result, errno};

/// The most descriptors that go with one message (unix.7).
pub(crate) const MOST: usize = 253;

/// Room for that many descriptors, one set of credentials, and whatever else a socket that came from elsewhere may ask for,
/// in 8-byte units so that headers are aligned.
const ROOM: usize = {
    // SAFETY: arithmetic on lengths.
    let bytes = unsafe {
        libc::CMSG_SPACE((MOST * size_of::<RawFd>()) as u32) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32)
    };
    (bytes as usize + 512).div_ceil(8)
};

/// The sender as a descriptor, since Linux 6.5.
const SCM_PIDFD: libc::c_int = 4;

/// What the kernel says about the sender of what was sent before anybody asked: no process, and the user and group that
/// stand for those that have no number here (user_namespaces.7).
const NOBODY: (libc::pid_t, libc::uid_t, libc::gid_t) = (0, 65_534, 65_534);

/// What came beside the bytes.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) fds: Vec<OwnedFd>,
    /// Process, user and group of the sender, where the socket asks for them.
    pub(crate) sender: Option<(u32, u32, u32)>,
    /// Descriptors were sent that could not be installed.
    pub(crate) lost: bool,
}

/// Sends bytes and descriptors with one call, which never raises `SIGPIPE`. Says how many bytes went.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], wait: bool) -> Result<usize> {
    if fds.len() > MOST {
        return Err(Errno::INVAL);
    }
    let mut control = [0_u64; ROOM];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = header(&mut part);
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer is zeroed, aligned, and has room for MOST descriptors, so that the first header and its
        // data lie inside it. The data are plain integers.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(len) as _;
            let first = libc::CMSG_FIRSTHDR(&message);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(first), len as usize);
        }
    }
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the message points to one part, whose bytes are only read, and to the control buffer or to none.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) };
    usize::try_from(sent).map_err(|_| errno())
}

/// Receives bytes, with all that came beside them; the descriptors are close-on-exec and owned. `None`: the end.
///
/// On a socket that keeps messages apart, messages have to be marked: then one has credentials or the time beside it, and
/// the end has nothing. On a stream, 0 bytes are the end, unless `buf` is empty.
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], wait: bool) -> Result<Option<(usize, Beside)>> {
    let mut control = [MaybeUninit::<u64>::uninit(); ROOM];
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut message = header(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the message points to one part, borrowed exclusively, and to a control buffer of that length.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) };
    let len = usize::try_from(len).map_err(|_| errno())?;
    // SAFETY: the kernel has just filled the control buffer of this message, which is still there.
    let beside = unsafe { open(&message) };
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::MSGSIZE); // larger than any that the kernel builds
    }
    let end = len == 0 && message.msg_controllen == 0 && !beside.lost;
    Ok(if end { None } else { Some((len, beside)) })
}

fn header(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: zeroed bytes are a valid msghdr: null pointers and lengths of 0. (It has private padding on some systems.)
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Takes everything out of a received message. What it does not know, it passes over.
///
/// # Safety
///
/// The message must be as recvmsg left it, and be opened once: the descriptors in it get their owner here.
unsafe fn open(message: &libc::msghdr) -> Beside {
    let mut beside = Beside { lost: message.msg_flags & libc::MSG_CTRUNC != 0, ..Beside::default() };
    // SAFETY: recvmsg set the length of the control data, and these step through it and stay inside.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: not null, so it points to a header inside the control data.
    while let Some(head) = unsafe { next.as_ref() } {
        // SAFETY: the kernel wrote the header, and `cmsg_len` bytes from it on; data may be unaligned.
        unsafe {
            let data = libc::CMSG_DATA(head);
            let len = head.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for i in 0..len / size_of::<RawFd>() {
                        let raw = data.cast::<RawFd>().add(i).read_unaligned();
                        beside.fds.push(off_stdio(OwnedFd::from_raw_fd(raw)));
                    }
                }
                // A socket that came from elsewhere may ask for this. Nobody here does, so it is closed.
                (libc::SOL_SOCKET, SCM_PIDFD) if len >= size_of::<RawFd>() => {
                    let raw = data.cast::<RawFd>().read_unaligned();
                    if raw >= 0 {
                        drop(OwnedFd::from_raw_fd(raw));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                    let sender = data.cast::<libc::ucred>().read_unaligned();
                    let known = (sender.pid, sender.uid, sender.gid) != NOBODY;
                    beside.sender = known.then_some((sender.pid as u32, sender.uid, sender.gid));
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(message, head);
        }
    }
    beside
}

/// The kernel installs a descriptor at the lowest number that is free. 0, 1 and 2 are left free, as long as there is
/// another place.
fn off_stdio(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() > 2 {
        return fd;
    }
    duplicate(fd.as_fd()).unwrap_or(fd)
}
