//! Peers are killed with `SIGKILL`, at any moment, and what everybody else sees is right: whole messages only, no byte out
//! of its place or missing before the cut, the end or the reset, no descriptor, end or process left behind (P2–P5, P8).
//!
//! Each run has rounds of its own. A failure shows the seed of its round: `KILLED_PEERS_SEED=… cargo test --test
//! fire NAME` begins with that round. `IPC_TESTS_ROUNDS=50` runs so many times as many.

use crate::support::{Trial, rounds};
use std::time::Duration;

use crate::rounds::board::Board;
use crate::rounds::random::Random;
use crate::rounds::{KINDS, Kind};

/// How many rounds of each kind are run on every day.
const ROUNDS: u64 = 40;

pub use crate::rounds::family::was_a_link as started;

pub fn trials() -> Vec<Trial> {
    KINDS.iter().copied().map(trial).collect()
}

fn trial(kind: Kind) -> Trial {
    // A round takes some milliseconds.
    let limit = Duration::from_secs(60) + Duration::from_millis(100) * rounds(ROUNDS) as u32;
    let body = move || {
        run(&kind);
        Ok(())
    };
    Trial::of(module_path!(), kind.name, limit, Box::new(body))
}

fn begin_with() -> Option<u64> {
    let seed = std::env::var("KILLED_PEERS_SEED").ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("KILLED_PEERS_SEED={seed} is no number")))
}

fn run(kind: &Kind) {
    let board = Board::shared();
    // Each seed is the first number of the one before, so that a run can begin anywhere.
    let mut seed = begin_with().unwrap_or_else(Random::fresh_seed);
    for _ in 0..rounds(ROUNDS) {
        // The end of what a test prints is shown when it fails, also when it hangs.
        println!("KILLED_PEERS_SEED={seed}");
        crate::rounds::run(kind, seed, board);
        seed = Random::new(seed).next();
    }
    println!("{} kills were seen {} times", board.kills.get(), board.partings.get());
    assert!(board.kills.get() > rounds(ROUNDS) / 10, "hardly anybody was killed");
}
