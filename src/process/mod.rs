//! Processes: forking them with their ends, and waiting for them.

mod child;
mod claim;
mod command;
mod foreign;
mod fork;
mod fork_error;
mod fork_options;
mod given;
mod held;
mod outcome;
mod server;
mod signals;
mod stop;

pub use child::Child;
pub use claim::{claim, claim_number, claimable};
#[cfg(feature = "tokio")]
pub(crate) use command::Conversation;
pub use command::{Command, CommunicateError, SpawnError};
pub use foreign::give_at;
pub use fork::{Forked, fork, fork_raw, fork_unchecked};
pub use fork_error::ForkError;
pub use fork_options::Fork;
#[cfg(feature = "tokio")]
pub(crate) use held::NAPS;
pub use outcome::Outcome;
pub use server::ForkServer;
pub use signals::Signals;
pub use stop::KillOnDrop;
#[cfg(feature = "tokio")]
pub(crate) use stop::{ask, group_goes_on};

#[cfg(fuzzing)]
pub(crate) use claim::described;
#[cfg(fuzzing)]
pub(crate) use given::{describe, parse};
#[cfg(fuzzing)]
pub(crate) use server::fuzz_answer as answer;
