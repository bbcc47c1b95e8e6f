//! Sending: into the pack, and the pack to the peer.

use std::io::IoSlice;
use std::time::Duration;

use super::PackedSocket;
use crate::error::{Error, Result};
use crate::frame::HEAD;
use crate::sys;
use crate::wait::Patience;

impl PackedSocket {
    /// Adds a message to the pack. Blocks only if the pack is full and so is the peer's queue.
    ///
    /// A message that is longer than a pack goes at once, by itself, after those before it.
    ///
    /// # Errors
    ///
    /// The message was not taken, and what was taken before it is still there:
    ///
    /// - [`Error::TooLong`]: longer than [`max_message`](Self::max_message).
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down. What waited is lost, and receiving says so
    ///   with [`Error::Reset`]; from then on, every message is refused at once.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the kernel has no memory for it (`ENOBUFS`).
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::Blocking) }
    }

    /// Adds a message to the pack without blocking; else as [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the pack and the peer's queue are full; and as [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::None) }
    }

    /// Adds a message to the pack, and blocks for room until the time is up; else as [`send`](Self::send).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        if self.batch.push(message) { Ok(()) } else { self.send_with(message, Patience::timeout(timeout)) }
    }

    /// Sends what did not fit the pack.
    #[inline(never)]
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<()> {
        if self.batch.is_retired() {
            return Err(Error::Closed);
        }
        if !self.batch.could_take(message) {
            let max = self.max_message()?; // before anything is done
            if message.len() > max {
                return Err(Error::TooLong { len: message.len(), max });
            }
        }
        self.flush_with(patience)?;
        if self.batch.push(message) {
            return Ok(());
        }
        // Longer than a pack.
        let head = (message.len() as u32).to_le_bytes();
        let parts = [IoSlice::new(&head), IoSlice::new(message)];
        let len = HEAD + message.len();
        match self.socket.deliver(len, patience, |fd, wait| sys::socket::send_vectored(fd, &parts, wait)) {
            Err(Error::Closed) => {
                self.batch.retire();
                Err(Error::Closed)
            }
            sent => sent,
        }
    }

    /// Sends what waits. Blocks while the peer's queue is full.
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`]: as for [`send`](Self::send); from then on each time.
    /// - [`Error::TooLong`]: the limit of the socket was set below the size of the pack meanwhile. What waits stays.
    /// - [`Error::NotGiven`], [`Error::System`]: as for [`send`](Self::send). What waits stays.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_all(Patience::Blocking)
    }

    /// Sends what waits, without blocking.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full. What waits stays; and as [`flush`](Self::flush).
    pub fn try_flush(&mut self) -> Result<()> {
        self.flush_all(Patience::None)
    }

    /// Sends what waits, and blocks for room until the time is up.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up. What waits stays; and as [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.flush_all(Patience::timeout(timeout))
    }

    /// What was lost once stays lost, whatever was asked in between.
    fn flush_all(&mut self, patience: Patience) -> Result<()> {
        if self.batch.is_retired() { Err(Error::Closed) } else { self.flush_with(patience) }
    }

    pub(super) fn flush_with(&mut self, patience: Patience) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let pack = self.batch.bytes();
        match self.socket.deliver(pack.len(), patience, |fd, wait| sys::socket::send(fd, pack, wait)) {
            Ok(()) => {
                self.batch.clear();
                Ok(())
            }
            Err(Error::Closed) => {
                // Nobody will ever have it. Without a buffer, the next message is refused.
                self.socket.loss.note();
                self.batch.retire();
                Err(Error::Closed)
            }
            Err(error) => Err(error),
        }
    }
}
