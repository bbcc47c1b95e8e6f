//! Starting it, and what it leaves behind.

use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Output};

use super::{Command, Parts, SpawnError};
use crate::end::{End, Stdio};
use crate::error::{Error, Result};
use crate::process::child::Child;
use crate::sys::poll::POLLIN;
use crate::sys::signal::Mask;
use crate::sys::spawn::first_that_works;
use crate::sys::{self, signal};
use crate::wait::{Patience, Spin, Watch, wait_any};

impl Command {
    /// Starts the program, and does not wait for it. What it was given is closed in this process.
    ///
    /// # Errors
    ///
    /// The error gives the command back, with its ends, and `?` turns it into [`Error`]. Nothing runs:
    ///
    /// - [`Error::System`] of `posix_spawn`: `ENOENT` there is no such program (or directory), `EACCES` it may not be
    ///   started, `EBADF` a [`give_at`](Self::give_at) number over `RLIMIT_NOFILE`; of `fcntl`, `EMFILE`: no descriptor is
    ///   left, of which every given end takes one or two for the length of the call; of `give` or `new`: a number or a name
    ///   that is given twice, something given that is not exactly one descriptor, a nul byte; of `pidfd_open` or `waitid`: the
    ///   program could not be held, because no descriptor is left or a sandbox refuses it.
    /// - [`Error::NotGiven`]: one of the ends was not given to this process.
    /// - [`Error::SigchldIgnored`]: the program could not be waited for.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        match self.0.spawn() {
            Ok(child) => Ok(child),
            Err(error) => Err(SpawnError { command: self, error }),
        }
    }

    /// Starts the program and blocks until it has left; says how.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    pub fn status(self) -> Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Starts the program, blocks until it has left and closed its standard output and error, and returns what it wrote to
    /// them.
    ///
    /// If nothing was set, its standard input is `/dev/null`. What was set otherwise is left so, and the part of the result
    /// is empty.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`]. [`Error::System`] of `read`: what it writes cannot be read, as with no
    /// descriptor left for what stands in for `RWF_NOWAIT`. The program was killed, or, if it runs as another user by now, left
    /// without readers and waited for.
    pub fn output(mut self) -> Result<Output> {
        self.0.stdio[0].get_or_insert_with(Stdio::null);
        let mut readers = [None, None];
        for (reader, stdio) in readers.iter_mut().zip(&mut self.0.stdio[1..]) {
            if stdio.is_none() {
                let (ours, theirs) = sys::pipe::pair(false).map_err(|errno| Error::system("pipe2", errno))?;
                *reader = Some(End::new(ours)?);
                *stdio = Some(Stdio::end(End::new(theirs)?));
            }
        }
        let child = self.spawn()?;
        let read = read_both(readers);
        if read.is_err() {
            // One that runs as another user by now cannot be killed. It has lost its readers, and is waited for all the same.
            let _ = child.kill();
        }
        let status = child.wait();
        let [stdout, stderr] = read?;
        Ok(Output { status: status?, stdout, stderr })
    }

    /// Becomes the program: this process runs it from here on. Returns only if that does not work.
    ///
    /// For a child that gives something up first, such as privileges. Descriptors that are not close-on-exec stay open.
    /// Rust's stdout is flushed. If it fails, everything that was changed is put back.
    ///
    /// Other threads are ended by it, and see the descriptors change before: best in a process with a single thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let (mut reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(writer, |writer| {
    ///     let refused = ipc::Command::new("echo").arg("hello").stdout(writer).exec();
    ///     Err::<(), _>(refused)
    /// })?;
    /// assert_eq!(std::io::read_to_string(&mut reader)?, "hello\n");
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn exec(self) -> SpawnError {
        let error = self.0.exec();
        SpawnError { command: self, error }
    }
}

impl Parts {
    fn spawn(&self) -> Result<Child> {
        if signal::loses_children() {
            return Err(Error::SigchldIgnored);
        }
        Child::check()?;
        let ready = self.ready()?;
        // A place for the pidfd, so that a full table refuses the start instead of losing the child.
        let place = sys::process::pidfd(sys::process::own_pid()).map_err(|errno| Error::system("pidfd_open", errno))?;
        let program = ready.program();
        // Signals wait until it is held: a handler that waits for whatever child has left would take it away before.
        let mask = Mask::block_all();
        let started = first_that_works(&ready.paths, |path| program.spawn(path));
        drop(place);
        let child = started.map_err(|errno| Error::system("posix_spawn", errno)).and_then(Child::hold);
        mask.restore();
        child
    }

    fn exec(&self) -> Error {
        let ready = match self.ready() {
            Ok(ready) => ready,
            Err(error) => return error,
        };
        if let Err(source) = io::Write::flush(&mut io::stdout()) {
            return Error::System { call: "write", source };
        }
        Error::system("execve", ready.program().exec(&ready.paths))
    }
}

/// Reads both to their ends, as it comes: a program that fills one must not wait for a reader of the other.
fn read_both(mut readers: [Option<End>; 2]) -> Result<[Vec<u8>; 2]> {
    let mut texts = [Vec::new(), Vec::new()];
    let mut buf = vec![0; 64 << 10];
    while readers.iter().any(Option::is_some) {
        let mut on: Vec<_> = readers.iter().flatten().map(Watch::readable).collect();
        wait_any(&mut on, None)?;
        for (reader, text) in readers.iter_mut().zip(&mut texts) {
            let Some(end) = reader else { continue };
            let bufs = &mut [io::IoSliceMut::new(&mut buf)];
            let read = |_| sys::pipe::read_nowait(end.as_fd(), bufs);
            match Patience::None.persist(end, &Spin::default(), "read", POLLIN, None, read) {
                Ok(0) => *reader = None,
                Ok(len) => text.extend_from_slice(&buf[..len]),
                Err(Error::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(texts)
}
