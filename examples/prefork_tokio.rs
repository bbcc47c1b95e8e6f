//! The preforking web server as one would write it today: the workers serve with tokio and hyper, and a fork server starts them
//! for a master that has threads.
//!
//! ```text
//!          master, a runtime with threads                           each worker, a runtime on its one thread
//! lifeline writer   ─────────────── pipe, for all ────────────────▶ reader     EOF: the master stops, or is gone
//! listener          ─────────────── the same socket ────────────── listener    accepts
//! ```
//!
//! Usage: `prefork_tokio [ADDRESS [WORKERS]]`. SIGTERM and Ctrl-C finish the requests under way.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::net::TcpListener;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use ipc::{ForkServer, PipeReader, Received, Signals};
use nix::sys::signal::{SigSet, Signal};
use tokio::io::AsyncReadExt;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

/// Requests may take so long at the end.
const GRACE: Duration = Duration::from_secs(30);

/// So long passes before what has failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Blocked in the workers too: a Ctrl-C, which every process of a terminal gets, ends none of them.
    let ends_it = [Signal::SIGTERM, Signal::SIGINT];
    SigSet::from_iter(ends_it).thread_block()?;
    // Both come before the first thread, and the server before what the workers are not to have.
    let server = ForkServer::start(worker)?;
    let signals = Signals::new(&ends_it.map(|signal| signal as i32))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(master(server, signals))
}

async fn master(server: ForkServer, signals: Signals) -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listener = TcpListener::bind(args.next().as_deref().unwrap_or("127.0.0.1:8080"))?;
    let count = args.next().map_or(Ok(4), |count| count.parse())?;
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

fn worker(_: Vec<u8>, mut ends: Received) -> ipc::Result<()> {
    let (listener, lifeline) = (ends.take()?, ends.take()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listener, lifeline))
}

async fn serve(listener: TcpListener, lifeline: PipeReader) -> ipc::Result<()> {
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
    if timeout(GRACE, connections.shutdown()).await.is_err() {
        eprintln!("prefork: requests that took too long were cut");
    }
    Ok(())
}

/// What is posted comes back as it arrives. Anything else is answered with who has answered.
async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Incoming>>, Infallible> {
    Ok(Response::new(match *request.method() {
        Method::POST => Either::Right(request.into_body()),
        _ => Either::Left(Full::from(format!("{}, by process {}\n", request.uri(), std::process::id()))),
    }))
}
