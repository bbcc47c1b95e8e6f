//! The ratios that most people come for: what a program gains.

use std::fmt::Write;
use std::io;
use std::path::Path;

use super::{marks, plots, scale};
use crate::results::Run;
use crate::work::{messages, round_trips, starting, streams, values};

/// A program, with what it works today, and what it would change to.
struct Gain {
    program: &'static str,
    work: &'static str,
    case: &'static str,
    beside: &'static str,
    ours: &'static str,
    change: &'static str,
}

const GAINS: [Gain; 7] = [
    Gain {
        program: "sends messages of 16 B, one by one",
        work: messages::WORK,
        case: "16 B",
        beside: "UnixDatagram",
        ours: "ipc packed datagrams",
        change: "`PackedSocket`: many messages in one datagram",
    },
    Gain {
        program: "sends typed values of 16 B",
        work: values::STRUCTS,
        case: "16 B",
        beside: "ipc-channel, typed",
        ours: "ipc typed, packed",
        change: "`Sender` over a `PackedSocket`",
    },
    Gain {
        program: "sends typed values of 64 KiB",
        work: values::STRUCTS,
        case: "64 KiB",
        beside: "ipc-channel, typed",
        ours: "ipc typed",
        change: "`ipc::channel()`",
    },
    Gain {
        program: "writes a stream, 64 KiB at a time",
        work: streams::WORK,
        case: "64 KiB",
        beside: "std::io::pipe",
        ours: "ipc pipe",
        change: "`ipc::pipe()`, which cuts long writes",
    },
    Gain {
        program: "writes it, and may keep a core busy",
        work: streams::WORK,
        case: "64 KiB",
        beside: "std::io::pipe",
        ours: "ipc ring",
        change: "`RingWriter` and `RingReader`: no system call while both sides are awake",
    },
    Gain {
        program: "asks, and spins until 16 B come back",
        work: round_trips::SPINNING,
        case: "16 B",
        beside: "bare pipe, spinning",
        ours: "ipc ring, spin 50 µs",
        change: "a ring with `set_spin`",
    },
    Gain {
        program: "has 1 GiB in memory and starts programs",
        work: starting::WORK,
        case: starting::LARGE,
        beside: "bare fork + exec",
        ours: "ipc::Command",
        change: "`Command`, which copies no page table (nor does the standard library's)",
    },
];

impl Gain {
    fn times(&self, run: &Run) -> Option<f64> {
        marks::how_many_times(run, self.work, self.case, self.ours, self.beside).ok().map(|measured| measured.value)
    }
}

/// A row for each, with a column for each run; and a picture of the first run.
pub fn table(runs: &[Run]) -> String {
    let mut text = String::from("| A program that… | works today with | and would change to |");
    runs.iter().for_each(|run| _ = write!(text, " {} |", run.machine.name()));
    let _ = writeln!(text, "\n|---|---|---|{}", "---:|".repeat(runs.len()));
    for gain in GAINS.iter().filter(|gain| runs.iter().any(|run| gain.times(run).is_some())) {
        let cell = |run| gain.times(run).map_or("–".to_owned(), |times| format!("{}×", scale::three_digits(times)));
        let cells = runs.iter().map(|run| format!(" {} |", cell(run)));
        let Gain { program, beside, change, .. } = gain;
        let _ = writeln!(text, "| {program} | {beside} | {change} |{}", cells.collect::<String>());
    }
    text
}

pub fn draw(run: &Run, file: &Path) -> io::Result<()> {
    let bars =
        GAINS.iter().filter_map(|gain| Some((format!("{}, beside {}", gain.program, gain.beside), gain.times(run)?)));
    plots::draw_ratios(&bars.collect::<Vec<_>>(), "How many times as fast with ipc", file)
}
