//! Pipes: a stream of bytes, one way, from all that hold a writer to all that hold a reader.

mod buffered;
mod reader;
mod writer;

use std::os::fd::{AsFd, OwnedFd};

pub(crate) use buffered::BUFFER;
pub use buffered::BufferedWriter;
pub use reader::PipeReader;
pub(crate) use writer::CUT;
pub use writer::PipeWriter;

use crate::end::{self, End, FromFdError, READING_END, WRITING_END, end_traits};
use crate::sys::signal::Sigpipe;
use crate::wait::Spin;
use crate::{Error, Result, sys};

/// The most bytes that a write puts into a pipe in one piece, which no other writer's bytes come between (pipe.7).
///
/// 4096 on Linux, whatever the size of a page.
pub const PIPE_BUF: usize = 4096;

bitflags::bitflags! {
    /// What [`pipe_with`] can do differently.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PipeFlags: u32 {
        /// `Read` and `Write` of both ends answer [`WouldBlock`](std::io::ErrorKind::WouldBlock) instead of waiting, as
        /// an event loop wants it (`O_NONBLOCK`). The `_timeout` calls wait all the same.
        ///
        /// The flag belongs to the open pipe end, not to the value: clones, and copies in other processes, have it too.
        const NONBLOCK = 1;
    }
}

/// Makes a pipe: what is written to the writer can be read from the reader, in order. Never blocks.
///
/// The contract of the pair (pipe.7):
///
/// - **Reading** blocks while the pipe is empty and a writer is left, anywhere. When the last writer is closed, what is
///   still in the pipe can be read, and then every read is `Ok(0)`: the end of the stream.
/// - **Writing** blocks while the pipe is full and a reader is left. It usually holds 64 KiB, but less where a user has
///   very many pipes; see [`capacity`](PipeWriter::capacity). When the last reader is closed, a write is an error,
///   [`Closed`](Error::Closed), and never the signal `SIGPIPE`.
/// - **Interleaving**: up to [`PIPE_BUF`] bytes of one write stay together however many write; longer writes may mix. With
///   several writers use [`write_atomic`](PipeWriter::write_atomic).
/// - **One way is one way**: the reader has no `write` and the writer no `read`. For both directions make two pipes, or
///   a [`datagram_pair`](crate::datagram_pair).
///
/// Both ends are close-on-exec, so a program that this one starts has neither. After a [`fork`](crate::fork()) an end is
/// open in the process that it was given to and in no other.
///
/// The classic way to hang is to read to the end while holding a writer oneself: the last writer is then never closed.
/// Drop it, or give it away.
///
/// # Errors
///
/// [`Error::System`] if the process or the system has no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// pipe2(2). Descriptors 0, 1 and 2 are left free even where they are closed.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut reader, mut writer) = ipc::pipe()?;
/// writer.write_all(b"Into the pipe I go...")?;
/// drop(writer); // or the next line waits for ever
///
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "Into the pipe I go...");
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// The wrong way round does not compile:
///
/// ```compile_fail,E0277
/// fn fill(mut to: impl std::io::Write) {}
/// let (reader, writer) = ipc::pipe().unwrap();
/// fill(reader); // the trait bound `PipeReader: std::io::Write` is not satisfied
/// ```
///
/// ```compile_fail,E0277
/// fn drain(mut from: impl std::io::Read) {}
/// let (reader, writer) = ipc::pipe().unwrap();
/// drain(writer); // the trait bound `PipeWriter: std::io::Read` is not satisfied
/// ```
pub fn pipe() -> Result<(PipeReader, PipeWriter)> {
    pipe_with(PipeFlags::empty())
}

/// Makes a pipe with [`PipeFlags`]. Never blocks. Everything else is as [`pipe`] says.
///
/// # Errors
///
/// As for [`pipe`].
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Read};
///
/// let (mut reader, _writer) = ipc::pipe_with(ipc::PipeFlags::NONBLOCK)?;
/// let nothing_yet = reader.read(&mut [0; 16]).unwrap_err();
/// assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn pipe_with(flags: PipeFlags) -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) =
        sys::pipe::pair(flags.contains(PipeFlags::NONBLOCK)).map_err(|errno| Error::system("pipe2", errno))?;
    let sigpipe = Sigpipe::look();
    Ok((PipeReader::new(End::new(reader)?, sigpipe), PipeWriter::new(End::new(writer)?, sigpipe)))
}

/// The descriptor, if it is that side of a pipe or of a FIFO with a name.
fn check(fd: OwnedFd, expected: &'static str) -> Result<OwnedFd, FromFdError> {
    match end::kind(fd.as_fd()) {
        Ok(found) if found == expected => Ok(fd),
        Ok(found) => Err(FromFdError { fd, error: Error::WrongKind { expected, found } }),
        Err(error) => Err(FromFdError { fd, error }),
    }
}

/// What both ends have, under the same names.
macro_rules! pipe_end {
    ($end:ident, $expected:ident, $std:ty) => {
        impl $end {
            /// Closes the end, and says what the kernel said. Never blocks.
            ///
            /// Dropping closes too; this is for those who want to see the error. It is final either way: closing again
            /// could hit a descriptor that is somebody else's by then (close.2).
            ///
            /// # Errors
            ///
            /// [`Error::System`] if somebody else closed the number.
            pub fn close(self) -> Result<()> {
                self.end.close()
            }

            /// A second end of the same side, in this process. Never blocks.
            ///
            /// It counts in full: the stream ends when *all* writers are closed, and a write fails when *all* readers
            /// are. The settings of this value go with it.
            ///
            /// # Errors
            ///
            /// - [`Error::NotGiven`]: this process was not given the end.
            /// - [`Error::System`]: no descriptors are left (`EMFILE`).
            pub fn try_clone(&self) -> Result<Self> {
                Ok(self.with_end(self.end.try_clone()?))
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
            /// fcntl(2), `F_GETPIPE_SZ`. Usually 65 536; 4096 or 8192 where the user is past
            /// `/proc/sys/fs/pipe-user-pages-soft`.
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
            /// fcntl(2), `F_SETPIPE_SZ`.
            ///
            /// # Examples
            ///
            /// ```
            /// let (_reader, writer) = ipc::pipe()?;
            /// assert_eq!(writer.set_capacity(5000)?, 8192);
            /// # Ok::<(), ipc::Error>(())
            /// ```
            pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
                sys::pipe::set_capacity(self.end.as_fd(), bytes).map_err(|errno| self.end.error("fcntl", errno))
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
            /// What is there at once is found with one system call. A deadline is kept. `try_` calls answer at once as
            /// before, and `Read` and `Write` of an end with `O_NONBLOCK` after some 3 µs, for which `Read` and `Write` look in
            /// any case.
            ///
            /// The setting belongs to this value; it goes along into a child and into clones.
            pub fn set_spin(&mut self, spin: std::time::Duration) {
                self.spin.set(spin);
            }
        }

        impl TryFrom<OwnedFd> for $end {
            type Error = FromFdError;

            /// Takes the descriptor over, if it is that side of a pipe (or of a FIFO with a name); close-on-exec is set.
            /// Otherwise the error gives it back.
            fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
                Ok(Self::adopt(super::check(fd, $expected)?))
            }
        }

        impl From<$std> for $end {
            fn from(end: $std) -> Self {
                Self::adopt(end.into())
            }
        }

        impl From<$end> for $std {
            fn from(end: $end) -> Self {
                OwnedFd::from(end).into()
            }
        }
    };
}
use pipe_end;

end_traits!(PipeReader, PipeWriter);
