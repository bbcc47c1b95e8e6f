//! The links of a connection, one for each direction.

use std::fmt;

use super::half::Half;
use crate::channel::link::{Incoming, Link, Outbound, Outgoing};
use crate::channel::locked::Locked;
use crate::error::{Error, Result};
use crate::framed::{MessageReader, MessageWriter};
use crate::socket::Received;
use crate::wait::{Until, Watch};

/// The two directions of a connection to another machine. Made by [`TcpOptions`](crate::TcpOptions), which has an example.
///
/// The connection lasts until both are gone. When the writer is gone, the peer receives EOF. When only the reader is gone,
/// the peer is not told, and its values fill the connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct TcpLink {
    /// Makes a [`Receiver`](crate::Receiver).
    pub reader: TcpReader,
    /// Makes a [`Sender`](crate::Sender).
    pub writer: TcpWriter,
}

/// The receiving side of a connection to another machine: a [`Link`] for a [`Receiver`](crate::Receiver). See
/// [`TcpOptions`](crate::TcpOptions) for an example.
///
/// EOF means that the peer's [`Sender`](crate::Sender) is gone, or its process. [`TcpOptions`](crate::TcpOptions) says how
/// the loss of a machine is noticed.
///
/// [`watch`](crate::Receiver::watch) wakes when a value comes, and at the end of an idle peer. While values of this side
/// are under way, only a call that receives or sends checks for the peer: wake for one now and then.
pub struct TcpReader {
    pub(super) reader: MessageReader<Half>,
    pub(super) longest: usize,
}

/// The sending side of a connection to another machine: a [`Link`] for a [`Sender`](crate::Sender). See
/// [`TcpOptions`](crate::TcpOptions) for an example.
///
/// Values wait in a buffer of 68 KiB until [`flush`](crate::Sender::flush), and go when that is full. A value with ends is
/// refused ([`Error::CannotCarry`]), as is one over the peer's limit ([`Error::TooLong`]).
pub struct TcpWriter {
    pub(super) writer: MessageWriter<Half>,
    pub(super) longest: usize,
}

/// A half, as a channel keeps it, with the longest message that goes that way.
#[derive(Debug)]
pub struct Limited<L> {
    link: Locked<L>,
    longest: usize,
}

impl Link for TcpReader {
    type Shared = Limited<MessageReader<Half>>;

    const OUTLIVES_MALFORMED: bool = false;

    fn share(self) -> Self::Shared {
        Limited { link: self.reader.share(), longest: self.longest }
    }

    fn unshare(shared: Self::Shared) -> Self {
        Self { reader: MessageReader::unshare(shared.link), longest: shared.longest }
    }

    #[inline]
    fn recv<T>(
        shared: &Self::Shared,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> T,
    ) -> Result<Option<T>> {
        <MessageReader<Half> as Link>::recv(&shared.link, max.min(shared.longest), until, take)
    }

    fn watch(shared: &mut Self::Shared) -> Result<Watch<'_>> {
        <MessageReader<Half> as Link>::watch(&mut shared.link)
    }

    fn close(self) -> Result<()> {
        self.reader.close()
    }
}

impl Incoming for TcpReader {
    fn limit(&self) -> usize {
        self.longest
    }
}

impl Link for TcpWriter {
    type Shared = Limited<MessageWriter<Half>>;

    fn share(self) -> Self::Shared {
        Limited { link: self.writer.share(), longest: self.longest }
    }

    fn unshare(shared: Self::Shared) -> Self {
        Self { writer: MessageWriter::unshare(shared.link), longest: shared.longest }
    }

    #[inline]
    fn send(shared: &Self::Shared, message: Outbound<'_>, until: Until) -> Result<()> {
        if message.bytes().len() > shared.longest {
            return Err(Error::TooLong { len: message.bytes().len(), max: shared.longest });
        }
        <MessageWriter<Half> as Link>::send(&shared.link, message, until)
    }

    fn flush(shared: &Self::Shared, until: Until) -> Result<()> {
        let mut writer = shared.link.lock(until)?;
        writer.flush_until(until.0)?;
        writer.outlet().flush_until(until)
    }

    fn close(self) -> Result<()> {
        self.writer.close()
    }
}

impl Outgoing for TcpWriter {}

impl fmt::Debug for TcpReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpReader").field(&self.reader).finish()
    }
}

impl fmt::Debug for TcpWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpWriter").field(&self.writer).finish()
    }
}
