//! The sending end of a channel.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;

use super::link::{Link, Outgoing};
use super::unsent::Unsent;
use super::value;
use crate::end::FromFdError;
use crate::error::Result;
use crate::socket::DatagramSocket;
use crate::wait::{Patience, Until};

/// The end of a [`channel`](crate::channel()) that sends values.
///
/// A value is of any type with serde's [`Serialize`], and may have ends in it. It is encoded, sent in one message, and decoded
/// by its receiver. See [`channel`](crate::channel()) for an example.
///
/// All calls take `&self`. Several threads and processes can send on one channel ([`try_clone`](Self::try_clone)); each value
/// arrives whole.
///
/// A `Sender` is an end: it is given to a child, to a program and in messages like any other. It can be a field of a value
/// itself. A sender over a link with a buffer ([`Link`]) is no end: make it in the process that uses it.
///
/// # Memory
///
/// Each thread keeps the buffer in which it encodes, of up to 4 MiB. Once that is long enough, sending allocates nothing. A longer
/// value gets a buffer for the one call.
///
/// A value that is too large for a datagram goes in shared memory beside the message. A sender uses the memory again when the
/// receiver has copied the value. It keeps up to 9 MiB in at most 16 segments, with a descriptor each; one large value alone
/// leaves none behind.
///
/// **Receivers that share an end**: a process that has received a large value can keep the descriptor of its memory. So it can read
/// what the same sender sends in it later, to another process, and what is left there of an earlier value. It can also look at a
/// message without taking it (`MSG_PEEK`) and say that it has copied the value, and another process then receives a wrong one. Where
/// receivers do not trust each other, make a channel for each.
///
/// # Types
///
/// The two sides agree on `T`, and nothing checks that, as with bytes. A value of another type is decoded as far as its bytes
/// fit.
///
/// # What does not compile
///
/// A type that serde cannot encode:
///
/// ```compile_fail,E0277
/// struct Job(u32); // without #[derive(serde::Serialize)]
///
/// let (sender, _receiver) = ipc::channel()?;
/// sender.send(Job(1))?;
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// A sender made of a link that only receives, and a receiver that sends:
///
/// ```compile_fail,E0277
/// let (reader, _writer) = ipc::pipe()?;
/// let sender = ipc::Sender::<u32, _>::new(ipc::MessageReader::new(reader));
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// ```compile_fail,E0599
/// let (_sender, receiver) = ipc::channel::<u32>()?;
/// receiver.send(1)?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "IpcSender")]
pub struct Sender<T, L: Link = DatagramSocket> {
    link: L::Shared,
    values: PhantomData<fn(T)>,
}

impl<T, L: Outgoing> Sender<T, L> {
    /// Sends values over a link: a [`DatagramSocket`], a [`PackedSocket`](crate::PackedSocket), a
    /// [`MessageWriter`](crate::MessageWriter). Never blocks.
    ///
    /// # Examples
    ///
    /// See [`Link`].
    pub fn new(link: L) -> Self {
        Self { link: link.share(), values: PhantomData }
    }
}

impl<T, L: Link> Sender<T, L> {
    /// Blocks until there is room in the peer's queue, and sends the value: all of it, or an error and nothing.
    ///
    /// Its ends go to the receiver, and are closed here. See [`channel`](crate::channel()) for an example.
    ///
    /// # Errors
    ///
    /// The error gives the value back, and `?` turns it into [`Error`]:
    ///
    /// - [`Error::Closed`]: no receiver is left.
    /// - [`Error::Encode`]: the value cannot be encoded, or is over the [receiver's bounds](crate::Receiver#a-sender-that-is-not-trusted)
    ///   for nesting and for elements without bytes.
    /// - [`Error::TooLong`]: the value has more than 253 ends, or 252 if it is too large for a datagram. Or it is too long for
    ///   the link.
    /// - [`Error::CannotCarry`]: the value has ends, and the link carries none.
    /// - [`Error::NotGiven`]: this process was not given the sender, or one of the ends.
    /// - [`Error::System`]: no descriptor is left for a moment's copy of an end, or for the memory of a large value (`EMFILE`).
    ///   Or no memory is left (`ENOMEM`, `ENOBUFS`), or too many ends of this user are under way (`ETOOMANYREFS`).
    ///
    /// [`Error`]: crate::Error
    /// [`Error::Closed`]: crate::Error::Closed
    /// [`Error::Encode`]: crate::Error::Encode
    /// [`Error::TooLong`]: crate::Error::TooLong
    /// [`Error::CannotCarry`]: crate::Error::CannotCarry
    /// [`Error::NotGiven`]: crate::Error::NotGiven
    /// [`Error::System`]: crate::Error::System
    ///
    /// # Platform
    ///
    /// [send(2)](https://man7.org/linux/man-pages/man2/send.2.html) or
    /// [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html). A value that is longer than the socket's
    /// [`max_message`](DatagramSocket::max_message) goes in sealed memory beside the message
    /// ([memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html)). So does one over 208 KiB of which the queue
    /// has no room for two. Memory is used again where `/proc` is mounted, for values of up to 4 MiB.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn send(&self, value: T) -> Result<(), Unsent<T>>
    where
        T: Serialize,
    {
        self.send_value(value, Patience::Blocking)
    }

    /// Sends the value without blocking; otherwise the same as [`send`](Self::send). See [`send_timeout`](Self::send_timeout)
    /// for an example.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`](crate::Error::WouldBlock): the peer's queue is full; and as [`send`](Self::send).
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn try_send(&self, value: T) -> Result<(), Unsent<T>>
    where
        T: Serialize,
    {
        self.send_value(value, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the value; otherwise the same as
    /// [`send`](Self::send).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`](crate::Error::TimedOut): the time is up; and as [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, _receiver) = ipc::channel()?; // nobody receives
    /// while sender.try_send("an old job".to_owned()).is_ok() {} // until the queue is full
    /// let unsent = sender.send_timeout("a job".to_owned(), Duration::from_millis(10)).unwrap_err();
    /// assert!(matches!(unsent.error, ipc::Error::TimedOut));
    /// assert_eq!(unsent.value, "a job"); // for another worker
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), Unsent<T>>
    where
        T: Serialize,
    {
        self.send_value(value, Patience::timeout(timeout))
    }

    /// Sends the value without blocking, and tells a full queue (`WouldBlock`) from busy memory ([`is_busy`](super::is_busy)).
    #[cfg(feature = "tokio")]
    pub(crate) fn attempt(&self, value: &T) -> Result<()>
    where
        T: Serialize,
    {
        value::attempt::<T, L>(&self.link, value, Patience::None)
    }

    #[inline]
    #[allow(clippy::result_large_err)]
    fn send_value(&self, value: T, patience: Patience) -> Result<(), Unsent<T>>
    where
        T: Serialize,
    {
        match value::send::<T, L>(&self.link, &value, patience) {
            Ok(()) => Ok(()),
            Err(error) => Err(Unsent { value, error }),
        }
    }
}

impl<T, L: Link> Sender<T, L> {
    /// Sends the buffered values of the link. Blocks while the peer's queue is full. A [`DatagramSocket`] has no buffer.
    ///
    /// # Errors
    ///
    /// Those of the link's own [`flush`](Link::flush).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ipc::{MessageReader, MessageWriter, Receiver, Sender};
    ///
    /// let (reader, writer) = ipc::pipe()?;
    /// let (sender, receiver) = (Sender::new(MessageWriter::new(writer)), Receiver::new(MessageReader::new(reader)));
    /// for number in 1..=3 {
    ///     sender.send(number)?;
    ///     assert!(matches!(receiver.try_recv(), Err(ipc::Error::WouldBlock))); // it waits in the buffer
    ///     match number {
    ///         1 => sender.flush()?,
    ///         2 => sender.try_flush()?, // without blocking
    ///         _ => sender.flush_timeout(Duration::from_secs(60))?,
    ///     }
    ///     assert_eq!(receiver.recv()?, Some(number));
    /// }
    /// let writer = sender.into_inner();
    /// Sender::<u32, _>::new(writer).close()?;
    /// assert_eq!(receiver.recv()?, None::<u32>);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        L::flush(&self.link, Until(Patience::Blocking))
    }

    /// Sends the buffered values without blocking; otherwise the same as [`flush`](Self::flush), which has
    /// an example.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`](crate::Error::WouldBlock): the peer's queue is full. The buffered values stay.
    /// - Those of [`flush`](Self::flush).
    pub fn try_flush(&self) -> Result<()> {
        L::flush(&self.link, Until(Patience::None))
    }

    /// Sends the buffered values, and blocks for room until the time is up; otherwise the same as [`flush`](Self::flush), which
    /// has an example.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`](crate::Error::TimedOut): the time is up. The buffered values stay.
    /// - Those of [`flush`](Self::flush).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<()> {
        L::flush(&self.link, Until(Patience::timeout(timeout)))
    }

    /// Gives the link back, with the values in its buffer. Never blocks. See [`flush`](Self::flush) for an example.
    pub fn into_inner(self) -> L {
        L::unshare(self.link)
    }

    /// Flushes and closes, and returns the error of either. Blocks while the link has buffered values and the peer's queue is
    /// full. The receivers get EOF when it was the last sender. See [`flush`](Self::flush) for an example.
    ///
    /// Dropping closes too, and returns no error. A [`PackedSocket`](crate::PackedSocket) and a
    /// [`MessageWriter`](crate::MessageWriter) then wait for room for at most a second, and lose the rest of their values.
    ///
    /// # Errors
    ///
    /// Those of the link's own [`close`](Link::close).
    pub fn close(self) -> Result<()> {
        self.into_inner().close()
    }
}

impl<T> Sender<T> {
    /// Makes another sender of the same channel. Never blocks.
    ///
    /// The receivers get EOF when all of them are closed, in every process: see the [example](crate::guide::closing) of a pipe.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`](crate::Error::NotGiven): this process was not given the sender.
    /// - [`Error::System`](crate::Error::System): no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self::new(self.link.try_clone()?))
    }

    /// Sets how long a call looks again for room before it sleeps; at first it does not. See [`DatagramSocket::set_spin`], and
    /// the [example](crate::guide::spinning) of a pipe.
    pub fn set_spin(&mut self, spin: Duration) {
        self.link.set_spin(spin);
    }
}

impl<T> TryFrom<OwnedFd> for Sender<T> {
    type Error = FromFdError;

    /// Takes the descriptor over, if a [`DatagramSocket`] can. The type of the other side's values is not checked.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        DatagramSocket::try_from(fd).map(Self::new)
    }
}

super::channel_traits!([T] Sender<T>);

impl<T, L: Link> fmt::Debug for Sender<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.link).finish()
    }
}
