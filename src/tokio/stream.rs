//! Both ends of a stream pair.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::Watched;
use crate::end::Ends;
use crate::error::{Error, Result};
use crate::socket::{Received, SendError};

/// An end of a [`stream_pair`](crate::stream_pair()), for tokio: a [`StreamSocket`](crate::StreamSocket) that is [`AsyncRead`]
/// and [`AsyncWrite`].
///
/// Shutting down ends this side's stream, and the peer reads EOF. For a half in each of two tasks, use
/// [`tokio::io::split`](https://docs.rs/tokio/latest/tokio/io/fn.split.html).
///
/// # Cancel safety
///
/// `read` and `write` are cancel safe: a future that is dropped before it completed has moved nothing. Methods that call them
/// again, as `read_exact` and `write_all` do, are not, as with every `AsyncRead` and `AsyncWrite`.
///
/// # Examples
///
/// ```
/// use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let pair = ipc::stream_pair()?;
/// let mut parent = ipc::tokio::StreamSocket::new(pair.parent)?;
/// let mut child = ipc::tokio::StreamSocket::new(pair.child)?;
/// parent.write_all(b"ping").await?;
/// parent.shutdown().await?;
/// let mut text = String::new();
/// child.read_to_string(&mut text).await?;
/// assert_eq!(text, "ping");
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamSocket(Watched<crate::socket::StreamSocket>);

impl StreamSocket {
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
    /// See [`StreamSocket`].
    pub fn new(end: crate::socket::StreamSocket) -> io::Result<Self> {
        Watched::new(end, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> crate::socket::StreamSocket {
        self.0.into_inner()
    }

    /// Waits until there is room, sends at least one of the bytes, with ends, and returns the number of bytes sent.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if its future is dropped before it completes, nothing was sent. The ends are dropped with it.
    ///
    /// # Errors
    ///
    /// As [`StreamSocket::send_with`](crate::StreamSocket::send_with). The ends are given back.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let pair = ipc::stream_pair()?;
    /// let parent = ipc::tokio::StreamSocket::new(pair.parent)?;
    /// let child = ipc::tokio::StreamSocket::new(pair.child)?;
    /// let (reader, _writer) = ipc::pipe()?;
    /// parent.send_with(b"x", reader).await?;
    ///
    /// let (len, mut received) = child.recv_with(&mut [0; 16]).await?;
    /// assert_eq!(len, 1);
    /// let reader: ipc::PipeReader = received.take()?;
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub async fn send_with<E: Ends>(&self, bytes: &[u8], ends: E) -> Result<usize, SendError<E>> {
        // By reference, so that they are still here after an attempt that found no room.
        let sent = self.0.call(Interest::WRITABLE, |end| end.try_send_with(bytes, &ends).map_err(Error::from)).await;
        sent.map_err(|error| SendError { ends, error })
    }

    /// Waits until bytes arrive, puts them into `buf`, and returns their number, with their ends and their sender. 0 is
    /// EOF.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: bytes are taken with their ends, or not at all.
    ///
    /// # Errors
    ///
    /// As [`StreamSocket::recv_with`](crate::StreamSocket::recv_with).
    ///
    /// # Examples
    ///
    /// See [`send_with`](Self::send_with).
    pub async fn recv_with(&self, buf: &mut [u8]) -> Result<(usize, Received)> {
        self.0.call(Interest::READABLE, |end| end.try_recv_with(buf)).await
    }
}

impl AsyncRead for StreamSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_into(cx, buf, |end, buf| end.try_read(buf))
    }
}

impl AsyncWrite for StreamSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |end| end.try_write(buf)).map_err(Error::into_io)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.end().shutdown(Shutdown::Write).map_err(Error::into_io))
    }
}

impl AsFd for StreamSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}
