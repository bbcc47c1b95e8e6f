//! The worker behind a service, whose clients have calls with names and deadlines.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipc_remote::rpc::{keep_alive, server_transport, transport};
use tarpc::client;
use tarpc::context::{self, Context};
use tarpc::server::{BaseChannel, Channel};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::Ask;
use crate::work::{Done, Job, work};

/// The longest message.
const LONGEST: usize = 64 << 20;

/// After this time, a silent machine counts as gone, also where no call is under way.
pub const DEADLINE: Duration = Duration::from_secs(3);

#[tarpc::service]
pub trait Count {
    /// Counts the words of a piece.
    async fn count(job: Job) -> Result<Done, String>;
}

/// Answers with the results of a worker, a process of its own.
#[derive(Clone)]
struct Server {
    worker: Arc<Mutex<(ipc::tokio::Sender<Job>, ipc::tokio::Receiver<Done>)>>,
}

impl Count for Server {
    async fn count(self, _: Context, job: Job) -> Result<Done, String> {
        let worker = self.worker.lock().await; // one piece at a time
        worker.0.send(job).await.map_err(|unsent| unsent.to_string())?;
        worker.1.recv().await.map_err(|error| error.to_string())?.ok_or_else(|| "the worker has left".to_owned())
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    keep_alive(stream, DEADLINE)
}

/// Serves over a connection to the master, on this thread, until the master or its machine is gone.
pub fn serve(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    // Forked before there is a runtime.
    let (jobs, to_do) = ipc::channel()?;
    let (results, done) = ipc::channel()?;
    let worker = ipc::Fork::new().die_with_parent().spawn((to_do, results), |(jobs, results)| work(jobs, results))?;
    runtime()?.block_on(async { serve_over(tokio::net::TcpStream::from_std(stream)?, jobs, done).await })?;
    match worker.wait()? {
        outcome if outcome.success() => Ok(()),
        outcome => Err(format!("the worker failed: {outcome:?}").into()),
    }
}

/// Serves over a stream of any kind, until the client leaves.
pub async fn serve_over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    jobs: ipc::Sender<Job>,
    done: ipc::Receiver<Done>,
) -> std::io::Result<()> {
    let worker = (ipc::tokio::Sender::new(jobs)?, ipc::tokio::Receiver::new(done)?);
    let server = Server { worker: Arc::new(Mutex::new(worker)) };
    let channel = BaseChannel::with_defaults(server_transport(stream, LONGEST));
    channel.execute(server.serve()).for_each(|answer| answer).await;
    Ok(())
}

pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A client over a stream of any kind. It is driven by the runtime that it is made in.
pub fn client_over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> CountClient {
    CountClient::new(client::Config::default(), transport(stream, LONGEST)).spawn()
}

/// Asks over a connection. A call is an error when its answer did not come within ten seconds.
pub fn client(stream: TcpStream) -> std::io::Result<Ask> {
    prepare(&stream)?;
    let runtime = runtime()?;
    let client =
        runtime.block_on(async { Ok::<_, std::io::Error>(client_over(tokio::net::TcpStream::from_std(stream)?)) })?;
    Ok(Box::new(move |job| {
        let done = runtime.block_on(client.count(context::current(), job.clone()))??;
        match done.number == job.number {
            true => Ok(done.words),
            false => Err(format!("it answered number {} for number {}", done.number, job.number).into()),
        }
    }))
}
