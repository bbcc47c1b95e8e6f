//! Waiting for several at once: [`wait_any`].

mod deadline;
mod patience;
mod spin;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

pub use deadline::{Deadline, TimedRead, TimedWrite, Until};
pub(crate) use patience::{Patience, is_ready};
pub(crate) use spin::{Look, Spin};

use crate::error::{Error, Result};
use crate::sys::poll::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, pollfd};
use crate::sys::{self, Errno, ledger};

bitflags::bitflags! {
    /// The state in which [`wait_any`] found an end or a child. It has an example.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Ready: u8 {
        /// Reading would not block: there are bytes, or EOF. Of a [`Child`](crate::Child): it has exited.
        const READ = 1;
        /// Writing would not block: there is room, or no reader is left.
        const WRITE = 2;
        /// The other side is gone, or has finished writing. Bytes that it sent before can still be read.
        const HANGUP = 4;
        /// The descriptor has an error. Of a pipe's writer: no reader is left.
        const ERROR = 8;
    }
}

impl Ready {
    /// Returns whether [`READ`](Self::READ) is set. See [`Watch`] for an example.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.contains(Self::READ)
    }

    /// Returns whether [`WRITE`](Self::WRITE) is set. See [`Watch`] for an example.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.contains(Self::WRITE)
    }

    /// Returns whether [`HANGUP`](Self::HANGUP) is set. See [`Watch`] for an example.
    #[must_use]
    pub fn is_hangup(self) -> bool {
        self.contains(Self::HANGUP)
    }

    /// Returns whether [`ERROR`](Self::ERROR) is set. See [`Watch`] for an example.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.contains(Self::ERROR)
    }
}

/// A wait of [`wait_any`]: for an end to be readable or writable, or for a child to exit.
///
/// It takes any value with a descriptor that [poll(2)] knows, such as a socket of the standard library. A type with a buffer in
/// front of its descriptor makes its own, which includes the buffer: [`PackedSocket::watch`](crate::PackedSocket::watch),
/// [`MessageReader::watch`](crate::MessageReader::watch).
///
/// # Examples
///
/// ```
/// use ipc::Watch;
///
/// let (reader, writer) = ipc::pipe()?;
/// let mut on = [Watch::readable(&reader), Watch::writable(&writer)];
/// ipc::wait_any(&mut on, None)?;
/// assert!(!on[0].ready().is_readable() && on[1].ready().is_writable());
///
/// drop(writer);
/// let mut at_eof = Watch::readable(&reader);
/// ipc::wait_any(std::slice::from_mut(&mut at_eof), None)?;
/// assert!(at_eof.ready().is_readable() && at_eof.ready().is_hangup());
/// assert!(!at_eof.ready().is_error());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
pub struct Watch<'a> {
    fd: BorrowedFd<'a>,
    events: i16,
    /// Ready, even where the descriptor is not: a message has arrived in a buffer.
    buffered: bool,
    /// Readable means room to write: the peer rings when there is.
    rung_for_room: bool,
    ready: Ready,
}

impl<'a> Watch<'a> {
    /// Waits for something to read, or EOF; of a [`Child`](crate::Child), for its exit. See [`Watch`] for an example.
    #[must_use = "it waits only in `wait_any`"]
    pub fn readable(on: &'a impl AsFd) -> Self {
        Self {
            fd: on.as_fd(),
            events: POLLIN | POLLRDHUP,
            buffered: false,
            rung_for_room: false,
            ready: Ready::empty(),
        }
    }

    /// Waits for room to write, or for the last reader to go. See [`Watch`] for an example.
    ///
    /// A socket counts as having room when three quarters of its buffer are free; a `try_` call may find some before.
    #[must_use = "it waits only in `wait_any`"]
    pub fn writable(on: &'a impl AsFd) -> Self {
        Self { fd: on.as_fd(), events: POLLOUT, buffered: false, rung_for_room: false, ready: Ready::empty() }
    }

    /// Or for room to write.
    pub(crate) fn or_writable(self) -> Self {
        Self { events: self.events | POLLOUT, ..self }
    }

    /// With a buffer in front of the descriptor, or in front of another one, and something in it or not.
    pub(crate) fn buffered(self, buffered: bool) -> Self {
        Self { buffered: self.buffered || buffered, ..self }
    }

    /// For room to write, which a peer reports by writing to the descriptor.
    pub(crate) fn room(on: &'a impl AsFd) -> Self {
        Self { rung_for_room: true, ..Self::readable(on) }
    }

    /// Returns the state that the last [`wait_any`] found; empty if the time was up. See [`Watch`] for an example.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready
    }

    fn take(&mut self, revents: i16) {
        let gone = revents & (POLLHUP | POLLERR) != 0;
        self.ready = Ready::empty();
        let readable = self.buffered || gone || revents & (POLLIN | POLLRDHUP) != 0;
        self.ready.set(Ready::READ, self.events & POLLIN != 0 && readable);
        self.ready.set(Ready::WRITE, self.events & POLLOUT != 0 && (gone || revents & POLLOUT != 0));
        if self.rung_for_room {
            self.ready = if readable { Ready::WRITE } else { Ready::empty() };
        }
        self.ready.set(Ready::HANGUP, revents & (POLLHUP | POLLRDHUP) != 0);
        self.ready.set(Ready::ERROR, revents & POLLERR != 0);
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.events & POLLIN != 0 && !self.rung_for_room { "readable" } else { "writable" };
        f.debug_struct("Watch").field(what, &self.fd.as_raw_fd()).field("ready", &self.ready).finish()
    }
}

/// How many watches one wait takes without an allocation.
const FEW: usize = 32;

/// Blocks until at least one of several is ready, and returns how many are; 0: the time is up.
///
/// Each [`Watch`] then has its state in [`ready`](Watch::ready). `None` waits for ever, a timeout of zero looks once. A master
/// of many workers waits here: one call over all their ends and the children themselves. [`wait_ready`] takes keys along.
///
/// Readiness is a hint: another process that holds the same end may be quicker, so read with
/// [`try_read`](crate::PipeReader::try_read) where ends are shared.
///
/// A reader whose writers are all gone is ready, and stays so. Leave it out once EOF was read, or the next call returns at
/// once again.
///
/// In the guide: [waiting for several](crate::guide::waiting).
///
/// # Errors
///
/// - [`Error::NotGiven`]: one of them is an end that this process was not given.
/// - [`Error::InvalidInput`]: `on` is empty, and there is no timeout or it is [`Duration::MAX`]: the call would never
///   return.
/// - [`Error::System`] of `poll`: there are more of them than `RLIMIT_NOFILE`.
///
/// # Platform
///
/// [ppoll(2)]. A signal does not end the call, and does not make it longer.
///
/// # Examples
///
/// ```
/// use ipc::{Ready, Watch};
/// use std::io::Write;
/// use std::time::Duration;
///
/// let (quiet, _keep) = ipc::pipe()?;
/// let (busy, mut writer) = ipc::pipe()?;
/// writer.write_all(b"news")?;
///
/// let mut on = [Watch::readable(&quiet), Watch::readable(&busy)];
/// assert_eq!(ipc::wait_any(&mut on, Some(Duration::from_secs(1)))?, 1);
/// assert_eq!(on[0].ready(), Ready::empty());
/// assert_eq!(on[1].ready(), Ready::READ);
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [ppoll(2)]: https://man7.org/linux/man-pages/man2/ppoll.2.html
#[doc(alias = "poll")]
#[doc(alias = "select")]
#[doc(alias = "epoll")]
pub fn wait_any(on: &mut [Watch<'_>], timeout: Option<Duration>) -> Result<usize> {
    // Something in a buffer is there already.
    let timeout = if on.iter().any(|wait| wait.buffered) { Some(Duration::ZERO) } else { timeout };
    // `None`: it is too far for the clock.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    if on.is_empty() && deadline.is_none() {
        return Err(Error::InvalidInput { what: "nothing to wait for, and no timeout" });
    }
    let mut few = [pollfd { fd: -1, events: 0, revents: 0 }; FEW];
    let mut many = Vec::new();
    let fds = match few.get_mut(..on.len()) {
        Some(fds) => fds,
        None => {
            many.resize(on.len(), few[0]);
            &mut many[..]
        }
    };
    for (fd, wait) in fds.iter_mut().zip(&*on) {
        *fd = pollfd { fd: wait.fd.as_raw_fd(), events: wait.events, revents: 0 };
    }
    let count = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match sys::poll::poll(fds, left) {
            Ok(count) => break count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::system("poll", errno)),
        }
    };
    for (wait, fd) in on.iter_mut().zip(&*fds) {
        if fd.revents & POLLNVAL != 0 {
            return Err(match ledger::is_severed(fd.fd) {
                true => Error::NotGiven,
                false => Error::system("poll", Errno::BADF),
            });
        }
        wait.take(fd.revents);
    }
    let buffered = on.iter().zip(&*fds).filter(|(wait, fd)| wait.buffered && fd.revents == 0).count();
    Ok(count + buffered)
}

/// Blocks until at least one of several is ready, and returns those that are, each by the key it came with.
///
/// Same as [`wait_any`], but for a loop over many. The key is an index, a number, or a reference. Those that are not ready are
/// left out; an empty list means that the time is up.
///
/// In the guide: [waiting for several](crate::guide::waiting).
///
/// # Errors
///
/// As [`wait_any`].
///
/// # Examples
///
/// A master reads from the workers that have written, until each has closed its end:
///
/// ```
/// use ipc::Watch;
///
/// let mut workers = Vec::new();
/// for number in 0..3_u8 {
///     let (reader, writer) = ipc::pipe()?;
///     workers.push((reader, ipc::fork(writer, |writer| writer.write_atomic(&[number]))?));
/// }
///
/// let mut results = Vec::new();
/// let mut open = vec![true; workers.len()];
/// while open.contains(&true) {
///     let on = (0..).zip(&workers).filter(|(key, _)| open[*key]);
///     let on: Vec<_> = on.map(|(key, (reader, _))| (key, Watch::readable(reader))).collect();
///     for (key, _) in ipc::wait_ready(on, None)? {
///         let mut byte = [0];
///         match workers[key].0.try_read(&mut byte)? {
///             0 => open[key] = false, // EOF
///             _ => results.push(byte[0]),
///         }
///     }
/// }
/// results.sort();
/// assert_eq!(results, [0, 1, 2]);
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "IpcReceiverSet")]
pub fn wait_ready<'a, K>(
    on: impl IntoIterator<Item = (K, Watch<'a>)>,
    timeout: Option<Duration>,
) -> Result<Vec<(K, Ready)>> {
    let (keys, mut on): (Vec<K>, Vec<Watch<'a>>) = on.into_iter().unzip();
    wait_any(&mut on, timeout)?;
    let found = keys.into_iter().zip(on).map(|(key, watch)| (key, watch.ready));
    Ok(found.filter(|(_, ready)| !ready.is_empty()).collect())
}
