//! Who holds an end, and how a tree of processes is connected.

mod inspect;
mod maps;
mod one_pass;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = one_pass::started() {
        return done;
    }
    support::run([inspect::trials(), maps::trials(), one_pass::trials()])
}
