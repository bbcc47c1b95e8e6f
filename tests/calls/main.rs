//! Which system calls and allocations are made, and what holds at the very moment of a call. Its allocator counts, and some functions
//! stand in for libc's of the same names.

mod allocations;
mod moments;
#[path = "../support/mod.rs"]
mod support;
mod syscalls;
mod syscalls_moving;
mod syscalls_rings;
#[cfg(feature = "channel")]
mod syscalls_tcp;

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = moments::started().or_else(syscalls::started).or_else(syscalls_moving::started);
    let started = started.or_else(syscalls_rings::started);
    #[cfg(feature = "channel")]
    let started = started.or_else(syscalls_tcp::started);
    if let Some(done) = started {
        return done;
    }
    support::run([
        allocations::trials(),
        moments::trials(),
        syscalls::trials(),
        syscalls_moving::trials(),
        syscalls_rings::trials(),
        #[cfg(feature = "channel")]
        syscalls_tcp::trials(),
    ])
}
