//! Talking to a program, awaited.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::tokio::io::Interest;
use ::tokio::runtime::Handle;

use super::{Watched, check_runtime, until};
use crate::end::End;
use crate::error::{Error, Result};
use crate::process::{Command, CommunicateError, Conversation};
use crate::sys::descriptor::duplicate;

/// How long to wait for a killed program if no runtime is left to do so.
const LEAVING: Duration = Duration::from_secs(1);

/// Feeds `input` to the program's standard input, reads its standard output and error meanwhile, and waits for it.
///
/// The same as [`Command::communicate`](crate::Command::communicate), but awaited.
///
/// When the time is up, the program is killed and waited for. The error holds the bytes that it had written until then.
///
/// # Cancel safety
///
/// Not cancel safe: if its future is dropped, the program is killed, and its output is lost. A task of the runtime waits
/// for it, so that it does not stay a zombie. To keep the output, use `timeout`.
///
/// # Errors
///
/// The same as [`Command::communicate`](crate::Command::communicate). Outside of a runtime, [`Error::System`]: the program
/// was not started.
///
/// # Panics
///
/// In a runtime without IO, as [`PipeReader::new`](super::PipeReader::new).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let output = ipc::tokio::communicate(ipc::Command::new("sort"), b"b\na\n", None).await?;
/// assert_eq!(output.stdout, b"a\nb\n");
///
/// let command = ipc::Command::new("sh").args(["-c", "echo started; sleep 60"]);
/// let stopped = ipc::tokio::communicate(command, b"", Some(Duration::from_millis(500))).await.unwrap_err();
/// assert!(matches!(stopped.error, ipc::Error::TimedOut));
/// assert_eq!(stopped.stdout, b"started\n");
/// # Ok::<(), ipc::Error>(())
/// # })?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub async fn communicate(
    command: Command,
    input: &[u8],
    timeout: Option<Duration>,
) -> Result<Output, CommunicateError> {
    if let Err(error) = check_runtime() {
        return Err(CommunicateError::silent(command.program(), error));
    }
    let mut program = Guard(Some(Conversation::begin(command, input, timeout)?));
    let Some(talk) = &mut program.0 else { unreachable!("it was put there") };
    let left = until_it_leaves(talk).await;
    if left.is_err() && talk.stop() {
        // An error would mean that other code has waited for it.
        let _ = exit(talk, None).await;
    }
    let end = talk.end(left);
    program.0 = None;
    end
}

async fn until_it_leaves(talk: &mut Conversation<'_>) -> Result<ExitStatus> {
    let mut watches = Watches::new(talk)?;
    while !talk.is_over()? {
        // When the time is up, it is over.
        until(talk.until(), poll_fn(|cx| watches.poll(cx, talk))).await?.unwrap_or(Ok(()))?;
    }
    exit(talk, talk.deadline()).await
}

/// Waits until the program has left, and returns its status.
async fn exit(talk: &Conversation<'_>, deadline: Option<Instant>) -> Result<ExitStatus> {
    // One watch for all looks: a program that is traced is ready, and has no status until its tracer lets go of it.
    let pidfd = Watched::new(talk.child.as_fd(), Interest::READABLE)?;
    let left = pidfd.call(Interest::READABLE, |_| talk.child.try_wait()?.ok_or(Error::WouldBlock));
    until(deadline, left).await?.unwrap_or(Err(Error::TimedOut))
}

/// A program and its pipes, each watched for all of the talk.
struct Watches {
    pidfd: Watched<OwnedFd>,
    stdin: Option<Watched<Arc<End>>>,
    outputs: [Option<Watched<Arc<End>>>; 2],
}

impl Watches {
    fn new(talk: &Conversation<'_>) -> Result<Self> {
        let pidfd = duplicate(talk.child.as_fd()).map_err(|errno| Error::system("fcntl", errno))?;
        let watch = |end: Option<Arc<End>>, interest| end.map(|end| Watched::new(end, interest)).transpose();
        let ([stdout, stderr], stdin) = talk.pipes();
        Ok(Self {
            pidfd: Watched::new(pidfd, Interest::READABLE)?,
            stdin: watch(stdin, Interest::WRITABLE)?,
            outputs: [watch(stdout, Interest::READABLE)?, watch(stderr, Interest::READABLE)?],
        })
    }

    /// Does the work that is ready. Pending if there is none.
    fn poll(&mut self, cx: &mut Context<'_>, talk: &mut Conversation<'_>) -> Poll<Result<()>> {
        let mut is_idle = true;
        // First: the rest of its input has no reader any more.
        if talk.is_running() && self.pidfd.0.poll_read_ready(cx)?.is_ready() {
            talk.has_left();
            self.stdin = None;
            is_idle = false;
        }
        if let Some(stdin) = &self.stdin {
            if let Poll::Ready(goes_on) = stdin.poll_write(cx, |_| talk.write()) {
                // EOF comes when both of its owners have let go of it.
                self.stdin = self.stdin.take().filter(|_| matches!(goes_on, Ok(true)));
                goes_on?;
                is_idle = false;
            }
        }
        for (number, output) in self.outputs.iter_mut().enumerate() {
            let Some(watched) = output else { continue };
            if let Poll::Ready(goes_on) = watched.poll_read(cx, |_| talk.hear(number)) {
                *output = output.take().filter(|_| matches!(goes_on, Ok(true)));
                goes_on?;
                is_idle = false;
            }
        }
        if is_idle { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

/// Kills the program if it is dropped before that has left, and has it waited for.
struct Guard<'a>(Option<Conversation<'a>>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Some(mut talk) = self.0.take() else { return };
        if !talk.stop() {
            return;
        }
        let child = Killed(talk.child);
        // Without a runtime, its destructor waits.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let pidfd = Watched::new(child.0.as_fd(), Interest::READABLE)?;
                poll_fn(|cx| pidfd.0.poll_read_ready(cx).map(drop)).await;
                io::Result::Ok(())
            });
        }
    }
}

/// A program that was killed, and is waited for when this is dropped.
struct Killed(crate::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has left as a rule.
        let _ = self.0.wait_timeout(LEAVING);
    }
}
