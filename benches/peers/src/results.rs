//! What was measured, as it is kept: JSON, every sample.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::probe::Class;

/// One run of this program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    /// A look whether it works: no figures to go by.
    pub quick: bool,
    /// All kinds of work.
    pub whole: bool,
    pub seconds: u64,
    pub machine: Machine,
    /// Of the crates, as they were built in.
    pub versions: BTreeMap<String, String>,
    /// How each crate is used.
    pub notes: Vec<(String, String)>,
    pub groups: Vec<Group>,
}

/// Contenders that did the same work in turns, and can be compared.
#[derive(Debug, Serialize, Deserialize)]
pub struct Group {
    pub work: String,
    pub case: String,
    /// Of one write or message; 0 where there is none.
    pub bytes: u64,
    pub series: Vec<Series>,
}

/// One contender's samples.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    /// Why there are none, where it does not work here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_out: Option<String>,
    /// How many samples were thrown away because the cores moved meanwhile.
    pub moved: u32,
    pub samples: Vec<Sample>,
}

/// Nanoseconds: for one (the median, of a round trip), the 99th percentile of the round trips, and for a cache line to the
/// other core and back, before and after.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample(pub f64, pub Option<f64>, pub f64, pub f64);

impl Sample {
    /// Where the cores were. `None`: they moved meanwhile.
    pub fn class(&self) -> Option<Class> {
        let before = Class::of(self.2);
        (before == Class::of(self.3)).then_some(before)
    }
}

/// What a contender's samples of one class come to, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub rounds: usize,
    pub quarter: f64,
    pub median: f64,
    pub three_quarters: f64,
    /// The median of the 99th percentiles, for round trips.
    pub p99: Option<f64>,
}

impl Series {
    pub fn count(&self, class: Class) -> usize {
        self.samples.iter().filter(|sample| sample.class() == Some(class)).count()
    }

    pub fn summary(&self, class: Class) -> Option<Summary> {
        let samples: Vec<_> = self.samples.iter().filter(|sample| sample.class() == Some(class)).collect();
        let times = sorted(samples.iter().map(|sample| sample.0));
        let p99s = sorted(samples.iter().filter_map(|sample| sample.1));
        Some(Summary {
            rounds: times.len(),
            quarter: quantile(&times, 0.25)?,
            median: quantile(&times, 0.5)?,
            three_quarters: quantile(&times, 0.75)?,
            p99: quantile(&p99s, 0.5),
        })
    }
}

impl Group {
    /// The class that the contenders are compared in: the one in which the worst served has more samples, near if in doubt.
    pub fn class(&self) -> Class {
        let least = |class| {
            let measured = self.series.iter().filter(|series| series.left_out.is_none());
            measured.map(|series| series.count(class)).min().unwrap_or(0)
        };
        if least(Class::Far) > least(Class::Near) { Class::Far } else { Class::Near }
    }

    /// What that contender's samples come to, in the group's class.
    pub fn summary(&self, name: &str) -> Option<Summary> {
        self.series.iter().find(|series| series.name == name)?.summary(self.class())
    }
}

impl Run {
    /// Returns whether its figures are to be kept and shown.
    pub fn is_record(&self) -> bool {
        self.whole && !self.quick
    }

    pub fn load(path: &Path) -> io::Result<Self> {
        let run = fs::read_to_string(path).and_then(|text| Ok(serde_json::from_str(&text)?));
        run.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Of one kind of machine the newest: a later one takes its place.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.machine.slug())
    }

    pub fn group(&self, work: &str, case: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.work == work && group.case == case)
    }

    pub fn groups<'run>(&'run self, work: &'run str) -> impl Iterator<Item = &'run Group> {
        self.groups.iter().filter(move |group| group.work == work)
    }

    /// A contender's samples on one line, for people. Inside a string the quotation marks have backslashes before them.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        let broken = json.replace(r#","groups":["#, ",\n\"groups\":[").replace(r#"{"work":"#, "\n{\"work\":");
        fs::write(path, broken.replace(r#"{"name":"#, "\n  {\"name\":") + "\n")
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Between the two nearest values.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}
