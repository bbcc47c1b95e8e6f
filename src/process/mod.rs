//! Processes: forking them with their ends, and waiting for them.

mod child;
mod fork;

pub use child::Child;
pub use fork::{Fork, ForkError, Forked, Outcome, fork, fork_here, fork_unchecked};
