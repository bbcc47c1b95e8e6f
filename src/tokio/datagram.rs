//! Both ends of a message pair.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ::tokio::io::Interest;

use super::Watched;
use crate::end::Ends;
use crate::error::{Error, Result};
use crate::socket::{Received, SendError};

/// An end of a [`datagram_pair`](crate::datagram_pair()), for tokio: a [`DatagramSocket`](crate::DatagramSocket) whose messages
/// are awaited.
///
/// **Every call is cancel safe**: a message is sent or received whole, or not at all, whenever its future is dropped. All take
/// `&self`, so one task can send while another receives.
///
/// # Examples
///
/// ```
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let pair = ipc::datagram_pair()?;
/// let parent = ipc::tokio::DatagramSocket::new(pair.parent)?;
/// let child = ipc::tokio::DatagramSocket::new(pair.child)?;
/// parent.send(b"one message").await?;
/// assert_eq!(child.recv_vec().await?.unwrap(), b"one message");
/// drop(parent);
/// assert_eq!(child.recv_vec().await?, None); // the peer is gone
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct DatagramSocket(Watched<crate::socket::DatagramSocket>);

impl DatagramSocket {
    /// Puts the runtime's watch on an end. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`PipeReader::new`](super::PipeReader::new).
    ///
    /// # Panics
    ///
    /// In a runtime whose IO is not enabled.
    ///
    /// # Examples
    ///
    /// See [`DatagramSocket`].
    pub fn new(end: crate::socket::DatagramSocket) -> io::Result<Self> {
        Watched::new(end, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Gives the blocking end back. It works outside of a runtime too.
    ///
    /// # Examples
    ///
    /// See [`PipeReader::into_inner`](super::PipeReader::into_inner).
    #[must_use]
    pub fn into_inner(self) -> crate::socket::DatagramSocket {
        self.0.into_inner()
    }

    /// Waits until there is room for the message, and sends it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is sent whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`DatagramSocket::send`](crate::DatagramSocket::send).
    ///
    /// # Examples
    ///
    /// See [`DatagramSocket`].
    pub async fn send(&self, message: &[u8]) -> Result<()> {
        self.0.call(Interest::WRITABLE, |end| end.try_send(message)).await
    }

    /// Waits until a message arrives, puts it into `buf`, and returns its length. `None`: the peer is gone, and everything that
    /// it sent was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`DatagramSocket::recv`](crate::DatagramSocket::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let pair = ipc::datagram_pair()?;
    /// let child = ipc::tokio::DatagramSocket::new(pair.child)?;
    /// pair.parent.send(b"five!")?; // the other side can be blocking code
    /// let mut buf = [0; 64];
    /// assert_eq!(child.recv(&mut buf).await?, Some(5));
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub async fn recv(&self, buf: &mut [u8]) -> Result<Option<usize>> {
        self.0.call(Interest::READABLE, |end| end.try_recv(buf)).await
    }

    /// Waits until a message of any length arrives, and returns it. `None`: the peer is gone, and everything that it sent
    /// was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`DatagramSocket::recv_vec`](crate::DatagramSocket::recv_vec).
    ///
    /// # Examples
    ///
    /// See [`DatagramSocket`].
    pub async fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.0.call(Interest::READABLE, crate::socket::DatagramSocket::try_recv_vec).await
    }

    /// Waits until there is room, and sends the message with ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if its future is dropped before it completes, nothing was sent. The ends are dropped with it.
    ///
    /// # Errors
    ///
    /// As [`DatagramSocket::send_with`](crate::DatagramSocket::send_with). The ends are given back.
    ///
    /// # Examples
    ///
    /// ```
    /// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let pair = ipc::datagram_pair()?;
    /// let parent = ipc::tokio::DatagramSocket::new(pair.parent)?;
    /// let child = ipc::tokio::DatagramSocket::new(pair.child)?;
    /// let (reader, _writer) = ipc::pipe()?;
    /// parent.send_with(b"take this", reader).await?;
    ///
    /// let mut message = Vec::new();
    /// let mut received = child.recv_with(&mut message).await?.expect("a message");
    /// assert_eq!(message, b"take this");
    /// let reader: ipc::PipeReader = received.take()?;
    /// # Ok::<(), ipc::Error>(())
    /// # })?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub async fn send_with<E: Ends>(&self, message: &[u8], ends: E) -> Result<(), SendError<E>> {
        // By reference, so that they are still here after an attempt that found no room.
        let sent = self.0.call(Interest::WRITABLE, |end| end.try_send_with(message, &ends).map_err(Error::from)).await;
        sent.map_err(|error| SendError { ends, error })
    }

    /// Waits until a message of any length arrives, puts it into `message`, and returns its ends and its sender. `None`:
    /// the peer is gone, and everything that it sent was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken whole, with its ends, or not at all.
    ///
    /// # Errors
    ///
    /// As [`DatagramSocket::recv_with`](crate::DatagramSocket::recv_with).
    ///
    /// # Examples
    ///
    /// See [`send_with`](Self::send_with).
    pub async fn recv_with(&self, message: &mut Vec<u8>) -> Result<Option<Received>> {
        self.0.call(Interest::READABLE, |end| end.try_recv_with(message)).await
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end().as_fd()
    }
}
