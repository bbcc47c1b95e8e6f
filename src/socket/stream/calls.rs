//! The common parts of the calls of a [`StreamSocket`].

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use super::StreamSocket;
use crate::end::Ends;
use crate::error::{Error, Result};
use crate::socket::received::{Received, SendError, sending};
use crate::sys::ancillary::Beside;
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::sys::{self, Errno};
use crate::wait::Patience;

/// The most bytes of one system call. The kernel puts more than 36 KiB into the queue in pieces. It reports an error between two
/// of them only once, and the count hides it. Of the shorter lengths this is the fastest: the reader copies one piece while the
/// next one is written, and a piece fills four pages.
pub(crate) const PIECE: usize = 16 << 10;

impl StreamSocket {
    pub(super) fn read_with(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.arrive(patience, |fd, wait| sys::socket::read(fd, buf, wait))
    }

    pub(super) fn receive_ends(&self, buf: &mut [u8], patience: Patience) -> Result<(usize, Received)> {
        if buf.is_empty() {
            return Ok((0, Received::default()));
        }
        let mut beside = Beside::default();
        let len = self.arrive(patience, |fd, wait| {
            let (len, with) = sys::ancillary::receive(fd, buf, wait)?.unwrap_or_default();
            beside = with;
            Ok(len)
        })?;
        if len == 0 {
            beside.sender = None; // the kernel adds credentials at EOF too, and they are of no process
        }
        Ok((len, Received::new(len, beside)?))
    }

    pub(super) fn arrive(
        &self,
        patience: Patience,
        mut read: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<usize>,
    ) -> Result<usize> {
        let fd = self.end.as_fd();
        let mut was_reset = false;
        loop {
            match patience.persist(&self.end, &self.spin, "recv", POLLIN, None, |wait| read(fd, wait)) {
                Ok(0) => return self.loss.at_eof().map(|()| 0),
                // gVisor has it in the place of EOF, at every call.
                Err(Error::Reset) if was_reset => return self.loss.at_eof().map(|()| 0),
                Err(Error::Reset) => {
                    self.loss.note_reset();
                    was_reset = true;
                }
                read => return read,
            }
        }
    }

    /// Writes in pieces, and stops after one that did not go whole.
    pub(crate) fn write_with(&self, buf: &[u8], patience: Patience) -> Result<usize> {
        let mut written = 0;
        for piece in buf.chunks(PIECE) {
            // A call that does not wait for all of it returns at the first progress.
            let patience =
                if written > 0 && !matches!(patience, Patience::Blocking) { Patience::None } else { patience };
            match self.deliver(patience, |fd, wait| sys::socket::write(fd, piece, wait)) {
                Ok(count) => {
                    written += count;
                    if count < piece.len() {
                        break;
                    }
                }
                Err(error) if written == 0 => return Err(error),
                Err(_) => break, // the next call returns the error, if it still holds
            }
        }
        Ok(written)
    }

    pub(super) fn send_ends<E: Ends>(&self, bytes: &[u8], ends: E, patience: Patience) -> Result<usize, SendError<E>> {
        let sent = sending(&ends, |fds| match bytes {
            [] => Err(Error::system("sendmsg", Errno::INVAL)),
            _ => self.send_first(bytes, fds, patience),
        });
        sent.map_err(|error| SendError { ends, error })
    }

    /// Sends the ends with the first piece.
    fn send_first(&self, bytes: &[u8], fds: &[RawFd], patience: Patience) -> Result<usize> {
        let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
        let count = self.deliver(patience, |fd, wait| sys::ancillary::send(fd, piece, fds, wait))?;
        if count < piece.len() {
            return Ok(count);
        }
        let patience = if matches!(patience, Patience::Blocking) { patience } else { Patience::None };
        // The ends are sent, so the next call returns the error.
        Ok(count + self.write_with(rest, patience).unwrap_or(0))
    }

    pub(super) fn deliver(
        &self,
        patience: Patience,
        mut write: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<usize>,
    ) -> Result<usize> {
        let fd = self.end.as_fd();
        self.loss.sending(|| patience.persist(&self.end, &self.spin, "send", POLLOUT, None, |wait| write(fd, wait)))
    }
}
