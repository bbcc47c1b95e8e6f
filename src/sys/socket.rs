//! Unix socket pairs: messages with their flags, and what socket options say.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType,
};

use super::poll::{POLLRDHUP, look};
use super::{Errno, Result, empty, errno, retry};

/// The kernel keeps this much of `SO_SNDBUF` for itself (`unix_dgram_sendmsg`).
const OVERHEAD: usize = 32;

/// The kernel builds a message in one piece of at most 4 MiB, less its own head, and 17 pages. Up to here it does so
/// on every configuration; a few KiB further it answers `ENOBUFS`.
pub(crate) const LARGEST: usize = 4160 << 10;

/// From here on a sender cannot put descriptors beside bytes to this socket: it gets `EPERM`. Before Linux 6.16 they arrive.
pub(crate) fn refuse_descriptors(fd: BorrowedFd<'_>) {
    const SO_PASSRIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 92 } else { 83 };
    let on: libc::c_int = 0;
    // SAFETY: the option's value is an int, and the length says so. A kernel that does not know the option says so too.
    unsafe {
        let len = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const on).cast(), len);
    }
}

/// A connected pair, close-on-exec.
pub(crate) fn pair(kind: SocketType) -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

/// Receives one message into `buf`, and the bytes that it has no room for into `spill`. `None`: EOF.
///
/// An empty message and EOF both return 0 bytes. With a [`Mark`], the kernel has a control message for every message and no room
/// for it, which it reports as `MSG_CTRUNC`. For EOF it has no control message.
#[inline(always)]
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], spill: &mut [u8], wait: bool) -> Result<Option<usize>> {
    let is_short = buf.len() <= SHORT;
    let mut parts = [IoSliceMut::new(buf), IoSliceMut::new(spill)];
    let arrived = message(fd, &mut parts[is_short.into()..], if wait { 0 } else { libc::MSG_DONTWAIT })?;
    if let Some(len) = arrived.filter(|_| is_short) {
        let fitting = len.min(buf.len());
        buf[..fitting].copy_from_slice(&spill[..fitting]);
        if len > fitting {
            spill.copy_within(fitting..len, 0);
        }
    }
    Ok(arrived)
}

/// Copying up to this many bytes takes less time than a second place to put them takes the kernel.
const SHORT: usize = 512;

/// Copies the beginning of the next message, which stays, and returns how long the message is. `None`: EOF.
pub(crate) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8], wait: bool) -> Result<Option<usize>> {
    let wait = if wait { 0 } else { libc::MSG_DONTWAIT };
    message(fd, &mut [IoSliceMut::new(buf)], wait | libc::MSG_PEEK | libc::MSG_TRUNC)
}

#[inline]
fn message(fd: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>], flags: libc::c_int) -> Result<Option<usize>> {
    let mut message = header(parts.as_mut_ptr().cast(), parts.len());
    // SAFETY: the message points to that many parts, which have the layout of an iovec (`IoSliceMut`). The parts point to memory
    // that is borrowed exclusively for the call.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) };
    let len = usize::try_from(len).map_err(|_| errno())?;
    if len == 0 && (message.msg_flags & libc::MSG_CTRUNC == 0 || empty::are_lost()) {
        return Ok(None);
    }
    if flags & libc::MSG_TRUNC == 0 && message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::MSGSIZE); // larger than any that the kernel builds
    }
    Ok(Some(len))
}

/// A message of that many parts, with no address and nothing beside it.
#[inline(always)]
pub(super) fn header(parts: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: zeroed bytes are a valid msghdr: null pointers and lengths of 0. (It has private padding on some systems.)
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts;
    message.msg_iovlen = count as _;
    message
}

/// An addition that the kernel makes to each message that arrives at a socket, and not to EOF, which tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The security label of its sender. Without room for it, the kernel sets a flag, which takes no time. With room, few systems
    /// have a label to put there.
    Label,
    /// The time, which is there for every receiver, and takes some 100 ns.
    Time,
}

impl Mark {
    fn option(self) -> libc::c_int {
        match self {
            Mark::Label => libc::SO_PASSSEC,
            Mark::Time => libc::SO_TIMESTAMP,
        }
    }

    pub(crate) fn set(self, fd: BorrowedFd<'_>, on: bool) -> Result<()> {
        let on = libc::c_int::from(on);
        let len = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the option's value is an int, and the length says so.
        match unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, self.option(), (&raw const on).cast(), len) }
        {
            0 => Ok(()),
            _ => Err(errno()),
        }
    }

    pub(crate) fn is_set(self, fd: BorrowedFd<'_>) -> Result<bool> {
        let mut on: libc::c_int = 0;
        let mut len = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the option's value is an int, and the length says so.
        match unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, self.option(), (&raw mut on).cast(), &mut len)
        } {
            0 => Ok(on != 0),
            _ => Err(errno()),
        }
    }

    /// The cheapest mark that a receive without room for it sees on this kernel. It is tried once, on a new pair that nobody else
    /// has.
    pub(crate) fn cheapest(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<Mark> {
        // No lock: a child that was forked while a thread held it would wait for ever.
        static IS_LABEL: AtomicU8 = AtomicU8::new(UNKNOWN);
        const UNKNOWN: u8 = 2;
        let is_label = match IS_LABEL.load(Relaxed) {
            UNKNOWN => Self::label_is_seen(one, other)?,
            known => known == u8::from(true),
        };
        IS_LABEL.store(is_label.into(), Relaxed);
        Ok(if is_label { Mark::Label } else { Mark::Time })
    }

    /// Older kernels than Linux 6.4, and those without security modules, have the option or not, and say nothing.
    fn label_is_seen(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool> {
        if Mark::Label.set(one, true).is_err() {
            return Ok(false);
        }
        let seen = match send(other, &[], false) {
            Ok(()) => match retry(|| message(one, &mut [], libc::MSG_DONTWAIT)) {
                Err(Errno::AGAIN) => false, // it did not arrive at all
                arrived => arrived?.is_some(),
            },
            Err(_) => false,
        };
        Mark::Label.set(one, seen)?;
        Ok(seen)
    }
}

/// Returns whether the socket is one that does not report EOF to a call that does not wait: see [`receives_no_more`].
pub(crate) fn is_connectionless(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(sockopt::socket_type(fd)? == SocketType::DGRAM)
}

/// Returns whether the socket was shut down for receiving, so that nothing comes after what is in its queue.
#[cold]
#[inline(never)]
pub(crate) fn receives_no_more(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(look(fd, POLLRDHUP)? & POLLRDHUP != 0)
}

/// Waits until a peer that is leaving has said all of it. The kernel first shuts this socket down, and then notes the loss of what
/// the peer left unread, both under the socket's lock. A receive looks without that lock on newer kernels, such as 6.18, and
/// [getpeername(2)] takes it. Its answer does not matter.
///
/// [getpeername(2)]: https://man7.org/linux/man-pages/man2/getpeername.2.html
#[cold]
pub(crate) fn await_leaving(fd: BorrowedFd<'_>) {
    let _ = rustix::net::getpeername(fd);
}

/// Sends one message whole, or nothing; never raises `SIGPIPE`.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8], wait: bool) -> Result<()> {
    write(fd, message, wait).map(drop)
}

/// The same from several parts, of which there may be at most `IOV_MAX`.
#[inline]
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>], wait: bool) -> Result<()> {
    write_vectored(fd, parts, wait).map(drop)
}

#[inline]
fn send_flags(wait: bool) -> SendFlags {
    if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT }
}

/// Reads what is there of a stream.
#[inline]
pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8], wait: bool) -> Result<usize> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    rustix::net::recv(fd, buf, flags).map(|(len, _)| len)
}

/// The same into several buffers, of which there may be at most `IOV_MAX`.
pub(crate) fn read_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>], wait: bool) -> Result<usize> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let mut nothing_else = RecvAncillaryBuffer::default();
    rustix::net::recvmsg(fd, bufs, &mut nothing_else, flags).map(|received| received.bytes)
}

/// Writes what there is room for to a stream; never raises `SIGPIPE`.
#[inline]
pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8], wait: bool) -> Result<usize> {
    rustix::net::send(fd, buf, send_flags(wait))
}

/// The same from several buffers, of which there may be at most `IOV_MAX`.
pub(crate) fn write_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], wait: bool) -> Result<usize> {
    rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), send_flags(wait))
}

/// The longest message that the socket sends.
pub(crate) fn max_message(fd: BorrowedFd<'_>) -> Result<usize> {
    let buffer = sockopt::socket_send_buffer_size(fd)?;
    Ok(buffer.saturating_sub(OVERHEAD).min(LARGEST))
}

/// Makes room for messages of that length, as far as this process may.
pub(crate) fn set_max_message(fd: BorrowedFd<'_>, bytes: usize) -> Result<()> {
    // The kernel doubles what it is given.
    let buffer = (bytes.min(LARGEST) + OVERHEAD).div_ceil(2);
    match sockopt::set_socket_send_buffer_size_force(fd, buffer) {
        Err(Errno::PERM) => sockopt::set_socket_send_buffer_size(fd, buffer), // up to wmem_max
        done => done,
    }
}

/// Lets twice as much wait at the peer as is usual, as far as any process may, and never less.
#[cfg(feature = "channel")]
pub(crate) fn lengthen_queue(fd: BorrowedFd<'_>) -> Result<()> {
    // The kernel allows this to everybody by default (`net.core.wmem_max`), and doubles it.
    const MOST: usize = 208 << 10;
    if sockopt::socket_send_buffer_size(fd)? >= 2 * MOST {
        return Ok(());
    }
    sockopt::set_socket_send_buffer_size(fd, MOST)
}

/// Returns the process, user and group that made the pair.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> Result<(u32, u32, u32)> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option's value is a ucred, and the length says how large it is.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut credentials).cast(), &mut len)
    };
    if result < 0 {
        return Err(errno());
    }
    Ok((credentials.pid as u32, credentials.uid, credentials.gid))
}
