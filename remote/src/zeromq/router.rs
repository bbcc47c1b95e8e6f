//! The master's side of orders and answers, which go to the worker that was asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ipc::{Error, Incoming, Link, Outbound, Outgoing, Received, Result, Until};

use super::one_way::address;
use super::{Arrived, BYE, Engine, HI, NO_WAY, sent, taken};

/// How long a call that receives keeps the socket from others.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// How many workers one router knows, and how many answers of one wait. A worker that is over it is dropped.
const WORKERS: usize = 1024;
const ANSWERS: usize = 1024;

/// A socket that several threads use, one after the other. Whoever waits is let in before another turn of the same thread.
pub(super) struct Turns<T> {
    inner: Mutex<T>,
    waiting: AtomicUsize,
}

impl<T> Turns<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner: Mutex::new(inner), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn take_turn<R>(&self, turn: impl FnOnce(&mut T) -> R) -> R {
        self.waiting.fetch_add(1, SeqCst);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, SeqCst);
        let result = turn(&mut inner);
        drop(inner);
        if self.waiting.load(SeqCst) > 0 {
            thread::yield_now();
        }
        result
    }
}

/// Knows many workers, and sends each what is for it. Clones are the same router.
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
}

#[derive(Default)]
struct Worker {
    answers: VecDeque<Answer>,
    /// Whether its reader was dropped: what it still says is for nobody.
    is_left: bool,
}

enum Answer {
    Value(zmq::Message),
    Bye,
}

impl Hub {
    /// Takes one message, if one comes within the time, and puts it where it belongs.
    fn pump(&mut self, within: Duration) -> Result<()> {
        let Some(name) = self.engine.receive(Some(within))? else { return Ok(()) };
        if !name.get_more() {
            return Ok(());
        }
        let Some(first) = self.engine.receive(None)? else { return Ok(()) };
        let Some(arrived) = self.engine.complete(first)? else { return Ok(()) };
        let is_hi = matches!(&arrived, Arrived::Word(word) if **word == *HI);
        let is_bye = matches!(&arrived, Arrived::Word(word) if **word == *BYE);
        match self.workers.get(&*name) {
            Some(worker) if worker.is_left && is_bye => {
                self.workers.remove(&*name);
                return Ok(());
            }
            Some(worker) if worker.is_left && !is_hi => return Ok(()),
            Some(worker) if !worker.is_left => {}
            None if is_bye => return Ok(()),
            _ => {
                if self.workers.len() >= WORKERS {
                    self.forget_the_gone();
                }
                if self.workers.len() >= WORKERS {
                    return Ok(());
                }
                self.workers.insert(name.to_vec(), Worker::default());
                self.newcomers.push_back(name.to_vec());
            }
        }
        let Some(Worker { answers, .. }) = self.workers.get_mut(&*name) else { return Ok(()) };
        match arrived {
            _ if answers.len() > ANSWERS => {}
            _ if answers.len() == ANSWERS => answers.push_back(Answer::Bye),
            Arrived::Value(value) => answers.push_back(Answer::Value(value)),
            Arrived::Word(_) if is_bye => answers.push_back(Answer::Bye),
            Arrived::Word(_) => {}
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
            *worker = Worker { is_left: true, ..Worker::default() };
        }
    }

    /// Forgets those that nobody reads from and that left without a goodbye.
    fn forget_the_gone(&mut self) {
        let Self { engine, workers, .. } = self;
        workers.retain(|name, worker| !worker.is_left || !engine.is_gone(name));
    }
}

impl Router {
    pub(super) fn new(engine: Engine, question: Duration) -> Self {
        let hub = Hub { engine, workers: HashMap::new(), newcomers: VecDeque::new() };
        Self { hub: Arc::new(Turns::new(hub)), question }
    }

    /// Returns the address that it is bound to, with the port that the kernel chose.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: what libzmq says.
    pub fn address(&self) -> Result<String> {
        self.hub.take_turn(|hub| address(&hub.engine))
    }

    /// Blocks until a worker of a new name has connected or the time is up, and returns its name and its two links.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: none came.
    pub fn accept(&self, timeout: Duration) -> Result<(String, RouterReader, RouterWriter)> {
        let started = Instant::now();
        loop {
            let newcomer = self.hub.take_turn(|hub| {
                hub.pump(if hub.newcomers.is_empty() { SLICE } else { Duration::ZERO })?;
                Ok::<_, Error>(hub.newcomers.pop_front())
            })?;
            if let Some(name) = newcomer {
                let shown = String::from_utf8_lossy(&name).into_owned();
                let reader = RouterReader { router: self.clone(), name: name.clone() };
                return Ok((shown, reader, RouterWriter { router: self.clone(), name }));
            }
            if started.elapsed() >= timeout {
                return Err(Error::TimedOut);
            }
        }
    }
}

/// The answers of one worker. A [`Link`] for a [`Receiver`](ipc::Receiver).
///
/// It is at EOF when the worker's sender is closed. A worker that was killed, or whose machine vanished, is [`Error::Closed`]
/// after its answers: at once, or after the deadline of the [`Options`](super::Options) or somewhat later.
///
/// Dropping it forgets the worker. A worker that comes back under the name of one that left is accepted again then.
pub struct RouterReader {
    router: Router,
    name: Vec<u8>,
}

/// The orders for one worker. A [`Link`] for a [`Sender`](ipc::Sender).
///
/// Sending is [`Error::Closed`] when the worker is not connected any more. Dropping it says goodbye to the worker.
pub struct RouterWriter {
    router: Router,
    name: Vec<u8>,
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
        loop {
            let left = until.left();
            let answer = shared.router.hub.take_turn(|hub| {
                let waiting = |hub: &mut Hub| {
                    let answers = &mut hub.workers.get_mut(&shared.name)?.answers;
                    match answers.front() {
                        Some(Answer::Bye) => Some(Answer::Bye), // it stays
                        Some(Answer::Value(_)) => answers.pop_front(),
                        None => None,
                    }
                };
                if let Some(answer) = waiting(hub) {
                    return Ok(Some(answer));
                }
                if asked.elapsed() >= shared.router.question {
                    asked = Instant::now();
                    hub.engine.send(&[&shared.name, b"", HI], Some(Duration::ZERO))?; // `Closed`, if it is gone
                }
                hub.pump(left.map_or(SLICE, |left| left.min(SLICE)))?;
                Ok::<_, Error>(waiting(hub))
            })?;
            match answer {
                Some(Answer::Bye) => return Ok(None),
                Some(Answer::Value(message)) => return taken(&message, max, take),
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
        shared.router.hub.take_turn(|hub| {
            hub.engine.check(message.bytes())?;
            sent(hub.engine.send(&[&shared.name, message.bytes()], until.left())?, until)
        })
    }

    fn recv<R>(_: &Self, _: usize, _: Until, _: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        Err(NO_WAY)
    }

    fn close(self) -> Result<()> {
        Ok(()) // dropping it says goodbye
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
        let _ = self.router.hub.take_turn(|hub| hub.engine.send(&[&self.name, b"", BYE], Some(Duration::ZERO)));
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
