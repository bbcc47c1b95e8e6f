//! The end that is read.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::PipeWriter;
use super::splice;
use crate::end::{self, End, packets};
use crate::error::{Error, Result};
use crate::sys::poll::{POLLHUP, POLLIN};
use crate::sys::signal::Sigpipe;
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin, TimedRead, Until};

/// The reading end of a [`pipe`](crate::pipe()).
///
/// [`Read`] blocks until there is something to read, and is `Ok(0)` at EOF: when the last writer,
/// in any process, is closed. It is implemented for `&PipeReader` too. For lines, put a
/// [`BufReader`](std::io::BufReader) in front of it.
///
/// Several may hold a reader of one pipe; every byte goes to one of them.
///
/// Reading into an empty buffer is `Ok(0)` and tells nothing.
///
/// In the guide: [pipes](crate::guide::pipes), [deadlines](crate::guide::deadlines).
#[doc(alias = "lines")]
#[doc(alias = "read_line")]
pub struct PipeReader {
    pub(super) end: End,
    spin: Spin,
    /// For what is spliced from here.
    pub(crate) sigpipe: Sigpipe,
}

impl PipeReader {
    pub(super) fn new(end: End, sigpipe: Sigpipe) -> Self {
        Self { end, spin: Spin::of_pipe(), sigpipe }
    }

    pub(super) fn adopt(fd: OwnedFd) -> Self {
        Self::new(End::adopt(fd), Sigpipe::look())
    }

    /// Reads the bytes that are there, without blocking. `Ok(0)` is EOF.
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
    /// [preadv2(2)] with `RWF_NOWAIT`, and [vmsplice(2)] where the kernel refuses that; in a sandbox without vmsplice,
    /// [splice(2)] through a private pipe, which takes two descriptors for the length of the call. `O_NONBLOCK`, which
    /// every holder of the end would see, is not touched.
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
    ///
    /// [preadv2(2)]: https://man7.org/linux/man-pages/man2/preadv2.2.html
    /// [splice(2)]: https://man7.org/linux/man-pages/man2/splice.2.html
    /// [vmsplice(2)]: https://man7.org/linux/man-pages/man2/vmsplice.2.html
    pub fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_with(buf, Patience::None)
    }

    /// Blocks until there is something to read, EOF comes (`Ok(0)`), or the time is up.
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
    /// As [`try_read`](Self::try_read), and [ppoll(2)]. A hostile writer can hold the pipe's lock inside the kernel (with
    /// [userfaultfd(2)] or FUSE), and then a deadline passes unseen: from a peer that is not trusted, receive messages.
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
    ///
    /// [ppoll(2)]: https://man7.org/linux/man-pages/man2/ppoll.2.html
    /// [userfaultfd(2)]: https://man7.org/linux/man-pages/man2/userfaultfd.2.html
    pub fn read_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<usize> {
        self.read_with(buf, Patience::timeout(timeout))
    }

    /// Returns how many bytes could be read now. Never blocks.
    ///
    /// 0 says nothing about EOF: [`try_read`](Self::try_read) does.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `FIONREAD` ([ioctl_tty(2)]).
    ///
    /// [ioctl_tty(2)]: https://man7.org/linux/man-pages/man2/ioctl_tty.2.html
    #[doc(alias = "FIONREAD")]
    pub fn available(&self) -> Result<usize> {
        sys::pipe::available(&self.end).map_err(|errno| self.end.error("ioctl", errno))
    }

    /// Blocks until there is something to read, and moves at most `len` bytes of it to `out`, without copying them through
    /// this process. Returns how many; 0 is EOF, or a `len` of 0.
    ///
    /// `out` can be a file (not opened for appending), which is written at its current position, a socket, or a pipe. It
    /// also blocks while that has no room. [`copy`](crate::copy()) goes on until EOF, and takes any two descriptors.
    ///
    /// While it waits for a *socket* to have room, the kernel holds the pipe's lock, and every other call on the pipe waits as
    /// well, whatever its deadline: where that matters, use [`copy`](crate::copy()).
    ///
    /// After it, the kernel refuses `RWF_NOWAIT` on both pipes: `try_` and `_timeout` calls go another way then, and work as
    /// before.
    ///
    /// # Errors
    ///
    /// Nothing was moved:
    ///
    /// - [`Error::Closed`]: nobody reads `out` any more. `SIGPIPE` is not raised.
    /// - [`Error::WouldBlock`]: one of the two has `O_NONBLOCK`, and there is nothing to read or no room.
    /// - [`Error::NotGiven`]: this process was not given the end, or `out`.
    /// - [`Error::System`] with `EINVAL`: `out` cannot be spliced to, or is the same pipe.
    ///
    /// # Platform
    ///
    /// [splice(2)], with which a signal ends no wait and loses no byte.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    ///
    /// let (first, mut writer) = ipc::pipe()?;
    /// let (mut reader, second) = ipc::pipe()?;
    /// writer.write_all(b"passed on")?;
    /// assert_eq!(first.splice_to(&second, 1 << 20)?, 9);
    /// drop(second);
    /// assert_eq!(std::io::read_to_string(&mut reader)?, "passed on");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [splice(2)]: https://man7.org/linux/man-pages/man2/splice.2.html
    pub fn splice_to(&self, out: impl AsFd, len: usize) -> Result<usize> {
        splice(self.as_fd(), out.as_fd(), len, self.sigpipe)
    }

    /// Blocks until there is something to read and `out` has room, and copies at most `len` bytes of it to `out`: they stay
    /// to be read here. No byte is copied in memory. Returns how many; 0 is EOF, or a `len` of 0.
    ///
    /// # Errors
    ///
    /// As [`splice_to`](Self::splice_to).
    ///
    /// # Platform
    ///
    /// [tee(2)].
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let (copy_reader, copy) = ipc::pipe()?;
    /// writer.write_atomic(b"twice")?;
    /// assert_eq!(reader.tee(&copy, 1 << 20)?, 5);
    /// assert_eq!((reader.available()?, copy_reader.available()?), (5, 5));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [tee(2)]: https://man7.org/linux/man-pages/man2/tee.2.html
    pub fn tee(&self, out: &PipeWriter, len: usize) -> Result<usize> {
        let (from, to) = (self.as_fd(), out.as_fd());
        let error = |call| move |errno| end::error(&[from, to], call, errno);
        for _ in 0..RIVALS {
            let copied = sys::pipe::tee(from, to, len, out.sigpipe.now()).map_err(error("tee"))?;
            if copied > 0 || len == 0 {
                return Ok(copied);
            }
            if sys::poll::look(from, POLLIN).map_err(error("poll"))? & (POLLIN | POLLHUP) == POLLHUP {
                break;
            }
        }
        Ok(0)
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; zero, as at first: not at
    /// all.
    ///
    /// Being woken takes the kernel far longer than passing a few bytes, so between two processes on two cores an
    /// answer comes several times sooner, for the price of a busy core while waiting. 20 to 50 µs is a good time.
    /// Both sides have to look again, or the one that sleeps is waited for.
    ///
    /// It adapts: where four calls in a row have looked in vain, as on one shared core, calls sleep at once again,
    /// and only now and then one tries the whole time. And where a thousand in a row had nothing to wait for, only
    /// every fourth looks, as long as that is so.
    ///
    /// Bytes that are there already are read with one system call. A deadline is kept. `try_` calls answer at once as
    /// before, and `Read` and `Write` of an end with `O_NONBLOCK` after some 3 µs, for which `Read` and `Write` look in
    /// any case.
    ///
    /// The setting belongs to this value; it goes along into a child and into clones.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// How many bytes the pipe holds when it is full, at most. Never blocks.
    ///
    /// Room is kept in pages: many small writes that do not fill theirs fill the pipe earlier.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no pipe (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// [fcntl(2)], `F_GETPIPE_SZ`. Usually 65 536; 4096 or 8192 where the user is past
    /// `/proc/sys/fs/pipe-user-pages-soft`.
    ///
    /// [fcntl(2)]: https://man7.org/linux/man-pages/man2/fcntl.2.html
    pub fn capacity(&self) -> Result<usize> {
        rustix::pipe::fcntl_getpipe_size(&self.end).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes the pipe hold at least so many bytes, and returns how many it holds then. Never blocks.
    ///
    /// The kernel rounds up to a power of two of pages; 0 becomes one page. It goes for both ends of the pipe.
    ///
    /// # Errors
    ///
    /// - [`Error::System`] with `EBUSY`: more than that is in the pipe; with `EPERM`: more than this user may have
    ///   (`/proc/sys/fs/pipe-max-size`, `pipe-user-pages-soft`); with `EINVAL`: more than 2 GiB.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// [fcntl(2)], `F_SETPIPE_SZ`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_reader, writer) = ipc::pipe()?;
    /// assert_eq!(writer.set_capacity(5000)?, 8192);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [fcntl(2)]: https://man7.org/linux/man-pages/man2/fcntl.2.html
    #[doc(alias = "F_SETPIPE_SZ")]
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        sys::pipe::set_capacity(self.end.as_fd(), bytes).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes a second reader of the same pipe, in this process. Never blocks.
    ///
    /// It counts in full: a write fails when *all* readers are closed, and every byte goes to one of them. The settings of
    /// this value go with it.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        Ok(self.with_end(self.end.try_clone()?))
    }

    /// Closes the end, and says what the kernel said. Never blocks.
    ///
    /// Dropping closes too; this is for those who want to see the error. It is final either way: closing again
    /// could hit a descriptor that is somebody else's by then ([close(2)]).
    ///
    /// # Errors
    ///
    /// [`Error::System`] if somebody else closed the number.
    ///
    /// [close(2)]: https://man7.org/linux/man-pages/man2/close.2.html
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    #[inline]
    fn read_with(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
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
    fn read_late(&self, buf: &mut [u8], patience: Patience, refused: Option<Errno>) -> Result<usize> {
        let fd = self.end.as_fd();
        patience.persist(&self.end, &self.spin, "read", POLLIN, refused, |wait| match wait {
            true => rustix::io::read(fd, &mut *buf),
            false => sys::pipe::read_nowait(fd, &mut [IoSliceMut::new(buf)]),
        })
    }

    /// Another end with the settings of this one.
    fn with_end(&self, end: End) -> Self {
        Self { end, spin: self.spin.clone(), sigpipe: self.sigpipe }
    }
}

/// How often in a row `tee` has to say 0 before that is EOF of a pipe of which the kernel does not say that its writers are
/// gone. It says 0 where a rival took the bytes, or the room, that it had waited for; and of a FIFO with a name that nobody
/// has opened for writing yet.
const RIVALS: usize = 64;

/// Blocks until there is something to read, or EOF comes. See [`PipeReader`].
impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

/// Blocks until there is something to read, or EOF comes. See [`PipeReader`].
impl Read for &PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(buf, Patience::Blocking).map_err(Error::into_io)
    }

    /// More than 1024 slices are read as the first 1024.
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        let bufs = &mut bufs[which];
        let fd = self.end.as_fd();
        let read = Patience::Blocking.persist(&self.end, &self.spin, "readv", POLLIN, None, |wait| match wait {
            true => rustix::io::readv(fd, bufs),
            false => sys::pipe::read_nowait(fd, bufs),
        });
        read.map_err(Error::into_io)
    }

    /// Loses nothing of a pipe of packets, as a writer makes one with `O_DIRECT`.
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        packets::read_to_end(buf, |buf| self.read(buf))
    }

    /// Loses nothing of a pipe of packets, as a writer makes one with `O_DIRECT`.
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        packets::read_to_string(buf, |buf| self.read(buf))
    }
}

impl TimedRead for PipeReader {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        self.read_with(buf, until.0)
    }
}

impl TimedRead for &PipeReader {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        self.read_with(buf, until.0)
    }
}
