//! Processes: forking them with their ends, and waiting for them.

mod child;
mod claim;
mod command;
mod fork;
mod given;

pub use child::{Child, KillOnDrop};
pub use claim::{claim, claimable};
pub use command::{Command, CommunicateError, SpawnError};
pub use fork::{Fork, ForkError, Forked, Outcome, fork, fork_raw, fork_unchecked};

#[cfg(fuzzing)]
pub(crate) use given::{describe, parse};
