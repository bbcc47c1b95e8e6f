//! How processes are started, which ends a forked child or a started program has, and who holds an end.

mod children;
mod claim;
mod claim_hostile;
mod command;
mod command_of_std;
mod command_start;
mod ends;
mod execs;
mod failed_exec;
mod fork;
mod inspect;
mod real_programs;
mod server;
mod starting;
#[path = "../support/mod.rs"]
mod support;
mod watched_signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = [claim::started, command::started, starting::started, inspect::started, real_programs::started];
    if let Some(done) = started.iter().find_map(|started| started()) {
        return done;
    }
    support::run([
        children::trials(),
        claim::trials(),
        claim_hostile::trials(),
        command::trials(),
        command_of_std::trials(),
        command_start::trials(),
        ends::trials(),
        execs::trials(),
        failed_exec::trials(),
        fork::trials(),
        inspect::trials(),
        real_programs::trials(),
        server::trials(),
        starting::trials(),
        watched_signals::trials(),
    ])
}
