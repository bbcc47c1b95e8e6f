//! A pool of workers for typed jobs: factors numbers in several processes. A worker that crashes or hangs is replaced, and its job
//! goes to another. Results come in the order of the jobs; SIGINT and SIGTERM finish what has begun.
//!
//!     cargo run --features channel --example pool -- [--workers N] [--trouble] NUMBER...
//!
//! With `--trouble`, a worker crashes at its first try of an odd number that 3 divides, and hangs at that of one that 5 does.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc::{Duplex, Fork, KillOnDrop, Signals, Unsent, Watch, duplex, wait_ready};
use serde::{Deserialize, Serialize};

/// How long a job may take, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Job {
    place: usize,
    number: u64,
    tries: u32,
    trouble: bool,
}

/// What a worker does with a job.
fn factors(job: &Job) -> Vec<u64> {
    match job.number {
        number if !job.trouble || job.tries > 0 || number % 2 == 0 => {}
        number if number % 3 == 0 => std::process::abort(),
        number if number % 5 == 0 => std::thread::park(),
        _ => {}
    }
    let (mut rest, mut factors) = (job.number, Vec::new());
    for factor in 2.. {
        while rest % factor == 0 {
            rest /= factor;
            factors.push(factor);
        }
        if factor * factor > rest {
            break;
        }
    }
    factors.extend((rest > 1).then_some(rest));
    factors
}

struct Worker {
    calls: Duplex<Job, Vec<u64>>,
    child: KillOnDrop,
    /// What it is at, and until when.
    job: Option<(Job, Instant)>,
}

impl Worker {
    fn start() -> ipc::Result<Self> {
        let pair = duplex::<Job, Vec<u64>>()?;
        let child = Fork::new().die_with_parent().spawn(pair.child, |calls| -> ipc::Result<()> {
            calls.iter().try_for_each(|job| Ok(calls.send(factors(&job?))?))
        })?;
        Ok(Self { calls: pair.parent, child: child.kill_on_drop(), job: None })
    }
}

struct Pool {
    workers: Vec<Worker>,
    to_do: VecDeque<Job>,
    results: Vec<Option<String>>,
    printed: usize,
}

impl Pool {
    /// Until everything is done, or a signal comes and what has begun is done. Returns how many jobs were not.
    fn run(&mut self, signals: &Signals) -> ipc::Result<usize> {
        loop {
            self.hand_out()?;
            let busy = |worker: &&Worker| worker.job.is_some();
            let Some(until) = self.workers.iter().filter_map(|worker| Some(worker.job.as_ref()?.1)).min() else {
                break;
            };
            let on = self.workers.iter().enumerate().filter(|(_, worker)| busy(worker));
            let on = on.map(|(index, worker)| (Some(index), Watch::readable(&worker.calls)));
            let on: Vec<_> = on.chain([(None, Watch::readable(signals))]).collect();
            for (key, _) in wait_ready(on, Some(until.saturating_duration_since(Instant::now())))? {
                match key {
                    Some(index) => self.take_result(index)?,
                    None => drop((signals.try_next()?, self.to_do.clear())),
                }
            }
            for index in 0..self.workers.len() {
                if self.workers[index].job.as_ref().is_some_and(|(_, until)| *until <= Instant::now()) {
                    self.replace(index)?;
                }
            }
            self.show();
        }
        for worker in self.workers.drain(..) {
            worker.calls.close()?; // EOF: it leaves
            worker.child.release().wait()?;
        }
        Ok(self.results.iter().filter(|result| result.is_none()).count())
    }

    fn hand_out(&mut self) -> ipc::Result<()> {
        for index in 0..self.workers.len() {
            let worker = &mut self.workers[index];
            let Some(job) = worker.job.is_none().then(|| self.to_do.pop_front()).flatten() else { continue };
            let until = Instant::now() + PATIENCE;
            let copy = Job { ..job };
            match worker.calls.send_timeout(job, PATIENCE) {
                Ok(()) => worker.job = Some((copy, until)),
                Err(Unsent { value, .. }) => {
                    self.to_do.push_front(value); // nothing happened to it
                    self.workers[index] = Worker::start()?;
                }
            }
        }
        Ok(())
    }

    fn take_result(&mut self, index: usize) -> ipc::Result<()> {
        let worker = &mut self.workers[index];
        match worker.calls.try_recv() {
            Ok(Some(factors)) => {
                let (job, _) = worker.job.take().expect("it is busy");
                self.results[job.place] = Some(format!("{}: {factors:?}", job.number));
                Ok(())
            }
            Err(ipc::Error::WouldBlock) => Ok(()),
            Ok(None) | Err(_) => self.replace(index), // it is gone, or not itself any more
        }
    }

    /// Kills a worker, and gives its job to another.
    fn replace(&mut self, index: usize) -> ipc::Result<()> {
        let gone = std::mem::replace(&mut self.workers[index], Worker::start()?);
        match gone.job {
            Some((job, _)) if job.tries + 1 < TRIES => self.to_do.push_front(Job { tries: job.tries + 1, ..job }),
            Some((job, _)) => self.results[job.place] = Some(format!("{}: nobody could", job.number)),
            None => {}
        }
        Ok(())
    }

    /// Prints results as far as there are no gaps, and how far it is on a terminal.
    fn show(&mut self) {
        let (all, done) = (self.results.len(), self.results.iter().flatten().count());
        let is_seen = std::io::stderr().is_terminal();
        while let Some(Some(result)) = self.results.get(self.printed) {
            println!("{}{result}", if is_seen { "\r\x1b[K" } else { "" });
            self.printed += 1;
        }
        if is_seen {
            let bar = "#".repeat(done * 40 / all);
            let _ = write!(std::io::stderr(), "\r[{bar:40}] {done} of {all}{}", if done == all { "\n" } else { "" });
        }
    }
}

fn main() -> ipc::Result<ExitCode> {
    let (mut workers, mut trouble, mut numbers) = (4, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.parse()) {
            ("--trouble", _) => trouble = true,
            ("--workers", _) => workers = args.next().and_then(|count| count.parse().ok()).unwrap_or(1),
            (_, Ok(number)) if number > 0 => numbers.push(number),
            _ => {
                eprintln!("usage: pool [--workers N] [--trouble] NUMBER...");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let signals = Signals::new(&[2, 15])?; // SIGINT, SIGTERM
    let jobs = numbers.iter().enumerate().map(|(place, number)| Job { place, number: *number, tries: 0, trouble });
    let mut pool = Pool {
        to_do: jobs.collect(),
        results: vec![None; numbers.len()],
        workers: (0..workers).map(|_| Worker::start()).collect::<Result<_, _>>()?,
        printed: 0,
    };
    match pool.run(&signals)? {
        0 => Ok(ExitCode::SUCCESS),
        left => {
            eprintln!("stopped: {left} of {} jobs were not done", numbers.len());
            Ok(ExitCode::FAILURE)
        }
    }
}
