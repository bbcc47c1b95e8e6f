//! Many small messages in one datagram, both ways.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::Messages;
use super::batch::Batch;
use super::frame::{HEAD, PACK, Pack};
use crate::end::FlushError;
use crate::error::{Error, Result};
use crate::socket::{DatagramSocket, copied};
use crate::sys;
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::wait::{Patience, Until, Watch};

/// A [`DatagramSocket`] that packs many messages into each datagram, which makes small ones many times as fast.
///
/// Both sides have to pack. The promises of a datagram pair hold. A message arrives whole, in order, and never joined with the
/// next. An empty one is a message, and `None` is EOF. The difference is *when* it goes.
///
/// In the guide: [many small messages](crate::guide::many_small_messages), and
/// [the format](crate::guide::packed) for peers in another language.
///
/// # When messages go
///
/// Messages wait in a buffer of this process. They go to the peer
///
/// - when the next message does not fit the pack any more,
/// - with [`flush`](Self::flush), [`try_flush`](Self::try_flush), [`flush_timeout`](Self::flush_timeout),
/// - before every wait: when a receiving call finds no message that has arrived, and with [`watch`](Self::watch).
///
/// So a request is under way before its answer is waited for. A process that sends, and then does not receive, has to flush.
///
/// While the peer's queue is full, a receiving call takes what arrives. Two sides that both only *send* wait for each other,
/// as with any queue.
///
/// # Closing
///
/// [`close`](Self::close) flushes, closes, and returns the error. Dropping does the same without an error. It waits for room
/// for at most a second, and not at all while a panic unwinds; the rest is lost.
///
/// # Not an end
///
/// A `PackedSocket` is no [`Ends`](crate::Ends) and has no descriptor of its own, on purpose. A fork would copy its buffers,
/// and their contents would be sent twice. `poll` does not see messages that have arrived in them. Give the bare socket away, and
/// pack it where it is used. For [`wait_any`](crate::wait_any) there is [`watch`](Self::watch).
///
/// ```compile_fail,E0277
/// let pair = ipc::datagram_pair().unwrap();
/// let packed = ipc::PackedSocket::new(pair.child);
/// ipc::fork(packed, |mut packed| packed.send(b"twice?")); // `PackedSocket: Ends` is not satisfied
/// ```
///
/// After a bare fork ([`fork_raw`](crate::fork_raw), or one with [`keep_all_ends`](crate::Fork::keep_all_ends)) both
/// processes have the buffers, so flush before it.
///
/// # Examples
///
/// Make and give the bare ends, and pack each where it is used.
///
/// ```
/// let pair = ipc::datagram_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
///     let mut socket = ipc::PackedSocket::new(socket);
///     while let Some(number) = socket.recv()? {
///         let sum: u32 = number.iter().map(|byte| u32::from(*byte)).sum();
///         socket.send(&sum.to_le_bytes())?; // goes along when there is nothing more to receive
///     }
///     socket.close()
/// })?;
///
/// let mut socket = ipc::PackedSocket::new(pair.parent);
/// for _ in 0..1000 {
///     socket.send(b"sum me up")?; // a few system calls for all of them
/// }
/// for _ in 0..1000 {
///     assert_eq!(socket.recv()?, Some(&844_u32.to_le_bytes()[..]));
/// }
/// socket.close()?;
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "sendmmsg")]
pub struct PackedSocket {
    batch: Batch<DatagramSocket>,
    arrived: Pack,
}

impl PackedSocket {
    /// Packs many messages into each datagram from here on; the peer has to do the same. Never blocks.
    ///
    /// Packs are of at most 32 KiB, or of [`max_message`](DatagramSocket::max_message) if that is less. Settings, such as
    /// [`set_spin`](DatagramSocket::set_spin), are made before. See [`PackedSocket`].
    pub fn new(socket: DatagramSocket) -> Self {
        Self { batch: Batch::new(socket), arrived: Pack::new(PACK) }
    }

    /// Adds a message to the pack. Blocks only if the pack is full and so is the peer's queue.
    ///
    /// A message that is longer than a pack goes at once, by itself, after those before it. See [`PackedSocket`].
    ///
    /// # Errors
    ///
    /// The message was not taken, and the messages before it are still buffered:
    ///
    /// - [`Error::TooLong`]: longer than [`max_message`](Self::max_message).
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down. Buffered messages are lost, and a receive
    ///   returns [`Error::Reset`]; from then on, every message is refused at once.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the kernel has no memory for it (`ENOBUFS`).
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, || Patience::Blocking)
    }

    /// Adds a message to the pack without blocking; otherwise the same as [`send`](Self::send). See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the pack and the peer's queue are full; and as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, || Patience::None)
    }

    /// Adds a message to the pack, and blocks for room until the time is up; otherwise the same as [`send`](Self::send). The
    /// deadline holds as that of [`DatagramSocket::send_timeout`](crate::DatagramSocket::send_timeout). See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        self.send_by(message, || Patience::timeout(timeout))
    }

    /// Adds a message, and waits for room with that patience.
    #[inline]
    pub(crate) fn send_by(&mut self, message: &[u8], patience: impl FnOnce() -> Patience) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, patience()) }
    }

    /// Sends the buffered messages, and waits for room with that patience.
    #[cfg(feature = "channel")]
    pub(crate) fn flush_until(&mut self, patience: Patience) -> Result<()> {
        self.batch.flush(patience)
    }

    /// Sends a message that does not fit the pack.
    #[inline(never)]
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<()> {
        self.batch.check_open()?;
        if !self.batch.could_take(message) {
            let max = self.max_message()?; // before anything is done
            if message.len() > max {
                return Err(Error::TooLong { len: message.len(), max });
            }
        }
        self.batch.flush(patience)?;
        if self.batch.push(message) {
            return Ok(());
        }
        // Longer than a pack.
        let head = (message.len() as u32).to_le_bytes();
        let parts = [IoSlice::new(&head), IoSlice::new(message)];
        let send = |fd: BorrowedFd<'_>, wait| sys::socket::send_vectored(fd, &parts, wait);
        let sent = self.get_ref().deliver(HEAD + message.len(), patience, send);
        self.batch.heed(sent)
    }

    /// Sends the buffered messages. Blocks while the peer's queue is full. [`close`](Self::close) does so in the
    /// [example](Self#examples). See [`Messages`].
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`]: as for [`send`](Self::send); from then on each time.
    /// - [`Error::TooLong`]: the limit of the socket was set below the size of the pack meanwhile. The messages stay.
    /// - [`Error::NotGiven`], [`Error::System`]: same as [`send`](Self::send). The messages stay.
    pub fn flush(&mut self) -> Result<()> {
        self.batch.flush(Patience::Blocking)
    }

    /// Sends the buffered messages without blocking; otherwise the same as [`flush`](Self::flush). See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full. The messages stay; and as [`flush`](Self::flush).
    pub fn try_flush(&mut self) -> Result<()> {
        self.batch.flush(Patience::None)
    }

    /// Sends the buffered messages, and blocks for room until the time is up, as [`send_timeout`](Self::send_timeout) does. See
    /// [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. The messages stay; and as [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.batch.flush(Patience::timeout(timeout))
    }

    /// Blocks until a message arrives, and lends it until the next call; [`recv_vec`](Self::recv_vec) gives it away. `None`
    /// is EOF: the peer is gone, and all that it sent was received. See [`PackedSocket`].
    ///
    /// Takes a message that has arrived in the buffer without a system call. If there is none, sends the buffered messages first.
    ///
    /// EOF also comes from a peer that lives and has only finished sending ([`shutdown`](crate::DatagramSocket::shutdown)).
    /// Messages that had no room in its queue still wait then, and go with [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// - [`Error::Malformed`]: a datagram is no pack. All of it is in the error, and the next can be received.
    /// - [`Error::Reset`]: the peer went away, and messages of ours were unread or not flushed; once, after all that it sent.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::TooLong`], [`Error::System`]: the buffered messages could not be sent, see [`flush`](Self::flush); or as
    ///   [`DatagramSocket::recv`] of a long message (`ENOMEM`).
    ///
    /// # Platform
    ///
    /// [`recvmsg(2)`](https://man7.org/linux/man-pages/man2/recvmsg.2.html). The buffer grows to the longest message that
    /// arrives, which is at most 4160 KiB.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::Blocking)
    }

    /// Receives a message without blocking; otherwise the same as [`recv`](Self::recv). See [`Messages`].
    ///
    /// If there is none, sends the buffered messages, as far as there is room.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::None)
    }

    /// Blocks until a message arrives or the time is up; otherwise the same as [`recv`](Self::recv). The deadline holds as that of
    /// [`DatagramSocket::recv_timeout`](crate::DatagramSocket::recv_timeout), for flushing too. See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::timeout(timeout))
    }

    /// Blocks until a message arrives, and returns a copy of it; otherwise the same as [`recv`](Self::recv). See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`recv`](Self::recv). If there is no memory for the vector (`ENOMEM`), the message stays.
    pub fn recv_vec(&mut self) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::Blocking), copied)
    }

    /// Returns a message without blocking; otherwise the same as [`recv_vec`](Self::recv_vec). See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`try_recv`](Self::try_recv).
    pub fn try_recv_vec(&mut self) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::None), copied)
    }

    /// Blocks until a message arrives or the time is up; otherwise the same as [`recv_vec`](Self::recv_vec). See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`recv_timeout`](Self::recv_timeout).
    pub fn recv_vec_timeout(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::timeout(timeout)), copied)
    }

    /// Returns an iterator over the messages, each of which it blocks for, until EOF. See
    /// [`MessageReader::iter`](crate::MessageReader::iter) for an example.
    pub fn iter(&mut self) -> Messages<'_, Self> {
        Messages::new(self)
    }

    #[inline]
    fn receive(&mut self, patience: impl FnOnce() -> Patience) -> Result<Option<&[u8]>> {
        Ok(if self.arrived.is_empty() && !self.arrive(patience())? { None } else { self.arrived.take() })
    }

    #[inline]
    pub(crate) fn receive_by<T>(&mut self, until: Until, copy: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        if self.arrived.is_empty() && !self.arrive(until.0)? { Ok(None) } else { self.arrived.take_by(copy) }
    }

    /// Waits for a pack, after the buffered messages were sent. `false`: EOF.
    #[inline(never)]
    fn arrive(&mut self, patience: Patience) -> Result<bool> {
        loop {
            match self.batch.flush_rest(Patience::None) {
                // Messages that the peer sent before it left can still be received.
                Ok(()) | Err(Error::Closed) => return self.receive_pack(patience),
                Err(Error::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            match self.receive_pack(Patience::None) {
                Err(Error::WouldBlock) => patience.sleep(self.get_ref(), POLLIN | POLLOUT)?,
                received => return received,
            }
        }
    }

    fn receive_pack(&mut self, patience: Patience) -> Result<bool> {
        let len = self.batch.outlet().receive_growing(self.arrived.buffer(), patience)?;
        len.map_or(Ok(false), |len| self.arrived.fill(len).map(|()| true))
    }

    /// Returns whether a message has arrived in the buffer, so that the next [`recv`](Self::recv) takes it without a system call.
    /// Never blocks. See [`Messages`].
    #[must_use]
    pub fn has_message(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Returns a [`Watch`] for [`wait_any`](crate::wait_any), ready when [`try_recv`](Self::try_recv) is. Never blocks.
    ///
    /// Sends the buffered messages. If there is no room, `wait_any` waits for room too, and `try_recv` then sends them. If
    /// a message has arrived in the buffer, `wait_any` returns at once.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::TooLong`], [`Error::System`]: the messages could not be sent, see [`flush`](Self::flush).
    ///
    /// # Examples
    ///
    /// The [guide](crate::guide::many_small_messages) has a master over several workers.
    pub fn watch(&mut self) -> Result<Watch<'_>> {
        let waits = match self.batch.flush_rest(Patience::None) {
            Ok(()) | Err(Error::Closed) => false, // receiving tells of the loss
            Err(Error::WouldBlock) => true,
            Err(error) => return Err(error),
        };
        let watch = Watch::readable(self.get_ref()).buffered(self.has_message());
        Ok(if waits { watch.or_writable() } else { watch })
    }

    /// Returns the longest message that this end sends, in bytes: four less than the socket's. Never blocks.
    ///
    /// # Errors
    ///
    /// Same as [`DatagramSocket::max_message`].
    pub fn max_message(&self) -> Result<usize> {
        Ok(self.get_ref().max_message()?.saturating_sub(HEAD))
    }

    /// Returns the socket of the [example](Self#examples). Sending or receiving through it bypasses the buffers. See [`Messages`].
    #[must_use]
    pub fn get_ref(&self) -> &DatagramSocket {
        self.batch.outlet()
    }

    /// Flushes, and gives the socket back. Blocks while the peer's queue is full. See [`FlushError`] for an example.
    ///
    /// # Errors
    ///
    /// The error gives the `PackedSocket` back, and `?` turns it into [`Error`].
    ///
    /// - [`Error::Unread`]: messages have arrived in the buffer. Receive them while [`has_message`](Self::has_message).
    /// - Otherwise the same as [`flush`](Self::flush). After the first [`Error::Closed`], there is nothing to flush.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_inner(self) -> Result<DatagramSocket, FlushError<Self>> {
        if self.has_message() {
            return Err(FlushError { unflushed: self, error: Error::Unread });
        }
        let Self { batch, arrived } = self;
        batch.into_outlet().map_err(|(batch, error)| FlushError { unflushed: Self { batch, arrived }, error })
    }

    /// Flushes and closes, and returns the error of either, as in the [example](Self#examples). Blocks while the peer's queue is full.
    ///
    /// Messages that have arrived in the buffer count as received: the peer sees no [`Error::Reset`] for them.
    ///
    /// # Errors
    ///
    /// Same as [`flush`](Self::flush), and [`Error::System`] if other code closed the number. Buffered messages are lost: to
    /// keep them, flush first.
    pub fn close(self) -> Result<()> {
        self.batch.close()
    }
}

impl fmt::Debug for PackedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unflushed, arrived) = (self.batch.waiting().len(), self.arrived.len());
        let mut debug = f.debug_struct("PackedSocket");
        debug.field("socket", self.get_ref()).field("unflushed", &unflushed).field("arrived", &arrived).finish()
    }
}
