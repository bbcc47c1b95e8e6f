//! Random sequences of operations, on ends in two processes and with a fork server's workers, answer as simple models do: of a
//! pipe, a ring, a typed channel, a pair for messages, a pair for bytes, and a fork server. Every result, every byte, and every
//! error is compared (P3–P5, P8).
//!
//! `IPC_TESTS_ROUNDS=50 cargo test --test fire model` tries so many times as many. One that fails is shown as short as it
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
use crate::support::{Is, Kernel, RWF_NOWAIT, SOON, Trial, refuse_flags, rounds};

/// Sequences of each kind, and steps in one of them. Those of a server start a process each, and one at most steps.
const CASES: u64 = 60;
const SERVERS: u64 = 25;
const STEPS: usize = 60;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("pipes_answer_as_the_model_does", || try_all(pipe::op(), pipe::try_steps)),
        trial("pipes_of_an_older_kernel_answer_as_the_model_does", || {
            refuse_flags(RWF_NOWAIT);
            try_all(pipe::op(), pipe::try_steps)
        }),
        trial("rings_answer_as_the_model_does", || try_all(ring::op(), ring::try_steps)),
        #[cfg(feature = "channel")]
        trial("channels_answer_as_the_model_does", || try_all(values::op(), values::try_steps)),
        trial("message_pairs_answer_as_the_model_does", || {
            try_all(socket::op(), |ops, here| socket::try_steps(true, ops, here))
        }),
        trial("stream_pairs_answer_as_the_model_does", || {
            try_all(socket::op(), |ops, here| socket::try_steps(false, ops, here))
        }),
        trial("fork_servers_answer_as_the_model_does", || try_cases(SERVERS, server::op(), of_server)),
        trial("fork_servers_in_a_sandbox_answer_as_the_model_does", || {
            // Workers are children of the server's.
            let refused = Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PARENT as u32), libc::EPERM);
            refused.without(libc::SYS_clone3, libc::ENOSYS).play();
            try_cases(SERVERS, server::op(), of_server)
        }),
    ]
}

/// A server has no side in the other process.
fn of_server(ops: &[(server::Op, usize)], _: [bool; 2]) -> TestCaseResult {
    server::follow(ops)
}

fn config(cases: u64) -> ProptestConfig {
    let cases = rounds(cases) as u32;
    // There is one place for what failed: the test that is written of it.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

fn trial(name: &str, body: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    let limit = Duration::from_secs(60) + Duration::from_millis(200) * config(CASES).cases;
    Trial::of(module_path!(), name, limit, Box::new(body))
}

/// Sequences of these steps, each side's first handle in this process or in the other.
fn try_all<S: Strategy>(op: S, try_steps: impl Fn(&[S::Value], [bool; 2]) -> TestCaseResult) -> Result<(), String> {
    try_cases(CASES, op, try_steps)
}

fn try_cases<S: Strategy>(
    cases: u64,
    op: S,
    try_steps: impl Fn(&[S::Value], [bool; 2]) -> TestCaseResult,
) -> Result<(), String> {
    let steps = (prop::collection::vec(op, 1..STEPS), any::<[bool; 2]>());
    TestRunner::new(config(cases)).run(&steps, |(ops, here)| try_steps(&ops, here)).map_err(|wrong| wrong.to_string())
}
