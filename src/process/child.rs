//! A child process, held by a pidfd.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitStatus;
#[cfg(feature = "tokio")]
use std::sync::Arc;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::held::Held;
use super::server::Reporter;
use super::stop::{self, KillOnDrop, is_gone};
use crate::error::{Error, Result};
use crate::sys::fork::Gate;
use crate::sys::{self, Errno};

/// A process that this one started, by [`fork`](crate::fork()) or with a [`Command`](crate::Command).
///
/// It is held by a pidfd, so a signal or a wait never hits another process that got the number later. The descriptor can be
/// waited for together with ends: [`Watch::readable(&child)`](crate::Watch::readable) is ready when the child has left.
///
/// **Dropping it neither kills nor waits**, but reaps a child that has already left. One that leaves later stays a zombie until
/// this process ends: wait for it.
///
/// The output of a program is not collected here: make a [`pipe`](crate::pipe()) for it, or start it with
/// [`Command::output`](crate::Command::output) or [`communicate`](crate::Command::communicate).
///
/// In the guide: [children](crate::guide::children).
///
/// # Examples
///
/// ```
/// let child = ipc::fork((), |()| loop { std::thread::park() })?;
/// assert!(child.id() > 1);
/// assert_eq!(child.try_wait()?, None); // it runs
/// child.signal(0)?; // it could be signalled
/// child.kill()?;
/// assert!(!child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// # Platform
///
/// [pidfd_open(2)], [waitid(2)] with `P_PIDFD`, [pidfd_send_signal(2)]: Linux 5.4.
///
/// [pidfd_open(2)]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
/// [pidfd_send_signal(2)]: https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html
/// [waitid(2)]: https://man7.org/linux/man-pages/man2/waitid.2.html
#[doc(alias = "pidfd_open")]
pub struct Child {
    id: u32,
    /// It was made the leader of a process group of its own.
    leads_group: bool,
    held: Held,
}

impl Child {
    /// Fails where no child that is forked could be held.
    pub(super) fn check() -> Result<()> {
        sys::process::check_holding().map_err(|(call, errno)| Error::system(call, errno))
    }

    /// Takes a child over that was just started.
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        let id = pid.as_raw_nonzero().get().unsigned_abs();
        Self { id, leads_group: false, held: Held::new(id, pidfd) }
    }

    /// The same of one that was perhaps made the leader of a group.
    pub(super) fn leading_group(mut self, leads_group: bool) -> Self {
        self.leads_group = leads_group;
        self
    }

    /// The same of a process that is another one's child.
    pub(super) fn reported_by(mut self, reporter: Reporter) -> Self {
        self.held.set_reporter(reporter);
        self
    }

    /// Takes a child over that was just forked, and opens its gate. One that cannot be held is ended.
    pub(super) fn hold(pid: Pid, gate: Option<Gate>) -> Result<Self> {
        match sys::process::hold(pid, gate) {
            Ok(pidfd) => Ok(Self::new(pid, pidfd)),
            // It was killed, and another thread has waited for it, before it was held.
            Err(Errno::CHILD) => Err(Error::StatusTaken { stdout: Vec::new(), stderr: Vec::new() }),
            Err(errno) => Err(Error::system("pidfd_open", errno)),
        }
    }

    /// Returns the number of the process, as in the [example](Self#examples). Never blocks.
    #[doc(alias = "pid")]
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Blocks until the child has left, and returns its status. Waiting again returns the same status.
    ///
    /// Close the writers that the child reads to EOF from first: otherwise it does not leave. A child that a debugger traces
    /// counts as running until the debugger lets go of it.
    ///
    /// # Errors
    ///
    /// - [`Error::StatusTaken`]: other code in this process has waited for it.
    /// - [`Error::System`] with `ECHILD`: it is another process's child, for example because this value was copied by a fork.
    ///
    /// # Examples
    ///
    /// ```
    /// let child = ipc::fork((), |()| 3_u8)?;
    /// assert_eq!(child.wait()?.code(), Some(3));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "waitpid")]
    #[doc(alias = "waitid")]
    #[doc(alias = "join")]
    pub fn wait(&self) -> Result<ExitStatus> {
        self.held.wait()
    }

    /// Returns the status of the child without blocking; `None` as long as it is not known. See the [example](Self#examples).
    ///
    /// The pidfd can be ready before the status is known. This holds for a traced child, and for a moment for a worker, whose
    /// status its [`ForkServer`](crate::ForkServer) reports.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.held.look(Duration::ZERO)
    }

    /// The same, as far as another process that reports about the child has done so.
    #[cfg(feature = "tokio")]
    pub(crate) fn status_so_far(&self) -> Result<Option<ExitStatus>> {
        self.held.look_at_report(Duration::ZERO)
    }

    /// Where another process reports about the child: the descriptor that is readable when it has.
    #[cfg(feature = "tokio")]
    pub(crate) fn report(&self) -> Option<Arc<OwnedFd>> {
        self.held.report()
    }

    /// Blocks until the child has left or the time is up, and returns its status; `None` if it still runs.
    ///
    /// A timeout of zero looks once; [`Duration::MAX`] waits for ever. The status of a child that is traced may come up to 50 ms
    /// late.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(reader, |reader| reader.read_timeout(&mut [0], Duration::MAX).map(drop))?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(10))?, None);
    /// drop(writer); // EOF
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        match Instant::now().checked_add(timeout) {
            None => self.held.wait().map(Some),
            deadline => self.held.wait_until(deadline),
        }
    }

    /// Kills the child with `SIGKILL`, without blocking; no-op if it has left. [`wait`](Self::wait) for it afterwards, as in the
    /// [example](Self#examples).
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `EPERM`: it runs as another user now.
    #[doc(alias = "SIGKILL")]
    pub fn kill(&self) -> Result<()> {
        self.signal_if_there(sys::process::SIGKILL)
    }

    /// Asks the child to leave, with `SIGTERM`, without blocking; no-op if it has left. [`wait`](Self::wait) for it afterwards.
    /// [`shut_down`](Self::shut_down), which has an example, does both.
    ///
    /// # Errors
    ///
    /// As [`kill`](Self::kill).
    #[doc(alias = "SIGTERM")]
    pub fn terminate(&self) -> Result<()> {
        self.signal_if_there(sys::process::SIGTERM)
    }

    /// Asks the child to leave, with `SIGTERM`, and blocks until it has; kills it if it takes longer than `grace`. Returns its
    /// status.
    ///
    /// A program that leads a group ([`process_group(0)`](crate::Command::process_group),
    /// [`new_session`](crate::Command::new_session)) is shut down with it. The whole group is asked, and has the whole `grace`,
    /// even if the program itself leaves sooner. Then the rest of it is killed.
    ///
    /// Reads nothing meanwhile. A program that has more to say than a pipe holds blocks, and is killed after the grace. Call
    /// [`terminate`](Self::terminate) for such a one, read its output by a deadline, and then call this.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate) and [`wait`](Self::wait).
    ///
    /// # Platform
    ///
    /// `/proc` lists the processes that are left of a group ([proc_pid_stat(5)]). Where it is not mounted, or shows another pid
    /// namespace, the rest is killed as soon as the program has left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use std::time::Duration;
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.shut_down(Duration::from_secs(60))?.signal(), Some(15));
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").spawn()?;
    /// child.terminate()?; // asks, without a wait
    /// assert_eq!(child.wait()?.signal(), Some(15));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [proc_pid_stat(5)]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    #[doc(alias = "stop")]
    pub fn shut_down(&self, grace: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now().checked_add(grace);
        stop::ask(self)?;
        if self.leads_group {
            stop::await_group(self, deadline)?;
        } else if let Some(status) = self.held.wait_until(deadline)? {
            return Ok(status);
        }
        self.end()?;
        self.wait()
    }

    /// Returns whether it was made the leader of a group of its own.
    pub(crate) fn leads_group(&self) -> bool {
        self.leads_group
    }

    /// Kills the child, with its group if it was made the leader of one.
    pub(crate) fn end(&self) -> Result<()> {
        let group = if self.leads_group { self.kill_group() } else { Ok(()) };
        // Also where it has left its group.
        self.kill().and(group)
    }

    /// Wraps the child in a guard that kills it and waits for it when the guard is dropped. A function that returns early then
    /// leaves no child running, nor any of the group that it leads: see [`KillOnDrop`].
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::Command::new("sleep").arg("1000").spawn()?.kill_on_drop();
    /// assert_eq!(server.try_wait()?, None); // it is a `Child` all the same
    /// drop(server);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "guard")]
    pub fn kill_on_drop(self) -> KillOnDrop {
        KillOnDrop::new(self)
    }

    /// Sends a signal, by its number, to the process group that the child leads, without blocking. The group is the child and
    /// the processes that it started, except those that have left the group.
    ///
    /// A program that was started with [`process_group(0)`](crate::Command::process_group) or
    /// [`new_session`](crate::Command::new_session) leads a group. If it has left, the signal goes to the rest of the group. A
    /// group whose leader was waited for is signalled from Linux 6.9 on; before, that is `ESRCH`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ESRCH`: the child leads no group, or no process is left in it. With `EINVAL`: there is no such
    /// signal. With `EPERM`: all its processes run as other users now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// const SIGKILL: i32 = 9;
    /// const SIGTERM: i32 = 15;
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").process_group(0).spawn()?;
    /// child.signal_group(SIGTERM)?;
    /// assert_eq!(child.wait()?.signal(), Some(SIGTERM));
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").process_group(0).spawn()?;
    /// child.kill_group()?;
    /// assert_eq!(child.wait()?.signal(), Some(SIGKILL));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "killpg")]
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        // Kept from being waited for meanwhile, which would make its number another's.
        let untaken = self.held.untaken();
        let pid = self.id.cast_signed();
        let sent = sys::process::send_group_signal(self.held.pidfd.as_fd(), pid, untaken.1.is_some(), signal);
        drop(untaken);
        sent.map_err(|errno| Error::system("pidfd_send_signal", errno))
    }

    /// Kills every process of the group that the child leads with `SIGKILL`, without blocking. No-op if no process is left in
    /// it, or if the child leads none. Otherwise the same as [`signal_group`](Self::signal_group), which has an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `EPERM`: all of them run as other users now.
    pub fn kill_group(&self) -> Result<()> {
        match self.signal_group(sys::process::SIGKILL) {
            Err(error) if is_gone(&error) => Ok(()),
            done => done,
        }
    }

    /// Sends the child a signal, by its number, without blocking. 0 sends none, and only checks whether one could be sent. See
    /// the [example](Self#examples).
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ESRCH`: it was waited for. With `EINVAL`: there is no such signal. With `EPERM`: it runs as
    /// another user now.
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&self, signal: i32) -> Result<()> {
        if self.held.is_reported() && self.held.status().is_some() {
            // Its parent may be about to take the status, and the number be another process's after that.
            return Err(Error::system("pidfd_send_signal", Errno::SRCH));
        }
        sys::process::send_signal(self.held.pidfd.as_fd(), signal)
            .map_err(|errno| Error::system("pidfd_send_signal", errno))
    }

    fn signal_if_there(&self, signal: i32) -> Result<()> {
        match sys::process::send_signal(self.held.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::system("pidfd_send_signal", errno)),
        }
    }

    /// Returns whether it is this process's child, and not that of the one that forked this.
    pub(super) fn is_ours(&self) -> bool {
        self.held.is_ours()
    }

    /// Its status, if it was waited for.
    #[cfg(feature = "tokio")]
    pub(crate) fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.held.status()
    }

    /// The same, and no thread takes it meanwhile.
    pub(crate) fn untaken(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, Option<ExitStatus>>) {
        self.held.untaken()
    }
}

/// The pidfd: readable when the child has left.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.pidfd.as_fd()
    }
}

/// The number of the pidfd, which [`Child`] keeps.
impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.held.pidfd.as_raw_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("status", &*self.held.status()).finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Another process waits for one that is reported.
        if !self.held.is_reported() {
            // A child that runs goes on. An error would mean that other code has waited for it.
            let _ = self.try_wait();
        }
    }
}
