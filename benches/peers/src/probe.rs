//! How far apart the two cores are, now.
//!
//! On a virtual machine the host moves cores about. Where the two share a cache, a line goes to the other core and back in
//! about 110 ns here; where they do not, in about 480, and everything that passes between them is slower by more than any
//! rival. That can change within seconds.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use crate::machine::Core;
use crate::peer::Peer;

/// Nanoseconds between near and far.
const BORDER: f64 = 230.0;

/// Where the cores were. Figures of one class are compared, and never two of different classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Near,
    Far,
}

impl Class {
    /// Of a probe's nanoseconds.
    pub fn of(ns: f64) -> Self {
        if ns < BORDER { Self::Near } else { Self::Far }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// Trips are timed in batches, so that a batch during which a core did something else can be told.
const BATCHES: u64 = 9;
const BATCH: u64 = 400;
const TRIPS: u64 = 1 + BATCHES * BATCH;

/// A peer on the other core, and a cache line that both see.
pub struct Probe {
    line: &'static AtomicU64,
    peer: Peer,
}

impl Probe {
    pub fn start() -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, where the kernel likes.
        let page = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed, aligned, and never unmapped.
        let line: &'static AtomicU64 = unsafe { &*page.cast() };
        let peer = Peer::start(Core::There, move |_| {
            for trip in 0..TRIPS {
                wait_for(line, 2 * trip + 1);
                line.store(2 * trip + 2, SeqCst);
            }
            Ok(0)
        })?;
        Ok(Self { line, peer })
    }

    /// Nanoseconds that a cache line takes to the other core and back: the median of some batches.
    pub fn measure(&self) -> io::Result<f64> {
        self.line.store(0, SeqCst);
        self.peer.order(TRIPS)?;
        let trip = |trip| {
            self.line.store(2 * trip + 1, SeqCst);
            wait_for(self.line, 2 * trip + 2);
        };
        trip(0); // wakes the peer
        let mut batches = [0.0; BATCHES as usize];
        for (number, batch) in (0..).zip(&mut batches) {
            let first = 1 + number * BATCH;
            let started = Instant::now();
            (first..first + BATCH).for_each(trip);
            *batch = started.elapsed().as_nanos() as f64 / BATCH as f64;
        }
        self.peer.answer()?;
        batches.sort_by(f64::total_cmp);
        Ok(batches[BATCHES as usize / 2])
    }
}

fn wait_for(line: &AtomicU64, value: u64) {
    while line.load(SeqCst) != value {
        std::hint::spin_loop();
    }
}
