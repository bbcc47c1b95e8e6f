//! Stub of the front door.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("ipc is for Linux: it stands on what the Linux kernel does. See docs/platforms.md.");

mod end;
mod error;
mod pipe;
mod process;
mod socket;
mod sys;
mod wait;

pub use end::{Ends, FromFdError, open_ends};
pub use error::{Error, Result};
pub use pipe::{PIPE_BUF, PipeFlags, PipeReader, PipeWriter, pipe, pipe_with};
pub use process::{Child, Fork, ForkError, Forked, Outcome, fork, fork_here, fork_unchecked};
pub use socket::{Credentials, DatagramFlags, DatagramPair, DatagramSocket, datagram_pair, datagram_pair_with};
pub use wait::{Ready, Wait, wait_any};
