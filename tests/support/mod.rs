//! What the tests that start processes stand on.
//!
//! Each test runs in a process of its own, which is watched: a hang, a descriptor or an end that stays open, a child that
//! nobody waited for, and a process that outlives the test are failures like a panic is. A binary of tests says
//! `harness = false`, and runs what its modules have:
//!
//! ```ignore
//! #[path = "../support/mod.rs"]
//! mod support;
//! mod pipes;
//!
//! fn main() -> std::process::ExitCode {
//!     support::run([pipes::trials()])
//! }
//! ```
//!
//! A module lists its tests:
//!
//! ```ignore
//! pub fn trials() -> Vec<Trial> {
//!     support::trials![what_must_hold, what_takes_long within 60, what_a_program_says needs [STRACE]]
//! }
//! ```

// No binary uses all of this.
#![allow(dead_code, unused_imports, unused_macros)]

mod compiler;
mod deadlines;
mod descriptors;
mod handed;
mod held;
mod inventory;
mod kernel;
mod machines;
mod messages;
pub mod needs;
mod pipes;
mod places;
mod processes;
mod programs;
mod rounds;
mod runner;
mod signals;
mod strace;
mod traced;
mod trial;

use std::fmt::Debug;
use std::time::Duration;

pub use compiler::Compiler;
pub use deadlines::{FAR, assert_timed_out, assert_times_out, assert_unwinding_does_not_wait};
pub use descriptors::{
    FLAGS_OF_PARENTS_PIPES, assert_none_is_nonblocking, closed_standard_descriptors, descriptor_flags,
    limit_descriptors, named_fifo, spliced_once, status_flags,
};
pub use handed::{MADE_HERE, handed};
pub use held::{Held, hold_calls, hold_calls_with};
pub use inventory::{Inventory, await_orphans, await_whoever_is_left};
pub use kernel::{
    Is, Kernel, RWF_NOSIGNAL, RWF_NOWAIT, WithoutProc, has_nosignal, has_nowait, heeds_flags, huge_memory, own_mounts,
    own_network, own_pids, refuse_calls, refuse_flags, refuses_rights, sends_urgent_bytes, userfaults,
};
pub use machines::Machine;
pub use messages::{assert_all_arrive, assert_ends_are_told, assert_next, assert_same, message};
pub use pipes::{become_nobody, exhaust_pipe_pages, fill, is_root, kinds, pipe_setting, read_all, read_some, refused};
pub use places::{
    ReadSide, SOURCES, Source, TARGETS, Target, WriteSide, bytes, channel, disk_file, memory_file, source, target,
    tcp_pair,
};
pub use processes::{
    Gate, asleep_in, children, children_of, exit_code, limit, own_size, panics, poll_until, process_state,
    processor_time, run_on_core, traced_zombie,
};
pub use programs::{Folder, example, python};
pub use rounds::rounds;
pub use runner::{Trial, joined, run};
pub use signals::{
    Sigpipe, block_signal, handle_signal, handled, is_pending, signal_mask, sigpipe, take_pending, with_interval_timer,
};
pub(crate) use strace::traced;
pub use strace::{Later, TRACED, Traced, measured, run_traced, sealing_under_strace, traced_calls, traced_trials};
pub use traced::{Left, Open, open_when_leaving};
pub use trial::judge;

/// How long a test may take unless it says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a helper waits for what is about to happen, before it calls that a failure.
pub const SOON: Duration = Duration::from_secs(if cfg!(sanitizers) { 120 } else { 30 });

/// What a test returns.
pub trait Verdict {
    fn verdict(self) -> Result<(), String>;
}

impl Verdict for () {
    fn verdict(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Debug> Verdict for Result<(), E> {
    fn verdict(self) -> Result<(), String> {
        self.map_err(|error| format!("Error: {error:?}"))
    }
}

/// Tests from functions: `trials![one, another within 60, a_third needs [STRACE]]`, the number being the seconds that it may
/// take, and the list what not every machine has (see [`Need`]).
macro_rules! trials {
    ($($name:ident $(needs [$($need:expr),* $(,)?])? $(within $seconds:literal)?),* $(,)?) => {{
        #[allow(unused_imports)]
        use $crate::support::needs::{Need::*, *};
        vec![$($crate::support::Trial::new(
            module_path!(),
            stringify!($name),
            [$(std::time::Duration::from_secs($seconds),)? $crate::support::LIMIT][0],
            $name,
        )$(.needs([$($need),*]))?),*]
    }};
}
pub(crate) use trials;
