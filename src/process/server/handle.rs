//! The caller's side: orders, and the workers that are made for them.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use rustix::process::Pid;

use super::order::{Answer, Request};
use crate::end::{self, End, Ends};
use crate::error::{Error, Result};
use crate::process::child::Child;
use crate::process::held::NAPS;
use crate::socket::DatagramSocket;
use crate::sys::epoch::Process;
use crate::sys::poll::{POLLIN, look, poll, pollfd};
use crate::sys::{self, Errno, ancillary, signal};
use crate::wait::{Patience, Watch, wait_any};

/// How long a server that was told to leave may take, and a worker that was never told to begin.
const LEAVING: Duration = Duration::from_secs(1);

/// How long a server that was killed may take from closing a line to its end, on a machine that is very busy.
const SHORTLY: Duration = Duration::from_millis(500);

/// A message of this length, in bytes, fits every socket buffer: the kernel allows none of less than 4 KiB.
const ALWAYS_FITS: usize = 2048;

/// The most orders that may be given up and unsettled before the next one with a deadline.
const MOST_LATE: usize = 64;

/// The server as its caller holds it: together with the workers that it has to report about.
pub(super) struct Handle {
    control: DatagramSocket,
    pub(super) process: Child,
    caller: Process,
    /// The orders that were given up and are not settled.
    late: Mutex<Vec<Late>>,
}

/// An order that was given up.
enum Late {
    /// Its line. A worker may still come, and is to be waited for.
    Line(DatagramSocket),
    /// Its worker, which was killed and has still to leave.
    Killed(Child),
    /// The same without a pidfd, which had no place in the table of descriptors.
    Number(Pid),
}

impl Handle {
    pub(super) fn new(control: DatagramSocket, process: Child) -> Self {
        Self { control, process, caller: Process::this(), late: Mutex::default() }
    }

    /// Starts a worker, and gives its ends away.
    pub(super) fn start_worker(
        self: &Arc<Self>,
        message: &[u8],
        ends: &impl Ends,
        deadline: Option<Instant>,
    ) -> Result<Child> {
        if !self.is_callers() {
            return Err(Error::NotGiven);
        }
        if signal::loses_children() {
            return Err(Error::SigchldIgnored);
        }
        let (count, max) = (end::descriptors(ends)?.len(), ancillary::MOST);
        if count > max {
            return Err(Error::TooLong { len: count, max });
        }
        let (line, workers) = self::line()?;
        let len = message.len();
        if len > ALWAYS_FITS && len > line.max_message()? {
            let max = line.set_max_message(len)?;
            if len > max {
                return Err(Error::TooLong { len, max });
            }
        }
        self.settle(Duration::ZERO);
        if let Some(deadline) = deadline {
            self.make_room(deadline)?;
        }
        // For the worker's pidfd.
        let place = sys::descriptor::duplicate(line.as_fd()).map_err(|errno| Error::system("fcntl", errno))?;
        let patience = deadline.map_or(Patience::Blocking, Patience::Until);
        let request = Request { ends: count, message: len };
        self.control.send_ends(&request.to_bytes(), workers, patience)?;

        let answer = match self.answer(&line, place, deadline) {
            Ok(answer) => answer,
            Err(error) => {
                let patience = if matches!(error, Error::Closed) { LEAVING } else { Duration::ZERO };
                self.give_up(line, at_most(patience, deadline));
                return Err(error);
            }
        };
        let (child, is_reported) = self.hold(answer, deadline)?;
        // The worker waits for it, and so it never blocks.
        let bytes = if message.is_empty() { Request::NO_MESSAGE } else { message };
        match line.send_ends(bytes, ends, patience).map_err(Error::from) {
            // A worker that was killed before it began is one that was killed.
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => {
                if child.kill().is_ok() {
                    self.see_off(Late::Killed(child), deadline);
                }
                return Err(error);
            }
        }
        Ok(match is_reported {
            false => child,
            true => child.reported_by(Reporter {
                line: Arc::new(line.end.into_fd()),
                server: Arc::clone(self),
                adopted: OnceLock::new(),
            }),
        })
    }

    /// Blocks until the order is answered, the server is gone, or the time is up.
    fn answer(&self, line: &DatagramSocket, place: OwnedFd, deadline: Option<Instant>) -> Result<Said> {
        let left = deadline.map(left_until);
        let mut on = [Watch::readable(line), Watch::readable(&self.control)];
        if wait_any(&mut on, left)? == 0 {
            return Err(Error::TimedOut);
        }
        // The server never sends on its socket, so it is gone. The worker has the line too, and keeps it from ending.
        if on[0].ready().is_empty() && look(line.as_fd(), POLLIN).is_ok_and(|events| events == 0) {
            return Err(Error::Closed);
        }
        drop(place);
        match said(line) {
            Ok(Some(said)) => Ok(said),
            // The server was killed just now; or it had no descriptors left for the line. Its socket does not tell: a worker that
            // was just made may have a copy of it.
            Ok(None) => match self.process.wait_timeout(at_most(SHORTLY, deadline)) {
                Ok(None) if deadline.is_some_and(|deadline| left_until(deadline).is_zero()) => Err(Error::TimedOut),
                Ok(None) => Err(Error::system("recvmsg", Errno::MFILE)),
                // Other code has waited for it, or nobody.
                Ok(Some(_)) | Err(Error::StatusTaken { .. }) => Err(Error::Closed),
                Err(error) => Err(error),
            },
            Err(errno) => Err(Error::system("recvmsg", errno)),
        }
    }

    /// Holds the worker that an answer names, and returns whether the server has to report about it.
    fn hold(&self, (answer, pidfd): Said, deadline: Option<Instant>) -> Result<(Child, bool)> {
        let (number, is_reported) = match answer {
            Answer::Yours(pid) => (pid, false),
            Answer::Mine(pid) => (pid, true),
            Answer::Refused(step, errno) => {
                return Err(Error::System { call: step.call(), source: io::Error::from_raw_os_error(errno) });
            }
            Answer::Left(_) | Answer::Unused(_) => return Err(Error::system("recvmsg", Errno::BADMSG)),
        };
        let pid = Pid::from_raw(number).ok_or_else(|| Error::system("recvmsg", Errno::BADMSG))?;
        let pidfd = match pidfd {
            Some(pidfd) => pidfd,
            // Another thread took the place. No process has waited for the worker, so the number is still its own.
            None if is_reported => sys::process::pidfd(pid).map_err(|errno| Error::system("pidfd_open", errno))?,
            None => sys::process::pidfd_of_child(pid).map_err(|errno| {
                // It was not waited for, or it is no child any more.
                sys::process::kill_number(pid);
                self.see_off(Late::Number(pid), deadline);
                Error::system("pidfd_open", errno)
            })?,
        };
        Ok((Child::new(pid, pidfd), is_reported))
    }

    /// Waits for a worker that was killed, and notes it for later if it takes too long.
    fn see_off(&self, worker: Late, deadline: Option<Instant>) {
        let left = worker.settled(Instant::now() + at_most(LEAVING, deadline));
        lock(&self.late).extend(left);
    }

    /// Tells the worker, which may be there or come later, not to begin, and waits for it at most that long.
    fn give_up(&self, line: DatagramSocket, patience: Duration) {
        // Of a socket that is connected and open it does not fail.
        let _ = line.shutdown(Shutdown::Write);
        lock(&self.late).push(Late::Line(line));
        self.settle(patience);
    }

    /// Waits for the workers of orders that were given up.
    fn settle(&self, patience: Duration) {
        self.settle_until(Instant::now() + patience);
    }

    /// The same. Not under the lock, as others have deadlines of their own.
    fn settle_until(&self, deadline: Instant) {
        let late = std::mem::take(&mut *lock(&self.late));
        let mut left: Vec<_> = late.into_iter().filter_map(|late| late.settled(deadline)).collect();
        lock(&self.late).append(&mut left);
    }

    /// A caller that keeps giving orders to a server that does not answer must not run out of descriptors.
    fn make_room(&self, deadline: Instant) -> Result<()> {
        let is_full = || lock(&self.late).len() >= MOST_LATE;
        if is_full() {
            self.settle_until(deadline);
        }
        if is_full() { Err(Error::TimedOut) } else { Ok(()) }
    }

    /// Returns whether this process started the server, and is no fork of the one that did.
    fn is_callers(&self) -> bool {
        self.caller.is_this()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_callers() {
            return;
        }
        // Also where another process has a copy of the socket. An error would mean that other code closed its number.
        let _ = self.control.shutdown(Shutdown::Both);
        if let Ok(None) = self.process.wait_timeout(LEAVING) {
            // It was stopped. It answers for no worker any more.
            drop(self.process.kill().and_then(|()| self.process.wait()));
        }
        self.settle(LEAVING);
    }
}

/// The line of an order: the caller's end, and the worker's. Nothing that goes over it is empty, and so its messages are not
/// marked.
fn line() -> Result<(DatagramSocket, End)> {
    let pair = sys::socket::pair(SocketType::SEQPACKET).map_err(|errno| Error::system("socketpair", errno))?;
    Ok((DatagramSocket::unmarked(End::new(pair.0)?), End::new(pair.1)?))
}

/// An answer, and the pidfd that came with it.
type Said = (Answer, Option<OwnedFd>);

/// A message on a line, without blocking. `None`: no process is left that could send one.
fn said(line: &impl AsFd) -> sys::Result<Option<Said>> {
    let mut bytes = [0; Answer::LEN];
    let mut receive = || sys::retry(|| ancillary::receive(line.as_fd(), &mut bytes, false));
    // A worker that was killed had not read its message. The kernel reports that once, before the answers.
    let arrived = match receive() {
        // gVisor reports it in the place of EOF, again and again.
        Err(Errno::CONNRESET) => match receive() {
            Err(Errno::CONNRESET) => None,
            arrived => arrived?,
        },
        arrived => arrived?,
    };
    let Some((len, mut beside)) = arrived else { return Ok(None) };
    let answer = bytes.get(..len).and_then(Answer::parse).ok_or(Errno::BADMSG)?;
    Ok(Some((answer, beside.fds.pop())))
}

impl Late {
    /// Waits for the worker until then, if one came. Returns what is still to be settled.
    fn settled(self, deadline: Instant) -> Option<Self> {
        let line = match self {
            // An error: it was the server's child, or somebody else has waited for it.
            Late::Killed(ref child) => {
                return matches!(child.wait_timeout(left_until(deadline)), Ok(None)).then_some(self);
            }
            Late::Number(pid) => {
                let [mut nap, longest] = NAPS;
                while sys::process::is_leaving(pid) {
                    let left = left_until(deadline);
                    if left.is_zero() {
                        return Some(self);
                    }
                    // A number cannot be watched. (A signal may end the nap.)
                    let _ = poll(&mut [], Some(left.min(nap)));
                    nap = longest.min(nap * 2);
                }
                return None;
            }
            Late::Line(line) => line,
        };
        loop {
            match said(&line) {
                Ok(Some((answer @ (Answer::Yours(pid) | Answer::Unused(pid)), pidfd))) => {
                    let pid = Pid::from_raw(pid)?;
                    match pidfd {
                        Some(pidfd) => {
                            let child = Child::new(pid, pidfd);
                            child.kill().ok()?;
                            return Late::Killed(child).settled(deadline);
                        }
                        None if answer == Answer::Yours(pid.as_raw_nonzero().get()) => {
                            sys::process::kill_number(pid);
                            return Late::Number(pid).settled(deadline);
                        }
                        None => return None,
                    }
                }
                Err(Errno::AGAIN) => {
                    let left = left_until(deadline);
                    let ready = || wait_any(&mut [Watch::readable(&line)], Some(left)).is_ok_and(|ready| ready > 0);
                    if left.is_zero() || !ready() {
                        return Some(Late::Line(line));
                    }
                }
                // There is no worker, or it is the server's.
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// As long as that, and not past the caller's deadline.
fn at_most(patience: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(patience, |deadline| patience.min(left_until(deadline)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The source of the status of a worker that is the server's child.
pub(in crate::process) struct Reporter {
    /// Shared with a runtime that watches it.
    line: Arc<OwnedFd>,
    /// It waits for the worker, and so it lives as long as this.
    server: Arc<Handle>,
    /// When the server was first seen to be gone, and the worker to have left.
    adopted: OnceLock<Instant>,
}

impl Reporter {
    /// Readable when the server has reported how the worker left, or is gone itself.
    #[cfg(feature = "tokio")]
    pub(in crate::process) fn line(&self) -> &Arc<OwnedFd> {
        &self.line
    }

    /// Returns whether there is a server, which has not reported. Once it is gone, this process may have to wait for the worker.
    pub(in crate::process) fn is_silent(&self) -> bool {
        look(self.line.as_fd(), POLLIN).is_ok_and(|events| events == 0)
    }

    /// The wait status ([wait(2)]) of the worker if it has left. The server reports it once. Waits for it for at most
    /// `patience`.
    ///
    /// [wait(2)]: https://man7.org/linux/man-pages/man2/wait.2.html
    pub(in crate::process) fn reap(&self, pidfd: BorrowedFd<'_>, patience: Duration) -> sys::Result<Option<i32>> {
        if look(pidfd, POLLIN)? == 0 {
            return Ok(None);
        }
        let deadline = Instant::now() + patience.min(LEAVING);
        let left = || left_until(deadline);
        let wait_for = |fd: BorrowedFd<'_>, events| {
            let mut fds = [pollfd { fd: fd.as_raw_fd(), events, revents: 0 }];
            sys::retry(|| poll(&mut fds, Some(left())))
        };
        // The server is about to say how, if another process does not trace the worker.
        wait_for(self.line.as_fd(), POLLIN)?;
        match said(&self.line) {
            Ok(Some((Answer::Left(status), _))) => return Ok(Some(status)),
            Err(Errno::AGAIN) => return Ok(None),
            Ok(_) | Err(_) => {} // it was killed
        }
        // As long as it is on its way out, the worker is its child.
        if let Ok(None) = self.server.process.wait_timeout(left()) {
            return Ok(None);
        }
        let adopted = *self.adopted.get_or_init(Instant::now);
        // Then it is the child of the process that adopts orphans, which may be this one.
        match sys::process::reap(pidfd) {
            Err(Errno::CHILD) => {}
            reaped => return reaped,
        }
        // Or of another one, which is about to wait for it, unless it never does.
        wait_for(pidfd, 0)?;
        match sys::sibling::exit_status(pidfd) {
            Ok(None) if adopted.elapsed() < LEAVING => Ok(None),
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) | Err(_) => Err(Errno::CHILD),
        }
    }
}

#[cfg(test)]
mod tests;
