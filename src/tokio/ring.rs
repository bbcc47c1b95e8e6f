//! Both sides of a ring.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use ::tokio::task::coop;

use super::Watched;
use crate::error::{Error, Result};
use crate::ring;

/// The reading side of a ring, for tokio: a [`RingReader`](crate::RingReader) that is [`AsyncRead`].
///
/// While there are bytes to read, reading makes no system call. The writer can be plain blocking code.
///
/// # Cancel safety
///
/// `read` is cancel safe: a future that is dropped before it completed has read nothing. `read_exact` is not, as with every
/// `AsyncRead`.
///
/// # Examples
///
/// ```
/// use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let pair = ipc::stream_pair()?;
/// let mut reader = ipc::tokio::RingReader::new(ipc::RingReader::new(pair.parent)?)?;
/// let mut writer = ipc::tokio::RingWriter::new(ipc::RingWriter::new(pair.child)?)?;
/// writer.write_all(b"ping").await?;
/// writer.shutdown().await?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text).await?;
/// assert_eq!(text, "ping");
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct RingReader(Watched<Rung<ring::RingReader>>);

impl RingReader {
    /// Puts the runtime's watch on a ring. Never blocks.
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
    /// See [`RingReader`].
    pub fn new(ring: ring::RingReader) -> io::Result<Self> {
        Watched::new(Rung(ring), Interest::READABLE).map(Self)
    }

    /// Gives the blocking side back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> ring::RingReader {
        self.0.into_inner().0
    }
}

impl AsyncRead for RingReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let attempt = |ring: &mut ring::RingReader| ring.try_read(buf.initialize_unfilled());
        let count = ready!(poll(&mut self.0.0, cx, attempt, ring::RingReader::arm))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for RingReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.end().0.fmt(f)
    }
}

/// The writing side of a ring, for tokio: a [`RingWriter`](crate::RingWriter) that is [`AsyncWrite`].
///
/// While there is room, writing makes no system call. Shutting down ends the stream, as dropping does: the reader comes to EOF.
///
/// # Cancel safety
///
/// `write` is cancel safe: a future that is dropped before it completed has written nothing. `write_all` is not, as with every
/// `AsyncWrite`.
///
/// # Examples
///
/// See [`RingReader`].
pub struct RingWriter(Watched<Rung<ring::RingWriter>>);

impl RingWriter {
    /// Puts the runtime's watch on a ring. Never blocks.
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
    /// See [`RingWriter`].
    pub fn new(ring: ring::RingWriter) -> io::Result<Self> {
        Watched::new(Rung(ring), Interest::READABLE).map(Self)
    }

    /// Gives the blocking side back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> ring::RingWriter {
        self.0.into_inner().0
    }
}

impl AsyncWrite for RingWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll(&mut self.0.0, cx, |ring| ring.try_write(buf), ring::RingWriter::arm)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.0.get_mut().0.end_stream().map_err(Error::into_io))
    }
}

impl fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.end().0.fmt(f)
    }
}

/// A side of a ring, by the socket that it is rung at.
struct Rung<T>(T);

impl AsRawFd for Rung<ring::RingReader> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.bell().as_raw_fd()
    }
}

impl AsRawFd for Rung<ring::RingWriter> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.bell().as_raw_fd()
    }
}

/// Makes a `try_` call until it does not return `WouldBlock`. It sleeps in between as the protocol has it: it says that it
/// waits, looks once more, and then waits for the socket. Readiness of a ring that was heard before is cleared on the way.
fn poll<T, R>(
    watched: &mut AsyncFd<Rung<T>>,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&mut T) -> Result<R>,
    arm: impl Fn(&mut T) -> bool,
) -> Poll<io::Result<R>>
where
    Rung<T>: AsRawFd,
{
    // The runtime is not asked while there is work, so this counts how much the task may still do before it yields.
    let turn = ready!(coop::poll_proceed(cx));
    let mut was_in_vain = false;
    loop {
        match attempt(&mut watched.get_mut().0) {
            Err(Error::WouldBlock) => {}
            done => {
                turn.made_progress();
                return Poll::Ready(done.map_err(Error::into_io));
            }
        }
        if !arm(&mut watched.get_mut().0) {
            ready!(watched.poll_read_ready(cx))?.clear_ready();
        } else if std::mem::replace(&mut was_in_vain, true) {
            // A ring is owed, say, which takes a while: other tasks run meanwhile.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
}
