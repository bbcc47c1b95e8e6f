//! Shared memory: rings, what their peers can do wrong, and blobs.

mod blobs;
mod ring_forks;
mod ring_looks;
mod ring_messages;
mod ring_peers;
mod ring_programs;
mod ring_shortage;
mod ring_waits;
mod rings;

use std::io::Read;
use std::process::ExitCode;

use crate::support::{self, Trial, bytes, descriptor_flags};
use ipc::{Blob, RingReader, claim};

/// What this program does where a test of this area has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::var_os(blobs::SEALS).is_some() {
        blobs::make_one();
        return Some(ExitCode::SUCCESS);
    }
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("worker") {
        return None;
    }
    match args.next().as_deref() {
        Some("blob") => claim_blob(),
        _ => claim_ring(),
    }
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::joined([
        blobs::trials(),
        ring_forks::trials(),
        ring_looks::trials(),
        ring_messages::trials(),
        ring_peers::trials(),
        ring_programs::trials(),
        ring_shortage::trials(),
        ring_waits::trials(),
        rings::trials(),
    ])
}

fn claim_blob() {
    let blob: Blob = claim("blob").unwrap();
    assert!(*blob == bytes(100_000), "the bytes arrive");
    assert_eq!(descriptor_flags(&blob) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

fn claim_ring() {
    let mut ring = RingReader::new(claim("ring").unwrap()).unwrap();
    let mut data = Vec::new();
    ring.read_to_end(&mut data).unwrap();
    assert!(data == bytes(1 << 20), "the bytes arrive");
}
