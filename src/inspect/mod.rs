//! The processes that hold an end: the answer to "my reader never sees EOF".

mod diag;
mod draw;
mod map;
mod processes;
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub(crate) use super::diag::{messages, parse_socket, refused};
    pub(crate) use super::draw::quoted;
    pub(crate) use super::processes::{Stat, numbers_in, printable};
}

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

pub use map::{Finding, FindingKind, ProcessMap};
use processes::{Channel, Held};

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::sys::poll::{POLLERR, POLLHUP, POLLNVAL};
use crate::sys::{self, Errno, ledger};

/// The side of a channel that a descriptor is. See [`holders`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A pipe's reader.
    Read,
    /// A pipe's writer.
    Write,
    /// A FIFO that is open both ways: it keeps EOF from coming to itself.
    Both,
    /// The very socket that was asked about, or a copy of it.
    Own,
    /// The socket at the other side.
    Peer,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Read => "reads",
            Side::Write => "writes",
            Side::Both => "reads and writes",
            Side::Own => "this side",
            Side::Peer => "the other side",
        })
    }
}

/// One descriptor, of one process, that is a side of the channel. See [`holders`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its name, at most 15 bytes of it (`/proc/PID/comm`). Control characters, and those that change the direction of text, are
    /// shown as `?`.
    pub command: String,
    /// The number of the descriptor there.
    pub fd: RawFd,
    /// The direction that it is open for.
    pub side: Side,
    /// It is this process.
    pub is_self: bool,
}

/// The holders of a channel that [`holders`] found. It has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holders {
    /// Every descriptor of the channel that was found, by process and number.
    pub list: Vec<Holder>,
    /// The number of processes that could not be inspected, because they are another user's. One of them may hold an end too.
    pub unseen: usize,
    /// The number of processes that could be inspected in part. They show that descriptors are open, but not the kind of all of
    /// them. One of them may hold an end too.
    pub seen_in_part: usize,
    /// The kernel did not tell the other side of a socket, so no holder in the list is [`Side::Peer`].
    pub peer_unknown: bool,
    /// The other side is open, and no process in the list has it. It is under way in a message, or in a process that was not
    /// inspected or is not shown. (For its reader, a FIFO with a name counts as open until its first writer has come and gone.)
    pub out_of_sight: bool,
    /// `/proc` is that of another pid namespace than this process's. The numbers of the processes are those of `/proc`, and not
    /// those that [`Child::id`](crate::Child::id) and [`std::process::id`] have here.
    pub other_namespace: bool,
}

impl IntoIterator for Holders {
    type Item = Holder;
    type IntoIter = std::vec::IntoIter<Holder>;

    /// Returns an iterator over the [`list`](Self::list).
    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Holders {
    type Item = &'a Holder;
    type IntoIter = std::slice::Iter<'a, Holder>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// A line for each holder, and one for processes that were not seen.
impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for holder in &self.list {
            let me = if holder.is_self { " (this process)" } else { "" };
            let Holder { pid, command, fd, side, .. } = holder;
            writeln!(f, "{pid:>7} {command:<15} fd {fd:<5} {side}{me}")?;
        }
        if self.list.is_empty() {
            writeln!(f, "nobody that could be seen")?;
        }
        if self.peer_unknown {
            writeln!(f, "the other side could not be found out")?;
        }
        if self.out_of_sight {
            writeln!(f, "the other side is open, and none of these has it: it may be under way in a message")?;
        }
        if self.other_namespace {
            writeln!(f, "the numbers are those of /proc, which shows another pid namespace")?;
        }
        match self.unseen {
            0 => {}
            1 => writeln!(f, "1 process could not be looked into")?,
            unseen => writeln!(f, "{unseen} processes could not be looked into")?,
        }
        // Where a holder of the other side is known, this would be noise: many machines have such a process.
        match self.seen_in_part {
            in_part if in_part > 0 && self.out_of_sight => {
                writeln!(f, "processes that could be looked into in part alone: {in_part}")
            }
            _ => Ok(()),
        }
    }
}

/// Returns the processes that have the channel of this end open, on which side, and as which descriptor.
///
/// If EOF never comes, some process still holds a writer. This names it. It never blocks, but takes a while: it looks once
/// through the descriptors of every process that this user may inspect.
///
/// It is a snapshot. Processes that start, exit, or pass ends on meanwhile may be missed. Ends that are under way in a message
/// are held by no process, and are [`out_of_sight`](Holders::out_of_sight).
///
/// In the guide: [when it hangs](crate::guide::when_it_hangs).
///
/// # Errors
///
/// - [`Error::NotGiven`]: this process was not given the end.
/// - [`Error::WrongKind`]: neither a pipe nor a socket.
/// - [`Error::System`]: `/proc` is not mounted; no descriptor is left to look with (`EMFILE`).
///
/// # Platform
///
/// `/proc/PID/fd` ([proc(5)]), or `/proc/PID/task/*/fd` of a process with threads, and [sock_diag(7)] for the other side
/// of a unix socket. If the kernel refuses that, the result [says so](Holders::peer_unknown). Processes that `/proc`
/// does not show, with `hidepid=2` or in another pid namespace, are not counted as unseen.
///
/// # Examples
///
/// ```
/// use ipc::Side;
///
/// let (reader, writer) = ipc::pipe()?;
/// let found = ipc::holders(&reader)?;
/// let writers: Vec<_> = found.list.iter().filter(|holder| holder.side == Side::Write).collect();
/// assert_eq!(writers.len(), 1);
/// assert!(writers[0].is_self); // so this process would wait for itself
/// # drop(writer);
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html
/// [sock_diag(7)]: https://man7.org/linux/man-pages/man7/sock_diag.7.html
#[doc(alias = "lsof")]
#[doc(alias = "fuser")]
pub fn holders(end: &impl AsFd) -> Result<Holders> {
    let end = end.as_fd();
    if ledger::is_severed(end.as_raw_fd()) {
        return Err(Error::NotGiven);
    }
    let stat = rustix::fs::fstat(end).map_err(|errno| Error::system("fstat", errno))?;
    let Some(channel) = Channel::of(&stat) else {
        return Err(Error::WrongKind { expected: "a pipe or a socket", found: crate::end::kind(end)? });
    };
    let mut found = Holders::default();
    let peer = match channel.socket.then(|| peer(channel)) {
        Some(Ok(peer)) => peer,
        // Then it is not the kernel that refuses to say.
        Some(Err(errno @ (Errno::MFILE | Errno::NFILE))) => return Err(Error::system("socket", errno)),
        Some(Err(_)) => {
            found.peer_unknown = true;
            None
        }
        None => None,
    };
    let shown = processes::shown()?;
    for &pid in &shown.pids {
        let seen = shown.channels(pid)?;
        found.unseen += usize::from(seen.unseen);
        found.seen_in_part += usize::from(seen.in_part);
        let mut of_channel: Vec<_> =
            seen.channels.iter().filter_map(|held| Some((held, side(held, channel, peer)?))).collect();
        if of_channel.is_empty() {
            continue;
        }
        // One that has left by now holds nothing.
        let Some((command, _)) = processes::name_and_parent(pid)? else { continue };
        of_channel.sort_unstable_by_key(|(held, _)| held.number);
        found.list.extend(of_channel.into_iter().map(|(held, side)| Holder {
            pid,
            command: processes::printable(&command),
            fd: held.number,
            side,
            is_self: pid == shown.me,
        }));
    }
    found.other_namespace = shown.depth > 0;
    // After that, so that a side which was closed meanwhile is not taken for one without a holder.
    found.out_of_sight = match other_side(end, channel)? {
        Some(other) if found.list.iter().any(|holder| [other, Side::Both].contains(&holder.side)) => false,
        Some(Side::Peer) => peer.is_some() && matches!(self::peer(channel), Ok(Some(_))),
        Some(_) => is_other_side_open(end)?,
        None => false,
    };
    Ok(found)
}

/// The side of the channel, if it is one.
fn other_side(end: BorrowedFd<'_>, channel: Channel) -> Result<Option<Side>> {
    if channel.socket {
        return Ok(Some(Side::Peer));
    }
    let flags = rustix::fs::fcntl_getfl(end).map_err(|errno| Error::system("fcntl", errno))?;
    Ok(match flags & OFlags::RWMODE {
        _ if flags.contains(OFlags::PATH) => None,
        OFlags::RDONLY => Some(Side::Write),
        OFlags::WRONLY => Some(Side::Read),
        _ => None,
    })
}

/// Returns whether a pipe's other side was not closed.
fn is_other_side_open(end: BorrowedFd<'_>) -> Result<bool> {
    let events = sys::poll::look(end, 0).map_err(|errno| Error::system("poll", errno))?;
    Ok(events & (POLLHUP | POLLERR | POLLNVAL) == 0)
}

/// The socket at the other side, if there is one.
fn peer(socket: Channel) -> crate::sys::Result<Option<Channel>> {
    let inode = u32::try_from(socket.inode).map_err(|_| Errno::OVERFLOW)?;
    Ok(diag::peer(inode)?.map(|peer| Channel { inode: peer.into(), ..socket }))
}

fn side(held: &Held, channel: Channel, peer: Option<Channel>) -> Option<Side> {
    match (held.channel == channel, channel.socket) {
        (true, true) => Some(Side::Own),
        (true, false) => Some(match (held.reads, held.writes) {
            (true, true) => Side::Both,
            (true, false) => Side::Read,
            _ => Side::Write,
        }),
        (false, _) => (Some(held.channel) == peer).then_some(Side::Peer),
    }
}
