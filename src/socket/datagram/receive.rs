//! Receiving: whole messages, of whatever length, and then the end.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::DatagramSocket;
use crate::error::{Error, Result};
use crate::socket::Lent;
use crate::sys::poll::POLLIN;
use crate::sys::{self, Errno};
use crate::wait::Patience;

impl DatagramSocket {
    /// Blocks until a message arrives, and says how long it is. `None`: the peer is gone, and all that it sent was
    /// received. `Some(0)`: an empty message.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooSmall`]: the message is longer than `buf`. It is whole inside the error.
    /// - [`Error::Reset`]: the peer went away with messages of ours unread; said once, after all that it sent.
    /// - [`Error::WouldBlock`]: the socket was made elsewhere, with `O_NONBLOCK`, and there is no message.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no address space for a long message (`ENOMEM`). Nothing was received.
    ///
    /// # Platform
    ///
    /// recvmsg(2). What `buf` has no room for goes to 8 MiB of address space that each receiving thread keeps, and that
    /// takes memory only where it is written to. So does, up to 512 bytes of `buf`, what there is room for, on its way. Descriptors that a foreign program sends along are closed.
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::Blocking)
    }

    /// Receives a message without blocking; else as [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::None)
    }

    /// Blocks until a message arrives or the time is up; else as [`recv`](Self::recv).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and when another holder takes the message that this call was woken for. What a peer can do against it is to send a
    /// descriptor whose last close takes long (a TCP socket with `SO_LINGER`, a file on FUSE): it is closed here.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<Option<usize>> {
        self.receive(buf, Patience::timeout(timeout))
    }

    fn receive(&self, buf: &mut [u8], patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let mut first = None;
        if patience.is_the_calls(&self.spin) {
            match sys::socket::receive(self.end.as_fd(), buf, spill.as_mut_slice(), true) {
                Ok(Some(len)) if len <= buf.len() => return Ok(Some(len)),
                other => first = Some(other),
            }
        }
        self.receive_late(buf, &mut spill, patience, first)
    }

    /// Receives, where there is more to it than one call with one answer.
    #[cold]
    #[inline(never)]
    fn receive_late(
        &self,
        buf: &mut [u8],
        spill: &mut Lent,
        patience: Patience,
        mut first: Option<sys::Result<Option<usize>>>,
    ) -> Result<Option<usize>> {
        let receive = |fd: BorrowedFd<'_>, wait| match first.take() {
            Some(first) => first,
            None => sys::socket::receive(fd, buf, spill.as_mut_slice(), wait),
        };
        match self.arrive(patience, receive)? {
            Some(len) if len > buf.len() => {
                let mut message = buf.to_vec();
                spill.append_to(&mut message, len - buf.len());
                Err(Error::BufferTooSmall { message })
            }
            arrived => Ok(arrived),
        }
    }

    /// Receives a message of whatever length into a buffer that becomes longer where it has to.
    pub(crate) fn receive_growing(&self, buf: &mut Vec<u8>, patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let arrived = self.arrive(patience, |fd, wait| sys::socket::receive(fd, buf, spill.as_mut_slice(), wait))?;
        let over = arrived.map_or(0, |len| len.saturating_sub(buf.len()));
        if over > 0 {
            spill.append_to(buf, over);
        }
        Ok(arrived)
    }

    /// Blocks until a message arrives, of whatever length, and returns it. `None`: the peer is gone, and all that it sent
    /// was received.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), but [`Error::BufferTooSmall`].
    pub fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::Blocking)
    }

    /// Receives a message of whatever length without blocking; else as [`recv_vec`](Self::recv_vec).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv_vec`](Self::recv_vec).
    pub fn try_recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::None)
    }

    /// Blocks until a message arrives, of whatever length, or the time is up; else as [`recv_vec`](Self::recv_vec).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_vec`](Self::recv_vec).
    pub fn recv_vec_timeout(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::timeout(timeout))
    }

    fn receive_vec(&self, patience: Patience) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.receive_growing(&mut message, patience)?.map(|_| message))
    }

    /// Blocks until a message arrives, and says how long it is. The message stays. `None`: the peer is gone, and all that
    /// it sent was received.
    ///
    /// Where several hold the socket, another may receive the message before this one does.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), but [`Error::BufferTooSmall`].
    ///
    /// # Platform
    ///
    /// recvmsg(2) with `MSG_PEEK`.
    pub fn peek_len(&self) -> Result<Option<usize>> {
        self.arrive(Patience::Blocking, sys::socket::peek_len)
    }

    pub(in crate::socket) fn arrive<T>(
        &self,
        patience: Patience,
        mut receive: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<Option<T>>,
    ) -> Result<Option<T>> {
        let fd = self.end.as_fd();
        let mut was_end = false;
        let mut attempt = |wait| match receive(fd, wait) {
            Err(Errno::AGAIN) if self.connectionless && sys::socket::receives_no_more(fd)? => Ok(None),
            received => received,
        };
        self.loss.receiving(Option::is_none, || {
            loop {
                match patience.persist(&self.end, &self.spin, "recvmsg", POLLIN, None, &mut attempt)? {
                    // The kernel looks into the queue, then whether the peer is gone: what the peer did in between, a last
                    // message or the loss of ours, is not in this answer. Nothing comes after the end, so a second look misses
                    // nothing.
                    None if !was_end => was_end = true,
                    message => return Ok(message),
                }
            }
        })
    }
}
