//! Ends and credentials that travel with messages.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Credentials;
use crate::end::{self, End, Ends, FromFdError, Leaving};
use crate::error::{Error, Result, gives_back};
use crate::sys::ancillary::{Beside, MOST};

/// The parts of a message beside its bytes: ends, in the order in which they were sent, and the sender.
///
/// The ends are owned and close-on-exec from the moment they arrive, and a [`fork`](crate::fork()) severs them like any
/// other. Ends that are not taken are closed when this is dropped, so a peer gains nothing by sending more than was asked for.
///
/// A peer that is not trusted can send a file of a file system that does not answer. Looking at such a file, and closing it,
/// waits as [close(2)](https://man7.org/linux/man-pages/man2/close.2.html) does. Where no ends are wanted, use a plain
/// receive: the kernel throws them away without waiting.
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
    /// The parts that came beside the bytes. An error if ends are missing.
    #[inline]
    pub(crate) fn new(bytes: usize, beside: Beside) -> Result<Self> {
        let sender = beside.sender.map(|(pid, uid, gid)| Credentials { pid, uid, gid });
        // Made with close-on-exec, which costs a call more to be sure of than to set.
        let ends = if beside.fds.is_empty() { VecDeque::new() } else { own(beside.fds) };
        let received = Self { ends, bytes, sender };
        if beside.lost { Err(Error::EndsLost { received }) } else { Ok(received) }
    }

    /// Returns how many ends are left.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send_with(b"both", ipc::pipe()?)?;
    /// let mut received = pair.child.recv_with(&mut Vec::new())?.expect("a message");
    /// assert_eq!((received.len(), received.message_len()), (2, 4));
    ///
    /// let _reader: ipc::PipeReader = received.take()?;
    /// let _writer: ipc::PipeWriter = received.take()?;
    /// assert!(received.is_empty());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether no end is left. See [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes the next end, as the type that is asked for: an end of this crate, [`OwnedFd`], a [`File`](std::fs::File), a socket of
    /// the standard library. Never blocks.
    ///
    /// Ends of this crate are checked: a pipe's writer does not pass for a reader. Types of the standard library take any
    /// descriptor.
    ///
    /// `recv_with` returns an `Option`, which has a `take` of its own. Look for EOF first:
    /// `let Some(mut received) = socket.recv_with(&mut message)? else { … }`.
    ///
    /// # Errors
    ///
    /// - [`Error::WrongKind`]: the next end is of another kind, and stays the next; or none is left.
    /// - [`Error::NotGiven`]: it arrived before a fork, and was not given to this process.
    ///
    /// # Examples
    ///
    /// See [`Received`].
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
            // Perhaps not the one that came: a severed one stays severed, and every one is close-on-exec.
            self.ends.push_front(End::adopt(fd));
            error
        })
    }

    /// The ends that are left, each to be taken by its place.
    #[cfg(feature = "channel")]
    pub(crate) fn into_ends(self) -> Vec<Option<End>> {
        self.ends.into_iter().map(Some).collect()
    }

    /// Returns the length of the message, or the number of bytes that were read of a stream.
    ///
    /// It is there for calls that fill slices, and for [`Error::EndsLost`], where the call returns no length.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSliceMut;
    /// use std::time::Duration;
    ///
    /// let pair = ipc::datagram_pair()?;
    /// let (reader, writer) = ipc::pipe()?;
    /// pair.parent.send_with(b"\x07read this", reader)?;
    ///
    /// let (mut kind, mut text) = ([0; 1], Vec::new());
    /// let mut slices = [IoSliceMut::new(&mut kind)];
    /// let mut received = pair.child.recv_vectored_with(&mut slices, &mut text)?.expect("the parent is there");
    /// assert_eq!((received.message_len(), text.as_slice()), (10, &b"read this"[..]));
    /// assert_eq!(kind, [7]);
    /// let _reader: ipc::PipeReader = received.take()?;
    ///
    /// let mut slices = [IoSliceMut::new(&mut kind)];
    /// let none = pair.child.try_recv_vectored_with(&mut slices, &mut text);
    /// assert!(matches!(none, Err(ipc::Error::WouldBlock)));
    /// let none = pair.child.recv_vectored_with_timeout(&mut slices, &mut text, Duration::ZERO);
    /// assert!(matches!(none, Err(ipc::Error::TimedOut)));
    /// # drop(writer);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn message_len(&self) -> usize {
        self.bytes
    }

    /// Returns the sender of the message, if
    /// [`DatagramSocket::set_passcred`](crate::DatagramSocket::set_passcred) is on.
    ///
    /// The kernel vouches for it: process, user and group of the process that made the call, at that time. It is also `None`
    /// for messages that were sent before it was on, and at the EOF of a stream.
    ///
    /// # Examples
    ///
    /// See [`DatagramSocket::set_passcred`](crate::DatagramSocket::set_passcred).
    #[must_use]
    pub fn sender(&self) -> Option<Credentials> {
        self.sender
    }
}

fn own(fds: Vec<OwnedFd>) -> VecDeque<End> {
    fds.into_iter().map(End::received).collect()
}

/// The ends that are left, to be given to another process.
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

/// A message that was not sent, and why. The ends that were to go with it are given back.
///
/// `?` turns it into [`Error`] or [`io::Error`](std::io::Error), and closes the ends that it owns.
///
/// `anyhow::Error` and `Box<dyn Error>` take the whole value, and the ends stay open in it. So there is no EOF as long as the
/// error lives. `.map_err(ipc::Error::from)?` closes them first.
///
/// Where the ends are borrowed, `send_with(message, &end)?` does not compile in a function that returns one of these:
/// `.map_err(ipc::Error::from)?` does. [`ForkError`](crate::ForkError) has an example.
///
/// # Examples
///
/// ```
/// let pair = ipc::datagram_pair()?;
/// drop(pair.child);
/// let (reader, _writer) = ipc::pipe()?;
/// let unsent = pair.parent.send_with(b"for nobody", reader).unwrap_err();
/// assert!(matches!(unsent.error, ipc::Error::Closed));
/// let _reader: ipc::PipeReader = unsent.ends; // still ours
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("the message could not be sent: {error}")]
pub struct SendError<E> {
    /// The ends that were to go with the message.
    pub ends: E,
    /// The cause.
    pub error: Error,
}

impl<E> fmt::Debug for SendError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("error", &self.error).finish_non_exhaustive()
    }
}

gives_back!(SendError<E>);

/// Sends descriptors. Those that do not leave come back as they were.
pub(super) fn sending<T>(ends: &impl Ends, send: impl FnOnce(&[RawFd]) -> Result<T>) -> Result<T> {
    let (fds, len) = end::first_descriptors::<MOST>(ends)?;
    let numbers = fds.map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd()));
    let numbers = numbers.get(..len).ok_or(Error::TooLong { len, max: MOST })?;
    let mut leaving = Leaving::default();
    let marked = fds.map(|fd| fd.filter(|fd| leaving.leave(*fd)));
    let sent = send(numbers);
    if sent.is_err() {
        marked.into_iter().flatten().for_each(|fd| leaving.stay(fd));
    }
    sent
}
