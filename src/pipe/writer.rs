//! The end that is written.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

#[cfg(doc)]
use super::PipeReader;
use super::{PIPE_BUF, splice};
use crate::end::{self, End};
use crate::error::{Error, Result};
use crate::sys::pipe::NowaitWrite;
use crate::sys::poll::{POLLERR, POLLOUT};
use crate::sys::signal::Sigpipe;
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin, is_ready};

/// Writes are cut to this unless [`PipeWriter::set_max_write`] says otherwise.
pub(crate) const CUT: usize = 8 << 10;

/// The writing end of a [`pipe`](crate::pipe()).
///
/// [`Write`] blocks while the pipe is full, and fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) when no reader is
/// left, in any process. It is implemented for `&PipeWriter` too. There is nothing to flush: bytes that `write` took are in
/// the pipe.
///
/// `SIGPIPE` is never raised, with one exception. The program ignores it when the end is made, and resets it to its default
/// later, by other means than [`Fork::reset_signals`](crate::Fork::reset_signals).
///
/// See [`pipe`](crate::pipe()) for an example. In the guide: [pipes](crate::guide::pipes), [deadlines](crate::guide::deadlines).
///
/// # Long writes are cut
///
/// One `write` puts at most 8 KiB into the pipe and returns a short count, as `Write` allows; `write_all` writes the
/// rest. During a longer write the kernel holds the pipe's lock, and writer and reader take turns. Cut, large data passes
/// between two cores several times as fast. [`set_max_write`](Self::set_max_write) sets another length.
///
/// # Several writers
///
/// Up to [`PIPE_BUF`] bytes of one write stay together. `write_all` of more is several writes, and other writers' bytes
/// may come between them. Use [`write_atomic`](Self::write_atomic) for records of several writers, or give each a pipe.
pub struct PipeWriter {
    pub(super) end: End,
    spin: Spin,
    cut: usize,
    pub(crate) sigpipe: Sigpipe,
}

impl PipeWriter {
    pub(super) fn new(end: End, sigpipe: Sigpipe) -> Self {
        Self { end, spin: Spin::of_pipe(), cut: CUT, sigpipe }
    }

    pub(super) fn adopt(fd: OwnedFd) -> Self {
        Self::new(End::adopt(fd), sys::pipe::prepare())
    }

    /// Writes as many bytes as there is room for, without blocking, and returns their number.
    ///
    /// Up to [`PIPE_BUF`] bytes go in whole or not at all. An empty buffer is `Ok(0)`, even without a reader.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: the pipe is too full.
    /// - [`Error::Closed`]: no reader is left.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: a sandbox refuses both calls below, or no descriptors are left (`EMFILE`). Nothing was written.
    ///
    /// # Platform
    ///
    /// [pwritev2(2)] with `RWF_NOWAIT` (since about Linux 6.4). If the kernel refuses that, [splice(2)] from a private pipe,
    /// which takes two descriptors for the length of the call. The call does not touch `O_NONBLOCK`, which every holder of the
    /// end would see.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// while writer.try_write(&[0; 1024]).is_ok() {}
    /// assert!(matches!(writer.try_write(b"more"), Err(ipc::Error::WouldBlock)));
    /// drop(reader);
    /// assert!(matches!(writer.try_write(b"more"), Err(ipc::Error::Closed)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [pwritev2(2)]: https://man7.org/linux/man-pages/man2/pwritev2.2.html
    /// [splice(2)]: https://man7.org/linux/man-pages/man2/splice.2.html
    #[inline]
    pub fn try_write(&self, buf: &[u8]) -> Result<usize> {
        self.write_with(self.cut(buf), Patience::None)
    }

    /// Blocks until there is room or the time is up, and writes as many bytes as fit. It returns at the first progress, with
    /// their number. For all of a buffer within a time, see [`Deadline`](crate::Deadline).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and when another writer takes the room. Up to [`PIPE_BUF`] bytes go in whole or not at all.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`]: the time is up. Nothing was written.
    /// - [`Error::Closed`]: no reader is left.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: as for [`try_write`](Self::try_write).
    ///
    /// # Platform
    ///
    /// As [`try_write`](Self::try_write), and [ppoll(2)](https://man7.org/linux/man-pages/man2/ppoll.2.html).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (_reader, writer) = ipc::pipe()?;
    /// assert_eq!(writer.write_timeout(b"hello", Duration::from_secs(1))?, 5);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn write_timeout(&self, buf: &[u8], timeout: Duration) -> Result<usize> {
        self.write_with(self.cut(buf), Patience::timeout(timeout))
    }

    /// Blocks until there is room for all of `buf`, and writes it in one piece: no other writer's bytes come in between.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLong`]: `buf` is longer than [`PIPE_BUF`]. Nothing was written.
    /// - [`Error::Closed`]: no reader is left.
    /// - [`Error::WouldBlock`]: the pipe is too full, and has [`PipeFlags::NONBLOCK`](crate::PipeFlags::NONBLOCK).
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// The promise is POSIX's ([pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html)).
    ///
    /// # Examples
    ///
    /// ```
    /// let (_reader, writer) = ipc::pipe()?;
    /// writer.write_atomic(b"one record\n")?;
    /// let too_long = writer.write_atomic(&[0; ipc::PIPE_BUF + 1]);
    /// assert!(matches!(too_long, Err(ipc::Error::TooLong { len: 4097, max: 4096 })));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn write_atomic(&self, buf: &[u8]) -> Result<()> {
        if buf.len() > PIPE_BUF {
            return Err(Error::TooLong { len: buf.len(), max: PIPE_BUF });
        }
        match self.write_with(buf, Patience::Blocking)? {
            written if written == buf.len() => Ok(()),
            // Not from a pipe, and from nothing that passes for one.
            _ => Err(Error::System { call: "write", source: io::ErrorKind::WriteZero.into() }),
        }
    }

    /// Returns whether no reader is left, so that a write would fail. Never blocks.
    ///
    /// A `false` may be out of date when it is returned.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `POLLERR` of [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// assert!(!writer.is_closed()?);
    /// drop(reader);
    /// assert!(writer.is_closed()?);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn is_closed(&self) -> Result<bool> {
        is_ready(&self.end, POLLERR)
    }

    /// Blocks until `input` has something to read and the pipe has room, and moves at most `len` bytes, without copying them
    /// through this process. Returns how many; 0 is EOF of `input`, or a `len` of 0.
    ///
    /// **From a file it moves the file's own memory**: the pipe's reader sees a later change of the file.
    /// [`copy`](crate::copy()) copies instead.
    ///
    /// `input` can be a file, which is read from its current position, a socket, or a pipe. [`splice_to`](PipeReader::splice_to)
    /// has the effects of waiting for a *socket*, and those on later `try_` calls.
    ///
    /// # Errors
    ///
    /// Nothing was moved:
    ///
    /// - [`Error::Closed`]: no reader is left. `SIGPIPE` is not raised.
    /// - [`Error::WouldBlock`]: one of the two has `O_NONBLOCK`, and there is nothing to read or no room.
    /// - [`Error::Reset`]: the peer of a socket went away without having read everything.
    /// - [`Error::NotGiven`]: this process was not given the end, or `input`.
    /// - [`Error::System`] with `EINVAL`: `input` cannot be spliced from, or is the same pipe.
    ///
    /// # Platform
    ///
    /// [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html).
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let moved = writer.splice_from(std::fs::File::open("/proc/self/exe")?, 1000)?;
    /// assert_eq!(reader.available()?, moved);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "splice")]
    pub fn splice_from(&self, input: impl AsFd, len: usize) -> Result<usize> {
        splice(input.as_fd(), self.as_fd(), len, self.sigpipe)
    }

    /// Same as [`splice_from`](Self::splice_from), but moves bytes from `offset` of a file, whose own position stays as it is.
    ///
    /// # Errors
    ///
    /// As [`splice_from`](Self::splice_from). [`Error::System`] with `ESPIPE`: `input` has no positions; with `EINVAL`: the
    /// offset is over `i64::MAX`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// let (mut reader, writer) = ipc::pipe()?;
    /// writer.splice_from_at(std::fs::File::open("/proc/self/exe")?, 1, 3)?;
    /// let mut three = [0; 3];
    /// reader.read_exact(&mut three)?;
    /// assert_eq!(&three, b"ELF");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn splice_from_at(&self, input: impl AsFd, offset: u64, len: usize) -> Result<usize> {
        let (from, to) = (input.as_fd(), self.as_fd());
        let moved = sys::pipe::splice_at(from, offset, to, len, self.sigpipe.now());
        moved.map_err(|errno| end::error(&[from, to], "splice", errno))
    }

    /// Sets the length that longer writes are cut to, in bytes. With [`usize::MAX`] none is cut. 0 counts as 1.
    ///
    /// 8 KiB, the default, is the best between two cores on most of the machines that were measured. A pipe of 128 KiB
    /// or more ([`set_capacity`](Self::set_capacity)) is up to 1.3 times as fast with it. An AMD EPYC was faster still with
    /// 4 KiB. An Intel Xeon was 1.2 to 1.4 times as fast with 64 KiB in a pipe of 256 KiB: measure both. Whole writes are faster if reader and writer share one core,
    /// or if only the writer has work to do. Below [`PIPE_BUF`], `Write` and the `try_` and `_timeout` calls are no longer
    /// all or nothing; [`write_atomic`](Self::write_atomic) is never cut.
    ///
    /// The setting belongs to this value. A child and clones have it too.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let (_reader, mut writer) = ipc::pipe()?;
    /// assert_eq!(writer.write(&[0; 50_000])?, 8192);
    /// writer.set_max_write(usize::MAX);
    /// assert_eq!(writer.write(&[0; 50_000])?, 50_000);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn set_max_write(&mut self, bytes: usize) {
        self.cut = bytes.max(1);
    }

    /// Lets calls look again for this long before they sleep. Same as [`PipeReader::set_spin`]. See [spinning](crate::guide::spinning).
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// Returns how many bytes the pipe holds at most. Never blocks. See [`PipeReader::set_capacity`].
    #[doc(alias = "F_GETPIPE_SZ")]
    pub fn capacity(&self) -> Result<usize> {
        rustix::pipe::fcntl_getpipe_size(&self.end).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes the pipe hold at least `bytes`. Never blocks. Same as [`PipeReader::set_capacity`], with its errors and example.
    #[doc(alias = "F_SETPIPE_SZ")]
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        sys::pipe::set_capacity(self.end.as_fd(), bytes).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes a second writer of the same pipe, in this process. Never blocks.
    ///
    /// EOF comes when *all* writers are closed. It has the settings of this value. See [`PipeReader::close`] for an example.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    #[doc(alias = "dup")]
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { end: self.end.try_clone()?, spin: self.spin.clone(), ..*self })
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Same as [`PipeReader::close`].
    ///
    /// # Errors
    ///
    /// As [`PipeReader::close`].
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    /// Writes some of `buf`, which is not empty: at least one byte.
    pub(crate) fn write_some(&self, buf: &[u8], patience: Patience) -> Result<usize> {
        match self.write_with(self.cut(buf), patience)? {
            // Not from a pipe, and from nothing that passes for one.
            0 => Err(Error::System { call: "write", source: io::ErrorKind::WriteZero.into() }),
            written => Ok(written),
        }
    }

    #[inline]
    pub(super) fn write_with(&self, buf: &[u8], patience: Patience) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let sigpipe = self.sigpipe.now();
        let mut refused = None;
        if let Some(waits) = patience.first_call(&self.spin) {
            let write = match waits {
                true => sys::pipe::write(self.end.as_fd(), buf, sigpipe),
                false => sys::pipe::write_nowait(self.end.as_fd(), &[IoSlice::new(buf)], sigpipe),
            };
            match write {
                Ok(written) => return Ok(written),
                // The loop then tries another way.
                Err(errno) if !waits && sys::is_refused(errno) => {}
                Err(errno) => refused = Some(errno),
            }
        }
        self.write_late(buf, patience, sigpipe, refused)
    }

    /// Writes where one plain call is not enough, or after one that failed.
    #[inline(never)]
    fn write_late(&self, buf: &[u8], patience: Patience, sigpipe: Sigpipe, refused: Option<Errno>) -> Result<usize> {
        let fd = self.end.as_fd();
        let mut write = NowaitWrite::new(buf, sigpipe);
        patience.persist(&self.end, &self.spin, "write", POLLOUT, refused, |wait| match wait {
            true => sys::pipe::write(fd, buf, sigpipe),
            false if matches!(patience, Patience::Blocking) => {
                sys::pipe::write_nowait(fd, &[IoSlice::new(buf)], sigpipe)
            }
            false => write.attempt(fd),
        })
    }

    #[inline]
    pub(super) fn cut<'buf>(&self, buf: &'buf [u8]) -> &'buf [u8] {
        &buf[..buf.len().min(self.cut)]
    }
}

/// Blocks while the pipe is full. Long writes are [cut](PipeWriter#long-writes-are-cut).
impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks while the pipe is full. Long writes are [cut](PipeWriter#long-writes-are-cut).
impl Write for &PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(self.cut(buf), Patience::Blocking).map_err(Error::into_io)
    }

    /// Writes as many leading slices as fit the cut, or the beginning of the first; at most 1024 of them.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        let bufs = &bufs[which];
        match sys::leading(bufs, self.cut) {
            0 | 1 => self.write(&bufs[0]),
            count => {
                let (fd, sigpipe) = (self.end.as_fd(), self.sigpipe.now());
                let bufs = &bufs[..count];
                let written =
                    Patience::Blocking.persist(&self.end, &self.spin, "writev", POLLOUT, None, |wait| match wait {
                        true => sys::pipe::write_vectored(fd, bufs, sigpipe),
                        false => sys::pipe::write_nowait(fd, bufs, sigpipe),
                    });
                written.map_err(Error::into_io)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
