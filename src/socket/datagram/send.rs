//! Sending: whole messages, or nothing.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use super::DatagramSocket;
use crate::end::Ends;
use crate::error::{Error, Result};
use crate::socket::received::{SendError, sending};
use crate::sys::poll::POLLOUT;
use crate::sys::{self, Errno};
use crate::wait::Patience;

impl DatagramSocket {
    #[inline(always)]
    pub(crate) fn send_bytes(&self, message: &[u8], patience: Patience) -> Result<()> {
        self.deliver(message.len(), patience, |fd, wait| sys::socket::send(fd, message, wait))
    }

    pub(super) fn send_parts(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<()> {
        // Many slices of one large buffer can be longer than memory, and than a `usize` holds.
        let len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        if parts.len() <= sys::MOST_SLICES {
            return self.deliver(len, patience, |fd, wait| sys::socket::send_vectored(fd, parts, wait));
        }
        let max = self.max_message()?;
        if len > max {
            return Err(Error::TooLong { len, max });
        }
        let mut whole = Vec::with_capacity(len);
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        self.send_bytes(&whole, patience)
    }

    pub(crate) fn send_ends<E: Ends>(&self, message: &[u8], ends: E, patience: Patience) -> Result<(), SendError<E>> {
        let sent = sending(&ends, |fds| {
            self.deliver(message.len(), patience, |fd, wait| sys::ancillary::send(fd, message, fds, wait).map(drop))
        });
        sent.map_err(|error| SendError { ends, error })
    }

    /// Notes that waiting messages were lost with the peer, for a receiver to report.
    pub(crate) fn note_loss(&self) {
        self.loss.note();
    }

    /// Sends a message of that length: one call that works, or `deliver_late` after its errno.
    #[inline(always)]
    pub(crate) fn deliver(
        &self,
        len: usize,
        patience: Patience,
        send: impl Fn(BorrowedFd<'_>, bool) -> sys::Result<()>,
    ) -> Result<()> {
        if len == 0 && sys::empty::are_lost() {
            return self.refuse_empty();
        }
        let mut refused = None;
        if let Some(waits) = patience.first_call(&self.spin) {
            match send(self.end.as_fd(), waits) {
                Ok(()) => return Ok(()),
                Err(errno) => refused = Some(errno),
            }
        }
        self.deliver_late(len, patience, refused, send)
    }

    /// The kernel would drop an empty message, and the descriptors with it.
    #[cold]
    fn refuse_empty(&self) -> Result<()> {
        self.end.check_given()?;
        Err(Error::InvalidInput { what: "this kernel drops empty messages, so a message needs one byte at least" })
    }

    /// Sends in more than one call: spinning, waiting, or after a call that failed.
    #[inline(never)]
    fn deliver_late(
        &self,
        len: usize,
        patience: Patience,
        mut refused: Option<Errno>,
        send: impl Fn(BorrowedFd<'_>, bool) -> sys::Result<()>,
    ) -> Result<()> {
        let fd = self.end.as_fd();
        let mut last = refused;
        let sent = self.loss.sending(|| {
            patience.persist(&self.end, &self.spin, "send", POLLOUT, refused.take(), |wait| {
                send(fd, wait).inspect_err(|errno| last = Some(*errno))
            })
        });
        // More than the socket may hold, or than the kernel can build.
        let too_long = match last {
            Some(Errno::MSGSIZE) => true,
            Some(Errno::NOBUFS) => len > sys::socket::LARGEST,
            _ => false,
        };
        match sent {
            Err(_) if too_long => Err(Error::TooLong { len, max: self.max_message()? }),
            sent => sent,
        }
    }
}
