//! A FIFO that one descriptor has open both ways, as the two ends that it is.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{PipeReader, PipeWriter, check};
use crate::end::{BOTH_WAYS, End, FromFdError};
use crate::error::{Error, Result};
use crate::sys;

/// The two ends of a FIFO that one descriptor has open both ways (`O_RDWR`).
///
/// Neither [`PipeReader`] nor [`PipeWriter`] takes such a descriptor: a reader that can write keeps EOF from coming. This opens
/// each end anew, and closes the descriptor. Each end has an open file description of its own, without `O_NONBLOCK`. After the
/// writer is dropped, EOF comes with the last one elsewhere.
///
/// A jobserver of GNU make has such a FIFO (`--jobserver-auth=fifo:PATH`). [`claim`](crate::claim()) and
/// [`claim_number`](crate::claim_number) take one that this program was started with.
///
/// # Platform
///
/// The ends are opened through `/proc/thread-self/fd`, see
/// [proc_pid_fd(5)](https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html).
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::fd::OwnedFd;
///
/// # let path = std::env::temp_dir().join(format!("ipc-fifo-{}", std::process::id()));
/// # assert!(ipc::Command::new("mkfifo").arg(&path).status()?.success());
/// let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
/// # std::fs::remove_file(&path)?;
/// let ipc::Fifo { mut reader, mut writer, .. } = ipc::Fifo::try_from(OwnedFd::from(file))?;
/// writer.write_all(b"token")?;
/// drop(writer);
///
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "token");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "mkfifo")]
#[non_exhaustive]
pub struct Fifo {
    /// The end to read from.
    pub reader: PipeReader,
    /// The end to write to.
    pub writer: PipeWriter,
}

impl TryFrom<OwnedFd> for Fifo {
    type Error = FromFdError;

    /// Opens both ends of the FIFO, and closes the descriptor. Never blocks.
    ///
    /// # Errors
    ///
    /// The error gives the descriptor back.
    ///
    /// - [`Error::WrongKind`]: it is not a FIFO that is open both ways.
    /// - [`Error::System`] of `open`: no descriptor is left (`EMFILE`), this user may not open the FIFO (`EACCES`), or there is
    ///   no `/proc` (`ENOENT`).
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        let fd = check(fd, BOTH_WAYS)?;
        match open(&fd) {
            Ok(fifo) => Ok(fifo),
            Err(error) => Err(FromFdError { fd, error }),
        }
    }
}

/// Neither call waits for the other side: `fd` has it open.
fn open(fd: &OwnedFd) -> Result<Fifo> {
    // A thread may have a table of descriptors of its own.
    let path = format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd());
    let again = |access| {
        let opened = rustix::fs::open(&path, access | OFlags::CLOEXEC, Mode::empty());
        End::new(opened.map_err(|errno| Error::system("open", errno))?)
    };
    let sigpipe = sys::pipe::prepare();
    let reader = PipeReader::new(again(OFlags::RDONLY)?, sigpipe);
    Ok(Fifo { reader, writer: PipeWriter::new(again(OFlags::WRONLY)?, sigpipe) })
}

impl fmt::Debug for Fifo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fifo").field("reader", &self.reader).field("writer", &self.writer).finish()
    }
}
