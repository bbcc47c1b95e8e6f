//! The examples: what they print, what they leave open, and how they serve.

mod at_exit;
mod coverage;
mod examples;
mod prefork;
mod supervise;
#[path = "../support/mod.rs"]
mod support;
mod travelling;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = at_exit::started() {
        return done;
    }
    support::run([
        at_exit::trials(),
        coverage::trials(),
        examples::trials(),
        prefork::trials(),
        supervise::trials(),
        travelling::trials(),
    ])
}
