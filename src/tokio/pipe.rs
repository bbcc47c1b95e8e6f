//! The ends of a pipe.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::Watched;
use crate::end::packets::{self, All};
use crate::error::Error;
use crate::sys;
use crate::sys::poll::POLLIN;

/// The reading end of a pipe, for tokio: a [`PipeReader`](crate::PipeReader) that is [`AsyncRead`].
///
/// A read completes when there are bytes, or with 0 bytes at EOF. EOF comes when the last writer in any process is closed.
///
/// A named FIFO can get another writer after EOF. The runtime goes on to report EOF then, and a task that waits for bytes
/// takes a whole core. Before reading on, wrap the end anew: `PipeReader::new(reader.into_inner())`.
///
/// # Cancel safety
///
/// `read` is cancel safe: a future that is dropped before it completed has read nothing. `read_exact` is not, as with every
/// `AsyncRead`.
///
/// # Pipes of packets
///
/// A writer makes any pipe one of packets with `O_DIRECT`, as `dd oflag=direct` does with its standard output. A read with less
/// room than a packet then loses the rest of that packet. [`read_to_end`](Self::read_to_end) and
/// [`read_to_string`](Self::read_to_string) lose nothing: they are methods of this type, which `AsyncReadExt` does not replace. In
/// generic code, which calls those of `AsyncReadExt`, and in other reads, have room for [`PIPE_BUF`](crate::PIPE_BUF) bytes. A
/// `BufReader` has it.
///
/// # Examples
///
/// ```
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
pub struct PipeReader {
    end: Watched<crate::pipe::PipeReader>,
    /// The last read was not as long as its buffer: the pipe was empty then, or is one of packets.
    was_short: bool,
    /// A look shows EOF.
    eof_shows: bool,
}

impl PipeReader {
    /// Puts the runtime's watch on a reader. Never blocks.
    ///
    /// # Errors
    ///
    /// Each of them closes the end:
    ///
    /// - The call was made outside of a runtime, or in one that is shutting down.
    /// - [epoll_ctl(2)]: `ENOSPC` past the user's limit on watches, `EEXIST` if the program itself has put the descriptor
    ///   under this runtime.
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled, as with tokio's own types.
    ///
    /// # Examples
    ///
    /// See [`PipeReader`].
    ///
    /// [epoll_ctl(2)]: https://man7.org/linux/man-pages/man2/epoll_ctl.2.html
    pub fn new(end: crate::pipe::PipeReader) -> io::Result<Self> {
        let eof_shows = sys::pipe::is_nameless(end.as_fd());
        Ok(Self { end: Watched::new(end, Interest::READABLE)?, was_short: false, eof_shows })
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let (reader, writer) = ipc::pipe()?;
    /// let reader = ipc::tokio::PipeReader::new(reader)?.into_inner();
    /// writer.write_atomic(b"x")?;
    /// assert_eq!(reader.try_read(&mut [0; 8])?, 1);
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn into_inner(self) -> crate::pipe::PipeReader {
        self.end.into_inner()
    }

    /// Reads until EOF, appends the bytes to `buf`, and returns their number.
    ///
    /// Each read has room for a whole packet, so nothing is lost of a [pipe of packets](Self#pipes-of-packets).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the bytes that were read until then are in `buf`, and the next call goes on behind them.
    ///
    /// # Errors
    ///
    /// Those of [`try_read`](crate::PipeReader::try_read), and [`OutOfMemory`](io::ErrorKind::OutOfMemory). The bytes that were
    /// read before are in `buf`.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let (reader, writer) = ipc::pipe()?;
    /// let dd = ipc::Command::new("dd").args(["if=/proc/self/exe", "oflag=direct", "bs=3000", "count=2", "status=none"]);
    /// let child = ipc::tokio::Child::new(dd.stdout(writer).spawn()?)?;
    ///
    /// let mut all = Vec::new();
    /// assert_eq!(ipc::tokio::PipeReader::new(reader)?.read_to_end(&mut all).await?, 6000);
    /// assert!(all.starts_with(b"\x7fELF") && child.wait().await?.success());
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub async fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let mut all = All::new(buf);
        while self
            .end
            .call(Interest::READABLE, |end| all.read(|room| end.try_read(room)))
            .await
            .map_err(Error::into_io)?
            > 0
        {}
        Ok(all.len())
    }

    /// Reads until EOF, appends the text to `buf`, and returns its number of bytes; otherwise the same as
    /// [`read_to_end`](Self::read_to_end).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if its future is dropped before it completes, the bytes that were read until then are lost.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData): the bytes are not UTF-8. `buf` stays as it is, and the bytes are lost.
    /// And as [`read_to_end`](Self::read_to_end).
    ///
    /// # Examples
    ///
    /// See [`PipeReader`].
    pub async fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let result = self.read_to_end(&mut bytes).await;
        packets::append_text(buf, bytes, result)
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { end, was_short, eof_shows } = self.get_mut();
        let (room, had) = (buf.remaining(), buf.filled().len());
        ready!(end.poll_read_into(cx, buf, |end, buf| {
            // Once: what comes after an empty pipe comes with bytes.
            if mem::take(was_short) && is_empty(end) { Err(Error::WouldBlock) } else { end.try_read(buf) }
        }))?;
        *was_short = *eof_shows && buf.filled().len() - had < room;
        Poll::Ready(Ok(()))
    }
}

/// Looks without the pipe's lock, which a writer wants as well. One that writes again and again gets more done then.
fn is_empty(end: &crate::pipe::PipeReader) -> bool {
    sys::poll::look(end.as_fd(), POLLIN).is_ok_and(|events| events == 0)
}

impl AsFd for PipeReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.end().as_fd()
    }
}

/// The writing end of a pipe, for tokio: a [`PipeWriter`](crate::PipeWriter) that is [`AsyncWrite`].
///
/// A write completes when at least one byte is in the pipe. It fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) when no
/// reader is left, and `SIGPIPE` is never raised. Up to [`PIPE_BUF`](crate::PIPE_BUF) bytes of one `write` go in whole. Long
/// writes are cut, as [`PipeWriter`](crate::PipeWriter) says.
///
/// There is nothing to flush, and shutting down does nothing: EOF comes when the value is dropped.
///
/// A named FIFO can get another reader after the last one is gone. A task that waits for room takes a whole core then, as
/// with [`PipeReader`] after EOF. Wrap the end anew.
///
/// # Cancel safety
///
/// `write` is cancel safe: a future that is dropped before it completed has written nothing. `write_all` is not, as with every
/// `AsyncWrite`.
///
/// # Examples
///
/// ```
/// use ::tokio::io::AsyncWriteExt;
/// use std::io::Read;
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let (mut reader, writer) = ipc::pipe()?;
/// let mut writer = ipc::tokio::PipeWriter::new(writer)?;
/// writer.write_all(b"hello").await?;
/// drop(writer); // the reader comes to EOF
///
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeWriter(Watched<crate::pipe::PipeWriter>);

impl PipeWriter {
    /// Puts the runtime's watch on a writer. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`].
    ///
    /// # Panics
    ///
    /// As [`PipeReader::new`].
    ///
    /// # Examples
    ///
    /// See [`PipeWriter`].
    pub fn new(end: crate::pipe::PipeWriter) -> io::Result<Self> {
        Watched::new(end, Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let (reader, writer) = ipc::pipe()?;
    /// let writer = ipc::tokio::PipeWriter::new(writer)?.into_inner();
    /// writer.write_atomic(b"x")?;
    /// assert_eq!(reader.try_read(&mut [0; 8])?, 1);
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn into_inner(self) -> crate::pipe::PipeWriter {
        self.0.into_inner()
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |end| end.try_write(buf)).map_err(Error::into_io)
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
