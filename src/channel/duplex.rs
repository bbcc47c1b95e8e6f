//! Values both ways: orders and answers.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::link;
use super::receiver::MAX;
use super::unsent::{CallError, Unsent};
use super::value;
use super::values::Values;
use crate::end::FromFdError;
use crate::error::{Error, Result};
use crate::socket::DatagramSocket;
use crate::wait::{Patience, Until, Watch};

/// One end of a [`duplex`](crate::duplex()): sends values of one type and receives values of another.
///
/// Everything about [`Sender`](crate::Sender) and [`Receiver`](crate::Receiver) holds here. Besides, [`call`](Self::call) sends a
/// value and waits for the next one. See [`duplex`](crate::duplex()) for an example.
#[doc(alias = "rpc")]
#[doc(alias = "bidirectional")]
pub struct Duplex<S, R> {
    link: DatagramSocket,
    max: AtomicUsize,
    /// How many messages this end and its clones have taken.
    taken: Arc<AtomicU64>,
    /// How many there were, and one, when a call was made whose answer is to come as long as there are no more.
    late: AtomicU64,
    values: PhantomData<fn(S) -> R>,
}

impl<S, R> Duplex<S, R> {
    /// Sends and receives values over a socket. Never blocks. [`duplex`](crate::duplex()) makes both ends.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::duplex::<u32, u32>()?;
    /// let end = ipc::Duplex::<u32, u32>::new(pair.parent.into_inner());
    /// assert!(matches!(pair.child.try_recv(), Err(ipc::Error::WouldBlock)));
    /// end.try_send(7)?;
    /// end.flush()?;
    /// assert_eq!(pair.child.try_recv()?, Some(7));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn new(socket: DatagramSocket) -> Self {
        let (taken, late) = Default::default();
        Self { link: socket, max: AtomicUsize::new(MAX), taken, late, values: PhantomData }
    }
}

#[allow(clippy::result_large_err)] // what fails gives the value back
impl<S, R> Duplex<S, R> {
    /// Blocks until there is room in the peer's queue, and sends the value: all of it, or an error and nothing. See
    /// [`duplex`](crate::duplex()) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Sender::send`](crate::Sender::send).
    pub fn send(&self, value: S) -> Result<(), Unsent<S>>
    where
        S: Serialize,
    {
        self.send_value(value, Patience::Blocking)
    }

    /// Sends the value without blocking. See [`new`](Self::new) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Sender::try_send`](crate::Sender::try_send).
    pub fn try_send(&self, value: S) -> Result<(), Unsent<S>>
    where
        S: Serialize,
    {
        self.send_value(value, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the value. See
    /// [`Sender::send_timeout`](crate::Sender::send_timeout) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Sender::send_timeout`](crate::Sender::send_timeout).
    pub fn send_timeout(&self, value: S, timeout: Duration) -> Result<(), Unsent<S>>
    where
        S: Serialize,
    {
        self.send_value(value, Patience::timeout(timeout))
    }

    #[inline]
    fn send_value(&self, value: S, patience: Patience) -> Result<(), Unsent<S>>
    where
        S: Serialize,
    {
        value::send::<S, DatagramSocket>(&self.link, &value, patience).map_err(|error| Unsent { value, error })
    }

    /// As the sender's.
    #[cfg(feature = "tokio")]
    pub(crate) fn attempt(&self, value: &S) -> Result<()>
    where
        S: Serialize,
    {
        value::attempt::<S, DatagramSocket>(&self.link, value, Patience::None)
    }
}

impl<S, R> Duplex<S, R> {
    /// Blocks until a value arrives, and returns it. `None` is EOF: every other end is gone, and everything was received. See
    /// [`duplex`](crate::duplex()) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Receiver::recv`](crate::Receiver::recv).
    pub fn recv(&self) -> Result<Option<R>>
    where
        R: DeserializeOwned,
    {
        self.receive(Patience::Blocking)
    }

    /// Receives a value without blocking. See [`new`](Self::new) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Receiver::try_recv`](crate::Receiver::try_recv).
    pub fn try_recv(&self) -> Result<Option<R>>
    where
        R: DeserializeOwned,
    {
        self.receive(Patience::None)
    }

    /// Blocks until a value arrives or the time is up. See [`call_timeout`](Self::call_timeout) for an example.
    ///
    /// # Errors
    ///
    /// The same as [`Receiver::recv_timeout`](crate::Receiver::recv_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<R>>
    where
        R: DeserializeOwned,
    {
        self.receive(Patience::timeout(timeout))
    }

    /// Returns an iterator over the values that arrive, until EOF. Its `next` blocks. An error that would come again ends it
    /// too. See [`Receiver::iter`](crate::Receiver::iter) for an example.
    pub fn iter(&self) -> Values<'_, Self>
    where
        R: DeserializeOwned,
    {
        Values::new(self)
    }

    /// Returns an iterator over the values that have arrived. Never blocks: it ends where [`iter`](Self::iter) would block or
    /// end. See [`Receiver::try_iter`](crate::Receiver::try_iter) for an example.
    pub fn try_iter(&self) -> impl Iterator<Item = Result<R>>
    where
        R: DeserializeOwned,
    {
        Values::new(self).arrived::<R, DatagramSocket>(Self::try_recv)
    }

    fn receive(&self, patience: Patience) -> Result<Option<R>>
    where
        R: DeserializeOwned,
    {
        self.take(patience)?
    }

    /// Receives. An error inside is that of a message that was taken, whatever became of it.
    fn take(&self, patience: Patience) -> Result<Result<Option<R>>>
    where
        R: DeserializeOwned,
    {
        let taken = link::receive(&self.link, self.max.load(Relaxed), Until(patience), value::open::<R>);
        if is_answered(&taken) {
            self.taken.fetch_add(1, Relaxed);
        }
        Ok(taken?.transpose().and_then(Option::transpose))
    }
}

impl<S, R> Duplex<S, R> {
    /// Sends a value, and blocks until the next one arrives. `None` is EOF: the peer is gone, and did not answer. See
    /// [`duplex`](crate::duplex()) for an example.
    ///
    /// It takes `&mut self`, so that no two calls of this end wait at once and get each other's answer. Calls through a clone
    /// can, as all clones share one queue of answers. A value that the peer sends unasked is taken for the answer.
    ///
    /// # Errors
    ///
    /// The error says whether the value was sent, and gives it back if it was not; `?` turns it into [`Error`].
    ///
    /// - [`Error::Closed`]: the peer was gone before. The value is given back, and [`recv`](Self::recv) takes what the peer sent.
    /// - [`Error::Reset`]: the peer went away without receiving the value.
    /// - [`Error::Unread`]: the answer to a call that was given up is still to come. Receive it first.
    /// - The same as [`send`](Self::send), with the value, and as [`recv`](Self::recv), without it.
    pub fn call(&mut self, value: S) -> Result<Option<R>, CallError<S>>
    where
        S: Serialize,
        R: DeserializeOwned,
    {
        self.call_value(value, Patience::Blocking)
    }

    /// Sends a value, and blocks until the next one arrives or the time is up; otherwise the same as [`call`](Self::call).
    ///
    /// If the time is up after the value was sent, its answer is still to come. The next call fails with [`Error::Unread`]
    /// until a `recv` has taken that answer. An end that is sent in a message forgets about it: receive the answer first.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`call`](Self::call).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pair = ipc::duplex::<u32, u32>()?;
    /// let mut calls = pair.parent;
    /// let late = calls.call_timeout(1, Duration::from_millis(10)).unwrap_err();
    /// assert!(matches!(late.error, ipc::Error::TimedOut) && late.unsent.is_none());
    ///
    /// let refused = calls.call(2).unwrap_err();
    /// assert!(matches!(refused.error, ipc::Error::Unread) && refused.unsent == Some(2));
    ///
    /// pair.child.send(100)?; // the answer, late
    /// assert_eq!(calls.recv()?, Some(100));
    /// pair.child.send(200)?;
    /// assert_eq!(calls.call(2)?, Some(200));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn call_timeout(&mut self, value: S, timeout: Duration) -> Result<Option<R>, CallError<S>>
    where
        S: Serialize,
        R: DeserializeOwned,
    {
        self.call_value(value, Patience::timeout(timeout))
    }

    fn call_value(&mut self, value: S, patience: Patience) -> Result<Option<R>, CallError<S>>
    where
        S: Serialize,
        R: DeserializeOwned,
    {
        if self.is_late() {
            return Err(CallError { unsent: Some(value), error: Error::Unread });
        }
        let before = self.taken.load(Relaxed);
        self.send_value(value, patience)?;
        let taken = self.take(patience);
        if !is_answered(&taken) {
            *self.late.get_mut() = before + 1;
        }
        taken.and_then(|answer| answer).map_err(|error| CallError { unsent: None, error })
    }
}

/// Whether an answer was taken, or none comes any more: [`Error::Reset`] is the last thing before EOF.
fn is_answered<T>(taken: &Result<T>) -> bool {
    matches!(taken, Ok(_) | Err(Error::Reset))
}

impl<S, R> Duplex<S, R> {
    /// Whether the answer to a call that was given up is still to come.
    pub(crate) fn is_late(&self) -> bool {
        self.late.load(Relaxed) == self.taken.load(Relaxed) + 1
    }

    /// Notes that an answer is to come, until it has come. For calls that are awaited.
    #[cfg(feature = "tokio")]
    pub(crate) fn expect_answer(&self) {
        self.late.store(self.taken.load(Relaxed) + 1, Relaxed);
    }
}

impl<S, R> Duplex<S, R> {
    /// Does nothing: a value that was sent is on its way. It exists because [`Sender`](crate::Sender) has it. See
    /// [`new`](Self::new) for an example.
    ///
    /// # Errors
    ///
    /// None.
    pub fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Does nothing, as [`flush`](Self::flush). See [`Sender::flush`](crate::Sender::flush) for an example.
    ///
    /// # Errors
    ///
    /// None.
    pub fn try_flush(&self) -> Result<()> {
        Ok(())
    }

    /// Does nothing, as [`flush`](Self::flush), and takes no time. See [`Sender::flush`](crate::Sender::flush) for an example.
    ///
    /// # Errors
    ///
    /// None.
    pub fn flush_timeout(&self, _timeout: Duration) -> Result<()> {
        Ok(())
    }

    /// For [`wait_any`](crate::wait_any): the same as [`Watch::readable`] of the end. Never blocks. See
    /// [`Receiver::watch`](crate::Receiver::watch) for an example.
    ///
    /// # Errors
    ///
    /// None.
    pub fn watch(&mut self) -> Result<Watch<'_>> {
        Ok(Watch::readable(&self.link))
    }

    /// Returns the longest value that is received, in bytes; 64 MiB at first. See
    /// [`Receiver::set_max_message`](crate::Receiver::set_max_message) for an example.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Sets the longest value that is received, in bytes. See
    /// [`Receiver::set_max_message`](crate::Receiver::set_max_message) for an example.
    pub fn set_max_message(&self, bytes: usize) {
        self.max.store(bytes, Relaxed);
    }

    /// Makes another end of the same channel: each value goes to one of them. Never blocks. The guide clones an end in an
    /// [example](crate::guide::closing).
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        let (max, late) = (self.max_message().into(), self.late.load(Relaxed).into());
        Ok(Self { link: self.link.try_clone()?, max, taken: Arc::clone(&self.taken), late, values: PhantomData })
    }

    /// Sets how long a call looks again before it sleeps; at first it does not. See [`DatagramSocket::set_spin`], and the
    /// [example](crate::guide::spinning) of a pipe.
    pub fn set_spin(&mut self, spin: Duration) {
        self.link.set_spin(spin);
    }

    /// Gives the socket of the end back. Never blocks. See [`new`](Self::new) for an example.
    ///
    /// The answer to a call that was given up may still arrive at the socket.
    pub fn into_inner(self) -> DatagramSocket {
        self.link.marked()
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Dropping closes too. See
    /// [`duplex`](crate::duplex()) for an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: other code closed the number.
    pub fn close(self) -> Result<()> {
        self.link.close()
    }
}

impl<S, R> TryFrom<OwnedFd> for Duplex<S, R> {
    type Error = FromFdError;

    /// Takes the descriptor over, if a [`DatagramSocket`] can. The type of the other side's values is not checked.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        DatagramSocket::try_from(fd).map(Self::new)
    }
}

super::channel_traits!([S, R] Duplex<S, R>);

impl<S, R> fmt::Debug for Duplex<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Duplex").field(&self.link).finish()
    }
}
