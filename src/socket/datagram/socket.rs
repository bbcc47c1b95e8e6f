//! One end of a pair for messages: sending and receiving. Looking ahead, settings and conversions stand in `settings`.

use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

#[cfg(doc)]
use super::DatagramPair;
use crate::end::{End, Ends};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::socket::loss::Loss;
use crate::socket::received::{Received, SendError};
#[cfg(feature = "channel")]
use crate::socket::segments::Segments;
use crate::wait::{Patience, Spin};

/// One end of a [`datagram_pair`](crate::datagram_pair()): sends and receives whole messages.
///
/// All calls take `&self`, so that one thread or process can send while another receives. See
/// [`datagram_pair`](crate::datagram_pair()) for an example.
///
/// In the guide: [messages](crate::guide::messages), [ends in messages](crate::guide::travelling#in-a-message),
/// [programs that do not use this crate](crate::guide::travelling#programs-that-do-not-use-this-crate).
///
/// # Platform
///
/// While an end is this crate's, `SO_PASSSEC` or `SO_TIMESTAMP` is set on the socket, which tells an empty message from EOF.
/// An end that leaves this crate is a socket as the kernel makes it.
pub struct DatagramSocket {
    pub(crate) end: End,
    pub(super) spin: Spin,
    pub(super) loss: Loss,
    /// Whether it is a `SOCK_DGRAM` socket: a call that does not wait gets `EAGAIN` at EOF too.
    pub(super) connectionless: bool,
    /// For the values of a channel.
    #[cfg(feature = "channel")]
    pub(crate) segments: Segments,
}

impl DatagramSocket {
    pub(super) fn new(end: End, connectionless: bool) -> Self {
        Self {
            end,
            spin: Spin::default(),
            loss: Loss::default(),
            connectionless,
            #[cfg(feature = "channel")]
            segments: Segments::default(),
        }
    }

    /// Blocks until there is room in the peer's queue, and sends the message: all of it, or an error and nothing. See
    /// [`datagram_pair`](crate::datagram_pair()) for an example.
    ///
    /// For a text: `socket.send(text.as_bytes())`.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLong`]: longer than [`max_message`](Self::max_message).
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the kernel has no memory for it (`ENOBUFS`).
    /// - [`Error::InvalidInput`]: the message is empty, and this kernel would drop it, as gVisor does.
    ///
    /// # Platform
    ///
    /// [send(2)](https://man7.org/linux/man-pages/man2/send.2.html) with `MSG_NOSIGNAL`.
    #[doc(alias = "write")]
    pub fn send(&self, message: &[u8]) -> Result<()> {
        self.send_bytes(message, Patience::Blocking)
    }

    /// Sends the message without blocking: all of it, or an error and nothing. Otherwise the same as [`send`](Self::send). See
    /// [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full; and as [`send`](Self::send).
    #[inline]
    pub fn try_send(&self, message: &[u8]) -> Result<()> {
        self.send_bytes(message, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the message, or nothing. Otherwise the same as
    /// [`send`](Self::send). See [`DatagramPair`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send`](Self::send).
    pub fn send_timeout(&self, message: &[u8], timeout: Duration) -> Result<()> {
        self.send_bytes(message, Patience::timeout(timeout))
    }

    /// Blocks until there is room in the peer's queue, and sends one message that is made of several parts.
    ///
    /// It is one message, all of it, or an error and nothing. More than 1024 parts are copied together first.
    ///
    /// # Errors
    ///
    /// Same as [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{IoSlice, IoSliceMut};
    ///
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"body")])?;
    ///
    /// let (mut head, mut body) = ([0; 5], [0; 100]);
    /// let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(pair.child.recv_vectored(&mut parts)?, Some(9));
    /// assert_eq!((&head, &body[..4]), (b"head ", &b"body"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "sendmsg")]
    pub fn send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::Blocking)
    }

    /// Sends one message that is made of several parts, without blocking; otherwise the same as
    /// [`send_vectored`](Self::send_vectored). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// Same as [`try_send`](Self::try_send).
    pub fn try_send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends one message of several parts. Otherwise the
    /// same as [`send_vectored`](Self::send_vectored). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// Same as [`send_timeout`](Self::send_timeout).
    pub fn send_vectored_timeout(&self, parts: &[IoSlice<'_>], timeout: Duration) -> Result<()> {
        self.send_parts(parts, Patience::timeout(timeout))
    }

    /// Blocks until there is room in the peer's queue, and sends the message with ends: all of it, or an error and nothing. See
    /// [`Received`] for an example.
    ///
    /// The ends go to the process that receives the message with [`recv_with`](Self::recv_with); a plain
    /// [`recv`](Self::recv) throws them away. They are closed here when they were sent. While the message is under way, no
    /// process holds them, and a stream whose last writer is among them has no EOF.
    ///
    /// # Errors
    ///
    /// The error gives the ends back, and `?` turns it into [`Error`]. Besides the errors of [`send`](Self::send):
    ///
    /// - [`Error::TooLong`]: more than 253 ends.
    /// - [`Error::NotGiven`]: this process was not given one of the ends.
    /// - [`Error::System`] with `ETOOMANYREFS`: too many ends of this user are under way.
    ///
    /// # Platform
    ///
    /// [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html) with `SCM_RIGHTS`.
    #[doc(alias = "SCM_RIGHTS")]
    pub fn send_with<E: Ends>(&self, message: &[u8], ends: E) -> Result<(), SendError<E>> {
        self.send_ends(message, ends, Patience::Blocking)
    }

    /// Sends the message with ends, without blocking; otherwise the same as [`send_with`](Self::send_with). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full; and as [`send_with`](Self::send_with).
    pub fn try_send_with<E: Ends>(&self, message: &[u8], ends: E) -> Result<(), SendError<E>> {
        self.send_ends(message, ends, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the message with ends; otherwise the same as
    /// [`send_with`](Self::send_with). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send_with`](Self::send_with).
    pub fn send_with_timeout<E: Ends>(&self, message: &[u8], ends: E, timeout: Duration) -> Result<(), SendError<E>> {
        self.send_ends(message, ends, Patience::timeout(timeout))
    }

    /// Blocks until a message arrives, and returns its length. `None` is EOF: the peer is gone, and all that it sent was received.
    /// `Some(0)` is an empty message. See [`datagram_pair`](crate::datagram_pair()) for an example.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooSmall`]: the message is longer than `buf`. It is whole inside the error.
    /// - [`Error::Reset`]: the peer went away with messages of ours unread; reported once, after all that it sent. Where two
    ///   processes hold this end, the kernel tells one of them, and a process that only sends sees it as [`Error::Closed`].
    /// - [`Error::WouldBlock`]: the socket was made elsewhere, with `O_NONBLOCK`, and there is no message.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`] of `mmap`: no address space for a long message (`ENOMEM`). Nothing was received. Of `malloc`: no
    ///   memory for a message that `buf` has no room for, and it is lost.
    ///
    /// # Platform
    ///
    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html). Each receiving thread keeps 8 MiB of address space
    /// for what `buf` has no room for, more where pages are larger than 4 KiB. It takes memory only where it is written to.
    /// Buffers of up to 512 bytes are filled through that memory too. Descriptors that a program sends along are closed.
    #[doc(alias = "read")]
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::Blocking)
    }

    /// Receives a message without blocking; otherwise the same as [`recv`](Self::recv). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::None)
    }

    /// Blocks until a message arrives or the time is up; otherwise the same as [`recv`](Self::recv). See [`DatagramPair`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and when another holder takes the message that this call was woken for. A peer can delay it with a descriptor whose
    /// last close takes long, such as a TCP socket with `SO_LINGER` or a file on FUSE. Another process that has a copy of *this*
    /// end can delay it as well: see [`datagram_pair`](crate::datagram_pair()).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<Option<usize>> {
        self.receive(buf, Patience::timeout(timeout))
    }

    /// Blocks until a message of any length arrives, and returns it. `None` is EOF. See [`DatagramPair`](crate::DatagramPair) for
    /// an example.
    ///
    /// # Errors
    ///
    /// Same as [`recv`](Self::recv), but never [`Error::BufferTooSmall`].
    pub fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::Blocking)
    }

    /// Receives a message of any length without blocking; otherwise the same as [`recv_vec`](Self::recv_vec). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv_vec`](Self::recv_vec).
    pub fn try_recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::None)
    }

    /// Blocks until a message of any length arrives or the time is up; otherwise the same as [`recv_vec`](Self::recv_vec). See
    /// [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_vec`](Self::recv_vec).
    pub fn recv_vec_timeout(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::timeout(timeout))
    }

    /// Returns an iterator over the messages that arrive, until EOF. Its `next` blocks, and is [`recv_vec`](Self::recv_vec). An
    /// error does not end it: leave the loop with `?`. See [`datagram_pair`](crate::datagram_pair()) for an example.
    pub fn iter(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        std::iter::from_fn(|| self.recv_vec().transpose())
    }

    /// Blocks until a message arrives, fills one slice after the other with it, and returns its length. `None` is EOF. See
    /// [`send_vectored`](Self::send_vectored) for an example.
    ///
    /// # Errors
    ///
    /// Same as [`recv`](Self::recv). [`Error::BufferTooSmall`]: the message is longer than all slices together.
    #[doc(alias = "recvmsg")]
    #[doc(alias = "readv")]
    pub fn recv_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> Result<Option<usize>> {
        self.receive_parts(bufs, Patience::Blocking)
    }

    /// Receives a message into several slices without blocking; otherwise the same as [`recv_vectored`](Self::recv_vectored). See
    /// [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// Same as [`try_recv`](Self::try_recv).
    pub fn try_recv_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> Result<Option<usize>> {
        self.receive_parts(bufs, Patience::None)
    }

    /// Blocks until a message arrives or the time is up, and receives it into several slices; otherwise the same as
    /// [`recv_vectored`](Self::recv_vectored). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_vectored`](Self::recv_vectored).
    pub fn recv_vectored_timeout(&self, bufs: &mut [IoSliceMut<'_>], timeout: Duration) -> Result<Option<usize>> {
        self.receive_parts(bufs, Patience::timeout(timeout))
    }

    /// Blocks until a message of any length arrives, and replaces the contents of `message` by it. Returns the ends and the sender
    /// that came with it. `None` is EOF. See [`Received`] for an example.
    ///
    /// The vector's capacity is used again. A message that a slice is too short for would cost its ends:
    /// [`recv_vectored_with`](Self::recv_vectored_with) takes slices, and a vector for the rest.
    ///
    /// # Errors
    ///
    /// - [`Error::EndsLost`]: not all ends could be installed, because no descriptors are left. `message` is complete, and
    ///   the error has the ends that did arrive.
    /// - Same as [`recv`](Self::recv), but never [`Error::BufferTooSmall`]. `message` is as before.
    ///
    /// # Platform
    ///
    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html) with `MSG_CMSG_CLOEXEC`. The first call on a new pair
    /// makes up to three more, which replace `SO_PASSSEC` by `SO_TIMESTAMP`. In a sandbox that refuses these, an empty message
    /// that a peer leaves behind when it goes can be taken for EOF.
    pub fn recv_with(&self, message: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_ends(&mut [], message, Patience::Blocking)
    }

    /// Receives a message with its ends, without blocking; otherwise the same as [`recv_with`](Self::recv_with). See
    /// [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv_with`](Self::recv_with).
    pub fn try_recv_with(&self, message: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_ends(&mut [], message, Patience::None)
    }

    /// Blocks until a message arrives or the time is up, and receives it with its ends; otherwise the same as
    /// [`recv_with`](Self::recv_with). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_with`](Self::recv_with).
    pub fn recv_with_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<Option<Received>> {
        self.receive_ends(&mut [], message, Patience::timeout(timeout))
    }

    /// Blocks until a message arrives, and fills one slice after the other with it. The bytes that they have no room for replace
    /// the contents of `rest`. Returns the ends and the sender; [`Received::message_len`] is the length of the message. `None`
    /// is EOF.
    ///
    /// # Errors
    ///
    /// Same as [`recv_with`](Self::recv_with).
    ///
    /// # Examples
    ///
    /// See [`Received::message_len`].
    pub fn recv_vectored_with(&self, bufs: &mut [IoSliceMut<'_>], rest: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_ends(bufs, rest, Patience::Blocking)
    }

    /// Receives a message with its ends into slices, without blocking; otherwise the same as
    /// [`recv_vectored_with`](Self::recv_vectored_with). See [`Received::message_len`].
    ///
    /// # Errors
    ///
    /// Same as [`try_recv_with`](Self::try_recv_with).
    pub fn try_recv_vectored_with(&self, bufs: &mut [IoSliceMut<'_>], rest: &mut Vec<u8>) -> Result<Option<Received>> {
        self.receive_ends(bufs, rest, Patience::None)
    }

    /// Blocks until a message arrives or the time is up; otherwise the same as [`recv_vectored_with`](Self::recv_vectored_with).
    /// See [`Received::message_len`].
    ///
    /// # Errors
    ///
    /// Same as [`recv_with_timeout`](Self::recv_with_timeout).
    pub fn recv_vectored_with_timeout(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        rest: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<Option<Received>> {
        self.receive_ends(bufs, rest, Patience::timeout(timeout))
    }
}
