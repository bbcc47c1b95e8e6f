//! Random sequences of operations, on ends in two processes and with a fork server's workers, answer what simple models of a pipe, a
//! ring, a typed channel, a pair for messages, a pair for bytes and a fork server answer: every result, every byte, and every error (P3–P5, P8).
//!
//! `PROPTEST_CASES=5000 cargo test --test fire model` tries so many sequences of each. One that fails is shown as short as it
//! could be made.

mod partner;
mod pipe;
mod ring;
mod server;
mod socket;
#[cfg(feature = "channel")]
mod values;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use crate::rounds::{content, random};
use crate::support::{Is, Kernel, RWF_NOWAIT, SOON, Trial, refuse_flags};

/// Sequences of each kind, unless somebody says otherwise, and steps in one of them.
const CASES: u32 = 150;
const STEPS: usize = 60;

pub fn trials() -> Vec<Trial> {
    let where_they_are = || (any::<bool>(), any::<bool>());
    vec![
        trial("pipes_answer_as_the_model_does", move || {
            try_all((prop::collection::vec(pipe::op(), 1..STEPS), where_they_are()), |(ops, (reader, writer))| {
                pipe::follow(&ops, reader, writer)
            })
        }),
        trial("pipes_of_an_older_kernel_answer_as_the_model_does", move || {
            refuse_flags(RWF_NOWAIT);
            try_all((prop::collection::vec(pipe::op(), 1..STEPS), where_they_are()), |(ops, (reader, writer))| {
                pipe::follow(&ops, reader, writer)
            })
        }),
        trial("rings_answer_as_the_model_does", move || {
            try_all((prop::collection::vec(ring::op(), 1..STEPS), where_they_are()), |(ops, (reader, writer))| {
                ring::follow(&ops, reader, writer)
            })
        }),
        #[cfg(feature = "channel")]
        trial("channels_answer_as_the_model_does", move || {
            try_all((prop::collection::vec(values::op(), 1..STEPS), where_they_are()), |(ops, (sender, receiver))| {
                values::follow(&ops, sender, receiver)
            })
        }),
        trial("message_pairs_answer_as_the_model_does", move || {
            try_all((prop::collection::vec(socket::op(), 1..STEPS), where_they_are()), |(ops, (first, second))| {
                socket::follow(true, &ops, [first, second])
            })
        }),
        trial("stream_pairs_answer_as_the_model_does", move || {
            try_all((prop::collection::vec(socket::op(), 1..STEPS), where_they_are()), |(ops, (first, second))| {
                socket::follow(false, &ops, [first, second])
            })
        }),
        trial("fork_servers_answer_as_the_model_does", || {
            try_all(prop::collection::vec(server::op(), 1..STEPS), of_server)
        }),
        trial("fork_servers_in_a_sandbox_answer_as_the_model_does", || {
            // Workers are children of the server's.
            let refused = Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PARENT as u32), libc::EPERM);
            refused.without(libc::SYS_clone3, libc::ENOSYS).play();
            try_all(prop::collection::vec(server::op(), 1..STEPS), of_server)
        }),
    ]
}

fn of_server(ops: Vec<(server::Op, usize)>) -> TestCaseResult {
    server::follow(&ops)
}

/// So many, or as the environment says.
fn config() -> ProptestConfig {
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default().cases,
        None => CASES,
    };
    // There is one place for what failed: the test that is written of it.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

fn trial(name: &str, body: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    let limit = Duration::from_secs(60) + Duration::from_millis(200) * config().cases;
    Trial::new(module_path!(), name, limit, body)
}

fn try_all<S: Strategy>(steps: S, follow: impl Fn(S::Value) -> TestCaseResult) -> Result<(), String> {
    TestRunner::new(config()).run(&steps, follow).map_err(|wrong| wrong.to_string())
}
