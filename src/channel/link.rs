//! Links: they carry the values of a channel.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::large;
use super::receiver::MAX;
use crate::end::{End, Ends};
use crate::error::{Error, Result};
use crate::socket::{DatagramSocket, Received};
use crate::wait::{Patience, Until, Watch};

/// Carries the values of a [`Sender`](crate::Sender) or a [`Receiver`](crate::Receiver).
///
/// | link | one way | ends | a value is at most | [`flush`](crate::Sender::flush) |
/// |---|---|---|---|---|
/// | [`DatagramSocket`], unless another is named | no | yes | of any size | not needed |
/// | [`PackedSocket`](crate::PackedSocket) | no | no | its [`max_message`](crate::PackedSocket::max_message) | yes |
/// | [`MessageWriter`](crate::MessageWriter) and [`MessageReader`](crate::MessageReader), over a pipe, a stream, a ring, a TCP connection | yes | no | of any size | yes |
///
/// Each message that it carries is one value, as `docs/channel.md` describes it.
///
/// A function over a channel of any kind asks for `impl Link`. The constructor of a channel asks for its direction,
/// [`Outgoing`] or [`Incoming`].
///
/// # A link of your own
///
/// All calls get the link as [`Shared`](Self::Shared), by reference, since several threads may use a channel. A link that
/// takes messages through `&self` is shared as it is. A link that needs `&mut self` goes behind a [`Locked`](crate::Locked).
/// A link of one way has [`send`](Self::send) and is [`Outgoing`], or has [`recv`](Self::recv) and is [`Incoming`].
///
/// ```
/// use std::sync::mpsc::{self, RecvTimeoutError};
/// use std::time::Duration;
///
/// use ipc::{Error, Incoming, Link, Locked, Outbound, Outgoing, Received, Receiver, Result, Sender, Until};
///
/// /// Messages through queues between threads.
/// #[derive(Debug)]
/// struct Queues {
///     there: mpsc::Sender<Vec<u8>>,
///     here: mpsc::Receiver<Vec<u8>>,
/// }
///
/// impl Link for Queues {
///     type Shared = Locked<Self>;
///
///     fn share(self) -> Locked<Self> {
///         Locked::new(self)
///     }
///
///     fn unshare(shared: Locked<Self>) -> Self {
///         shared.into_inner()
///     }
///
///     fn send(shared: &Locked<Self>, message: Outbound<'_>, until: Until) -> Result<()> {
///         assert_eq!(message.ends_len(), 0); // `CARRIES_ENDS` is false
///         shared.lock(until)?.there.send(message.bytes().to_vec()).map_err(|_| Error::Closed)
///     }
///
///     fn recv<R>(
///         shared: &Locked<Self>,
///         max: usize,
///         until: Until,
///         take: impl FnOnce(&[u8], Received) -> R,
///     ) -> Result<Option<R>> {
///         let queues = shared.lock(until)?;
///         let arrived = queues.here.recv_timeout(until.left().unwrap_or(Duration::MAX));
///         drop(queues); // `take` runs without the lock
///         match arrived {
///             Ok(message) if message.len() > max => Err(Error::TooLong { len: message.len(), max }),
///             Ok(message) => Ok(Some(take(&message, Received::default()))),
///             Err(RecvTimeoutError::Timeout) => Err(until.error()),
///             Err(RecvTimeoutError::Disconnected) => Ok(None),
///         }
///     }
///
///     fn close(self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// impl Outgoing for Queues {}
/// impl Incoming for Queues {}
///
/// let ((to_worker, jobs), (to_master, results)) = (mpsc::channel(), mpsc::channel());
/// let jobs = Receiver::<u32, _>::new(Queues { there: to_master, here: jobs });
/// let master = Sender::new(Queues { there: to_worker, here: results });
/// assert!(matches!(jobs.try_recv(), Err(Error::WouldBlock)));
/// master.send(21_u32)?;
/// master.close()?;
/// assert_eq!(jobs.recv()?, Some(21));
/// assert_eq!(jobs.recv()?, None);
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// # Examples
///
/// ```
/// use ipc::{DatagramSocket, Link, Receiver, Sender};
///
/// // Runs over any link: on a fork, packed, or on another machine.
/// fn double(jobs: &Receiver<u32, impl Link>, results: &Sender<u32, impl Link>) -> ipc::Result<()> {
///     for job in jobs.iter() {
///         results.send(2 * job?)?;
///     }
///     results.flush()
/// }
///
/// let (jobs, worker_jobs) = ipc::channel()?;
/// let (reader, writer) = ipc::pipe()?;
/// let child = ipc::fork((worker_jobs, writer), |(jobs, writer)| {
///     double(&jobs, &Sender::new(ipc::MessageWriter::new(writer)))
/// })?;
/// jobs.send(21)?;
/// jobs.close()?;
/// let results: Receiver<u32, _> = Receiver::new(ipc::MessageReader::new(reader));
/// assert_eq!(results.recv()?, Some(42));
/// assert_eq!(results.recv()?, None);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` carries no values",
    label = "not a `Link`",
    note = "a pipe, a stream, a ring or a TCP connection carries them behind `MessageWriter::new(writer)` and `MessageReader::new(reader)`"
)]
pub trait Link: Sized {
    /// This link, as a channel keeps it: `Self`, or [`Locked<Self>`](crate::Locked) if its calls take `&mut self`. In the
    /// [example](Self#examples), a `DatagramSocket` is shared as it is, and a `MessageWriter` is locked.
    type Shared: fmt::Debug;

    /// Whether ends travel with its messages. If they do not, a value that has some is refused ([`Error::CannotCarry`]). See the
    /// [example](Self#examples) for links of both kinds.
    const CARRIES_ENDS: bool = false;

    /// Whether a message can follow on [`Error::Malformed`]. If not, as in a stream, an iterator of a
    /// [`Receiver`](crate::Receiver) ends with that error. The links of the [example](Self#examples) leave it as it is.
    const OUTLIVES_MALFORMED: bool = true;

    /// Makes it what a channel keeps. Never blocks. [`Sender::new`](crate::Sender::new) calls it in the
    /// [example](Self#examples).
    fn share(self) -> Self::Shared;

    /// Gives it back. Never blocks. [`Sender::close`](crate::Sender::close) calls it in the [example](Self#examples).
    fn unshare(shared: Self::Shared) -> Self;

    /// Sends a message: all of it, or an error and nothing. A link with a buffer may keep it there until
    /// [`flush`](Self::flush). [`Sender::send`](crate::Sender::send) calls it in the [example](Self#examples).
    ///
    /// # Errors
    ///
    /// - [`Until::error`]: there is no room until then.
    /// - [`Error::Closed`]: no receiver is left.
    /// - [`Error::TooLong`]: the message is too long for the link, or has too many ends.
    /// - [`Error::InvalidInput`]: the link has no such method, and is not [`Outgoing`].
    fn send(shared: &Self::Shared, message: Outbound<'_>, until: Until) -> Result<()> {
        let _ = (shared, message, until);
        Err(NO_WAY)
    }

    /// Receives a message, and calls `take` with it and with the ends that came beside it. `None` is EOF. A message that is
    /// longer than `max` is [`Error::TooLong`], and is skipped. [`Receiver::recv`](crate::Receiver::recv) calls it in the
    /// [example](Self#examples).
    ///
    /// Calls `take` without a lock, since it decodes the value, and runs code of the user's types.
    ///
    /// # Errors
    ///
    /// [`Until::error`] if no message arrives until then, and the link's own. [`Error::InvalidInput`]: the link has no such
    /// method, and is not [`Incoming`].
    fn recv<R>(
        shared: &Self::Shared,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> R,
    ) -> Result<Option<R>> {
        let _ = (shared, max, until, take);
        Err(NO_WAY)
    }

    /// Sends the messages in its buffer. [`Sender::flush`](crate::Sender::flush) calls it in the [example](Self#examples).
    ///
    /// # Errors
    ///
    /// [`Until::error`] if there is no room until then, and the link's own.
    fn flush(shared: &Self::Shared, until: Until) -> Result<()> {
        let _ = (shared, until);
        Ok(())
    }

    /// For [`wait_any`](crate::wait_any), which has an example: ready when receiving is worth a try. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`]: the link has nothing to wait for.
    fn watch(shared: &mut Self::Shared) -> Result<Watch<'_>> {
        let _ = shared;
        Err(Error::InvalidInput { what: "this link has nothing to wait for" })
    }

    /// Flushes and closes it, and returns the error of either. [`Sender::close`](crate::Sender::close) calls it in the
    /// [example](Self#examples).
    ///
    /// # Errors
    ///
    /// The error of either.
    fn close(self) -> Result<()>;
}

/// A [`Link`] that a [`Sender`](crate::Sender) is made of, as in the [example](Link#examples).
#[diagnostic::on_unimplemented(
    message = "no `Sender` can be made of `{Self}`",
    label = "not `Outgoing`",
    note = "a sender is made of a `DatagramSocket`, a `PackedSocket` or a `MessageWriter`; a bare writer goes into `MessageWriter::new(writer)`"
)]
pub trait Outgoing: Link {}

/// A [`Link`] that a [`Receiver`](crate::Receiver) is made of, as in the [example](Link#examples).
#[diagnostic::on_unimplemented(
    message = "no `Receiver` can be made of `{Self}`",
    label = "not `Incoming`",
    note = "a receiver is made of a `DatagramSocket`, a `PackedSocket` or a `MessageReader`; a bare reader goes into `MessageReader::new(reader)`"
)]
pub trait Incoming: Link {
    /// Returns the longest value, in bytes, that a receiver which is made of it receives at first:
    /// [`Receiver::max_message`](crate::Receiver::max_message). 64 MiB, or the limit that the link was given, as in the
    /// [example](crate::Receiver::new).
    fn limit(&self) -> usize {
        MAX
    }
}

/// A value on its way out: its bytes, and the ends that go beside them. [`Link::send`] gets one, as in the
/// [example](Link#a-link-of-your-own).
#[derive(Clone, Copy)]
pub struct Outbound<'a> {
    bytes: &'a [u8],
    ends: &'a [End],
}

impl<'a> Outbound<'a> {
    pub(super) fn new(bytes: &'a [u8], ends: &'a [End]) -> Self {
        Self { bytes, ends }
    }

    /// Returns the message, which [`Link::send`] sends, as in the [example](Link#a-link-of-your-own).
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns how many ends go beside it: 0 if the link carries none ([`Link::CARRIES_ENDS`]), as in the
    /// [example](Link#a-link-of-your-own).
    #[must_use]
    pub fn ends_len(&self) -> usize {
        self.ends.len()
    }

    /// The ends, bare, for [`DatagramSocket::send_with`].
    pub(super) fn bare_ends(&self) -> &'a [End] {
        self.ends
    }
}

/// The ends, in their order.
impl Ends for Outbound<'_> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.ends.each(visit);
    }
}

impl fmt::Debug for Outbound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("bytes", &self.bytes.len()).field("ends", &self.ends).finish()
    }
}

/// The error of a call in the direction that a link does not have. No channel makes one.
const NO_WAY: Error = Error::InvalidInput { what: "values go one way through this link, and not this one" };

/// The message of a value without bytes. An empty message would look like EOF.
pub(super) const NOTHING: [u8; 1] = [0];

/// One value is one datagram. One that is too large for it goes beside it.
impl Link for DatagramSocket {
    type Shared = Self;

    const CARRIES_ENDS: bool = true;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared.marked()
    }

    #[inline]
    fn send(socket: &Self, message: Outbound<'_>, until: Until) -> Result<()> {
        if message.bytes().len() > large::LONG && large::arrives() && large::is_better(socket, message.bytes().len())? {
            return large::send(socket, message, until.0);
        }
        let sent = match message.bare_ends() {
            [] if message.bytes().is_empty() => socket.send_bytes(&NOTHING, until.0),
            [] => socket.send_bytes(message.bytes(), until.0),
            ends => socket.send_ends(message.bytes(), ends, until.0).map_err(Error::from),
        };
        match sent {
            Err(Error::TooLong { .. }) if large::arrives() => large::send(socket, message, until.0),
            sent => sent,
        }
    }

    #[inline]
    fn recv<R>(socket: &Self, max: usize, until: Until, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
        receive(socket, max, until, take)?.transpose()
    }

    fn watch(socket: &mut Self) -> Result<Watch<'_>> {
        Ok(Watch::readable(&*socket))
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Outgoing for DatagramSocket {}
impl Incoming for DatagramSocket {}

/// Receives one value. An error inside is that of a message that was taken, and is gone.
#[inline]
pub(super) fn receive<R>(
    socket: &DatagramSocket,
    max: usize,
    until: Until,
    take: impl FnOnce(&[u8], Received) -> R,
) -> Result<Option<Result<R>>> {
    socket.receive_lent(until.0, |message, received| {
        let received = received?;
        match message.len() {
            0 if !received.is_empty() => large::take(received, max, take),
            len if len > max => Err(Error::TooLong { len, max }),
            _ => Ok(take(message, received)),
        }
    })
}

/// For a link's calls.
impl Until {
    /// Returns how much longer the call may wait: [`Duration::ZERO`] for not at all, and `None` for ever. The calls of a
    /// [`Link`] get an `Until`, as in the [example](Link#a-link-of-your-own).
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        match self.0 {
            Patience::None => Some(Duration::ZERO),
            Patience::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            Patience::Blocking | Patience::Endless => None,
        }
    }

    /// Returns the error of a call that may not wait any longer: [`Error::WouldBlock`] or [`Error::TimedOut`]. The calls of a
    /// [`Link`] return it, as in the [example](Link#a-link-of-your-own).
    #[must_use]
    pub fn error(&self) -> Error {
        match self.0 {
            Patience::Until(_) => Error::TimedOut,
            Patience::None | Patience::Blocking | Patience::Endless => Error::WouldBlock,
        }
    }
}
