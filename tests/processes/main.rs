//! Which ends a forked child or a started program has, and how it takes them.

mod claim;
mod command;
mod command_start;
mod ends;
mod failed_exec;
mod fork;
mod real_programs;
mod starting;
#[path = "../support/mod.rs"]
mod support;
mod watched_signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = claim::started().or_else(command::started).or_else(real_programs::started) {
        return done;
    }
    support::run([
        claim::trials(),
        command::trials(),
        command_start::trials(),
        ends::trials(),
        failed_exec::trials(),
        fork::trials(),
        real_programs::trials(),
        starting::trials(),
        watched_signals::trials(),
    ])
}
