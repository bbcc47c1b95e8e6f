//! The worker: the same on a fork, over TCP, over ZeroMQ, and behind a service.

use ipc::{Link, Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::count::Counter;

/// A piece of a file, which ends where a word does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub number: u64,
    /// Which file it is of.
    pub file: u32,
    #[serde(with = "serde_bytes")]
    pub text: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub number: u64,
    pub words: u64,
}

/// Counts what comes until there is no more.
pub fn work(jobs: Receiver<Job, impl Link>, results: Sender<Done, impl Link>) -> ipc::Result<()> {
    for job in jobs.iter() {
        let Job { number, text, .. } = job?;
        let mut counter = Counter::new();
        counter.read(&text[..], |_| true)?;
        results.send(Done { number, words: counter.words() })?;
        results.flush()?;
    }
    results.close()
}
