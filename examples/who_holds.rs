//! Who holds what: draws the processes of a tree, and the pipes and socket pairs between them.
//!
//! `who_holds -- PID` maps any running process and its descendants. They need not use this crate. `--dot` and
//! `--mermaid` print the source of a picture instead. Without a PID it builds the classic hang: a second worker that
//! inherited the first one's writer through a plain fork. It names the culprit, and shows that EOF arrives without it.
//! With `--dot` or `--mermaid` the story then goes to stderr, and the picture alone to stdout.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use ipc::{ProcessMap, Side};
use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
usage: who_holds [--dot | --mermaid] [PID]

Draws the process and its descendants, and who holds which pipe and socket pair. Without a PID: a hang, and who is to blame.

  --dot       the source of a picture, for Graphviz
  --mermaid   the same for Mermaid
  --help      this text";

struct Options {
    picture: Option<fn(&ProcessMap) -> String>,
    pid: Option<u32>,
}

fn main() -> ExitCode {
    let done = match options() {
        Ok(Some(options)) => run(&options),
        Ok(None) => writeln!(io::stdout(), "{HELP}").map_err(Into::into),
        Err(wrong) => {
            eprintln!("who_holds: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("who_holds: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options { picture: None, pid: None };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("dot") => options.picture = Some(ProcessMap::to_dot),
            Arg::Long("mermaid") => options.picture = Some(ProcessMap::to_mermaid),
            Arg::Long("help") => return Ok(None),
            Arg::Value(pid) if options.pid.is_none() => {
                options.pid = Some(pid.parse_with(|pid| pid.parse().map_err(|_| "that is no number of a process"))?);
            }
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    match (options.pid, options.picture) {
        (Some(pid), picture) => {
            let map = ProcessMap::of(pid).map_err(|error| format!("process {pid}: {error}"))?;
            write!(io::stdout(), "{}", picture.unwrap_or(ProcessMap::to_string)(&map))?;
        }
        (None, Some(picture)) => {
            hang_and_find_out(&mut io::stderr(), |map| write!(io::stdout(), "{}", picture(map)))?;
        }
        (None, None) => hang_and_find_out(&mut io::stdout(), |map| writeln!(io::stdout(), "{map}"))?,
    }
    Ok(())
}

fn hang_and_find_out(story: &mut impl Write, show: impl FnOnce(&ProcessMap) -> io::Result<()>) -> ipc::Result<()> {
    let (mut results, writer) = ipc::pipe()?;

    // The second worker has nothing to do with that pipe. But a plain fork copies every descriptor, also the writer that
    // is still open here: `keep_all_ends` does what fork(2) does.
    be_called("second worker")?; // a child has its parent's name at first
    let second = ipc::Fork::new().keep_all_ends().spawn((), |()| {
        loop {
            std::thread::park();
        }
    })?;
    be_called("master")?;

    // The first is given its writer, writes its result, and leaves.
    let first = ipc::fork(writer, |writer| writer.write_atomic(b"42"))?;
    first.wait()?;

    let mut answer = [0; 16];
    let len = results.read(&mut answer)?;
    writeln!(story, "the answer is {}, and then…", String::from_utf8_lossy(&answer[..len]))?;
    match results.read_timeout(&mut answer, Duration::from_millis(200)) {
        Err(ipc::Error::TimedOut) => writeln!(story, "…the end of the stream does not come.\n")?,
        other => writeln!(story, "…{other:?}: this was to hang.\n")?,
    }

    show(&ProcessMap::current()?)?;

    let found = ipc::holders(&results)?;
    let culprits: Vec<_> = found.list.iter().filter(|holder| holder.side == Side::Write).collect();
    for culprit in &culprits {
        writeln!(story, "{} ({}) holds a writer, as descriptor {}.", culprit.pid, culprit.command, culprit.fd)?;
    }
    assert!(culprits.iter().all(|culprit| culprit.pid == second.id()), "nobody else has one");

    second.kill()?;
    second.wait()?;
    match results.read_timeout(&mut answer, Duration::from_secs(5))? {
        0 => writeln!(story, "It is gone now, and the end arrives.")?,
        more => writeln!(story, "{more} bytes more?")?,
    }
    Ok(())
}

/// Names this process, so that it can be told from others.
fn be_called(name: &str) -> io::Result<()> {
    std::fs::write("/proc/self/comm", name)
}
