//! The workers that a router knows, and their answers that were not received yet.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ipc::{Error, Result};

use super::turns::{PASSED_OVER, Shared, Token};
use super::{Arrived, BYE, Engine, HI, failed};

/// The most workers that wait to be accepted. One more is told goodbye.
const NEWCOMERS: usize = 1024;

/// How many bytes of answers of one worker may wait, and what is counted for an answer beside its bytes. The worker whose
/// answer is over it has failed for good.
const WAITING: usize = 64 << 20;
const OVERHEAD: usize = 64;

/// libzmq reads up to 8 KiB at once. A message that came within them is a part of that memory, and keeps all of it.
const READ: usize = 8 << 10;

/// How many workers there may be before the hub looks for those that are gone.
const MANY: usize = 1024;

pub(super) struct Hub {
    pub(super) engine: Engine,
    /// The worker that has each name.
    pub(super) names: HashMap<Vec<u8>, u64>,
    /// By their numbers. One whose links are still here may have lost its name to one that came later.
    pub(super) workers: HashMap<u64, Worker>,
    pub(super) newcomers: VecDeque<(Vec<u8>, u64)>,
    /// How many have been met.
    met: u64,
    /// How many workers there are when the hub looks for the lost ones again.
    many: usize,
    /// How many bytes of answers wait, and how many may.
    waiting: usize,
    most: usize,
    /// Whether something has come since that was asked last.
    has_news: bool,
}

pub(super) struct Worker {
    /// `None`: it had said hi to a router that was here before.
    pub(super) token: Option<Token>,
    answers: VecDeque<zmq::Message>,
    /// How much of [`WAITING`] they take.
    waiting: usize,
    /// When it was last asked whether it is there.
    asked: Instant,
    /// Whether it said goodbye after its answers.
    has_left: bool,
    /// Which answers there was no room for, if one of this worker was lost.
    is_over: Option<&'static str>,
    /// Whether its reader was dropped: its messages are dropped too.
    is_dropped: bool,
}

impl Worker {
    fn says_bye(&self, bye: Option<Token>) -> bool {
        bye.is_some() && (self.token.is_none() || self.token == bye)
    }

    /// Keeps an answer until it is received, if there is room for it. One alone may be as long as the socket takes. Returns how
    /// much more waits now.
    fn keep(&mut self, answer: zmq::Message) -> usize {
        let size = size(&answer);
        if self.is_over.is_some() {
            return 0;
        }
        if self.waiting.saturating_add(size) > WAITING && !self.answers.is_empty() {
            self.is_over = Some("answers of one worker");
            return 0;
        }
        self.waiting += size;
        self.answers.push_back(if answer.len() > READ { answer } else { zmq::Message::from(&*answer) });
        size
    }

    /// Drops the last answers: as much as there is too much, but no more than half. Returns how much less waits now.
    fn lose(&mut self, too_much: usize) -> usize {
        self.is_over = Some("answers of all workers");
        let before = self.waiting;
        let rest = (before / 2).max(before.saturating_sub(too_much));
        while self.waiting > rest {
            let Some(last) = self.answers.pop_back() else { break };
            self.waiting -= size(&last);
        }
        before - self.waiting
    }

    fn has_news(&self) -> bool {
        !self.answers.is_empty() || self.is_over.is_some() || self.has_left
    }
}

fn size(answer: &zmq::Message) -> usize {
    answer.len() + OVERHEAD
}

pub(super) enum Answer {
    Value(zmq::Message),
    Eof,
}

impl Shared for Hub {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }
}

impl Hub {
    pub(super) fn new(engine: Engine, most: usize) -> Self {
        Self {
            engine,
            names: HashMap::new(),
            workers: HashMap::new(),
            newcomers: VecDeque::new(),
            met: 0,
            many: MANY,
            waiting: 0,
            most,
            has_news: false,
        }
    }

    pub(super) fn worker(&mut self, number: u64) -> Result<&mut Worker> {
        self.workers.get_mut(&number).ok_or(Error::Closed)
    }

    /// The message that the reader of that worker receives next. `None`: nothing has come.
    pub(super) fn next(&mut self, number: u64) -> Result<Option<Answer>> {
        let worker = self.worker(number)?;
        match (worker.answers.pop_front(), worker.is_over) {
            (Some(answer), _) => {
                let size = size(&answer);
                worker.waiting -= size;
                self.waiting -= size;
                Ok(Some(Answer::Value(answer)))
            }
            (None, Some(call)) => Err(failed(call)(zmq::Error::ENOBUFS)),
            (None, None) if worker.has_left => Ok(Some(Answer::Eof)),
            (None, None) => Ok(None),
        }
    }

    /// Keeps an answer. If there is too much from all workers then, those with the most waiting lose their last ones. A worker
    /// loses none to another with more waiting.
    fn keep(&mut self, number: u64, answer: zmq::Message) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        self.waiting += worker.keep(answer);
        while self.waiting > self.most {
            let Some(fullest) = self.workers.values_mut().max_by_key(|worker| worker.waiting) else { return };
            if fullest.answers.len() == 1 && fullest.waiting == self.waiting {
                return; // one alone may be as long as the socket takes
            }
            self.waiting -= fullest.lose(self.waiting - self.most);
        }
    }

    /// Takes one message, if one has come, and puts it where it belongs. `Ok(false)`: none has.
    pub(super) fn pump(&mut self) -> Result<bool> {
        let Some(name) = self.engine.receive(Some(Duration::ZERO))? else { return Ok(false) };
        self.has_news = true;
        if !name.get_more() {
            return Ok(true);
        }
        let Some(first) = self.engine.receive(None)? else { return Ok(true) };
        let Some(arrived) = self.engine.complete(first)? else { return Ok(true) };
        let (hi, bye) = match &arrived {
            Arrived::Word(word) => (Token::of(word, HI), Token::of(word, BYE)),
            Arrived::Value(_) => (None, None),
        };
        let known = self.names.get(&*name).copied();
        let number = match (known.and_then(|number| Some((number, self.workers.get_mut(&number)?))), hi) {
            // It has taken the other one's place.
            (Some((number, worker)), Some(_)) if !worker.has_left && !worker.is_dropped => {
                worker.token = hi;
                number
            }
            (Some((number, _)), None) => number,
            (None, None) if bye.is_some() => return Ok(true),
            _ => match self.meet(&name, hi)? {
                Some(number) => number,
                None => return Ok(true),
            },
        };
        let Some(worker) = self.workers.get_mut(&number) else { return Ok(true) };
        match arrived {
            Arrived::Word(_) if worker.says_bye(bye) && worker.is_dropped => self.forget(&name, number),
            Arrived::Word(_) if worker.says_bye(bye) => worker.has_left = true,
            Arrived::Value(value) if !worker.is_dropped => self.keep(number, value),
            Arrived::Value(_) | Arrived::Word(_) => {}
        }
        Ok(true)
    }

    /// Takes up a worker under a new number, or says goodbye to it if too many wait.
    fn meet(&mut self, name: &[u8], token: Option<Token>) -> Result<Option<u64>> {
        if self.newcomers.len() >= NEWCOMERS {
            let bye = bye(token);
            return match self.engine.send(&[name, b"", &bye], Some(Duration::ZERO)) {
                Ok(_) | Err(Error::Closed) => Ok(None),
                Err(error) => Err(error),
            };
        }
        if self.workers.len() >= self.many {
            self.forget_the_gone();
            self.many = MANY.max(2 * self.workers.len());
        }
        self.met += 1;
        let worker = Worker {
            token,
            answers: VecDeque::new(),
            waiting: 0,
            asked: Instant::now(),
            has_left: false,
            is_over: None,
            is_dropped: false,
        };
        self.workers.insert(self.met, worker);
        if let Some(before) = self.names.insert(name.to_vec(), self.met) {
            // Its answers stay for its reader.
            if self.workers.get(&before).is_some_and(|worker| worker.is_dropped) {
                self.workers.remove(&before);
            }
        }
        self.newcomers.push_back((name.to_vec(), self.met));
        Ok(Some(self.met))
    }

    /// Asks a silent worker whether it is there, once in that time. [`Error::Closed`]: it is gone, and has no answer left.
    pub(super) fn ask(&mut self, name: &[u8], number: u64, once_in: Duration) -> Result<()> {
        let worker = self.worker(number)?;
        if worker.asked.elapsed() < once_in {
            return Ok(());
        }
        if self.engine.is_gone(name) {
            // libzmq takes its messages from all in turns.
            for _ in 0..self.workers.len() + PASSED_OVER {
                if !self.pump()? {
                    return if self.worker(number)?.has_news() { Ok(()) } else { Err(Error::Closed) };
                }
            }
            return Ok(());
        }
        self.worker(number)?.asked = Instant::now();
        Ok(())
    }

    /// Takes messages, as long as there is room for them. libzmq sees that a worker is gone when it has handed out that worker's
    /// last message. Until then it takes one whose queue is full for one that is slow.
    pub(super) fn look_for_the_gone(&mut self) -> Result<()> {
        for _ in 0..PASSED_OVER {
            let has_room =
                self.waiting < self.most / 2 && self.workers.values().all(|worker| worker.waiting < WAITING / 2);
            if !has_room || !self.pump()? {
                break;
            }
        }
        Ok(())
    }

    /// Forgets a worker whose reader was dropped: at once if it said goodbye, or else when it does or is gone. Until then it would
    /// be a newcomer with each answer that is still under way.
    pub(super) fn leave(&mut self, name: &[u8], number: u64) {
        let has_name = self.has_name(name, number);
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.answers = VecDeque::new();
        self.waiting -= std::mem::take(&mut worker.waiting);
        if worker.has_left || !has_name || self.engine.is_gone(name) {
            self.forget(name, number);
        } else {
            worker.is_dropped = true;
        }
    }

    fn has_name(&self, name: &[u8], number: u64) -> bool {
        self.names.get(name) == Some(&number)
    }

    fn forget(&mut self, name: &[u8], number: u64) {
        self.workers.remove(&number);
        if self.has_name(name, number) {
            self.names.remove(name);
        }
    }

    /// Forgets the workers that have no reader and left without a goodbye.
    fn forget_the_gone(&mut self) {
        let Self { engine, names, workers, .. } = self;
        names.retain(|name, number| {
            let is_forgotten = workers.get(number).is_none_or(|worker| worker.is_dropped && engine.is_gone(name));
            if is_forgotten {
                workers.remove(number);
            }
            !is_forgotten
        });
    }
}

/// A goodbye to the worker with that token. One without a token takes any.
pub(super) fn bye(token: Option<Token>) -> Vec<u8> {
    token.map_or_else(|| BYE.to_vec(), |token| token.word(BYE))
}
