//! Talking to a program: what it reads, and what it says, all at once.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::Command;
use super::parts::Parts;
use crate::end::packets::PACKET;
use crate::end::{End, Stdio};
use crate::error::{Bytes, Error, Result, gives_back};
use crate::process::child::Child;
use crate::sys::poll::POLLIN;
use crate::sys::signal::Sigpipe;
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin, Watch, wait_any};

/// How long the outputs of a program that has left are listened to, if another process has them too.
pub(super) const GRACE: Duration = Duration::from_millis(200);

/// So much of one output is read before it is the other's turn: what a pipe holds.
const AT_ONCE: usize = 64 << 10;

/// A program that was not heard out, and why. It was killed and waited for, unless it runs as another user by now.
///
/// `?` turns it into [`Error`] or [`io::Error`], which have no place for what was said.
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
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct CommunicateError {
    /// The bytes that it had written to its standard output.
    pub stdout: Vec<u8>,
    /// The bytes that it had written to its standard error.
    pub stderr: Vec<u8>,
    /// The cause.
    pub error: Error,
}

gives_back!(CommunicateError);

/// Of the outputs, the number of bytes and the first few.
impl fmt::Debug for CommunicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommunicateError")
            .field("stdout", &Bytes(&self.stdout))
            .field("stderr", &Bytes(&self.stderr))
            .field("error", &self.error)
            .finish()
    }
}

impl Parts {
    /// Makes a pipe of the input, if there is any, and returns its writer.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<Option<End>> {
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
        // The description is nobody else's: the program has the reader's.
        rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK).map_err(|errno| Error::system("fcntl", errno))?;
        self.stdio[0] = Some(Stdio::end(theirs));
        Ok(Some(ours))
    }
}

/// Starts the program and talks to it.
pub(super) fn communicate(
    mut command: Command,
    input: &[u8],
    timeout: Option<Duration>,
) -> Result<Output, CommunicateError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let silent = |error| CommunicateError { stdout: Vec::new(), stderr: Vec::new(), error };
    let stdin = command.0.feed(input).map_err(silent)?;
    let readers = command.0.capture().map_err(silent)?;
    let child = command.spawn().map_err(|refused| silent(refused.into()))?;
    let mut talk = Talk { stdin, input, readers, said: [Vec::new(), Vec::new()] };
    match talk.until_it_leaves(&child, deadline) {
        Ok(status) => {
            let [stdout, stderr] = talk.said;
            Ok(Output { status, stdout, stderr })
        }
        Err(error) => {
            talk.stdin = None;
            // One that runs as another user by now cannot be killed. It loses its readers, and may not leave for that.
            let is_killed = child.end().is_ok();
            // Its last words are in the pipes. If they cannot be read, that is the error already.
            let _ = talk.listen();
            talk.readers = [None, None];
            if is_killed {
                // An error would mean that somebody else has waited for it.
                let _ = child.wait();
            }
            let [stdout, stderr] = talk.said;
            Err(CommunicateError { stdout, stderr, error })
        }
    }
}

/// The pipes to a program, and what came through them.
pub(super) struct Talk<'a> {
    pub(super) stdin: Option<End>,
    /// The bytes that are still to be written.
    pub(super) input: &'a [u8],
    pub(super) readers: [Option<End>; 2],
    pub(super) said: [Vec<u8>; 2],
}

impl Talk<'_> {
    fn until_it_leaves(&mut self, child: &Child, deadline: Option<Instant>) -> Result<ExitStatus> {
        let left = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(Instant::now()));
        // Until when to listen, once it has left.
        let mut grace = None;
        while self.is_going_on() {
            let until = match (deadline, grace) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if left(until) == Some(Duration::ZERO) {
                // Only bytes that are there already are read. It may have left in time.
                self.listen()?;
                break;
            }
            let mut on = self.watches();
            if grace.is_none() {
                on.push(Watch::readable(child));
            }
            wait_any(&mut on, left(until))?;
            let has_left = grace.is_none() && on.pop().is_some_and(|child| child.ready().is_readable());
            drop(on);
            if has_left {
                grace = Instant::now().checked_add(GRACE);
                self.stdin = None;
            }
            self.write()?;
            self.listen()?;
        }
        match deadline {
            None => child.wait(),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                child.wait_timeout(left)?.ok_or(Error::TimedOut)
            }
        }
    }

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

    /// Writes what there is room for.
    fn write(&mut self) -> Result<()> {
        let Some(stdin) = &self.stdin else { return Ok(()) };
        match sys::retry(|| sys::pipe::write(stdin.as_fd(), self.input, Sigpipe::look())) {
            Ok(len) => self.input = &self.input[len..],
            Err(Errno::AGAIN) => return Ok(()),
            // The program did not want the rest.
            Err(Errno::PIPE) => self.input = &[],
            Err(errno) => return Err(stdin.error("write", errno)),
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    /// Reads what is there, of each output about as much as a pipe holds.
    fn listen(&mut self) -> Result<()> {
        let mut done = Ok(());
        for (reader, said) in self.readers.iter_mut().zip(&mut self.said) {
            // Of the other one too: memory may suffice for that.
            done = done.and(hear(reader, said));
        }
        done
    }
}

/// Reads what is there of one output. The memory comes first, so that where there is none, nothing is lost of what was said.
fn hear(reader: &mut Option<End>, said: &mut Vec<u8>) -> Result<()> {
    let enough = said.len() + AT_ONCE;
    while let Some(end) = reader.as_ref().filter(|_| said.len() < enough) {
        let start = said.len();
        // With room for whatever a writer with O_DIRECT makes one packet of, whose rest would be lost.
        let room = start.clamp(PACKET, AT_ONCE);
        said.try_reserve(room).map_err(|_| Error::system("malloc", Errno::NOMEM))?;
        said.resize(start + room, 0);
        let bufs = &mut [io::IoSliceMut::new(&mut said[start..])];
        let read = |_| sys::pipe::read_nowait(end.as_fd(), bufs);
        let read = Patience::None.persist(end, &Spin::default(), "read", POLLIN, None, read);
        said.truncate(start + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => *reader = None,
            Ok(len) if len == room => {}
            Ok(_) | Err(Error::WouldBlock) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
