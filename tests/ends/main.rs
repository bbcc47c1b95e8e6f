//! What goes through an end: pipes, messages and streams, and shared memory; and how calls wait for it.

mod messages;
mod pipes;
mod shared_memory;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = shared_memory::started() {
        return done;
    }
    support::run([messages::trials(), pipes::trials(), shared_memory::trials(), waiting::trials()])
}
