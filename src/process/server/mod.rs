//! A process that forks on order, for programs with threads.

mod handle;
mod order;
mod serve;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::child::Child;
use super::fork_error::ForkError;
use super::fork_options::Fork;
use super::outcome::Outcome;
use crate::end::Ends;
use crate::error::{Error, Result};
use crate::socket::{DatagramPair, Received, datagram_pair};
use crate::sys;
use crate::sys::process::Parent;
use crate::sys::signal::Mask;
use handle::Handle;
pub(super) use handle::Reporter;
#[cfg(fuzzing)]
pub(crate) use order::fuzz_answer;
use serve::Server;

/// A process that was forked before the first thread, and that forks workers on order from then on.
///
/// A process with a second thread cannot be forked safely. Most programs have one before their first line of work: a
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
/// The server ends when this value is dropped, and when this process ends, even if it is killed. Running workers go on, and
/// see the end of this process as EOF of their ends. [`die_with_parent`](Fork::die_with_parent) ends them with this
/// process. The server has every signal blocked: Ctrl-C in a terminal, which goes to all processes of a job, does not end
/// it.
///
/// The server's memory is that of the program at the start. It grows no further, so a worker costs the same from a process of
/// 1 GiB as from a small one. Files that were open at the start and are no ends of this crate stay open in the server.
///
/// An order is bytes and ends. With the feature `channel`, a `TypedForkServer` takes values with ends in them.
///
/// As an [end](crate::open_ends), a server counts as one: the socket that orders go through. A fork severs it.
///
/// In the guide: [a fork server](crate::guide::fork_server), [testing programs that fork](crate::guide::testing).
///
/// # Platform
///
/// [clone(2)] with `CLONE_PARENT` and `CLONE_PIDFD`. The handlers of [pthread_atfork(3)] do not run. A sandbox may refuse
/// that call, and it is not made with a C library other than glibc. Then workers are children of the server, by [fork(2)].
/// [`Child`] returns the same for them: the server waits for them and reports. So it lives as long as one of these values.
/// If it is killed, their status comes from the kernel ([ioctl_pidfd(2)], Linux 6.15), or is [`Error::StatusTaken`] before
/// that.
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
    /// Starts the server. Each worker runs `entry` with the message and the ends of its order. Its exit status is the value
    /// of `entry` ([`Outcome`]).
    ///
    /// `entry` is moved into the server, and each worker has a copy of its captures. Their destructors run here, when this
    /// returns, and in no worker. Captured ends return [`Error::NotGiven`] in a worker.
    ///
    /// # Errors
    ///
    /// - The same as [`fork`](crate::fork()): [`Error::MultiThreaded`] if it is too late.
    /// - [`Error::InvalidInput`]: the process has moved its children to another PID namespace ([unshare(2)], [setns(2)]).
    ///   Start the server before that, or in a child that is there.
    ///
    /// [unshare(2)]: https://man7.org/linux/man-pages/man2/unshare.2.html
    /// [setns(2)]: https://man7.org/linux/man-pages/man2/setns.2.html
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
        // The server would be the first process there, and its workers end with it; or it would tell numbers that belong to
        // others here.
        if sys::process::children_are_elsewhere() {
            return Err(Error::InvalidInput {
                what: "children of this process are in another PID namespace, and a fork server is to be in its caller's",
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
        let started = Fork::new().hold_signals().spawn(servers, |control| {
            if !options.keeps_held() {
                // The caller reads the signals, and not the workers.
                sys::signalfd::forget(&mut mask);
            }
            Server::new(control, options, parent, &mask).run(&entry)
        });
        mask.restore();
        Ok(Self { handle: Arc::new(Handle::new(control, started?)) })
    }

    /// Blocks until a worker is there, and gives it a message and ends. Does not wait for the worker. Any thread may call it.
    ///
    /// The ends are moved into the worker. In this process they are closed when `fork` returns. References lend them, as with
    /// [`fork`](crate::fork()).
    ///
    /// # Errors
    ///
    /// The error gives the ends back, and `?` turns it into [`Error`]. Nothing has run:
    ///
    /// - [`Error::Closed`]: the server was killed. It cannot be started again from a process with threads. Workers that run go
    ///   on.
    /// - [`Error::TooLong`]: more than 253 ends, or a message of more than about 200 KiB. A longer one goes through an end.
    /// - [`Error::NotGiven`]: this process was not given one of the ends, or it did not start the server.
    /// - [`Error::SigchldIgnored`]: the worker could not be waited for.
    /// - [`Error::System`]: the process limit (`fork`, `EAGAIN`), or no descriptors are left, here or in the worker
    ///   (`EMFILE`). The worker has no memory for the message (`ENOMEM`). Too many ends of this user are under way
    ///   (`ETOOMANYREFS`).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::ForkServer::start(|_message, mut ends| -> ipc::Result<()> {
    ///     ends.take::<ipc::PipeWriter>()?.write_atomic(b"!")
    /// })?;
    /// let (reader, writer) = ipc::pipe()?;
    /// let children = [server.fork(b"", &writer)?, server.fork(b"", writer)?];
    /// assert_eq!(std::io::read_to_string(reader)?, "!!"); // EOF: no writer is left
    /// for child in children {
    ///     assert!(child.wait()?.success());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fork<E: Ends>(&self, message: &[u8], ends: E) -> Result<Child, ForkError<E>> {
        self.order(message, ends, None)
    }

    /// Blocks until a worker is there or the time is up; otherwise the same as [`fork`](Self::fork).
    ///
    /// A timeout of zero never waits, and so gets a worker only if the server is that quick; [`Duration::MAX`] waits for ever.
    ///
    /// # Errors
    ///
    /// - [`Error::TimedOut`]: the server has not answered, because the machine is busy or the server was stopped. Nothing has
    ///   run, and a worker that comes late leaves without running `entry`. A server without descriptors is known from a
    ///   killed one after 500 ms, and is this error too until then.
    /// - As [`fork`](Self::fork).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = ipc::ForkServer::start(|message, _ends| message.len() as u8)?;
    /// let child = server.fork_timeout(b"four", (), Duration::from_secs(60))?;
    /// assert_eq!(child.wait()?.code(), Some(4));
    /// if let Err(late) = server.fork_timeout(b"four", (), Duration::ZERO) {
    ///     assert!(matches!(late.error, ipc::Error::TimedOut)); // nothing has run
    /// }
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn fork_timeout<E: Ends>(&self, message: &[u8], ends: E, timeout: Duration) -> Result<Child, ForkError<E>> {
        self.order(message, ends, Instant::now().checked_add(timeout))
    }

    pub(crate) fn order<E: Ends>(
        &self,
        message: &[u8],
        ends: E,
        deadline: Option<Instant>,
    ) -> Result<Child, ForkError<E>> {
        self.handle.start_worker(message, &ends, deadline).map_err(|error| ForkError { ends, error })
    }

    /// Returns the number of the server's process. Never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::ForkServer::start(|_message, _ends| ())?;
    /// assert_ne!(server.id(), std::process::id());
    /// # Ok::<(), ipc::Error>(())
    /// ```
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
