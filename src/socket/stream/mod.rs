//! Bytes between two processes, both ways.

mod calls;
mod socket;

use rustix::net::SocketType;

pub(crate) use calls::PIECE;
pub use socket::StreamSocket;

use crate::end::End;
use crate::error::{Error, Result};
use crate::sys;

/// Two connected ends for bytes, made by [`stream_pair`]. Both ends are alike; the names tell them apart.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (ours, mut theirs) = ipc::stream_pair()?.into();
/// theirs.write_all(b"bytes")?;
/// drop(theirs);
/// assert_eq!(std::io::read_to_string(ours)?, "bytes");
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// Calls that do not block, and calls with a deadline:
///
/// ```
/// use std::time::Duration;
///
/// let (mut ours, theirs) = ipc::stream_pair()?.into();
/// let second = Duration::from_secs(1);
/// let mut buf = [0; 64];
/// assert!(matches!(theirs.try_read(&mut buf), Err(ipc::Error::WouldBlock)));
/// assert!(matches!(theirs.read_timeout(&mut buf, Duration::ZERO), Err(ipc::Error::TimedOut)));
///
/// ours.set_spin(Duration::from_micros(20));
/// assert_eq!(ours.try_write(b"one")?, 3);
/// assert_eq!(ours.write_timeout(b"two", second)?, 3);
/// assert_eq!(theirs.read_timeout(&mut buf, second)?, 6);
///
/// let (reader, writer) = ipc::pipe()?;
/// ours.try_send_with(b"a reader", reader)?;
/// assert_eq!(theirs.try_recv_with(&mut buf)?.1.len(), 1);
/// ours.send_with_timeout(b"a writer", writer, second)?;
/// assert_eq!(theirs.recv_with_timeout(&mut buf, second)?.1.len(), 1);
///
/// assert_eq!(theirs.peer_credentials()?.pid, std::process::id());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamPair {
    /// For the process that makes the pair.
    pub parent: StreamSocket,
    /// For the other one.
    pub child: StreamSocket,
}

/// The parent's end and the child's.
impl From<StreamPair> for (StreamSocket, StreamSocket) {
    fn from(pair: StreamPair) -> Self {
        (pair.parent, pair.child)
    }
}

/// Makes a pair of connected sockets for bytes, both ways. Never blocks.
///
/// Each direction is a stream of its own, as a [`pipe`](crate::pipe()) is:
///
/// - **Reading** returns bytes in the order in which they were written, without the boundaries of the writes. It blocks while there
///   are none and the peer is open. When the peer is closed, in every process, the rest can be read, and then every read is
///   `Ok(0)`.
/// - **Writing** blocks while the peer's buffer is full.
///
/// Both sides hang if both write a lot before they read: each waits for the other to make room. A
/// [`datagram_pair`](crate::datagram_pair()) keeps messages apart.
///
/// Both ends are close-on-exec, and after a [`fork`](crate::fork()) open only in the process that they were given to.
///
/// In the guide: [streams and messages](crate::guide::streams_and_messages).
///
/// # Errors
///
/// [`Error::System`] if the process or the system has no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html) with `SOCK_STREAM`.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
///
/// let mut pair = ipc::stream_pair()?;
/// let child = ipc::fork(pair.child, |mut socket| -> std::io::Result<()> {
///     let mut text = String::new();
///     socket.read_to_string(&mut text)?;
///     socket.write_all(text.to_uppercase().as_bytes())
/// })?;
///
/// pair.parent.write_all(b"louder")?;
/// pair.parent.shutdown(Shutdown::Write)?; // that was all
/// assert_eq!(std::io::read_to_string(&mut pair.parent)?, "LOUDER");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "socketpair")]
#[doc(alias = "SOCK_STREAM")]
pub fn stream_pair() -> Result<StreamPair> {
    sys::empty::ask();
    let (parent, child) = sys::socket::pair(SocketType::STREAM).map_err(|errno| Error::system("socketpair", errno))?;
    Ok(StreamPair { parent: StreamSocket::new(End::new(parent)?), child: StreamSocket::new(End::new(child)?) })
}
