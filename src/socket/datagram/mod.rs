//! Messages between two processes: each arrives whole, in order, or the error has it.

mod receive;
mod send;

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::net::SocketType;

use super::{Credentials, Loss};
use crate::end::{End, FromFdError, end_traits};
use crate::error::{Error, Result};
use crate::sys;
use crate::wait::Spin;

bitflags::bitflags! {
    /// What [`datagram_pair_with`] can do differently.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DatagramFlags: u32 {
        /// Sockets of the type `SOCK_DGRAM` instead of `SOCK_SEQPACKET`.
        ///
        /// It gives up what makes a pair safe to wait on: **nobody is told that the peer is gone**. A blocking `recv`
        /// from a dead peer waits for ever, [`wait_any`](crate::wait_any) shows nothing, and only a `send` fails, with
        /// [`Error::Closed`]. Use it where a program on the other side insists on that type.
        ///
        /// Nobody but the peer can send to such a socket, as it has no name; but see
        /// [`set_passcred`](DatagramSocket::set_passcred).
        const CONNECTIONLESS = 1;
    }
}

/// Two connected ends for messages, as [`datagram_pair`] makes them. Both ends are alike: the names say who keeps which.
///
/// # Examples
///
/// ```
/// let ipc::DatagramPair { parent, child } = ipc::datagram_pair()?;
/// parent.send(b"ping")?;
/// assert_eq!(child.recv_vec()?.as_deref(), Some(&b"ping"[..]));
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct DatagramPair {
    /// For the process that makes the pair.
    pub parent: DatagramSocket,
    /// For the other one.
    pub child: DatagramSocket,
}

/// Makes a pair of connected sockets for messages, both ways. Never blocks.
///
/// The contract of the pair:
///
/// - **A message is whole.** What one `send` takes, one `recv` returns: never cut, never joined with the next, in
///   order. A message that the buffer is too short for comes back inside [`Error::BufferTooSmall`].
/// - **Sending** blocks while the peer's queue is full (some hundreds of small messages, or fewer large ones).
/// - **Receiving** blocks while the queue is empty and the peer is open, in any process. When the peer is gone, what it
///   sent can be received, and then `recv` is `None`. An empty message is `Some(0)`: the two are never mixed up.
/// - **Sizes**: up to [`max_message`](DatagramSocket::max_message) bytes, usually about 200 KiB; a longer message is
///   [`Error::TooLong`], and nothing of it is sent.
///
/// Both ends are close-on-exec, and after a [`fork`](crate::fork()) open only in the process that they were given to.
///
/// # Errors
///
/// [`Error::System`] if the process or the system has no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// socketpair(2) with `SOCK_SEQPACKET`, the one kind of unix socket that keeps messages apart and says when the peer is
/// gone (unix.7). `SO_PASSCRED` is set, so that an empty message can be told from the end.
///
/// # Examples
///
/// ```
/// let pair = ipc::datagram_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
///     while let Some(order) = socket.recv_vec()? {
///         socket.send(&order.to_ascii_uppercase())?;
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
pub fn datagram_pair() -> Result<DatagramPair> {
    datagram_pair_with(DatagramFlags::empty())
}

/// Makes a pair with [`DatagramFlags`]. Never blocks. Everything else is as [`datagram_pair`] says.
///
/// # Errors
///
/// As for [`datagram_pair`].
pub fn datagram_pair_with(flags: DatagramFlags) -> Result<DatagramPair> {
    let kind = match flags.contains(DatagramFlags::CONNECTIONLESS) {
        true => SocketType::DGRAM,
        false => SocketType::SEQPACKET,
    };
    let (parent, child) = sys::socket::pair(kind).map_err(|errno| Error::system("socketpair", errno))?;
    Ok(DatagramPair { parent: DatagramSocket::new(End::new(parent)?)?, child: DatagramSocket::new(End::new(child)?)? })
}

/// One end of a [`datagram_pair`]: sends and receives whole messages.
///
/// All calls take `&self`, so that one thread or process can send while another receives.
pub struct DatagramSocket {
    pub(super) end: End,
    spin: Spin,
    pub(super) loss: Loss,
    /// Nobody is told that the peer is gone, and only whoever waits that nothing more comes.
    connectionless: bool,
    /// Whether to name senders.
    pub(super) credentials: AtomicBool,
}

end_traits!(DatagramSocket);

impl DatagramSocket {
    fn new(end: End) -> Result<Self> {
        let connectionless =
            sys::socket::mark_messages(end.as_fd()).map_err(|errno| Error::system("setsockopt", errno))?;
        Ok(Self::of(end, connectionless))
    }

    fn adopt(fd: OwnedFd) -> Self {
        // What is not a socket says so at every call.
        let connectionless = sys::socket::mark_messages(fd.as_fd()).unwrap_or(false);
        Self::of(End::adopt(fd), connectionless)
    }

    pub(crate) fn of(end: End, connectionless: bool) -> Self {
        let (spin, loss, credentials) = (Spin::default(), Loss::default(), AtomicBool::new(false));
        Self { end, spin, loss, connectionless, credentials }
    }

    /// The longest message that this end sends, in bytes. Never blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// `SO_SNDBUF` less 32 bytes: 212 960 where the system's default was not changed; at most 4160 KiB, which is the most
    /// that the kernel builds.
    pub fn max_message(&self) -> Result<usize> {
        sys::socket::max_message(self.end.as_fd()).map_err(|errno| self.end.error("getsockopt", errno))
    }

    /// Makes room for longer messages, or less room, and returns the longest that this end sends then. Never blocks.
    ///
    /// That may be more than asked for, as the kernel has a least; or less: 4160 KiB is the most, and a process without
    /// `CAP_NET_ADMIN` gets no more than `/proc/sys/net/core/wmem_max` allows. The receiver needs no setting.
    ///
    /// # Errors
    ///
    /// As [`max_message`](Self::max_message).
    ///
    /// # Platform
    ///
    /// `SO_SNDBUFFORCE` where it is allowed, else `SO_SNDBUF` (socket.7).
    pub fn set_max_message(&self, bytes: usize) -> Result<usize> {
        sys::socket::set_max_message(self.end.as_fd(), bytes).map_err(|errno| self.end.error("setsockopt", errno))?;
        self.max_message()
    }

    /// The process that made the pair, with its user and group. Never blocks.
    ///
    /// That is what the kernel keeps, for both ends and whoever holds them: in a child, the peer's credentials are those of
    /// the parent that called [`datagram_pair`], and so are those that the parent sees.
    ///
    /// # Errors
    ///
    /// As [`max_message`](Self::max_message).
    ///
    /// # Platform
    ///
    /// `SO_PEERCRED` (unix.7).
    pub fn peer_credentials(&self) -> Result<Credentials> {
        super::peer_credentials(&self.end)
    }

    /// Ends one direction, or both, for all that hold this end. Never blocks.
    ///
    /// After [`Shutdown::Write`] the peer receives what was sent, and then `None`; after [`Shutdown::Read`] its `send` fails
    /// with [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// shutdown(2). A peer of a [`CONNECTIONLESS`](DatagramFlags::CONNECTIONLESS) pair does not see it.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        super::shutdown(&self.end, how)
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; zero, as at first: not at all.
    ///
    /// What it does and costs is said at [`PipeReader::set_spin`](crate::PipeReader::set_spin).
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// A second end of the same side, in this process. Never blocks.
    ///
    /// The peer is told that this side is gone when all of them are closed. Each message goes to one of them.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            end: self.end.try_clone()?,
            spin: self.spin.clone(),
            loss: self.loss.clone(),
            connectionless: self.connectionless,
            credentials: AtomicBool::new(self.credentials.load(Relaxed)),
        })
    }

    /// Closes the end, and says what the kernel said. Never blocks. Dropping closes too.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if somebody else closed the number.
    pub fn close(self) -> Result<()> {
        self.end.close()
    }
}

impl TryFrom<OwnedFd> for DatagramSocket {
    type Error = FromFdError;

    /// Takes the descriptor over, if it is a unix socket for messages: `SOCK_SEQPACKET` with a peer, or `SOCK_DGRAM`;
    /// close-on-exec is set, and `SO_PASSCRED` or, with `SOCK_DGRAM`, `SO_TIMESTAMP`. Otherwise the error gives it back.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        let kinds = &[SocketType::SEQPACKET, SocketType::DGRAM];
        match super::check(fd.as_fd(), "a connected unix socket for messages", kinds) {
            // Without it, an empty message would look like the end.
            Ok(()) => match sys::socket::mark_messages(fd.as_fd()) {
                Ok(connectionless) => Ok(Self::of(End::adopt(fd), connectionless)),
                Err(errno) => Err(FromFdError { fd, error: Error::system("setsockopt", errno) }),
            },
            Err(error) => Err(FromFdError { fd, error }),
        }
    }
}

impl TryFrom<UnixDatagram> for DatagramSocket {
    type Error = FromFdError;

    /// As from the descriptor of the socket. Where it has no peer, sending says [`Error::Closed`].
    fn try_from(socket: UnixDatagram) -> Result<Self, FromFdError> {
        OwnedFd::from(socket).try_into()
    }
}
