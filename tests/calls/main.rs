//! Which system calls and allocations are made, and what holds at the very moment of a call. Its allocator counts, and some functions
//! stand in for libc's of the same names.

mod allocations;
mod moments;
#[path = "../support/mod.rs"]
mod support;
mod syscalls;
mod syscalls_moving;
mod syscalls_rings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = moments::started().or_else(syscalls::started).or_else(syscalls_moving::started);
    if let Some(done) = started.or_else(syscalls_rings::started) {
        return done;
    }
    support::run([
        allocations::trials(),
        moments::trials(),
        syscalls::trials(),
        syscalls_moving::trials(),
        syscalls_rings::trials(),
    ])
}
