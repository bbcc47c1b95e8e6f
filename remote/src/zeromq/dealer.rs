//! A worker's side of orders and answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::router::{SLICE, Turns};
use super::{Arrived, BYE, Engine, HI, NO_WAY, sent, taken};

/// The orders for this worker. A [`Link`] for a [`Receiver`](ipc::Receiver). It is at EOF when the router's
/// [`RouterWriter`](super::RouterWriter) for this worker is closed or dropped.
///
/// A router that was killed is waited for, since it may come back: for a limit, use
/// [`recv_timeout`](ipc::Receiver::recv_timeout).
pub struct DealerReader(Arc<Turns<Half>>);

/// The answers of this worker. A [`Link`] for a [`Sender`](ipc::Sender).
pub struct DealerWriter(Arc<Turns<Half>>);

struct Half {
    engine: Engine,
    is_over: bool,
}

pub(super) fn new(mut engine: Engine) -> Result<(DealerReader, DealerWriter)> {
    // Waits in the queue until the router is there.
    engine.send(&[b"", HI], Some(Duration::ZERO))?;
    let shared = Arc::new(Turns::new(Half { engine, is_over: false }));
    Ok((DealerReader(Arc::clone(&shared)), DealerWriter(shared)))
}

impl Link for DealerReader {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(_: &Self, _: Outbound<'_>, _: Until) -> Result<()> {
        Err(NO_WAY)
    }

    fn recv<R>(shared: &Self, max: usize, until: Until, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        loop {
            let left = until.left();
            let arrived = shared.0.take_turn(|half| {
                if half.is_over {
                    return Ok(None);
                }
                let Some(first) = half.engine.receive(Some(left.map_or(SLICE, |left| left.min(SLICE))))? else {
                    return Ok(Some(None));
                };
                let arrived = half.engine.complete(first)?;
                half.is_over = matches!(&arrived, Some(Arrived::Word(word)) if **word == *BYE);
                Ok::<_, Error>(Some(arrived))
            })?;
            match arrived {
                None => return Ok(None),
                Some(Some(Arrived::Value(message))) => return taken(&message, max, take),
                Some(Some(Arrived::Word(_))) => {}
                Some(None) if until.left().is_some_and(|left| left.is_zero()) => return Err(until.error()),
                Some(None) => {}
            }
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Incoming for DealerReader {}

impl Link for DealerWriter {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(shared: &Self, message: Outbound<'_>, until: Until) -> Result<()> {
        shared.0.take_turn(|half| {
            half.engine.check(message.bytes())?;
            sent(half.engine.send(&[message.bytes()], until.left())?, until)
        })
    }

    fn recv<R>(_: &Self, _: usize, _: Until, _: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        Err(NO_WAY)
    }

    fn close(self) -> Result<()> {
        Ok(()) // dropping it says goodbye
    }
}

impl Outgoing for DealerWriter {}

impl Drop for DealerWriter {
    fn drop(&mut self) {
        let _ = self.0.take_turn(|half| half.engine.send(&[b"", BYE], Some(Duration::ZERO)));
    }
}

impl fmt::Debug for DealerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DealerReader")
    }
}

impl fmt::Debug for DealerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DealerWriter")
    }
}
