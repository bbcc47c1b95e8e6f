//! Killed peers, storms of signals, nothing left of something, and sequences that nobody thought of.

mod exhaustion;
mod killed_peers;
mod model;
#[allow(dead_code)] // the example uses more of it
#[path = "../../examples/soak/fire/mod.rs"]
mod rounds;
mod starvation;
mod storm;
mod storm_built;
mod storm_calls;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = killed_peers::started().or_else(starvation::started).or_else(storm_calls::started) {
        return done;
    }
    support::run([
        exhaustion::trials(),
        killed_peers::trials(),
        model::trials(),
        starvation::trials(),
        storm::trials(),
        storm_built::trials(),
        storm_calls::trials(),
    ])
}
