//! Which ends a forked child or a started program has, and how it takes them.

mod claim;
mod command;
mod command_start;
mod ends;
mod fork;
mod starting;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = claim::started().or_else(command::started) {
        return done;
    }
    support::run([
        claim::trials(),
        command::trials(),
        command_start::trials(),
        ends::trials(),
        fork::trials(),
        starting::trials(),
    ])
}
