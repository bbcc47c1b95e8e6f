//! Starting programs as a supervisor needs it: groups, sessions, users, limits, talking with a deadline, and a process that
//! is held from its first moment.

mod among_threads;
mod descriptors;
mod groups;
mod options;
mod talking;
mod without_clone;

use crate::support::{self, Trial};
use ipc::{Command, Error};

pub use without_clone::started;

pub fn trials() -> Vec<Trial> {
    support::joined([
        among_threads::trials(),
        descriptors::trials(),
        groups::trials(),
        options::trials(),
        talking::trials(),
        without_clone::trials(),
    ])
}

fn sh(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

fn said(command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn errno(error: &Error) -> (&'static str, i32) {
    match error {
        Error::System { call, source } => (call, source.raw_os_error().unwrap()),
        Error::NotStarted { error, .. } => errno(error),
        other => panic!("{other:?}"),
    }
}
