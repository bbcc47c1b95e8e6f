//! Processes: forking them with their ends, and waiting for them.

mod child;
mod claim;
mod command;
mod fork;
mod given;
mod server;

pub use child::Child;
pub use claim::{claim, claimable};
pub use command::{Command, SpawnError};
pub use fork::{Fork, ForkError, Forked, Outcome, fork, fork_raw, fork_unchecked};
pub use server::ForkServer;

#[cfg(fuzzing)]
pub(crate) use given::{describe, parse};
