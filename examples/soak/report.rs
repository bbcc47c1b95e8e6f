//! The output for a person: a line while the run goes on, and a table in the end.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::Worker;
use super::fire::board::{Board, Counter};

/// The line is shown so often on a terminal, and else so often.
const REDRAW: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(10);

/// One of the counters.
type Count = fn(&Board) -> &Counter;

pub struct Report {
    started: Instant,
    next: Instant,
    terminal: bool,
}

impl Report {
    pub fn new(started: Instant) -> Self {
        Self { started, next: started, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows how far it is, when it is time to.
    pub fn line(&mut self, workers: &[Worker]) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + if self.terminal { REDRAW } else { LINES };
        let seconds = self.started.elapsed().as_secs();
        let sum = |counter: Count| grouped(total(workers, counter));
        let line = format!(
            "{:02}:{:02}:{:02}  {} rounds  {} kills  {} messages  {}  {} ends passed",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            sum(|board| &board.rounds),
            sum(|board| &board.kills),
            sum(|board| &board.messages),
            size(total(workers, |board| &board.bytes)),
            sum(|board| &board.ends),
        );
        let mut stderr = std::io::stderr().lock();
        // Where nobody can be told, it goes on all the same.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    /// Prints what was done, in all and in a second.
    pub fn table(&self, workers: &[Worker]) {
        let took = self.started.elapsed();
        let rows: [(&str, Count); 14] = [
            ("rounds", |board| &board.rounds),
            ("processes killed", |board| &board.kills),
            ("kills seen by a peer", |board| &board.partings),
            ("  of these as a reset", |board| &board.resets),
            ("processes forked", |board| &board.forks),
            ("programs started", |board| &board.programs),
            ("messages received", |board| &board.messages),
            ("typed values received", |board| &board.values),
            ("orders done by workers", |board| &board.orders),
            ("bytes received", |board| &board.bytes),
            ("ends received", |board| &board.ends),
            ("signals", |board| &board.signals),
            ("calls refused and repeated", |board| &board.refusals),
            ("deadlines", |board| &board.deadlines),
        ];
        let mut table = format!("{:<30}{:>18}{:>14}\n", format!("in {:.1?}", took), "in all", "a second");
        for (name, counter) in rows {
            let count = total(workers, counter);
            let rate = (count as f64 / took.as_secs_f64()) as u64;
            line(&mut table, format_args!("{name:<30}{:>18}{:>14}", grouped(count), grouped(rate)));
        }
        let most = |counter: Count| workers.iter().map(|worker| counter(worker.board).get()).max();
        let micros = |most: Option<u64>| format!("{:.1?}", Duration::from_micros(most.unwrap_or(0)));
        let slowest = micros(most(|board| &board.slowest));
        line(&mut table, format_args!("{:<30}{slowest:>18}", "a kill was seen after, at most"));
        let latest = micros(most(|board| &board.latest));
        line(&mut table, format_args!("{:<30}{latest:>18}", "a deadline was late by, at most"));
        // The exit status says how it went, also where nobody reads.
        let _ = std::io::stdout().write_all(table.as_bytes());
    }
}

fn line(table: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(table, "{line}");
}

fn total(workers: &[Worker], counter: Count) -> u64 {
    workers.iter().map(|worker| counter(worker.board).get()).sum()
}

/// With a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].iter();
    let mut unit = units.next().expect("a unit");
    for larger in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}
