//! Many messages in one call: packed into datagrams, and over whatever carries bytes.

mod batch;
mod bytes;
mod frame;
mod packed;
mod reader;
mod writer;

use std::iter::FusedIterator;

#[cfg(feature = "channel")]
pub(crate) use batch::Outlet;
#[cfg(feature = "channel")]
pub(crate) use bytes::Source;
pub use bytes::{ByteReader, ByteWriter};
pub use packed::PackedSocket;
pub use reader::MessageReader;
pub use writer::MessageWriter;

use crate::error::{Error, Result};

/// The messages of a [`PackedSocket`] or a [`MessageReader`], one after the other, each as a vector of its own.
///
/// Made by [`PackedSocket::iter`] and [`MessageReader::iter`], or by a `for` loop over `&mut` of either. `next` blocks until a
/// message arrives, and is `None` at EOF. An error that would come again with the next call ends the iteration too. After
/// [`Error::Malformed`], [`Error::Truncated`] and [`Error::Reset`] it goes on.
///
/// # Examples
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// let mut writer = ipc::MessageWriter::new(writer);
/// writer.send(b"one")?;
/// writer.send(b"two")?;
/// writer.close()?;
///
/// let mut reader = ipc::MessageReader::new(reader);
/// for message in &mut reader {
///     assert_eq!(message?.len(), 3);
/// }
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// The calls have forms that do not block, and forms with a deadline. Of a `MessageWriter` and a `MessageReader`:
///
/// ```
/// use std::time::Duration;
///
/// let (reader, writer) = ipc::pipe()?;
/// let (mut reader, mut writer) = (ipc::MessageReader::new(reader), ipc::MessageWriter::new(writer));
/// let second = Duration::from_secs(1);
/// assert!(matches!(reader.try_recv(), Err(ipc::Error::WouldBlock)));
/// assert!(matches!(reader.recv_timeout(Duration::ZERO), Err(ipc::Error::TimedOut)));
/// assert_eq!(ipc::wait_any(&mut [reader.watch()?], Some(Duration::ZERO))?, 0);
/// assert_eq!(reader.max_message(), 64 << 20);
///
/// writer.try_send(b"one")?;
/// writer.try_flush()?;
/// writer.send_timeout(b"two", second)?;
/// writer.send(b"three")?;
/// writer.flush_timeout(second)?;
/// assert_eq!(reader.recv_vec()?.as_deref(), Some(&b"one"[..]));
/// assert!(reader.has_message()); // read ahead
/// assert_eq!(reader.try_recv_vec()?.as_deref(), Some(&b"two"[..]));
/// assert_eq!(reader.recv_vec_timeout(second)?.as_deref(), Some(&b"three"[..]));
///
/// writer.flush()?;
/// assert!(!writer.get_ref().is_closed()?);
/// assert_eq!(reader.get_ref().capacity()?, writer.get_ref().capacity()?);
/// let bare = reader.into_inner()?; // nothing was read ahead
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// Of a `PackedSocket`:
///
/// ```
/// use std::time::Duration;
///
/// let (ours, theirs) = ipc::datagram_pair()?.into();
/// let (mut ours, mut theirs) = (ipc::PackedSocket::new(ours), ipc::PackedSocket::new(theirs));
/// let second = Duration::from_secs(1);
/// assert!(matches!(theirs.try_recv(), Err(ipc::Error::WouldBlock)));
/// assert!(matches!(theirs.recv_timeout(Duration::ZERO), Err(ipc::Error::TimedOut)));
///
/// ours.try_send(b"one")?;
/// ours.try_flush()?;
/// ours.send_timeout(b"two", second)?;
/// ours.flush_timeout(second)?;
/// ours.send(b"three")?;
/// ours.flush()?;
/// assert_eq!(theirs.recv_vec()?.as_deref(), Some(&b"one"[..]));
/// assert!(!theirs.has_message()); // the next pack was not received yet
/// assert_eq!(theirs.try_recv_vec()?.as_deref(), Some(&b"two"[..]));
/// assert_eq!(theirs.recv_vec_timeout(second)?.as_deref(), Some(&b"three"[..]));
/// assert_eq!(ours.get_ref().peer_credentials()?.pid, std::process::id());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator receives nothing until it is used"]
pub struct Messages<'a, T> {
    from: &'a mut T,
    is_over: bool,
}

impl<'a, T> Messages<'a, T> {
    fn new(from: &'a mut T) -> Self {
        Self { from, is_over: false }
    }

    /// `outlives` says whether a message can follow on [`Error::Malformed`].
    fn next_by(
        &mut self,
        outlives: bool,
        recv: impl FnOnce(&mut T) -> Result<Option<Vec<u8>>>,
    ) -> Option<Result<Vec<u8>>> {
        if self.is_over {
            return None;
        }
        let next = recv(self.from).transpose();
        self.is_over = match &next {
            Some(Err(Error::Malformed { .. })) => !outlives,
            Some(Ok(_) | Err(Error::Truncated { .. } | Error::Reset)) => false,
            Some(Err(_)) | None => true,
        };
        next
    }
}

impl Iterator for Messages<'_, PackedSocket> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_by(true, PackedSocket::recv_vec)
    }
}

impl<R: ByteReader> Iterator for Messages<'_, MessageReader<R>> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_by(false, MessageReader::recv_vec) // a ring is malformed for good
    }
}

impl FusedIterator for Messages<'_, PackedSocket> {}
impl<R: ByteReader> FusedIterator for Messages<'_, MessageReader<R>> {}

impl<'a> IntoIterator for &'a mut PackedSocket {
    type Item = Result<Vec<u8>>;
    type IntoIter = Messages<'a, PackedSocket>;

    fn into_iter(self) -> Self::IntoIter {
        Messages::new(self)
    }
}

impl<'a, R: ByteReader> IntoIterator for &'a mut MessageReader<R> {
    type Item = Result<Vec<u8>>;
    type IntoIter = Messages<'a, MessageReader<R>>;

    fn into_iter(self) -> Self::IntoIter {
        Messages::new(self)
    }
}
