//! The ends of typed channels.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tokio::io::Interest;
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Watched, nap};
use crate::channel::{self, CallError, Unsent, is_busy, is_over_with_the_value};
use crate::error::{Error, Result};

/// The sending end of a [`channel`](crate::channel()), for tokio: a [`Sender`](crate::Sender) whose sending is awaited.
///
/// # Examples
///
/// ```
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let (sender, receiver) = ipc::channel::<String>()?;
/// let sender = ipc::tokio::Sender::new(sender)?;
/// let receiver = ipc::tokio::Receiver::new(receiver)?;
/// sender.send("a value".to_owned()).await?;
/// assert_eq!(receiver.recv().await?.as_deref(), Some("a value"));
/// drop(sender);
/// assert_eq!(receiver.recv().await?, None); // EOF
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Sender<T>(Watched<channel::Sender<T>>);

impl<T> Sender<T> {
    /// Puts the runtime's watch on an end. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`](super::PipeReader::new).
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled.
    ///
    /// # Examples
    ///
    /// See [`Sender`].
    pub fn new(end: channel::Sender<T>) -> io::Result<Self> {
        Watched::new(end, Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> channel::Sender<T> {
        self.0.into_inner()
    }

    /// Waits until there is room for the value, and sends it.
    ///
    /// Each attempt blocks the thread for up to 150 ms, while the kernel holds the memory of a value too large for a datagram.
    /// At most eight are made, with naps of 1 ms to 64 ms between them. Then the error is [`Error::System`] (`EBUSY`).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a value is sent whole or not at all. If the future is dropped before, the value is dropped with it.
    ///
    /// # Errors
    ///
    /// The same as [`Sender::send`](crate::Sender::send). The value is given back.
    ///
    /// # Examples
    ///
    /// See [`Sender`].
    pub async fn send(&self, value: T) -> Result<(), Unsent<T>>
    where
        T: Serialize,
    {
        send(&self.0, value, channel::Sender::attempt).await
    }
}

/// The receiving end of a [`channel`](crate::channel()), for tokio: a [`Receiver`](crate::Receiver) whose values are awaited.
///
/// It is a `Stream` too, of the values until EOF. An error that would come again ends it. The combinators of `futures` and
/// `tokio-stream` work on it. Their `next` is cancel safe, as [`recv`](Self::recv) is.
///
/// # Examples
///
/// With [`recv`](Self::recv), see [`Sender`]. As a `Stream`:
///
/// ```
/// use std::future::poll_fn;
/// use std::pin::pin;
///
/// use futures_core::Stream;
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let (sender, receiver) = ipc::channel::<u32>()?;
/// sender.send(1)?;
/// sender.send(2)?;
/// drop(sender);
///
/// let mut values = pin!(ipc::tokio::Receiver::new(receiver)?);
/// let mut sum = 0;
/// // `while let Some(value) = values.try_next().await?`, with the extension trait of `futures`.
/// while let Some(value) = poll_fn(|cx| values.as_mut().poll_next(cx)).await {
///     sum += value?;
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Receiver<T> {
    end: Watched<channel::Receiver<T>>,
    /// Whether the stream has ended.
    is_over: bool,
}

impl<T> Receiver<T> {
    /// Puts the runtime's watch on an end. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`](super::PipeReader::new).
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled.
    ///
    /// # Examples
    ///
    /// See [`Receiver`].
    pub fn new(end: channel::Receiver<T>) -> io::Result<Self> {
        Ok(Self { end: Watched::new(end, Interest::READABLE)?, is_over: false })
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> channel::Receiver<T> {
        self.end.into_inner()
    }

    /// Waits until a value arrives, and returns it. `None` is EOF: every sender is gone, and everything was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a value is taken whole or not at all.
    ///
    /// # Errors
    ///
    /// The same as [`Receiver::recv`](crate::Receiver::recv).
    ///
    /// # Examples
    ///
    /// See [`Receiver`].
    pub async fn recv(&self) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        self.end.call(Interest::READABLE, channel::Receiver::try_recv).await
    }
}

impl<T: DeserializeOwned> Stream for Receiver<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let received = ready!(this.end.poll_read(cx, channel::Receiver::try_recv));
        this.is_over = match &received {
            Ok(value) => value.is_none(),
            Err(error) => !is_over_with_the_value(error),
        };
        Poll::Ready(received.transpose())
    }
}

/// An end of a [`duplex`](crate::duplex()), for tokio: a [`Duplex`](crate::Duplex) whose values and calls are awaited.
///
/// # Examples
///
/// ```
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let pair = ipc::duplex::<u32, String>()?;
/// let mut calls = ipc::tokio::Duplex::new(pair.parent)?;
/// pair.child.send("the answer".to_owned())?;
/// assert_eq!(calls.call(7).await?.as_deref(), Some("the answer"));
/// pair.child.send("more".to_owned())?;
/// assert_eq!(calls.recv().await?.as_deref(), Some("more"));
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Duplex<S, R>(Watched<channel::Duplex<S, R>>);

impl<S, R> Duplex<S, R> {
    /// Puts the runtime's watch on an end. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`](super::PipeReader::new).
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled.
    ///
    /// # Examples
    ///
    /// See [`Duplex`].
    pub fn new(end: channel::Duplex<S, R>) -> io::Result<Self> {
        Watched::new(end, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> channel::Duplex<S, R> {
        self.0.into_inner()
    }

    /// Waits until there is room for the value, and sends it. A large value may block the thread for a while, as in
    /// [`Sender::send`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`Sender::send`].
    ///
    /// # Errors
    ///
    /// The same as [`Sender::send`](crate::Sender::send). The value is given back.
    ///
    /// # Examples
    ///
    /// See [`Duplex`].
    pub async fn send(&self, value: S) -> Result<(), Unsent<S>>
    where
        S: Serialize,
    {
        send(&self.0, value, channel::Duplex::attempt).await
    }

    /// Waits until a value arrives, and returns it. `None` is EOF.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// The same as [`Receiver::recv`](crate::Receiver::recv).
    ///
    /// # Examples
    ///
    /// See [`Duplex`].
    pub async fn recv(&self) -> Result<Option<R>>
    where
        R: DeserializeOwned,
    {
        self.0.call(Interest::READABLE, channel::Duplex::try_recv).await
    }

    /// Sends a value, and waits until the next one arrives. `None` is EOF: the peer is gone, and did not answer.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, but no answer is mixed up. If the future is dropped after the value was sent, the answer is still
    /// to come. The next call is [`Error::Unread`] until [`recv`](Self::recv) has taken it.
    ///
    /// # Errors
    ///
    /// The same as [`Duplex::call`](crate::Duplex::call).
    ///
    /// # Examples
    ///
    /// See [`Duplex`].
    pub async fn call(&mut self, value: S) -> Result<Option<R>, CallError<S>>
    where
        S: Serialize,
        R: DeserializeOwned,
    {
        if self.0.end().is_late() {
            return Err(CallError { unsent: Some(value), error: Error::Unread });
        }
        self.send(value).await?;
        self.0.end().expect_answer();
        self.recv().await.map_err(|error| CallError { unsent: None, error })
    }
}

/// Returns how long busy memory is left alone, after each attempt but the last. Each encodes the value anew, and the kernel
/// may sleep in it for a tenth of a second, on the runtime's thread.
fn naps() -> impl Iterator<Item = Duration> {
    (0..7).map(|i| Duration::from_millis(1 << i))
}

/// Makes a sending attempt until there is room in the queue, and not for ever while the memory of a large value is busy.
async fn send<E: AsRawFd, T>(
    end: &Watched<E>,
    mut value: T,
    attempt: impl Fn(&E, &T) -> Result<()>,
) -> Result<(), Unsent<T>> {
    // Borrowed for this alone, so that a value without `Sync` can be sent from any thread.
    let lent = &mut value;
    match until_sent(end, move || attempt(end.end(), lent)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(Unsent { value, error }),
    }
}

async fn until_sent<E: AsRawFd>(end: &Watched<E>, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let mut naps = self::naps();
    loop {
        let busy = end.call(Interest::WRITABLE, |_| match attempt() {
            Ok(()) => Ok(None),
            // The runtime would wait for room that is there already.
            Err(error) if is_busy(&error) => Ok(Some(error)),
            Err(error) => {
                naps = self::naps();
                Err(error)
            }
        });
        match busy.await? {
            None => return Ok(()),
            Some(busy) => nap(naps.next().ok_or(busy)?).await?,
        }
    }
}

impl<T> AsFd for Sender<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}

impl<T> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.end().as_fd()
    }
}

impl<S, R> AsFd for Duplex<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.end.fmt(f)
    }
}

impl<S, R> fmt::Debug for Duplex<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
