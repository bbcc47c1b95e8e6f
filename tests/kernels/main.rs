//! Older kernels and sandboxes, which refuse calls.

mod fallbacks;
mod gvisor;
mod old_kernels;
mod promises;
mod sandboxes;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(done) = old_kernels::started() {
        return done;
    }
    support::run([fallbacks::trials(), gvisor::trials(), old_kernels::trials(), sandboxes::trials()])
}
