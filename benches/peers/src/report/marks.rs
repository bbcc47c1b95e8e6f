//! The marks that the crate is held to, and whether the runs met them.

use std::fmt::Write;

use super::scale::{short, three_digits};
use crate::probe::Class;
use crate::results::Run;
use crate::work::{calls, messages, round_trips, runtimes, serving, streams, values};

/// What a ratio or a time must be.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

struct Mark {
    what: String,
    wanted: Wanted,
    unit: &'static str,
    /// Only in one process or on one core: it does not matter how far the other one is.
    alone: bool,
    measured: Result<Measured, &'static str>,
}

pub struct Measured {
    pub value: f64,
    class: Class,
    rounds: usize,
}

/// Nanoseconds of the sketch that `set_spin` is held to, and the machine on which it ran.
const SKETCH: f64 = 1302.0;
const SKETCHED_ON: &str = "AMD EPYC";

/// A row for each mark, a column for each run.
pub fn table(runs: &[Run]) -> String {
    let mut text = String::from("| | must be |");
    runs.iter().for_each(|run| _ = write!(text, " {} |", run.machine.name()));
    let _ = writeln!(text, "\n|---|---:|{}", "---|".repeat(runs.len()));
    let mut columns: Vec<_> = runs.iter().map(|run| all(run).into_iter()).collect();
    while let Some(row) = columns.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
        let Mark { what, wanted, unit, .. } = &row[0];
        let (sign, limit) = match wanted {
            Wanted::AtLeast(limit) => ('≥', limit),
            Wanted::AtMost(limit) => ('≤', limit),
        };
        let cells = row.iter().map(|mark| format!(" {} |", mark.cell()));
        let _ = writeln!(text, "| {what} | {sign} {}{unit} |{}", short(*limit), cells.collect::<String>());
    }
    text
}

/// What the marks are, and how many of them each run met.
pub fn summary(runs: &[Run]) -> String {
    let mut text = String::from("The crate is held to these ratios. `1×` is as fast, `2×` twice as fast.\n\n");
    for run in runs {
        let marks = all(run);
        let count = |wanted: Option<Verdict>| marks.iter().filter(|mark| mark.verdict() == wanted).count();
        let _ = writeln!(
            text,
            "- {}: {} of {} are met, {} are not. {} were not judged, as the cores were far, and {} not measured.",
            run.machine.name(),
            count(Some(Verdict::Met)),
            marks.len(),
            count(Some(Verdict::NotMet)),
            count(Some(Verdict::Far)),
            count(None),
        );
    }
    text
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Met,
    NotMet,
    /// Measured with far cores, so not judged.
    Far,
}

impl Mark {
    /// `None` if it was not measured.
    fn verdict(&self) -> Option<Verdict> {
        let Measured { value, class, .. } = self.measured.as_ref().ok()?;
        Some(match self.wanted {
            _ if *class == Class::Far && !self.alone => Verdict::Far,
            Wanted::AtLeast(limit) if *value >= limit => Verdict::Met,
            Wanted::AtMost(limit) if *value <= limit => Verdict::Met,
            _ => Verdict::NotMet,
        })
    }

    /// What was measured, and whether that is enough.
    fn cell(&self) -> String {
        let Measured { value, rounds, .. } = match &self.measured {
            Err(reason) => return (*reason).to_owned(),
            Ok(measured) => measured,
        };
        let verdict = match self.verdict() {
            Some(Verdict::Met) => "met",
            Some(Verdict::NotMet) => "**not met**",
            Some(Verdict::Far) | None => "not judged: the cores were far",
        };
        format!("{}{}, {verdict} ({rounds} rounds)", three_digits(*value), self.unit)
    }
}

fn all(run: &Run) -> Vec<Mark> {
    use Wanted::{AtLeast, AtMost};
    let speed = |what: &str, work, case, ours, beside, wanted| {
        let measured = how_many_times(run, work, case, ours, beside);
        let alone = work == calls::BYTES || work == calls::MESSAGES;
        let what = match work {
            values::STRUCTS => format!("{what}, structures"),
            values::BYTES => format!("{what}, bytes"),
            _ => what.to_owned(),
        };
        Mark { what: format!("{what}, {case}: `{ours}` beside `{beside}`"), wanted, unit: "×", alone, measured }
    };
    let mut marks = Vec::new();
    for case in ["16 B", "4 KiB"] {
        marks.push(speed("A write and a read", calls::BYTES, case, "ipc pipe", "bare pipe", AtLeast(0.95)));
    }
    for case in ["16 B", "4 KiB"] {
        let wanted = AtLeast(0.95);
        marks.push(speed("A send and a receive", calls::MESSAGES, case, "ipc datagram", "bare seqpacket", wanted));
    }
    for case in ["64 KiB", "1 MiB"] {
        marks.push(speed("A stream", streams::WORK, case, "ipc pipe", "std::io::pipe", AtLeast(7.0)));
    }
    for case in ["64 B", "1 KiB"] {
        let (ours, beside) = ("ipc pipe, buffered", "std::io::pipe + BufWriter");
        marks.push(speed("Small writes through a buffer", streams::WORK, case, ours, beside, AtLeast(1.0)));
    }
    for ours in ["ipc packed datagrams", "ipc message pipe"] {
        marks.push(speed("Packed messages", messages::WORK, "16 B", ours, "UnixDatagram", AtLeast(60.0)));
    }
    for case in ["1 KiB", "4 KiB", "64 KiB", "1 MiB"] {
        marks.push(speed("A ring", streams::WORK, case, "ipc ring", "ring, by hand, spinning", AtLeast(0.9)));
        for rival in ["shmem-ipc", "iceoryx2", "UnixStream"] {
            marks.push(speed("A ring", streams::WORK, case, "ipc ring", rival, AtLeast(1.0)));
        }
        let pipe = fastest(run, streams::WORK, case, &PIPES);
        let mark = speed("", streams::WORK, case, "ipc ring", pipe, AtLeast(3.0));
        marks.push(Mark { what: format!("A ring, {case}: `ipc ring` beside the best bare pipe"), ..mark });
    }
    for (case, wanted) in [("16 B", 3.0), ("256 B", 1.0), ("4 KiB", 1.0)] {
        let rival = fastest(run, messages::WORK, case, &RIVALS);
        let mark = speed("", messages::WORK, case, "ipc ring, messages", rival, AtLeast(wanted));
        marks.push(Mark {
            what: format!("A ring, {case}: `ipc ring, messages` beside the fastest other crate"),
            ..mark
        });
    }
    marks.push(speed("A ring on one shared core", streams::ONE_CORE, "64 KiB", "ipc ring", "bare pipe", AtLeast(1.0)));
    for (case, by_hand, rival) in
        [("16 B", true, 1.2), ("4 KiB", true, 1.5), ("64 KiB", true, 1.5), ("1 MiB", false, 2.0)]
    {
        for work in [values::STRUCTS, values::BYTES] {
            if by_hand {
                marks.push(speed("Values", work, case, "ipc typed", "postcard by hand over ipc", AtLeast(0.9)));
            }
            marks.push(speed("Values", work, case, "ipc typed", "ipc-channel, typed", AtLeast(rival)));
        }
    }
    marks.push(speed("Values", values::STRUCTS, "16 B", "ipc typed, packed", "ipc-channel, typed", AtLeast(20.0)));
    let round_trip = |work, ours, beside, wanted| speed("A round trip", work, "16 B", ours, beside, AtLeast(wanted));
    marks.push(round_trip(round_trips::SPINNING, "ipc ring, spin 50 µs", "ring, by hand, spinning", 1.0 / 1.2));
    marks.push(round_trip(round_trips::SPINNING, "ipc ring, spin 50 µs", "bare pipe, spinning", 2.5));
    marks.push(round_trip(round_trips::SLEEPING, "ipc ring, no spin", "bare pipe", 1.0 / 1.1));
    let one_core = "A round trip on one shared core";
    marks.push(speed(one_core, round_trips::ONE_CORE, "16 B", "ipc ring", "bare pipe", AtLeast(1.0 / 1.2)));
    marks.extend(
        under_tokio().map(|(what, work, case, ours, beside)| speed(what, work, case, ours, beside, AtLeast(0.95))),
    );
    let spinning = "ipc pipe, spin 50 µs";
    marks.push(Mark {
        what: format!("A round trip, 16 B: `{spinning}`, 1.1 times the sketch"),
        wanted: AtMost(1.1 * SKETCH),
        unit: " ns",
        alone: false,
        measured: if run.machine.name().starts_with(SKETCHED_ON) {
            median(run, round_trips::SPINNING, "16 B", spinning)
        } else {
            Err("the sketch ran on another machine")
        },
    });
    marks.push(Mark {
        what: format!("A round trip on one shared core, 16 B: the time of `{spinning}`, in times of `ipc pipe`"),
        wanted: AtMost(1.2),
        unit: "×",
        alone: true,
        measured: how_many_times(run, round_trips::ONE_CORE, "16 B", "ipc pipe", spinning),
    });
    for case in serving::CASES {
        marks.push(Mark {
            what: format!(
                "A worker of a program, {case}: the time of `{}`, in times of `{}`",
                serving::SERVER,
                serving::FORK
            ),
            wanted: AtMost(1.5),
            unit: "×",
            alone: true,
            measured: how_many_times(run, serving::WORK, case, serving::FORK, serving::SERVER),
        });
    }
    marks
}

/// What is awaited, its work and its case, and which two are compared.
fn under_tokio() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str, &'static str)> {
    const PAIRS: [(&str, &str); 4] = [
        ("ipc pipe", "tokio::net::unix::pipe"),
        ("ipc stream pair", "tokio::net::UnixStream"),
        ("ipc datagram", "tokio::net::UnixDatagram"),
        ("ipc datagram", "tokio-seqpacket"),
    ];
    let streams = ["64 B", "4 KiB", "64 KiB"].into_iter().flat_map(move |case| {
        PAIRS[..2].iter().map(move |(ours, beside)| ("A stream under tokio", runtimes::STREAMS, case, *ours, *beside))
    });
    let messages = ["16 B", "4 KiB"].into_iter().flat_map(move |case| {
        PAIRS[2..].iter().map(move |(ours, beside)| ("Messages under tokio", runtimes::MESSAGES, case, *ours, *beside))
    });
    let trips = ["16 B", "4 KiB"].into_iter().flat_map(move |case| {
        PAIRS
            .iter()
            .map(move |(ours, beside)| ("A round trip under tokio", runtimes::ROUND_TRIPS, case, *ours, *beside))
    });
    let many = ("A thousand ends under tokio", runtimes::MANY, "16 B", "ipc stream pair", "tokio::net::UnixStream");
    let programs = ["16 B", "1 MiB"].into_iter().map(|case| {
        ("A talk with a program under tokio", runtimes::PROGRAMS, case, "ipc::tokio::communicate", "tokio::process")
    });
    streams.chain(messages).chain(trips).chain([many]).chain(programs)
}

/// Returns how many times as fast `ours` is: the time of `beside`, in times of ours. Both in one group, so in turns.
pub fn how_many_times(run: &Run, work: &str, case: &str, ours: &str, beside: &str) -> Result<Measured, &'static str> {
    let (ours, beside) = (median(run, work, case, ours)?, median(run, work, case, beside)?);
    Ok(Measured { value: beside.value / ours.value, rounds: ours.rounds.min(beside.rounds), ..ours })
}

/// Bare pipes, of any capacity and any cut.
const PIPES: [&str; 4] =
    ["bare pipe", "bare pipe, 1 MiB capacity", "bare pipe, cut to 8 KiB", "bare pipe, 256 KiB capacity, cut to 64 KiB"];

/// Other crates that pass messages.
const RIVALS: [&str; 6] =
    ["shmem-ipc", "iceoryx2", "ipc-channel, bytes", "ipc-channel, typed", "unix-ipc, raw", "unix-ipc, typed"];

/// The one of several that took the least time, or the first if none was measured.
fn fastest(run: &Run, work: &str, case: &str, names: &[&'static str]) -> &'static str {
    let time = |name: &str| median(run, work, case, name).map_or(f64::INFINITY, |measured| measured.value);
    names.iter().copied().min_by(|one, other| time(one).total_cmp(&time(other))).unwrap_or(names[0])
}

/// In nanoseconds.
fn median(run: &Run, work: &str, case: &str, name: &str) -> Result<Measured, &'static str> {
    let group = run.group(work, case).ok_or("not measured")?;
    let summary = group.summary(name).ok_or("not measured")?;
    Ok(Measured { value: summary.median, class: group.class(), rounds: summary.rounds })
}
