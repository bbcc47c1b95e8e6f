//! What is measured: one file for each kind of work.

pub mod calls;
pub mod forking;
pub mod making;
pub mod messages;
pub mod round_trips;
pub mod runtimes;
pub mod serving;
pub mod starting;
pub mod streams;
pub mod values;

use std::io;

use crate::turns::Turns;

/// A kind of work: the name that `--only` knows, and how it is done.
pub type Work = (&'static str, fn(&mut Turns) -> io::Result<()>);

pub const ALL: [Work; 10] = [
    ("streams", streams::run),
    ("messages", messages::run),
    ("values", values::run),
    ("round-trips", round_trips::run),
    ("tokio", runtimes::run),
    ("calls", calls::run),
    ("making", making::run),
    ("forking", forking::run),
    ("starting", starting::run),
    ("serving", serving::run),
];

/// A size, for people.
pub fn size_name(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
