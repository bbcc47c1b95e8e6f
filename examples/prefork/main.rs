//! A preforking web server: a master that binds, and workers that serve the files of a folder.
//!
//! The ends that each process holds (`messages.rs` has the messages):
//!
//! ```text
//!            master                                                 each worker
//!   lifeline writer  ─────────────── pipe, for all ──────────────▶  lifeline reader   EOF: the master is gone
//!   reports reader   ◀────────────── pipe, to each ───────────────  reports writer    atomic records
//!   ready reader     ◀────────────── pipe, to each ───────────────  ready writer      once: it serves, or why not
//!   control          ◀─────────── datagram pair, to each ────────▶  control           report, drain, stop
//!   listener         ─────────────── the same socket ─────────────  listener          accepts
//!
//!            master                                                 its successor, a program started on SIGHUP
//!   ready reader     ◀──────────────────── pipe ──────────────────  "ready"           once: it serves, or why not
//!   listener         ─────────────── the same socket ─────────────  "listener"        accepts
//! ```
//!
//! Every process has one thread and sits in `wait_any`. A worker holds the four ends that it is given and, thanks to the
//! crate, none of the master's others. So each EOF means what the picture says.

#![forbid(unsafe_code)]

mod connection;
mod crew;
mod http;
mod listing;
mod master;
mod messages;
mod site;
mod worker;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
usage: prefork [OPTION…]

Serves the files of a folder over HTTP/1.1, and at /.status what its workers do. A folder without an index.html is answered
with a list of what is in it; names that begin with a dot are not listed.

  --root FOLDER        the folder (default: this one)
  --listen ADDRESS     where to listen (default: 127.0.0.1:8080; port 0: one that is free)
  --workers N          so many processes serve (default: one for each core)
  --connections N      each has so many connections at most (default: 512)
  --timeout SECONDS    a client may take so long for a request, for each piece of an answer, and until the next request
                       (default: 10)
  --patience SECONDS   a worker that gives no sign of life for so long is replaced (default: 5)
  --grace SECONDS      so long may requests take that are under way at the end (default: 30)
  --help               this text

SIGTERM, SIGINT (Ctrl-C)   finish the requests under way, and end; a second one ends at once, but for the same signal within
                           a second (`timeout` sends each twice)
SIGHUP                     start a successor from the same file, hand the socket over when it serves, and end";

/// The command line's options.
struct Options {
    root: PathBuf,
    listen: SocketAddr,
    workers: usize,
    connections: usize,
    timeout: Duration,
    patience: Duration,
    grace: Duration,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return help(),
        Err(wrong) => {
            eprintln!("prefork: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match master::serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&reason.to_string());
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    match writeln!(std::io::stdout(), "{HELP}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        root: ".".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        connections: 512,
        timeout: Duration::from_secs(10),
        patience: Duration::from_secs(5),
        grace: Duration::from_secs(30),
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => return Ok(None),
            Arg::Long("root") => options.root = parser.value()?.into(),
            Arg::Long("listen") => options.listen = parser.value()?.parse_with(address)?,
            Arg::Long("workers") => options.workers = parser.value()?.parse_with(number)?,
            Arg::Long("connections") => options.connections = parser.value()?.parse_with(number)?,
            Arg::Long("timeout") => options.timeout = parser.value()?.parse_with(seconds)?,
            Arg::Long("patience") => options.patience = parser.value()?.parse_with(seconds)?,
            Arg::Long("grace") => options.grace = parser.value()?.parse_with(seconds)?,
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some(options))
}

fn address(value: &str) -> Result<SocketAddr, &'static str> {
    value.parse().map_err(|_| "that is no address such as 127.0.0.1:8080")
}

fn number(value: &str) -> Result<usize, &'static str> {
    value.parse().ok().filter(|number| *number > 0).ok_or("that is no number over 0")
}

/// Up to a day, which any clock can be moved by.
fn seconds(value: &str) -> Result<Duration, &'static str> {
    let seconds = value.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.map(Duration::from_secs_f64).ok_or("that is no number of seconds")
}

/// A line for the operator. Without a reader, the server goes on.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(out, "{clear}prefork: {text}");
}
