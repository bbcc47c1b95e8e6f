//! Forking a process that leaves at once, and waiting for it, while holding a few ends or many.

use std::io;
use std::rc::Rc;

use crate::machine::Core;
use crate::peer::Peer;
use crate::rivals::bare::check;
use crate::rivals::ours;
use crate::turns::{Contender, Entry, Pass, Turns, USUAL};

use super::calls::timed;

pub const WORK: &str = "fork and wait";

/// How many ends the process holds that forks.
pub const ENDS: [usize; 2] = [2, 64];

pub fn case(ends: usize) -> String {
    format!("holding {ends} ends")
}

pub fn run(turns: &mut Turns) -> io::Result<()> {
    for ends in ENDS {
        let contenders = vec![worker("bare fork + waitpid", ends, bare), worker("ipc::fork", ends, ours)];
        turns.take(WORK, &case(ends), 0, USUAL, contenders)?;
    }
    Ok(())
}

/// A process that holds that many ends, forks when it is told, and says how long it took.
fn worker(name: &'static str, ends: usize, fork: fn() -> io::Result<()>) -> Entry {
    Entry::new(name, move || {
        let mut held = Vec::new();
        let peer = Peer::start_with_two_ends(Core::Any, move |count| {
            while ipc::open_ends() < ends {
                held.push(ours::pipe()?);
            }
            Ok(timed(count, fork)?.as_nanos() as u64)
        })?;
        Ok(Told { peer: Rc::new(peer), what: 0 })
    })
}

pub fn bare() -> io::Result<()> {
    // SAFETY: one thread, and the child leaves at once.
    match check(unsafe { libc::fork() })? {
        // SAFETY: nothing is left to do in this process.
        0 => unsafe { libc::_exit(0) },
        pid => reap(pid),
    }
}

pub fn ours() -> io::Result<()> {
    let status = ipc::fork((), |()| ())?.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// waitpid(2), for a child that does nothing wrong.
pub fn reap(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: a place for the status.
    check(unsafe { libc::waitpid(pid, &mut status, 0) })?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("the child left with {status:#x}"))) }
}

/// Work that a peer does by itself, and times.
pub struct Told {
    pub peer: Rc<Peer>,
    /// Added to the order, for a peer that can do several things.
    pub what: u64,
}

impl Contender for Told {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        self.peer.order(self.what + count)?;
        Ok(Pass { ns: self.peer.answer()? as f64 / count as f64, p99: None })
    }
}
