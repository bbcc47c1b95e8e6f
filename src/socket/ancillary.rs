//! Ends and credentials that travel with messages.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;

use super::stream::PIECE;
use super::{Credentials, DatagramSocket, Lent, StreamSocket};
use crate::end::{self, End, Ends, FromFdError};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::ancillary::{Beside, MOST};
use crate::wait::Patience;

/// What came with a message besides its bytes: ends, in the order in which they were sent, and who sent it.
///
/// The ends are owned and close-on-exec from the moment they arrive, and a [`fork`](crate::fork()) severs them like any
/// other. What nobody takes is closed when this is dropped, so a peer that sends more than was asked for gains nothing.
///
/// A peer that is not trusted can send a file of a file system that does not answer. To look at such a one and to close it
/// waits, as close(2) does. Where no ends are wanted, use a plain receive: the kernel throws them away, and waits for nobody.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let pair = ipc::datagram_pair()?;
/// let (reader, mut writer) = ipc::pipe()?;
/// pair.parent.send_with(b"read this", reader)?;
///
/// let mut message = Vec::new();
/// let mut received = pair.child.recv_with(&mut message)?.expect("the parent is there");
/// assert_eq!(message, b"read this");
/// let mut reader: ipc::PipeReader = received.take()?;
///
/// writer.write_all(b"through the socket")?;
/// drop(writer);
/// assert_eq!(std::io::read_to_string(&mut reader)?, "through the socket");
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Default)]
pub struct Received {
    ends: VecDeque<End>,
    bytes: usize,
    sender: Option<Credentials>,
}

impl Received {
    /// Splits what came beside so many bytes. An error if ends are missing.
    pub(super) fn new(bytes: usize, beside: Beside, credentials: bool) -> Result<Self> {
        let sender = beside.sender.filter(|_| credentials).map(|(pid, uid, gid)| Credentials { pid, uid, gid });
        // Made with close-on-exec, which costs a call more to be sure of than to set.
        let received = Self { ends: beside.fds.into_iter().map(End::received).collect(), bytes, sender };
        if beside.lost { Err(Error::EndsLost { received }) } else { Ok(received) }
    }

    /// How many ends are left.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no end is left.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes the next end, as what it has to be: an end of this crate, [`OwnedFd`], a [`File`](std::fs::File), a socket of
    /// the standard library. Never blocks.
    ///
    /// Ends of this crate are checked: a pipe's writer does not pass for a reader. Types of the standard library take any
    /// descriptor.
    ///
    /// # Errors
    ///
    /// - [`Error::WrongKind`]: the next end is something else, and stays the next; or none is left.
    /// - [`Error::NotGiven`]: it arrived before a fork, and was not given to this process.
    pub fn take<T>(&mut self) -> Result<T>
    where
        T: TryFrom<OwnedFd>,
        T::Error: Into<FromFdError>,
    {
        let missing = Error::WrongKind { expected: "another end with the message", found: "none" };
        let end = self.ends.pop_front().ok_or(missing)?;
        if let Err(error) = end.check_given() {
            self.ends.push_front(end);
            return Err(error);
        }
        T::try_from(end.into_fd()).map_err(|refused| {
            let FromFdError { fd, error } = refused.into();
            self.ends.push_front(End::received(fd));
            error
        })
    }

    /// How many bytes came with the ends: the length of the message, or of what was read of a stream.
    ///
    /// It is said again here because [`Error::EndsLost`] has no other place for it.
    pub fn message_len(&self) -> usize {
        self.bytes
    }

    /// Who sent the message, if the socket was told to ask ([`set_passcred`](crate::DatagramSocket::set_passcred)).
    ///
    /// The kernel vouches for it: process, user and group of the process that made the call, at that time. `None` also where
    /// it does not know: of what was sent before anybody asked, and at the end of a stream, which nobody sends.
    pub fn sender(&self) -> Option<Credentials> {
        self.sender
    }
}

/// The ends that are left, to be given to another process as they came.
impl Ends for Received {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.ends.iter().for_each(|end| end.each(visit));
    }
}

/// The ends that are left, each as a plain descriptor.
impl IntoIterator for Received {
    type Item = OwnedFd;
    type IntoIter = std::vec::IntoIter<OwnedFd>;

    fn into_iter(self) -> Self::IntoIter {
        self.ends.into_iter().map(End::into_fd).collect::<Vec<_>>().into_iter()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends, bytes, sender } = self;
        f.debug_struct("Received").field("ends", ends).field("bytes", bytes).field("sender", sender).finish()
    }
}

/// Messages with ends.
impl DatagramSocket {
    /// Blocks until there is room in the peer's queue, and sends the message with ends: all of it, or an error and nothing.
    ///
    /// The ends go to whoever receives the message, with [`recv_with`](Self::recv_with); a plain [`recv`](Self::recv) throws
    /// them away. They are closed here when they were sent. While the message is under way, nobody holds them, and a stream
    /// whose last writer is in it does not end.
    ///
    /// # Errors
    ///
    /// The error gives the ends back, and `?` turns it into [`Error`]. Besides what [`send`](Self::send) says:
    ///
    /// - [`Error::TooLong`]: more than 253 ends.
    /// - [`Error::NotGiven`]: this process was not given one of the ends.
    /// - [`Error::System`] with `ETOOMANYREFS`: too many ends of this user are under way.
    ///
    /// # Platform
    ///
    /// sendmsg(2) with `SCM_RIGHTS` (unix.7).
    pub fn send_with<E: Ends>(&self, message: &[u8], ends: E) -> Result<(), SendError<E>> {
        self.deliver_with(message, ends, Patience::Blocking)
    }

    /// Sends the message with ends, without blocking; else as [`send_with`](Self::send_with).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full; and as [`send_with`](Self::send_with).
    pub fn try_send_with<E: Ends>(&self, message: &[u8], ends: E) -> Result<(), SendError<E>> {
        self.deliver_with(message, ends, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the message with ends; else as
    /// [`send_with`](Self::send_with).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send_with`](Self::send_with).
    pub fn send_with_timeout<E: Ends>(&self, message: &[u8], ends: E, timeout: Duration) -> Result<(), SendError<E>> {
        self.deliver_with(message, ends, Patience::timeout(timeout))
    }

    pub(crate) fn deliver_with<E: Ends>(
        &self,
        message: &[u8],
        ends: E,
        patience: Patience,
    ) -> Result<(), SendError<E>> {
        let sent = to_send(&ends).and_then(|fds| {
            self.deliver(message.len(), patience, |fd, wait| sys::ancillary::send(fd, message, &fds, wait).map(drop))
        });
        sent.map_err(|error| SendError { ends, error })
    }

    /// Blocks until a message arrives, of whatever length, and puts it into `message`, in the place of what was there.
    /// Returns what came with it: ends, and who sent it. `None`: the peer is gone, and all that it sent was received.
    ///
    /// # Errors
    ///
    /// - [`Error::EndsLost`]: not all ends could be installed, because no descriptors are left. `message` is there, and the
    ///   error has the ends that did arrive.
    /// - As [`recv`](Self::recv), but [`Error::BufferTooSmall`]. `message` is then as it was.
    ///
    /// # Platform
    ///
    /// recvmsg(2) with `MSG_CMSG_CLOEXEC`: the ends are close-on-exec from the first moment.
    pub fn recv_with(&self, message: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_with(message, Patience::Blocking)
    }

    /// Receives a message and what came with it, without blocking; else as [`recv_with`](Self::recv_with).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv_with`](Self::recv_with).
    pub fn try_recv_with(&self, message: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_with(message, Patience::None)
    }

    /// Blocks until a message arrives or the time is up, and receives it and what came with it; else as
    /// [`recv_with`](Self::recv_with).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_with`](Self::recv_with).
    pub fn recv_with_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<Option<Received>> {
        self.receive_with(message, Patience::timeout(timeout))
    }

    fn receive_with(&self, message: &mut Vec<u8>, patience: Patience) -> Result<Option<Received>> {
        let mut spill = Lent::new()?;
        let arrived = self.arrive(patience, |fd, wait| sys::ancillary::receive(fd, spill.as_mut_slice(), wait))?;
        let Some((len, beside)) = arrived else { return Ok(None) };
        message.clear();
        spill.append_to(message, len);
        Received::new(len, beside, self.credentials.load(Relaxed)).map(Some)
    }

    /// Lets [`Received::sender`] name the sender of each message, or not, as at first. Never blocks.
    ///
    /// That is the process that sent this very message; [`peer_credentials`](Self::peer_credentials) is another one. The
    /// setting belongs to this value; it goes along into a child and into clones.
    ///
    /// A [`CONNECTIONLESS`](crate::DatagramFlags::CONNECTIONLESS) socket does not know who sent what it got before. And it
    /// gets a name when it sends next, under which, once its peer is gone and a send has failed with [`Error::Closed`],
    /// any process of the machine (of its network namespace) can send to it: look at who sent what arrives after that.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// `SCM_CREDENTIALS` (unix.7).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.set_passcred(true)?;
    /// let child = ipc::fork(pair.child, |socket| socket.send(b"it is me"))?;
    ///
    /// let received = pair.parent.recv_with(&mut Vec::new())?.expect("a message");
    /// assert_eq!(received.sender().map(|sender| sender.pid), Some(child.id()));
    /// child.wait()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn set_passcred(&self, on: bool) -> Result<()> {
        if on {
            // Most have asked from the start, to tell messages from the end. None stops asking: others may hold it.
            sockopt::set_socket_passcred(&self.end, true).map_err(|errno| self.end.error("setsockopt", errno))?;
        }
        self.end.check_given()?;
        self.credentials.store(on, Relaxed);
        Ok(())
    }
}

/// Bytes with ends.
impl StreamSocket {
    /// Blocks until there is room, and writes bytes with ends: the ends go with the first byte. Says how many bytes went.
    ///
    /// The peer gets the ends with [`recv_with`](Self::recv_with), when it reads that byte; they are closed here when they
    /// were sent.
    ///
    /// # Errors
    ///
    /// The error gives the ends back, nothing was sent, and `?` turns it into [`Error`]:
    ///
    /// - [`Error::TooLong`]: more than 253 ends.
    /// - [`Error::NotGiven`]: this process was not given one of the ends, or the socket.
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::System`]: no bytes, and the kernel would lose the ends without a word (`EINVAL`); too many ends of this
    ///   user are under way (`ETOOMANYREFS`).
    ///
    /// # Platform
    ///
    /// sendmsg(2) with `SCM_RIGHTS` (unix.7).
    pub fn send_with<E: Ends>(&self, bytes: &[u8], ends: E) -> Result<usize, SendError<E>> {
        self.deliver_with(bytes, ends, Patience::Blocking)
    }

    /// Writes bytes with ends, without blocking; else as [`send_with`](Self::send_with).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no room; and as [`send_with`](Self::send_with).
    pub fn try_send_with<E: Ends>(&self, bytes: &[u8], ends: E) -> Result<usize, SendError<E>> {
        self.deliver_with(bytes, ends, Patience::None)
    }

    /// Blocks until there is room or the time is up, and writes bytes with ends; else as [`send_with`](Self::send_with).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send_with`](Self::send_with).
    pub fn send_with_timeout<E: Ends>(&self, bytes: &[u8], ends: E, timeout: Duration) -> Result<usize, SendError<E>> {
        self.deliver_with(bytes, ends, Patience::timeout(timeout))
    }

    fn deliver_with<E: Ends>(&self, bytes: &[u8], ends: E, patience: Patience) -> Result<usize, SendError<E>> {
        let sent = to_send(&ends).and_then(|fds| match bytes {
            [] => Err(Error::system("sendmsg", sys::Errno::INVAL)),
            _ => self.deliver_first(bytes, &fds, patience),
        });
        sent.map_err(|error| SendError { ends, error })
    }

    /// The ends go with the first piece.
    fn deliver_first(&self, bytes: &[u8], fds: &[RawFd], patience: Patience) -> Result<usize> {
        let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
        let count = self.deliver(patience, |fd, wait| sys::ancillary::send(fd, piece, fds, wait))?;
        if count < piece.len() {
            return Ok(count);
        }
        let patience = if matches!(patience, Patience::Blocking) { patience } else { Patience::None };
        // The ends are gone, so an error is for the next call.
        Ok(count + self.write_with(rest, patience).unwrap_or(0))
    }

    /// Blocks until there is something to read, and reads it, with the ends that came with it. 0 bytes: the end of the
    /// stream, or an empty `buf`.
    ///
    /// A read stops after what was sent with ends, so that ends are never mixed up with later bytes or ends. What was sent
    /// before them may come in the same read.
    ///
    /// # Errors
    ///
    /// - [`Error::EndsLost`]: not all ends could be installed, because no descriptors are left. The error has those that did
    ///   arrive, and says how many bytes are in `buf` ([`Received::message_len`]).
    /// - As [`try_read`](Self::try_read), but [`Error::WouldBlock`].
    ///
    /// # Platform
    ///
    /// recvmsg(2) with `MSG_CMSG_CLOEXEC`.
    pub fn recv_with(&self, buf: &mut [u8]) -> Result<(usize, Received)> {
        self.receive_with(buf, Patience::Blocking)
    }

    /// Reads with ends, without blocking; else as [`recv_with`](Self::recv_with).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is nothing, and the peer is open; and as [`recv_with`](Self::recv_with).
    pub fn try_recv_with(&self, buf: &mut [u8]) -> Result<(usize, Received)> {
        self.receive_with(buf, Patience::None)
    }

    /// Blocks until there is something to read or the time is up, and reads it with ends; else as
    /// [`recv_with`](Self::recv_with).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_with`](Self::recv_with).
    pub fn recv_with_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<(usize, Received)> {
        self.receive_with(buf, Patience::timeout(timeout))
    }

    fn receive_with(&self, buf: &mut [u8], patience: Patience) -> Result<(usize, Received)> {
        if buf.is_empty() {
            return Ok((0, Received::default()));
        }
        let mut beside = Beside::default();
        let len = self.arrive(patience, |fd, wait| {
            let (len, with) = sys::ancillary::receive(fd, buf, wait)?.unwrap_or_default();
            beside = with;
            Ok(len)
        })?;
        // A socket that asks for credentials gets some at the end too, and they are nobody's.
        let named = len > 0;
        Ok((len, Received::new(len, beside, named)?))
    }

    /// Lets [`Received::sender`] name the sender of what is read, or not, as at first. Never blocks.
    ///
    /// It goes for all that hold this end. What was sent before is not named.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `SO_PASSCRED` and `SCM_CREDENTIALS` (unix.7).
    pub fn set_passcred(&self, on: bool) -> Result<()> {
        sockopt::set_socket_passcred(&self.end, on).map_err(|errno| self.end.error("setsockopt", errno))
    }
}

/// The numbers of ends that are to be sent, in their order.
pub(crate) fn to_send(ends: &impl Ends) -> Result<Vec<RawFd>> {
    let numbers: Vec<_> = end::descriptors(ends)?.iter().map(AsRawFd::as_raw_fd).collect();
    if numbers.len() > MOST {
        return Err(Error::TooLong { len: numbers.len(), max: MOST });
    }
    Ok(numbers)
}

/// A message that was not sent, and why. The ends that were to go with it are given back.
///
/// `?` turns it into [`Error`] or [`io::Error`], whatever the ends are, and closes those that it owns.
///
/// `anyhow::Error` and `Box<dyn Error>` take the whole value, and the ends stay open in it: the stream does not end as long as
/// the error lives. `.map_err(ipc::Error::from)?` closes them first; and where the ends are borrowed, it is the only way
/// into these.
#[derive(thiserror::Error)]
#[error("the message could not be sent: {error}")]
pub struct SendError<E> {
    /// What was to go with the message.
    pub ends: E,
    /// What went wrong.
    pub error: Error,
}

impl<E> fmt::Debug for SendError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<E> From<SendError<E>> for Error {
    fn from(refused: SendError<E>) -> Self {
        refused.error
    }
}

impl<E> From<SendError<E>> for io::Error {
    fn from(refused: SendError<E>) -> Self {
        refused.error.into()
    }
}
