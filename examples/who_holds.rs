//! Who holds what: draws the processes of a tree, and the pipes and socket pairs between them.
//!
//! `who_holds -- PID` maps any running process and its descendants; nothing of it needs to use this crate. `--dot` and
//! `--mermaid` print the source of a picture instead. Without a PID it builds the classic hang, a second worker that
//! inherited the first one's writer through a plain fork, names the culprit, and shows that the end arrives without it.
//! With `--dot` or `--mermaid` the story goes to stderr then, and the picture alone to stdout.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use ipc::{ProcessMap, Side};

const HELP: &str = "usage: who_holds [--dot | --mermaid] [PID]";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("who_holds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut picture: Option<fn(&ProcessMap) -> String> = None;
    let mut pid = None;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--dot" => picture = Some(ProcessMap::to_dot),
            "--mermaid" => picture = Some(ProcessMap::to_mermaid),
            "--help" => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            _ => match arg.parse() {
                Ok(number) => pid = Some(number),
                Err(_) => {
                    eprintln!("who_holds: {arg} is not the number of a process\n{HELP}");
                    return Ok(ExitCode::from(2));
                }
            },
        }
    }
    match (pid, picture) {
        (Some(pid), picture) => {
            let map = ProcessMap::of(pid).map_err(|error| with_source(&error))?;
            print!("{}", picture.unwrap_or(ProcessMap::to_string)(&map));
        }
        (None, Some(picture)) => hang_and_find_out(&mut io::stderr(), |map| print!("{}", picture(map)))?,
        (None, None) => hang_and_find_out(&mut io::stdout(), |map| println!("{map}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The error on one line, with what the kernel said.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn hang_and_find_out(story: &mut impl Write, show: impl FnOnce(&ProcessMap)) -> ipc::Result<()> {
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

    show(&ProcessMap::current()?);

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
