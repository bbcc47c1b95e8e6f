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
use crate::wait::{Patience, Spin};

/// The reading end of a [`pipe`](crate::pipe()).
///
/// [`Read`] blocks until there is something to read, and is `Ok(0)` at EOF: when the last writer, in any process, is closed.
/// It is implemented for `&PipeReader` too. For lines, put a [`BufReader`](std::io::BufReader) in front of it.
///
/// Several processes may hold a reader of one pipe; every byte goes to one of them. Reading into an empty buffer is `Ok(0)`
/// and not EOF.
///
/// A writer makes packets of its writes with `O_DIRECT`, as `dd oflag=direct` does. A read then returns one packet, and into a
/// buffer of less than [`PIPE_BUF`](crate::PIPE_BUF) bytes it **loses** the rest of the packet ([pipe(2)]).
///
/// See [`pipe`](crate::pipe()) for an example. In the guide: [pipes](crate::guide::pipes), [deadlines](crate::guide::deadlines).
///
/// [pipe(2)]: https://man7.org/linux/man-pages/man2/pipe.2.html
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
        Self::new(End::adopt(fd), sys::pipe::prepare())
    }

    /// Reads the bytes that are there, without blocking. `Ok(0)` is EOF.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: the pipe is empty, and a writer is left.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: a sandbox refuses every call below, or no descriptors are left (`EMFILE`). Nothing was read.
    ///
    /// # Platform
    ///
    /// [preadv2(2)] with `RWF_NOWAIT` (since about Linux 6.4), or [vmsplice(2)] if the kernel refuses that. In a sandbox
    /// without vmsplice, [splice(2)] through a private pipe, which takes two descriptors for the length of the call. The
    /// call does not touch `O_NONBLOCK`, which every holder of the end would see.
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
    #[doc(alias = "preadv2")]
    #[doc(alias = "RWF_NOWAIT")]
    #[inline]
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
    /// [userfaultfd(2)] or FUSE), and a deadline then passes unseen. Receive messages from a peer that is not trusted.
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
    /// 0 may be EOF or not: [`try_read`](Self::try_read) tells. See [`tee`](Self::tee) for an example.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `FIONREAD` ([ioctl_tty(2)](https://man7.org/linux/man-pages/man2/ioctl_tty.2.html)).
    #[doc(alias = "FIONREAD")]
    pub fn available(&self) -> Result<usize> {
        sys::pipe::available(&self.end).map_err(|errno| self.end.error("ioctl", errno))
    }

    /// Blocks until there is something to read, and moves at most `len` bytes of it to `out`, without copying them through
    /// this process. Returns how many; 0 is EOF, or a `len` of 0.
    ///
    /// `out` can be a file (not opened for appending), which is written at its current position, a socket, or a pipe. The
    /// call also blocks while `out` has no room. [`copy`](crate::copy()) goes on until EOF, and takes any two descriptors.
    ///
    /// While it waits for a *socket* to have room, the kernel holds the pipe's lock. Every other call on the pipe then waits as
    /// well, whatever its deadline. [`copy`](crate::copy()) never does that.
    ///
    /// After it, the kernel refuses `RWF_NOWAIT` on both pipes. `try_` and `_timeout` calls then use other system calls,
    /// and work as before.
    ///
    /// # Errors
    ///
    /// Nothing was moved:
    ///
    /// - [`Error::Closed`]: `out` has no reader any more. `SIGPIPE` is not raised.
    /// - [`Error::Reset`]: the peer of a socket went away without having read everything.
    /// - [`Error::WouldBlock`]: one of the two has `O_NONBLOCK`, and there is nothing to read or no room.
    /// - [`Error::NotGiven`]: this process was not given the end, or `out`.
    /// - [`Error::System`] with `EINVAL`: `out` cannot be spliced to, or is the same pipe.
    ///
    /// # Platform
    ///
    /// [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html).
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
    #[doc(alias = "splice")]
    pub fn splice_to(&self, out: impl AsFd, len: usize) -> Result<usize> {
        splice(self.as_fd(), out.as_fd(), len, self.sigpipe)
    }

    /// Blocks until there is something to read and `out` has room, and duplicates at most `len` bytes into `out`. They can
    /// still be read here, and no byte is copied in memory. Returns how many; 0 is EOF, or a `len` of 0.
    ///
    /// # Errors
    ///
    /// As [`splice_to`](Self::splice_to).
    ///
    /// # Platform
    ///
    /// [tee(2)](https://man7.org/linux/man-pages/man2/tee.2.html).
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

    /// Lets blocking and `_timeout` calls look again for this long before they sleep. Zero, the default, is not at all.
    ///
    /// Waking a thread takes the kernel far longer than passing a few bytes. Between two processes on two cores an answer comes
    /// several times sooner, and the core is busy while it waits. 20 to 50 µs is a good time. Set it on both sides: one that
    /// sleeps still has to be woken.
    ///
    /// It adapts. After four calls in a row that spun in vain, as on one shared core, calls sleep at once again. Only now and
    /// then one spins for the whole time. After a thousand calls in a row that succeeded at once, only every fourth can spin, for
    /// as long as that holds.
    ///
    /// Deadlines are kept, and bytes that are there already are read with one system call. `try_` calls answer at once.
    /// `Read` and `Write` of an end with `O_NONBLOCK` answer after some 3 µs.
    ///
    /// The setting belongs to this value. A child and clones have it too. The guide has an
    /// [example](crate::guide::spinning).
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// Returns how many bytes the pipe holds at most. Never blocks.
    ///
    /// The kernel counts room in pages: many small writes that do not fill their pages fill the pipe earlier. See
    /// [`set_capacity`](Self::set_capacity) for an example.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no pipe (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// `F_GETPIPE_SZ` of [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html). Usually 65 536; 4096 or 8192 for a
    /// user past `/proc/sys/fs/pipe-user-pages-soft`.
    #[doc(alias = "F_GETPIPE_SZ")]
    pub fn capacity(&self) -> Result<usize> {
        rustix::pipe::fcntl_getpipe_size(&self.end).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes the pipe hold at least `bytes`, and returns how many it holds then. Never blocks.
    ///
    /// The kernel rounds up to a power of two of pages; 0 becomes one page. Both ends have the same capacity.
    ///
    /// # Errors
    ///
    /// - [`Error::System`] with `EBUSY`: more than that is in the pipe.
    /// - [`Error::System`] with `EPERM`: over this user's limit (`/proc/sys/fs/pipe-max-size`, `pipe-user-pages-soft`).
    /// - [`Error::System`] with `EINVAL`: more than 2 GiB.
    /// - [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// `F_SETPIPE_SZ` of [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, _writer) = ipc::pipe()?;
    /// assert_eq!(reader.set_capacity(5000)?, 8192);
    /// assert_eq!(reader.capacity()?, 8192);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "F_SETPIPE_SZ")]
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        sys::pipe::set_capacity(self.end.as_fd(), bytes).map_err(|errno| self.end.error("fcntl", errno))
    }

    /// Makes a second reader of the same pipe, in this process. Never blocks.
    ///
    /// It counts in full: a write fails when *all* readers are closed, and every byte goes to one of them. It has the
    /// settings of this value. See [`close`](Self::close) for an example.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    #[doc(alias = "dup")]
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { end: self.end.try_clone()?, spin: self.spin.clone(), sigpipe: self.sigpipe })
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks.
    ///
    /// Dropping closes too, without an error. The end is closed either way: a second close could hit another
    /// descriptor ([close(2)](https://man7.org/linux/man-pages/man2/close.2.html)).
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `EBADF`: other code closed the number.
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, writer) = ipc::pipe()?;
    /// let second = reader.try_clone()?;
    /// reader.close()?;
    /// assert!(!writer.is_closed()?); // one reader is left
    /// second.close()?;
    /// assert!(writer.is_closed()?);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    #[inline]
    pub(super) fn read_with(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut refused = None;
        if let Some(waits) = patience.first_call(&self.spin) {
            let read = match waits {
                true => rustix::io::read(&self.end, &mut *buf),
                false => sys::pipe::read_nowait(self.end.as_fd(), &mut [IoSliceMut::new(buf)]),
            };
            match read {
                Ok(count) => return Ok(count),
                Err(errno) => refused = Some(errno),
            }
        }
        self.read_late(buf, patience, refused)
    }

    /// Reads where one plain call is not enough, or after one that failed.
    #[inline(never)]
    fn read_late(&self, buf: &mut [u8], patience: Patience, refused: Option<Errno>) -> Result<usize> {
        let fd = self.end.as_fd();
        patience.persist(&self.end, &self.spin, "read", POLLIN, refused, |wait| match wait {
            true => rustix::io::read(fd, &mut *buf),
            false => sys::pipe::read_nowait(fd, &mut [IoSliceMut::new(buf)]),
        })
    }
}

/// After this many zeros in a row a tee believes in EOF without a hang-up, as on a named FIFO before its first writer. A single
/// zero can also mean that a rival took the bytes, or the room, that the kernel had waited for.
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

    /// Loses nothing of a pipe of packets, which a writer makes with `O_DIRECT`.
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        packets::read_to_end(buf, |buf| self.read(buf))
    }

    /// Loses nothing of a pipe of packets, which a writer makes with `O_DIRECT`.
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        packets::read_to_string(buf, |buf| self.read(buf))
    }
}
