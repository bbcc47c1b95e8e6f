//! The errors: a variant for each cause that a caller would handle differently.

mod kept;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

pub(crate) use self::kept::{Bytes, gives_back};
use crate::socket::Received;

/// The result of this crate's calls, with [`Error`] unless another error type is named. See [`Error`] for an example.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The errors of this crate's calls. Calls retry `EINTR` themselves, so it is never among these.
///
/// `?` turns an `Error` into an [`io::Error`] and back again, and the variant is kept. [`System`](Error::System) keeps its errno.
/// Every other variant gets the fitting [`io::ErrorKind`] and travels inside the `io::Error`.
///
/// `Display` prints the whole cause in one line, and [`source`](std::error::Error::source) is `None`, so that a report of the
/// chain prints nothing twice. The variant's fields have the cause as a value.
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
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a call. `EAGAIN` from `fork`, the process limit, is one of these and not
    /// [`WouldBlock`](Error::WouldBlock).
    System {
        /// The system call, by the name of its manual page.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },

    /// A `try_` call found nothing to read, or no room to write.
    WouldBlock,

    /// The deadline passed.
    TimedOut,

    /// The other side is gone: no process is left that could read.
    Closed,

    /// The peer of a socket went away and left messages of ours unread.
    ///
    /// It comes once, after everything that the peer sent was received. Of clones in one process, the one that receives EOF gets
    /// it. If two processes hold the socket, the kernel tells one of them. If that one only sends, it gets
    /// [`Closed`](Error::Closed), and no process gets this. Some kernels, such as 6.18, do not count a single empty message.
    /// Over TCP, what a killed peer sent and this kernel had no room for yet is lost with it.
    Reset,

    /// A received message was longer than the buffer. Nothing of it is lost: the error has all of it.
    BufferTooSmall {
        /// The message, from its first byte to its last.
        message: Vec<u8>,
    },

    /// The peer does not speak the same format, or means harm.
    ///
    /// Of a [`PackedSocket`](crate::PackedSocket): a datagram that is no pack of messages. The next one can be received. Of a
    /// ring: a malformed hello, or impossible counters in the shared memory. Each later call fails in the same way. Of a TCP
    /// connection: a malformed hello, or one of another version.
    Malformed {
        /// The datagram, the hello, or the two counters, whole.
        message: Vec<u8>,
    },

    /// A stream of messages ended inside one: its writer was killed, or wrote something else.
    Truncated {
        /// The message, from its first byte to where the stream ended.
        message: Vec<u8>,
        /// The length that was announced. `None`: the stream ended inside the length.
        expected: Option<u64>,
    },

    /// Messages in a buffer would be lost, or the answer to a call that was given up is still to come. Receive them first.
    Unread,

    /// A message is over the limit of its socket, or an atomic write over [`PIPE_BUF`](crate::PIPE_BUF). One message has more
    /// than 253 ends. Nothing was sent. To a receiver: a message that arrived is over its own limit, and was skipped; or a ring
    /// is larger than it maps.
    TooLong {
        /// How many bytes there are, or ends where `max` is 253, or 252 beside a value that is too large for a datagram.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },

    /// An argument makes no sense, and the kernel was not asked. Two ends are given at one descriptor number, for example, or
    /// an argument of a program has a NUL byte.
    InvalidInput {
        /// The fault.
        what: &'static str,
    },

    /// A program could not be started, and the reason lies with it. There is no such program or directory, it may not be run,
    /// or one of its options is refused. `?` makes this of a [`SpawnError`](crate::SpawnError), and keeps the program's name.
    /// A lack of this process's own, such as of descriptors, stays [`System`](Error::System).
    NotStarted {
        /// The program, as it was given to [`Command::new`](crate::Command::new).
        program: OsString,
        /// The directory, as it was given to [`Command::current_dir`](crate::Command::current_dir), if the cause lies with it.
        directory: Option<Box<Path>>,
        /// The cause.
        error: Box<Error>,
    },

    /// This end was not given to this process: it was severed when the process was forked.
    NotGiven,

    /// This process has more than one thread. A fork or [`Command::exec`](crate::Command::exec) would not be safe, and
    /// [`Signals`](crate::Signals) would miss some: make the call before the threads start. A [`ForkServer`](crate::ForkServer)
    /// that was started before the threads forks for all of them. In the guide: [threads and fork](crate::guide::threads_and_fork),
    /// [tests that fork](crate::guide::testing).
    MultiThreaded {
        /// The threads that the kernel counts.
        threads: usize,
    },

    /// This process is inside a runtime of tokio, whose epoll instance a child would share, so a fork would not be safe. Fork
    /// before the runtime is entered, or use a [`ForkServer`](crate::ForkServer). Needs the feature `tokio`. In the guide:
    /// [tokio](crate::guide::tokio).
    InsideRuntime,

    /// This process ignores `SIGCHLD` (or set `SA_NOCLDWAIT`), so its children could not be waited for. Set `SIGCHLD` to its
    /// default, or to a handler, before starting children. In the guide: [children](crate::guide::children).
    SigchldIgnored,

    /// The child has exited, and other code in this process has waited for it, such as a handler that waits for all children.
    /// The kernel tells a status once. The output that [`Command::output`](crate::Command::output) had read is here.
    StatusTaken {
        /// The bytes that the program wrote to its standard output; empty if it was not captured.
        stdout: Vec<u8>,
        /// The bytes that the program wrote to its standard error.
        stderr: Vec<u8>,
    },

    /// No end was given to this program under that name, or it is not open any more.
    NoSuchEnd {
        /// The name that was asked for.
        name: String,
    },

    /// The end of that name was claimed before, by this process, under that name or another.
    AlreadyClaimed {
        /// The name that was asked for.
        name: String,
    },

    /// A descriptor is of another kind than was asked for. Of a TCP connection: the two sides have different stamps.
    WrongKind {
        /// The kind that was asked for.
        expected: &'static str,
        /// The kind of the descriptor, or of the peer.
        found: &'static str,
    },

    /// A value could not be encoded. Nothing was sent. Needs the feature `channel`.
    Encode {
        /// The fault.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A message is not a value of the receiver's type. The next one can be received. Needs the feature `channel`.
    Decode {
        /// The message, whole.
        message: Vec<u8>,
        /// The fault.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A value has ends in it, and its channel carries bytes alone. Nothing was sent. Needs the feature `channel`.
    CannotCarry,

    /// Ends that came with a message could not all be installed, because this process has no descriptors left. The others
    /// are lost. The message is in the caller's buffer, [`message_len`](Received::message_len) long.
    EndsLost {
        /// The ends that did arrive.
        received: Received,
    },
}

impl Error {
    /// The [`io::ErrorKind`] that this error has as an [`io::Error`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (reader, _writer) = ipc::pipe()?;
    /// let error = reader.try_read(&mut [0]).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Error::System { source, .. } => source.kind(),
            Error::WouldBlock => io::ErrorKind::WouldBlock,
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Closed => io::ErrorKind::BrokenPipe,
            Error::Reset => io::ErrorKind::ConnectionReset,
            Error::Malformed { .. } | Error::Decode { .. } => io::ErrorKind::InvalidData,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Error::Unread => io::ErrorKind::ResourceBusy,
            Error::BufferTooSmall { .. }
            | Error::Encode { .. }
            | Error::TooLong { .. }
            | Error::InvalidInput { .. }
            | Error::WrongKind { .. } => io::ErrorKind::InvalidInput,
            Error::NotStarted { error, .. } => error.kind(),
            Error::NoSuchEnd { .. } => io::ErrorKind::NotFound,
            Error::AlreadyClaimed { .. } => io::ErrorKind::AlreadyExists,
            Error::NotGiven => io::ErrorKind::PermissionDenied,
            Error::MultiThreaded { .. } | Error::InsideRuntime | Error::SigchldIgnored | Error::CannotCarry => {
                io::ErrorKind::Unsupported
            }
            Error::EndsLost { .. } | Error::StatusTaken { .. } => io::ErrorKind::Other,
        }
    }

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

/// ` in "/the/directory"`, for [`Error::NotStarted`] and a `SpawnError`.
pub(crate) fn in_directory(directory: Option<&Path>) -> String {
    directory.map(|directory| format!(" in {directory:?}")).unwrap_or_default()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::System { call, source } => write!(f, "{call}: {source}"),
            Error::WouldBlock => f.write_str("the call would have to wait"),
            Error::TimedOut => f.write_str("the time is up"),
            Error::Closed => f.write_str("the other side is closed"),
            Error::Reset => f.write_str("the peer went away with messages unread"),
            Error::BufferTooSmall { message } => {
                write!(f, "a message of {} bytes does not fit the buffer", message.len())
            }
            Error::Malformed { message } => {
                write!(f, "what the peer sent, {} bytes, does not fit the format", message.len())
            }
            Error::Truncated { message, expected: None } => {
                write!(f, "EOF came inside the length of a message, after {} bytes of it", message.len())
            }
            Error::Truncated { message, expected: Some(expected) } => {
                write!(f, "EOF came inside a message, after {} of its {expected} bytes", message.len())
            }
            Error::Unread => f.write_str("an earlier message or answer was not received yet; receive it first"),
            Error::TooLong { len, max } => {
                // The most ends that go with a message, or with a large value. Other limits are of bytes.
                let what = if matches!(max, 252 | 253) { "ends (or bytes)" } else { "bytes" };
                write!(f, "{len} {what} are more than the {max} that are allowed")
            }
            Error::InvalidInput { what } => f.write_str(what),
            Error::NotStarted { program, directory, error } => {
                write!(f, "{program:?} could not be started{}: {error}", in_directory(directory.as_deref()))
            }
            Error::NotGiven => f.write_str("this end was not given to this process; `fork(end, …)` gives it"),
            Error::MultiThreaded { threads } => {
                write!(f, "this process has {threads} threads, and this call needs a single one: make it earlier; ")?;
                f.write_str("a fork server forks for programs with threads, and the guide has a chapter on testing")
            }
            Error::InsideRuntime => {
                f.write_str("inside of a tokio runtime no process is forked; fork before, or have a fork server fork")
            }
            Error::SigchldIgnored => {
                f.write_str("SIGCHLD is ignored in this process, so a child could not be waited for; reset it first")
            }
            Error::StatusTaken { .. } => f.write_str(
                "the child has left, and somebody else in this process has waited for it and has its status",
            ),
            Error::NoSuchEnd { name } => write!(f, "no end was given under the name {name:?}"),
            Error::AlreadyClaimed { name } => write!(f, "the end {name:?} was claimed before"),
            Error::WrongKind { expected, found } => write!(f, "expected {expected}, found {found}"),
            Error::Encode { source } => write!(f, "the value cannot be encoded: {source}"),
            Error::Decode { message, source } => {
                write!(f, "a message of {} bytes is no value of the type that was expected: {source}", message.len())
            }
            Error::CannotCarry => f.write_str("ends in a value go with `ipc::channel`, not with this kind of channel"),
            Error::EndsLost { received } => {
                write!(f, "only {} of the ends that came with a message could be installed", received.len())
            }
        }
    }
}

impl std::error::Error for Error {}

/// As it would be derived, but for bytes: of these the number is shown, and the first few. A peer decides how many they are,
/// and an error that leaves `main` is printed so. A mistake of the program has its advice too.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = |name: &str, fields: &[(&str, &dyn fmt::Debug)]| {
            let mut shown = f.debug_struct(name);
            fields.iter().for_each(|(name, field)| _ = shown.field(name, field));
            use Error::{InsideRuntime, MultiThreaded, NotGiven, SigchldIgnored};
            if matches!(self, MultiThreaded { .. } | InsideRuntime | SigchldIgnored | NotGiven) {
                shown.field("message", &format_args!("{self}"));
            }
            shown.finish()
        };
        match self {
            Error::System { call, source } => shown("System", &[("call", call), ("source", source)]),
            Error::WouldBlock => shown("WouldBlock", &[]),
            Error::TimedOut => shown("TimedOut", &[]),
            Error::Closed => shown("Closed", &[]),
            Error::Reset => shown("Reset", &[]),
            Error::BufferTooSmall { message } => shown("BufferTooSmall", &[("message", &Bytes(message))]),
            Error::Malformed { message } => shown("Malformed", &[("message", &Bytes(message))]),
            Error::Truncated { message, expected } => {
                shown("Truncated", &[("message", &Bytes(message)), ("expected", expected)])
            }
            Error::Unread => shown("Unread", &[]),
            Error::TooLong { len, max } => shown("TooLong", &[("len", len), ("max", max)]),
            Error::InvalidInput { what } => shown("InvalidInput", &[("what", what)]),
            Error::NotStarted { program, directory, error } => {
                shown("NotStarted", &[("program", program), ("directory", directory), ("error", error)])
            }
            Error::NotGiven => shown("NotGiven", &[]),
            Error::MultiThreaded { threads } => shown("MultiThreaded", &[("threads", threads)]),
            Error::InsideRuntime => shown("InsideRuntime", &[]),
            Error::SigchldIgnored => shown("SigchldIgnored", &[]),
            Error::StatusTaken { stdout, stderr } => {
                shown("StatusTaken", &[("stdout", &Bytes(stdout)), ("stderr", &Bytes(stderr))])
            }
            Error::NoSuchEnd { name } => shown("NoSuchEnd", &[("name", name)]),
            Error::AlreadyClaimed { name } => shown("AlreadyClaimed", &[("name", name)]),
            Error::WrongKind { expected, found } => shown("WrongKind", &[("expected", expected), ("found", found)]),
            Error::Encode { source } => shown("Encode", &[("source", source)]),
            Error::Decode { message, source } => shown("Decode", &[("message", &Bytes(message)), ("source", source)]),
            Error::CannotCarry => shown("CannotCarry", &[]),
            Error::EndsLost { received } => shown("EndsLost", &[("received", received)]),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::System { source, .. } => source,
            error => io::Error::new(error.kind(), error),
        }
    }
}

/// Finds our own error again inside an [`io::Error`]; any other becomes [`Error::System`] with the call `"io"`.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            // As `Read` and `Write` of this crate return it, without a box around it.
            Err(other) if other.kind() == io::ErrorKind::WouldBlock && is_bare(&other) => Error::WouldBlock,
            Err(other) => Error::System { call: "io", source: other },
        }
    }
}

fn is_bare(error: &io::Error) -> bool {
    error.get_ref().is_none() && error.raw_os_error().is_none()
}
