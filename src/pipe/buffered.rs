//! A pipe's writer with a buffer of the right size.

use std::fmt;
use std::io::{self, BufWriter, IoSlice, Write};

use super::PipeWriter;
use crate::end::{FlushError, Held};
use crate::error::Result;
use crate::wait::Patience;

/// The best buffer for a pipe. Through a longer write the kernel holds the pipe's lock while the reader waits for it.
pub(crate) const BUFFER: usize = 8 << 10;

/// A [`PipeWriter`] with a buffer of 8 KiB, so that many small writes are few system calls.
///
/// [`Write`] fills the buffer, and blocks only when that is full and so is the pipe. A write longer than the buffer goes
/// past it, cut as [`PipeWriter`] says.
///
/// End it with [`close`](Self::close). **Dropping** writes the rest too, blocking until there is room for it, and returns no
/// error. While a panic unwinds, it writes as much as there is room for without blocking, and loses the rest.
///
/// It is not [`Ends`](crate::Ends): a fork would copy the buffer, and its bytes would be written twice. Give the bare writer,
/// and put the buffer on in the process that uses it. After a bare fork ([`fork_raw`](crate::fork_raw), or one with
/// [`keep_all_ends`](crate::Fork::keep_all_ends)) both processes have the buffer: flush before it.
///
/// ```compile_fail,E0277
/// let (_reader, writer) = ipc::pipe().unwrap();
/// ipc::fork(ipc::BufferedWriter::new(writer), |writer| writer.close()); // `BufferedWriter: Ends` is not satisfied
/// ```
///
/// In the guide: [small writes and lines](crate::guide::small_writes).
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
///
/// let (reader, writer) = ipc::pipe()?;
/// let child = ipc::fork(writer, |writer| -> ipc::Result<()> {
///     let mut writer = ipc::BufferedWriter::new(writer); // here, in the process that uses it
///     for number in 0..10_000 {
///         writeln!(writer, "{number}")?;
///     }
///     writer.close() // and not `drop`, which returns no error
/// })?;
/// assert_eq!(BufReader::new(reader).lines().count(), 10_000);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct BufferedWriter(Held<BufWriter<PipeWriter>>);

impl BufferedWriter {
    /// Puts a buffer in front of the writer. Never blocks. See [`BufferedWriter`] for an example.
    pub fn new(writer: PipeWriter) -> Self {
        Self(Held::new(BufWriter::with_capacity(BUFFER, writer)))
    }

    /// Returns the writer. Bytes that are written through it go ahead of those in the buffer. See [`FlushError`] for
    /// an example.
    #[must_use]
    pub fn get_ref(&self) -> &PipeWriter {
        self.0.get_ref()
    }

    /// Writes the rest, and gives the writer back. Blocks while the pipe is full. See [`FlushError`] for an example.
    ///
    /// # Errors
    ///
    /// The error gives the `BufferedWriter` back, with the bytes that could not be written. `?` turns it into [`Error`].
    ///
    /// - [`Error::Closed`]: no reader is left.
    /// - [`Error::WouldBlock`]: the pipe was made with [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK), and is full.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// [`Error`]: crate::Error
    /// [`Error::Closed`]: crate::Error::Closed
    /// [`Error::WouldBlock`]: crate::Error::WouldBlock
    /// [`Error::NotGiven`]: crate::Error::NotGiven
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_inner(mut self) -> Result<PipeWriter, FlushError<Self>> {
        self.0.take().into_inner().map_err(|refused| {
            let (error, unflushed) = refused.into_parts();
            FlushError { unflushed: Self(Held::new(unflushed)), error: error.into() }
        })
    }

    /// Writes the rest and closes, and returns the error of either. Blocks while the pipe is full.
    ///
    /// # Errors
    ///
    /// As [`into_inner`](Self::into_inner), but the rest is lost. [`Error::System`](crate::Error::System) with `EBADF`:
    /// other code closed the number.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let (reader, writer) = ipc::pipe()?;
    /// let mut writer = ipc::BufferedWriter::new(writer);
    /// drop(reader);
    /// writer.write_all(b"who reads this?")?; // only into the buffer
    /// assert!(matches!(writer.close(), Err(ipc::Error::Closed)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        match self.into_inner() {
            Ok(writer) => writer.close(),
            Err(FlushError { mut unflushed, error }) => {
                // Taken apart, so that it is not written once more when it is dropped.
                let (writer, _lost) = unflushed.0.take().into_parts();
                writer.close().and(Err(error))
            }
        }
    }
}

/// Blocks only when the buffer is full and so is the pipe. See [`BufferedWriter`].
impl Write for BufferedWriter {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    #[inline]
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.0.write_all(buf)
    }

    #[inline]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    /// Writes the buffered bytes. Blocks while the pipe is full.
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for BufferedWriter {
    fn drop(&mut self) {
        // Or the `BufWriter` writes the rest itself, and waits for room.
        if !std::thread::panicking() {
            return;
        }
        let Some(writer) = self.0.take_last() else { return };
        let (writer, rest) = writer.into_parts();
        let rest = rest.unwrap_or_default();
        let mut rest = &rest[..];
        while !rest.is_empty() {
            let Ok(count) = writer.write_some(rest, Patience::None) else { return };
            rest = &rest[count..];
        }
    }
}

impl fmt::Debug for BufferedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unflushed = self.0.buffer().len();
        f.debug_struct("BufferedWriter").field("writer", self.0.get_ref()).field("unflushed", &unflushed).finish()
    }
}
