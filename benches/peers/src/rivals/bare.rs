//! The system calls, and nothing around them.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::channel::{Receiver, Sender};

use super::Made;

pub const NOTE: &str = "`pipe2`, `read`, `write`; `socketpair` of `SOCK_SEQPACKET`, `send` with `MSG_NOSIGNAL`, `recvmsg` without a \
                        control buffer. The spinning pipe has `O_NONBLOCK` on its readers and reads until there is something.";

/// The end of a pipe.
pub struct End(OwnedFd);

impl Read for End {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: an open descriptor, and a buffer of that length.
        let len = unsafe { libc::read(self.0.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }
}

impl Write for End {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: an open descriptor, and a buffer of that length.
        let len = unsafe { libc::write(self.0.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn pipe() -> Made<End, End> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let (reader, writer) = own(fds);
    Ok((End(reader), End(writer)))
}

/// A pipe that holds a mebibyte, the most that it can without privileges.
pub fn large_pipe() -> Made<End, End> {
    pipe_of(1 << 20)
}

fn pipe_of(capacity: libc::c_int) -> Made<End, End> {
    let (reader, writer) = pipe()?;
    // SAFETY: an open descriptor.
    check(unsafe { libc::fcntl(writer.0.as_raw_fd(), libc::F_SETPIPE_SZ, capacity) })?;
    Ok((reader, writer))
}

/// Writes no more than so much at a time.
pub struct Cut(End, usize);

impl Write for Cut {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(&buf[..buf.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The cuts that were best where they were tried.
pub fn cut_pipe() -> Made<End, Cut> {
    let (reader, writer) = pipe()?;
    Ok((reader, Cut(writer, 8 << 10)))
}

pub fn large_cut_pipe() -> Made<End, Cut> {
    let (reader, writer) = pipe_of(256 << 10)?;
    Ok((reader, Cut(writer, 64 << 10)))
}

/// Reads until there is something.
pub struct Spinning(End);

impl Read for Spinning {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                result => return result,
            }
        }
    }
}

pub fn spinning_pipe() -> Made<Spinning, End> {
    let (reader, writer) = pipe()?;
    // SAFETY: an open descriptor; the reader's file has no other flag.
    check(unsafe { libc::fcntl(reader.0.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((Spinning(reader), writer))
}

/// One of two sockets for messages.
pub struct Seqpacket(pub OwnedFd);

pub fn seqpacket() -> Made<Seqpacket, Seqpacket> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    let (one, other) = own(fds);
    Ok((Seqpacket(one), Seqpacket(other)))
}

impl Sender for Seqpacket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let (buf, len) = (message.as_ptr().cast(), message.len());
        // SAFETY: an open descriptor, and a buffer of that length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), buf, len, libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Receiver for Seqpacket {
    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: zeroed bytes are a valid msghdr, and it points to one buffer of that length.
        let len = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &mut part;
            message.msg_iovlen = 1;
            libc::recvmsg(self.0.as_raw_fd(), &mut message, 0)
        };
        each(&buf[..usize::try_from(len).map_err(|_| io::Error::last_os_error())?]);
        Ok(1)
    }
}

pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own([one, other]: [libc::c_int; 2]) -> (OwnedFd, OwnedFd) {
    // SAFETY: the kernel has just made them, for nobody else.
    unsafe { (OwnedFd::from_raw_fd(one), OwnedFd::from_raw_fd(other)) }
}
