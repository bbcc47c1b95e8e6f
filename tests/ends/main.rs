//! What goes through an end: bytes, messages and typed values, through the kernel and through shared memory.

#[cfg(feature = "channel")]
mod channel;
mod compile_errors;
mod messages;
mod pipes;
mod shared_memory;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = [
        #[cfg(feature = "channel")]
        channel::started,
        shared_memory::started,
    ];
    if let Some(done) = started.iter().find_map(|started| started()) {
        return done;
    }
    support::run([
        #[cfg(feature = "channel")]
        channel::trials(),
        compile_errors::trials(),
        messages::trials(),
        pipes::trials(),
        shared_memory::trials(),
        waiting::trials(),
    ])
}
