//! The end that receives.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::PipeReader;
use crate::error::{Error, Result};
use crate::frame::{self, LONGEST_HEAD};
use crate::sys::Errno;
use crate::wait::{Patience, Watch};

/// As many bytes are read at once, and a buffer is never shorter.
const READ: usize = 64 << 10;

/// The longest message that is received, unless [`MessageReader::set_max_message`] says otherwise.
const MAX: usize = 64 << 20;

impl PipeReader {
    /// Receives messages from the pipe from here on, which the other side sends with
    /// [`PipeWriter::messages`](super::PipeWriter::messages). Never blocks.
    ///
    /// It reads ahead, so the pipe must be at the beginning of a message, and nobody else may read from it.
    ///
    /// # Examples
    ///
    /// See there.
    pub fn messages(self) -> MessageReader {
        MessageReader { reader: self, buf: vec![0; READ], start: 0, end: 0, max: MAX }
    }
}

/// Receives the messages that a [`MessageWriter`](crate::MessageWriter) sends through a pipe. Made by
/// [`PipeReader::messages`].
///
/// A message arrives whole, in order, and never joined with the next; an empty one is a message, and `None` is the end of
/// the stream. A stream that ends inside a message is an error that says so.
///
/// # A peer that is not trusted
///
/// Memory is taken as a message arrives, and never for what a length only promises; and a message may be no longer than
/// [`set_max_message`](Self::set_max_message) says, at first 64 MiB. But a hostile writer can hold the pipe's lock inside
/// the kernel and overstay a deadline: with such a peer, use a [`PackedSocket`](crate::PackedSocket).
///
/// # Not an end
///
/// A `MessageReader` is no [`Ends`](crate::Ends) and has no descriptor of its own, on purpose: what it has read ahead would
/// be copied by a fork and received twice, and `poll` does not see it. Give the bare reader away, and turn it into this
/// where it is used; for [`wait_any`](crate::wait_any) there is [`wait`](Self::wait).
///
/// ```compile_fail,E0277
/// let (reader, _writer) = ipc::pipe().unwrap();
/// ipc::fork(reader.messages(), |reader| ()); // `MessageReader: Ends` is not satisfied
/// ```
pub struct MessageReader {
    reader: PipeReader,
    /// Grows to the longest message.
    buf: Vec<u8>,
    /// What was read and not received is from here…
    start: usize,
    /// …to here.
    end: usize,
    max: usize,
}

impl MessageReader {
    /// Blocks until a message has arrived, and lends it, until the next call; `to_vec` keeps it. `None`: the end of the stream.
    ///
    /// Takes a message that was read before without a system call.
    ///
    /// # Errors
    ///
    /// - [`Error::Truncated`]: the stream ended inside a message. What arrived of it is in the error, and the next call is
    ///   `None`.
    /// - [`Error::TooLong`]: the message is longer than [`set_max_message`](Self::set_max_message) allows. It stays, to be
    ///   received when the limit was raised.
    /// - [`Error::WouldBlock`]: the pipe was made with [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK), and the message
    ///   is not there yet. What has arrived of it is kept.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: there is no memory for the message (`ENOMEM`). What has arrived of it is kept.
    ///
    /// # Platform
    ///
    /// read(2). The buffer grows to the longest message that arrives.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::Blocking)
    }

    /// Receives a message without blocking; else as [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: no whole message is there yet. What has arrived of it is kept; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::None)
    }

    /// Blocks until a message has arrived or the time is up; else as [`recv`](Self::recv).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals, and
    /// for the whole message, in however small parts it comes.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. What has arrived of the message is kept; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::timeout(timeout))
    }

    #[inline]
    fn receive(&mut self, patience: impl FnOnce() -> Patience) -> Result<Option<&[u8]>> {
        let next = match self.next() {
            Some(next) => next,
            None => match self.arrive(patience())? {
                Some(next) => next,
                None => return Ok(None),
            },
        };
        self.start = next.end;
        Ok(self.buf.get(next))
    }

    /// Where in the buffer the next message is, if all of it is there.
    #[inline]
    fn next(&self) -> Option<Range<usize>> {
        let bytes = self.buf.get(self.start..self.end)?;
        let (head, len) = frame::measure(bytes)?;
        if len > self.max as u64 || len > (bytes.len() - head) as u64 {
            return None;
        }
        let start = self.start + head;
        Some(start..start + len as usize)
    }

    /// Reads until the next message is there. `None`: the end.
    #[inline(never)]
    fn arrive(&mut self, patience: Patience) -> Result<Option<Range<usize>>> {
        loop {
            let measure = frame::measure(&self.buf[self.start..self.end]);
            if let Some((_, len)) = measure.filter(|(_, len)| *len > self.max as u64) {
                return Err(Error::TooLong { len: len.try_into().unwrap_or(usize::MAX), max: self.max });
            }
            if let Some(next) = self.next() {
                return Ok(Some(next));
            }
            if self.start > 0 {
                // What is left of the last read moves to the front.
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == self.buf.len() {
                self.grow(measure)?;
            }
            match self.reader.read_with(&mut self.buf[self.end..], patience)? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(self.truncated(measure)),
                count => self.end += count,
            }
        }
    }

    /// Makes room for a message that is longer than the buffer: at most as much again as has arrived of it.
    fn grow(&mut self, measure: Option<(usize, u64)>) -> Result<()> {
        let (head, len) = measure.unwrap_or((LONGEST_HEAD, 0));
        let whole = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(head);
        let size = whole.min(2 * self.buf.len());
        let more = size.saturating_sub(self.buf.len());
        self.buf.try_reserve_exact(more).map_err(|_| Error::system("malloc", Errno::NOMEM))?;
        self.buf.resize(size, 0);
        Ok(())
    }

    fn truncated(&mut self, measure: Option<(usize, u64)>) -> Error {
        let (head, expected) = measure.map_or((self.end, None), |(head, len)| (head, Some(len)));
        let message = self.buf[head..self.end].to_vec();
        self.end = 0;
        Error::Truncated { message, expected }
    }

    /// Whether the next [`recv`](Self::recv) has its answer in the buffer, and makes no system call. Never blocks.
    pub fn has_message(&self) -> bool {
        let too_long = |(_, len)| len > self.max as u64;
        self.next().is_some() || frame::measure(&self.buf[self.start..self.end]).is_some_and(too_long)
    }

    /// For [`wait_any`](crate::wait_any): ready when [`try_recv`](Self::try_recv) is worth a try. Never blocks.
    ///
    /// Where a message has arrived in the buffer, `wait_any` returns at once. Where a part of one arrives, it returns as well,
    /// and [`try_recv`](Self::try_recv) then keeps the part and says [`WouldBlock`](Error::WouldBlock). The loop is that of
    /// [`PackedSocket::wait`](crate::PackedSocket::wait).
    pub fn wait(&self) -> Watch<'_> {
        Watch::readable(&self.reader).buffered(self.has_message())
    }

    /// The longest message that is received, in bytes; 64 MiB at first.
    pub fn max_message(&self) -> usize {
        self.max
    }

    /// Sets the longest message that is received, in bytes; [`usize::MAX`]: any.
    ///
    /// The limit is there against a peer that fills this process's memory. A message that is over it is
    /// [`Error::TooLong`], and can be received after the limit was raised.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let (mut reader, mut writer) = (reader.messages(), writer.messages());
    /// writer.send(&[7; 5000])?;
    /// writer.close()?;
    ///
    /// reader.set_max_message(4096);
    /// assert!(matches!(reader.recv(), Err(ipc::Error::TooLong { len: 5000, max: 4096 })));
    /// reader.set_max_message(8192);
    /// assert_eq!(reader.recv()?, Some(&[7; 5000][..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn set_max_message(&mut self, bytes: usize) {
        self.max = bytes;
    }

    /// The reader. What is read through it is missing in the stream of messages. It is here for its settings.
    pub fn get_ref(&self) -> &PipeReader {
        &self.reader
    }

    /// Closes the end, and says what the kernel said. Never blocks. Dropping closes too.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if somebody else closed the number.
    pub fn close(self) -> Result<()> {
        self.reader.close()
    }
}

impl fmt::Debug for MessageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrived = self.end - self.start;
        f.debug_struct("MessageReader").field("reader", &self.reader).field("arrived", &arrived).finish()
    }
}
