//! Processes: forking them with their ends, and waiting for them.

mod child;
mod claim;
mod command;
mod fork;
mod stdio;

pub use child::Child;
pub use claim::{claim, claimable};
pub use command::{Command, SpawnError};
pub use fork::{Fork, ForkError, Forked, Outcome, fork, fork_raw, fork_unchecked};
pub use stdio::Stdio;

#[cfg(fuzzing)]
pub(crate) use claim::{describe, parse};
