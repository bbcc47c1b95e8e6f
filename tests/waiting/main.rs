//! How calls wait: deadlines, signals, looking again, several ends at once, and the errors that they end with.

mod deadlines;
mod errors;
mod signals;
mod spin;
#[path = "../support/mod.rs"]
mod support;
mod wait_any;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::run([deadlines::trials(), errors::trials(), signals::trials(), spin::trials(), wait_any::trials()])
}
