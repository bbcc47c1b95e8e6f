//! A broker opens files for a worker that may not open them itself.
//!
//! The worker gives up root's rights, if it has them. It asks for files by their names over a datagram pair, and gets them as
//! ends in the answers. The broker opens files below its folder, and refuses everything else. It refuses names that lead out
//! of the folder: by `..`, from the root, or through symbolic links. It also refuses a name that is no file's, such as that of
//! a FIFO, which would block it.
//!
//! `openat2` resolves the name inside the kernel. A look at the name before the open would be too early. The worker, or
//! another writer of the folder, can put a link there in between.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ipc::{DatagramSocket, fork};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

const HELP: &str = "usage: broker FOLDER NAME…";

/// A worker that asks and does not take the answers is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(folder), names) = (args.next(), args.collect::<Vec<_>>()) else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    match run(Path::new(&folder), names) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, names: Vec<OsString>) -> Result<ExitCode> {
    let folder = File::open(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let pair = ipc::datagram_pair()?;
    let worker = fork(pair.child, |broker| work(&broker, names))?;
    serve(&pair.parent, folder.as_fd())?;
    drop(pair.parent);
    Ok(match worker.wait()?.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Answers until the worker is gone. Ends that it sends along are closed by the plain receive.
fn serve(worker: &DatagramSocket, folder: BorrowedFd<'_>) -> Result<()> {
    while let Some(name) = worker.recv_vec()? {
        match open_below(folder, &name) {
            Ok(file) => worker.send_with_timeout(b"", file, PATIENCE)?,
            Err(why) => worker.send_timeout(why.to_string().as_bytes(), PATIENCE)?,
        }
    }
    Ok(())
}

/// Opens a file to be read, if it is one and lies below the folder.
fn open_below(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    // Without waiting, for it might be a FIFO without a writer. On a file that changes nothing.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(folder, name, flags, Mode::empty(), resolve);
    // EAGAIN: something was renamed meanwhile, and the kernel is not sure. Not for ever, or a worker that renames all the time
    // would keep its broker busy (openat2.2).
    let mut opened = open();
    for _ in 0..10 {
        if opened.as_ref().err() == Some(&Errno::AGAIN) {
            opened = open();
        }
    }
    let file = File::from(opened.map_err(|errno| match errno {
        Errno::XDEV => io::Error::other("the name leads out of the folder"),
        errno => errno.into(),
    })?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// The worker.
fn work(broker: &DatagramSocket, names: Vec<OsString>) -> std::result::Result<(), String> {
    give_up_privileges().map_err(|error| format!("privileges cannot be given up: {error}"))?;
    println!("the worker is user {}", rustix::process::geteuid().as_raw());
    for name in names {
        match ask(broker, name.as_bytes()).map_err(|error| error.to_string())? {
            Ok(mut file) => {
                let len = io::copy(&mut file, &mut io::sink()).map_err(|error| error.to_string())?;
                println!("{}: {len} bytes", name.display());
            }
            Err(why) => println!("{}: refused: {why}", name.display()),
        }
    }
    Ok(())
}

/// The file, or why the broker does not give it.
fn ask(broker: &DatagramSocket, name: &[u8]) -> ipc::Result<std::result::Result<File, String>> {
    broker.send(name)?;
    let mut why = Vec::new();
    let mut received = broker.recv_with(&mut why)?.ok_or(ipc::Error::Closed)?;
    match received.is_empty() {
        true => Ok(Err(String::from_utf8_lossy(&why).into_owned())),
        false => received.take().map(Ok),
    }
}

/// Becomes the user `nobody`, for good. A child of a fork has one thread, so the thread's user is the process's.
fn give_up_privileges() -> rustix::io::Result<()> {
    const NOBODY: u32 = 65_534;
    rustix::thread::set_no_new_privs(true)?;
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}
