//! What can go wrong, one variant for each thing that a caller would do something different about.

use std::fmt;
use std::io;

use crate::socket::Received;
use crate::sys::Errno;

/// The result of this crate's calls: [`Error`] unless another error type is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a call of this crate can fail with.
///
/// Calls retry `EINTR` themselves, so an interrupted call is never among these.
///
/// `?` turns an `Error` into an [`io::Error`] and back again without losing which one it was: the errno of
/// [`System`](Error::System) is kept, every other variant gets the natural [`io::ErrorKind`] and travels inside the
/// `io::Error`.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// fn greet(mut writer: ipc::PipeWriter) -> Result<(), ipc::Error> {
///     writer.write_all(b"hello")?; // an io::Error inside, an ipc::Error outside
///     Ok(())
/// }
///
/// let (reader, writer) = ipc::pipe()?;
/// drop(reader);
/// assert!(matches!(greet(writer), Err(ipc::Error::Closed)));
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel said no. The name of the call and its errno are kept.
    ///
    /// `EAGAIN` from `fork`, which is the process limit, is one of these and not [`WouldBlock`](Error::WouldBlock).
    #[error("{call} failed")]
    System {
        /// The system call, by the name of its manual page.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },

    /// A `try_` call found nothing to read, or no room to write.
    #[error("the call would have to wait")]
    WouldBlock,

    /// The deadline passed.
    #[error("the time is up")]
    TimedOut,

    /// The other side is gone: nobody is left to read what would be written.
    #[error("the other side is closed")]
    Closed,

    /// The peer of a socket went away with messages of ours that it had not read.
    ///
    /// Reported once, to one holder of the socket (of clones in one process, to whichever receives the end), and only after
    /// everything that the peer sent was received. Some kernels, 6.18 among them, do not count a single empty message as
    /// unread.
    #[error("the peer went away with messages unread")]
    Reset,

    /// A received message was longer than the buffer. Nothing of it is lost: here it is, whole.
    #[error("a message of {} bytes does not fit the buffer", message.len())]
    BufferTooSmall {
        /// The message, from its first byte to its last.
        message: Vec<u8>,
    },

    /// A datagram that is to be a pack of messages is none: the peer does not pack, or means harm. Here it is, whole, and
    /// the next one can be received.
    #[error("a datagram of {} bytes is no pack of messages", message.len())]
    Malformed {
        /// The datagram.
        message: Vec<u8>,
    },

    /// A stream of messages ended inside one: its writer was killed, or wrote something else. Here is what arrived of it.
    #[error("the stream ended inside a message, after {} bytes of it", message.len())]
    Truncated {
        /// The message, from its first byte to where the stream ended.
        message: Vec<u8>,
        /// How long it was going to be. `None`: the stream ended before it said so.
        expected: Option<u64>,
    },

    /// Messages have arrived in a buffer, and would be lost: they are to be received first.
    #[error("messages have arrived that were not received")]
    Unread,

    /// A message is over the limit of its socket, an atomic write over [`PIPE_BUF`](crate::PIPE_BUF), or the ends that are
    /// to go with one message are more than 253. Nothing was sent.
    #[error("{len} are more than the {max} that go in one piece")]
    TooLong {
        /// Bytes, or ends, that were to be sent.
        len: usize,
        /// The most that could have been sent.
        max: usize,
    },

    /// This end was not given to this process: it was severed when the process was forked.
    #[error("this end was not given to this process when it was forked")]
    NotGiven,

    /// This process has more than one thread, so a fork of it would not be safe.
    #[error("this process has {threads} threads, and only one with a single thread can be forked safely")]
    MultiThreaded {
        /// How many threads the kernel counts.
        threads: usize,
    },

    /// This process ignores `SIGCHLD` (or set `SA_NOCLDWAIT`), so nobody could wait for a child of it.
    ///
    /// The kernel would take the child away the moment it ends, with its status. Set `SIGCHLD` to its default, or to a
    /// handler, before starting children.
    #[error("SIGCHLD is ignored in this process, so a child could not be waited for")]
    SigchldIgnored,

    /// Nothing was given to this program under that name, or it is not there any more.
    #[error("no end was given under the name {name:?}")]
    NoSuchEnd {
        /// The name that was asked for.
        name: String,
    },

    /// The end of that name was claimed before, by this process, under that name or another.
    #[error("the end {name:?} was claimed before")]
    AlreadyClaimed {
        /// The name that was asked for.
        name: String,
    },

    /// A descriptor is not what is asked for.
    #[error("expected {expected}, found {found}")]
    WrongKind {
        /// What was asked for.
        expected: &'static str,
        /// What the descriptor is.
        found: &'static str,
    },

    /// Ends that came with a message could not all be installed, because this process has no descriptors left. The message
    /// is in the caller's buffer, [`bytes`](Received::message_len) long, and the ends that did arrive are here; the others are lost.
    #[error("only {} of the ends that came with a message could be installed", received.len())]
    EndsLost {
        /// What did arrive.
        received: Received,
    },
}

impl Error {
    /// The error of a system call that has no more special name.
    pub(crate) fn system(call: &'static str, errno: Errno) -> Self {
        Error::System { call, source: errno.into() }
    }

    /// For `Read` and `Write`. An event loop meets `WouldBlock` all the time: it comes without a box.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Error::WouldBlock => io::ErrorKind::WouldBlock.into(),
            error => error.into(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::System { source, .. } => return source,
            Error::WouldBlock => io::ErrorKind::WouldBlock,
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Closed => io::ErrorKind::BrokenPipe,
            Error::Reset => io::ErrorKind::ConnectionReset,
            Error::Malformed { .. } => io::ErrorKind::InvalidData,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Error::Unread => io::ErrorKind::ResourceBusy,
            Error::BufferTooSmall { .. } | Error::TooLong { .. } | Error::WrongKind { .. } => {
                io::ErrorKind::InvalidInput
            }
            Error::NoSuchEnd { .. } => io::ErrorKind::NotFound,
            Error::AlreadyClaimed { .. } => io::ErrorKind::AlreadyExists,
            Error::NotGiven => io::ErrorKind::PermissionDenied,
            Error::MultiThreaded { .. } | Error::SigchldIgnored => io::ErrorKind::Unsupported,
            Error::EndsLost { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Finds our own error again inside an [`io::Error`]; any other becomes [`Error::System`] with the call `"io"`.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            // What `Read` and `Write` of this crate answer, without a box around it.
            Err(other) if other.get_ref().is_none() && other.raw_os_error().is_none() => match other.kind() {
                io::ErrorKind::WouldBlock => Error::WouldBlock,
                _ => Error::System { call: "io", source: other },
            },
            Err(other) => Error::System { call: "io", source: other },
        }
    }
}

/// What waited to be sent could not all be sent, and why. Whatever holds it is given back.
///
/// `?` turns it into [`Error`] or [`io::Error`], and drops what could not be flushed, which tries once more. `anyhow::Error` and
/// `Box<dyn Error>` take it along, with its end open.
pub struct FlushError<T> {
    /// The [`PackedSocket`](crate::PackedSocket), [`MessageWriter`](crate::MessageWriter) or
    /// [`BufferedWriter`](crate::BufferedWriter), with what still waits in it.
    pub unflushed: T,
    /// What went wrong.
    pub error: Error,
}

impl<T> fmt::Debug for FlushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for FlushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what waited could not be sent")
    }
}

impl<T> std::error::Error for FlushError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> From<FlushError<T>> for Error {
    fn from(refused: FlushError<T>) -> Self {
        refused.error
    }
}

impl<T> From<FlushError<T>> for io::Error {
    fn from(refused: FlushError<T>) -> Self {
        refused.error.into()
    }
}
