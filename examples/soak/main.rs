//! Tests the crate for as long as it is told. Peers are killed at random moments, and signals interrupt every call.
//! Descriptors, processes and memory run out, and ends travel in messages meanwhile. Every byte that the survivors see is
//! checked.
//!
//! Each worker process runs one round after the other (`fire/`), on a core of its own as far as there are. A round is made of
//! its seed, which is shown when something is wrong, and can be run again by itself.

mod fire;
mod report;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fire::board::Board;
use fire::random::{Random, mix};
use fire::{KINDS, Kind, OTHERS, limit};
use ipc::{Child, Fork, Watch, wait_any};
use lexopt::{Arg, Parser, ValueExt};
use report::Report;

const HELP: &str = "\
usage: soak [--minutes N] [--workers N] [--seed S] [--round S] [--sleeps N] [--help]

Kills, interrupts and starves processes that talk through pipes and pairs, and checks what the others see.

  --minutes N   for so long (default: 1; fractions are fine)
  --workers N   so many processes run rounds (default: one for each core)
  --seed S      the first rounds are made of this (default: a new one each time)
  --round S     run only the round of this seed, as it is shown when something is wrong
  --sleeps N    instead: so many sleeps and wakes of two processes at the ends of rings, on one core and on two
  --help        this text";

struct Options {
    time: Duration,
    workers: u64,
    seed: u64,
    round: Option<u64>,
    sleeps: Option<u64>,
}

fn main() -> ExitCode {
    if let Some(done) = fire::family::was_a_link() {
        return done;
    }
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return help(),
        Err(wrong) => {
            eprintln!("soak: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A process that loses its parent in a round becomes a child of its worker. A worker's children become children of
    // this process.
    fire::adopt_orphans();
    if let Some(most) = options.sleeps {
        return sleeps(most);
    }
    if let Some(seed) = options.round {
        eprintln!("soak: {}", kind_of(seed).name);
        fire::run(kind_of(seed), seed, Board::shared());
        return ExitCode::SUCCESS;
    }
    match soak(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    match writeln!(std::io::stdout(), "{HELP}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut options = Options {
        time: Duration::from_secs(60),
        workers: cores,
        seed: Random::fresh_seed(),
        round: None,
        sleeps: None,
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => return Ok(None),
            Arg::Long("minutes") => options.time = parser.value()?.parse_with(minutes)?,
            Arg::Long("workers") => options.workers = parser.value()?.parse().map(|workers: u64| workers.max(1))?,
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("round") => options.round = Some(parser.value()?.parse()?),
            Arg::Long("sleeps") => options.sleeps = Some(parser.value()?.parse()?),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some(options))
}

/// Checks that no wake-up of a ring is lost, in that many sleeps on one core and on two, with signals and without.
fn sleeps(most: u64) -> ExitCode {
    for (where_, cores) in [("one core", [0, 0]), ("two cores", [0, 1])] {
        for signals in [false, true] {
            match fire::rings::sleeps(cores, most, signals) {
                Ok(done) => eprintln!("{where_}: {} sleeps in {:.1?}, {} signals", done.slept, done.time, done.signals),
                Err(error) => {
                    eprintln!("soak: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn minutes(value: &str) -> Result<Duration, &'static str> {
    let minutes = value.parse::<f64>().ok();
    minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok()).ok_or("that is no time")
}

/// Which kind of round a seed makes.
fn kind_of(seed: u64) -> &'static Kind {
    static ALL: [&[Kind]; 2] = [KINDS, OTHERS];
    let number = mix(!seed) as usize % (KINDS.len() + OTHERS.len());
    ALL.iter().copied().flatten().nth(number).expect("that many kinds")
}

/// Set when somebody asks for the end.
static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Relaxed);
}

/// A process that runs rounds, and its counters.
pub struct Worker {
    child: Child,
    board: &'static Board,
    /// How many rounds were done, and when.
    seen: (u64, Instant),
}

/// How this run of all rounds came to its end.
enum End {
    Time,
    Stopped,
    Wrong(String),
}

fn soak(options: &Options) -> ipc::Result<ExitCode> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to an atomic.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
    eprintln!("soak: --seed {}, {} workers, {:?}", options.seed, options.workers, options.time);
    let started = Instant::now();
    let over = started.checked_add(options.time);
    let mut workers = Vec::new();
    for number in 0..options.workers {
        workers.push(Worker::start(mix(options.seed.wrapping_add(number)), over)?);
    }
    let mut report = Report::new(started);
    let end = watch(&mut workers, over, &mut report)?;
    end_all(&workers);
    report.clear();
    let code = match end {
        End::Time => ExitCode::SUCCESS,
        End::Stopped => ExitCode::from(130),
        End::Wrong(what) => {
            eprintln!("soak: {what}");
            ExitCode::FAILURE
        }
    };
    report.table(&workers);
    Ok(code)
}

impl Worker {
    fn start(mut seed: u64, over: Option<Instant>) -> ipc::Result<Self> {
        let board = Board::shared();
        let child = Fork::new().die_with_parent().reset_signals().spawn((), move |()| {
            // A group of its own: a Ctrl-C at the terminal is for the parent, which ends the group.
            // SAFETY: two numbers.
            unsafe { libc::setpgid(0, 0) };
            fire::adopt_orphans();
            while over.is_none_or(|over| Instant::now() < over) {
                fire::run(kind_of(seed), seed, board);
                seed = Random::new(seed).next();
            }
        })?;
        // Also here, so that it is done whichever process comes first.
        // SAFETY: two numbers, of a child that was not waited for.
        unsafe { libc::setpgid(child.id() as libc::pid_t, child.id() as libc::pid_t) };
        Ok(Self { child, board, seen: (0, Instant::now()) })
    }

    /// Returns what is wrong with it, if something is.
    fn trouble(&mut self) -> ipc::Result<Option<String>> {
        let seed = self.board.seed.get();
        let of_round = format!("in the round {}: `--round {seed}` runs it again", kind_of(seed).name);
        if let Some(status) = self.child.try_wait()? {
            return Ok((!status.success()).then(|| format!("a worker ended with {status} {of_round}")));
        }
        let rounds = self.board.rounds.get();
        if self.seen.0 != rounds {
            self.seen = (rounds, Instant::now());
        } else if self.seen.1.elapsed() > 3 * limit() {
            let map = ipc::ProcessMap::of(self.child.id())?;
            return Ok(Some(format!("a worker hangs {of_round}\n{map}")));
        }
        Ok(None)
    }
}

/// Sits by until the end of it.
fn watch(workers: &mut [Worker], over: Option<Instant>, report: &mut Report) -> ipc::Result<End> {
    let tick = Duration::from_millis(200);
    loop {
        if STOPPED.load(Relaxed) {
            return Ok(End::Stopped);
        }
        for worker in &mut *workers {
            if let Some(wrong) = worker.trouble()? {
                return Ok(End::Wrong(wrong));
            }
        }
        report.line(workers);
        let mut running: Vec<_> = Vec::new();
        for worker in &*workers {
            if worker.child.try_wait()?.is_none() {
                running.push(Watch::readable(&worker.child));
            }
        }
        if running.is_empty() && over.is_some_and(|over| Instant::now() >= over) {
            return Ok(End::Time);
        }
        wait_any(&mut running, Some(tick))?;
    }
}

/// Ends the workers with all that they have started, and waits until nobody is left.
fn end_all(workers: &[Worker]) {
    for worker in workers {
        // SAFETY: two numbers. Groups that have ended do no harm, as no other got their numbers: their processes are waited
        // for below.
        unsafe { libc::kill(-(worker.child.id() as libc::pid_t), libc::SIGKILL) };
    }
    // SAFETY: no status is asked for. It ends when there is no child any more, also none that came here as an orphan.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}
