//! Peers are killed with `SIGKILL`, at any moment, and what everybody else sees is right: whole messages only, no byte out
//! of its place or missing before the cut, the end or the reset, no descriptor, end or process left behind (P2–P5, P8).
//!
//! Each run has rounds of its own. A failure shows the seed of its round: `KILLED_PEERS_SEED=… cargo test --test
//! fire NAME` begins with that round. `KILLED_PEERS_ROUNDS=5000` runs so many of each kind.

use crate::support::Trial;
use std::time::Duration;

use crate::rounds::board::Board;
use crate::rounds::random::Random;
use crate::rounds::{KINDS, Kind};

/// How many rounds of each kind are run, unless somebody says otherwise.
const ROUNDS: u64 = 60;

pub use crate::rounds::family::was_a_link as started;

pub fn trials() -> Vec<Trial> {
    KINDS.iter().copied().map(trial).collect()
}

fn trial(kind: Kind) -> Trial {
    // A round takes some milliseconds.
    let limit = Duration::from_secs(60) + Duration::from_millis(100) * rounds() as u32;
    Trial::new(module_path!(), kind.name, limit, move || run(&kind))
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn rounds() -> u64 {
    variable("KILLED_PEERS_ROUNDS").unwrap_or(ROUNDS)
}

fn run(kind: &Kind) {
    let board = Board::shared();
    // Each seed is the first number of the one before, so that a run can begin anywhere.
    let mut seed = variable("KILLED_PEERS_SEED").unwrap_or_else(Random::fresh_seed);
    for _ in 0..rounds() {
        // The end of what a test prints is shown when it fails, also when it hangs.
        println!("KILLED_PEERS_SEED={seed}");
        crate::rounds::run(kind, seed, board);
        seed = Random::new(seed).next();
    }
    println!("{} kills were seen {} times", board.kills.get(), board.partings.get());
    assert!(rounds() < ROUNDS || board.kills.get() > rounds() / 10, "hardly anybody was killed");
}
