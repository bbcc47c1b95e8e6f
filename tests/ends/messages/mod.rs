//! Messages and streams over socket pairs, the descriptors that travel in them, and messages that are packed or go through pipes.

mod ancillary;
mod ancillary_calls;
mod ancillary_edges;
mod datagram_calls;
mod foreign_peers;
mod formats;
mod marks;
mod message_conversions;
mod message_iterations;
mod message_losses;
mod message_packets;
mod message_peers;
mod message_pipe_ends;
mod message_pipes;
mod message_queues;
mod message_stream_deadlines;
mod message_streams;
mod packed;
mod packed_forks;
mod packed_peers;
mod packed_waits;
mod receivers;
mod severed;
mod stream_conversions;
mod stream_deadlines;
mod streams;
mod whole;

use crate::support::{self, Trial};

pub fn trials() -> Vec<Trial> {
    support::joined([
        ancillary::trials(),
        ancillary_calls::trials(),
        ancillary_edges::trials(),
        datagram_calls::trials(),
        foreign_peers::trials(),
        formats::trials(),
        marks::trials(),
        message_conversions::trials(),
        message_iterations::trials(),
        message_losses::trials(),
        message_packets::trials(),
        message_peers::trials(),
        message_pipe_ends::trials(),
        message_pipes::trials(),
        message_queues::trials(),
        message_stream_deadlines::trials(),
        message_streams::trials(),
        packed::trials(),
        packed_forks::trials(),
        packed_peers::trials(),
        packed_waits::trials(),
        severed::trials(),
        stream_conversions::trials(),
        stream_deadlines::trials(),
        streams::trials(),
        whole::trials(),
    ])
}
