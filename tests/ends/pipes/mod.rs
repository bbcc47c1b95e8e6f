//! Pipes: their two ends, buffered writers, and what `copy` and `splice` move through them.

mod buffered;
mod copy;
mod copy_stops;
mod pipe_edges;
mod pipe_ends;
mod splice;
mod streaming;

use crate::support::{self, Trial};

pub fn trials() -> Vec<Trial> {
    support::joined([
        buffered::trials(),
        copy::trials(),
        copy_stops::trials(),
        pipe_edges::trials(),
        pipe_ends::trials(),
        streaming::trials(),
        splice::trials(),
    ])
}
