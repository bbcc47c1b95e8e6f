//! A child process, held by a pidfd.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::kill_on_drop::KillOnDrop;
use super::server::Reporter;
use crate::error::{Error, Result};
use crate::sys::epoch::Process;
use crate::sys::process::Gate;
use crate::sys::{self, Errno};
use crate::wait::{Watch, wait_any};

/// The sleeps of [`Child::wait_timeout`] between its looks at a child that has left, and whose status is not to be had yet: the
/// first, and, each being twice as long as the one before, the longest.
const NAPS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// A process that this one started, by [`fork`](crate::fork()) or with a [`Command`](crate::Command).
///
/// It is held by a pidfd, so that a signal or a wait never hits a stranger who got the number later. As a descriptor it
/// can be waited for together with ends: [`Watch::readable(&child)`](crate::Watch::readable) is ready when it has left.
///
/// **Dropping it neither kills nor waits**, but takes away the status of a child that has already left. One that leaves
/// later stays a zombie until this process ends: wait for it.
///
/// The output of a program is not collected here: make a [`pipe`](crate::pipe()) for it, or start it with
/// [`Command::output`](crate::Command::output) or [`communicate`](crate::Command::communicate).
///
/// In the guide: [children](crate::guide::children).
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
    pidfd: OwnedFd,
    /// The process that it is a child of.
    parent: Process,
    /// It was made the leader of a process group of its own.
    leads_group: bool,
    /// The kernel tells it once.
    status: Mutex<Option<ExitStatus>>,
    /// Of a process that is not this one's child.
    reporter: Option<Reporter>,
}

impl Child {
    /// Fails where no child that is forked could be held.
    pub(super) fn check() -> Result<()> {
        sys::process::check_holding().map_err(|(call, errno)| Error::system(call, errno))
    }

    /// Takes a child over that was just started.
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        let id = pid.as_raw_nonzero().get().unsigned_abs();
        Self { id, pidfd, parent: Process::this(), leads_group: false, status: Mutex::new(None), reporter: None }
    }

    /// The same of one that was perhaps made the leader of a group.
    pub(super) fn leading_group(mut self, leads_group: bool) -> Self {
        self.leads_group = leads_group;
        self
    }

    /// The same of a process that is another one's child.
    pub(super) fn reported_by(mut self, reporter: Reporter) -> Self {
        self.reporter = Some(reporter);
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

    /// Returns the number of the process. Never blocks.
    #[doc(alias = "pid")]
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Blocks until the child has left, and says how. Waiting again gives the same status.
    ///
    /// A child that waits for the end of a stream whose writer this process still holds does not leave: close it first. One
    /// that another process traces, such as a debugger, counts as running until that has let go of it.
    ///
    /// # Errors
    ///
    /// [`Error::StatusTaken`]: somebody else in this process has waited for it. [`Error::System`] with `ECHILD`: the child is
    /// another process's (its parent's, where this value came along in a fork).
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
        loop {
            if self.reporter.is_some() {
                // Only its own parent can wait for it in one call.
                if let Some(status) = self.wait_until(None)? {
                    return Ok(status);
                }
            }
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // Not under the lock, and so it takes nothing. Who waits at the same time may be quicker to: the next look finds
            // what that one has noted, or that somebody else has it, which is the error.
            match sys::process::await_exit(self.pidfd.as_fd()) {
                Ok(()) | Err(Errno::CHILD) => {}
                // Another holder of the pidfd has set its O_NONBLOCK, and that call does not wait any more.
                Err(Errno::AGAIN) => {
                    if let Some(status) = self.wait_until(None)? {
                        return Ok(status);
                    }
                }
                Err(errno) => return Err(self.unwaitable(errno)),
            }
        }
    }

    /// Returns how the child has left, without blocking. `None`: it runs.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.look(None)
    }

    /// One look, which gives whoever reports about a child that has left so much time to do so.
    fn look(&self, left: Option<Duration>) -> Result<Option<ExitStatus>> {
        let mut status = self.status();
        if status.is_none() {
            let reaped = match &self.reporter {
                None => sys::process::reap(self.pidfd.as_fd()),
                Some(reporter) => reporter.reap(self.pidfd.as_fd(), left),
            };
            *status = reaped.map_err(|errno| self.unwaitable(errno))?.map(ExitStatus::from_raw);
        }
        Ok(*status)
    }

    /// Blocks until the child has left or the time is up, and says how it left. `None`: it runs.
    ///
    /// A timeout of zero looks once; [`Duration::MAX`] waits for ever. Of a child that another process traces, the status may
    /// come up to 50 ms late.
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
            None => self.wait().map(Some),
            deadline => self.wait_until(deadline),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let [mut nap, longest] = NAPS;
        // First, so that a status that is known, or an error, does not wait.
        let mut status = self.look(left())?;
        while status.is_none() && left() != Some(Duration::ZERO) {
            let has_left = wait_any(&mut [Watch::readable(self)], left())? > 0;
            status = self.look(left())?;
            if has_left && status.is_none() {
                // It is traced, and its tracer has to see it off first. The pidfd is ready all the time until then, and nothing
                // that can be waited for with a deadline becomes ready when it happens. (A signal may end the nap.)
                let _ = sys::poll::poll(&mut [], Some(left().map_or(nap, |left| left.min(nap))));
                nap = longest.min(nap * 2);
                status = self.look(left())?;
            }
        }
        Ok(status)
    }

    /// Kills the child with `SIGKILL`, without blocking. [`wait`](Self::wait) for it afterwards.
    ///
    /// That it has already left is no error.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `EPERM`: it runs as another user now.
    #[doc(alias = "SIGKILL")]
    pub fn kill(&self) -> Result<()> {
        match sys::process::send_signal(self.pidfd.as_fd(), sys::process::SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::system("pidfd_send_signal", errno)),
        }
    }

    /// Asks the child to leave, with `SIGTERM`, without blocking. [`wait`](Self::wait) for it afterwards.
    ///
    /// That it has already left is no error.
    ///
    /// # Errors
    ///
    /// As [`kill`](Self::kill).
    #[doc(alias = "SIGTERM")]
    pub fn terminate(&self) -> Result<()> {
        match sys::process::send_signal(self.pidfd.as_fd(), sys::process::SIGTERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::system("pidfd_send_signal", errno)),
        }
    }

    /// Asks the child to leave, with `SIGTERM`, and blocks until it has; kills it if it takes longer than `grace`. Says how it
    /// left.
    ///
    /// A program that leads a group is shut down with its group ([`process_group(0)`](crate::Command::process_group),
    /// [`new_session`](crate::Command::new_session)): all of it is asked, and has the whole `grace`, also where the program
    /// itself leaves sooner. What is left of it then is killed.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate) and [`wait`](Self::wait).
    ///
    /// # Platform
    ///
    /// `/proc` tells who is left of a group ([proc_pid_stat(5)]). Where it is not mounted, or shows another pid namespace, they
    /// are killed as soon as the program has left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use std::time::Duration;
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.shut_down(Duration::from_secs(60))?.signal(), Some(15));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [proc_pid_stat(5)]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    #[doc(alias = "stop")]
    pub fn shut_down(&self, grace: Duration) -> Result<ExitStatus> {
        if self.leads_group {
            self.shut_group_down(Instant::now().checked_add(grace))?;
        } else {
            self.terminate()?;
            if let Some(status) = self.wait_timeout(grace)? {
                return Ok(status);
            }
        }
        self.end()?;
        self.wait()
    }

    /// Asks the group, and blocks until nobody is left in it or the time is up. Does not wait for the child: as long as nobody
    /// has, the group's number is no other group's.
    fn shut_group_down(&self, deadline: Option<Instant>) -> Result<()> {
        match self.signal_group(sys::process::SIGTERM) {
            Err(error) if is_gone(&error) => self.terminate()?,
            done => done?,
        }
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        wait_any(&mut [Watch::readable(self)], left())?;
        let [mut nap, longest] = NAPS;
        while left() != Some(Duration::ZERO) && self.status().is_none() && sys::process::group_goes_on(self.id) {
            // Nothing becomes ready when the last of them leaves. (A signal may end the nap.)
            let _ = sys::poll::poll(&mut [], Some(left().map_or(nap, |left| left.min(nap))));
            nap = longest.min(nap * 2);
        }
        Ok(())
    }

    /// Kills the child, with its group if it was made the leader of one.
    pub(super) fn end(&self) -> Result<()> {
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
    pub fn kill_on_drop(self) -> KillOnDrop {
        KillOnDrop(Some(self))
    }

    /// Sends a signal to the process group that the child leads, by its number, without blocking: the child and what it started,
    /// as far as that has not left the group.
    ///
    /// A program leads a group that was started with [`process_group(0)`](crate::Command::process_group) or
    /// [`new_session`](crate::Command::new_session). It may have left: whoever it left behind in the group is hit. From Linux 6.9
    /// on that goes for a child that was waited for, too; before, it is `ESRCH` then.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ESRCH`: the child leads no group, or nobody is left in it; with `EINVAL`: there is no such
    /// signal; with `EPERM`: all of them run as other users now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// const SIGTERM: i32 = 15;
    ///
    /// let child = ipc::Command::new("sleep").arg("1000").process_group(0).spawn()?;
    /// child.signal_group(SIGTERM)?;
    /// assert_eq!(child.wait()?.signal(), Some(SIGTERM));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "killpg")]
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        // Kept from being waited for meanwhile, which would make its number another's.
        let status = self.status();
        let pid = self.id.cast_signed();
        let sent = sys::process::send_group_signal(self.pidfd.as_fd(), pid, status.is_some(), signal);
        drop(status);
        sent.map_err(|errno| Error::system("pidfd_send_signal", errno))
    }

    /// Kills every process of the group that the child leads with `SIGKILL`, without blocking: see
    /// [`signal_group`](Self::signal_group).
    ///
    /// That nobody is left in it, or that it leads none, is no error.
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

    /// Sends the child a signal, by its number, without blocking. 0 sends none, and only looks whether that would work.
    ///
    /// # Errors
    ///
    /// [`Error::System`] with `ESRCH`: it has left and was waited for; with `EINVAL`: there is no such signal; with
    /// `EPERM`: it runs as another user now.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if self.reporter.is_some() && self.status().is_some() {
            // Its parent may be about to wait for it.
            return Err(Error::system("pidfd_send_signal", Errno::SRCH));
        }
        sys::process::send_signal(self.pidfd.as_fd(), signal).map_err(|errno| Error::system("pidfd_send_signal", errno))
    }

    /// The error of a child that cannot be waited for.
    fn unwaitable(&self, errno: Errno) -> Error {
        match errno {
            Errno::CHILD if self.is_ours() => Error::StatusTaken { stdout: Vec::new(), stderr: Vec::new() },
            errno => Error::system("waitid", errno),
        }
    }

    /// Whether it is this process's child, and not that of the one that forked this.
    pub(super) fn is_ours(&self) -> bool {
        self.parent.is_this()
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        // Nothing panics while it is locked.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pidfd: readable when the child has left.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The number of the pidfd, which [`Child`] keeps.
impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("status", &*self.status()).finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Another process waits for one that is reported.
        if self.reporter.is_none() {
            // One that runs goes on; an error would mean that somebody else has waited for it.
            let _ = self.try_wait();
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::System { source, .. } if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()))
}
