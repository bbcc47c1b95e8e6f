//! Groups as tables: for the terminal, and for the document.

use std::fmt::Write;

use super::scale::{Scale, three_digits};
use crate::probe::Class;
use crate::results::{Group, Series};

/// A group on the terminal, when it is done.
pub fn in_short(group: &Group) -> String {
    let (scale, class) = (Scale::of(&group.work), group.class());
    let mut text = format!("{}, {} ({}; {})\n", group.work, group.case, scale.unit, class.name());
    for series in &group.series {
        let figures = match (&series.left_out, series.summary(class)) {
            (Some(reason), _) => format!("left out: {reason}"),
            (None, None) => format!("no sample with the cores {}", class.name()),
            (None, Some(summary)) => {
                let median = three_digits(scale.value(summary.median, group.bytes));
                let (low, high) = scale.quartiles(&summary, group.bytes);
                let (low, high) = (three_digits(low), three_digits(high));
                let thrown = series.samples.len() - summary.rounds + series.moved as usize;
                format!("{median:>9} ({low}–{high}), {} rounds, {thrown} not used", summary.rounds)
            }
        };
        let _ = writeln!(text, "    {:<32}{figures}", series.name);
    }
    text
}

/// A table with a column for each case, the best figures in bold, and below it what is missing.
pub fn in_columns(groups: &[&Group]) -> String {
    let mut text = String::from("| |");
    for group in groups {
        let class = if group.class() == Class::Far { " (far)" } else { "" };
        let _ = write!(text, " {}{class} |", group.case);
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(groups.len()));
    for name in names(groups) {
        let shown = if super::is_ours(name) { format!("**{name}**") } else { name.to_owned() };
        let cells = groups.iter().map(|group| format!(" {} |", cell(group, name)));
        let _ = writeln!(text, "| {shown} |{}", cells.collect::<String>());
    }
    text.push_str(&missing(groups));
    text
}

/// Every contender of some group, in order.
fn names<'run>(groups: &[&'run Group]) -> Vec<&'run str> {
    let mut names: Vec<&str> = Vec::new();
    for series in groups.iter().flat_map(|group| &group.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    names
}

fn cell(group: &Group, name: &str) -> String {
    let scale = Scale::of(&group.work);
    let Some(summary) = group.summary(name) else { return "–".to_owned() };
    let median = three_digits(scale.value(summary.median, group.bytes));
    let median = if is_best(group, summary.median) { format!("**{median}**") } else { median };
    let (low, high) = scale.quartiles(&summary, group.bytes);
    let p99 = summary.p99.map(|p99| format!(", p99 {}", three_digits(scale.value(p99, group.bytes))));
    format!("{median} ({}–{}){}", three_digits(low), three_digits(high), p99.unwrap_or_default())
}

fn is_best(group: &Group, median: f64) -> bool {
    group.series.iter().filter_map(|series| group.summary(&series.name)).all(|other| other.median >= median)
}

/// The contenders that are not in the table, and why; and how the rounds went.
fn missing(groups: &[&Group]) -> String {
    let mut text = String::new();
    for group in groups {
        for Series { name, left_out, .. } in &group.series {
            if let Some(reason) = left_out {
                let _ = writeln!(text, "\n{name} is missing at {}: {reason}.", group.case);
            } else if group.summary(name).is_none() {
                let _ =
                    writeln!(text, "\n{name} has no round with the cores {} at {}.", group.class().name(), group.case);
            }
        }
    }
    let rounds = groups.iter().flat_map(|group| group.series.iter().filter_map(|series| group.summary(&series.name)));
    let (least, most) = rounds.fold((usize::MAX, 0), |(least, most), it| (least.min(it.rounds), most.max(it.rounds)));
    let moved: u32 = groups.iter().flat_map(|group| &group.series).map(|series| series.moved).sum();
    if most > 0 {
        let rounds = if least == most { format!("{most}") } else { format!("{least} to {most}") };
        let moved = match moved {
            0 => String::new(),
            _ => format!(" The cores moved in {moved} more, which were thrown away."),
        };
        let _ = writeln!(text, "\nMedians of {rounds} rounds (quartiles).{moved}");
    }
    text
}
