//! One end of a pair for messages: looking ahead, settings, clones, closing and conversions.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::net::SocketType;

#[cfg(doc)]
use super::DatagramPair;
use super::DatagramSocket;
use crate::end::{End, FromFdError, end_traits};
use crate::error::{Error, Result};
use crate::socket::{self, Credentials};
use crate::sys;
use crate::sys::socket::Mark;
use crate::wait::Patience;

impl DatagramSocket {
    /// Blocks until a message arrives, copies its beginning into `buf`, and returns the length of the whole message, which
    /// stays. `None` is EOF.
    ///
    /// The length may exceed that of `buf`, which is then full. Ends that came with the message stay too.
    ///
    /// # Errors
    ///
    /// Same as [`recv`](Self::recv), but never [`Error::BufferTooSmall`].
    ///
    /// # Platform
    ///
    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html) with `MSG_PEEK`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send(b"GET the rest")?;
    ///
    /// let mut verb = [0; 3];
    /// assert_eq!(pair.child.peek(&mut verb)?, Some(12));
    /// assert_eq!(&verb, b"GET");
    /// assert_eq!(pair.child.recv_vec()?.as_deref(), Some(&b"GET the rest"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "MSG_PEEK")]
    pub fn peek(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.arrive(Patience::Blocking, None, |fd, wait| sys::socket::peek(fd, buf, wait))
    }

    /// Looks at the next message without blocking; otherwise the same as [`peek`](Self::peek). See [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`peek`](Self::peek).
    pub fn try_peek(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.arrive(Patience::None, None, |fd, wait| sys::socket::peek(fd, buf, wait))
    }

    /// Blocks until a message arrives, and returns its length; the same as [`peek`](Self::peek) into no buffer. See
    /// [`DatagramPair`].
    ///
    /// # Errors
    ///
    /// Same as [`peek`](Self::peek).
    pub fn peek_len(&self) -> Result<Option<usize>> {
        self.peek(&mut [])
    }

    /// Returns the longest message that this end sends, in bytes. Never blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// `SO_SNDBUF` less 32 bytes: 212 960 where the system's default was not changed; at most 4160 KiB, which is what every
    /// kernel can build.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// let max = pair.parent.max_message()?;
    /// assert!(matches!(pair.parent.send(&vec![7; max + 1]), Err(ipc::Error::TooLong { .. })));
    /// pair.parent.send(&vec![7; max])?;
    /// assert_eq!(pair.child.recv_vec()?.map(|message| message.len()), Some(max));
    ///
    /// let less = pair.parent.set_max_message(8192)?;
    /// assert!(matches!(pair.parent.send(&vec![7; less + 1]), Err(ipc::Error::TooLong { .. })));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "SO_SNDBUF")]
    pub fn max_message(&self) -> Result<usize> {
        sys::socket::max_message(self.end.as_fd()).map_err(|errno| self.end.error("getsockopt", errno))
    }

    /// Makes room for longer messages, or less room, and returns the longest that this end sends then. Never blocks.
    ///
    /// The kernel has a minimum, and a maximum of 4160 KiB. A process without `CAP_NET_ADMIN` gets no more than
    /// `/proc/sys/net/core/wmem_max` allows. The receiver needs no setting. See [`max_message`](Self::max_message).
    ///
    /// # Errors
    ///
    /// Same as [`max_message`](Self::max_message).
    ///
    /// # Platform
    ///
    /// `SO_SNDBUFFORCE` where it is allowed, else `SO_SNDBUF`
    /// ([socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html)).
    pub fn set_max_message(&self, bytes: usize) -> Result<usize> {
        sys::socket::set_max_message(self.end.as_fd(), bytes).map_err(|errno| self.end.error("setsockopt", errno))?;
        self.max_message()
    }

    /// Lets [`Received::sender`](crate::Received::sender) name the sender of each message, or not, as at first. Never blocks.
    ///
    /// The sender is the process that sent this very message; [`peer_credentials`](Self::peer_credentials) is another one.
    /// The setting applies to all holders of this end, and stays when the end leaves this crate. Earlier messages have no sender.
    /// The socket gets a name when it sends next, which takes some µs once.
    ///
    /// By that name, a [`CONNECTIONLESS`](crate::DatagramFlags::CONNECTIONLESS) socket takes messages from any process of the
    /// network namespace. This begins when its peer is gone and a send has failed with [`Error::Closed`]. Check the sender of
    /// later messages.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the end is no socket (it was made from an unchecked number).
    ///
    /// # Platform
    ///
    /// `SO_PASSCRED` and `SCM_CREDENTIALS` ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.set_passcred(true)?;
    /// let child = ipc::fork(pair.child, |socket| socket.send(b"it is me"))?;
    ///
    /// let received = pair.parent.recv_with(&mut Vec::new())?.expect("a message");
    /// assert_eq!(received.sender().map(|sender| sender.pid), Some(child.id()));
    /// child.wait()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "SO_PASSCRED")]
    pub fn set_passcred(&self, on: bool) -> Result<()> {
        socket::set_passcred(&self.end, on)
    }

    /// Returns the process that made the pair, with its user and group. Never blocks. See [`DatagramPair`].
    ///
    /// The kernel keeps it for both ends and all their holders: parent and child both get the credentials of the process that
    /// called [`datagram_pair`](crate::datagram_pair()). [`set_passcred`](Self::set_passcred) names the sender; see its example.
    ///
    /// # Errors
    ///
    /// Same as [`max_message`](Self::max_message).
    #[doc(alias = "SO_PEERCRED")]
    pub fn peer_credentials(&self) -> Result<Credentials> {
        socket::peer_credentials(&self.end)
    }

    /// Ends one direction, or both, for all that hold this end. Never blocks.
    ///
    /// After [`Shutdown::Write`] the peer receives the messages that were sent, and then `None`; after [`Shutdown::Read`] its `send` fails
    /// with [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`]: this process was not given the end.
    ///
    /// # Platform
    ///
    /// [shutdown(2)](https://man7.org/linux/man-pages/man2/shutdown.2.html). A peer of a
    /// [`CONNECTIONLESS`](crate::DatagramFlags::CONNECTIONLESS) pair does not see it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send(b"the last question")?;
    /// pair.parent.shutdown(std::net::Shutdown::Write)?;
    /// assert!(pair.child.recv_vec()?.is_some());
    /// assert_eq!(pair.child.recv_vec()?, None);
    ///
    /// pair.child.send(b"an answer")?; // the other direction goes on
    /// assert_eq!(pair.parent.recv_vec()?.as_deref(), Some(&b"an answer"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.end, how)
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; zero, as at first: not at all. See
    /// [`DatagramPair`].
    ///
    /// The same as [`PipeReader::set_spin`](crate::PipeReader::set_spin), which has the costs.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
    }

    /// Makes a second end of the same side, in this process. Never blocks.
    ///
    /// The peer is told that this side is gone when all of them are closed. Each message goes to one of them.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no descriptors are left (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// let clone = pair.parent.try_clone()?;
    /// clone.send(b"from either")?;
    /// drop(pair.parent);
    /// assert!(pair.child.recv_vec()?.is_some());
    /// assert!(matches!(pair.child.try_recv_vec(), Err(ipc::Error::WouldBlock))); // no EOF yet
    /// drop(clone);
    /// assert_eq!(pair.child.recv_vec()?, None);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "dup")]
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            spin: self.spin.clone(),
            loss: self.loss.clone(),
            ..Self::new(self.end.try_clone()?, self.connectionless)
        })
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Dropping closes too.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: other code closed the number.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.close()?;
    /// assert!(matches!(pair.child.send(b"anybody there?"), Err(ipc::Error::Closed)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        self.end.close()
    }

    /// Of a pair that carries no empty message: its messages are not marked.
    pub(crate) fn unmarked(end: End) -> Self {
        Self::new(end, false)
    }

    /// Marks its messages, if they are not.
    #[cfg(feature = "channel")]
    pub(crate) fn marked(self) -> Self {
        if self.end.mark().is_none() {
            // A severed end, or one in a sandbox that refuses it, stays as it is.
            let _ = self.end.mark_messages(Mark::Time);
        }
        self
    }

    /// A descriptor that is no socket fails at every call.
    fn adopt(fd: OwnedFd) -> Self {
        sys::empty::ask();
        let connectionless = mark(fd.as_fd()).ok();
        let end = End::adopt(fd);
        connectionless.iter().for_each(|_| end.note_marked(Mark::Time));
        Self::new(end, connectionless.unwrap_or(false))
    }
}

end_traits!(DatagramSocket);

impl TryFrom<OwnedFd> for DatagramSocket {
    type Error = FromFdError;

    /// Takes the descriptor over, if it is a unix socket for messages: `SOCK_SEQPACKET` with a peer, or `SOCK_DGRAM`.
    /// Otherwise the error gives it back.
    ///
    /// Close-on-exec and `SO_TIMESTAMP` are set. For a socket that stays another owner's, duplicate its descriptor
    /// (`fd.as_fd().try_clone_to_owned()?`). Turn the end into an `OwnedFd` again afterwards: the owner finds the socket as it
    /// was, but for its own `SO_TIMESTAMP` or `SO_TIMESTAMPNS`, which are off.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        let kinds = &[SocketType::SEQPACKET, SocketType::DGRAM];
        if let Err(error) = socket::check(fd.as_fd(), "a connected unix socket for messages", kinds) {
            return Err(FromFdError { fd, error });
        }
        // Unmarked, an empty message would look like EOF. The mark comes first: a descriptor that is given back is as it was.
        match mark(fd.as_fd()) {
            Ok(_) => Ok(Self::adopt(fd)),
            Err(errno) => Err(FromFdError { fd, error: Error::system("setsockopt", errno) }),
        }
    }
}

impl TryFrom<UnixDatagram> for DatagramSocket {
    type Error = FromFdError;

    /// Same as from the descriptor of the socket. If it has no peer, sending fails with [`Error::Closed`].
    fn try_from(socket: UnixDatagram) -> Result<Self, FromFdError> {
        OwnedFd::from(socket).try_into()
    }
}

/// Marks the messages of a socket that came from elsewhere with the time, and says whether it is connectionless. Another holder
/// may receive ends from it, and every receive sees the time.
fn mark(fd: BorrowedFd<'_>) -> sys::Result<bool> {
    Mark::Time.set(fd, true)?;
    sys::socket::is_connectionless(fd)
}
