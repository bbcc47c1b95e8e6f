//! The receiving end of a channel.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::link::{Incoming, Link};
use super::value;
use super::values::Values;
use crate::end::FromFdError;
use crate::error::{Error, Result};
use crate::socket::DatagramSocket;
use crate::wait::{Patience, Watch};

/// The longest value that is received unless another limit is set, in bytes.
pub(super) const MAX: usize = 64 << 20;

/// The end of a [`channel`](crate::channel()) that receives values.
///
/// All calls take `&self`. Several threads and processes can receive from one channel ([`try_clone`](Self::try_clone)): each
/// value goes to one of them. See [`channel`](crate::channel()) for an example.
///
/// A `Receiver` is an end: it is given to a child, to a program and in messages like any other. It can be a field of a value
/// itself. A receiver over a link with a buffer ([`Link`]) is no end: make it in the process that uses it.
///
/// # A sender that is not trusted
///
/// A bad message costs its sender that message alone. One that is no `T` is [`Error::Decode`], and one over
/// [`set_max_message`](Self::set_max_message) is [`Error::TooLong`]. The next value can be received.
///
/// Ends that no field of the value takes are closed. A list is no longer than its message has bytes, and 4096 more where its
/// elements take none. Values nest 128 levels deep: structures, tuples, lists, maps, enums, `Some`s and newtypes count one each. `T`
/// decides how much memory a value takes: a list of large structures, each one byte long in the message, takes more than the
/// message. Where there is no memory for a string or for bytes, that is an error. A list or a map ends the process then, as
/// the collections of the standard library do.
///
/// # Memory
///
/// Each thread keeps the buffer to which it copies large values, of up to 4 MiB. It is the one in which the thread encodes.
///
/// # What does not compile
///
/// A type that serde cannot decode, and one that borrows from the message:
///
/// ```compile_fail,E0277
/// #[derive(serde::Serialize)]
/// struct Job(u32); // without Deserialize
///
/// let (_sender, receiver) = ipc::channel::<Job>()?;
/// receiver.recv()?;
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// ```compile_fail
/// let (_sender, receiver) = ipc::channel::<&str>()?;
/// receiver.recv()?;
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// A receiver made of a link that only sends:
///
/// ```compile_fail,E0277
/// let (_reader, writer) = ipc::pipe()?;
/// let receiver = ipc::Receiver::<u32, _>::new(ipc::MessageWriter::new(writer));
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "IpcReceiver")]
pub struct Receiver<T, L: Link = DatagramSocket> {
    link: L::Shared,
    max: AtomicUsize,
    values: PhantomData<fn() -> T>,
}

impl<T, L: Incoming> Receiver<T, L> {
    /// Receives values over a link: a [`DatagramSocket`], a [`PackedSocket`](crate::PackedSocket), a
    /// [`MessageReader`](crate::MessageReader). Never blocks. The receiver begins with the limit of a `MessageReader`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, _writer) = ipc::pipe()?;
    /// let mut reader = ipc::MessageReader::new(reader);
    /// reader.set_max_message(1000);
    /// let receiver: ipc::Receiver<String, _> = ipc::Receiver::new(reader);
    /// assert_eq!(receiver.max_message(), 1000);
    ///
    /// let reader = receiver.into_inner();
    /// ipc::Receiver::<u64, _>::new(reader).close()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn new(link: L) -> Self {
        Self { max: AtomicUsize::new(link.limit()), link: link.share(), values: PhantomData }
    }
}

impl<T, L: Link> Receiver<T, L> {
    /// Blocks until a value arrives, and returns it. `None` is EOF: every sender is gone, and everything was received. See
    /// [`Link`] for an example.
    ///
    /// # Errors
    ///
    /// After these, the next value can be received:
    ///
    /// - [`Error::Decode`]: the message is no `T`. It is in the error.
    /// - [`Error::TooLong`]: the value is longer than [`set_max_message`](Self::set_max_message) allows.
    /// - [`Error::EndsLost`]: this process has no descriptors left for the ends of the value.
    /// - [`Error::Reset`]: the peer left before it received all messages of this side; only over a socket that sends too.
    ///
    /// These would come again:
    ///
    /// - [`Error::NotGiven`]: this process was not given the receiver.
    /// - [`Error::InvalidInput`]: the link is a ring that is larger than its reader maps.
    /// - [`Error::WouldBlock`]: the socket was made elsewhere, with `O_NONBLOCK`, and there is no value.
    /// - [`Error::System`]: no address space (`ENOMEM`). The value stays if it could not be received. It is lost if it was
    ///   received, and there was no memory to map or to decode it.
    ///
    /// And those of the link.
    ///
    /// # Platform
    ///
    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html).
    pub fn recv(&self) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        self.receive(Patience::Blocking)
    }

    /// Receives a value without blocking; otherwise the same as [`recv`](Self::recv). See [`recv_timeout`](Self::recv_timeout)
    /// for an example.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no value, and a sender is left; and as [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        self.receive(Patience::None)
    }

    /// Blocks until a value arrives or the time is up; otherwise the same as [`recv`](Self::recv).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals, and
    /// when another receiver takes the value that this call was woken for.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (numbers, receiver) = ipc::channel::<u32>()?;
    /// assert!(matches!(receiver.try_recv(), Err(ipc::Error::WouldBlock)));
    /// assert!(matches!(receiver.recv_timeout(Duration::from_millis(10)), Err(ipc::Error::TimedOut)));
    /// numbers.send(7)?;
    /// assert_eq!(receiver.recv_timeout(Duration::from_secs(60))?, Some(7));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        self.receive(Patience::timeout(timeout))
    }

    /// Returns an iterator over the values that arrive, until EOF. Its `next` blocks. An error that would come again ends it
    /// too.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = ipc::channel()?;
    /// for word in ["one", "two"] {
    ///     sender.send(word.to_owned())?;
    /// }
    /// sender.close()?;
    /// assert_eq!(receiver.iter().collect::<ipc::Result<Vec<String>>>()?, ["one", "two"]);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "into_iter")]
    pub fn iter(&self) -> Values<'_, Self>
    where
        T: DeserializeOwned,
    {
        Values::new(self)
    }

    /// Returns an iterator over the values that have arrived. Never blocks: it ends where [`iter`](Self::iter) would block or
    /// end.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = ipc::channel()?;
    /// sender.send(1)?;
    /// sender.send(2)?;
    /// assert_eq!(receiver.try_iter().collect::<ipc::Result<Vec<u32>>>()?, [1, 2]);
    /// sender.send(3)?;
    /// assert_eq!(receiver.try_iter().collect::<ipc::Result<Vec<u32>>>()?, [3]);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_iter(&self) -> impl Iterator<Item = Result<T>>
    where
        T: DeserializeOwned,
    {
        Values::new(self).arrived::<T, L>(Self::try_recv)
    }

    #[inline]
    fn receive(&self, patience: Patience) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        value::recv::<T, L>(&self.link, self.max.load(Relaxed), patience)
    }
}

/// Whether the error concerns one value, or none: the next call is about another.
pub(crate) fn is_over_with_the_value(error: &Error) -> bool {
    matches!(
        error,
        Error::Decode { .. }
            | Error::TooLong { .. }
            | Error::EndsLost { .. }
            | Error::Reset
            | Error::Malformed { .. }
            | Error::Truncated { .. }
    )
}

impl<T, L: Link> Receiver<T, L> {
    /// Returns the longest value that is received, in bytes; at first 64 MiB, or the [limit of the link](Incoming::limit). See
    /// [`set_max_message`](Self::set_max_message) for an example.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Sets the longest value that is received, in bytes; [`usize::MAX`]: any.
    ///
    /// The limit is there against a peer that fills this process's memory, and is checked before memory is taken. A value over
    /// the limit is [`Error::TooLong`] and skipped. The limit belongs to this `Receiver`, and does not travel with it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = ipc::channel()?;
    /// sender.send("x".repeat(1 << 20))?;
    /// sender.send("short".to_owned())?;
    ///
    /// receiver.set_max_message(1000);
    /// assert_eq!(receiver.max_message(), 1000);
    /// assert!(matches!(receiver.recv(), Err(ipc::Error::TooLong { max: 1000, .. })));
    /// assert_eq!(receiver.recv()?.as_deref(), Some("short"));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn set_max_message(&self, bytes: usize) {
        self.max.store(bytes, Relaxed);
    }

    /// For [`wait_any`](crate::wait_any): ready when [`try_recv`](Self::try_recv) is worth a try. Never blocks.
    ///
    /// If a value has arrived in the buffer of a link, `wait_any` returns at once. Over a link without a buffer,
    /// [`Watch::readable`] of the receiver is the same.
    ///
    /// # Errors
    ///
    /// Those of the link's own [`watch`](Link::watch).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (_quiet, mut first) = ipc::channel::<u32>()?;
    /// let (busy, mut second) = ipc::channel()?;
    /// busy.send(7)?;
    /// let how_many = ipc::wait_any(&mut [first.watch()?, second.watch()?], Some(Duration::from_secs(60)))?;
    /// assert_eq!(how_many, 1);
    /// assert!(matches!(first.try_recv(), Err(ipc::Error::WouldBlock)));
    /// assert_eq!(second.try_recv()?, Some(7));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn watch(&mut self) -> Result<Watch<'_>> {
        L::watch(&mut self.link)
    }

    /// Gives the link back, with the values in its buffer. Never blocks. See [`new`](Self::new) for an example.
    pub fn into_inner(self) -> L {
        L::unshare(self.link)
    }

    /// Closes the receiver, and returns the link's error if there is one. Senders get [`Error::Closed`] when it was the last
    /// receiver. Dropping closes too. See [`new`](Self::new) for an example.
    ///
    /// # Errors
    ///
    /// Those of the link's own [`close`](Link::close).
    pub fn close(self) -> Result<()> {
        self.into_inner().close()
    }
}

impl<T> Receiver<T> {
    /// Makes another receiver of the same channel; each value goes to one of them. Never blocks. The guide clones an end in an
    /// [example](crate::guide::closing).
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the receiver.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        let clone = Self::new(self.link.try_clone()?);
        clone.set_max_message(self.max_message());
        Ok(clone)
    }

    /// Sets how long a call looks again for a value before it sleeps; at first it does not. See [`DatagramSocket::set_spin`],
    /// and the [example](crate::guide::spinning) of a pipe.
    pub fn set_spin(&mut self, spin: Duration) {
        self.link.set_spin(spin);
    }
}

impl<T> TryFrom<OwnedFd> for Receiver<T> {
    type Error = FromFdError;

    /// Takes the descriptor over, if a [`DatagramSocket`] can. The type of the other side's values is not checked.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        DatagramSocket::try_from(fd).map(Self::new)
    }
}

super::channel_traits!([T] Receiver<T>);

impl<T, L: Link> fmt::Debug for Receiver<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.link).finish()
    }
}
