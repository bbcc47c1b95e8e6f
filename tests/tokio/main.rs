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
#[path = "../support/mod.rs"]
mod support;
mod watching;

use std::process::ExitCode;

fn main() -> ExitCode {
    // What this program does where a test has started it.
    #[cfg(feature = "channel")]
    if std::env::var_os(channels::SEALS).is_some() {
        channels::send_to_oneself();
        return ExitCode::SUCCESS;
    }
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
    // The first runtime opens two sockets for signals, which stay.
    support::run([trials.into_iter().map(|trial| trial.keeping(|| drop(on_one_thread()))).collect()])
}

/// A runtime on the calling thread.
fn on_one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime with two threads of its own.
fn on_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
