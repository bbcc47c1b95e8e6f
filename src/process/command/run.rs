//! Starting it, and its end.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use super::communicate::{CommunicateError, Talk, communicate};
use super::parts::{Parts, Place};
use super::ready::Ready;
use super::{Command, SpawnError};
use crate::end::{End, Stdio};
use crate::error::{Error, Result};
use crate::process::child::Child;
use crate::sys::exec::exec;
use crate::sys::fork::Permit;
use crate::sys::start::{Failed, Options, Stage, Started, start};
use crate::sys::{self, signal};

impl Command {
    /// Starts the program, and does not wait for it. The ends that it was given are closed in this process. See [`Command`] for an
    /// example.
    ///
    /// # Errors
    ///
    /// The error gives the command back, with its ends, and `?` turns it into [`Error`]. Nothing runs:
    ///
    /// - [`Error::System`] of a call in the new process. `execve`: there is no such program (`ENOENT`), it may not be started
    ///   (`EACCES`), or it is none (`ENOEXEC`). `chdir`: the same of its directory. `dup2`, `EBADF`: a
    ///   [`give_at`](Self::give_at) number over `RLIMIT_NOFILE`. `setpgid`, `setuid` and the rest: that option is refused.
    /// - [`Error::System`] of a call here. `clone`: no descriptor is left (`EMFILE`), or the process limit (`EAGAIN`).
    ///   `waitid`: a sandbox refuses to wait for children.
    /// - [`Error::InvalidInput`]: a number or a name is given twice, or a given value is not exactly one descriptor. There
    ///   is a NUL byte, or a number stands for no user, group or resource.
    /// - [`Error::NotGiven`]: one of the ends was not given to this process.
    /// - [`Error::SigchldIgnored`]: the program could not be waited for.
    pub fn spawn(mut self) -> Result<Child, SpawnError> {
        match self.0.spawn() {
            Ok(child) => Ok(child),
            Err(error) => Err(SpawnError { command: self, error }),
        }
    }

    /// Starts the program, blocks until it has left, and returns its status.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(ipc::Command::new("sh").args(["-c", "exit 3"]).status()?.code(), Some(3));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn status(self) -> Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Starts the program, blocks until it has left and closed its standard output and error, and returns the bytes
    /// of both.
    ///
    /// By default its standard input is `/dev/null`. An output that was set stays as it is, and its part of the result is
    /// empty.
    ///
    /// # Errors
    ///
    /// - As [`spawn`](Self::spawn) and [`Child::wait`]; [`Error::StatusTaken`] has the output.
    /// - [`Error::System`] of `malloc`: there is no memory for its output. Of `read`: its output cannot be read, for example
    ///   because no descriptor is left to do without `RWF_NOWAIT`. The program was killed, with its group if it leads one, and
    ///   waited for. If it runs as another user by now, it has lost its readers instead.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(ipc::Command::new("echo").arg("hello").output()?.stdout, b"hello\n");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "wait_with_output")]
    pub fn output(mut self) -> Result<Output> {
        if !self.0.is_set(0) {
            self.0.stdio[0] = Some(Stdio::null());
        }
        let readers = self.0.capture()?;
        let child = self.spawn()?;
        let mut talk = Talk { stdin: None, input: &[], readers, said: [Vec::new(), Vec::new()] };
        let heard = talk.until_all_is_said();
        if heard.is_err() {
            // One that runs as another user by now cannot be killed. It has lost its readers, and is waited for all the same.
            let _ = child.end();
        }
        talk.readers = [None, None];
        let [stdout, stderr] = talk.said;
        let status = child.wait();
        heard?;
        match status {
            Ok(status) => Ok(Output { status, stdout, stderr }),
            Err(Error::StatusTaken { .. }) => Err(Error::StatusTaken { stdout, stderr }),
            Err(error) => Err(error),
        }
    }

    /// Starts the program, and blocks until it has left or the time is up. Meanwhile, writes `input` to its standard input and
    /// reads its standard output and error, all three at once. Returns its output.
    ///
    /// An output that was set stays as it is, and its part of the result is empty. A standard input that was set stays too, if
    /// `input` is empty. A program need not read all of its input.
    ///
    /// When the time is up, the program is killed and waited for, and the error has its output so far. If it leads a
    /// group ([`process_group(0)`](Self::process_group), [`new_session`](Self::new_session)), the group is killed too.
    /// A program that runs as another user by now cannot be killed: it runs on. `None` waits for ever.
    ///
    /// **A process that the program leaves behind** may keep the output open. It is read for 200 ms after the program has left,
    /// and not past the time.
    ///
    /// # Errors
    ///
    /// [`CommunicateError`], with the output so far, and one of:
    ///
    /// - [`Error::TimedOut`]: the program did not leave in time.
    /// - [`Error::InvalidInput`]: there is input, and the standard input was set. Nothing was started.
    /// - As [`spawn`](Self::spawn), with [`Error::NotStarted`] for a fault of the program, and as [`Child::wait`].
    /// - [`Error::System`] of `malloc`: there is no memory for its output. Of `read`: its output cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let sorted = ipc::Command::new("sort").communicate(b"two\none\n", Some(Duration::from_secs(60)))?;
    /// assert_eq!(sorted.stdout, b"one\ntwo\n");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn communicate(self, input: &[u8], timeout: Option<Duration>) -> Result<Output, CommunicateError> {
        communicate(self, input, timeout)
    }

    /// Becomes the program: this process runs it from here on. Returns only an error.
    ///
    /// For a child that gives something up first, such as privileges. Descriptors that are not close-on-exec stay open.
    /// Rust's stdout is flushed. Signals are held back, so that no handler of this process sees an end that was swapped.
    ///
    /// If it fails, descriptors, directory, signals and `umask` are put back. Other options are not undone: another
    /// user, a session, close-on-exec of others ([`close_others`](Self::close_others)).
    ///
    /// A missing program is noticed before a signal can come. A file that the kernel refuses to run (`ENOEXEC`) or an
    /// argument list that is too long (`E2BIG`) is not. For that moment no signal is blocked, also in a process with threads.
    /// Handlers of a process with one thread are gone then, and a `SIGTERM` ends it.
    ///
    /// # Errors
    ///
    /// - As [`spawn`](Self::spawn).
    /// - [`Error::MultiThreaded`]: this process has a second thread, which would see its descriptors, directory and signals
    ///   change. A command with no ends, and no options but the environment, is started all the same, and ends
    ///   the other threads.
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
    #[doc(alias = "execve")]
    #[doc(alias = "execvp")]
    #[must_use]
    pub fn exec(mut self) -> SpawnError {
        let error = self.0.exec();
        SpawnError { command: self, error }
    }
}

impl Parts {
    fn spawn(&mut self) -> Result<Child> {
        if signal::loses_children() {
            return Err(Error::SigchldIgnored);
        }
        sys::process::check_waiting().map_err(|(call, errno)| Error::system(call, errno))?;
        // Beside the rest while it is at work.
        let mut options = std::mem::take(&mut self.options);
        let started = self.ready().and_then(|ready| ready.plan(&mut options, start).map_err(failed));
        self.options = options;
        started.map(|Started { pid, pidfd }| Child::new(pid, pidfd).leading_group(self.leads_a_group()))
    }

    /// Makes a pipe of each output that is not set, and returns its reader.
    pub(super) fn capture(&mut self) -> Result<[Option<Arc<End>>; 2]> {
        let mut readers = [None, None];
        for (reader, number) in readers.iter_mut().zip(1..) {
            if !self.is_set(number) {
                let (ours, theirs) = sys::pipe::pair(false).map_err(|errno| Error::system("pipe2", errno))?;
                *reader = Some(Arc::new(End::new(ours)?));
                self.stdio[number] = Some(Stdio::end(End::new(theirs)?));
            }
        }
        Ok(readers)
    }

    fn exec(&mut self) -> Error {
        let mut options = std::mem::take(&mut self.options);
        let error = match self.ready() {
            Ok(ready) => become_program(&ready, &mut options),
            Err(error) => error,
        };
        self.options = options;
        error
    }

    /// Returns whether a signal to the program's group hits the program and its children, and no other process.
    fn leads_a_group(&self) -> bool {
        self.options.session || self.options.group == Some(0)
    }

    /// Returns whether the program is given something under that number.
    pub(super) fn is_set(&self, number: usize) -> bool {
        let here = |place: &Place| matches!(place, Place::Number(given) if *given == number as RawFd);
        self.stdio[number].is_some() || self.given.iter().any(|(place, _)| here(place))
    }
}

fn become_program(ready: &Ready<'_>, options: &mut Options) -> Error {
    // Last of all but the flush, which runs nothing of the caller's.
    let stage = match Permit::alone() {
        Ok(Ok(_)) => Stage::InPlace,
        Ok(Err(_)) if ready.changes_nothing() && options.is_empty() => Stage::AmongThreads,
        Ok(Err(threads)) => return Error::MultiThreaded { threads },
        Err(errno) => return Error::system("unshare", errno),
    };
    if let Err(source) = io::Write::flush(&mut io::stdout()) {
        return Error::System { call: "write", source };
    }
    let Err(refused) = ready.plan(options, |plan| Err::<Infallible, _>(exec(plan, stage)));
    failed(refused)
}

fn failed(failed: Failed) -> Error {
    Error::system(failed.call, failed.errno)
}
