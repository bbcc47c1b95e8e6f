//! The contenders: how each one makes a channel, sends and receives. What they are measured at is in [`work`](crate::work).
//!
//! A name that begins with `ipc ` is of the crate that this benchmark is for; one that begins with `bare ` is of the system
//! calls with nothing around them.

pub mod bare;
pub mod iceoryx2;
pub mod ipc_channel;
pub mod ours;
pub mod packed;
pub mod pipes;
pub mod rings;
pub mod shmem_ipc;
pub mod sockets;
pub mod tokio;
pub mod typed;
pub mod unix_ipc;

use std::io;

/// How each is used, and where there was a choice: for the document.
pub const NOTES: &[(&str, &str)] = &[
    ("bare", bare::NOTE),
    ("std", pipes::STD_NOTE),
    ("os_pipe", pipes::OS_PIPE_NOTE),
    ("interprocess", pipes::INTERPROCESS_NOTE),
    ("ipc-channel", ipc_channel::NOTE),
    ("unix-ipc", unix_ipc::NOTE),
    ("iceoryx2", iceoryx2::NOTE),
    ("shmem-ipc", shmem_ipc::NOTE),
    ("ring, by hand", rings::LIMIT_NOTE),
    ("ipc", ours::NOTE),
    ("ipc, typed", typed::NOTE),
    ("under tokio", tokio::NOTE),
];

/// Both sides of a new channel, if it can be made.
pub type Made<A, B> = io::Result<(A, B)>;

/// Errors of the rivals' own types.
pub fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// A message that ended where none should.
fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
