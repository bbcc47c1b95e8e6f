//! Moving bytes between descriptors without copying them through this process.

use std::os::fd::{AsFd, BorrowedFd};

#[cfg(doc)]
use crate::Error;
use crate::sys::signal::Sigpipe;
use crate::{PipeReader, PipeWriter, Result, end, sys};

/// Moving bytes out of the pipe.
impl PipeReader {
    /// Blocks until there is something to read, and moves at most `len` bytes of it to `out`, without copying them through
    /// this process. Says how many; 0: the end of the stream, or a `len` of 0.
    ///
    /// `out` can be a file (not opened for appending), which is written at its current position, a socket, or a pipe. It
    /// also blocks while that has no room. [`copy`](crate::copy()) goes on until the end, and takes whatever there is.
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
    /// splice(2), with which a signal ends no wait and loses no byte.
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
    pub fn splice_to(&self, out: impl AsFd, len: usize) -> Result<usize> {
        splice(self.as_fd(), out.as_fd(), len, self.sigpipe)
    }

    /// Blocks until there is something to read and `out` has room, and copies at most `len` bytes of it to `out`: they stay
    /// to be read here. No byte is copied in memory. Says how many; 0: the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`splice_to`](Self::splice_to).
    ///
    /// # Platform
    ///
    /// tee(2).
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
        sys::pipe::tee(from, to, len, out.sigpipe.now()).map_err(|errno| end::error(&[from, to], "tee", errno))
    }
}

/// Moving bytes into the pipe.
impl PipeWriter {
    /// Blocks until there is something to read from `input` and room in the pipe, and moves at most `len` bytes, without
    /// copying them through this process. Says how many; 0: the end of `input`, or a `len` of 0.
    ///
    /// **What it moves from a file is the file's own memory**: if the file is changed before the bytes are read on the other
    /// side, the change is read. Where that may happen, [`copy`](crate::copy()) is the call to use.
    ///
    /// `input` can be a file, which is read from its current position, a socket, or a pipe. While it waits for a *socket* to
    /// have something, the kernel holds the pipe's lock, and every other call on the pipe waits as well, whatever its
    /// deadline: where that matters, use [`copy`](crate::copy()).
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
    /// splice(2). What it does to `RWF_NOWAIT` is said at [`splice_to`](PipeReader::splice_to).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// let (reader, writer) = ipc::pipe()?;
    /// let moved = writer.splice_from(File::open("/proc/self/exe")?, 1000)?;
    /// assert_eq!(reader.available()?, moved);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn splice_from(&self, input: impl AsFd, len: usize) -> Result<usize> {
        splice(input.as_fd(), self.as_fd(), len, self.sigpipe)
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize, sigpipe: Sigpipe) -> Result<usize> {
    sys::pipe::splice(from, to, len, sigpipe.now()).map_err(|errno| end::error(&[from, to], "splice", errno))
}
