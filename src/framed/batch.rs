//! Messages that wait to be sent together: one buffer, and the rules for its contents.

use super::frame::{HEAD, PACK};
use crate::end::Held;
use crate::error::{Error, Result};
use crate::socket::DatagramSocket;
use crate::sys;
use crate::wait::{Patience, Until};

/// The stream or socket that a batch is sent to.
pub trait Outlet: Sized {
    /// Messages from this length on, in bytes, are not copied into the batch, but go past it.
    const PAST: usize = usize::MAX;

    /// Returns how many bytes wait before they are sent.
    fn batch_size(&self) -> usize;

    /// Sends `bytes`, which are not empty, from the first one on, and returns how many went: at least one.
    ///
    /// `Closed` is final: bytes that did not go are lost.
    fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize>;

    /// Makes room in the kernel for `len` bytes that belong together, if that is worth it. Returns `true` if it need not be
    /// called again. Never blocks.
    fn make_room(&mut self, _len: usize) -> bool {
        true
    }

    /// Closes it, and returns the kernel's error.
    fn close(self) -> Result<()>;
}

/// Messages that wait, and their outlet. Dropping it sends them, if that takes no more than a second.
pub(super) struct Batch<W: Outlet> {
    outlet: Held<W>,
    /// Its length is its room: bytes outside of `start..end` are not used.
    buf: Vec<u8>,
    /// The waiting bytes are from here…
    start: usize,
    /// …to here.
    end: usize,
    /// The length of the buffer, unless one message made it longer. 0: no message is taken any more.
    size: usize,
    /// Whether `make_room` need not be called again.
    is_settled: bool,
}

impl<W: Outlet> Batch<W> {
    pub(super) fn new(outlet: W) -> Self {
        let size = outlet.batch_size();
        Self { outlet: Held::new(outlet), buf: vec![0; size], start: 0, end: 0, size, is_settled: false }
    }

    /// Adds a message, if there is room for all of it.
    #[inline]
    pub(super) fn push(&mut self, message: &[u8]) -> bool {
        self.append(message) || self.move_and_append(message)
    }

    /// Adds a message behind the waiting ones.
    #[inline]
    fn append(&mut self, message: &[u8]) -> bool {
        let Some(room) = self.buf.get_mut(self.end..) else { return false };
        let Some((head, room)) = room.split_first_chunk_mut() else { return false };
        let Some(room) = room.get_mut(..message.len()) else { return false };
        // No buffer is so large that a message in it needs the long form.
        *head = (message.len() as u32).to_le_bytes();
        room.copy_from_slice(message);
        self.end += HEAD + message.len();
        true
    }

    /// Adds a message where the room for it is in front of what waits. If that is the last of a long message, the buffer
    /// is as short again as it was.
    #[cold]
    fn move_and_append(&mut self, message: &[u8]) -> bool {
        let fits = self.start > 0 && self.has_room(message);
        if fits {
            self.move_to_front();
            self.shrink();
        }
        fits && self.append(message)
    }

    /// Adds as many bytes as there is room for, and returns the others.
    pub(super) fn fill<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        let room = &mut self.buf[self.end..];
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        self.end += now.len();
        later
    }

    /// Adds these bytes, and makes the buffer longer for them until it is empty again.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.move_to_front();
        if self.buf.len() - self.end < bytes.len() {
            self.buf.resize(self.end + bytes.len(), 0);
        }
        self.fill(bytes);
    }

    /// Takes back the last `count` bytes, which wait.
    pub(super) fn take_back(&mut self, count: usize) {
        self.end -= count;
        self.consume(0);
    }

    /// The waiting bytes.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Returns how many bytes wait before they are sent.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns whether there is room for the message behind the waiting ones, which may have to be moved for it.
    pub(super) fn has_room(&self, message: &[u8]) -> bool {
        self.waiting().len() + HEAD + message.len() <= self.size
    }

    /// Returns whether the empty buffer has room for the message.
    pub(super) fn could_take(&self, message: &[u8]) -> bool {
        message.len() <= self.size.saturating_sub(HEAD)
    }

    /// Fails once a message could not be delivered because no reader is left: no further one is taken.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.size == 0 { Err(Error::Closed) } else { Ok(()) }
    }

    /// Sends the buffered messages. After a loss, each later call returns it again.
    pub(super) fn flush(&mut self, patience: Patience) -> Result<()> {
        self.check_open()?;
        self.flush_rest(patience)
    }

    /// Sends the waiting messages. After a loss there are none.
    pub(super) fn flush_rest(&mut self, patience: Patience) -> Result<()> {
        let mut puts = 0;
        while self.start < self.end {
            in_time(patience, puts)?;
            puts += 1;
            let put = self.outlet.put(&self.buf[self.start..self.end], Until(patience));
            let count = self.heed(put)?;
            self.consume(count);
        }
        Ok(())
    }

    /// Sends some of these bytes, ahead of the waiting ones.
    pub(super) fn put(&mut self, bytes: &[u8], patience: Patience) -> Result<usize> {
        let put = self.outlet.put(bytes, Until(patience));
        self.heed(put)
    }

    /// A message that is longer than the buffer goes next.
    pub(super) fn make_room(&mut self, message: &[u8]) {
        if !self.is_settled {
            let len = self.waiting().len() + HEAD + message.len();
            self.is_settled = self.outlet.make_room(len);
        }
    }

    /// Passes the outcome on. If no reader is left, the waiting messages are gone, and the next one is refused.
    pub(super) fn heed<T>(&mut self, put: Result<T>) -> Result<T> {
        if matches!(put, Err(Error::Closed)) {
            (self.start, self.end, self.size) = (0, 0, 0);
            self.buf = Vec::new();
        }
        put
    }

    /// Notes that `count` bytes were sent.
    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.shrink();
        }
    }

    fn move_to_front(&mut self) {
        self.buf.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Makes the buffer as short as it was.
    fn shrink(&mut self) {
        if self.buf.len() > self.size {
            self.buf.truncate(self.size);
            self.buf.shrink_to_fit();
        }
    }

    pub(super) fn outlet(&self) -> &W {
        &self.outlet
    }

    #[cfg(feature = "channel")]
    pub(super) fn outlet_mut(&mut self) -> &mut W {
        &mut self.outlet
    }

    /// Sends the waiting messages, and gives the outlet back; or itself, and the error.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub(super) fn into_outlet(mut self) -> Result<W, (Self, Error)> {
        match self.flush_rest(Patience::Blocking) {
            Ok(()) => Ok(self.outlet.take()),
            Err(error) => Err((self, error)),
        }
    }

    /// Sends the buffered messages and closes the outlet. Messages that do not go then are lost.
    pub(super) fn close(mut self) -> Result<()> {
        let flushed = self.flush(Patience::Blocking);
        self.end = self.start; // not again in drop
        flushed.and(self.outlet.take().close())
    }
}

impl<W: Outlet> Drop for Batch<W> {
    fn drop(&mut self) {
        let _ = self.flush_rest(Patience::linger()); // to see the error, close
    }
}

/// Fails if the time is up after that many writes. One that is not to wait goes on for as long as there is room.
pub(super) fn in_time(patience: Patience, puts: usize) -> Result<()> {
    if matches!(patience, Patience::Until(_)) { patience.after_steps(puts) } else { Ok(()) }
}

/// A batch of messages is a pack: it goes whole.
impl Outlet for DatagramSocket {
    /// A descriptor that is no socket, or severed, fails when it is used.
    fn batch_size(&self) -> usize {
        PACK.min(self.max_message().unwrap_or(PACK))
    }

    fn put(&mut self, pack: &[u8], until: Until) -> Result<usize> {
        let sent = self.deliver(pack.len(), until.0, |fd, wait| sys::socket::send(fd, pack, wait));
        if matches!(sent, Err(Error::Closed)) {
            self.note_loss(); // the pack is lost
        }
        sent.map(|()| pack.len())
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}
