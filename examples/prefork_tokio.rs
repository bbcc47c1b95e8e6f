//! The preforking web server with tokio and hyper, which serve in the workers. A fork server starts the workers for a master
//! that has threads.
//!
//! ```text
//!          master, a runtime with threads                           each worker, a runtime on its one thread
//! lifeline writer   ─────────────── pipe, for all ────────────────▶ reader     EOF: the master stops, or is gone
//! listener          ─────────────── the same socket ────────────── listener    accepts
//! ```
//!
//! `prefork_tokio --help` tells the options.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use ipc::{Fork, ForkServer, PipeReader, Received, Signals};
use lexopt::{Arg, Parser, ValueExt};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

const HELP: &str = "\
usage: prefork_tokio [OPTION…]

Answers over HTTP/1.1: what is posted comes back, and anything else is answered with the worker that has answered.

  --listen ADDRESS     where to listen (default: 127.0.0.1:8080; port 0: one that is free)
  --workers N          so many processes serve (default: one for each core)
  --grace SECONDS      requests may take so long at the end (default: 30)
  --help               this text

SIGTERM, SIGINT (Ctrl-C)   finish the requests under way, and end";

/// The options of the command line.
struct Options {
    listen: SocketAddr,
    workers: usize,
    grace: Duration,
}

/// So long passes before what has failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let done = match options() {
        Ok(Some(options)) => run(options),
        Ok(None) => writeln!(std::io::stdout(), "{HELP}").map_err(Into::into),
        Err(wrong) => {
            eprintln!("prefork: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("prefork: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        grace: Duration::from_secs(30),
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => return Ok(None),
            Arg::Long("listen") => options.listen = parser.value()?.parse()?,
            Arg::Long("workers") => options.workers = parser.value()?.parse::<NonZero<usize>>()?.get(),
            Arg::Long("grace") => options.grace = parser.value()?.parse_with(seconds)?,
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Some(options))
}

/// Up to a day, which any clock can be moved by.
fn seconds(value: &str) -> Result<Duration, &'static str> {
    let seconds = value.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.map(Duration::from_secs_f64).ok_or("that is no number of seconds")
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    // Both come before the first thread, and the server before what the workers are not to have. The workers leave the signals
    // blocked: a Ctrl-C, which every process of a terminal gets, ends none of them.
    let signals = Signals::new(&[Signal::SIGTERM as i32, Signal::SIGINT as i32])?;
    let Options { listen, workers, grace } = options;
    let server = Fork::new().hold_signals().serve(move |_, ends| worker(ends, grace))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(master(server, signals, listen, workers))
}

async fn master(
    server: ForkServer,
    signals: Signals,
    listen: SocketAddr,
    count: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(listen)?;
    // All workers wait for it at once, and one is the quickest.
    listener.set_nonblocking(true)?;
    println!("prefork: process {} serves at http://{}/", std::process::id(), listener.local_addr()?);

    let (lifeline, alive) = ipc::pipe()?;
    let signals = ipc::tokio::Signals::new(signals)?;
    let mut workers = JoinSet::new();
    loop {
        while workers.len() < count {
            let child = block_in_place(|| -> ipc::Result<_> { Ok(server.fork(b"", (&listener, &lifeline))?) })?;
            let child = ipc::tokio::Child::new(child)?;
            workers.spawn(async move { child.wait().await });
        }
        tokio::select! {
            signal = signals.next() => {
                eprintln!("prefork: signal {}: finishing the requests under way", signal?);
                break;
            }
            Some(left) = workers.join_next() => {
                eprintln!("prefork: a worker left ({}); another takes its place", left??);
                sleep(PAUSE).await;
            }
        }
    }
    drop((listener, alive));
    while let Some(left) = workers.join_next().await {
        left??;
    }
    Ok(())
}

fn worker(mut ends: Received, grace: Duration) -> ipc::Result<()> {
    let (listener, lifeline) = (ends.take()?, ends.take()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listener, lifeline, grace))
}

async fn serve(listener: TcpListener, lifeline: PipeReader, grace: Duration) -> ipc::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut lifeline = ipc::tokio::PipeReader::new(lifeline)?;
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = lifeline.read_u8() => break, // EOF
        };
        match accepted {
            Ok((stream, _)) => {
                let mut http = http1::Builder::new();
                let http = http.timer(TokioTimer::new()); // a client that sends no request is sent away
                let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
                // A client that leaves half-way is no concern of the others.
                tokio::spawn(async { drop(connection.await) });
            }
            // Out of descriptors, as a rule: some are free again in a moment.
            Err(error) => {
                eprintln!("prefork: a connection cannot be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(grace, connections.shutdown()).await.is_err() {
        eprintln!("prefork: requests that took too long were cut");
    }
    Ok(())
}

/// Sends a posted body back as it arrives. Any other answer names the process that gave it.
async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Incoming>>, Infallible> {
    Ok(Response::new(match *request.method() {
        Method::POST => Either::Right(request.into_body()),
        _ => Either::Left(Full::from(format!("{}, by process {}\n", request.uri(), std::process::id()))),
    }))
}
