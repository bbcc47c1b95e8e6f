//! What can be said on the command line.

use std::path::PathBuf;

use crate::work;

pub const HELP: &str = "\
ipc beside the bare system calls, the standard library and other crates.

    cargo run --release --manifest-path benches/peers/Cargo.toml -- [OPTIONS]

Without options: measures all of it, for some ten minutes, keeps the results in benches/peers/results and
writes docs/benchmarks.md and its pictures. A later run on the same kind of processor replaces the first.

    --quick           a look whether it works, in seconds; the figures mean nothing
    --only A,B        only that work: streams, messages, values, round-trips, tokio, calls, making, forking,
                      starting, serving
    --case CASE       only that case of it, as the tables name it: '4 KiB'; may be said again
    --name NAME       only that contender, as the tables name it: 'ipc ring'; may be said again
    --render          measures nothing; writes the document from all kept results
    --out FOLDER      writes results and document there. Without it, what is quick or not all goes to the
                      temporary directory
";

#[derive(Debug, Default)]
pub struct Options {
    pub quick: bool,
    pub only: Option<Vec<String>>,
    /// Empty: all.
    pub cases: Vec<String>,
    /// Empty: all.
    pub names: Vec<String>,
    pub render: bool,
    pub out: Option<PathBuf>,
}

impl Options {
    /// `None`: help is wanted.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--only" => options.only = Some(works(&value()?)?),
                "--case" => options.cases.push(value()?),
                "--name" => options.names.push(value()?),
                "--render" => options.render = true,
                "--out" => options.out = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("there is no option {other}; --help tells them")),
            }
        }
        Ok(Some(options))
    }
}

fn works(list: &str) -> Result<Vec<String>, String> {
    let works: Vec<String> = list.split(',').map(str::to_owned).collect();
    match works.iter().find(|name| work::ALL.iter().all(|(known, _)| known != name)) {
        Some(unknown) => Err(format!("there is no work {unknown}; --help tells which there are")),
        None => Ok(works),
    }
}
