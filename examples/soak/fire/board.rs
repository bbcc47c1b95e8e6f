//! Counters in memory that all processes of a run share, also those that are about to be killed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The counts so far, and where the run is.
#[derive(Default)]
pub struct Board {
    pub rounds: Counter,
    pub kills: Counter,
    pub forks: Counter,
    pub programs: Counter,
    pub bytes: Counter,
    pub messages: Counter,
    /// Typed values that were received, and orders whose worker did its work.
    pub values: Counter,
    pub orders: Counter,
    pub ends: Counter,
    /// Ends of streams, closed pipes and resets that were seen because somebody was killed.
    pub partings: Counter,
    pub resets: Counter,
    pub signals: Counter,
    /// Calls that were made without a descriptor, a process or memory being left for them.
    pub refusals: Counter,
    pub deadlines: Counter,
    /// The longest from a kill to its being seen, and the most that a deadline was late, in microseconds.
    pub slowest: Counter,
    pub latest: Counter,
    /// The seed of the round that runs.
    pub seed: Counter,
    /// How much was received in it.
    progress: Counter,
    /// When it killed somebody, on the clock that all processes share; 0: not yet.
    killed: Counter,
}

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn at_least(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Board {
    /// A board that is shared with every process that is forked from here on.
    pub fn shared() -> &'static Self {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping that is never unmapped, is large enough, aligned to a page, and zeroed. A board of atomic
        // integers may be zeroed.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), size_of::<Self>(), read_write, shared, -1, 0);
            assert!(start != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
            &*start.cast::<Self>()
        }
    }

    /// A round begins.
    pub fn begin(&self, seed: u64) {
        self.seed.set(seed);
        self.progress.set(0);
        self.killed.set(0);
    }

    /// Counts bytes or messages that were received.
    pub fn received(&self, more: u64) {
        self.progress.add(more);
    }

    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// Somebody is killed now.
    pub fn kill(&self) {
        self.killed.set(now().as_nanos() as u64);
    }

    /// Returns how long ago somebody was killed, if somebody was.
    pub fn since_the_kill(&self) -> Option<Duration> {
        let killed = self.killed.get();
        (killed > 0).then(|| now().saturating_sub(Duration::from_nanos(killed)))
    }
}

/// The time since the machine was started, which is the same in all processes.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
