//! Processes: forking them with their ends, and waiting for them.

mod child;
mod claim;
mod command;
mod fork;
mod given;
mod kill_on_drop;
mod outcome;
mod server;
mod signals;

pub use child::Child;
pub use claim::{claim, claim_number, claimable};
pub use command::{Command, CommunicateError, SpawnError};
pub use fork::{Fork, ForkError, Forked, fork, fork_raw, fork_unchecked};
pub use kill_on_drop::KillOnDrop;
pub use outcome::Outcome;
pub use server::ForkServer;
pub use signals::Signals;

#[cfg(fuzzing)]
pub(crate) use given::{describe, parse};
