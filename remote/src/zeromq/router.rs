//! The master's side of orders and answers, which go to the worker that was asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::one_way::address;
use super::turns::{PASSED_OVER, SLICE, Token, Turns, pass_over};
use super::{Arrived, BYE, Engine, GOODBYE, HI, NO_WAY, sent, taken};

/// The most workers that one router knows, and the most answers of one that wait. A worker that is over it is dropped.
const WORKERS: usize = 1024;
const ANSWERS: usize = 1024;

/// Routes each message to its worker. Clones are the same router. The example `count_words_cluster` has one.
///
/// [`accept`](Self::accept) returns the two links of a worker that has connected.
#[derive(Clone)]
pub struct Router {
    hub: Arc<Turns<Hub>>,
    /// How often a worker that is waited for is asked whether it is there.
    question: Duration,
}

struct Hub {
    engine: Engine,
    workers: HashMap<Vec<u8>, Worker>,
    newcomers: VecDeque<Vec<u8>>,
    /// How many have been met.
    met: u64,
}

struct Worker {
    /// `None`: it had said hi to a router that was here before.
    token: Option<Token>,
    /// How many were met up to this one. The links of a worker that left say nothing to the next of its name.
    number: u64,
    answers: VecDeque<Answer>,
    /// Whether its reader was dropped: its messages are dropped too.
    is_left: bool,
}

impl Worker {
    fn says_bye(&self, bye: Option<Token>) -> bool {
        bye.is_some() && (self.token.is_none() || self.token == bye)
    }
}

enum Answer {
    Value(zmq::Message),
    Bye,
}

impl Hub {
    /// Takes one message, if one comes within the time, and puts it where it belongs. `Ok(false)`: none came.
    fn pump(&mut self, within: Duration) -> Result<bool> {
        let Some(name) = self.engine.receive(Some(within))? else { return Ok(false) };
        if !name.get_more() {
            return Ok(true);
        }
        let Some(first) = self.engine.receive(None)? else { return Ok(true) };
        let Some(arrived) = self.engine.complete(first)? else { return Ok(true) };
        let (hi, bye) = match &arrived {
            Arrived::Word(word) => (Token::of(word, HI), Token::of(word, BYE)),
            Arrived::Value(_) => (None, None),
        };
        match (self.workers.get_mut(&*name), hi) {
            (Some(worker), None) if worker.is_left => {
                if worker.says_bye(bye) {
                    self.workers.remove(&*name);
                }
                return Ok(true);
            }
            // It has taken the other one's place.
            (Some(worker), Some(_)) if !worker.is_left => worker.token = hi,
            (Some(_), None) => {}
            (None, None) if bye.is_some() => return Ok(true),
            _ => self.meet(&name, hi),
        }
        let Some(worker) = self.workers.get_mut(&*name) else { return Ok(true) };
        let says_bye = worker.says_bye(bye);
        let answers = &mut worker.answers;
        match arrived {
            _ if answers.len() > ANSWERS => {}
            _ if answers.len() == ANSWERS => answers.push_back(Answer::Bye),
            Arrived::Value(value) => answers.push_back(Answer::Value(value)),
            Arrived::Word(_) if says_bye => answers.push_back(Answer::Bye),
            Arrived::Word(_) => {}
        }
        Ok(true)
    }

    /// Takes up a worker, if there are not too many.
    fn meet(&mut self, name: &[u8], token: Option<Token>) {
        if self.workers.len() >= WORKERS {
            self.forget_the_gone();
        }
        if self.workers.len() >= WORKERS {
            return;
        }
        self.met += 1;
        let worker = Worker { token, number: self.met, answers: VecDeque::new(), is_left: false };
        self.workers.insert(name.to_vec(), worker);
        self.newcomers.push_back(name.to_vec());
    }

    /// Takes messages, as long as there is room for them: libzmq sees that a worker is gone when it has handed out the last one of
    /// it. Until then it takes one whose queue is full for one that is slow.
    fn look_for_the_gone(&mut self) -> Result<()> {
        for _ in 0..PASSED_OVER {
            let has_room = self.workers.values().all(|worker| worker.answers.len() < ANSWERS / 2);
            if !has_room || !self.pump(Duration::ZERO)? {
                break;
            }
        }
        Ok(())
    }

    /// Forgets a worker whose reader was dropped: at once if it said goodbye, or else when it does or is gone. Until then it would
    /// be a newcomer with each answer that is still under way.
    fn leave(&mut self, name: &[u8]) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        if worker.answers.iter().any(|answer| matches!(answer, Answer::Bye)) || self.engine.is_gone(name) {
            self.workers.remove(name);
        } else {
            worker.answers = VecDeque::new();
            worker.is_left = true;
        }
    }

    /// Forgets the workers that have no reader and left without a goodbye.
    fn forget_the_gone(&mut self) {
        let Self { engine, workers, .. } = self;
        workers.retain(|name, worker| !worker.is_left || !engine.is_gone(name));
    }
}

impl Router {
    pub(super) fn new(engine: Engine, question: Duration) -> Self {
        let hub = Hub { engine, workers: HashMap::new(), newcomers: VecDeque::new(), met: 0 };
        Self { hub: Arc::new(Turns::new(hub)), question }
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
                let Some(name) = hub.newcomers.pop_front() else { return Ok(None) };
                let worker = hub.workers.get(&name).map(|worker| (worker.number, worker.token));
                Ok::<_, Error>(worker.map(|(number, token)| (name, number, token)))
            })?;
            if let Some((name, number, token)) = newcomer {
                let shown = String::from_utf8_lossy(&name).into_owned();
                let reader = RouterReader { router: self.clone(), name: name.clone() };
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
/// Dropping it forgets the worker. A worker that comes back under the name of one that left is accepted again then.
pub struct RouterReader {
    router: Router,
    name: Vec<u8>,
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

    fn send(_: &Self, _: Outbound<'_>, _: Until) -> Result<()> {
        Err(NO_WAY)
    }

    fn recv<R>(shared: &Self, max: usize, until: Until, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        let mut asked = Instant::now();
        let mut passed = 0;
        loop {
            let left = until.left();
            let (answer, has_come) = shared.router.hub.take_turn(|hub| {
                let waiting = |hub: &mut Hub| {
                    let answers = &mut hub.workers.get_mut(&shared.name)?.answers;
                    match answers.front() {
                        Some(Answer::Bye) => Some(Answer::Bye), // it stays
                        Some(Answer::Value(_)) => answers.pop_front(),
                        None => None,
                    }
                };
                if let Some(answer) = waiting(hub) {
                    return Ok((Some(answer), true));
                }
                if asked.elapsed() >= shared.router.question {
                    asked = Instant::now();
                    hub.engine.send(&[&shared.name, b"", HI], Some(Duration::ZERO))?; // `Closed`, if it is gone
                }
                let has_come = hub.pump(left.map_or(SLICE, |left| left.min(SLICE)))?;
                Ok::<_, Error>((waiting(hub), has_come))
            })?;
            match answer {
                Some(Answer::Bye) => return Ok(None),
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

impl Incoming for RouterReader {}

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
            if hub.workers.get(&shared.name).is_some_and(|worker| worker.number != shared.number) {
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

    fn recv<R>(_: &Self, _: usize, _: Until, _: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        Err(NO_WAY)
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
            let token = match hub.workers.get(name) {
                Some(worker) if worker.number == number => worker.token,
                _ => token,
            };
            let bye = token.map_or_else(|| BYE.to_vec(), |token| token.word(BYE));
            hub.engine.send(&[name, b"", &bye], Some(within))
        };
        self.router.hub.in_slices(Some(within), say)
    }
}

impl Outgoing for RouterWriter {}

impl Drop for RouterReader {
    fn drop(&mut self) {
        self.router.hub.take_turn(|hub| hub.leave(&self.name));
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
