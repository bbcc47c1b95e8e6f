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
/// Made by [`PackedSocket::iter`] and [`MessageReader::iter`], or by a `for` loop over `&mut` of either. `next` blocks
/// until a message arrives, and is `None` at EOF. [`MessageReader::iter`] has an example. An error that would come again with the next call ends the iteration
/// too; after [`Error::Malformed`], [`Error::Truncated`] and [`Error::Reset`] it goes on.
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

    fn next_by(&mut self, recv: impl FnOnce(&mut T) -> Result<Option<Vec<u8>>>) -> Option<Result<Vec<u8>>> {
        if self.is_over {
            return None;
        }
        let next = recv(self.from).transpose();
        self.is_over = match &next {
            Some(Ok(_) | Err(Error::Malformed { .. } | Error::Truncated { .. } | Error::Reset)) => false,
            Some(Err(_)) | None => true,
        };
        next
    }
}

impl Iterator for Messages<'_, PackedSocket> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_by(PackedSocket::recv_vec)
    }
}

impl<R: ByteReader> Iterator for Messages<'_, MessageReader<R>> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_by(MessageReader::recv_vec)
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
