//! The workers, as their master sees them: started, asked how they do, killed when they do not answer, and replaced.

use std::fmt::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use ipc::{Child, DatagramSocket, PipeFlags, PipeReader, PipeWriter, Watch};

use crate::messages::{Given, Order, Report, told};
use crate::{Options, say, worker};

/// How often the workers are asked how they do.
const ROUND: Duration = Duration::from_millis(250);

/// A worker that leaves before that, and before it has served anything, has left at once.
const SETTLED: Duration = Duration::from_secs(1);

/// So often in a row may a worker leave at once. Before each other try there is a rest, twice as long as the one before.
const TRIES: u32 = 5;
const REST: Duration = Duration::from_millis(50);

pub struct Crew<'a> {
    options: &'a Options,
    /// `None`: no worker is to accept any more.
    pub listener: Option<TcpListener>,
    lifeline: PipeReader,
    /// This one alone, so that the lifeline ends with this process.
    _alive: PipeWriter,
    places: Vec<Place>,
    asked: Instant,
    /// The counts of the workers that are gone.
    gone: Report,
}

/// One of the places that are to be taken.
struct Place {
    worker: Option<Worker>,
    /// When to start one, if there is none. `None`: never again.
    free_from: Option<Instant>,
    /// How many in a row left at once.
    left_at_once: u32,
}

struct Worker {
    child: Child,
    control: DatagramSocket,
    reports: PipeReader,
    /// Until it has said that it serves.
    ready: Option<PipeReader>,
    started: Instant,
    /// How often it was asked since its last sign of life.
    unanswered: u32,
    report: Report,
    /// Why it left, if that is known before it has.
    why: Option<String>,
}

/// A worker that has left.
pub struct Lost {
    place: usize,
    /// Of its own will.
    pub in_order: bool,
    at_once: bool,
    pub what: String,
}

impl<'a> Crew<'a> {
    pub fn start(options: &'a Options, listener: TcpListener) -> ipc::Result<Self> {
        let (lifeline, alive) = ipc::pipe()?;
        let now = Instant::now();
        let places = (0..options.workers).map(|_| Place { worker: None, free_from: Some(now), left_at_once: 0 });
        let mut crew = Self {
            options,
            listener: Some(listener),
            lifeline,
            _alive: alive,
            places: places.collect(),
            asked: now,
            gone: Report::default(),
        };
        for place in 0..options.workers {
            crew.hire(place)?;
        }
        Ok(crew)
    }

    fn hire(&mut self, place: usize) -> ipc::Result<()> {
        let control = ipc::datagram_pair()?;
        // A write does not wait: a master that is asleep must not hold up a worker. One pipe for all would do as well, but
        // the master would have to keep its writer for workers to come. EOF would then never arrive.
        let (reports, reports_writer) = ipc::pipe_with(PipeFlags::NONBLOCK)?;
        let (ready, writer) = ipc::pipe()?;
        let given = Given {
            control: control.child,
            lifeline: self.lifeline.try_clone()?,
            reports: reports_writer,
            ready: writer,
        };
        // The listener is no end of the crate, so the child has it anyway, as every file that is open. It takes its copy
        // of the value too, to close it when it drains; this process's own is not touched by that.
        let (table, options, listener) = (self.table(), self.options, &mut self.listener);
        // A Ctrl-C, which every process of a terminal gets, ends no worker. They do what the master tells them.
        let fork = ipc::Fork::new().hold_signals();
        let child = fork.spawn(given, |given| worker::work(given, listener.take(), options, table))?;
        let started = Instant::now();
        self.places[place].worker = Some(Worker {
            report: Report { worker: child.id().into(), ..Report::default() },
            child,
            control: control.parent,
            reports,
            ready: Some(ready),
            started,
            unanswered: 0,
            why: None,
        });
        Ok(())
    }

    /// The things to wait for.
    pub fn waits(&self) -> Vec<Watch<'_>> {
        let mut on = Vec::new();
        for worker in self.workers() {
            on.push(Watch::readable(&worker.reports));
            on.push(Watch::readable(&worker.child));
            on.extend(worker.ready.as_ref().map(Watch::readable));
        }
        on
    }

    /// And until when: another round, or the end of a rest.
    pub fn next(&self) -> Instant {
        let rests = self.places.iter().filter(|place| place.worker.is_none()).filter_map(|place| place.free_from);
        rests.chain([self.asked + ROUND]).min().unwrap_or(self.asked)
    }

    /// Takes everything in that the workers have said, and says which have left.
    pub fn look_after(&mut self) -> ipc::Result<Vec<Lost>> {
        self.hear()?;
        for worker in self.places.iter_mut().filter_map(|place| place.worker.as_mut()) {
            if let Some(outcome) = worker.ready.as_ref().map(told).transpose()?.flatten() {
                worker.ready = None;
                worker.why = outcome.err();
            }
        }
        let mut lost = Vec::new();
        for place in 0..self.places.len() {
            let Some(worker) = &self.places[place].worker else { continue };
            let Some(status) = worker.child.try_wait()? else { continue };
            self.hear()?; // its last words
            let Some(worker) = self.places[place].worker.take() else { continue };
            self.gone.add(&Report { open: 0, ..worker.report });
            let why = worker.why.map(|why| format!(": {why}")).unwrap_or_default();
            lost.push(Lost {
                place,
                in_order: status.success(),
                at_once: worker.started.elapsed() < SETTLED && worker.report.requests == 0,
                what: format!("worker {} is gone ({status}){why}", worker.child.id()),
            });
        }
        Ok(lost)
    }

    fn hear(&mut self) -> ipc::Result<()> {
        for worker in self.places.iter_mut().filter_map(|place| place.worker.as_mut()) {
            if let Some(report) = Report::arrived(&worker.reports)?.pop() {
                worker.report = report;
                worker.unanswered = 0;
            }
        }
        Ok(())
    }

    /// Lets another take the place, now or after a rest, or gives it up.
    pub fn replace(&mut self, lost: &Lost) {
        let place = &mut self.places[lost.place];
        place.left_at_once = if lost.at_once { place.left_at_once + 1 } else { 0 };
        place.free_from = match place.left_at_once {
            0 => Some(Instant::now()),
            TRIES => None,
            tries => Some(Instant::now() + REST * 2_u32.pow(tries - 1)),
        };
        match place.free_from {
            Some(_) => say(&format!("{}; another takes its place", lost.what)),
            None => say(&format!("{}; given up, as {TRIES} in a row left at once", lost.what)),
        }
    }

    /// Starts those whose time has come.
    pub fn fill(&mut self) {
        for place in 0..self.places.len() {
            let due = self.places[place].free_from.is_some_and(|from| from <= Instant::now());
            if due && self.places[place].worker.is_none() {
                // For want of descriptors, processes or memory: that may pass.
                if let Err(error) = self.hire(place) {
                    say(&format!("a worker cannot be started: {error}; trying again"));
                    self.places[place].free_from = Some(Instant::now() + SETTLED);
                }
            }
        }
    }

    /// Asks all how they do, if it is time, and kills those that have not answered for too long.
    ///
    /// It counts questions and not time, as the time that this process was stopped for is no worker's fault.
    pub fn ask(&mut self) -> ipc::Result<()> {
        if self.asked.elapsed() < ROUND {
            return Ok(());
        }
        self.asked = Instant::now();
        let order = Order::Report(self.table());
        for worker in self.places.iter_mut().filter_map(|place| place.worker.as_mut()) {
            if ROUND * worker.unanswered > self.options.patience {
                worker.why = Some(format!("it gave no sign of life for {:?}", self.options.patience));
                worker.child.kill()?;
            }
            order.send(&worker.control)?;
            worker.unanswered += 1;
        }
        Ok(())
    }

    pub fn order(&self, order: &Order) -> ipc::Result<()> {
        self.workers().try_for_each(|worker| order.send(&worker.control))
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.places.iter().filter_map(|place| place.worker.as_ref())
    }

    pub fn count(&self) -> usize {
        self.workers().count()
    }

    /// Returns whether every place is taken by one that serves.
    pub fn is_complete(&self) -> bool {
        self.places
            .iter()
            .all(|place| place.worker.as_ref().is_some_and(|worker| worker.ready.is_none() && worker.why.is_none()))
    }

    /// Returns whether no place will ever be taken again.
    pub fn is_given_up(&self) -> bool {
        self.places.iter().all(|place| place.worker.is_none() && place.free_from.is_none())
    }

    /// All that was done, also by those that are gone.
    pub fn total(&self) -> Report {
        let mut total = self.gone;
        self.workers().for_each(|worker| total.add(&worker.report));
        total
    }

    /// For the status page.
    fn table(&self) -> String {
        let mut table = format!(
            "prefork, process {}\n\n{:>10} {:>8} {:>12} {:>12} {:>16}\n",
            std::process::id(),
            "worker",
            "open",
            "connections",
            "requests",
            "bytes"
        );
        let mut row = |name: &str, report: &Report| {
            let Report { open, connections, requests, bytes, .. } = report;
            // Writing to a String does not fail.
            let _ = writeln!(table, "{name:>10} {open:>8} {connections:>12} {requests:>12} {bytes:>16}");
        };
        self.workers().for_each(|worker| row(&worker.report.worker.to_string(), &worker.report));
        row("gone", &self.gone);
        row("total", &self.total());
        table
    }
}

/// However the master ends, no worker is left behind.
impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for worker in self.workers() {
            // Neither can fail for a child of this process, and there would be nothing left to do about it.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}
