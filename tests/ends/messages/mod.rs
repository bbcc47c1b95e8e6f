//! Messages and streams over socket pairs, the descriptors that travel in them, and messages that are packed or go through pipes.

mod ancillary;
mod ancillary_edges;
mod foreign_peers;
mod formats;
mod message_conversions;
mod message_losses;
mod message_peers;
mod message_pipe_ends;
mod message_pipes;
mod message_queues;
mod message_streams;
mod packed;
mod packed_peers;
mod receivers;
mod streams;
mod whole;

use crate::support::{self, Trial};

pub fn trials() -> Vec<Trial> {
    support::joined([
        ancillary::trials(),
        ancillary_edges::trials(),
        foreign_peers::trials(),
        formats::trials(),
        message_conversions::trials(),
        message_losses::trials(),
        message_peers::trials(),
        message_pipe_ends::trials(),
        message_pipes::trials(),
        message_queues::trials(),
        message_streams::trials(),
        whole::trials(),
        packed::trials(),
        packed_peers::trials(),
        streams::trials(),
    ])
}
