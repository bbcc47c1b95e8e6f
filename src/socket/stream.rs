//! Bytes between two processes, both ways.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::SocketType;

use super::{Credentials, Loss};
use crate::end::{End, FromFdError, end_traits};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::wait::{Patience, Spin, TimedRead, TimedWrite, Until};

/// Two connected ends for bytes, as [`stream_pair`] makes them. Both ends are alike: the names say who keeps which.
#[derive(Debug)]
pub struct StreamPair {
    /// For the process that makes the pair.
    pub parent: StreamSocket,
    /// For the other one.
    pub child: StreamSocket,
}

/// Makes a pair of connected sockets for bytes, both ways. Never blocks.
///
/// Each direction is a stream of its own, with what a [`pipe`](crate::pipe()) says of reading and writing: what is written
/// is read in order, without the borders of the writes; reading blocks while there is nothing and the peer is open; when it
/// is closed, in every process, what it sent can be read, and then every read is `Ok(0)`.
///
/// The classic way to hang is that both sides write a lot before they read: each waits for the other to make room. Where
/// what is passed are messages, a [`datagram_pair`](crate::datagram_pair()) keeps them apart.
///
/// Both ends are close-on-exec, and after a [`fork`](crate::fork()) open only in the process that they were given to.
///
/// # Errors
///
/// [`Error::System`] if the process or the system has no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// socketpair(2) with `SOCK_STREAM`.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
///
/// let mut pair = ipc::stream_pair()?;
/// let child = ipc::fork(pair.child, |mut socket| -> std::io::Result<()> {
///     let mut text = String::new();
///     socket.read_to_string(&mut text)?;
///     socket.write_all(text.to_uppercase().as_bytes())
/// })?;
///
/// pair.parent.write_all(b"louder")?;
/// pair.parent.shutdown(Shutdown::Write)?; // that was all
/// assert_eq!(std::io::read_to_string(&mut pair.parent)?, "LOUDER");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn stream_pair() -> Result<StreamPair> {
    let (parent, child) = sys::socket::pair(SocketType::STREAM).map_err(|errno| Error::system("socketpair", errno))?;
    Ok(StreamPair { parent: StreamSocket::new(End::new(parent)?), child: StreamSocket::new(End::new(child)?) })
}

/// One end of a [`stream_pair`]: reads and writes bytes.
///
/// [`Read`] blocks until there is something to read or the peer is gone; [`Write`] blocks while the peer's buffer is full,
/// and fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the peer is gone; `SIGPIPE` is never raised. Both are
/// implemented for `&StreamSocket` too, so that one thread or process can read while another writes. A long write is
/// several system calls, of 32 KiB each.
///
/// A peer that went away without reading everything is [`Error::Reset`], said once, to a reader, after all that it sent.
///
/// A plain read throws away ends that were sent along: see [`recv_with`](Self::recv_with).
pub struct StreamSocket {
    pub(super) end: End,
    spin: Spin,
    loss: Loss,
}

end_traits!(StreamSocket);

/// So much goes in one system call. The kernel puts a longer write into the queue in pieces, and an error between two of them,
/// which it tells once, is lost behind the count.
pub(crate) const PIECE: usize = 32 << 10;

impl StreamSocket {
    fn new(end: End) -> Self {
        Self { end, spin: Spin::default(), loss: Loss::default() }
    }

    fn adopt(fd: OwnedFd) -> Self {
        Self::new(End::adopt(fd))
    }

    /// Reads what is there, without blocking. `Ok(0)`: the end of the stream.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: there is nothing, and the peer is open.
    /// - [`Error::Reset`]: the peer went away with bytes of ours unread.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// recv(2) with `MSG_DONTWAIT`. `O_NONBLOCK` is not touched.
    pub fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_with(buf, Patience::None)
    }

    /// Blocks until there is something to read, the stream ends (`Ok(0)`), or the time is up.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was read; and as [`try_read`](Self::try_read).
    pub fn read_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<usize> {
        self.read_with(buf, Patience::timeout(timeout))
    }

    fn read_with(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.arrive(patience, |fd, wait| sys::socket::read(fd, buf, wait))
    }

    pub(super) fn arrive(
        &self,
        patience: Patience,
        mut read: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<usize>,
    ) -> Result<usize> {
        let fd = self.end.as_fd();
        self.loss.receiving(
            |len| *len == 0,
            || patience.persist(&self.end, &self.spin, "recv", POLLIN, None, |wait| read(fd, wait)),
        )
    }

    /// Writes what there is room for, without blocking, and says how much that was.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: there is no room.
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// send(2) with `MSG_DONTWAIT` and `MSG_NOSIGNAL`. `O_NONBLOCK` is not touched.
    pub fn try_write(&self, buf: &[u8]) -> Result<usize> {
        self.write_with(buf, Patience::None)
    }

    /// Blocks until there is room or the time is up, and writes what there is room for then: it returns at the first
    /// progress, with how much went in.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was written; and as [`try_write`](Self::try_write).
    pub fn write_timeout(&self, buf: &[u8], timeout: Duration) -> Result<usize> {
        self.write_with(buf, Patience::timeout(timeout))
    }

    /// In pieces, and stops where one does not go whole.
    pub(crate) fn write_with(&self, buf: &[u8], patience: Patience) -> Result<usize> {
        let mut written = 0;
        for piece in buf.chunks(PIECE) {
            // What is not to wait for all of it returns at the first progress.
            let patience =
                if written > 0 && !matches!(patience, Patience::Blocking) { Patience::None } else { patience };
            match self.deliver(patience, |fd, wait| sys::socket::write(fd, piece, wait)) {
                Ok(count) => {
                    written += count;
                    if count < piece.len() {
                        break;
                    }
                }
                Err(error) if written == 0 => return Err(error),
                Err(_) => break, // the next call is told, if it still is so
            }
        }
        Ok(written)
    }

    pub(super) fn deliver(
        &self,
        patience: Patience,
        mut write: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<usize>,
    ) -> Result<usize> {
        let fd = self.end.as_fd();
        self.loss.sending(|| patience.persist(&self.end, &self.spin, "send", POLLOUT, None, |wait| write(fd, wait)))
    }

    /// The process that made the pair, with its user and group. Never blocks.
    ///
    /// What that means is said at [`DatagramSocket::peer_credentials`](crate::DatagramSocket::peer_credentials).
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    pub fn peer_credentials(&self) -> Result<Credentials> {
        super::peer_credentials(&self.end)
    }

    /// Ends one direction, or both, for all that hold this end. Never blocks.
    ///
    /// After [`Shutdown::Write`] the peer reads what was written, and then the end of the stream; after [`Shutdown::Read`] its
    /// writes fail with [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        super::shutdown(&self.end, how)
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; zero, as at first: not at all.
    ///
    /// What it does and costs is said at [`PipeReader::set_spin`](crate::PipeReader::set_spin).
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// A second end of the same side, in this process. Never blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { end: self.end.try_clone()?, spin: self.spin.clone(), loss: self.loss.clone() })
    }

    /// Closes the end, and says what the kernel said. Never blocks. Dropping closes too.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if somebody else closed the number.
    pub fn close(self) -> Result<()> {
        self.end.close()
    }
}

/// Blocks until there is something to read, or the stream ends. See [`StreamSocket`].
impl Read for StreamSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// Blocks until there is something to read, or the stream ends. See [`StreamSocket`].
impl Read for &StreamSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(buf, Patience::Blocking).map_err(Error::into_io)
    }

    /// More than 1024 slices are read as the first 1024.
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        let bufs = &mut bufs[which];
        self.arrive(Patience::Blocking, |fd, wait| sys::socket::read_vectored(fd, bufs, wait)).map_err(Error::into_io)
    }
}

/// Blocks while the peer's buffer is full. See [`StreamSocket`].
impl Write for StreamSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks while the peer's buffer is full. See [`StreamSocket`].
impl Write for &StreamSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(buf, Patience::Blocking).map_err(Error::into_io)
    }

    /// Writes as many leading slices as have 32 KiB together, or the first; at most 1024 of them.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        let bufs = &bufs[which];
        match sys::leading(bufs, PIECE) {
            0 | 1 => self.write(&bufs[0]),
            count => self
                .deliver(Patience::Blocking, |fd, wait| sys::socket::write_vectored(fd, &bufs[..count], wait))
                .map_err(Error::into_io),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TryFrom<OwnedFd> for StreamSocket {
    type Error = FromFdError;

    /// Takes the descriptor over, if it is a unix socket for a stream, with a peer; close-on-exec is set. Otherwise the error
    /// gives it back.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        match super::check(fd.as_fd(), "a connected unix socket for a stream", &[SocketType::STREAM]) {
            Ok(()) => Ok(Self::adopt(fd)),
            Err(error) => Err(FromFdError { fd, error }),
        }
    }
}

impl From<UnixStream> for StreamSocket {
    fn from(stream: UnixStream) -> Self {
        Self::adopt(stream.into())
    }
}

impl From<StreamSocket> for UnixStream {
    fn from(socket: StreamSocket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl TimedRead for StreamSocket {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        self.read_with(buf, until.0)
    }
}

impl TimedRead for &StreamSocket {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        self.read_with(buf, until.0)
    }
}

impl TimedWrite for StreamSocket {
    fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
        self.write_with(buf, until.0)
    }
}

impl TimedWrite for &StreamSocket {
    fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
        self.write_with(buf, until.0)
    }
}
