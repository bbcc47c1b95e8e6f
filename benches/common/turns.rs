//! Contenders that take turns in one run, and the machine that they run on.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::Peer;

/// One contender: does something that many times, and returns how long it took.
pub type Contender<'a> = (&'a str, Box<dyn FnMut(u64) -> Duration + 'a>);

/// Nanoseconds for one, the median of each contender, over rounds in which they take turns.
pub fn take_turns(contenders: &mut [Contender<'_>], count: u64, rounds: usize) -> Vec<f64> {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (times, (_, pass)) in times.iter_mut().zip(contenders.iter_mut()) {
            times.push(pass(count).as_nanos() as f64 / count as f64);
        }
    }
    times.into_iter().map(median).collect()
}

/// Does it that many times, and returns how long it took.
pub fn repeated<'a>(mut once: impl FnMut() + 'a) -> Box<dyn FnMut(u64) -> Duration + 'a> {
    Box::new(move |count| {
        let started = Instant::now();
        (0..count).for_each(|_| once());
        started.elapsed()
    })
}

/// Prints the median that one costs each contender, over rounds of `count` in which they take turns, and how many times as
/// fast as the first it is. With `--test`, each does it once.
pub fn compare(what: &str, contenders: &mut [Contender<'_>], count: u64) {
    let quick = std::env::args().any(|arg| arg == "--test");
    let (count, rounds) = if quick { (1, 1) } else { (count, 11) };
    let times = take_turns(contenders, count, rounds);
    println!("{what:<64} {:>12} {:>8}", "µs", "times");
    for ((name, _), time) in contenders.iter().zip(&times) {
        println!("  {name:<62} {:>12.3} {:>8.2}", time / 1e3, times[0] / time);
    }
    println!();
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds that a cache line takes to the other core and back.
pub fn probe() -> f64 {
    // A page that both processes see.
    // SAFETY: a new shared mapping, zeroed and aligned, which outlives both uses and is never unmapped.
    let line: &AtomicU64 = unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast()
    };
    const TRIPS: u64 = 20_000;
    let peer = Peer::start(1, (), move |(), trips| {
        for trip in 0..trips {
            while line.load(SeqCst) != 2 * trip + 1 {
                std::hint::spin_loop();
            }
            line.store(2 * trip + 2, SeqCst);
        }
    });
    peer.order(TRIPS);
    let mut started = Instant::now();
    for trip in 0..TRIPS {
        line.store(2 * trip + 1, SeqCst);
        let mut looks = 0_u64;
        while line.load(SeqCst) != 2 * trip + 2 {
            looks += 1;
            if looks.is_multiple_of(1_000_000) {
                std::thread::yield_now(); // one core only
            }
        }
        if trip == 0 {
            started = Instant::now(); // the peer is awake
        }
    }
    started.elapsed().as_nanos() as f64 / (TRIPS - 1) as f64
}

pub fn report(name: &str, beside: f64, ipc: f64, ratio: f64, mark: &str) {
    println!("{name:<44} {beside:>12.2} {ipc:>12.2} {ratio:>8.2} {mark:>6}");
}
