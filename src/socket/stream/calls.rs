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

/// How many bytes go in one system call. The kernel puts more than 36 KiB into the queue in pieces, and an error between two of
/// them, which it tells once, is lost behind the count. Of what is shorter this is the fastest: the reader copies one piece while
/// the next one is written, and each is four pages and nothing beside them.
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
            beside.sender = None; // a socket that asks for credentials gets some at EOF too, and they are nobody's
        }
        Ok((len, Received::new(len, beside)?))
    }

    pub(super) fn arrive(
        &self,
        patience: Patience,
        mut read: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<usize>,
    ) -> Result<usize> {
        let fd = self.end.as_fd();
        loop {
            match patience.persist(&self.end, &self.spin, "recv", POLLIN, None, |wait| read(fd, wait)) {
                Ok(0) => return self.loss.at_eof().map(|()| 0),
                Err(Error::Reset) => self.loss.note(),
                read => return read,
            }
        }
    }

    /// In pieces, and stops where one does not go whole.
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
                Err(_) => break, // the next call is told, if it still is so
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

    /// The ends go with the first piece.
    fn send_first(&self, bytes: &[u8], fds: &[RawFd], patience: Patience) -> Result<usize> {
        let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
        let count = self.deliver(patience, |fd, wait| sys::ancillary::send(fd, piece, fds, wait))?;
        if count < piece.len() {
            return Ok(count);
        }
        let patience = if matches!(patience, Patience::Blocking) { patience } else { Patience::None };
        // The ends are gone, so an error is for the next call.
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
