//! Every end is this: one owned, close-on-exec descriptor that the ledger knows.

/// Calls a macro with the standard library's owners of exactly one descriptor.
macro_rules! std_owners {
    ($for_each:ident) => {
        $for_each!(
            std::os::fd::OwnedFd,
            std::fs::File,
            std::io::PipeReader,
            std::io::PipeWriter,
            std::io::Stdin,
            std::io::Stdout,
            std::io::Stderr,
            std::net::TcpListener,
            std::net::TcpStream,
            std::net::UdpSocket,
            std::os::unix::net::UnixDatagram,
            std::os::unix::net::UnixListener,
            std::os::unix::net::UnixStream,
            std::process::ChildStdin,
            std::process::ChildStdout,
            std::process::ChildStderr,
        );
    };
}
use std_owners;

mod ends;
mod held;
mod leaving;
pub(crate) mod packets;
mod stdio;

use std::convert::Infallible;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{FileType, OFlags};

pub use ends::Ends;
pub(crate) use ends::{descriptors, first_descriptors, one_descriptor};
pub use held::FlushError;
pub(crate) use held::Held;
pub(crate) use leaving::{Leaving, leave};
pub(crate) use stdio::Opened;
pub use stdio::Stdio;

use crate::error::{Error, Result, gives_back};
use crate::sys::ledger::{self, Entry};
use crate::sys::socket::Mark;
use crate::sys::{self, Errno};

/// One descriptor, owned. The fields are dropped in their order: the entry goes before the descriptor is closed.
pub(crate) struct End {
    entry: Entry,
    fd: OwnedFd,
}

impl End {
    /// Takes over a descriptor that was just made, close-on-exec.
    ///
    /// The numbers 0, 1 and 2 are left free. A process that was started with them closed would get them, and `println!` would
    /// write into the pipe.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let fd = if fd.as_raw_fd() > 2 {
            fd
        } else {
            sys::descriptor::duplicate(fd.as_fd()).map_err(|errno| Error::system("fcntl", errno))?
        };
        Ok(Self::own(fd))
    }

    /// Takes over a descriptor that was made elsewhere, and keeps its number.
    ///
    /// A descriptor that a severed end was turned into does not become an open end.
    pub(crate) fn adopt(fd: OwnedFd) -> Self {
        // Fails only where the number is not open at all, and then every use of the end says so.
        let _ = sys::descriptor::set_close_on_exec(fd.as_fd());
        if sys::descriptor::is_inert(fd.as_raw_fd()) == Ok(true) {
            return Self { entry: Entry::severed(fd.as_raw_fd()), fd };
        }
        Self::own(fd)
    }

    /// Takes over a descriptor that arrived in a message, close-on-exec.
    pub(crate) fn received(fd: OwnedFd) -> Self {
        Self::own(fd)
    }

    /// Takes over a close-on-exec descriptor that belongs to an end. It does not count as one, and a fork severs it.
    #[cfg(feature = "channel")]
    pub(crate) fn internal(fd: OwnedFd) -> Self {
        Self { entry: Entry::internal(fd.as_raw_fd()), fd }
    }

    fn own(fd: OwnedFd) -> Self {
        Self { entry: Entry::new(fd.as_raw_fd()), fd }
    }

    /// The descriptor, which is no end any more, and as the kernel makes it.
    pub(crate) fn into_fd(self) -> OwnedFd {
        let Self { entry, fd } = self;
        leave(fd.as_fd());
        entry.leave();
        fd
    }

    /// Marks the messages that arrive here, until the descriptor leaves this crate.
    pub(crate) fn mark_messages(&self, mark: Mark) -> sys::Result<()> {
        mark.set(self.as_fd(), true)?;
        self.note_marked(mark);
        Ok(())
    }

    /// Replaces the label by the time, as a receive with room for ends may not see the label. Does nothing where the label is off
    /// already: another holder replaced it, or let a clone leave. The clone's program would lose ends to the time.
    pub(crate) fn mark_for_ends(&self) -> sys::Result<()> {
        if Mark::Label.is_set(self.as_fd()) != Ok(false) {
            Mark::Time.set(self.as_fd(), true)?;
            Mark::Label.set(self.as_fd(), false)?;
        }
        self.note_marked(Mark::Time);
        Ok(())
    }

    /// Notes that its messages are marked.
    pub(crate) fn note_marked(&self, mark: Mark) {
        self.entry.note_marked(mark);
    }

    /// The mark of its messages.
    #[inline]
    pub(crate) fn mark(&self) -> Option<Mark> {
        ledger::mark(self.fd.as_raw_fd())
    }

    pub(crate) fn close(self) -> Result<()> {
        let Self { entry, fd } = self;
        drop(entry);
        sys::descriptor::close(fd).map_err(|errno| Error::system("close", errno))
    }

    pub(crate) fn try_clone(&self) -> Result<Self> {
        // An inert descriptor can be duplicated like any other.
        self.check_given()?;
        Self::duplicate(self.as_fd())
    }

    /// A duplicate of an end, or of anybody's descriptor.
    pub(crate) fn duplicate(of: BorrowedFd<'_>) -> Result<Self> {
        let fd = sys::descriptor::duplicate(of).map_err(|errno| error(&[of], "fcntl", errno))?;
        Ok(Self::copy(fd, of))
    }

    /// Takes over a duplicate that was just made.
    pub(crate) fn copy(fd: OwnedFd, of: BorrowedFd<'_>) -> Self {
        let end = Self::own(fd);
        if let Some(mark) = ledger::mark(of.as_raw_fd()) {
            end.note_marked(mark);
        }
        end
    }

    /// Fails if this process was not given the end.
    pub(crate) fn check_given(&self) -> Result<()> {
        if ledger::is_severed(self.fd.as_raw_fd()) { Err(Error::NotGiven) } else { Ok(()) }
    }

    /// The error that an errno means on this end.
    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> Error {
        error(&[self.fd.as_fd()], call, errno)
    }
}

/// The error that an errno means where these were used. Every call on a severed end returns `EBADF`, so the check costs
/// nothing as long as there is no error.
pub(crate) fn error(on: &[BorrowedFd<'_>], call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::BADF if on.iter().any(|fd| ledger::is_severed(fd.as_raw_fd())) => Error::NotGiven,
        Errno::AGAIN => Error::WouldBlock,
        // ECONNREFUSED and ENOTCONN: a connectionless peer that is gone, at the first send and at later ones.
        Errno::PIPE | Errno::CONNREFUSED | Errno::NOTCONN => Error::Closed,
        Errno::CONNRESET => Error::Reset,
        errno => Error::system(call, errno),
    }
}

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The number, and whether it is still the channel.
impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.fd.as_raw_fd();
        if ledger::is_severed(number) { write!(f, "{number} (not given)") } else { write!(f, "{number}") }
    }
}

/// The kind of a descriptor, for [`Error::WrongKind`].
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Result<&'static str> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|errno| Error::system("fcntl", errno))?;
    if flags.contains(OFlags::PATH) {
        return Ok("a descriptor that is not open for anything (O_PATH)");
    }
    let mode = rustix::fs::fstat(fd).map_err(|errno| Error::system("fstat", errno))?.st_mode;
    Ok(match (FileType::from_raw_mode(mode), flags & OFlags::RWMODE) {
        (FileType::Fifo, OFlags::RDONLY) => READING_END,
        (FileType::Fifo, OFlags::WRONLY) => WRITING_END,
        (FileType::Fifo, _) => BOTH_WAYS,
        (FileType::RegularFile, _) => "a file",
        (FileType::Directory, _) => "a directory",
        (FileType::Socket, _) => SOCKET,
        (FileType::CharacterDevice, _) => "a character device",
        (FileType::BlockDevice, _) => "a block device",
        _ => "something else",
    })
}

/// The kind that a [`Fifo`](crate::Fifo) is made of.
pub(crate) const BOTH_WAYS: &str = "a FIFO that is open both ways";
/// The kind that sockets are made of.
pub(crate) const SOCKET: &str = "a socket";
/// The kind that a pipe's reader is made of.
pub(crate) const READING_END: &str = "the reading end of a pipe";
/// The kind that a pipe's writer is made of.
pub(crate) const WRITING_END: &str = "the writing end of a pipe";

/// The traits that every end has. An end is a structure with a field `end`, and a function `adopt(OwnedFd)` that takes a
/// descriptor over without looking at it.
macro_rules! end_traits {
    ($($end:ident),*) => {$(
        impl std::os::fd::AsFd for $end {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.end.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $end {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.end.as_fd().as_raw_fd()
            }
        }

        impl std::os::fd::IntoRawFd for $end {
            /// The number, close-on-exec as before, and the caller's to close.
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                self.end.into_fd().into_raw_fd()
            }
        }

        crate::sys::descriptor::from_raw_fd!($end);

        impl From<$end> for std::os::fd::OwnedFd {
            /// The descriptor, close-on-exec as before. It is no end any more: a fork does not sever it.
            fn from(end: $end) -> Self {
                end.end.into_fd()
            }
        }

        impl From<$end> for std::process::Stdio {
            /// For the standard input, output or error of a [`std::process::Command`].
            ///
            /// The `Command` keeps its copy until it is dropped, also after `spawn`. Drop it, or EOF does not come.
            fn from(end: $end) -> Self {
                end.end.into_fd().into()
            }
        }

        impl From<$end> for crate::end::Stdio {
            /// For the standard input, output or error of a [`Command`](crate::Command).
            fn from(end: $end) -> Self {
                Self::end(end)
            }
        }

        impl crate::end::Ends for $end {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
                crate::end::Ends::each(&self.end, visit);
            }
        }

        impl std::fmt::Debug for $end {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($end)).field(&self.end).finish()
            }
        }
    )*};
}
pub(crate) use end_traits;

/// A descriptor that could not be turned into an end, and why. The descriptor is given back, as it was.
///
/// # Examples
///
/// ```
/// use std::fs::File;
/// use std::os::fd::OwnedFd;
///
/// let file = OwnedFd::from(File::open("/dev/null")?);
/// let refused = ipc::PipeReader::try_from(file).unwrap_err();
/// assert!(matches!(refused.error, ipc::Error::WrongKind { .. }));
/// let file = File::from(refused.fd); // still ours
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the descriptor cannot become this end: {error}")]
pub struct FromFdError {
    /// The descriptor.
    pub fd: OwnedFd,
    /// The cause.
    pub error: Error,
}

/// For types that take any descriptor, such as `File` and [`OwnedFd`] itself.
impl From<Infallible> for FromFdError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

gives_back!(FromFdError);

/// Returns how many ends of this crate this process holds, for a test that none is left open. Never blocks.
///
/// Every open [`PipeReader`](crate::PipeReader), [`PipeWriter`](crate::PipeWriter), [`DatagramSocket`](crate::DatagramSocket)
/// and [`StreamSocket`](crate::StreamSocket) counts as one. It counts inside a type with a buffer, in a
/// [`Command`](crate::Command) that was not started, and in an error that gives it back. So does every descriptor in a
/// [`Received`](crate::Received). Not counted are ends that a [`fork`](crate::fork()) severed, descriptors that an end was turned
/// into, and a [`Child`](crate::Child).
///
/// In the guide: [closing](crate::guide::closing).
///
/// # Examples
///
/// ```
/// let before = ipc::open_ends();
/// let (reader, writer) = ipc::pipe()?;
/// assert_eq!(ipc::open_ends(), before + 2);
/// drop((reader, writer));
/// assert_eq!(ipc::open_ends(), before);
/// # Ok::<(), ipc::Error>(())
/// ```
#[must_use]
pub fn open_ends() -> usize {
    ledger::count()
}
