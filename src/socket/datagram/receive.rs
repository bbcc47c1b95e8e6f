//! Receiving: whole messages, of whatever length, and then EOF.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};

use super::DatagramSocket;
use crate::error::{Error, Result};
use crate::socket::received::Received;
use crate::socket::spill::{Lent, append, copied, reserve};
use crate::sys::poll::POLLIN;
use crate::sys::socket::Mark;
use crate::sys::{self, Errno};
use crate::wait::Patience;

impl DatagramSocket {
    #[inline]
    pub(super) fn receive(&self, buf: &mut [u8], patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let mut first = None;
        if let Some(waits) = patience.first_call(&self.spin) {
            match sys::socket::receive(self.end.as_fd(), buf, spill.as_mut_slice(), waits) {
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
        first: Option<sys::Result<Option<usize>>>,
    ) -> Result<Option<usize>> {
        let receive = |fd: BorrowedFd<'_>, wait| sys::socket::receive(fd, buf, spill.as_mut_slice(), wait);
        match self.arrive(patience, first, receive)? {
            Some(len) if len > buf.len() => {
                let mut message = copied(buf)?;
                spill.append_to(&mut message, len - buf.len())?;
                Err(Error::BufferTooSmall { message })
            }
            arrived => Ok(arrived),
        }
    }

    /// Receives a message of whatever length into a buffer that becomes longer where it has to.
    pub(crate) fn receive_growing(&self, buf: &mut Vec<u8>, patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let receive = |fd: BorrowedFd<'_>, wait| sys::socket::receive(fd, buf, spill.as_mut_slice(), wait);
        let arrived = self.arrive(patience, None, receive)?;
        let over = arrived.map_or(0, |len| len.saturating_sub(buf.len()));
        if over > 0 {
            spill.append_to(buf, over)?;
        }
        Ok(arrived)
    }

    pub(super) fn receive_vec(&self, patience: Patience) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.receive_growing(&mut message, patience)?.map(|_| message))
    }

    /// Receives into the thread's memory, and copies into the slices, however many they are.
    pub(super) fn receive_parts(&self, bufs: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let receive = |fd: BorrowedFd<'_>, wait| sys::socket::receive(fd, &mut [], spill.as_mut_slice(), wait);
        let Some(len) = self.arrive(patience, None, receive)? else { return Ok(None) };
        spill.take(len, |message| {
            if fill(bufs, message).is_empty() {
                return Ok(Some(len));
            }
            Err(Error::BufferTooSmall { message: copied(message)? })
        })
    }

    /// Receives into the slices, and what they have no room for into `rest`.
    pub(super) fn receive_ends(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        rest: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<Option<Received>> {
        self.mark_for_ends();
        let mut spill = Lent::new()?;
        let receive = |fd: BorrowedFd<'_>, wait| sys::ancillary::receive(fd, spill.as_mut_slice(), wait);
        let Some((len, beside)) = self.arrive(patience, None, receive)? else { return Ok(None) };
        spill.take(len, |message| replace(rest, fill(bufs, message)))?;
        Received::new(len, beside).map(Some)
    }

    /// Receives a message of whatever length, and lends it to `take` with what came beside it.
    #[cfg(feature = "channel")]
    #[inline]
    pub(crate) fn receive_lent<T>(
        &self,
        patience: Patience,
        take: impl FnOnce(&[u8], Result<Received>) -> T,
    ) -> Result<Option<T>> {
        self.mark_for_ends();
        let mut spill = Lent::new()?;
        let mut receive = |fd: BorrowedFd<'_>, wait| sys::ancillary::receive(fd, spill.as_mut_slice(), wait);
        let first = patience.first_call(&self.spin).map(|waits| receive(self.end.as_fd(), waits));
        let (len, beside) = match first {
            Some(Ok(Some(arrived))) => arrived,
            first => match self.arrive(patience, first, receive)? {
                Some(arrived) => arrived,
                None => return Ok(None),
            },
        };
        Ok(Some(spill.take(len, |message| take(message, Received::new(len, beside)))))
    }

    /// Marks messages so that a receive with room for ends sees it, also those that have arrived.
    #[inline]
    fn mark_for_ends(&self) {
        if self.end.mark() == Some(Mark::Label) {
            // An error is ignored. In a sandbox that refuses the option, `is_eof` checks 0 bytes. On a severed end, the receive
            // fails too.
            let _ = self.end.mark_for_ends();
        }
    }

    /// Repeats a receiving call until there is a message, or EOF for certain. `first` is the answer to a call that was made
    /// already.
    pub(super) fn arrive<T: Default>(
        &self,
        patience: Patience,
        first: Option<sys::Result<Option<T>>>,
        mut receive: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<Option<T>>,
    ) -> Result<Option<T>> {
        let fd = self.end.as_fd();
        let settle = |answer| match answer {
            Err(Errno::AGAIN) if self.connectionless && sys::socket::receives_no_more(fd)? => Ok(None),
            other => other,
        };
        let (mut answer, mut errno) = match first.map(settle) {
            Some(Ok(answer)) => (Some(answer), None),
            Some(Err(errno)) => (None, Some(errno)),
            None => (None, None),
        };
        let (mut was_eof, mut was_reset) = (false, false);
        loop {
            let arrived = match answer.take() {
                Some(arrived) => Ok(arrived),
                None => patience
                    .persist(&self.end, &self.spin, "recvmsg", POLLIN, errno.take(), |wait| settle(receive(fd, wait))),
            };
            match arrived {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) if was_eof => return self.loss.at_eof().map(|()| None),
                // The kernel looks into the queue first, and then whether the peer is gone. A last message that the peer sent in
                // between, or the loss of ours, is not in this answer. Nothing comes after EOF, so a second look has everything.
                Ok(None) if sys::empty::are_lost() || self.is_eof()? => {
                    sys::socket::await_leaving(fd);
                    was_eof = true;
                }
                Ok(None) => return Ok(Some(T::default())),
                // gVisor has it in the place of EOF, at every call.
                Err(Error::Reset) if was_reset => return self.loss.at_eof().map(|()| None),
                Err(Error::Reset) => {
                    self.loss.note_reset();
                    was_reset = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether 0 bytes without a mark are EOF. Another holder may have removed the mark, or be replacing it at this
    /// moment. So they are an empty message as long as the peer is there.
    fn is_eof(&self) -> Result<bool> {
        sys::socket::receives_no_more(self.end.as_fd()).map_err(|errno| self.end.error("poll", errno))
    }
}

/// Replaces the contents, which stay where there is no memory for the new ones.
fn replace(contents: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    reserve(contents, bytes.len().saturating_sub(contents.len()))?;
    contents.clear();
    append(contents, bytes)
}

/// Copies the message into one slice after the other, and returns what they have no room for.
fn fill<'a>(bufs: &mut [IoSliceMut<'_>], message: &'a [u8]) -> &'a [u8] {
    bufs.iter_mut().fold(message, |rest, buf| {
        let (part, later) = rest.split_at(rest.len().min(buf.len()));
        buf[..part.len()].copy_from_slice(part);
        later
    })
}
