//! Messages between two processes: each arrives whole, in order, or the error has it.

mod receive;
mod send;
mod settings;
mod socket;

use std::os::fd::AsFd;

use rustix::net::SocketType;

pub use socket::DatagramSocket;

use crate::end::End;
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::socket::Mark;

bitflags::bitflags! {
    /// Options of [`datagram_pair_with`], which has an example.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DatagramFlags: u32 {
        /// Sockets of the type `SOCK_DGRAM` instead of `SOCK_SEQPACKET`.
        ///
        /// **No process is told that the peer is gone.** A blocking `recv` from a dead peer waits for ever, and
        /// [`wait_any`](crate::wait_any) shows nothing. Only a `send` fails, with [`Error::Closed`]. Use it where a program on
        /// the other side insists on that type.
        ///
        /// Only the peer can send to such a socket, as it has no name; but see
        /// [`set_passcred`](DatagramSocket::set_passcred).
        const CONNECTIONLESS = 1;
    }
}

/// Two connected ends for messages, made by [`datagram_pair`]. Both ends are alike; the names tell them apart.
///
/// # Examples
///
/// ```
/// let ipc::DatagramPair { parent, child } = ipc::datagram_pair()?;
/// parent.send(b"ping")?;
/// assert_eq!(child.recv_vec()?.as_deref(), Some(&b"ping"[..]));
///
/// let (ours, theirs) = ipc::datagram_pair()?.into();
/// theirs.send(b"pong")?;
/// assert_eq!(ours.recv_vec()?.as_deref(), Some(&b"pong"[..]));
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// Each call has a form that does not block, and one with a deadline:
///
/// ```
/// use std::io::{IoSlice, IoSliceMut};
/// use std::time::Duration;
///
/// let (mut ours, theirs) = ipc::datagram_pair()?.into();
/// let second = Duration::from_secs(1);
/// let mut buf = [0; 64];
/// assert!(matches!(theirs.try_recv(&mut buf), Err(ipc::Error::WouldBlock)));
/// assert!(matches!(theirs.recv_timeout(&mut buf, Duration::ZERO), Err(ipc::Error::TimedOut)));
///
/// ours.set_spin(Duration::from_micros(20));
/// ours.try_send(b"one")?;
/// ours.send_timeout(b"two", second)?;
/// assert_eq!((theirs.peek_len()?, theirs.try_peek(&mut buf)?), (Some(3), Some(3)));
/// assert_eq!(theirs.try_recv_vec()?.as_deref(), Some(&b"one"[..]));
/// assert_eq!(theirs.recv_vec_timeout(second)?.as_deref(), Some(&b"two"[..]));
///
/// ours.try_send_vectored(&[IoSlice::new(b"th"), IoSlice::new(b"ree")])?;
/// ours.send_vectored_timeout(&[IoSlice::new(b"four")], second)?;
/// assert_eq!(theirs.try_recv_vectored(&mut [IoSliceMut::new(&mut buf)])?, Some(5));
/// assert_eq!(theirs.recv_vectored_timeout(&mut [IoSliceMut::new(&mut buf)], second)?, Some(4));
///
/// let (reader, writer) = ipc::pipe()?;
/// ours.try_send_with(b"a reader", reader)?;
/// ours.send_with_timeout(b"a writer", writer, second)?;
/// let mut message = Vec::new();
/// assert!(theirs.try_recv_with(&mut message)?.is_some_and(|received| received.len() == 1));
/// assert!(theirs.recv_with_timeout(&mut message, second)?.is_some());
/// assert_eq!(message, b"a writer");
///
/// assert_eq!(theirs.peer_credentials()?.pid, std::process::id());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct DatagramPair {
    /// For the process that makes the pair.
    pub parent: DatagramSocket,
    /// For the other one.
    pub child: DatagramSocket,
}

/// The parent's end and the child's.
impl From<DatagramPair> for (DatagramSocket, DatagramSocket) {
    fn from(pair: DatagramPair) -> Self {
        (pair.parent, pair.child)
    }
}

/// Makes a pair of connected sockets for messages, both ways. Never blocks.
///
/// The contract of the pair:
///
/// - **A message is whole.** One `recv` returns the message of one `send`: never cut, never joined with the next, in
///   order. A message that does not fit the buffer comes back inside [`Error::BufferTooSmall`].
/// - **Sending** blocks while the peer's queue is full (some hundreds of small messages, or fewer large ones).
/// - **Receiving** blocks while the queue is empty and the peer is open, in any process. When the peer is gone, its
///   messages can be received, and then `recv` is `None`. An empty message is `Some(0)`: the two are never mixed up.
/// - **Sizes**: up to [`max_message`](DatagramSocket::max_message) bytes, usually about 200 KiB; a longer message is
///   [`Error::TooLong`], and nothing of it is sent.
///
/// Both ends are close-on-exec, and after a [`fork`](crate::fork()) open only in the process that they were given to.
///
/// In the guide: [messages](crate::guide::messages).
///
/// # Peers that are not trusted
///
/// **Make the pair yourself, and give only the peer's end away.** A process with a copy of *your* end can stop inside a receive
/// from it. It handles a page fault of the call itself ([userfaultfd(2)](https://man7.org/linux/man-pages/man2/userfaultfd.2.html)).
/// The kernel holds the socket's lock meanwhile, and no deadline of this
/// process ends that.
///
/// # Errors
///
/// [`Error::System`]: the process or the system has no descriptors left (`EMFILE`, `ENFILE`), or a sandbox refuses
/// `setsockopt`.
///
/// # Platform
///
/// [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html) with `SOCK_SEQPACKET`, the one kind of
/// [unix socket](https://man7.org/linux/man-pages/man7/unix.7.html) that keeps messages apart and reports when the peer is gone.
/// `SO_PASSSEC` or `SO_TIMESTAMP` is set as long as an end is this crate's: see [`DatagramSocket`].
///
/// # Examples
///
/// ```
/// let pair = ipc::datagram_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
///     for order in socket.iter() {
///         socket.send(&order?.to_ascii_uppercase())?;
///     }
///     Ok(()) // the parent has closed its end
/// })?;
///
/// pair.parent.send(b"louder")?;
/// let mut answer = [0; 64];
/// let len = pair.parent.recv(&mut answer)?.expect("the child is there");
/// assert_eq!(&answer[..len], b"LOUDER");
///
/// drop(pair.parent);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "socketpair")]
#[doc(alias = "SOCK_SEQPACKET")]
pub fn datagram_pair() -> Result<DatagramPair> {
    datagram_pair_with(DatagramFlags::empty())
}

/// Makes a pair with [`DatagramFlags`]. Never blocks. Otherwise the same as [`datagram_pair`].
///
/// # Errors
///
/// Same as [`datagram_pair`].
///
/// # Examples
///
/// ```
/// let pair = ipc::datagram_pair_with(ipc::DatagramFlags::CONNECTIONLESS)?;
/// pair.parent.send(b"to a program that wants SOCK_DGRAM")?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "SOCK_DGRAM")]
pub fn datagram_pair_with(flags: DatagramFlags) -> Result<DatagramPair> {
    sys::empty::ask();
    let connectionless = flags.contains(DatagramFlags::CONNECTIONLESS);
    let kind = if connectionless { SocketType::DGRAM } else { SocketType::SEQPACKET };
    let (parent, child) = sys::socket::pair(kind).map_err(|errno| Error::system("socketpair", errno))?;
    let (parent, child) = (End::new(parent)?, End::new(child)?);
    let refused = |errno| Error::system("setsockopt", errno);
    let mark = Mark::cheapest(parent.as_fd(), child.as_fd()).map_err(refused)?;
    let socket = |end: End| {
        // A sandbox may refuse the one and not the other.
        let marked = end.mark_messages(mark).or_else(|_| end.mark_messages(Mark::Time));
        marked.map_err(refused).map(|()| DatagramSocket::new(end, connectionless))
    };
    Ok(DatagramPair { parent: socket(parent)?, child: socket(child)? })
}

/// A pair for typed values, which are never empty messages. Its queues are longer, so that a sender of large values sleeps less
/// often.
#[cfg(feature = "channel")]
pub(crate) fn value_pair() -> Result<(DatagramSocket, DatagramSocket)> {
    sys::empty::ask();
    let pair = sys::socket::pair(SocketType::SEQPACKET).map_err(|errno| Error::system("socketpair", errno))?;
    for end in [&pair.0, &pair.1] {
        let _ = sys::socket::lengthen_queue(end.as_fd()); // in a sandbox that refuses it, they are as short as others'
    }
    Ok((DatagramSocket::unmarked(End::new(pair.0)?), DatagramSocket::unmarked(End::new(pair.1)?)))
}
