//! A worker of a program, from the order until it was waited for: by the program's fork server, and by what else there is. The
//! program is small; or it has much memory and many threads.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::machine::Core;
use crate::peer::Peer;
use crate::turns::{Entry, Turns, USUAL};

use super::calls::timed;
use super::forking::{Told, bare, ours};
use super::starting::fill;

pub const WORK: &str = "a worker of a program";
pub const CASES: [&str; 2] = [SMALL, LARGE];
const SMALL: &str = "small";
const LARGE: &str = "with 1 GiB and 16 threads";

/// What the mark compares.
pub const SERVER: &str = "ipc::ForkServer";
pub const FORK: &str = "ipc::fork of a small process";

const THREADS: usize = 16;

/// The option with which this program leaves at once.
pub const NOTHING: &str = "--nothing";

/// What the program is told to start.
const WORKER: u64 = 0;
const PROGRAM: u64 = 1;
const COPY: u64 = 2;

pub fn run(turns: &mut Turns) -> io::Result<()> {
    turns.take(WORK, SMALL, 0, USUAL, contenders(0, 0)?)?;
    let memory = if turns.is_quick() { 64 << 20 } else { 1 << 30 };
    turns.take(WORK, LARGE, 0, USUAL, contenders(memory, THREADS)?)
}

fn contenders(memory: usize, threads: usize) -> io::Result<Vec<Entry>> {
    let mut server = None;
    let mut resident = Vec::new();
    let program = Peer::start(Core::Any, move |order| {
        if server.is_none() {
            // The first thing that the program does.
            server = Some(ipc::ForkServer::start(|_, _| ())?);
            fill(&mut resident, memory)?;
            (0..threads).for_each(|_| {
                drop(thread::spawn(|| {
                    loop {
                        thread::park()
                    }
                }))
            });
        }
        let server = server.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (what, count) = (order >> 32, order & u64::from(u32::MAX));
        let time = match what {
            WORKER => timed(count, || finish(&server.fork(b"", ())?)),
            PROGRAM => timed(count, || finish(&ipc::Command::new("/proc/self/exe").arg(NOTHING).spawn()?)),
            _ => timed(count, bare),
        };
        Ok(time?.as_nanos() as u64)
    })?;
    program.order(0)?;
    program.answer()?; // it has its memory and its threads
    let program = Rc::new(program);
    let of_the_program = |name, what: u64| {
        let peer = Rc::clone(&program);
        Entry::new(name, move || Ok(Told { peer, what: what << 32 }))
    };
    let of_a_small_one = |name, fork: fn() -> io::Result<()>| {
        Entry::new(name, move || {
            let peer = Peer::start_with_two_ends(Core::Any, move |count| Ok(timed(count, fork)?.as_nanos() as u64))?;
            Ok(Told { peer: Rc::new(peer), what: 0 })
        })
    };
    let mut contenders = vec![of_a_small_one("bare fork of a small process", bare), of_a_small_one(FORK, ours)];
    if threads > 0 {
        contenders.push(of_the_program("bare fork of the program", COPY));
    }
    contenders.push(of_the_program(SERVER, WORKER));
    contenders.push(of_the_program("ipc::Command of the same program", PROGRAM));
    contenders.push(Entry::new("Python's forkserver", Python::start));
    Ok(contenders)
}

fn finish(child: &ipc::Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// Python's `multiprocessing`, which has a fork server too. A small program that says how long its workers took.
struct Python {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> io::Result<impl FnMut(u64) -> io::Result<Duration>> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/work/forkserver.py");
        let mut command = Command::new("python3");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut python = Self { process, orders, answers: BufReader::new(answers) };
        Ok(move |count| python.pass(count))
    }

    fn pass(&mut self, count: u64) -> io::Result<Duration> {
        writeln!(self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, "{count}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().map(Duration::from_nanos).map_err(io::Error::other)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.process.wait() {
            eprintln!("peers: Python cannot be waited for: {error}");
        }
    }
}
