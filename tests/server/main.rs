//! Workers that a process with threads starts through its fork server.

mod server;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::run([server::trials()])
}
