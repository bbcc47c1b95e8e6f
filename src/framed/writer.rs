//! Messages of any length into a stream of bytes.

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::Messages;
use super::batch::{Batch, in_time};
use super::bytes::ByteWriter;
use super::frame;
use crate::end::FlushError;
use crate::error::{Error, Result};
use crate::pipe::PipeWriter;
use crate::wait::Patience;

/// Sends messages of any length to a [`MessageReader`](crate::MessageReader), many of them in one write.
///
/// It goes over a pipe or a [ring](crate::RingWriter), a [`StreamSocket`](crate::StreamSocket), a
/// [`UnixStream`](std::os::unix::net::UnixStream) or a [`TcpStream`](std::net::TcpStream).
///
/// A message arrives whole, in order, and never joined with the next. An empty one is a message. One process writes and
/// one reads: the messages of several writers would be torn.
///
/// In the guide: [many small messages](crate::guide::many_small_messages).
///
/// # When messages go
///
/// Messages wait in a buffer of this process. It has 8 KiB for a pipe, 16 KiB for a ring or a unix socket, and 32 KiB for TCP.
/// Over a ring, a message of 2 KiB or more goes at once, if there is room for it.
/// They go when the buffer is full, or with [`flush`](Self::flush), [`try_flush`](Self::try_flush),
/// [`flush_timeout`](Self::flush_timeout). Flush before waiting for the effect of a message.
///
/// A message is taken, or it is not. It is taken as soon as its first byte was written, also if there is no more room
/// then or the time is up. The rest waits, and is written before anything else, so the stream is never torn.
///
/// An empty pipe of the usual 64 KiB is enlarged to 128 KiB for a message that fits only then. The user's limit may prevent it.
/// A request and its answer then take two thirds of the time. Any other [`capacity`](PipeWriter::set_capacity) is left
/// alone.
///
/// # Closing
///
/// [`close`](Self::close) flushes, closes, and returns the error. Dropping does the same without an error. It waits for room
/// for at most a second, and not at all while a panic unwinds; the rest is lost. If that is inside a message, the reader gets
/// [`Error::Truncated`].
///
/// # Not an end
///
/// A `MessageWriter` is no [`Ends`](crate::Ends), on purpose: a fork would copy its buffer, and the messages in it would be
/// sent twice. Give the bare end away, and make this of it where it is used. After a bare fork
/// ([`fork_raw`](crate::fork_raw), or one with [`keep_all_ends`](crate::Fork::keep_all_ends)) both processes have the
/// buffer, so flush before it. No fork severs the standard library's streams: if a closure captures a `MessageWriter` over one,
/// both processes send its buffer.
///
/// ```compile_fail,E0277
/// let (_reader, writer) = ipc::pipe().unwrap();
/// ipc::fork(ipc::MessageWriter::new(writer), |writer| writer.close()); // `MessageWriter: Ends` is not satisfied
/// ```
///
/// # Platform
///
/// [The format](crate::guide::packed) is written down for readers that are written in another language.
///
/// # Examples
///
/// Make and give the bare ends, and wrap each where it is used.
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// let child = ipc::fork(writer, |writer| -> ipc::Result<()> {
///     let mut writer = ipc::MessageWriter::new(writer);
///     for number in 0..10_000_u32 {
///         writer.send(&number.to_le_bytes())?; // some system calls for all of them
///     }
///     writer.send(&vec![7; 1 << 20])?; // of any length
///     writer.close()
/// })?;
///
/// let mut reader = ipc::MessageReader::new(reader);
/// for number in 0..10_000_u32 {
///     assert_eq!(reader.recv()?, Some(&number.to_le_bytes()[..]));
/// }
/// assert_eq!(reader.recv()?.map(<[u8]>::len), Some(1 << 20));
/// assert_eq!(reader.recv()?, None); // EOF
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "framed")]
#[doc(alias = "length_delimited")]
pub struct MessageWriter<W: ByteWriter = PipeWriter> {
    batch: Batch<W>,
}

impl<W: ByteWriter> MessageWriter<W> {
    /// Sends messages through `writer` from here on. Never blocks.
    ///
    /// Settings, such as [`set_spin`](PipeWriter::set_spin), are made before. Set
    /// [`set_nodelay(true)`](std::net::TcpStream::set_nodelay) for requests and answers over TCP. Otherwise the last part of a
    /// message may wait for an acknowledgement that the other machine delays. See [`MessageWriter`].
    pub fn new(writer: W) -> Self {
        Self { batch: Batch::new(writer) }
    }

    /// Adds a message to the buffer. Blocks only if the buffer is full and there is no room for it to go. See
    /// [`MessageWriter`].
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`]: no reader is left. Buffered messages are lost, and from then on every message is refused at once.
    /// - [`Error::WouldBlock`]: there is no room, and the end has `O_NONBLOCK` (see
    ///   [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK)), or the standard library's stream has a timeout of its own.
    ///   The message was not taken.
    /// - [`Error::NotGiven`]: this process was not given the end. The message was not taken.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, || Patience::Blocking)
    }

    /// Adds a message to the buffer without blocking; otherwise the same as [`send`](Self::send). See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the buffer is full and there is no room, and the message was not taken; [`Error::System`]:
    /// see Platform of [`PipeWriter::try_write`]; and as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<()> {
        self.send_by(message, || Patience::None)
    }

    /// Adds a message to the buffer, and blocks for room until the time is up; otherwise the same as [`send`](Self::send). See
    /// [`Messages`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    /// If the time is up in the middle of a long message, the message was taken. Its rest waits in a buffer that is longer
    /// until then.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and the message was not taken; and as [`try_send`](Self::try_send).
    #[inline]
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        self.send_by(message, || Patience::timeout(timeout))
    }

    /// Adds a message, and waits for room with that patience.
    #[inline]
    pub(crate) fn send_by(&mut self, message: &[u8], patience: impl FnOnce() -> Patience) -> Result<()> {
        if message.len() < W::PAST && self.batch.push(message) { Ok(()) } else { self.send_with(message, patience()) }
    }

    /// Sends the waiting messages, and waits for room with that patience.
    #[cfg(feature = "channel")]
    pub(crate) fn flush_until(&mut self, patience: Patience) -> Result<()> {
        self.batch.flush(patience)
    }

    /// Sends a message that the buffer has no room for. Fills the buffer, so that whole buffers are written, and writes
    /// a longer message past it.
    #[inline(never)]
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<()> {
        self.batch.check_open()?;
        self.batch.make_room(message);
        let goes_past = message.len() >= W::PAST;
        // Where there is no room behind the buffer, one that fits into it waits there.
        let patience = if goes_past && self.batch.has_room(message) { Patience::None } else { patience };
        let (head, len) = frame::stream_head(message.len());
        let (mut head, mut rest) = (&head[..len], message);
        let mut begun = false; // its first byte was written
        let mut puts = 0;
        loop {
            let before = self.batch.waiting().len();
            head = self.batch.fill(head);
            if rest.len() < W::PAST {
                rest = self.batch.fill(rest); // nothing, if there was no room for all of the head
            }
            if head.is_empty() && rest.is_empty() {
                return Ok(());
            }
            let added = self.batch.waiting().len() - before;
            let mut written = self.batch.flush(patience);
            begun |= self.batch.waiting().len() < added;
            while written.is_ok() && head.is_empty() && rest.len() >= self.batch.size().min(W::PAST) {
                written = self.batch.put(rest, patience).map(|count| rest = &rest[count..]);
                puts += 1;
                written = written.and(in_time(patience, puts));
            }
            match written {
                Ok(()) => {}
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) if !begun => {
                    self.batch.take_back(added);
                    // A part of the waiting bytes may have gone, and left enough room.
                    let room = matches!(error, Error::WouldBlock | Error::TimedOut) && self.batch.push(message);
                    return if room { Ok(()) } else { Err(error) };
                }
                // The next call returns the error, if it still holds.
                Err(_) => {
                    self.batch.keep(head);
                    self.batch.keep(rest);
                    return Ok(());
                }
            }
        }
    }

    /// Writes the buffered messages. Blocks while there is no room. [`close`](Self::close) does so in the [example](Self#examples).
    /// See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`send`](Self::send). The messages stay, but after [`Error::Closed`], which then comes again each time.
    pub fn flush(&mut self) -> Result<()> {
        self.batch.flush(Patience::Blocking)
    }

    /// Writes as much of the buffered messages as there is room for; otherwise the same as [`flush`](Self::flush). Never blocks.
    /// See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there was not room for all of it. The rest stays; and as [`flush`](Self::flush).
    pub fn try_flush(&mut self) -> Result<()> {
        self.batch.flush(Patience::None)
    }

    /// Writes the buffered messages, and blocks for room until the time is up; otherwise the same as [`flush`](Self::flush). See
    /// [`Messages`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. The rest stays; and as [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.batch.flush(Patience::timeout(timeout))
    }

    /// Returns the writer, for its settings, and for [`Watch::writable`](crate::Watch::writable). A ring has no descriptor to
    /// wait for: ask [`RingWriter::is_closed`](crate::RingWriter::is_closed) instead. Bytes that are written through the writer land
    /// between messages, or inside one: the stream is torn then. See the [example](Self#examples). See [`Messages`].
    #[must_use]
    pub fn get_ref(&self) -> &W {
        self.batch.outlet()
    }

    /// Returns the writer, to flush what it holds itself.
    #[cfg(feature = "channel")]
    pub(crate) fn outlet(&mut self) -> &mut W {
        self.batch.outlet_mut()
    }

    /// Flushes, and gives the writer back. Blocks while there is no room. See [`FlushError`] for an example.
    ///
    /// # Errors
    ///
    /// Same as [`flush`](Self::flush). The error gives the `MessageWriter` back, and `?` turns it into [`Error`]. After
    /// the first [`Error::Closed`], there is nothing to flush.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_inner(self) -> Result<W, FlushError<Self>> {
        self.batch.into_outlet().map_err(|(batch, error)| FlushError { unflushed: Self { batch }, error })
    }

    /// Flushes and closes, and returns the error of either, as in the [example](Self#examples). Blocks while there is no room.
    ///
    /// # Errors
    ///
    /// Same as [`flush`](Self::flush), and [`Error::System`] if other code closed the number. Buffered messages are lost: to
    /// keep them, flush first.
    pub fn close(self) -> Result<()> {
        self.batch.close()
    }
}

impl<W: ByteWriter> fmt::Debug for MessageWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unflushed = self.batch.waiting().len();
        f.debug_struct("MessageWriter").field("writer", self.get_ref()).field("unflushed", &unflushed).finish()
    }
}
