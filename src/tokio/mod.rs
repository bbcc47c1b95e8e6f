//! The ends for [tokio](https://docs.rs/tokio): reading, writing, sending, receiving and waiting as `async fn`.
//!
//! Each type here wraps the end of the same name: `new` takes it, inside a runtime, and `into_inner` gives it back. The end
//! itself stays as it is: **`O_NONBLOCK` is never set**. Other holders of the end, in this process or another, still block
//! where they did before. The runtime only tells when a `try_` call is worth making. `new`, reading and writing return an
//! [`io::Error`], as tokio's own types do, and the other calls an [`Error`]. Settings, such as limits, are made
//! before, on the end itself.
//!
//! [`communicate`] talks to a program. The chapter of the guide about [tokio](crate::guide::tokio) also shows the ends with
//! async-io, for programs without tokio.
//!
//! # Cancel safety
//!
//! The docs of every method say whether it is cancel safe: whether its future can be dropped, as `tokio::select!` and
//! timeouts do, without losing anything. Sending and receiving messages are cancel safe: a message is taken whole or not at
//! all.
//!
//! # Runtimes
//!
//! Both flavours of the runtime work. An end belongs to the runtime that it was made in, and its calls fail once that is gone.
//! [`into_inner`](PipeReader::into_inner) still gives the blocking end back, also outside of a runtime.
//!
//! # Forking
//!
//! [`fork`](crate::fork()) is refused inside a runtime: it returns [`Error::InsideRuntime`]. A child would share the
//! runtime's epoll instance with its parent, and dropping an end there would end the parent's watch of it. Fork before the
//! runtime is entered, or have a [`ForkServer`](crate::ForkServer) fork. A runtime that was built and not entered is
//! refused too if it has worker threads ([`Error::MultiThreaded`]). One on the current thread is not noticed: the child
//! must not use or drop it.
//!
//! # Examples
//!
//! ```
//! use ::tokio::io::{AsyncBufReadExt, BufReader};
//!
//! // Before the runtime: a child that writes lines.
//! let (reader, writer) = ipc::pipe()?;
//! let child = ipc::fork(writer, |mut writer| {
//!     use std::io::Write;
//!     writer.write_all(b"one\ntwo\n")
//! })?;
//!
//! let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build()?;
//! runtime.block_on(async {
//!     let child = ipc::tokio::Child::new(child)?;
//!     let mut lines = BufReader::new(ipc::tokio::PipeReader::new(reader)?).lines();
//!     assert_eq!(lines.next_line().await?.as_deref(), Some("one"));
//!     assert_eq!(lines.next_line().await?.as_deref(), Some("two"));
//!     assert_eq!(lines.next_line().await?, None);
//!     assert!(child.wait().await?.success());
//!     Ok::<(), ipc::Error>(())
//! })?;
//! # Ok::<(), ipc::Error>(())
//! ```
//!
//! [`Error::InsideRuntime`]: crate::Error::InsideRuntime
//! [`Error::MultiThreaded`]: crate::Error::MultiThreaded

#[cfg(feature = "channel")]
mod channel;
mod child;
mod communicate;
mod datagram;
mod pipe;
mod ring;
mod signals;
mod stream;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{Interest, ReadBuf};
use ::tokio::runtime::Handle;

#[cfg(feature = "channel")]
pub use channel::{Duplex, Receiver, Sender};
pub use child::Child;
pub use communicate::communicate;
pub use datagram::DatagramSocket;
pub use pipe::{PipeReader, PipeWriter};
pub use ring::{RingReader, RingWriter};
pub use signals::Signals;
pub use stream::StreamSocket;

use crate::error::{Error, Result};
use crate::sys;

/// An end that the runtime watches.
///
/// [`AsyncFd`] asks for `O_NONBLOCK` because a plain call would block the runtime's thread. Only calls that never block are made
/// here, and epoll does not look at the flag.
struct Watched<T: AsRawFd>(AsyncFd<T>);

impl<T: AsRawFd> Watched<T> {
    fn new(end: T, interest: Interest) -> io::Result<Self> {
        check_runtime()?;
        sys::runtime::watch(end, interest).map(Self)
    }

    fn end(&self) -> &T {
        self.0.get_ref()
    }

    fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// Makes a `try_` call until it does not return `WouldBlock`. Only that clears readiness, and only of the direction
    /// that was tried. A short count does not: long writes to a pipe are cut.
    async fn call<R>(&self, interest: Interest, mut attempt: impl FnMut(&T) -> Result<R>) -> Result<R> {
        self.0.async_io(interest, |end| outcome(attempt(end))).await?
    }

    fn poll_read<R>(&self, cx: &mut Context<'_>, mut attempt: impl FnMut(&T) -> Result<R>) -> Poll<Result<R>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(done) = guard.try_io(|end| outcome(attempt(end.get_ref()))) {
                return Poll::Ready(done?);
            }
        }
    }

    fn poll_write<R>(&self, cx: &mut Context<'_>, mut attempt: impl FnMut(&T) -> Result<R>) -> Poll<Result<R>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(done) = guard.try_io(|end| outcome(attempt(end.get_ref()))) {
                return Poll::Ready(done?);
            }
        }
    }

    /// The body of an `AsyncRead`, around a `try_read`.
    fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut try_read: impl FnMut(&T, &mut [u8]) -> Result<usize>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let count =
            ready!(self.poll_read(cx, |end| try_read(end, buf.initialize_unfilled()))).map_err(Error::into_io)?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsRawFd + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.end().fmt(f)
    }
}

/// Awaits something until a deadline. `None`: the time is up. A runtime's own timers may not be enabled.
async fn until<T>(deadline: Option<Instant>, done: impl Future<Output = T>) -> Result<Option<T>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timer = left.map(|left| Watched::new(sys::runtime::timer(left)?, Interest::READABLE)).transpose()?;
    let mut done = pin!(done);
    poll_fn(|cx| match (done.as_mut().poll(cx), &timer) {
        (Poll::Ready(done), _) => Poll::Ready(Ok(Some(done))),
        (Poll::Pending, Some(timer)) => timer.0.poll_read_ready(cx).map(|late| late.map(|_| None).map_err(Error::from)),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// Sleeps for that long.
async fn nap(time: Duration) -> Result<()> {
    until(Instant::now().checked_add(time), std::future::pending::<()>()).await.map(drop)
}

/// Fails outside of a runtime, where `AsyncFd` would panic.
fn check_runtime() -> io::Result<()> {
    Handle::try_current().map(drop).map_err(io::Error::other)
}

/// `WouldBlock` as the runtime knows it. Any other error stays as it is, with the name of its call.
fn outcome<R>(done: Result<R>) -> io::Result<Result<R>> {
    match done {
        Err(Error::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        done => Ok(done),
    }
}
