//! The end that sends.

use std::fmt;
use std::time::Duration;

use super::{BUFFER, PipeWriter};
use crate::end::Held;
use crate::error::{Error, FlushError, Result};
use crate::frame::{self, Batch};
use crate::wait::Patience;

impl PipeWriter {
    /// Sends messages through the pipe from here on, many of them in one write; the other side is to receive them with
    /// [`PipeReader::messages`](super::PipeReader::messages). Never blocks.
    ///
    /// # Examples
    ///
    /// The bare ends are made and given as ever, and turned into this where they are used.
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(writer, |writer| -> ipc::Result<()> {
    ///     let mut writer = writer.messages();
    ///     for number in 0..10_000_u32 {
    ///         writer.send(&number.to_le_bytes())?; // some system calls for all of them
    ///     }
    ///     writer.send(&vec![7; 1 << 20])?; // of any length
    ///     writer.close()
    /// })?;
    ///
    /// let mut reader = reader.messages();
    /// for number in 0..10_000_u32 {
    ///     assert_eq!(reader.recv()?, Some(&number.to_le_bytes()[..]));
    /// }
    /// assert_eq!(reader.recv()?.map(<[u8]>::len), Some(1 << 20));
    /// assert_eq!(reader.recv()?, None); // the end
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn messages(self) -> MessageWriter {
        MessageWriter { writer: Held::new(self), batch: Batch::new(BUFFER) }
    }
}

/// Sends messages of any length through a pipe, to a [`MessageReader`](crate::MessageReader). Made by
/// [`PipeWriter::messages`].
///
/// A message arrives whole, in order, and never joined with the next; an empty one is a message. One process writes and one
/// reads: of several writers, the messages would be torn.
///
/// # When messages go
///
/// What was sent waits in a buffer of 8 KiB in this process, and goes into the pipe when that is full, or with
/// [`flush`](Self::flush), [`try_flush`](Self::try_flush), [`flush_timeout`](Self::flush_timeout). Whoever waits for the
/// effect of a message has to flush first.
///
/// A message is taken, or it is not. It is taken as soon as its first byte is in the pipe, also if there is no more room
/// then or the time is up: the rest waits, is written before anything else, and the stream is never torn.
///
/// # The end
///
/// [`close`](Self::close) flushes, closes, and says what went wrong. Dropping does the same and can say nothing; it waits
/// for room for at most a second, and not at all while a panic unwinds. What does not go then is lost, and the reader is
/// told, with [`Error::Truncated`], if that is inside a message.
///
/// # Not an end
///
/// A `MessageWriter` is no [`Ends`](crate::Ends), on purpose: a fork would copy its buffer, and what is in it would be sent
/// twice. Give the bare writer away, and turn it into this where it is used. After a bare fork
/// ([`fork_raw`](crate::fork_raw), or one with [`keep_all_ends`](crate::Fork::keep_all_ends)) both processes have the buffer, so
/// flush before it.
///
/// ```compile_fail,E0277
/// let (_reader, writer) = ipc::pipe().unwrap();
/// ipc::fork(writer.messages(), |writer| writer.close()); // `MessageWriter: Ends` is not satisfied
/// ```
///
/// # Platform
///
/// The format is written down in `docs/packed.md`, for readers that are written in another language.
pub struct MessageWriter {
    writer: Held<PipeWriter>,
    batch: Batch,
}

impl MessageWriter {
    /// Adds a message to the buffer. Blocks only if the buffer is full and so is the pipe.
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`]: no reader is left. What waited is lost, and from then on every message is refused at once.
    /// - [`Error::WouldBlock`]: the pipe was made with [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK), and is full.
    ///   The message was not taken.
    /// - [`Error::NotGiven`]: this process was not given the end. The message was not taken.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::Blocking) }
    }

    /// Adds a message to the buffer without blocking; else as [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the buffer and the pipe are full, and the message was not taken; [`Error::System`]: see
    /// Platform of [`PipeWriter::try_write`]; and as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::None) }
    }

    /// Adds a message to the buffer, and blocks for room until the time is up; else as [`send`](Self::send).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    /// Where the time is up in the middle of a long message, that was taken: its rest waits in a buffer that is longer for
    /// so long.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and the message was not taken; and as [`try_send`](Self::try_send).
    #[inline]
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::timeout(timeout)) }
    }

    /// Sends what there is no room for in the buffer: fills it, so that whole buffers are written, and writes what is longer
    /// past it.
    #[inline(never)]
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<()> {
        if self.batch.is_retired() {
            return Err(Error::Closed);
        }
        let (head, len) = frame::stream_head(message.len());
        let (mut head, mut rest) = (&head[..len], message);
        let mut begun = false; // its first byte is in the pipe
        loop {
            let before = self.batch.bytes().len();
            head = self.batch.fill(head);
            rest = self.batch.fill(rest); // nothing, if there was no room for all of the head
            if head.is_empty() && rest.is_empty() {
                return Ok(());
            }
            let added = self.batch.bytes().len() - before;
            let mut written = self.flush_with(patience);
            begun |= self.batch.bytes().len() < added;
            while written.is_ok() && head.is_empty() && rest.len() >= BUFFER {
                written = self.write(rest, patience).map(|count| rest = &rest[count..]);
            }
            match written {
                Ok(()) => {}
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) if !begun => {
                    self.batch.take_back(added);
                    // Something of what waits may have gone, and left room enough.
                    let room = matches!(error, Error::WouldBlock | Error::TimedOut) && self.batch.push(message);
                    return if room { Ok(()) } else { Err(error) };
                }
                // What hinders the rest is told by the next call, if it still does.
                Err(_) => {
                    self.batch.keep(head);
                    self.batch.keep(rest);
                    return Ok(());
                }
            }
        }
    }

    /// Writes what waits. Blocks while the pipe is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). What waits stays, but after [`Error::Closed`], which is then said again each time.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_all(Patience::Blocking)
    }

    /// Writes what there is room for of what waits, without blocking.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there was not room for all of it. What is left waits; and as [`flush`](Self::flush).
    pub fn try_flush(&mut self) -> Result<()> {
        self.flush_all(Patience::None)
    }

    /// Writes what waits, and blocks for room until the time is up.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. What is left waits; and as [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.flush_all(Patience::timeout(timeout))
    }

    /// What was lost once stays lost, whatever was asked in between.
    fn flush_all(&mut self, patience: Patience) -> Result<()> {
        if self.batch.is_retired() { Err(Error::Closed) } else { self.flush_with(patience) }
    }

    fn flush_with(&mut self, patience: Patience) -> Result<()> {
        while !self.batch.is_empty() {
            match self.writer.write_some(self.batch.bytes(), patience) {
                Ok(count) => self.batch.consume(count),
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Writes some of these bytes, past the buffer.
    fn write(&mut self, bytes: &[u8], patience: Patience) -> Result<usize> {
        self.writer.write_some(bytes, patience).map_err(|error| self.failed(error))
    }

    /// Nobody will ever read what waits, if that is the error. Without a buffer, the next message is refused.
    fn failed(&mut self, error: Error) -> Error {
        if matches!(error, Error::Closed) {
            self.batch.retire();
        }
        error
    }

    /// The writer. What is written through it lands between messages, or inside one: the stream is torn then. It is here
    /// for its settings, and for [`Watch::writable`](crate::Watch::writable).
    pub fn get_ref(&self) -> &PipeWriter {
        &self.writer
    }

    /// Flushes, and gives the writer back. Blocks while the pipe is full.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush). The error gives the `MessageWriter` back, and `?` turns it into [`Error`]. After
    /// [`Error::Closed`] was said once, there is nothing to flush.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_writer(mut self) -> Result<PipeWriter, FlushError<Self>> {
        match self.flush_with(Patience::Blocking) {
            Ok(()) => Ok(self.writer.take()),
            Err(error) => Err(FlushError { unflushed: self, error }),
        }
    }

    /// Flushes and closes, and says what went wrong with either. Blocks while the pipe is full.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush): what waited is lost then. To keep it, [`flush`](Self::flush) first. And
    /// [`Error::System`] if somebody else closed the number.
    pub fn close(mut self) -> Result<()> {
        let flushed = self.flush();
        self.batch.clear(); // not again in drop
        let closed = self.writer.take().close();
        flushed.and(closed)
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        let _ = self.flush_with(Patience::linger()); // who wants to know uses close
    }
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unflushed = self.batch.bytes().len();
        f.debug_struct("MessageWriter").field("writer", &*self.writer).field("unflushed", &unflushed).finish()
    }
}
