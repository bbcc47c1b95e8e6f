//! Many small messages in one datagram, both ways.

mod receive;
mod send;

use std::fmt;

use super::DatagramSocket;
use crate::end::Held;
use crate::error::{Error, FlushError, Result};
use crate::frame::{Batch, HEAD, Pack};
use crate::wait::Patience;

/// So many bytes go in one datagram, where the socket sends as long ones.
const PACK: usize = 32 << 10;

impl DatagramSocket {
    /// Packs many messages into each datagram from here on; the peer does the same. Never blocks.
    ///
    /// Packs are of at most 32 KiB, or of [`max_message`](Self::max_message) if that is less. Settings, such as
    /// [`set_spin`](Self::set_spin), are made before.
    ///
    /// # Examples
    ///
    /// Both sides pack: the bare ends are made and given as ever, and each is packed where it is used.
    ///
    /// ```
    /// let pair = ipc::datagram_pair()?;
    /// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
    ///     let mut socket = socket.packed();
    ///     while let Some(number) = socket.recv()? {
    ///         let sum: u32 = number.iter().map(|byte| u32::from(*byte)).sum();
    ///         socket.send(&sum.to_le_bytes())?; // goes along when there is nothing more to receive
    ///     }
    ///     socket.close()
    /// })?;
    ///
    /// let mut socket = pair.parent.packed();
    /// for _ in 0..1000 {
    ///     socket.send(b"sum me up")?; // a few system calls for all of them
    /// }
    /// for _ in 0..1000 {
    ///     assert_eq!(socket.recv()?, Some(&844_u32.to_le_bytes()[..]));
    /// }
    /// socket.close()?;
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn packed(self) -> PackedSocket {
        // What is no socket, or severed, says so when it is used.
        let size = PACK.min(self.max_message().unwrap_or(PACK));
        PackedSocket { socket: Held::new(self), batch: Batch::new(size), arrived: Pack::new(PACK) }
    }
}

/// A [`DatagramSocket`] that packs many messages into each datagram, which makes small ones many times as fast.
///
/// Made by [`DatagramSocket::packed`], on both sides. What a datagram pair promises holds: a message arrives whole, in
/// order, and never joined with the next; an empty one is a message; `None` is the end. What differs is *when* it goes.
///
/// # When messages go
///
/// What was sent waits in a buffer of this process. It goes to the peer
///
/// - when the next message does not fit the pack any more,
/// - with [`flush`](Self::flush), [`try_flush`](Self::try_flush), [`flush_timeout`](Self::flush_timeout),
/// - before every wait: when a receiving call finds no message that has arrived, and with [`wait`](Self::wait). So a
///   request is under way before its answer is waited for, and nobody has to think of it.
///
/// Whoever sends and then does something else than receive has to flush.
///
/// A receiving call that waits for a message does not insist on flushing first: while the peer's queue is full, it takes
/// what arrives. Two sides that both only *send* wait for each other all the same, as with any queue.
///
/// # The end
///
/// [`close`](Self::close) flushes, closes, and says what went wrong. Dropping does the same and can say nothing; it waits
/// for room for at most a second, and not at all while a panic unwinds. What does not go then is lost.
///
/// # Not an end
///
/// A `PackedSocket` can neither be given to another process nor be looked at by `poll`, on purpose: it is no
/// [`Ends`](crate::Ends) and has no descriptor of its own. Its buffers would be copied by a fork, and what is in them sent
/// twice; and `poll` does not see what has arrived in them. Give the bare socket away, and pack it where it is used; for
/// [`wait_any`](crate::wait_any) there is [`wait`](Self::wait).
///
/// ```compile_fail,E0277
/// let pair = ipc::datagram_pair().unwrap();
/// let packed = pair.child.packed();
/// ipc::fork(packed, |mut packed| packed.send(b"twice?")); // `PackedSocket: Ends` is not satisfied
/// ```
///
/// After a bare fork ([`fork_raw`](crate::fork_raw), or one with [`keep_all_ends`](crate::Fork::keep_all_ends)) both processes have
/// the buffers, so flush before it.
///
/// # Platform
///
/// The format is written down in `docs/packed.md`, for peers that are written in another language.
pub struct PackedSocket {
    socket: Held<DatagramSocket>,
    batch: Batch,
    arrived: Pack,
}

impl PackedSocket {
    /// The longest message that this end sends, in bytes. Never blocks.
    ///
    /// Four less than the [`max_message`](DatagramSocket::max_message) of the socket.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn max_message(&self) -> Result<usize> {
        Ok(self.socket.max_message()?.saturating_sub(HEAD))
    }

    /// The socket. What is sent or received through it goes past the buffers, and is no message of this socket's.
    pub fn get_ref(&self) -> &DatagramSocket {
        &self.socket
    }

    /// Flushes, and gives the socket back. Blocks while the peer's queue is full.
    ///
    /// # Errors
    ///
    /// The error gives the `PackedSocket` back, and `?` turns it into [`Error`].
    ///
    /// - [`Error::Unread`]: messages have arrived in the buffer that were not received. Receive them first, for as long as
    ///   [`has_message`](Self::has_message) says that there are any.
    /// - Else as [`flush`](Self::flush). After [`Error::Closed`] was said once, there is nothing to flush.
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn into_socket(mut self) -> Result<DatagramSocket, FlushError<Self>> {
        let flushed = if self.has_message() { Err(Error::Unread) } else { self.flush_with(Patience::Blocking) };
        match flushed {
            Ok(()) => Ok(self.socket.take()),
            Err(error) => Err(FlushError { unflushed: self, error }),
        }
    }

    /// Flushes and closes, and says what went wrong with either. Blocks while the peer's queue is full.
    ///
    /// Messages that have arrived in the buffer count as received: the peer is not told that nobody looked at them.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush): what waited is lost. To keep it, [`flush`](Self::flush) first. And [`Error::System`] if
    /// somebody else closed the number.
    pub fn close(mut self) -> Result<()> {
        let flushed = self.flush();
        self.batch.clear(); // not again in drop
        flushed.and(self.socket.take().close())
    }
}

impl Drop for PackedSocket {
    fn drop(&mut self) {
        let _ = self.flush_with(Patience::linger()); // who wants to know uses close
    }
}

impl fmt::Debug for PackedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PackedSocket");
        debug.field("socket", &*self.socket).field("unflushed", &self.batch.bytes().len());
        debug.field("arrived", &self.arrived.len()).finish()
    }
}
