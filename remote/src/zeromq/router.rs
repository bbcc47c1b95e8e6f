//! The master's side of orders and answers, which go to the worker that was asked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::hub::{Answer, Hub, bye};
use super::one_way::address;
use super::turns::{SLICE, Token, Turns, pass_over};
use super::{Engine, GOODBYE, sent, taken};

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
    pub(super) fn new(engine: Engine, question: Duration) -> Self {
        let max = engine.max;
        Self { hub: Arc::new(Turns::new(Hub::new(engine))), question, max }
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
        let started = Instant::now();
        loop {
            let newcomer = self.hub.take_turn(|hub| {
                hub.pump(if hub.newcomers.is_empty() { SLICE } else { Duration::ZERO })?;
                let Some((name, number)) = hub.newcomers.pop_front() else { return Ok(None) };
                let token = hub.workers.get(&number).and_then(|worker| worker.token);
                Ok::<_, Error>(Some((name, number, token)))
            })?;
            if let Some((name, number, token)) = newcomer {
                let shown = String::from_utf8_lossy(&name).into_owned();
                let reader = RouterReader { router: self.clone(), name: name.clone(), number };
                let writer = RouterWriter { router: self.clone(), name, number, token, has_finished: false };
                return Ok((shown, reader, writer));
            }
            if started.elapsed() >= timeout {
                return Err(Error::TimedOut);
            }
        }
    }
}

/// The answers of one worker. A [`Link`] for a [`Receiver`](ipc::Receiver), returned by [`Router::accept`].
///
/// It is at EOF when the worker's sender is closed. A worker that was killed, or whose machine vanished, is [`Error::Closed`]
/// after its answers: at once, or after the deadline of the [`Options`](super::Options) or somewhat later.
///
/// The calls on one link take the answers of all workers from libzmq, and keep those of the others until these are
/// received. For each worker there is room for 64 MiB of them, of which an answer takes its length and 64 bytes more. One
/// that is over it is lost, and so are all later ones. The worker's reader returns those before it, and then
/// [`Error::System`] with `ENOBUFS` for good. So receive from a worker that answers much, or ask for less at a time.
///
/// Dropping it forgets the worker. A worker that comes back under the name of one that said goodbye is accepted again, as
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
        let mut passed = 0;
        loop {
            let left = until.left();
            let (answer, has_come) = shared.router.hub.take_turn(|hub| {
                if let Some(answer) = hub.worker(shared.number)?.next()? {
                    return Ok((Some(answer), true));
                }
                hub.ask(&shared.name, shared.number, shared.router.question)?;
                let has_come = hub.pump(left.map_or(SLICE, |left| left.min(SLICE)))?;
                Ok::<_, Error>((hub.worker(shared.number)?.next()?, has_come))
            })?;
            match answer {
                Some(Answer::Eof) => return Ok(None),
                Some(Answer::Value(message)) => return taken(&message, max, take),
                None if has_come => pass_over(&mut passed, until)?,
                None if until.left().is_some_and(|left| left.is_zero()) => return Err(until.error()),
                None => {}
            }
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
        let send = |hub: &mut Hub, within| {
            hub.engine.check(message.bytes())?;
            if hub.names.get(&shared.name).is_some_and(|number| *number != shared.number) {
                return Err(Error::Closed); // it left, and another one has its name
            }
            let is_sent = hub.engine.send(&[&shared.name, message.bytes()], Some(within))?;
            if !is_sent {
                hub.look_for_the_gone()?;
            }
            Ok(is_sent)
        };
        sent(shared.router.hub.in_slices(until.left(), send)?, until)
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
        let say = |hub: &mut Hub, within| {
            let token = hub.workers.get(&number).map_or(token, |worker| worker.token);
            hub.engine.send(&[name, b"", &bye(token)], Some(within))
        };
        self.router.hub.in_slices(Some(within), say)
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
