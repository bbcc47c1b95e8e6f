//! Talking to a program, awaited.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::process::{ExitStatus, Output};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::tokio::io::Interest;
use ::tokio::runtime::Handle;

use super::{Watched, check_runtime};
use crate::error::{Error, Result};
use crate::process::{Command, CommunicateError, Conversation};
use crate::sys;

/// How long a program that was killed is waited for where no runtime is left to do so.
const LEAVING: Duration = Duration::from_secs(1);

/// Feeds `input` to the program's standard input, reads its standard output and error meanwhile, and waits for it: the same as
/// [`Command::communicate`](crate::Command::communicate), but awaited.
///
/// When the time is up, the program is killed and waited for. The error holds the bytes that it had written until then.
///
/// # Cancel safety
///
/// Not cancel safe: where its future is dropped, the program is killed, and its output is lost. A task of the runtime waits for
/// it, so that it does not stay a zombie. To keep the output, use `timeout`.
///
/// # Errors
///
/// The same as [`Command::communicate`](crate::Command::communicate). Outside of a runtime [`Error::System`]: the program was not
/// started.
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
    check_runtime().map_err(|error| CommunicateError {
        stdout: Vec::new(),
        stderr: Vec::new(),
        error: error.into(),
    })?;
    let mut program = Guard(Some(Conversation::begin(command, input, timeout)?));
    let Some(talk) = &mut program.0 else { unreachable!("it was put there") };
    let left = until_it_leaves(talk).await;
    if left.is_err() && talk.stop() {
        // An error would mean that somebody else has waited for it.
        let _ = exit(talk, None).await;
    }
    let end = talk.end(left);
    program.0 = None;
    end
}

async fn until_it_leaves(talk: &mut Conversation<'_>) -> Result<ExitStatus> {
    while !talk.is_over()? {
        let has_left = ready(talk).await?;
        talk.go_on(has_left)?;
    }
    exit(talk, talk.deadline()).await
}

/// Waits until the program has left, and says how.
async fn exit(talk: &Conversation<'_>, deadline: Option<Instant>) -> Result<ExitStatus> {
    // One watch for all looks: a program that is traced is ready, and has no status until its tracer lets go of it.
    let pidfd = Watched::new(talk.child.as_fd(), Interest::READABLE)?;
    let mut left = pin!(pidfd.call(Interest::READABLE, |_| talk.child.try_wait()?.ok_or(Error::WouldBlock)));
    let mut late = pin!(any(&[], deadline));
    poll_fn(|cx| match left.as_mut().poll(cx) {
        Poll::Pending => late.as_mut().poll(cx).map(|late| Err(late.map_or_else(Error::from, |_| Error::TimedOut))),
        left => left,
    })
    .await
}

/// Waits until something can be done for the program, or its time is up. Whether it was seen to leave.
async fn ready(talk: &Conversation<'_>) -> Result<bool> {
    let (readers, writer) = talk.pipes();
    let mut on = Vec::with_capacity(5);
    // First, to be told apart.
    on.extend(talk.is_running().then(|| (talk.child.as_fd(), Interest::READABLE)));
    on.extend(readers.map(|reader| (reader, Interest::READABLE)));
    on.extend(writer.map(|writer| (writer, Interest::WRITABLE)));
    Ok(any(&on, talk.until()).await? == Some(0) && talk.is_running())
}

/// Waits until one of them is ready, and says which is the first that is. `None`: the time is up.
///
/// Each is watched anew, so that what was ready before and was not used up is seen.
async fn any(on: &[(BorrowedFd<'_>, Interest)], until: Option<Instant>) -> io::Result<Option<usize>> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timer = left.map(sys::runtime::timer).transpose()?;
    let mut watched = Vec::with_capacity(on.len() + 1);
    for (fd, interest) in on.iter().copied().chain(timer.iter().map(|timer| (timer.as_fd(), Interest::READABLE))) {
        watched.push((sys::runtime::watch(fd, interest)?, interest));
    }
    let look = |cx: &mut Context<'_>| {
        // All of them, so that each one wakes this task.
        let mut first = None;
        for (number, (fd, interest)) in watched.iter().enumerate().rev() {
            let poll = if interest.is_readable() { fd.poll_read_ready(cx) } else { fd.poll_write_ready(cx) };
            match poll {
                Poll::Ready(Ok(_)) => first = Some(number),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        first.map_or(Poll::Pending, |number| Poll::Ready(Ok((number < on.len()).then_some(number))))
    };
    poll_fn(look).await
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
            runtime
                .spawn(async move { any(&[(child.0.as_fd(), Interest::READABLE)], None).await.map(|_| drop(child)) });
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
