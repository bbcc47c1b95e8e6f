//! Messages between two processes: each arrives whole, in order, or the error has it.

use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::net::SocketType;

use super::{Credentials, Lent, Loss};
use crate::end::{End, FromFdError, end_traits};
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin};
use crate::{Error, Result};

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
        /// [`set_credentials`](DatagramSocket::set_credentials).
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

    fn of(end: End, connectionless: bool) -> Self {
        let (spin, loss, credentials) = (Spin::default(), Loss::default(), AtomicBool::new(false));
        Self { end, spin, loss, connectionless, credentials }
    }

    /// Blocks until there is room in the peer's queue, and sends the message: all of it, or an error and nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLong`]: longer than [`max_message`](Self::max_message).
    /// - [`Error::Closed`]: the peer is gone, or one of the two was shut down.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: the kernel has no memory for it (`ENOBUFS`).
    ///
    /// # Platform
    ///
    /// send(2) with `MSG_NOSIGNAL`.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        self.deliver(message.len(), Patience::Blocking, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Sends the message without blocking: all of it, or an error and nothing.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: the peer's queue is full; and as [`send`](Self::send).
    pub fn try_send(&self, message: &[u8]) -> Result<()> {
        self.deliver(message.len(), Patience::None, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends the message: all of it, or an error
    /// and nothing.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`send`](Self::send).
    ///
    /// # Platform
    ///
    /// send(2) with `MSG_DONTWAIT`, and ppoll(2). `O_NONBLOCK` is not touched.
    pub fn send_timeout(&self, message: &[u8], timeout: Duration) -> Result<()> {
        let patience = Patience::timeout(timeout);
        self.deliver(message.len(), patience, |fd, wait| sys::socket::send(fd, message, wait))
    }

    /// Blocks until there is room in the peer's queue, and sends one message that is made of several parts.
    ///
    /// However many parts there are, it is one message: all of it, or an error and nothing. More than 1024 are copied
    /// together first.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// let pair = ipc::datagram_pair()?;
    /// pair.parent.send_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"body")])?;
    /// assert_eq!(pair.child.recv_vec()?.as_deref(), Some(&b"head body"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::Blocking)
    }

    /// Sends one message that is made of several parts, without blocking; else as [`send_vectored`](Self::send_vectored).
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// let pair = ipc::datagram_pair()?;
    /// // A master does not let a worker that hangs hold it up.
    /// while pair.parent.try_send_vectored(&[IoSlice::new(b"report "), IoSlice::new(b"all")]).is_ok() {}
    /// assert_eq!(pair.child.recv_vec()?.as_deref(), Some(&b"report all"[..]));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.send_parts(parts, Patience::None)
    }

    /// Blocks until there is room in the peer's queue or the time is up, and sends one message that is made of several
    /// parts; else as [`send_vectored`](Self::send_vectored).
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_vectored_timeout(&self, parts: &[IoSlice<'_>], timeout: Duration) -> Result<()> {
        self.send_parts(parts, Patience::timeout(timeout))
    }

    fn send_parts(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<()> {
        let len = parts.iter().map(|part| part.len()).sum();
        if parts.len() > sys::MOST_SLICES {
            let whole = parts.iter().map(|part| &**part).collect::<Vec<&[u8]>>().concat();
            return self.deliver(len, patience, |fd, wait| sys::socket::send(fd, &whole, wait));
        }
        self.deliver(len, patience, |fd, wait| sys::socket::send_vectored(fd, parts, wait))
    }

    #[inline(always)]
    pub(super) fn deliver(
        &self,
        len: usize,
        patience: Patience,
        send: impl Fn(BorrowedFd<'_>, bool) -> sys::Result<()>,
    ) -> Result<()> {
        let fd = self.end.as_fd();
        let mut too_long = false;
        let sent = self.loss.sending(|| {
            patience.persist(&self.end, &self.spin, "send", POLLOUT, |wait| {
                send(fd, wait).inspect_err(|errno| {
                    // More than the socket may hold, or than the kernel can build.
                    too_long = *errno == Errno::MSGSIZE || (*errno == Errno::NOBUFS && len > sys::socket::LARGEST);
                })
            })
        });
        match sent {
            Err(_) if too_long => Err(Error::TooLong { len, max: self.max_message()? }),
            sent => sent,
        }
    }

    /// Blocks until a message arrives, and says how long it is. `None`: the peer is gone, and all that it sent was
    /// received. `Some(0)`: an empty message.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooSmall`]: the message is longer than `buf`. It is whole inside the error.
    /// - [`Error::Reset`]: the peer went away with messages of ours unread; said once, after all that it sent.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::System`]: no address space for a long message (`ENOMEM`). Nothing was received.
    ///
    /// # Platform
    ///
    /// recvmsg(2). What `buf` has no room for goes to 8 MiB of address space that each receiving thread keeps, and that
    /// takes memory only when it is written to. Descriptors that a foreign program sends along are closed.
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::Blocking)
    }

    /// Receives a message without blocking; else as [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.receive(buf, Patience::None)
    }

    /// Blocks until a message arrives or the time is up; else as [`recv`](Self::recv).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals,
    /// and when another holder takes the message that this call was woken for. What a peer can do against it is to send a
    /// descriptor whose last close takes long (a TCP socket with `SO_LINGER`, a file on FUSE): it is closed here.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&self, buf: &mut [u8], timeout: Duration) -> Result<Option<usize>> {
        self.receive(buf, Patience::timeout(timeout))
    }

    fn receive(&self, buf: &mut [u8], patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let mut first = None;
        if patience.is_the_calls(&self.spin) {
            match sys::socket::receive(self.end.as_fd(), buf, spill.as_mut_slice(), true) {
                Ok(Some(len)) if len <= buf.len() => return Ok(Some(len)),
                other => first = Some(other),
            }
        }
        self.receive_late(buf, &mut spill, patience, first)
    }

    /// Receives, where there is more to it than one call with one answer.
    #[cold]
    #[inline(never)]
    fn receive_late(
        &self,
        buf: &mut [u8],
        spill: &mut Lent,
        patience: Patience,
        mut first: Option<sys::Result<Option<usize>>>,
    ) -> Result<Option<usize>> {
        let receive = |fd: BorrowedFd<'_>, wait| match first.take() {
            Some(first) => first,
            None => sys::socket::receive(fd, buf, spill.as_mut_slice(), wait),
        };
        match self.arrive(patience, receive)? {
            Some(len) if len > buf.len() => {
                let mut message = buf.to_vec();
                spill.append_to(&mut message, len - buf.len());
                Err(Error::BufferTooSmall { message })
            }
            arrived => Ok(arrived),
        }
    }

    /// Receives a message of whatever length into a buffer that becomes longer where it has to.
    pub(super) fn receive_growing(&self, buf: &mut Vec<u8>, patience: Patience) -> Result<Option<usize>> {
        let mut spill = Lent::new()?;
        let arrived = self.arrive(patience, |fd, wait| sys::socket::receive(fd, buf, spill.as_mut_slice(), wait))?;
        let over = arrived.map_or(0, |len| len.saturating_sub(buf.len()));
        if over > 0 {
            spill.append_to(buf, over);
        }
        Ok(arrived)
    }

    /// Blocks until a message arrives, of whatever length, and returns it. `None`: the peer is gone, and all that it sent
    /// was received.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), but [`Error::BufferTooSmall`].
    pub fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::Blocking)
    }

    /// Receives a message of whatever length without blocking; else as [`recv_vec`](Self::recv_vec).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv_vec`](Self::recv_vec).
    pub fn try_recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::None)
    }

    /// Blocks until a message arrives, of whatever length, or the time is up; else as [`recv_vec`](Self::recv_vec).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv_vec`](Self::recv_vec).
    pub fn recv_vec_timeout(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_vec(Patience::timeout(timeout))
    }

    fn receive_vec(&self, patience: Patience) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.receive_growing(&mut message, patience)?.map(|_| message))
    }

    /// Blocks until a message arrives, and says how long it is. The message stays. `None`: the peer is gone, and all that
    /// it sent was received.
    ///
    /// Where several hold the socket, another may receive the message before this one does.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), but [`Error::BufferTooSmall`].
    ///
    /// # Platform
    ///
    /// recvmsg(2) with `MSG_PEEK`.
    pub fn peek_len(&self) -> Result<Option<usize>> {
        self.arrive(Patience::Blocking, sys::socket::peek_len)
    }

    pub(super) fn arrive<T>(
        &self,
        patience: Patience,
        mut receive: impl FnMut(BorrowedFd<'_>, bool) -> sys::Result<Option<T>>,
    ) -> Result<Option<T>> {
        let fd = self.end.as_fd();
        let (mut was_shut, mut was_end) = (false, false);
        let mut attempt = |wait| match receive(fd, wait) {
            Err(Errno::AGAIN) if was_shut => Ok(None),
            Err(Errno::AGAIN) if self.connectionless && !wait && sys::socket::receives_no_more(fd)? => {
                was_shut = true;
                Err(Errno::INTR) // at once again: what came just before that is in the queue
            }
            received => received,
        };
        self.loss.receiving(Option::is_none, || {
            loop {
                match patience.persist(&self.end, &self.spin, "recvmsg", POLLIN, &mut attempt)? {
                    // The kernel looks into the queue, then whether the peer is gone: what the peer did in between, a last
                    // message or the loss of ours, is not in this answer. Nothing comes after the end, so a second look misses
                    // nothing.
                    None if !was_end => was_end = true,
                    message => return Ok(message),
                }
            }
        })
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
