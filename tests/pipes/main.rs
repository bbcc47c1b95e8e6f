//! Pipes: their two ends, buffered writers, and what `copy` and `splice` move through them.

mod buffered;
mod copy;
mod copy_stops;
mod pipe_edges;
mod pipe_ends;
mod pipes;
mod splice;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::run([
        buffered::trials(),
        copy::trials(),
        copy_stops::trials(),
        pipe_edges::trials(),
        pipe_ends::trials(),
        pipes::trials(),
        splice::trials(),
    ])
}
