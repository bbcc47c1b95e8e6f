//! A worker's side of orders and answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::turns::{SLICE, Token, Turns, pass_over};
use super::{Arrived, BYE, Engine, GOODBYE, HI, sent, taken};

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

pub(super) fn new(mut engine: Engine) -> Result<(DealerReader, DealerWriter)> {
    let token = Token::random();
    // Waits in the queue until the router is there.
    engine.send(&[b"", &token.word(HI)], Some(Duration::ZERO))?;
    let max = engine.max;
    let shared = Arc::new(Turns::new(Half { engine, token, is_over: false }));
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
        let mut passed = 0;
        loop {
            let left = until.left();
            let arrived = shared.shared.take_turn(|half| {
                if half.is_over {
                    return Ok(None);
                }
                let Some(first) = half.engine.receive(Some(left.map_or(SLICE, |left| left.min(SLICE))))? else {
                    return Ok(Some(None));
                };
                let arrived = half.engine.complete(first)?;
                // A router that was not here when this one said hi does not know which one it is.
                let is_bye = |word: &[u8]| word == BYE || Token::of(word, BYE) == Some(half.token);
                half.is_over = matches!(&arrived, Some(Arrived::Word(word)) if is_bye(word));
                Ok::<_, Error>(Some(arrived))
            })?;
            match arrived {
                None => return Ok(None),
                Some(Some(Arrived::Value(message))) => return taken(&message, max, take),
                Some(Some(Arrived::Word(_))) => pass_over(&mut passed, until)?,
                Some(None) if until.left().is_some_and(|left| left.is_zero()) => return Err(until.error()),
                Some(None) => {}
            }
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
        let send = |half: &mut Half, within| {
            half.engine.check(message.bytes())?;
            half.engine.send(&[message.bytes()], Some(within))
        };
        sent(shared.shared.in_slices(until.left(), send)?, until)
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
        let say = |half: &mut Half, within| half.engine.send(&[b"", &half.token.word(BYE)], Some(within));
        self.shared.in_slices(Some(within), say)
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
