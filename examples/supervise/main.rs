//! A small process supervisor. It starts the programs of a file, and starts those that fail again. It logs their output
//! line by line with their names in front, and stops all of them in order.
//!
//! ```text
//! # NAME: COMMAND, as sh takes it
//! web: python3 -m http.server 8000
//! tick: while sleep 1; do date; done
//! ```
//!
//! A program that ends with status 0 is done; any other is started again, later each time. SIGTERM or SIGINT asks all of them
//! to stop, and kills those that take too long; a second one kills at once. Every program leads a process group, so what it
//! starts is stopped with it. No process of these groups outlives the supervisor, not even after `kill -9`: see `keeper.rs`.

mod keeper;
mod program;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc::{Signals, Watch, wait_ready};
use keeper::Keeper;
use lexopt::{Arg, Parser, ValueExt};
use program::{Program, Stream};

const HELP: &str = "\
usage: supervise [--grace SECONDS] FILE

Starts the programs of the file, one a line: `NAME: COMMAND`, the command being for `sh`. What they print goes to stdout with the
name in front (`name | ...`, and `name ! ...` for their stderr), and what happens to them to stderr.

  --grace SECONDS   how long a program may take to stop (10)
  --help            this text";

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

struct Options {
    grace: Duration,
    file: PathBuf,
}

fn main() -> ExitCode {
    let done = match options() {
        Ok(Some(options)) => run(&options),
        Ok(None) => writeln!(io::stdout(), "{HELP}").map_err(Into::into),
        Err(wrong) => {
            eprintln!("supervise: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervise: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let (mut grace, mut file) = (Duration::from_secs(10), None);
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("grace") => {
                let seconds = parser.value()?.parse_with(|text| text.parse::<f64>())?;
                grace = Duration::try_from_secs_f64(seconds).map_err(|_| "that is no number of seconds")?;
            }
            Arg::Long("help") => return Ok(None),
            Arg::Value(name) if file.is_none() => file = Some(PathBuf::from(name)),
            unknown => return Err(unknown.unexpected()),
        }
    }
    let file = file.ok_or("a file with programs is to be named")?;
    Ok(Some(Options { grace, file }))
}

/// The things to wait for.
#[derive(Clone, Copy)]
enum Event {
    Signal,
    Said(usize, Stream),
    Left(usize),
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let text =
        std::fs::read_to_string(&options.file).map_err(|error| format!("{}: {error}", options.file.display()))?;
    let mut programs = program::parse(&text)?;
    // Forked before anything else is open, and before signals are held back: it has neither.
    let keeper = Keeper::start()?;
    let signals = Signals::new(&[SIGTERM, SIGINT])?;
    // Until when to wait for those that were asked to stop.
    let mut stopping: Option<Instant> = None;
    while programs.iter().any(|program| !program.is_over()) {
        let now = Instant::now();
        for program in &mut programs {
            program.start_if_due(now, &keeper)?;
        }
        if stopping.is_some_and(|until| until <= now) {
            programs.iter_mut().for_each(Program::kill);
            stopping = None;
        }
        let next = programs.iter().filter_map(Program::due).chain(stopping).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        for event in wait(&programs, &signals, left)? {
            match event {
                Event::Signal => {
                    signals.try_next()?;
                    if programs.iter().any(Program::is_stopping) {
                        programs.iter_mut().for_each(Program::kill);
                    } else {
                        programs.iter_mut().for_each(Program::stop);
                        stopping = Some(Instant::now() + options.grace);
                    }
                }
                Event::Said(of, stream) => programs[of].listen(stream)?,
                Event::Left(of) => programs[of].bury(&keeper)?,
            }
        }
    }
    Ok(keeper.close()?)
}

fn wait(programs: &[Program], signals: &Signals, left: Option<Duration>) -> ipc::Result<Vec<Event>> {
    let mut on = vec![(Event::Signal, Watch::readable(signals))];
    for (i, program) in programs.iter().enumerate() {
        on.extend(program.streams().map(|(stream, reader)| (Event::Said(i, stream), Watch::readable(reader))));
        on.extend(program.child().map(|child| (Event::Left(i), Watch::readable(child))));
    }
    Ok(wait_ready(on, left)?.into_iter().map(|(event, _)| event).collect())
}
