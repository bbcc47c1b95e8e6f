//! A worker's side of orders and answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::turns::{Attempt, SLICE, Shared, Token, Turns};
use super::{Arrived, BYE, Engine, GOODBYE, HI, taken};

/// The orders for this worker. A [`Link`] for a [`Receiver`](ipc::Receiver). The example `count_words_cluster` has one in
/// each worker.
///
/// It is at EOF when the router's [`RouterWriter`](super::RouterWriter) for this worker is closed or dropped.
///
/// It waits for a router that was killed, since that may come back. For a limit, use
/// [`recv_timeout`](ipc::Receiver::recv_timeout).
pub struct DealerReader {
    shared: Arc<Turns<Half>>,
    max: usize,
}

/// The answers of this worker. A [`Link`] for a [`Sender`](ipc::Sender). The example `count_words_cluster` has one in each
/// worker.
///
/// Dropping it says goodbye if there is room in the queue. Closing waits for room for a second, and is
/// [`Error::TimedOut`] if there is none.
pub struct DealerWriter {
    shared: Arc<Turns<Half>>,
    has_finished: bool,
}

struct Half {
    engine: Engine,
    token: Token,
    is_over: bool,
}

impl Half {
    fn send(&mut self, parts: &[&[u8]]) -> Result<Attempt<()>> {
        let is_sent = self.engine.send(parts, Some(Duration::ZERO))?;
        Ok(if is_sent { Attempt::Done(()) } else { Attempt::Nothing })
    }
}

impl Shared for Half {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A message is for the call that took it. EOF is for all.
    fn has_news(&mut self) -> bool {
        self.is_over
    }
}

pub(super) fn new(mut engine: Engine) -> Result<(DealerReader, DealerWriter)> {
    let token = Token::random();
    // Waits in the queue until the router is there.
    engine.send(&[b"", &token.word(HI)], Some(Duration::ZERO))?;
    let max = engine.max;
    let shared = Arc::new(Turns::new(Half { engine, token, is_over: false })?);
    Ok((DealerReader { shared: Arc::clone(&shared), max }, DealerWriter { shared, has_finished: false }))
}

impl Link for DealerReader {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn recv<R>(shared: &Self, max: usize, until: Until, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        let order = shared.shared.attempt(until.left(), Duration::MAX, |half| {
            if half.is_over {
                return Ok(Attempt::Done(None));
            }
            let Some(first) = half.engine.receive(Some(Duration::ZERO))? else { return Ok(Attempt::Nothing) };
            let arrived = half.engine.complete(first)?;
            // A router that was not here when this one said hi does not know which one it is.
            let is_bye = |word: &[u8]| word == BYE || Token::of(word, BYE) == Some(half.token);
            half.is_over = matches!(&arrived, Some(Arrived::Word(word)) if is_bye(word));
            Ok(match arrived {
                Some(Arrived::Value(message)) => Attempt::Done(Some(message)),
                Some(Arrived::Word(_)) | None => Attempt::Passed,
            })
        })?;
        match order.ok_or_else(|| until.error())? {
            Some(message) => taken(&message, max, take),
            None => Ok(None),
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Incoming for DealerReader {
    fn limit(&self) -> usize {
        self.max
    }
}

impl Link for DealerWriter {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(shared: &Self, message: Outbound<'_>, until: Until) -> Result<()> {
        let sent = shared.shared.attempt(until.left(), SLICE, |half| {
            half.engine.check(message.bytes())?;
            half.send(&[message.bytes()])
        })?;
        sent.ok_or_else(|| until.error())
    }

    fn close(mut self) -> Result<()> {
        match self.say_goodbye(GOODBYE)? {
            true => Ok(()),
            false => Err(Error::TimedOut),
        }
    }
}

impl DealerWriter {
    /// `Ok(false)`: there is no room within the time.
    fn say_goodbye(&mut self, within: Duration) -> Result<bool> {
        self.has_finished = true;
        let said = self.shared.attempt(Some(within), SLICE, |half| half.send(&[b"", &half.token.word(BYE)]))?;
        Ok(said.is_some())
    }
}

impl Outgoing for DealerWriter {}

impl Drop for DealerWriter {
    fn drop(&mut self) {
        if !self.has_finished {
            let _ = self.say_goodbye(Duration::ZERO); // to see the error, close
        }
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
