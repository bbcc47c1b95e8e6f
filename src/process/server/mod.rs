//! A process that forks on order, for programs with threads.

mod order;
mod serve;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::child::Child;
use super::fork::{Fork, ForkError};
use super::outcome::Outcome;
use crate::end::{self, Ends};
use crate::error::{Error, Result};
use crate::socket::{DatagramPair, DatagramSocket, Received, datagram_pair};
use crate::sys::poll::{POLLIN, look, poll, pollfd};
use crate::sys::process::Parent;
use crate::sys::signal::{self, Mask};
use crate::sys::{self, Errno, ancillary};
use crate::wait::{Patience, Watch, wait_any};
use order::Answer;
use serve::Server;

/// How long a server that was told to leave may take, and a worker that was never told to begin.
const LEAVING: Duration = Duration::from_secs(1);

/// How long is waited for what is certain to come at once, unless the machine is very busy.
const SHORTLY: Duration = Duration::from_millis(200);

/// A process that was forked before the first thread, and that forks workers on order from then on.
///
/// A process with a second thread cannot be forked safely, and most programs have one before their first line of work: a
/// runtime, a logger, a pool. [`fork`](crate::fork()) refuses them ([`Error::MultiThreaded`]). Start the server as the first
/// thing in `main`; from then on any thread can start workers with it, also inside a runtime.
///
/// - **A worker is a child of this process.** It is a [`Child`] as [`fork`](crate::fork()) makes one. It goes on when the
///   server is killed.
/// - **A worker has the ends of its order and no other.** The ends are moved: [`fork`](Self::fork) closes them here.
/// - **A worker is as the program was at the start**: its environment, directory, limits, signal mask and handlers, and the
///   values that `entry` captured. Later changes do not reach it: pass them in the message. Random-number states are copies
///   too.
/// - **A worker has one thread**, may start more, and may fork.
/// - **A worker begins when [`fork`](Self::fork) returns it.** An order that failed has run nothing.
///
/// The server ends when this value is dropped, and when this process does, however that happens. Running workers go on, and see
/// the end of this process by the EOF of their ends; or see [`die_with_parent`](Fork::die_with_parent). The server has every
/// signal blocked: Ctrl-C in a terminal, which goes to all processes of a job, does not end it.
///
/// The server's memory is that of the program at the start. It grows no further, and so a worker costs the same from a process
/// of 1 GiB as from a small one. Files that were open at the start and are no ends of this crate stay open in the server.
///
/// As an [end](crate::open_ends), a server counts as one: the socket that orders go through. A fork severs it.
///
/// # Platform
///
/// [clone(2)] with `CLONE_PARENT` and `CLONE_PIDFD`. The handlers of [pthread_atfork(3)] do not run. A sandbox may refuse that
/// call, and it is not made with a C library other than glibc. Then workers are children of the server, by [fork(2)]. [`Child`]
/// says the same of them: the server waits for them and reports, and so it lives as long as one of these values. If it is
/// killed, their status comes from the kernel ([ioctl_pidfd(2)], Linux 6.15), or is `ECHILD` before that.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let server = ipc::ForkServer::start(|message: Vec<u8>, mut ends: ipc::Received| -> std::io::Result<()> {
///     let mut results: ipc::PipeWriter = ends.take()?;
///     results.write_all(&message.to_ascii_uppercase())
/// })?; // first thing in main
///
/// let answer = std::thread::spawn(move || -> ipc::Result<String> {
///     let (mut reader, writer) = ipc::pipe()?;
///     let child = server.fork(b"from a thread", writer)?;
///     let mut answer = String::new();
///     reader.read_to_string(&mut answer)?;
///     assert!(child.wait()?.success());
///     Ok(answer)
/// });
/// assert_eq!(answer.join().unwrap()?, "FROM A THREAD");
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [clone(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
/// [pthread_atfork(3)]: https://man7.org/linux/man-pages/man3/pthread_atfork.3.html
/// [ioctl_pidfd(2)]: https://man7.org/linux/man-pages/man2/ioctl_pidfd.2.html
/// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
#[doc(alias = "zygote")]
#[doc(alias = "forkserver")]
#[must_use = "dropping it ends the server"]
pub struct ForkServer {
    handle: Arc<Handle>,
}

impl ForkServer {
    /// Starts the server. Each worker will run `entry`, with the message and the ends of its order, and leave with what that
    /// returns ([`Outcome`]).
    ///
    /// `entry` is moved into the server, and each worker has a copy of what it captured: where that has a destructor, it runs
    /// here, when this returns, and in no worker. Ends that it captured answer [`Error::NotGiven`] in a worker.
    ///
    /// # Errors
    ///
    /// As [`fork`](crate::fork()): [`Error::MultiThreaded`] where it is too late.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::ForkServer::start(|message, _ends| message.len() as u8)?;
    /// let child = server.fork(b"four", ())?;
    /// assert_eq!(child.wait()?.code(), Some(4));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn start<F, R>(entry: F) -> Result<Self>
    where
        F: Fn(Vec<u8>, Received) -> R + 'static,
        R: Outcome,
    {
        Self::with(Fork::new(), entry)
    }

    pub(super) fn with<F, R>(options: Fork, entry: F) -> Result<Self>
    where
        F: Fn(Vec<u8>, Received) -> R + 'static,
        R: Outcome,
    {
        if options.keep_all_ends {
            return Err(Error::InvalidInput {
                what: "the workers of a fork server have the ends of their orders alone",
            });
        }
        let mut parent = None;
        if options.die_with_parent {
            sys::process::check_die_with().map_err(|errno| Error::system("prctl", errno))?;
            parent = Some(Parent::new().map_err(|errno| Error::system("pidfd_open", errno))?);
        }
        let DatagramPair { parent: control, child: servers } = datagram_pair()?;
        // Before the fork and, in the server, for good: no signal that comes now ends it.
        let mut mask = Mask::block_all();
        let fork = Fork { holds_signals: true, ..Fork::new() };
        let started = fork.spawn(servers, |control| {
            // Who reads signals is the caller.
            sys::signalfd::forget(&mut mask);
            Server::new(control, options, parent, &mask).run(&entry)
        });
        mask.restore();
        let caller = sys::process::own_pid();
        let handle = Handle { control, process: started?, caller, late: Mutex::default() };
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Starts a worker with a message and ends, and blocks until it is there. Does not wait for it. Any thread may call it.
    ///
    /// The ends are moved into the worker. In this process they are closed when `fork` returns. References lend them, as with
    /// [`fork`](crate::fork()).
    ///
    /// # Errors
    ///
    /// The error gives the ends back, and `?` turns it into [`Error`]. Nothing has run:
    ///
    /// - [`Error::Closed`]: the server is gone, because it was killed. It cannot be started again from a process with
    ///   threads. Workers that run go on.
    /// - [`Error::TooLong`]: more than 253 ends, or a message of more than about 200 KiB. A longer one goes through an end.
    /// - [`Error::NotGiven`]: this process was not given one of the ends, or it did not start the server.
    /// - [`Error::SigchldIgnored`]: the worker could not be waited for.
    /// - [`Error::System`]: the process limit (`fork`, `EAGAIN`); no descriptors are left, here or in the worker (`EMFILE`);
    ///   too many ends of this user are under way (`ETOOMANYREFS`).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::ForkServer::start(|_message, mut ends| -> ipc::Result<()> {
    ///     ends.take::<ipc::PipeWriter>()?.write_atomic(b"!")
    /// })?;
    /// let (reader, writer) = ipc::pipe()?;
    /// let children = [server.fork(b"", &writer)?, server.fork(b"", writer)?];
    /// assert_eq!(std::io::read_to_string(reader)?, "!!"); // EOF came: nobody holds a writer any more
    /// for child in children {
    ///     assert!(child.wait()?.success());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fork<E: Ends>(&self, message: &[u8], ends: E) -> Result<Child, ForkError<E>> {
        self.order(message, ends, None)
    }

    /// Starts a worker, or gives up when the time is up; else as [`fork`](Self::fork).
    ///
    /// A timeout of zero never waits, and so never gets a worker; [`Duration::MAX`] waits for ever.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the server has not answered, because the machine is busy or the server was stopped. Nothing has
    /// run, and a worker that comes late leaves without running anything; and as [`fork`](Self::fork).
    pub fn fork_timeout<E: Ends>(&self, message: &[u8], ends: E, timeout: Duration) -> Result<Child, ForkError<E>> {
        self.order(message, ends, Instant::now().checked_add(timeout))
    }

    fn order<E: Ends>(&self, message: &[u8], ends: E, deadline: Option<Instant>) -> Result<Child, ForkError<E>> {
        self.handle.start_worker(message, &ends, deadline).map_err(|error| ForkError { ends, error })
    }

    /// The number of the server's process. Never blocks.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.handle.process.id()
    }
}

impl fmt::Debug for ForkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkServer").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The server as its caller holds it: together with the workers that it has to report about.
pub(super) struct Handle {
    control: DatagramSocket,
    process: Child,
    caller: Pid,
    /// The lines of orders that were given up. A worker may still come, and is to be waited for.
    late: Mutex<Vec<DatagramSocket>>,
}

impl Handle {
    fn start_worker(self: &Arc<Self>, message: &[u8], ends: &impl Ends, deadline: Option<Instant>) -> Result<Child> {
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
        let DatagramPair { parent: line, child: workers } = datagram_pair()?;
        let len = message.len();
        if len > line.max_message()? {
            let max = line.set_max_message(len)?;
            if len > max {
                return Err(Error::TooLong { len, max });
            }
        }
        self.settle(Duration::ZERO);
        // For the worker's pidfd.
        let place = sys::descriptor::duplicate(line.as_fd()).map_err(|errno| Error::system("fcntl", errno))?;
        let patience = deadline.map_or(Patience::Blocking, Patience::Until);
        self.control.send_ends(&[count as u8], workers, patience)?;

        let answer = match self.answer(&line, place, deadline) {
            Ok(answer) => answer,
            Err(error) => {
                let patience = if matches!(error, Error::Closed) { LEAVING } else { Duration::ZERO };
                self.give_up(line, patience);
                return Err(error);
            }
        };
        let (child, is_reported) = hold(answer)?;
        // The worker waits for it, and so it never blocks.
        match line.send_ends(message, ends, patience).map_err(Error::from) {
            // A worker that was killed before it began is one that was killed.
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => {
                drop(child.kill().and_then(|()| child.wait()));
                return Err(error);
            }
        }
        Ok(match is_reported {
            false => child,
            true => child.reported_by(Reporter { line: line.end.into_fd(), server: Arc::clone(self) }),
        })
    }

    /// Blocks until the order is answered, the server is gone, or the time is up.
    fn answer(&self, line: &DatagramSocket, place: OwnedFd, deadline: Option<Instant>) -> Result<Said> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut on = [Watch::readable(line), Watch::readable(&self.control)];
        if wait_any(&mut on, left)? == 0 {
            return Err(Error::TimedOut);
        }
        // The server says nothing on its socket, and so it is gone. The worker has the line too, and keeps it from ending.
        if on[0].ready().is_empty() && look(line.as_fd(), POLLIN).is_ok_and(|events| events == 0) {
            return Err(Error::Closed);
        }
        drop(place);
        match said(line) {
            Ok(Some(said)) => Ok(said),
            // The server was killed just now; or it had no descriptors left for the line.
            Ok(None) => match wait_any(&mut [Watch::readable(&self.control)], Some(SHORTLY))? {
                0 => Err(Error::system("recvmsg", Errno::MFILE)),
                _ => Err(Error::Closed),
            },
            Err(errno) => Err(Error::system("recvmsg", errno)),
        }
    }

    /// Tells the worker, which may be there or come later, not to begin, and waits for it at most that long.
    fn give_up(&self, line: DatagramSocket, patience: Duration) {
        // Of a socket that is connected and open it does not fail.
        let _ = line.shutdown(Shutdown::Write);
        lock(&self.late).push(line);
        self.settle(patience);
    }

    /// Waits for the workers of orders that were given up.
    fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        lock(&self.late).retain(|line| !is_settled(line, deadline));
    }

    /// Whether this process started the server, and is no fork of the one that did.
    fn is_callers(&self) -> bool {
        sys::process::own_pid() == self.caller
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_callers() {
            return;
        }
        // Also where another process has a copy of the socket. An error would mean that somebody closed its number.
        let _ = self.control.shutdown(Shutdown::Both);
        if let Ok(None) = self.process.wait_timeout(LEAVING) {
            // It was stopped. Its workers are none of its business any more.
            drop(self.process.kill().and_then(|()| self.process.wait()));
        }
        self.settle(LEAVING);
    }
}

/// An answer, and the pidfd that came with it.
type Said = (Answer, Option<OwnedFd>);

/// A message on a line, without blocking. `None`: no process is left that could send one.
fn said(line: &impl AsFd) -> sys::Result<Option<Said>> {
    let mut bytes = [0; Answer::LEN];
    let mut receive = || sys::retry(|| ancillary::receive(line.as_fd(), &mut bytes, false));
    // A worker that was killed had not read its message. That is told once, before what was said.
    let arrived = match receive() {
        Err(Errno::CONNRESET) => receive()?,
        arrived => arrived?,
    };
    let Some((len, mut beside)) = arrived else { return Ok(None) };
    let answer = bytes.get(..len).and_then(Answer::parse).ok_or(Errno::BADMSG)?;
    Ok(Some((answer, beside.fds.pop())))
}

/// Holds the worker that an answer names, and says whether the server has to report about it.
fn hold((answer, pidfd): Said) -> Result<(Child, bool)> {
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
        // Another thread took the place. Nobody has waited for the worker, and so the number is still its own.
        None if is_reported => sys::process::pidfd(pid).map_err(|errno| Error::system("pidfd_open", errno))?,
        None => sys::process::hold(pid).map_err(|errno| Error::system("pidfd_open", errno))?,
    };
    Ok((Child::new(pid, pidfd), is_reported))
}

/// Whether nothing comes any more of an order that was given up. A worker that came is waited for.
fn is_settled(line: &DatagramSocket, deadline: Instant) -> bool {
    loop {
        match said(line) {
            Ok(Some((answer @ (Answer::Yours(pid) | Answer::Unused(pid)), pidfd))) => {
                match (pidfd, Pid::from_raw(pid)) {
                    (Some(pidfd), Some(pid)) => {
                        let child = Child::new(pid, pidfd);
                        // An error: it was the server's child.
                        drop(child.kill().and_then(|()| child.wait()));
                    }
                    (None, Some(pid)) if answer == Answer::Yours(pid.as_raw_nonzero().get()) => {
                        sys::process::kill_and_reap(pid);
                    }
                    _ => {}
                }
                return true;
            }
            Err(Errno::AGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !wait_any(&mut [Watch::readable(line)], Some(left)).is_ok_and(|ready| ready > 0) {
                    return false;
                }
            }
            // There is no worker, or it is the server's.
            Ok(_) | Err(_) => return true,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a worker that is the server's child has left.
pub(super) struct Reporter {
    line: OwnedFd,
    /// It waits for the worker, and so it lives as long as this.
    server: Arc<Handle>,
}

impl Reporter {
    /// The wait status ([wait(2)]) of the worker if it has left. It is told once.
    ///
    /// [wait(2)]: https://man7.org/linux/man-pages/man2/wait.2.html
    pub(super) fn reap(&self, pidfd: BorrowedFd<'_>) -> sys::Result<Option<i32>> {
        if look(pidfd, POLLIN)? == 0 {
            return Ok(None);
        }
        // The server is about to say how, if another process does not trace the worker.
        let mut fds = [pollfd { fd: self.line.as_raw_fd(), events: POLLIN, revents: 0 }];
        sys::retry(|| poll(&mut fds, Some(SHORTLY)))?;
        match said(&self.line) {
            Ok(Some((Answer::Left(status), _))) => return Ok(Some(status)),
            Err(Errno::AGAIN) => return Ok(None),
            Ok(_) | Err(_) => {} // it was killed
        }
        // As long as it is on its way out, the worker is its child.
        drop(self.server.process.wait_timeout(LEAVING));
        // Then that of whoever adopts orphans, which may be this process.
        match sys::process::reap(pidfd) {
            Err(Errno::CHILD) => {}
            reaped => return reaped,
        }
        // Or another, which is about to wait for it.
        let mut fds = [pollfd { fd: pidfd.as_raw_fd(), events: 0, revents: 0 }];
        sys::retry(|| poll(&mut fds, Some(LEAVING)))?;
        match sys::sibling::exit_status(pidfd) {
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) | Err(_) => Err(Errno::CHILD),
        }
    }
}
