//! A pool of workers for typed jobs: factors numbers in several processes. A worker that crashes or hangs is replaced, and its job
//! goes to another. Results come in the order of the jobs; SIGINT and SIGTERM finish what has begun.
//!
//!     cargo run --features channel --example pool -- [--workers N] [--trouble] NUMBER...
//!
//! With `--trouble`, a worker crashes at its first try of an odd number that 3 divides, and hangs at that of one that 5 does.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc::{Duplex, Fork, KillOnDrop, Signals, Watch, duplex, wait_ready};
use lexopt::{Arg, Parser, ValueExt};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

const USAGE: &str = "usage: pool [--workers N] [--trouble] NUMBER...";

/// How long a job may take, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Job {
    place: usize,
    number: u64,
    tries: u32,
    trouble: bool,
}

/// Does a job, in a worker.
fn factors(job: Job) -> Vec<u64> {
    match job.number {
        number if !job.trouble || job.tries > 1 || number % 2 == 0 => {}
        number if number % 3 == 0 => std::process::abort(),
        number if number % 5 == 0 => std::thread::park(),
        _ => {}
    }
    let (mut rest, mut factors) = (job.number, Vec::new());
    for factor in (2..).take_while(|factor| factor * factor <= job.number) {
        while rest % factor == 0 {
            rest /= factor;
            factors.push(factor);
        }
    }
    factors.extend((rest > 1).then_some(rest));
    factors
}

struct Worker {
    calls: Duplex<Job, Vec<u64>>,
    child: KillOnDrop,
    /// The job that it does, and until when it may.
    job: Option<(Job, Instant)>,
}

impl Worker {
    fn start() -> ipc::Result<Self> {
        let pair = duplex::<Job, Vec<u64>>()?;
        // A Ctrl-C, which every process of a terminal gets, does not end it.
        let child = Fork::new().die_with_parent().hold_signals().spawn(pair.child, |calls| -> ipc::Result<()> {
            calls.iter().try_for_each(|job| Ok(calls.send(factors(job?))?))
        })?;
        Ok(Self { calls: pair.parent, child: child.kill_on_drop(), job: None })
    }
}

/// Does the jobs until all are done, or a signal comes and what has begun is done. Returns how many were not begun.
fn run(mut jobs: VecDeque<Job>, workers: usize, signals: &Signals) -> ipc::Result<usize> {
    let mut workers = (0..workers).map(|_| Worker::start()).collect::<ipc::Result<Vec<_>>>()?;
    let (mut results, mut printed, mut left) = (vec![None; jobs.len()], 0, 0);
    loop {
        for worker in workers.iter_mut().filter(|worker| worker.job.is_none()) {
            let Some(mut job) = jobs.pop_front() else { break };
            job.tries += 1;
            let patience = worker.calls.try_send(job).map_or(Duration::ZERO, |()| PATIENCE); // none for one that is gone
            worker.job = Some((job, Instant::now() + patience));
        }
        let Some(until) = workers.iter().filter_map(|worker| Some(worker.job?.1)).min() else { break };
        let busy = workers.iter().enumerate().filter(|(_, worker)| worker.job.is_some());
        let answers = busy.map(|(index, worker)| (Some(index), Watch::readable(&worker.calls)));
        let watches: Vec<_> = answers.chain([(None, Watch::readable(signals))]).collect();
        for (index, _) in wait_ready(watches, Some(until.saturating_duration_since(Instant::now())))? {
            let Some(index) = index else {
                signals.try_next()?;
                left += jobs.drain(..).count();
                continue;
            };
            let worker = &mut workers[index];
            match (worker.calls.try_recv(), &mut worker.job) {
                (Ok(Some(factors)), Some((job, _))) => {
                    results[job.place] = Some(format!("{}: {factors:?}", job.number));
                    worker.job = None;
                }
                (Err(ipc::Error::WouldBlock), _) => {}
                (_, job) => job.iter_mut().for_each(|(_, until)| *until = Instant::now()), // it is gone, or not itself any more
            }
        }
        for worker in &mut workers {
            let Some((job, _)) = worker.job.filter(|(_, until)| *until <= Instant::now()) else { continue };
            *worker = Worker::start()?; // the other one is killed
            match job.tries {
                ..TRIES => jobs.push_front(job),
                _ => results[job.place] = Some(format!("{}: nobody could", job.number)),
            }
        }
        show(&results, &mut printed);
    }
    if left > 0 && std::io::stderr().is_terminal() {
        eprintln!(); // the bar stays where it was
    }
    for worker in workers {
        worker.calls.close()?; // EOF: it leaves
        worker.child.wait_timeout(PATIENCE)?; // one that does not is killed
    }
    Ok(left)
}

/// Prints results as far as there are no gaps, and how far it is on a terminal.
fn show(results: &[Option<String>], printed: &mut usize) {
    let is_terminal = std::io::stderr().is_terminal();
    if is_terminal {
        eprint!("\r\x1b[K"); // the bar goes
    }
    for result in results[*printed..].iter().map_while(Option::as_ref) {
        println!("{result}");
        *printed += 1;
    }
    if is_terminal {
        let (all, done) = (results.len(), results.iter().flatten().count());
        let end = if done == all { "\n" } else { "" };
        eprint!("[{:40}] {done} of {all}{end}", "#".repeat(done * 40 / all));
    }
}

/// Returns the number of workers, whether with trouble, and the numbers. `None`: the help was asked for.
fn options() -> Result<Option<(usize, bool, Vec<u64>)>, lexopt::Error> {
    let (mut workers, mut trouble, mut numbers) = (4, false, Vec::new());
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("trouble") => trouble = true,
            Arg::Long("workers") => workers = parser.value()?.parse::<NonZero<usize>>()?.get(),
            Arg::Long("help") => return Ok(None),
            Arg::Value(number) => numbers.push(number.parse::<NonZero<u64>>()?.get()),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some((workers, trouble, numbers)))
}

fn main() -> ipc::Result<ExitCode> {
    let (workers, trouble, numbers) = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            writeln!(std::io::stdout(), "{USAGE}")?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(wrong) => {
            eprintln!("pool: {wrong}\n{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    let signals = Signals::new(&[Signal::SIGINT as i32, Signal::SIGTERM as i32])?;
    let jobs = numbers.iter().enumerate().map(|(place, number)| Job { place, number: *number, tries: 0, trouble });
    match run(jobs.collect(), workers, &signals)? {
        0 => Ok(ExitCode::SUCCESS),
        left => {
            eprintln!("stopped: {left} of {} jobs were not done", numbers.len());
            Ok(ExitCode::FAILURE)
        }
    }
}
