//! The master and its workers.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use ipc::{Child, DatagramSocket, Error, PipeReader, PipeWriter, Watch, wait_any};
use rustix::process::{Signal, getpid, kill_process};

use crate::count::Counter;

/// A file that this many workers died of is given up.
const TRIES: u32 = 3;

/// What became of one file.
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
    files: &'a [PathBuf],
    counted: Vec<Counted>,
    queue: VecDeque<usize>,
    workers: Vec<Worker>,
    results: PipeReader,
    /// For workers to come.
    writer: PipeWriter,
    /// The next order is to die half-way.
    kill_one: bool,
    news: Vec<String>,
}

impl<'a> Crew<'a> {
    pub fn start(files: &'a [PathBuf], workers: usize, kill_one: bool) -> ipc::Result<Self> {
        let (results, writer) = ipc::pipe()?;
        let counted = vec![Counted::default(); files.len()];
        let queue = (0..files.len()).collect();
        let mut crew = Self { files, counted, queue, workers: Vec::new(), results, writer, kill_one, news: Vec::new() };
        for _ in 0..workers {
            crew.hire()?;
        }
        Ok(crew)
    }

    /// Starts a worker and gives it something to do, if there is anything.
    fn hire(&mut self) -> ipc::Result<()> {
        let pair = ipc::datagram_pair()?;
        let ends = (pair.child, self.writer.try_clone()?);
        let child = ipc::fork(ends, |(orders, results)| work(self.files, &orders, &results))?;
        self.workers.push(Worker { child, orders: pair.parent, file: None });
        self.employ(self.workers.len() - 1)
    }

    /// Hands the next file to a worker that has none.
    fn employ(&mut self, worker: usize) -> ipc::Result<()> {
        let Some(file) = self.queue.pop_front() else { return Ok(()) };
        let order = Order { file, die: std::mem::take(&mut self.kill_one) };
        match self.workers[worker].orders.send(&order.to_bytes()) {
            Ok(()) => self.workers[worker].file = Some(file),
            // It died while it had nothing to do: its exit is seen next.
            Err(Error::Closed) => self.queue.push_front(file),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until something happens, and sees to it.
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
                counted.error = (record.errno != 0).then(|| message(record.errno));
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
                let path = self.files[file].display();
                let counted = &mut self.counted[file];
                counted.tries += 1;
                if counted.tries < TRIES {
                    self.news.push(format!("worker {} is gone ({status}); {path} goes to another", child.id()));
                    self.queue.push_front(file);
                } else {
                    counted.error = Some(format!("given up, as {TRIES} workers were lost on it"));
                    counted.done = true;
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

    /// What a person should hear, since the last time.
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

/// The text of an errno, as `wc` prints it.
fn message(errno: i32) -> String {
    let error = std::io::Error::from_raw_os_error(errno).to_string();
    error.split(" (os error").next().unwrap_or(&error).to_owned()
}

/// What a worker does: a file for each order, until there are no more orders.
fn work(files: &[PathBuf], orders: &DatagramSocket, results: &PipeWriter) -> ipc::Result<()> {
    let mut buf = [0; Order::LEN];
    while orders.recv(&mut buf)?.is_some() {
        let order = Order::from_bytes(&buf);
        results.write_atomic(&count(&files[order.file], &order).to_bytes())?;
    }
    Ok(())
}

fn count(path: &Path, order: &Order) -> Record {
    let mut record = Record { file: order.file, opened: false, words: 0, errno: 0 };
    let mut counter = Counter::new();
    let result = File::open(path).and_then(|file| {
        record.opened = true;
        let half = file.metadata()?.len() / 2;
        let mut seen = 0;
        counter.read(&file, |len| {
            seen += len as u64;
            if order.die && seen >= half {
                let _ = kill_process(getpid(), Signal::KILL);
            }
        })
    });
    record.words = counter.words();
    record.errno = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()));
    record
}

/// A message to a worker. The files are known to it by their places in the list, which it has from the fork.
struct Order {
    file: usize,
    die: bool,
}

impl Order {
    const LEN: usize = 9;

    fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [u8::from(self.die); Self::LEN];
        bytes[..8].copy_from_slice(&(self.file as u64).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self { file: number(&bytes[..8]) as usize, die: bytes[8] != 0 }
    }
}

/// A worker's answer, short enough to be written in one piece.
struct Record {
    file: usize,
    opened: bool,
    words: u64,
    errno: i32,
}

impl Record {
    const LEN: usize = 32;

    fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields = [self.file as u64, u64::from(self.opened), self.words, self.errno as u64];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let field = |i: usize| number(&bytes[i * 8..i * 8 + 8]);
        Self { file: field(0) as usize, opened: field(1) != 0, words: field(2), errno: field(3) as i32 }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
