//! The ends of a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::Watched;

/// The reading end of a pipe, for tokio: a [`PipeReader`](crate::PipeReader) that is [`AsyncRead`].
///
/// A read completes when there is something, or with 0 bytes at EOF, when the last writer in any process is closed. Reads are
/// cancel safe: a future that is dropped before it completed has read nothing.
///
/// # Examples
///
/// ```
/// use ::tokio::io::AsyncReadExt;
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let (reader, writer) = ipc::pipe()?;
/// writer.write_atomic(b"hello")?;
/// drop(writer);
///
/// let mut reader = ipc::tokio::PipeReader::new(reader)?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeReader(Watched<crate::pipe::PipeReader>);

impl PipeReader {
    /// Puts the runtime's watch on a reader. Never blocks.
    ///
    /// # Errors
    ///
    /// Outside of a runtime; of a runtime without IO enabled it panics, as tokio does. An error of [epoll_ctl(2)], as of a FIFO
    /// that the runtime watches already. The end is closed then.
    ///
    /// [epoll_ctl(2)]: https://man7.org/linux/man-pages/man2/epoll_ctl.2.html
    pub fn new(end: crate::pipe::PipeReader) -> io::Result<Self> {
        Watched::new(end, Interest::READABLE).map(Self)
    }

    /// Gives the blocking end back.
    #[must_use]
    pub fn into_inner(self) -> crate::pipe::PipeReader {
        self.0.into_inner()
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let count = ready!(self.0.poll_read(cx, |end| end.try_read(buf.initialize_unfilled())))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsFd for PipeReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}

/// The writing end of a pipe, for tokio: a [`PipeWriter`](crate::PipeWriter) that is [`AsyncWrite`].
///
/// A write completes when at least one byte is in the pipe. It fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) when no
/// reader is left, and `SIGPIPE` is never raised. Up to [`PIPE_BUF`](crate::PIPE_BUF) bytes of one `write` go in whole. Long
/// writes are cut, as [`PipeWriter`](crate::PipeWriter) says.
///
/// `write` is cancel safe: a future that is dropped before it completed has written nothing. `write_all` is not, as with every
/// `AsyncWrite`. There is nothing to flush, and shutting down does nothing: EOF comes when the value is dropped.
#[derive(Debug)]
pub struct PipeWriter(Watched<crate::pipe::PipeWriter>);

impl PipeWriter {
    /// Puts the runtime's watch on a writer. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`].
    pub fn new(end: crate::pipe::PipeWriter) -> io::Result<Self> {
        Watched::new(end, Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back.
    #[must_use]
    pub fn into_inner(self) -> crate::pipe::PipeWriter {
        self.0.into_inner()
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |end| end.try_write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsFd for PipeWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}
