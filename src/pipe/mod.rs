//! Pipes: a stream of bytes, one way, from the writers to the readers.

mod buffered;
mod fifo;
mod reader;
mod writer;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) use buffered::BUFFER;
pub use buffered::BufferedWriter;
pub use fifo::Fifo;
pub use reader::PipeReader;
pub(crate) use writer::CUT;
pub use writer::PipeWriter;

use crate::end::{self, End, FromFdError, READING_END, WRITING_END, end_traits, packets};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::signal::Sigpipe;
use crate::wait::{TimedRead, TimedWrite, Until};

/// The longest write, in bytes, that stays together in a pipe: no other writer's bytes come in between ([pipe(7)]). See
/// [`PipeWriter::write_atomic`] for an example.
///
/// 4096 on Linux, also where pages are larger.
///
/// [pipe(7)]: https://man7.org/linux/man-pages/man7/pipe.7.html
pub const PIPE_BUF: usize = packets::PACKET;

bitflags::bitflags! {
    /// Options of [`pipe_with`], which has an example.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PipeFlags: u32 {
        /// Lets `Read` and `Write` of both ends return [`WouldBlock`](std::io::ErrorKind::WouldBlock) instead of waiting, as
        /// an event loop needs it (`O_NONBLOCK`). The `_timeout` calls still wait.
        ///
        /// The flag belongs to the open pipe end, not to the value: clones, and copies in other processes, have it too.
        const NONBLOCK = 1;
    }
}

/// Makes a pipe: bytes written to the writer can be read from the reader, in order. Never blocks.
///
/// The contract of the pair ([pipe(7)]):
///
/// - **Reading** blocks while the pipe is empty and a writer is left, anywhere. When the last writer is closed, the
///   rest can be read, and then every read is `Ok(0)`: EOF.
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
/// The classic hang is to read to EOF while the same process holds a writer. Drop the writer, or give it away.
///
/// In the guide: [pipes](crate::guide::pipes).
///
/// # Errors
///
/// [`Error::System`] if the process or the system has no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// [pipe2(2)]. Descriptors 0, 1 and 2 are left free even where they are closed.
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
///
/// [pipe(7)]: https://man7.org/linux/man-pages/man7/pipe.7.html
/// [pipe2(2)]: https://man7.org/linux/man-pages/man2/pipe2.2.html
#[doc(alias = "pipe2")]
pub fn pipe() -> Result<(PipeReader, PipeWriter)> {
    pipe_with(PipeFlags::empty())
}

/// Makes a pipe with [`PipeFlags`]. Never blocks. Otherwise the same as [`pipe`].
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

/// Moves bytes from one descriptor to the other; one of them is a pipe.
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize, sigpipe: Sigpipe) -> Result<usize> {
    sys::pipe::splice(from, to, len, sigpipe.now()).map_err(|errno| end::error(&[from, to], "splice", errno))
}

/// The conversions that both ends have: from and to a descriptor and the standard library's end.
macro_rules! pipe_end_traits {
    ($($end:ident, $expected:ident, $std:ty;)*) => {$(
        impl TryFrom<OwnedFd> for $end {
            type Error = FromFdError;

            /// Takes the descriptor over, and sets close-on-exec.
            ///
            /// # Errors
            ///
            /// The error gives the descriptor back. [`Error::WrongKind`]: it is not that side of a pipe, or of a FIFO with a
            /// name.
            fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
                Ok(Self::adopt(check(fd, $expected)?))
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
    )*};
}
pipe_end_traits! {
    PipeReader, READING_END, std::io::PipeReader;
    PipeWriter, WRITING_END, std::io::PipeWriter;
}

/// The pipes to a program that the standard library has started.
macro_rules! from_childs_pipe {
    ($($std:ident => $end:ident),*) => {$(
        impl From<std::process::$std> for $end {
            /// Takes the pipe over, with its deadlines and the rest.
            fn from(pipe: std::process::$std) -> Self {
                Self::adopt(pipe.into())
            }
        }
    )*};
}
from_childs_pipe!(ChildStdout => PipeReader, ChildStderr => PipeReader, ChildStdin => PipeWriter);

end_traits!(PipeReader, PipeWriter);

/// Under a [`Deadline`](crate::Deadline): the ends, and references to them.
macro_rules! timed {
    ($($reader:ty, $writer:ty;)*) => {$(
        impl TimedRead for $reader {
            fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
                self.read_with(buf, until.0)
            }
        }

        impl TimedWrite for $writer {
            fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
                self.write_with(self.cut(buf), until.0)
            }
        }
    )*};
}
timed! { PipeReader, PipeWriter; &PipeReader, &PipeWriter; }
