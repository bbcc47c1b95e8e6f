//! Tests that start processes under the usual harness, which runs each of them on a thread: their fork server starts before
//! `main` (docs/guide/testing.md).

use std::io::Write;
use std::sync::OnceLock;

use ipc::{Error, ForkServer, PipeWriter, Received};

static SERVER: OnceLock<ForkServer> = OnceLock::new();

// SAFETY: libc calls what it finds there before `main`, as `extern "C"` functions that may ignore their arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        SERVER.get_or_init(|| ForkServer::start(worker).expect("this process has one thread"));
    }
    start
};

/// What the workers of all tests do, by the name that is their message.
fn worker(name: Vec<u8>, mut ends: Received) -> ipc::Result<u8> {
    match name.as_slice() {
        b"greets" => ends.take::<PipeWriter>()?.write_all(b"hello from a worker")?,
        b"leaves with 7" => return Ok(7),
        b"panics" => panic!("as it was told"),
        _ => unreachable!("no test has such a worker"),
    }
    Ok(0)
}

fn start(name: &str, ends: impl ipc::Ends) -> ipc::Result<ipc::Child> {
    Ok(SERVER.get().expect("it was started before main").fork(name.as_bytes(), ends)?)
}

#[test]
fn a_fork_is_refused_here() {
    assert!(matches!(ipc::fork((), |()| ()).unwrap_err().error, Error::MultiThreaded { .. }));
}

#[test]
fn a_worker_greets() -> ipc::Result<()> {
    let (reader, writer) = ipc::pipe()?;
    let child = start("greets", writer)?;
    assert_eq!(std::io::read_to_string(reader)?, "hello from a worker");
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn a_worker_leaves_with_its_status() -> ipc::Result<()> {
    assert_eq!(start("leaves with 7", ())?.wait()?.code(), Some(7));
    Ok(())
}

#[test]
fn a_worker_that_panics_is_seen() -> ipc::Result<()> {
    assert_eq!(start("panics", ())?.wait()?.code(), Some(101));
    Ok(())
}
