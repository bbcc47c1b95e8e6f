//! Links with a buffer: packed datagrams, and messages in a stream of bytes. None of them carries ends.

use super::buffer::Buffer;
use super::link::{Incoming, Link, Outbound, Outgoing};
use super::locked::Locked;
use crate::error::{Error, Result};
use crate::framed::{ByteReader, ByteWriter, MessageReader, MessageWriter, PackedSocket};
use crate::socket::Received;
use crate::wait::{Until, Watch};

/// Both ways: one call at a time.
impl Link for PackedSocket {
    type Shared = Locked<Self>;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    #[inline]
    fn send(shared: &Locked<Self>, message: Outbound<'_>, until: Until) -> Result<()> {
        shared.lock(until)?.send_by(message.bytes(), || until.0)
    }

    #[inline]
    fn recv<R>(
        shared: &Locked<Self>,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> R,
    ) -> Result<Option<R>> {
        let mut buffer = Buffer::new();
        // One that there is no memory for stays. One that is too long does not.
        let copy = |message: &[u8]| match message.len() {
            len if len > max => Ok(Err(Error::TooLong { len, max })),
            _ => buffer.try_extend(message).map(Ok),
        };
        let Some(copied) = shared.lock(until)?.receive_by(until, copy)? else { return Ok(None) };
        copied?;
        Ok(Some(take(buffer.as_slice(), Received::default())))
    }

    fn flush(shared: &Locked<Self>, until: Until) -> Result<()> {
        shared.lock(until)?.flush_until(until.0)
    }

    fn watch(shared: &mut Locked<Self>) -> Result<Watch<'_>> {
        shared.get_mut().watch()
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Outgoing for PackedSocket {}
impl Incoming for PackedSocket {}

impl<W: ByteWriter> Link for MessageWriter<W> {
    type Shared = Locked<Self>;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    #[inline]
    fn send(shared: &Locked<Self>, message: Outbound<'_>, until: Until) -> Result<()> {
        shared.lock(until)?.send_by(message.bytes(), || until.0)
    }

    fn flush(shared: &Locked<Self>, until: Until) -> Result<()> {
        shared.lock(until)?.flush_until(until.0)
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl<W: ByteWriter> Outgoing for MessageWriter<W> {}

impl<R: ByteReader> Link for MessageReader<R> {
    type Shared = Locked<Self>;

    /// It is the hello or the counters of a ring, or the hello of a connection, and comes again.
    const OUTLIVES_MALFORMED: bool = false;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    #[inline]
    fn recv<T>(
        shared: &Locked<Self>,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> T,
    ) -> Result<Option<T>> {
        let mut buffer = Buffer::new();
        let mut reader = shared.lock(until)?;
        reader.set_max_message(max);
        match reader.receive_by(until, |message| buffer.try_extend(message)) {
            Ok(Some(())) => {}
            Ok(None) => return Ok(None),
            // It would come again, and an iterator takes `TooLong` for one value.
            Err(Error::TooLong { .. }) if !reader.skip() => {
                let what = "the ring is larger than its reader maps: see `RingReader::set_max_capacity`";
                return Err(Error::InvalidInput { what });
            }
            Err(error) => return Err(error),
        }
        drop(reader);
        Ok(Some(take(buffer.as_slice(), Received::default())))
    }

    fn watch(shared: &mut Locked<Self>) -> Result<Watch<'_>> {
        shared.get_mut().watch()
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl<R: ByteReader> Incoming for MessageReader<R> {
    fn limit(&self) -> usize {
        self.max_message()
    }
}
