//! The rooms behind a feature: typed channels, and the ends for tokio.

#[cfg(feature = "channel")]
mod channel;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tokio")]
mod tokio;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "channel")]
    if let Some(done) = channel::started() {
        return done;
    }
    support::run([
        #[cfg(feature = "channel")]
        channel::trials(),
        #[cfg(feature = "tokio")]
        tokio::trials(),
    ])
}
