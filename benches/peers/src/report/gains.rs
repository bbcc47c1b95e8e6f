//! What a program gains: the few ratios that most people come for.

use std::fmt::Write;
use std::io;
use std::path::Path;

use super::{marks, plots, scale};
use crate::results::Run;
use crate::work::{messages, round_trips, starting, streams};

/// What a program does today, with what, and what it could do.
struct Gain {
    today: &'static str,
    work: &'static str,
    case: &'static str,
    beside: &'static str,
    ours: &'static str,
    how: &'static str,
}

const GAINS: [Gain; 7] = [
    Gain {
        today: "A million messages of 16 B, one by one",
        work: messages::WORK,
        case: "16 B",
        beside: "UnixDatagram",
        ours: "ipc packed datagrams",
        how: "`packed` puts many of them into one datagram",
    },
    Gain {
        today: "Typed values of 16 B",
        work: messages::WORK,
        case: "16 B",
        beside: "ipc-channel, typed",
        ours: "ipc typed, packed",
        how: "`Sender` over a packed link",
    },
    Gain {
        today: "A stream, 64 KiB at a time",
        work: streams::WORK,
        case: "64 KiB",
        beside: "std::io::pipe",
        ours: "ipc pipe",
        how: "nothing but `ipc::pipe()`: long writes are cut",
    },
    Gain {
        today: "The same, where a core may be kept busy",
        work: streams::WORK,
        case: "64 KiB",
        beside: "std::io::pipe",
        ours: "ipc ring",
        how: "`RingWriter` and `RingReader`: no system call while both are awake",
    },
    Gain {
        today: "An answer at once, 16 B there and back",
        work: round_trips::SPINNING,
        case: "16 B",
        beside: "bare pipe, spinning",
        ours: "ipc ring, spin 50 µs",
        how: "a ring with `set_spin`",
    },
    Gain {
        today: "Typed values of 64 KiB",
        work: messages::WORK,
        case: "64 KiB",
        beside: "ipc-channel, typed",
        ours: "ipc typed",
        how: "`ipc::channel()`",
    },
    Gain {
        today: "A program started from a process with 1 GiB",
        work: starting::WORK,
        case: starting::LARGE,
        beside: "bare fork + exec",
        ours: "ipc::Command",
        how: "`Command`, as std's: no page table is copied",
    },
];

impl Gain {
    fn times(&self, run: &Run) -> Option<f64> {
        marks::how_many_times(run, self.work, self.case, self.ours, self.beside).ok().map(|measured| measured.value)
    }
}

/// A row for each, with a column for each run; and a picture of the first run.
pub fn table(runs: &[Run]) -> String {
    let mut text = String::from("| What a program does | today with | with `ipc` |");
    runs.iter().for_each(|run| _ = write!(text, " {} |", run.machine.name()));
    let _ = writeln!(text, "\n|---|---|---|{}", "---:|".repeat(runs.len()));
    for gain in GAINS.iter().filter(|gain| runs.iter().any(|run| gain.times(run).is_some())) {
        let cell = |run| gain.times(run).map_or("–".to_owned(), |times| format!("{}×", scale::three_digits(times)));
        let cells = runs.iter().map(|run| format!(" {} |", cell(run)));
        let Gain { today, beside, how, .. } = gain;
        let _ = writeln!(text, "| {today} | {beside} | {how} |{}", cells.collect::<String>());
    }
    text
}

pub fn draw(run: &Run, file: &Path) -> io::Result<()> {
    let bars =
        GAINS.iter().filter_map(|gain| Some((format!("{}, beside {}", gain.today, gain.beside), gain.times(run)?)));
    plots::draw_ratios(&bars.collect::<Vec<_>>(), "How many times as fast with ipc", file)
}
