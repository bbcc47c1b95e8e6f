//! Talking to a program: its input and both outputs, all at once.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Command;
use super::parts::Parts;
use crate::end::packets::PACKET;
use crate::end::{End, Stdio};
use crate::error::{Bytes, Error, Result, gives_back};
use crate::process::child::Child;
use crate::sys::pipe::NowaitWrite;
use crate::sys::poll::POLLIN;
use crate::sys::signal::Sigpipe;
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin, Watch, wait_any};

/// How long the outputs of a program that has left are read, if another process has them too.
pub(super) const GRACE: Duration = Duration::from_millis(200);

/// The most bytes of one output that are read before it is the other's turn: as many as a pipe holds.
const AT_ONCE: usize = 64 << 10;

/// A program whose output was not read to EOF, and why. It was killed and waited for, unless it runs as another user by now.
///
/// `?` turns it into [`Error`] or [`io::Error`], which have no place for the output.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let command = ipc::Command::new("sh").arg("-c").arg("echo started; sleep 60");
/// let stopped = command.communicate(b"", Some(Duration::from_millis(500))).unwrap_err();
/// assert!(matches!(stopped.error, ipc::Error::TimedOut));
/// assert_eq!(stopped.stdout, b"started\n");
/// ```
#[non_exhaustive]
pub struct CommunicateError {
    /// The program, as it was given to [`Command::new`].
    pub program: Box<OsStr>,
    /// The bytes that it had written to its standard output.
    pub stdout: Vec<u8>,
    /// The bytes that it had written to its standard error.
    pub stderr: Vec<u8>,
    /// The cause.
    pub error: Error,
}

impl CommunicateError {
    /// Of a program that has not said anything.
    pub(crate) fn silent(program: Box<OsStr>, error: impl Into<Error>) -> Self {
        Self { program, stdout: Vec::new(), stderr: Vec::new(), error: error.into() }
    }
}

impl std::error::Error for CommunicateError {}

gives_back!(CommunicateError);

/// The program, and the cause.
impl fmt::Display for CommunicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            // It has the name already.
            error @ Error::NotStarted { .. } => write!(f, "{error}"),
            error => write!(f, "{:?}: {error}", self.program),
        }
    }
}

/// Of the outputs, the number of bytes and the first few.
impl fmt::Debug for CommunicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommunicateError")
            .field("program", &self.program)
            .field("stdout", &Bytes(&self.stdout))
            .field("stderr", &Bytes(&self.stderr))
            .field("error", &self.error)
            .finish()
    }
}

impl Command {
    /// The program, as an error names it.
    pub(crate) fn program(&self) -> Box<OsStr> {
        self.0.program.clone().into()
    }
}

impl Parts {
    /// Makes a pipe of the input, if there is any, and returns its writer.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<Option<Arc<End>>> {
        if self.is_set(0) {
            return match input {
                [] => Ok(None),
                _ => {
                    Err(Error::InvalidInput { what: "there is input, and the standard input is set to something else" })
                }
            };
        }
        if input.is_empty() {
            self.stdio[0] = Some(Stdio::null());
            return Ok(None);
        }
        let (theirs, ours) = sys::pipe::pair(false).map_err(|errno| Error::system("pipe2", errno))?;
        let (theirs, ours) = (End::new(theirs)?, End::new(ours)?);
        self.stdio[0] = Some(Stdio::end(theirs));
        Ok(Some(Arc::new(ours)))
    }
}

/// Starts the program and talks to it.
pub(super) fn communicate(
    command: Command,
    input: &[u8],
    timeout: Option<Duration>,
) -> Result<Output, CommunicateError> {
    let mut program = Conversation::begin(command, input, timeout)?;
    let left = program.until_it_leaves();
    if left.is_err() && program.stop() {
        // An error would mean that other code has waited for it.
        let _ = program.child.wait();
    }
    program.end(left)
}

/// A program that was started to be talked to.
pub(crate) struct Conversation<'a> {
    pub(crate) child: Child,
    talk: Talk<'a>,
    deadline: Option<Instant>,
    /// Until when to read, once it has left.
    grace: Option<Instant>,
    program: Box<OsStr>,
}

impl<'a> Conversation<'a> {
    pub(crate) fn begin(
        mut command: Command,
        input: &'a [u8],
        timeout: Option<Duration>,
    ) -> Result<Self, CommunicateError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let program = command.program();
        let pipes = command.0.feed(input).and_then(|stdin| Ok((stdin, command.0.capture()?)));
        let (stdin, readers) = pipes.map_err(|error| CommunicateError::silent(program.clone(), error))?;
        let child = command.spawn().map_err(|refused| CommunicateError::silent(program.clone(), refused))?;
        let talk = Talk { stdin, input, readers, said: [Vec::new(), Vec::new()] };
        Ok(Self { child, talk, deadline, grace: None, program })
    }

    fn until_it_leaves(&mut self) -> Result<ExitStatus> {
        let left = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(Instant::now()));
        while !self.is_over()? {
            let mut on = self.watches();
            let watches_child = self.grace.is_none();
            wait_any(&mut on, left(self.until()))?;
            let has_left = watches_child && on[0].ready().is_readable();
            drop(on);
            self.go_on(has_left)?;
        }
        match self.deadline {
            None => self.child.wait(),
            Some(_) => self.child.wait_timeout(left(self.deadline).unwrap_or_default())?.ok_or(Error::TimedOut),
        }
    }

    /// Returns when the conversation is over at the latest, as far as is known.
    pub(crate) fn until(&self) -> Option<Instant> {
        match (self.deadline, self.grace) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Returns when the program has to have left.
    #[cfg(feature = "tokio")]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether both outputs are at EOF, or the time is up. Then only the program's exit is left.
    pub(crate) fn is_over(&mut self) -> Result<bool> {
        if !self.talk.is_going_on() {
            return Ok(true);
        }
        if self.until().is_some_and(|until| until <= Instant::now()) {
            // Only bytes that are there already are read. It may have left in time.
            self.talk.listen()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The program, which is first as long as it runs, and the pipes.
    fn watches(&self) -> Vec<Watch<'_>> {
        let mut on = self.talk.watches();
        if self.grace.is_none() {
            on.insert(0, Watch::readable(&self.child));
        }
        on
    }

    /// The pipes: those that are read, and the one that is written.
    #[cfg(feature = "tokio")]
    pub(crate) fn pipes(&self) -> ([Option<Arc<End>>; 2], Option<Arc<End>>) {
        (self.talk.readers.clone(), self.talk.stdin.clone())
    }

    /// Returns whether the program was not seen to leave yet.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_running(&self) -> bool {
        self.grace.is_none()
    }

    /// Returns whether there is more to be written, after writing what there is room for. `WouldBlock`: there is none.
    #[cfg(feature = "tokio")]
    pub(crate) fn write(&mut self) -> Result<bool> {
        self.talk.write().map(|()| self.talk.stdin.is_some())
    }

    /// Returns whether there is more to come of one output, after reading what is there. `WouldBlock`: that is nothing.
    #[cfg(feature = "tokio")]
    pub(crate) fn hear(&mut self, output: usize) -> Result<bool> {
        let (reader, said) = (&mut self.talk.readers[output], &mut self.talk.said[output]);
        hear(reader, said).map(|()| reader.is_some())
    }

    /// Notes that the program has left.
    pub(crate) fn has_left(&mut self) {
        self.grace = Instant::now().checked_add(GRACE);
        self.talk.stdin = None;
    }

    /// Writes and reads as much as possible, after a pipe became ready. `has_left`: the program did.
    fn go_on(&mut self, has_left: bool) -> Result<()> {
        if has_left && self.grace.is_none() {
            self.has_left();
        }
        unless_nothing(self.talk.write())?;
        self.talk.listen()
    }

    /// Kills the program, and reads the rest of its output. Returns whether it was killed: one that runs as another user by now
    /// cannot be. It loses its readers, and may not leave for that.
    pub(crate) fn stop(&mut self) -> bool {
        self.talk.stdin = None;
        let is_killed = self.child.end().is_ok();
        // Its last bytes are in the pipes. If they cannot be read, that is the error already.
        let _ = self.talk.hear_out();
        self.talk.readers = [None, None];
        is_killed
    }

    /// The outcome, of a program that has left, or was stopped.
    pub(crate) fn end(&mut self, left: Result<ExitStatus>) -> Result<Output, CommunicateError> {
        // It may have written since the last look, and the pipes may hold more than one look reads.
        let left = left.and_then(|status| self.talk.hear_out().map(|()| status));
        let [stdout, stderr] = std::mem::take(&mut self.talk.said);
        match left {
            Ok(status) => Ok(Output { status, stdout, stderr }),
            Err(error) => Err(CommunicateError { program: self.program.clone(), stdout, stderr, error }),
        }
    }
}

/// The pipes to a program, and what came through them.
pub(super) struct Talk<'a> {
    pub(super) stdin: Option<Arc<End>>,
    /// The bytes that are still to be written.
    pub(super) input: &'a [u8],
    /// Shared with a runtime that watches them.
    pub(super) readers: [Option<Arc<End>>; 2],
    pub(super) said: [Vec<u8>; 2],
}

impl Talk<'_> {
    /// Reads both outputs to their ends, as it comes: a program that fills one must not wait for a reader of the other.
    pub(super) fn until_all_is_said(&mut self) -> Result<()> {
        while self.is_going_on() {
            wait_any(&mut self.watches(), None)?;
            self.listen()?;
        }
        Ok(())
    }

    fn is_going_on(&self) -> bool {
        self.stdin.is_some() || self.readers.iter().any(Option::is_some)
    }

    fn watches(&self) -> Vec<Watch<'_>> {
        let outputs = self.readers.iter().flatten().map(Watch::readable);
        outputs.chain(self.stdin.iter().map(Watch::writable)).collect()
    }

    /// Writes as much as there is room for. `WouldBlock`: there is none.
    fn write(&mut self) -> Result<()> {
        let Some(stdin) = &self.stdin else { return Ok(()) };
        let sigpipe = Sigpipe::look();
        let mut write = NowaitWrite::new(self.input, sigpipe);
        let written = match sys::retry(|| write.attempt(stdin.as_fd())) {
            // A sandbox or an emulator. The program has the reader, so this process is the only writer.
            Err(errno) if sys::is_refused(errno) => {
                sys::retry(|| sys::pipe::write_alone(stdin.as_fd(), self.input, sigpipe))
            }
            written => written,
        };
        match written {
            Ok(len) => self.input = &self.input[len..],
            Err(Errno::AGAIN) => return Err(Error::WouldBlock),
            // The program did not want the rest.
            Err(Errno::PIPE) => self.input = &[],
            Err(errno) => return Err(stdin.error("write", errno)),
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    /// Reads the bytes that are there, of each output about as many as a pipe holds.
    fn listen(&mut self) -> Result<()> {
        let mut done = Ok(());
        for (reader, said) in self.readers.iter_mut().zip(&mut self.said) {
            // Of the other one too: memory may suffice for that.
            done = done.and(unless_nothing(hear(reader, said)));
        }
        done
    }

    /// Reads all bytes that are there at this moment, in packets too. A writer that goes on is not waited for.
    fn hear_out(&mut self) -> Result<()> {
        let mut done = Ok(());
        for (reader, said) in self.readers.iter_mut().zip(&mut self.said) {
            let there = reader.as_ref().map_or(0, |end| sys::pipe::available(end.as_fd()).unwrap_or(AT_ONCE));
            let enough = said.len() + there;
            while reader.is_some() && said.len() < enough {
                match hear(reader, said) {
                    Ok(()) => {}
                    Err(Error::WouldBlock) => break,
                    Err(error) => {
                        done = done.and(Err(error));
                        break;
                    }
                }
            }
        }
        done
    }
}

/// Turns `WouldBlock` into `Ok`: there is nothing to do now.
fn unless_nothing(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::WouldBlock) => Ok(()),
        done => done,
    }
}

/// Reads the bytes that are there of one output. `WouldBlock`: there are none. The memory comes first, so that no byte is lost
/// where there is none.
fn hear(reader: &mut Option<Arc<End>>, said: &mut Vec<u8>) -> Result<()> {
    let before = said.len();
    let enough = before + AT_ONCE;
    while let Some(end) = reader.as_ref().filter(|_| said.len() < enough) {
        let start = said.len();
        // With room for whatever a writer with O_DIRECT makes one packet of, whose rest would be lost.
        let room = start.clamp(PACKET, AT_ONCE);
        said.try_reserve(room).map_err(|_| Error::system("malloc", Errno::NOMEM))?;
        said.resize(start + room, 0);
        let bufs = &mut [io::IoSliceMut::new(&mut said[start..])];
        let read = |_| sys::pipe::read_nowait(end.as_fd(), bufs);
        let read = Patience::None.persist(&**end, &Spin::default(), "read", POLLIN, None, read);
        said.truncate(start + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => *reader = None,
            Ok(len) if len == room => {}
            Ok(_) => return Ok(()),
            Err(Error::WouldBlock) if start > before => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
