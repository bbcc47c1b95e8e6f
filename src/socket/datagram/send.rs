//! Sending: whole messages, or nothing.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::DatagramSocket;
use crate::error::{Error, Result};
use crate::sys::poll::POLLOUT;
use crate::sys::{self, Errno};
use crate::wait::Patience;

impl DatagramSocket {
    /// Blocks until there is room in the peer's queue, and sends the message: all of it, or an error and nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLong`]: longer than [`max_message`](Self::max_message).
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the kernel has no memory for it (`ENOBUFS`).
    ///
    /// # Platform
    ///
    /// send(2) with `MSG_NOSIGNAL`.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        self.deliver(message.len(), Patience::Blocking, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Sends the message without blocking: all of it, or an error and nothing.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full; and as [`send`](Self::send).
    pub fn try_send(&self, message: &[u8]) -> Result<()> {
        self.deliver(message.len(), Patience::None, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the message: all of it, or an error
    /// and nothing.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send`](Self::send).
    ///
    /// # Platform
    ///
    /// send(2) with `MSG_DONTWAIT`, and ppoll(2). `O_NONBLOCK` is not touched.
    pub fn send_timeout(&self, message: &[u8], timeout: Duration) -> Result<()> {
        let patience = Patience::timeout(timeout);
        self.deliver(message.len(), patience, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Blocks until there is room in the peer's queue, and sends one message that is made of several parts.
    ///
    /// However many parts there are, it is one message: all of it, or an error and nothing. More than 1024 are copied
    /// together first.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"body")])?;
    /// assert_eq!(pair.child.recv_vec()?.as_deref(), Some(&b"head body"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::Blocking)
    }

    /// Sends one message that is made of several parts, without blocking; else as [`send_vectored`](Self::send_vectored).
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// let pair = ipc::datagram_pair()?;
    /// // A master does not let a worker that hangs hold it up.
    /// while pair.parent.try_send_vectored(&[IoSlice::new(b"report "), IoSlice::new(b"all")]).is_ok() {}
    /// assert_eq!(pair.child.recv_vec()?.as_deref(), Some(&b"report all"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends one message that is made of several
    /// parts; else as [`send_vectored`](Self::send_vectored).
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_vectored_timeout(&self, parts: &[IoSlice<'_>], timeout: Duration) -> Result<()> {
        self.send_parts(parts, Patience::timeout(timeout))
    }

    fn send_parts(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<()> {
        let len = parts.iter().map(|part| part.len()).sum();
        if parts.len() > sys::MOST_SLICES {
            let whole = parts.iter().map(|part| &**part).collect::<Vec<&[u8]>>().concat();
            return self.deliver(len, patience, |fd, wait| sys::socket::send(fd, &whole, wait));
        }
        self.deliver(len, patience, |fd, wait| sys::socket::send_vectored(fd, parts, wait))
    }

    #[inline(always)]
    pub(crate) fn deliver(
        &self,
        len: usize,
        patience: Patience,
        send: impl Fn(BorrowedFd<'_>, bool) -> sys::Result<()>,
    ) -> Result<()> {
        let mut refused = None;
        if patience.is_the_calls(&self.spin) {
            match send(self.end.as_fd(), true) {
                Ok(()) => return Ok(()),
                Err(errno) => refused = Some(errno),
            }
        }
        self.deliver_late(len, patience, refused, send)
    }

    /// Messages of ours that waited were lost with the peer: a receiver is to be told.
    pub(crate) fn note_loss(&self) {
        self.loss.note();
    }

    /// Sends, where there is more to it than one call that works, or after one that did not.
    #[inline(never)]
    fn deliver_late(
        &self,
        len: usize,
        patience: Patience,
        mut refused: Option<Errno>,
        send: impl Fn(BorrowedFd<'_>, bool) -> sys::Result<()>,
    ) -> Result<()> {
        let fd = self.end.as_fd();
        let mut too_long = false;
        let sent = self.loss.sending(|| {
            patience.persist(&self.end, &self.spin, "send", POLLOUT, None, |wait| {
                refused.take().map_or_else(|| send(fd, wait), Err).inspect_err(|errno| {
                    // More than the socket may hold, or than the kernel can build.
                    too_long = *errno == Errno::MSGSIZE || (*errno == Errno::NOBUFS && len > sys::socket::LARGEST);
                })
            })
        });
        match sent {
            Err(_) if too_long => Err(Error::TooLong { len, max: self.max_message()? }),
            sent => sent,
        }
    }
}
