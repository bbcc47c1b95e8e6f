//! What the tests that start processes stand on.
//!
//! Each test runs in a process of its own, which is watched: a hang, a descriptor or an end that stays open, a child that
//! nobody waited for, and a process that outlives the test are failures like a panic is. A binary of tests says
//! `harness = false` and
//!
//! ```ignore
//! mod support;
//!
//! fn main() -> std::process::ExitCode {
//!     support::run(support::trials![what_must_hold, what_takes_long within 60])
//! }
//! ```

// No binary uses all of this.
#![allow(dead_code, unused_imports, unused_macros)]

mod deadlines;
mod descriptors;
mod inventory;
mod kernel;
mod messages;
mod pipes;
mod places;
mod processes;
mod programs;
mod signals;
mod strace;
mod traced;
mod trial;

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

pub use deadlines::{FAR, assert_times_out};
pub use descriptors::{
    closed_standard_descriptors, descriptor_flags, limit_descriptors, named_fifo, spliced_once, status_flags,
};
pub use inventory::{Inventory, await_orphans};
pub use kernel::{
    Is, Kernel, RWF_NOSIGNAL, RWF_NOWAIT, WithoutProc, has_nosignal, has_nowait, refuse_calls, refuse_flags,
};
pub use messages::{assert_next, assert_same, message};
pub use pipes::{become_nobody, exhaust_pipe_pages, fill, kinds, pipe_setting, read_all, read_some, refused};
pub use places::{
    ReadSide, SOURCES, Source, TARGETS, Target, WriteSide, bytes, channel, disk_file, memory_file, source, target,
    tcp_pair,
};
pub use processes::{Gate, asleep_in, exit_code, limit, poll_until, process_state};
pub use programs::{Folder, example};
pub use signals::{
    Sigpipe, block_signal, handle_signal, handled, is_pending, signal_mask, sigpipe, take_pending, with_interval_timer,
};
pub(crate) use strace::traced;
pub use strace::{Later, TRACED, Traced, measured, run_traced, traced_calls};
pub use traced::{Left, Open, open_when_leaving};
pub use trial::judge;

/// How long a test may take unless it says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a helper waits for what is about to happen, before it calls that a failure.
pub const SOON: Duration = Duration::from_secs(30);

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

/// A test as libtest-mimic takes it: [`trials!`] makes them of functions.
pub fn trial<V: Verdict + 'static>(name: &str, limit: Duration, body: fn() -> V) -> libtest_mimic::Trial {
    libtest_mimic::Trial::test(name, move || judge(limit, || body().verdict()).map_err(libtest_mimic::Failed::from))
}

/// Tests from functions: `trials![one, another within 60]`, the number being the seconds that it may take.
macro_rules! trials {
    ($($name:ident $(within $seconds:literal)?),* $(,)?) => {
        vec![$($crate::support::trial(
            stringify!($name),
            [$(std::time::Duration::from_secs($seconds),)? $crate::support::LIMIT][0],
            $name,
        )),*]
    };
}
pub(crate) use trials;

/// Runs the tests that the command line asks for, one after the other.
pub fn run(trials: Vec<libtest_mimic::Trial>) -> ExitCode {
    close_inherited();
    let mut arguments = libtest_mimic::Arguments::from_args();
    // On the main thread, so that there is no other and forking is allowed.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whoever started the tests may have left a descriptor open to them, such as a writer whose reader is gone, and a test that
/// looks at all that a process holds would find it.
fn close_inherited() {
    // SAFETY: numbers. This is the beginning, and nothing in this program has opened anything yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
