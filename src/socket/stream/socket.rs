//! One end of a pair for bytes: everything that a user can do with it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::SocketType;

use super::PIECE;
#[cfg(doc)]
use super::StreamPair;
use crate::end::{End, Ends, FromFdError, end_traits};
use crate::error::{Error, Result};
use crate::socket::received::{Received, SendError};
use crate::socket::{self, Credentials, loss::Loss};
use crate::sys;
use crate::wait::{Patience, Spin, TimedRead, TimedWrite, Until};

/// One end of a [`stream_pair`](crate::stream_pair()): reads and writes bytes.
///
/// [`Read`] blocks until there is something to read or the peer is gone. [`Write`] blocks while the peer's buffer is full, and
/// fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the peer is gone. `SIGPIPE` is never raised. A long write is
/// several system calls, of 16 KiB each.
///
/// A peer that went away without reading everything is [`Error::Reset`], reported once, to a reader, after all that it sent.
///
/// A plain read throws away ends that were sent along: see [`recv_with`](Self::recv_with).
///
/// # Reading and writing at once
///
/// [`Read`] and [`Write`] are implemented for `&StreamSocket` too, so a socket need not be split. Two threads share a
/// reference, and two values are two clones. [`shutdown`](Self::shutdown) ends one direction.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
///
/// let (ours, theirs) = ipc::stream_pair()?.into();
/// let (mut reader, mut writer) = (ours.try_clone()?, ours);
/// writer.write_all(b"question")?;
/// writer.shutdown(Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(&theirs)?, "question");
///
/// (&theirs).write_all(b"answer")?;
/// drop(theirs);
/// let mut answer = String::new();
/// reader.read_to_string(&mut answer)?;
/// assert_eq!(answer, "answer");
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct StreamSocket {
    pub(crate) end: End,
    pub(super) spin: Spin,
    pub(super) loss: Loss,
}

end_traits!(StreamSocket);

impl StreamSocket {
    pub(super) fn new(end: End) -> Self {
        Self { end, spin: Spin::default(), loss: Loss::default() }
    }

    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    fn adopt(fd: OwnedFd) -> Self {
        sys::empty::ask();
        Self::new(End::adopt(fd))
    }

    /// Reads the bytes that are there, without blocking. `Ok(0)` is EOF. See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: there are no bytes, and the peer is open.
    /// - [`Error::Reset`]: the peer went away with bytes of ours unread. Where two processes hold this end, the kernel tells
    ///   one of them.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// [recv(2)](https://man7.org/linux/man-pages/man2/recv.2.html) with `MSG_DONTWAIT`. `O_NONBLOCK` is not touched.
    #[doc(alias = "recv")]
    pub fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_with(buf, Patience::None)
    }

    /// Blocks until there is something to read, EOF (`Ok(0)`), or the time is up. See [`StreamPair`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was read; and as [`try_read`](Self::try_read).
    pub fn read_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<usize> {
        self.read_with(buf, Patience::timeout(timeout))
    }

    /// Writes as many bytes as there is room for, without blocking, and returns their number. See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: there is no room.
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// [send(2)](https://man7.org/linux/man-pages/man2/send.2.html) with `MSG_DONTWAIT` and `MSG_NOSIGNAL`. `O_NONBLOCK` is
    /// not touched.
    #[doc(alias = "send")]
    pub fn try_write(&self, buf: &[u8]) -> Result<usize> {
        self.write_with(buf, Patience::None)
    }

    /// Blocks until there is room or the time is up, writes as many bytes as fit, and returns their number. See [`StreamPair`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was written; and as [`try_write`](Self::try_write).
    pub fn write_timeout(&self, buf: &[u8], timeout: Duration) -> Result<usize> {
        self.write_with(buf, Patience::timeout(timeout))
    }

    /// Blocks until there is room, and writes bytes with ends, which go with the first byte. Returns how many bytes went.
    ///
    /// The peer gets the ends with [`recv_with`](Self::recv_with), when it reads that byte. Here they are closed.
    ///
    /// # Errors
    ///
    /// The error gives the ends back, nothing was sent, and `?` turns it into [`Error`]:
    ///
    /// - [`Error::TooLong`]: more than 253 ends.
    /// - [`Error::NotGiven`]: this process was not given one of the ends, or the socket.
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::System`]: no bytes, with which the kernel would lose the ends without an error (`EINVAL`); too many ends
    ///   of this user are under way (`ETOOMANYREFS`).
    ///
    /// # Platform
    ///
    /// [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html) with `SCM_RIGHTS`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let (reader, _writer) = ipc::pipe()?;
    /// pair.parent.send_with(b"take this", reader)?;
    ///
    /// let mut buf = [0; 64];
    /// let (len, mut received) = pair.child.recv_with(&mut buf)?;
    /// assert_eq!(&buf[..len], b"take this");
    /// let _reader: ipc::PipeReader = received.take()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "SCM_RIGHTS")]
    #[doc(alias = "sendmsg")]
    pub fn send_with<E: Ends>(&self, bytes: &[u8], ends: E) -> Result<usize, SendError<E>> {
        self.send_ends(bytes, ends, Patience::Blocking)
    }

    /// Writes bytes with ends, without blocking; otherwise the same as [`send_with`](Self::send_with). See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no room; and as [`send_with`](Self::send_with).
    pub fn try_send_with<E: Ends>(&self, bytes: &[u8], ends: E) -> Result<usize, SendError<E>> {
        self.send_ends(bytes, ends, Patience::None)
    }

    /// Blocks until there is room or the time is up, and writes bytes with ends; otherwise the same as
    /// [`send_with`](Self::send_with). See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send_with`](Self::send_with).
    pub fn send_with_timeout<E: Ends>(&self, bytes: &[u8], ends: E, timeout: Duration) -> Result<usize, SendError<E>> {
        self.send_ends(bytes, ends, Patience::timeout(timeout))
    }

    /// Blocks until there is something to read, and reads it, with the ends that came with it. 0 bytes: EOF, or an empty `buf`. See
    /// [`send_with`](Self::send_with) for an example.
    ///
    /// A read stops after the bytes that were sent with ends, so that ends are never mixed up with later bytes or ends.
    /// Earlier bytes may come in the same read.
    ///
    /// # Errors
    ///
    /// - [`Error::EndsLost`]: not all ends could be installed, because no descriptors are left. The error has those that did
    ///   arrive, and the number of bytes in `buf` ([`Received::message_len`]).
    /// - Same as [`try_read`](Self::try_read), but never [`Error::WouldBlock`].
    ///
    /// # Platform
    ///
    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html) with `MSG_CMSG_CLOEXEC`.
    #[doc(alias = "recvmsg")]
    pub fn recv_with(&self, buf: &mut [u8]) -> Result<(usize, Received)> {
        self.receive_ends(buf, Patience::Blocking)
    }

    /// Reads with ends, without blocking; otherwise the same as [`recv_with`](Self::recv_with). See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is nothing, and the peer is open; and as [`recv_with`](Self::recv_with).
    pub fn try_recv_with(&self, buf: &mut [u8]) -> Result<(usize, Received)> {
        self.receive_ends(buf, Patience::None)
    }

    /// Blocks until there is something to read or the time is up, and reads it with ends; otherwise the same as
    /// [`recv_with`](Self::recv_with). See [`StreamPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_with`](Self::recv_with).
    pub fn recv_with_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<(usize, Received)> {
        self.receive_ends(buf, Patience::timeout(timeout))
    }

    /// Lets [`Received::sender`] name the sender of the bytes, or not, as at first; otherwise the same as
    /// [`DatagramSocket::set_passcred`](crate::DatagramSocket::set_passcred). Never blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    #[doc(alias = "SO_PASSCRED")]
    pub fn set_passcred(&self, on: bool) -> Result<()> {
        socket::set_passcred(&self.end, on)
    }

    /// Returns the process that made the pair, with its user and group. Never blocks. See [`StreamPair`].
    ///
    /// The same as [`DatagramSocket::peer_credentials`](crate::DatagramSocket::peer_credentials).
    ///
    /// # Errors
    ///
    /// Same as [`set_passcred`](Self::set_passcred).
    #[doc(alias = "SO_PEERCRED")]
    pub fn peer_credentials(&self) -> Result<Credentials> {
        socket::peer_credentials(&self.end)
    }

    /// Ends one direction, or both, for all that hold this end. Never blocks.
    ///
    /// After [`Shutdown::Write`] the peer reads the bytes that were written, and then EOF; after [`Shutdown::Read`] its writes fail with
    /// [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// [shutdown(2)](https://man7.org/linux/man-pages/man2/shutdown.2.html). See [`StreamSocket`] for an example.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.end, how)
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; zero, as at first: not at all. See
    /// [`StreamPair`].
    ///
    /// The same as [`PipeReader::set_spin`](crate::PipeReader::set_spin), which says what it costs.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// Makes a second end of the same side, in this process. Never blocks. See [`StreamSocket`].
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    #[doc(alias = "dup")]
    #[doc(alias = "split")]
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { end: self.end.try_clone()?, spin: self.spin.clone(), loss: self.loss.clone() })
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Dropping closes too.
    /// Same as [`PipeReader::close`](crate::PipeReader::close).
    ///
    /// # Errors
    ///
    /// [`Error::System`]: other code closed the number.
    pub fn close(self) -> Result<()> {
        self.end.close()
    }
}

/// Blocks until there is something to read, or EOF. See [`StreamSocket`].
impl Read for StreamSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// Blocks until there is something to read, or EOF. See [`StreamSocket`].
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

    /// Writes as many leading slices as have 16 KiB together, or the first; at most 1024 of them.
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
    /// gives it back. For a socket that stays another owner's, duplicate its descriptor (`fd.as_fd().try_clone_to_owned()?`).
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        match socket::check(fd.as_fd(), "a connected unix socket for a stream", &[SocketType::STREAM]) {
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

macro_rules! timed {
    ($($socket:ty),*) => {$(
        impl TimedRead for $socket {
            fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
                self.read_with(buf, until.0)
            }
        }

        impl TimedWrite for $socket {
            fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
                self.write_with(buf, until.0)
            }
        }
    )*};
}
timed!(StreamSocket, &StreamSocket);
