//! Both ends of a stream pair.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::Watched;
use crate::error::Error;

/// An end of a [`stream_pair`](crate::stream_pair()), for tokio: a [`StreamSocket`](crate::StreamSocket) that is [`AsyncRead`]
/// and [`AsyncWrite`].
///
/// Reads and single writes are cancel safe, `write_all` is not, as with every `AsyncWrite`. Shutting down ends this
/// side's stream, and the peer reads EOF. For a half in each of two tasks, use
/// [`tokio::io::split`](https://docs.rs/tokio/latest/tokio/io/fn.split.html).
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
    pub fn new(end: crate::socket::StreamSocket) -> io::Result<Self> {
        Watched::new(end, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back.
    #[must_use]
    pub fn into_inner(self) -> crate::socket::StreamSocket {
        self.0.into_inner()
    }
}

impl AsyncRead for StreamSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let count = ready!(self.0.poll_read(cx, |end| end.try_read(buf.initialize_unfilled())))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |end| end.try_write(buf))
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
