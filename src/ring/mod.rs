//! Shared memory that is used like a pipe: one way, one process at each side.

mod doorbell;
mod half;
mod hello;
mod layout;
mod line;
#[cfg(all(test, ipc_loom))]
mod model;
mod reader;
#[cfg(test)]
mod threads;
mod turn;
mod writer;

use std::fmt;

pub(crate) use half::PIECE;
pub use reader::RingReader;
pub use writer::RingWriter;

use crate::error::{Error, gives_back};
use crate::socket::StreamSocket;

/// A ring that could not be made, and why. The socket is given back.
///
/// `?` turns it into [`Error`] or [`io::Error`](std::io::Error), and closes the socket. `anyhow::Error` and `Box<dyn
/// Error>` take the whole value, and the socket stays open in it: `.map_err(ipc::Error::from)?` closes it first.
///
/// [`RingWriter::with_capacity`] has an example.
pub struct RingError {
    /// The socket, as it was.
    pub socket: StreamSocket,
    /// The cause.
    pub error: Error,
}

impl fmt::Debug for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ring could not be made: {}", self.error)
    }
}

impl std::error::Error for RingError {}

gives_back!(RingError);
