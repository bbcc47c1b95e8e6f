//! Contenders that take turns, round by round, in one run.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::probe::{Class, Probe};
use crate::report::tables;
use crate::results::{Group, Sample, Series};
use crate::watchdog::Watch;

/// Something that can do a piece of work again and again.
pub trait Contender {
    /// Does it `count` times.
    fn pass(&mut self, count: u64) -> io::Result<Pass>;
}

/// What one pass took.
pub struct Pass {
    /// Nanoseconds for one: the mean, or the median where each was timed.
    pub ns: f64,
    /// The 99th percentile, where each was timed.
    pub p99: Option<f64>,
}

impl Pass {
    pub fn of(time: Duration, count: u64) -> Self {
        Self { ns: time.as_nanos() as f64 / count as f64, p99: None }
    }

    /// Of the times of each, in nanoseconds. They are sorted afterwards.
    pub fn of_each(times: &mut [u64]) -> Self {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64;
        Self { ns: at(0.5), p99: Some(at(0.99)) }
    }
}

/// Work that is a loop in this process. It returns how long the loop took.
impl<F: FnMut(u64) -> io::Result<Duration>> Contender for F {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        Ok(Pass::of(self(count)?, count))
    }
}

/// A contender that is not made yet.
pub struct Entry {
    name: &'static str,
    make: Box<dyn FnOnce() -> io::Result<Box<dyn Contender>>>,
}

impl Entry {
    pub fn new<C: Contender + 'static>(name: &'static str, make: impl FnOnce() -> io::Result<C> + 'static) -> Self {
        Self { name, make: Box::new(|| Ok(Box::new(make()?))) }
    }
}

/// How long, and how often.
#[derive(Clone, Copy)]
pub struct Pace {
    pub pass: Duration,
    /// That many good samples each contender should have.
    pub rounds: usize,
}

/// For what passes between two processes.
pub const USUAL: Pace = Pace { pass: Duration::from_millis(150), rounds: 7 };
/// For what is compared to the per cent.
pub const FINE: Pace = Pace { pass: Duration::from_millis(40), rounds: 21 };

/// A hang, whatever the machine is busy with.
const LIMIT: Duration = Duration::from_secs(60);

/// How many times as many rounds there are at most, where the cores move.
const AT_MOST: usize = 3;

/// How long a group waits in all for the cores to be near, when it has its rounds with the cores far.
const PATIENCE: Duration = Duration::from_secs(15);

/// The run: everything is measured through this.
pub struct Turns {
    probe: Probe,
    quick: bool,
    /// Only these cases and contenders; empty: all.
    cases: Vec<String>,
    names: Vec<String>,
    /// Nobody waits for the cores after it.
    deadline: Instant,
    pub groups: Vec<Group>,
}

impl Turns {
    pub fn start(options: &Options, waits: Duration) -> io::Result<Self> {
        Ok(Self {
            probe: Probe::start()?,
            quick: options.quick,
            cases: options.cases.clone(),
            names: options.names.clone(),
            deadline: Instant::now() + waits,
            groups: Vec::new(),
        })
    }

    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// Lets the contenders take turns until each has its rounds with the cores near, or at least with the cores far.
    pub fn take(&mut self, work: &str, case: &str, bytes: u64, pace: Pace, mut entries: Vec<Entry>) -> io::Result<()> {
        let is_wanted = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
        entries.retain(|entry| is_wanted(&self.names, entry.name));
        if !is_wanted(&self.cases, case) || entries.is_empty() {
            return Ok(());
        }
        let pace = if self.quick { Pace { pass: Duration::from_millis(2), rounds: 2 } } else { pace };
        let title = format!("{work}, {case}");
        let mut racers: Vec<Racer> = entries.into_iter().map(|entry| Racer::ready(entry, &title, pace.pass)).collect();
        let mut patience = if self.quick { Duration::ZERO } else { PATIENCE };
        let mut before = self.probe()?;
        for round in 0..pace.rounds * AT_MOST {
            let mut all_done = true;
            for turn in 0..racers.len() {
                // Another one is the first in each round.
                let place = (round + turn) % racers.len();
                let racer = &mut racers[place];
                let is_done = |class| racer.series.count(class) >= pace.rounds;
                if !is_done(Class::Near) && is_done(Class::Far) && Class::of(before) == Class::Far {
                    before = self.wait_for_near(&title, &mut patience)?;
                }
                if is_done(Class::Near) || is_done(Class::of(before)) {
                    continue;
                }
                progress(&format!("{title}: round {}, {}", round + 1, racer.series.name));
                if let Some(pass) = racer.pass(&title) {
                    all_done = false;
                    let after = self.probe()?;
                    racer.note(Sample(pass.ns, pass.p99, before, after));
                    before = after;
                }
            }
            if all_done {
                break;
            }
        }
        let series = racers.into_iter().map(|racer| racer.series).collect();
        let group = Group { work: work.to_owned(), case: case.to_owned(), bytes, series };
        progress("");
        print!("{}", tables::in_short(&group));
        self.groups.push(group);
        Ok(())
    }

    /// The last probe: near, unless patience is at its end.
    fn wait_for_near(&self, title: &str, patience: &mut Duration) -> io::Result<f64> {
        const PAUSE: Duration = Duration::from_millis(250);
        progress(&format!("{title}: waiting for the cores to be near"));
        loop {
            let probe = self.probe()?;
            if Class::of(probe) == Class::Near || patience.is_zero() || Instant::now() > self.deadline {
                return Ok(probe);
            }
            thread::sleep(PAUSE);
            *patience = patience.saturating_sub(PAUSE);
        }
    }

    fn probe(&self) -> io::Result<f64> {
        let _watch = Watch::over("the probe of the cores", LIMIT);
        self.probe.measure()
    }
}

/// A contender that is ready, or has failed.
struct Racer {
    contender: Option<Box<dyn Contender>>,
    /// What it does in one pass.
    count: u64,
    series: Series,
}

impl Racer {
    /// Makes it, and finds out how much it does in that time, which warms it up as well.
    fn ready(entry: Entry, title: &str, time: Duration) -> Self {
        progress(&format!("{title}: getting {} ready", entry.name));
        let series = Series { name: entry.name.to_owned(), ..Series::default() };
        let mut racer = Self { contender: None, count: 1, series };
        {
            let _watch = racer.watch(title);
            match (entry.make)() {
                Ok(contender) => racer.contender = Some(contender),
                Err(error) => racer.series.left_out = Some(error.to_string()),
            }
        }
        loop {
            // Twice, as a first time is slow, and as any time can be disturbed.
            let mut took = Duration::MAX;
            for _ in 0..2 {
                let started = Instant::now();
                if racer.pass(title).is_none() {
                    return racer;
                }
                took = took.min(started.elapsed()).max(Duration::from_nanos(100));
            }
            let more = time.as_secs_f64() / took.as_secs_f64();
            racer.count = ((racer.count as f64 * more.min(10.0)) as u64).max(1);
            if more < 4.0 {
                return racer;
            }
        }
    }

    /// `None`: it fails, and is left out from here on.
    fn pass(&mut self, title: &str) -> Option<Pass> {
        let watch = self.watch(title);
        let result = self.contender.as_mut()?.pass(self.count);
        drop(watch);
        match result {
            Ok(pass) => Some(pass),
            Err(error) => {
                self.contender = None;
                self.series.left_out = Some(error.to_string());
                None
            }
        }
    }

    fn note(&mut self, sample: Sample) {
        match sample.class() {
            Some(_) => self.series.samples.push(sample),
            None => self.series.moved += 1,
        }
    }

    fn watch(&self, title: &str) -> Watch {
        Watch::over(&format!("{title}, {}", self.series.name), LIMIT)
    }
}

/// One line that the next one replaces, for somebody who is watching.
fn progress(line: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // A line that cannot be written is not needed.
        let _ = write!(stderr, "\r\x1b[K{line}");
    }
}
