//! The ends for tokio: the promises of the blocking ends hold, nothing is lost when a future is dropped, and `O_NONBLOCK` is
//! left alone.

#[cfg(feature = "channel")]
mod cancelled;
#[cfg(feature = "channel")]
mod channels;
mod children;
mod ends;
mod messages;
mod programs;
mod rings;
mod watching;

use std::process::ExitCode;

use crate::support::{self, Trial};

/// What this program does where a test of this area has started it.
pub fn started() -> Option<ExitCode> {
    #[cfg(feature = "channel")]
    if std::env::var_os(channels::SEALS).is_some() {
        channels::send_to_oneself();
        return Some(ExitCode::SUCCESS);
    }
    None
}

pub fn trials() -> Vec<Trial> {
    let trials = support::joined([
        #[cfg(feature = "channel")]
        cancelled::trials(),
        #[cfg(feature = "channel")]
        channels::trials(),
        children::trials(),
        ends::trials(),
        messages::trials(),
        programs::trials(),
        rings::trials(),
        watching::trials(),
    ]);
    trials.into_iter().map(Trial::with_tokio).collect()
}

/// A runtime on the calling thread.
fn on_one_thread() -> ::tokio::runtime::Runtime {
    ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime with two threads of its own.
fn on_threads() -> ::tokio::runtime::Runtime {
    ::tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
