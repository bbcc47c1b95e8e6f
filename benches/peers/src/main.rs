//! The benchmark of record: `ipc` beside the bare system calls, the standard library and other crates, in one run.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! measures for some ten minutes, keeps every sample in `results/`, in one file for each kind of machine, and writes
//! `docs/benchmarks.md` with its pictures from all of them. The machine should run nothing else meanwhile. `--help` tells
//! the options.

mod channel;
mod machine;
mod options;
mod peer;
mod probe;
mod report;
mod results;
mod rivals;
mod turns;
mod watchdog;
mod work;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use machine::{Core, Machine};
use options::Options;
use results::Run;
use turns::Turns;

/// After that, it does not wait for the cores to be near any more, so that the run comes to its end.
const WAITS: Duration = Duration::from_secs(8 * 60);

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|option| option == work::serving::NOTHING) {
        return ExitCode::SUCCESS;
    }
    let done = match Options::from_args(std::env::args().skip(1)) {
        Ok(Some(options)) => go(&options),
        Ok(None) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Err(error) => Err(io::Error::other(error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go(options: &Options) -> io::Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = package.join("../../docs");
    if options.render {
        return render(&records(&package.join("results"))?, options.out.as_deref().unwrap_or(&docs));
    }
    let run = measure(options)?;
    let (results, docs) = match &options.out {
        Some(folder) => (folder.clone(), folder.clone()),
        None if run.is_record() => (package.join("results"), docs),
        None => {
            let folder = std::env::temp_dir().join("ipc-peers");
            (folder.clone(), folder)
        }
    };
    fs::create_dir_all(&results)?;
    let file = results.join(run.file_name());
    run.save(&file)?;
    eprintln!("results: {}", file.display());
    let runs = if run.is_record() { records(&results)? } else { vec![run] };
    render(&runs, &docs)
}

/// What is kept in that folder, the newest first.
fn records(folder: &Path) -> io::Result<Vec<Run>> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let files = files.iter().filter(|file| file.extension().is_some_and(|it| it == "json"));
    let mut runs = files.map(|file| Run::load(file)).collect::<io::Result<Vec<_>>>()?;
    if let Some(run) = runs.iter().find(|run| !run.is_record()) {
        return Err(io::Error::other(format!("{}: that was no whole run", run.file_name())));
    }
    runs.sort_by(|one, other| other.date.cmp(&one.date).then_with(|| one.machine.slug().cmp(&other.machine.slug())));
    if runs.is_empty() { Err(io::Error::other("no results are kept")) } else { Ok(runs) }
}

fn measure(options: &Options) -> io::Result<Run> {
    let started = Instant::now();
    machine::find_cores()?;
    machine::pin(Core::Here)?;
    watchdog::install()?;
    let mut turns = Turns::start(options, WAITS)?;
    for (name, run) in work::ALL {
        if options.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name)) {
            run(&mut turns)?;
        }
    }
    let note = |(name, note): &(&str, &str)| ((*name).to_owned(), (*note).to_owned());
    Ok(Run {
        date: machine::today(),
        quick: options.quick,
        whole: options.only.is_none() && options.cases.is_empty() && options.names.is_empty(),
        seconds: started.elapsed().as_secs(),
        machine: Machine::look(),
        versions: machine::crate_versions(),
        notes: rivals::NOTES.iter().map(note).collect(),
        groups: turns.groups,
    })
}

fn render(runs: &[Run], folder: &Path) -> io::Result<()> {
    report::write(runs, folder)?;
    eprintln!("document: {}", folder.join("benchmarks.md").display());
    Ok(())
}
