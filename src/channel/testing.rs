//! Workers for tests that run on a thread, as those of `cargo test` do.

use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::server::{open, order};
use super::unsent::Unsent;
use crate::error::{Error, Result};
use crate::process::{Child, ForkServer, Outcome};
use crate::socket::Received;
use crate::sys;
use crate::sys::before_main::{BeforeMain, Task, before_main};

/// Runs `worker` in a new process, also from a `#[test]`, which has threads beside it. Blocks until the process is there, and
/// does not wait for it.
///
/// It is called like [`fork`](crate::fork()): the value is moved into the worker, and its ends are closed here. Two things differ.
/// `worker` is a function or a closure that captures nothing. The value may be anything that a
/// [`channel`](crate::channel()) takes, with ends in it: `(String, PipeWriter)`, or a struct of yours.
///
/// The worker is forked by a [`ForkServer`], which is started before `main`. So it is a copy of the program before `main`. It has
/// no other thread, no static that a test has set, and the environment and directory of the start. The test harness does not
/// capture its output.
///
/// # Cost
///
/// A program with a call of this function in it starts the server before `main`, on each run, also for `--list`. The server is a
/// process that sleeps until the program leaves, with the memory that the program had then. It counts as one of the
/// [`open_ends`](crate::open_ends). Programs without a call start no server. Use the feature `testing` in `[dev-dependencies]`
/// alone.
///
/// # Errors
///
/// The error gives the value back, and `?` turns it into [`Error`]. Nothing has run:
///
/// - [`Error::InvalidInput`]: the server could not be started, and has printed why; or `worker` is in a library that was
///   loaded after the start.
/// - Those of [`TypedForkServer::fork`](crate::TypedForkServer::fork).
///
/// # Platform
///
/// The section `.init_array` of an ELF file, which glibc and musl go through before `main`. Rust's standard library promises
/// little there. In the worker, as in `main`, `SIGPIPE` is ignored, and a closed standard input, output or error is `/dev/null`.
///
/// # Examples
///
/// The body of a test:
///
/// ```standalone_crate
/// let (reader, writer) = ipc::pipe()?;
/// let child = ipc::fork_in_test(writer, |writer| writer.write_atomic(b"hello"))?;
/// assert_eq!(std::io::read_to_string(reader)?, "hello");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// In the guide: [testing programs that fork](crate::guide::testing).
#[allow(clippy::result_large_err)] // it gives the value back
pub fn fork_in_test<T, R>(value: T, worker: fn(T) -> R) -> Result<Child, Unsent<T>>
where
    T: Serialize + DeserializeOwned,
    R: Outcome,
{
    before_main::<Start>();
    let Some(Some(server)) = SERVER.get() else {
        let what = "no fork server was started before `main`: where it could not be, it has said why on stderr";
        return Err(Unsent { value, error: Error::InvalidInput { what } });
    };
    let Some(task) = Task::new(run::<T, R>, worker) else {
        let what = "the worker's function is not a part of the program that was started";
        return Err(Unsent { value, error: Error::InvalidInput { what } });
    };
    order(server, &task.to_bytes(), value, None)
}

/// `None`: it could not be started.
static SERVER: OnceLock<Option<ForkServer>> = OnceLock::new();

struct Start;

impl BeforeMain for Start {
    fn run() {
        SERVER.get_or_init(|| match ForkServer::start(carry_out) {
            Ok(server) => Some(server),
            Err(error) => {
                // Where stderr is closed, the tests say that there is no server.
                let _ = sys::process::print(&format!("no fork server for tests: {error}\n"));
                None
            }
        });
    }
}

/// An order: a task, and its value.
type Context = (Vec<u8>, Received);

/// The entry of the server.
fn carry_out(message: Vec<u8>, received: Received) -> u8 {
    // As the standard library does before `main`, both.
    sys::signal::ignore_sigpipe();
    if let Err(errno) = sys::descriptor::fill_standard() {
        return Err::<(), _>(Error::system("open", errno)).status();
    }
    match message.first_chunk().copied() {
        Some(task) => Task::<Context>::call(&task, (message, received)),
        None => Err::<(), _>(Error::InvalidInput { what: "an order without a task" }).status(),
    }
}

/// The task of one type.
fn run<T: DeserializeOwned, R: Outcome>(worker: fn(T) -> R, (message, received): Context) -> u8 {
    let bytes = message.get(Task::<Context>::LEN..).unwrap_or_default();
    open(bytes, received).map(worker).status()
}
