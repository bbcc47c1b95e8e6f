//! Messages of any length out of a stream of bytes.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::Messages;
use super::bytes::ByteReader;
use super::frame::{self, LONGEST_HEAD};
use crate::end::FlushError;
use crate::end::packets::PACKET;
use crate::error::{Error, Result};
use crate::pipe::PipeReader;
use crate::socket::copied;
use crate::sys::Errno;
use crate::wait::{Patience, Until, Watch};

/// The longest message that is received, unless [`MessageReader::set_max_message`] sets another.
const MAX: usize = 64 << 20;

/// Receives the messages that a [`MessageWriter`](crate::MessageWriter) sends through a pipe or a
/// [ring](crate::RingReader), or over a [`StreamSocket`](crate::StreamSocket), a
/// [`UnixStream`](std::os::unix::net::UnixStream) or a [`TcpStream`](std::net::TcpStream).
///
/// A message arrives whole, in order, and never joined with the next. An empty one is a message, and `None` is EOF. A
/// stream that ends inside a message is [`Error::Truncated`].
///
/// In the guide: [many small messages](crate::guide::many_small_messages).
///
/// # A peer that is not trusted
///
/// Memory is taken as a message arrives, and never for a length that was only announced. A message may be no longer than
/// [`set_max_message`](Self::set_max_message) says, at first 64 MiB. But a hostile writer can hold a pipe's lock inside
/// the kernel and overstay a deadline: with such a peer, use a socket.
///
/// # Not an end
///
/// A `MessageReader` is no [`Ends`](crate::Ends) and has no descriptor of its own, on purpose. A fork would copy the messages
/// that it has read ahead, and both processes would receive them. `poll` does not see them. Give the bare end away, and make
/// this of it where it is used. For [`wait_any`](crate::wait_any) there is [`watch`](Self::watch).
///
/// ```compile_fail,E0277
/// let (reader, _writer) = ipc::pipe().unwrap();
/// ipc::fork(ipc::MessageReader::new(reader), |reader| ()); // `MessageReader: Ends` is not satisfied
/// ```
///
/// # Examples
///
/// With a pipe, see [`MessageWriter`](crate::MessageWriter). Over TCP:
///
/// ```
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let child = ipc::fork((), move |()| -> ipc::Result<()> {
///     let mut writer = ipc::MessageWriter::new(TcpStream::connect(address)?);
///     writer.send(b"from another machine, perhaps")?;
///     writer.close()
/// })?;
///
/// let mut reader = ipc::MessageReader::new(listener.accept()?.0);
/// assert_eq!(reader.recv()?, Some(&b"from another machine, perhaps"[..]));
/// assert_eq!(reader.recv()?, None);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "framed")]
#[doc(alias = "length_delimited")]
pub struct MessageReader<R: ByteReader = PipeReader> {
    reader: R,
    /// Grows to the longest message.
    buf: Vec<u8>,
    /// The bytes that were read and not received are from here…
    start: usize,
    /// …to here.
    end: usize,
    max: usize,
    /// How many bytes of a message that was refused are still to come…
    to_skip: u64,
    /// …and how long that message is.
    skipped: u64,
}

impl<R: ByteReader> MessageReader<R> {
    /// Receives messages from `reader` from here on. Never blocks.
    ///
    /// It reads ahead, so the stream must be at the beginning of a message, and have no other reader. Settings,
    /// such as [`set_spin`](PipeReader::set_spin), are made before.
    ///
    /// For both directions of a socket, clone it (`try_clone`) and make a [`MessageWriter`](crate::MessageWriter) of the
    /// clone. See [`MessageReader`].
    pub fn new(reader: R) -> Self {
        Self { reader, buf: vec![0; R::READ], start: 0, end: 0, max: MAX, to_skip: 0, skipped: 0 }
    }

    /// Blocks until a message has arrived, and lends it until the next call; [`recv_vec`](Self::recv_vec) gives it away.
    /// `None` is EOF. Takes a message that was read before without a system call. See [`MessageReader`].
    ///
    /// # Errors
    ///
    /// - [`Error::Truncated`]: the stream ended inside a message. The error has the part that arrived, and the next call
    ///   is `None`.
    /// - [`Error::TooLong`]: the message is longer than [`set_max_message`](Self::set_max_message) allows. It stays, to
    ///   be received when the limit was raised.
    /// - [`Error::Reset`]: the peer of a socket went away with bytes of ours unread, or the connection was lost. It comes
    ///   once, after all that arrived. A part of a message is kept, and the next call is [`Error::Truncated`] then.
    /// - [`Error::WouldBlock`]: the end has `O_NONBLOCK` (see [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK)), or
    ///   the standard library's stream has a timeout of its own, and the message is not there yet. The part that has
    ///   arrived is kept.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: there is no memory for the message (`ENOMEM`), and the part that has arrived is kept; or a
    ///   connection failed (`ETIMEDOUT`).
    ///
    /// # Platform
    ///
    /// [`read(2)`](https://man7.org/linux/man-pages/man2/read.2.html), or
    /// [`recv(2)`](https://man7.org/linux/man-pages/man2/recv.2.html). The buffer grows to the longest message.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::Blocking)
    }

    /// Receives a message without blocking; otherwise the same as [`recv`](Self::recv). See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: no whole message is there yet. The part that has arrived is kept; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::None)
    }

    /// Blocks until a message has arrived or the time is up; otherwise the same as [`recv`](Self::recv). See [`Messages`].
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and for the whole message, in however small parts it comes. `O_NONBLOCK` is not touched.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. The part that has arrived is kept; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::timeout(timeout))
    }

    /// Blocks until a message has arrived, and returns a copy; otherwise the same as [`recv`](Self::recv). See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`recv`](Self::recv).
    pub fn recv_vec(&mut self) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::Blocking), copied)
    }

    /// Returns a message without blocking; otherwise the same as [`recv_vec`](Self::recv_vec). See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`try_recv`](Self::try_recv).
    pub fn try_recv_vec(&mut self) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::None), copied)
    }

    /// Blocks until a message has arrived or the time is up, and returns it; otherwise the same as [`recv_vec`](Self::recv_vec).
    /// See [`Messages`].
    ///
    /// # Errors
    ///
    /// Same as [`recv_timeout`](Self::recv_timeout).
    pub fn recv_vec_timeout(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_by(Until(Patience::timeout(timeout)), copied)
    }

    /// Returns an iterator over the messages, each of which it blocks for, until EOF.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let mut writer = ipc::MessageWriter::new(writer);
    /// for word in ["one", "two"] {
    ///     writer.send(word.as_bytes())?;
    /// }
    /// writer.close()?;
    ///
    /// let mut reader = ipc::MessageReader::new(reader);
    /// let words = reader.iter().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(words, [b"one", b"two"]);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn iter(&mut self) -> Messages<'_, Self> {
        Messages::new(self)
    }

    #[inline]
    fn receive(&mut self, patience: impl FnOnce() -> Patience) -> Result<Option<&[u8]>> {
        let Some(next) = self.find(patience)? else { return Ok(None) };
        self.start = next.end;
        Ok(self.buf.get(next))
    }

    /// The same, which `copy` copies. If there is no memory for that, the message stays.
    #[inline]
    pub(crate) fn receive_by<T>(&mut self, until: Until, copy: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        let Some(next) = self.find(|| until.0)? else { return Ok(None) };
        let taken = copy(&self.buf[next.clone()])?;
        self.start = next.end;
        Ok(Some(taken))
    }

    #[inline(always)]
    fn find(&mut self, patience: impl FnOnce() -> Patience) -> Result<Option<Range<usize>>> {
        if let Some(next) = self.next() { Ok(Some(next)) } else { self.arrive(patience()) }
    }

    /// The place of the next message in the buffer, if all of it is there.
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

    /// Reads until the next message is there. `None`: EOF.
    #[inline(never)]
    fn arrive(&mut self, patience: Patience) -> Result<Option<Range<usize>>> {
        self.skip_rest(patience)?;
        let mut reads = 0;
        loop {
            let measure = frame::measure(&self.buf[self.start..self.end]);
            if let Some((_, len)) = measure.filter(|(_, len)| *len > self.max as u64) {
                return Err(Error::TooLong { len: len.try_into().unwrap_or(usize::MAX), max: self.max });
            }
            if let Some(next) = self.next() {
                return Ok(Some(next));
            }
            patience.after_steps(reads)?;
            reads += 1;
            if self.start > 0 {
                // The rest of the last read moves to the front.
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            // If the writer has set O_DIRECT, the pipe throws away the part of a packet that the buffer has no room for.
            if self.buf.len() - self.end < PACKET {
                self.grow(measure)?;
            }
            match self.reader.read_until(&mut self.buf[self.end..], Until(patience))? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(self.truncated(measure)),
                count => self.end += count,
            }
        }
    }

    /// Passes over the next message, which was refused for its length. `false`: there is none, and the stream itself was refused.
    #[cfg(feature = "channel")]
    pub(crate) fn skip(&mut self) -> bool {
        let bytes = &self.buf[self.start..self.end];
        let Some((head, len)) = frame::measure(bytes) else { return false };
        let whole = len.saturating_add(head as u64);
        let here = whole.min(bytes.len() as u64);
        self.start += here as usize;
        self.to_skip = whole - here;
        self.skipped = len;
        true
    }

    /// Throws away what is left of a message that was passed over.
    fn skip_rest(&mut self, patience: Patience) -> Result<()> {
        let mut reads = 0;
        while self.to_skip > 0 {
            patience.after_steps(reads)?;
            reads += 1;
            (self.start, self.end) = (0, 0);
            match self.reader.read_until(&mut self.buf, Until(patience))? {
                0 => {
                    self.to_skip = 0;
                    return Err(Error::Truncated { message: Vec::new(), expected: Some(self.skipped) });
                }
                count => {
                    let skipped = self.to_skip.min(count as u64);
                    self.to_skip -= skipped;
                    (self.start, self.end) = (skipped as usize, count);
                }
            }
        }
        Ok(())
    }

    /// Makes room for a message that is longer than the buffer, and for a packet: at most about twice the bytes that arrived.
    fn grow(&mut self, measure: Option<(usize, u64)>) -> Result<()> {
        let (head, len) = measure.unwrap_or((LONGEST_HEAD, 0));
        let whole = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(head + PACKET);
        let size = whole.min(2 * self.buf.len()).max(self.end + PACKET);
        self.buf.try_reserve_exact(size - self.buf.len()).map_err(|_| Error::system("malloc", Errno::NOMEM))?;
        self.buf.resize(size, 0);
        Ok(())
    }

    fn truncated(&mut self, measure: Option<(usize, u64)>) -> Error {
        let (head, expected) = measure.map_or((self.end, None), |(head, len)| (head, Some(len)));
        // Within the memory that the buffer has: a peer decides how much the rest is.
        let mut message = std::mem::replace(&mut self.buf, vec![0; R::READ]);
        message.truncate(std::mem::take(&mut self.end));
        message.drain(..head);
        Error::Truncated { message, expected }
    }

    /// Returns whether the next [`recv`](Self::recv) has its answer in the buffer, and makes no system call. Never blocks. See
    /// [`Messages`].
    #[must_use]
    pub fn has_message(&self) -> bool {
        let too_long = |(_, len)| len > self.max as u64;
        self.next().is_some() || frame::measure(&self.buf[self.start..self.end]).is_some_and(too_long)
    }

    /// Returns a [`Watch`] for [`wait_any`](crate::wait_any), ready when [`try_recv`](Self::try_recv) is. Never blocks.
    ///
    /// With a message in the buffer, `wait_any` returns at once. With a part of one it returns as well, and
    /// [`try_recv`](Self::try_recv) then keeps the part and returns [`WouldBlock`](Error::WouldBlock). See [`Messages`].
    ///
    /// # Errors
    ///
    /// None with today's streams.
    pub fn watch(&mut self) -> Result<Watch<'_>> {
        let has_message = self.has_message();
        Ok(self.reader.watch()?.buffered(has_message))
    }

    /// Returns the longest message that is received, in bytes; 64 MiB at first. See [`set_max_message`](Self::set_max_message). See
    /// [`Messages`].
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.max
    }

    /// Sets the longest message that is received, in bytes; [`usize::MAX`]: any.
    ///
    /// The limit keeps a peer from filling this process's memory. A message that is over it is
    /// [`Error::TooLong`], and can be received after the limit was raised.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let (mut reader, mut writer) = (ipc::MessageReader::new(reader), ipc::MessageWriter::new(writer));
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

    /// Returns the reader of the [example](Self#examples), for its settings. Bytes that are read through it are missing in the
    /// stream of messages. See [`Messages`].
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Gives the reader of the [example](Self#examples) back, if its buffer is empty. Never blocks. See [`Messages`].
    ///
    /// # Errors
    ///
    /// [`Error::Unread`]: messages, or a part of one, have arrived in the buffer that were not received. The error gives
    /// the `MessageReader` back, and `?` turns it into [`Error`].
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_inner(self) -> Result<R, FlushError<Self>> {
        let is_empty = self.start == self.end && self.to_skip == 0;
        if is_empty { Ok(self.reader) } else { Err(FlushError { unflushed: self, error: Error::Unread }) }
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Dropping closes too. See [`MessageReader`].
    ///
    /// # Errors
    ///
    /// [`Error::System`]: other code closed the number.
    pub fn close(self) -> Result<()> {
        self.reader.close()
    }
}

impl<R: ByteReader> fmt::Debug for MessageReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrived = self.end - self.start;
        f.debug_struct("MessageReader").field("reader", &self.reader).field("arrived", &arrived).finish()
    }
}
