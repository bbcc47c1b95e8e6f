//! The master's side of orders and answers, which go to the worker that was asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::hub::{Answer, Hub, bye};
use super::one_way::address;
use super::turns::{Attempt, SLICE, Token, Turns};
use super::{Engine, GOODBYE, taken};

/// Routes each message to its worker. Clones are the same router. The example `count_words_cluster` has one.
///
/// [`accept`](Self::accept) returns the two links of a worker that has connected. While 1024 wait to be accepted, a worker
/// that connects is told goodbye: its orders are at EOF, and its answers are dropped.
#[derive(Clone)]
pub struct Router {
    hub: Arc<Turns<Hub>>,
    /// How often a worker that is waited for is asked whether it is there.
    question: Duration,
    /// The longest message, in bytes.
    max: usize,
}

impl Router {
    pub(super) fn new(engine: Engine, question: Duration, max_waiting: usize) -> Result<Self> {
        let max = engine.max;
        Ok(Self { hub: Arc::new(Turns::new(Hub::new(engine, max_waiting))?), question, max })
    }

    /// Returns the address that it is bound to, with the port that the kernel chose. The example `count_words_cluster`
    /// takes its port from there.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: the error of libzmq.
    pub fn address(&self) -> Result<String> {
        self.hub.take_turn(|hub| address(&hub.engine))
    }

    /// Blocks until a worker of a new name has connected or the time is up, and returns its name and its two links. The
    /// example `count_words_cluster` accepts its workers so.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: none came.
    pub fn accept(&self, timeout: Duration) -> Result<(String, RouterReader, RouterWriter)> {
        let newcomer = self.hub.attempt(Some(timeout), Duration::MAX, |hub| {
            let has_come = hub.pump()?;
            Ok(match hub.newcomers.pop_front() {
                Some((name, number)) => {
                    let token = hub.workers.get(&number).and_then(|worker| worker.token);
                    Attempt::Done((name, number, token))
                }
                None if has_come => Attempt::Passed,
                None => Attempt::Nothing,
            })
        })?;
        let (name, number, token) = newcomer.ok_or(Error::TimedOut)?;
        let shown = String::from_utf8_lossy(&name).into_owned();
        let reader = RouterReader { router: self.clone(), name: name.clone(), number };
        let writer = RouterWriter { router: self.clone(), name, number, token, has_finished: false };
        Ok((shown, reader, writer))
    }
}

/// The answers of one worker. A [`Link`] for a [`Receiver`](ipc::Receiver), returned by [`Router::accept`].
///
/// It is at EOF when the worker's sender is closed. A worker that was killed, or whose machine vanished, is [`Error::Closed`]
/// after its answers. The error comes at once, or after the deadline of the [`Options`](super::Options) or somewhat later.
///
/// The calls on one link take the answers of all workers from libzmq, and keep those of the others until these are
/// received. An answer takes its length and 64 bytes more. There is room for 64 MiB of each worker, and for
/// [`max_waiting`](super::Options::max_waiting) of all. A worker over the first loses the answer that came, and one over the
/// second its last ones. All later ones are lost too. Its reader returns those before, and then [`Error::System`] with
/// `ENOBUFS` for good, which says which of the two it was. So receive from a worker that answers much, or ask for less at a time.
///
/// Dropping it forgets the worker. A worker that comes back under the name of one that said goodbye is accepted again. So
/// is one under the name of a worker that was forgotten.
pub struct RouterReader {
    router: Router,
    name: Vec<u8>,
    number: u64,
}

/// The orders for one worker. A [`Link`] for a [`Sender`](ipc::Sender), returned by [`Router::accept`].
///
/// Sending is [`Error::Closed`] when the worker is not connected any more. Dropping it says goodbye to the worker if there is room
/// in its queue. Closing waits for room for a second, and is [`Error::TimedOut`] if there is none. A worker that came back under
/// the name of this one does not take that goodbye for its own.
pub struct RouterWriter {
    router: Router,
    name: Vec<u8>,
    number: u64,
    token: Option<Token>,
    has_finished: bool,
}

impl Link for RouterReader {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn recv<R>(shared: &Self, max: usize, until: Until, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        let question = shared.router.question;
        let answer = shared.router.hub.attempt(until.left(), question, |hub| {
            if let Some(answer) = hub.next(shared.number)? {
                return Ok(Attempt::Done(answer));
            }
            hub.ask(&shared.name, shared.number, question)?;
            let has_come = hub.pump()?;
            Ok(match hub.next(shared.number)? {
                Some(answer) => Attempt::Done(answer),
                None if has_come => Attempt::Passed,
                None => Attempt::Nothing,
            })
        })?;
        match answer.ok_or_else(|| until.error())? {
            Answer::Eof => Ok(None),
            Answer::Value(message) => taken(&message, max, take),
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Incoming for RouterReader {
    fn limit(&self) -> usize {
        self.router.max
    }
}

impl Link for RouterWriter {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(shared: &Self, message: Outbound<'_>, until: Until) -> Result<()> {
        let sent = shared.router.hub.attempt(until.left(), SLICE, |hub| {
            hub.engine.check(message.bytes())?;
            if hub.names.get(&shared.name).is_some_and(|number| *number != shared.number) {
                return Err(Error::Closed); // it left, and another one has its name
            }
            if hub.engine.send(&[&shared.name, message.bytes()], Some(Duration::ZERO))? {
                return Ok(Attempt::Done(()));
            }
            hub.look_for_the_gone()?;
            Ok(Attempt::Nothing)
        })?;
        sent.ok_or_else(|| until.error())
    }

    fn close(mut self) -> Result<()> {
        match self.say_goodbye(GOODBYE) {
            Ok(true) | Err(Error::Closed) => Ok(()), // no worker is left to say it to
            Ok(false) => Err(Error::TimedOut),
            Err(error) => Err(error),
        }
    }
}

impl RouterWriter {
    /// `Ok(false)`: there is no room within the time.
    fn say_goodbye(&mut self, within: Duration) -> Result<bool> {
        self.has_finished = true;
        let (name, number, token) = (&self.name, self.number, self.token);
        let said = self.router.hub.attempt(Some(within), SLICE, |hub| {
            let token = hub.workers.get(&number).map_or(token, |worker| worker.token);
            let is_said = hub.engine.send(&[name, b"", &bye(token)], Some(Duration::ZERO))?;
            Ok(if is_said { Attempt::Done(()) } else { Attempt::Nothing })
        })?;
        Ok(said.is_some())
    }
}

impl Outgoing for RouterWriter {}

impl Drop for RouterReader {
    fn drop(&mut self) {
        self.router.hub.take_turn(|hub| hub.leave(&self.name, self.number));
    }
}

impl Drop for RouterWriter {
    fn drop(&mut self) {
        if !self.has_finished {
            let _ = self.say_goodbye(Duration::ZERO); // to see the error, close
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

impl fmt::Debug for RouterReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouterReader").field(&String::from_utf8_lossy(&self.name)).finish()
    }
}

impl fmt::Debug for RouterWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouterWriter").field(&String::from_utf8_lossy(&self.name)).finish()
    }
}
