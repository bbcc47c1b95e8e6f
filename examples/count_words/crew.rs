//! The master and its workers.

use std::collections::VecDeque;
use std::io;

use ipc::{Child, DatagramSocket, Error, Fork, PipeReader, PipeWriter, Watch, wait_any};
use rustix::process::{Signal, getpid, kill_process};

use crate::count::Counter;
use crate::input::Input;
use crate::reason;
use crate::records::{Order, Record};

/// A file that this many workers died of is given up, if it can be read again at all.
const TRIES: u32 = 3;

/// The outcome of one file.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// `None`: it could not be opened.
    pub words: Option<u64>,
    pub error: Option<String>,
    tries: u32,
    done: bool,
}

struct Worker {
    child: Child,
    orders: DatagramSocket,
    /// The file that it counts.
    file: Option<usize>,
}

pub struct Crew<'a> {
    files: &'a [Input],
    counted: Vec<Counted>,
    queue: VecDeque<usize>,
    workers: Vec<Worker>,
    results: PipeReader,
    /// For workers to come.
    writer: PipeWriter,
    lifeline: PipeReader,
    /// Nothing is ever written to it. It is this process's alone, and closed when this process ends.
    _alive: PipeWriter,
    /// The next order is to die half-way.
    kill_one: bool,
    news: Vec<String>,
}

impl<'a> Crew<'a> {
    pub fn start(files: &'a [Input], workers: usize, kill_one: bool) -> ipc::Result<Self> {
        let (results, writer) = ipc::pipe()?;
        let (lifeline, alive) = ipc::pipe()?;
        let mut crew = Self {
            files,
            counted: vec![Counted::default(); files.len()],
            queue: (0..files.len()).collect(),
            workers: Vec::new(),
            results,
            writer,
            lifeline,
            _alive: alive,
            kill_one,
            news: Vec::new(),
        };
        for _ in 0..workers {
            crew.hire()?;
        }
        Ok(crew)
    }

    /// Starts a worker and gives it something to do, if there is anything.
    fn hire(&mut self) -> ipc::Result<()> {
        let pair = ipc::datagram_pair()?;
        let given = (pair.child, self.writer.try_clone()?, self.lifeline.try_clone()?);
        // A worker that is blocked, as when it opens a FIFO, cannot look at the lifeline: the kernel ends it.
        let fork = Fork::new().die_with_parent();
        let child = fork.spawn(given, |(orders, results, lifeline)| work(self.files, &orders, &results, &lifeline))?;
        self.workers.push(Worker { child, orders: pair.parent, file: None });
        self.employ(self.workers.len() - 1)
    }

    /// Hands the next file to a worker that has none.
    fn employ(&mut self, worker: usize) -> ipc::Result<()> {
        let Some(file) = self.next() else { return Ok(()) };
        let die = self.kill_one && self.files[file].can_be_read_again();
        match self.workers[worker].orders.send(&Order { file, die }.to_bytes()) {
            Ok(()) => {
                self.workers[worker].file = Some(file);
                self.kill_one &= !die;
            }
            // It died while it had nothing to do: its exit is seen next.
            Err(Error::Closed) => self.queue.push_front(file),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes the next file from the queue that can be counted now. The standard input has one reader at a time: a second `-`
    /// gets what the first has left.
    fn next(&mut self) -> Option<usize> {
        let stdin_is_read =
            self.workers.iter().filter_map(|worker| worker.file).any(|file| self.files[file].is_stdin());
        let place = self.queue.iter().position(|file| !(stdin_is_read && self.files[*file].is_stdin()))?;
        self.queue.remove(place)
    }

    /// Waits until something happens, and handles it.
    pub fn work_on(&mut self) -> ipc::Result<()> {
        let mut on = vec![Watch::readable(&self.results)];
        on.extend(self.workers.iter().map(|worker| Watch::readable(&worker.child)));
        wait_any(&mut on, None)?;
        let left: Vec<usize> = (0..self.workers.len()).rev().filter(|i| !on[i + 1].ready().is_empty()).collect();
        // First what they wrote, and then who left: a worker may die after its last word.
        self.read_results()?;
        for worker in left {
            self.bury(worker)?;
        }
        Ok(())
    }

    fn read_results(&mut self) -> ipc::Result<()> {
        let mut buf = [0; Record::LEN * 64];
        loop {
            // Records are written in one piece, so the pipe never holds part of one.
            let len = match self.results.try_read(&mut buf) {
                Ok(len) => len,
                Err(Error::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            };
            for bytes in buf[..len].chunks_exact(Record::LEN) {
                let record = Record::from_bytes(bytes);
                let counted = &mut self.counted[record.file];
                counted.words = record.opened.then_some(record.words);
                counted.error = (record.errno != 0).then(|| reason(&io::Error::from_raw_os_error(record.errno)));
                counted.done = true;
                if let Some(worker) = self.workers.iter().position(|worker| worker.file == Some(record.file)) {
                    self.workers[worker].file = None;
                    self.employ(worker)?;
                }
            }
        }
    }

    /// Takes a worker off that has left, and hires another one if there is work for it.
    fn bury(&mut self, worker: usize) -> ipc::Result<()> {
        let Worker { child, file, .. } = self.workers.remove(worker);
        let status = child.wait()?;
        match file {
            None => self.news.push(format!("worker {} is gone ({status})", child.id())),
            Some(file) => {
                let input = &self.files[file];
                let counted = &mut self.counted[file];
                counted.tries += 1;
                let given_up = match counted.tries {
                    _ if !input.can_be_read_again() => {
                        Some("given up, as a worker was lost on it, and it cannot be read again".to_owned())
                    }
                    TRIES => Some(format!("given up, as {TRIES} workers were lost on it")),
                    _ => None,
                };
                match given_up {
                    None => {
                        self.news.push(format!("worker {} is gone ({status}); {input} goes to another", child.id()));
                        self.queue.push_front(file);
                    }
                    Some(why) => {
                        counted.error = Some(why);
                        counted.done = true;
                    }
                }
            }
        }
        let idle = self.workers.iter().position(|worker| worker.file.is_none());
        match idle {
            _ if self.queue.is_empty() => Ok(()),
            Some(idle) => self.employ(idle),
            None => self.hire(),
        }
    }

    pub fn is_done(&self) -> bool {
        self.counted.iter().all(|counted| counted.done)
    }

    pub fn done(&self) -> usize {
        self.counted.iter().filter(|counted| counted.done).count()
    }

    pub fn words(&self) -> u64 {
        self.counted.iter().filter_map(|counted| counted.words).sum()
    }

    /// Messages for a person, since the last time.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Lets the workers go.
    pub fn finish(self) -> ipc::Result<Vec<Counted>> {
        for Worker { child, orders, .. } in self.workers {
            drop(orders); // it sees the end, and leaves
            child.wait()?;
        }
        Ok(self.counted)
    }
}

/// The work of a worker: a file for each order, until there are no more orders, or no master.
fn work(files: &[Input], orders: &DatagramSocket, results: &PipeWriter, lifeline: &PipeReader) -> ipc::Result<()> {
    let mut buf = [0; Order::LEN];
    while orders.recv(&mut buf)?.is_some() {
        let order = Order::from_bytes(&buf);
        let Some(record) = count(&files[order.file], &order, lifeline) else { break };
        match results.write_atomic(&record.to_bytes()) {
            Err(Error::Closed) => break,
            written => written?,
        }
    }
    Ok(())
}

/// Counts a file. `None`: the master is gone.
fn count(input: &Input, order: &Order, lifeline: &PipeReader) -> Option<Record> {
    // The standard input is taken for open, so that it has a number even where it is closed.
    let mut record = Record { file: order.file, opened: input.is_stdin(), words: 0, errno: 0 };
    let mut counter = Counter::new();
    let result = input.open().and_then(|file| {
        record.opened = true;
        let half = file.metadata()?.len() / 2;
        let mut seen = 0;
        counter.read(&file, |len| {
            seen += len as u64;
            if order.die && seen >= half {
                let _ = kill_process(getpid(), Signal::KILL);
            }
            // Anything but that there is nothing to read: its writer is gone.
            matches!(lifeline.try_read(&mut [0]), Err(Error::WouldBlock))
        })
    });
    record.words = counter.words();
    match result {
        Ok(to_the_end) => to_the_end.then_some(record),
        Err(error) => {
            record.errno = error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            Some(record)
        }
    }
}
