//! The end that is read.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{End, Error, FromFdError, READING_END, Result, Spin, pipe_end, sys};
use crate::sys::poll::POLLIN;
use crate::sys::signal::Sigpipe;
use crate::wait::Patience;

/// The reading end of a [`pipe`](crate::pipe()).
///
/// [`Read`] blocks until there is something to read, and is `Ok(0)` at the end of the stream: when the last writer,
/// in whatever process, is closed. It is implemented for `&PipeReader` too. For lines, put a
/// [`BufReader`](std::io::BufReader) in front of it.
///
/// Several may hold a reader of one pipe; every byte goes to one of them.
///
/// Reading into an empty buffer is `Ok(0)` and tells nothing.
pub struct PipeReader {
    pub(super) end: End,
    spin: Spin,
    /// For what is spliced from here.
    pub(crate) sigpipe: Sigpipe,
}

pipe_end!(PipeReader, READING_END, io::PipeReader);

impl PipeReader {
    pub(super) fn new(end: End, sigpipe: Sigpipe) -> Self {
        Self { end, spin: Spin::of_pipe(), sigpipe }
    }

    pub(super) fn adopt(fd: OwnedFd) -> Self {
        Self::new(End::adopt(fd), Sigpipe::look())
    }

    /// Reads what is there, without blocking. `Ok(0)`: the end of the stream.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: the pipe is empty, and a writer is left.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: a sandbox allows none of the ways below (usually `EOPNOTSUPP`); or no descriptors are left for
    ///   the last of them (`EMFILE`). Nothing was read.
    ///
    /// # Platform
    ///
    /// preadv2(2) with `RWF_NOWAIT`, and vmsplice(2) where the kernel refuses that; in a sandbox without vmsplice, splice(2)
    /// through a private pipe, which takes two descriptors for the length of the call. `O_NONBLOCK`, which every holder of
    /// the end would see, is not touched.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let mut buf = [0; 16];
    /// assert!(matches!(reader.try_read(&mut buf), Err(ipc::Error::WouldBlock)));
    /// drop(writer);
    /// assert_eq!(reader.try_read(&mut buf)?, 0);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_with(buf, Patience::None)
    }

    /// Blocks until there is something to read, the stream ends (`Ok(0)`), or the time is up.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and when another reader of the pipe takes what this one was woken for.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`]: the time is up. Nothing was read.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: as for [`try_read`](Self::try_read).
    ///
    /// # Platform
    ///
    /// As [`try_read`](Self::try_read), and ppoll(2). A hostile writer can hold the pipe's lock inside the kernel (with
    /// userfaultfd(2) or FUSE), and then a deadline passes unseen: from a peer that is not trusted, receive messages.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (reader, _writer) = ipc::pipe()?;
    /// let late = reader.read_timeout(&mut [0; 16], Duration::from_millis(10));
    /// assert!(matches!(late, Err(ipc::Error::TimedOut)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn read_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<usize> {
        self.read_with(buf, Patience::timeout(timeout))
    }

    #[inline]
    pub(crate) fn read_with(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut refused = None;
        if patience.is_the_calls(&self.spin) {
            match rustix::io::read(&self.end, &mut *buf) {
                Ok(count) => return Ok(count),
                Err(errno) => refused = Some(errno),
            }
        }
        self.read_late(buf, patience, refused)
    }

    /// Reads, where there is more to it than one call that works, or after one that did not.
    #[inline(never)]
    fn read_late(&self, buf: &mut [u8], patience: Patience, mut refused: Option<sys::Errno>) -> Result<usize> {
        let fd = self.end.as_fd();
        patience.persist(&self.end, &self.spin, "read", POLLIN, |wait| match (refused.take(), wait) {
            (Some(errno), _) => Err(errno),
            (None, true) => rustix::io::read(fd, &mut *buf),
            (None, false) => sys::pipe::read_nowait(fd, &mut [IoSliceMut::new(buf)]),
        })
    }

    /// How many bytes could be read now. Never blocks.
    ///
    /// 0 says nothing about the end of the stream: [`try_read`](Self::try_read) does.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `FIONREAD` (ioctl_tty.2).
    pub fn available(&self) -> Result<usize> {
        sys::pipe::available(&self.end).map_err(|errno| self.end.error("ioctl", errno))
    }

    /// Another end with the settings of this one.
    fn with_end(&self, end: End) -> Self {
        Self { end, spin: self.spin.clone(), sigpipe: self.sigpipe }
    }
}

/// Blocks until there is something to read, or the stream ends. See [`PipeReader`].
impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// Blocks until there is something to read, or the stream ends. See [`PipeReader`].
impl Read for &PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(buf, Patience::Blocking).map_err(Error::into_io)
    }

    /// More than 1024 slices are read as the first 1024.
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        let bufs = &mut bufs[which];
        let fd = self.end.as_fd();
        let read = Patience::Blocking.persist(&self.end, &self.spin, "readv", POLLIN, |wait| match wait {
            true => rustix::io::readv(fd, bufs),
            false => sys::pipe::read_nowait(fd, bufs),
        });
        read.map_err(Error::into_io)
    }
}
