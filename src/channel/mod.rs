//! Rust values between processes, with ends in them.

mod access;
mod buffer;
mod decode;
mod duplex;
mod encode;
mod ends;
mod large;
mod link;
mod links;
mod locked;
mod pair;
mod receiver;
mod scope;
mod sender;
mod server;
mod tcp;
#[cfg(feature = "testing")]
mod testing;
mod travels;
mod unsent;
mod value;
mod values;
mod wrong;

pub use duplex::Duplex;
pub use ends::Fd;
#[cfg(feature = "tokio")]
pub(crate) use large::is_busy;
pub use link::{Incoming, Link, Outbound, Outgoing};
pub use locked::{Locked, LockedGuard};
pub use pair::{DuplexPair, duplex};
pub use receiver::Receiver;
#[cfg(feature = "tokio")]
pub(crate) use receiver::is_over_with_the_value;
pub use sender::Sender;
pub use server::TypedForkServer;
pub use tcp::{TcpLink, TcpOptions, TcpReader, TcpWriter};
#[cfg(feature = "testing")]
pub use testing::fork_in_test;
pub use travels::assert_travels;
pub use unsent::{CallError, Unsent};
pub use values::{IntoValues, Values};

use crate::error::Result;
use crate::socket;

/// Makes a channel for values of one type: a value that is sent into one end arrives at the other. Never blocks.
///
/// `T` is any type with serde's `Serialize` and `DeserializeOwned`. A value may have up to 253 ends in it, as fields, and each
/// arrives as an end that works. A field may be a [`PipeReader`], a [`PipeWriter`], a [`StreamSocket`], a [`DatagramSocket`],
/// a [`Sender`], a [`Receiver`], a [`Duplex`] or a [`Blob`]. For a [`File`](std::fs::File) and the like there is [`Fd`].
///
/// - A value arrives whole and in order, or is given back by the error ([`Unsent`]).
/// - A value may be of any size. One that is too large for a message goes in shared memory beside it.
/// - Receiving returns `None` when every sender is gone and everything was received. Sending fails with [`Error::Closed`]
///   when every receiver is gone.
/// - [`send`](Sender::send) blocks while some hundreds of values, or 416 KiB of them, were not received yet. Values in shared memory
///   count as some hundreds, however large: they take memory until they are received.
///
/// # What does not travel
///
/// A value is encoded in [postcard](https://docs.rs/postcard)'s format, which does not describe itself. Some of serde's
/// attributes do not survive it: [`assert_travels`] lists them, and checks a type in your tests.
///
/// [`PipeReader`]: crate::PipeReader
/// [`PipeWriter`]: crate::PipeWriter
/// [`StreamSocket`]: crate::StreamSocket
/// [`DatagramSocket`]: crate::DatagramSocket
/// [`Blob`]: crate::Blob
/// [`Error::Closed`]: crate::Error::Closed
///
/// # Errors
///
/// [`Error::System`](crate::Error::System): no descriptors are left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html) with `SOCK_SEQPACKET`. `docs/channel.md` has the
/// format, for programs in other languages.
///
/// # Examples
///
/// A value with an end in it:
///
/// ```
/// use std::io::{Read, Write};
///
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Job {
///     name: String,
///     output: ipc::PipeWriter,
/// }
///
/// let (jobs, worker_jobs) = ipc::channel::<Job>()?;
/// let child = ipc::fork(worker_jobs, |jobs| -> std::io::Result<()> {
///     for job in jobs.iter() {
///         let mut job = job?;
///         write!(job.output, "done: {}", job.name)?;
///     }
///     Ok(())
/// })?;
///
/// let (reader, output) = ipc::pipe()?;
/// jobs.send(Job { name: "the first".to_owned(), output })?;
/// assert_eq!(std::io::read_to_string(reader)?, "done: the first");
/// drop(jobs);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "mpsc")]
#[doc(alias = "Queue")]
pub fn channel<T>() -> Result<(Sender<T>, Receiver<T>)> {
    let (one, other) = socket::value_pair()?;
    Ok((Sender::new(one), Receiver::new(other)))
}

/// The ends of a channel over a [`DatagramSocket`](crate::DatagramSocket) are like any other end: a descriptor, and
/// something to give. They have it in a field `link`.
macro_rules! channel_traits {
    ([$($parameter:ident),*] $end:ty) => {
        impl<$($parameter),*> std::os::fd::AsFd for $end {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.link.as_fd()
            }
        }

        impl<$($parameter),*> std::os::fd::AsRawFd for $end {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.link.as_raw_fd()
            }
        }

        impl<$($parameter),*> crate::end::Ends for $end {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
                self.link.each(visit);
            }
        }

        impl<$($parameter),*> From<$end> for OwnedFd {
            /// The descriptor, close-on-exec as before. It is no end any more: a fork does not sever it.
            fn from(end: $end) -> Self {
                end.into_inner().into()
            }
        }

        impl<$($parameter),*> From<DatagramSocket> for $end {
            /// The same as `new`.
            fn from(socket: DatagramSocket) -> Self {
                Self::new(socket)
            }
        }
    };
}
use channel_traits;
