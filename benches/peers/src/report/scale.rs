//! Nanoseconds as what a person asks for.

use crate::results::Summary;
use crate::work::{messages, round_trips, streams, values};

/// In which unit a kind of work is told.
pub struct Scale {
    pub unit: &'static str,
    pub more_is_better: bool,
    of: fn(ns: f64, bytes: f64) -> f64,
}

impl Scale {
    pub fn of(work: &str) -> Self {
        let time = |unit, of| Self { unit, more_is_better: false, of };
        match work {
            streams::WORK => {
                Self { unit: "GiB/s", more_is_better: true, of: |ns, bytes| bytes / ns * 1e9 / (1_u64 << 30) as f64 }
            }
            messages::WORK | values::STRUCTS | values::BYTES => {
                Self { unit: "million/s", more_is_better: true, of: |ns, _| 1e3 / ns }
            }
            round_trips::SPINNING => time("ns", |ns, _| ns),
            crate::work::calls::BYTES | crate::work::calls::MESSAGES => time("ns", |ns, _| ns),
            _ => time("µs", |ns, _| ns / 1e3),
        }
    }

    pub fn value(&self, ns: f64, bytes: u64) -> f64 {
        (self.of)(ns, bytes as f64)
    }

    /// The quartiles, the lower number first.
    pub fn quartiles(&self, summary: &Summary, bytes: u64) -> (f64, f64) {
        let (one, other) = (self.value(summary.quarter, bytes), self.value(summary.three_quarters, bytes));
        (one.min(other), one.max(other))
    }
}

/// Three digits that mean something.
pub fn three_digits(value: f64) -> String {
    let whole = value.abs().max(1e-4).log10().floor();
    let decimals = (2.0 - whole).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// The same without zeros that say nothing, for round numbers.
pub fn short(value: f64) -> String {
    let digits = three_digits(value);
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}
