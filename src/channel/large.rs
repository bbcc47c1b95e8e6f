//! Values that are too large for a datagram: in sealed memory beside an empty one.
//!
//! An empty message with ends beside it is nothing else: a value without bytes has none.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::SeekFrom;

use super::link::Outbound;
use super::wrong::Wrong;
use crate::error::{Error, Result};
use crate::socket::{DatagramSocket, Received};
use crate::sys::ancillary::MOST;
use crate::sys::frozen::Frozen;
use crate::sys::memfd::{self, CONTENTS, Unfit};
use crate::sys::{self, Errno};
use crate::wait::{Patience, Until};

/// The longest value that goes in a datagram wherever it fits: the longest of a socket at its default.
pub(super) const LONG: usize = 212_960;

/// Whether so many bytes do better as memory: where two such datagrams have no room in the queue, sender and receiver take turns.
pub(super) fn is_better(socket: &DatagramSocket, len: usize) -> Result<bool> {
    Ok(len > socket.max_message()? / 2)
}

/// Whether memory arrives beside an empty message. Where it does not, as in gVisor, a value goes in a datagram or is too long.
pub(super) fn arrives() -> bool {
    !sys::empty::are_lost()
}

/// Sends the bytes as memory.
pub(super) fn send(socket: &DatagramSocket, message: Outbound<'_>, patience: Patience) -> Result<()> {
    socket.send_ends(&[], attach(message, patience)?, patience).map_err(Error::from)
}

/// The descriptors beside an empty message: the bytes as memory, and then the ends. Its error may be one that [`is_busy`] knows.
pub(super) fn attach(message: Outbound<'_>, patience: Patience) -> Result<(OwnedFd, Outbound<'_>)> {
    if message.ends_len() >= MOST {
        return Err(Error::TooLong { len: message.ends_len(), max: MOST - 1 });
    }
    Ok((freeze(message.bytes(), patience)?, message))
}

/// Copies bytes into memory that no process can change any more.
fn freeze(bytes: &[u8], patience: Patience) -> Result<OwnedFd> {
    let memory = memfd::create(c"ipc-value").map_err(|errno| Error::system("memfd_create", errno))?;
    memfd::check_limit(bytes.len() as u64).map_err(|errno| Error::system("write", errno))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = sys::retry(|| rustix::io::write(&memory, rest)).map_err(|errno| Error::system("write", errno))?;
        rest = &rest[count..];
    }
    let until = Until(patience);
    memfd::seal_contents(memory.as_fd(), || until.left() != Some(Duration::ZERO))
        .map_err(|errno| Error::system("fcntl", errno))?;
    // For programs that read it as a file.
    rustix::fs::seek(&memory, SeekFrom::Start(0)).map_err(|errno| Error::system("lseek", errno))?;
    Ok(memory)
}

/// Whether the memory of a large value was busy.
pub(crate) fn is_busy(error: &Error) -> bool {
    matches!(error, Error::System { call: "fcntl", source } if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()))
}

/// The error of a call, for its caller: busy memory is no room, to a call that may not wait any longer.
#[cold]
pub(super) fn in_time(error: Error, until: Until) -> Error {
    if is_busy(&error) && until.left() == Some(Duration::ZERO) { until.error() } else { error }
}

/// Takes the memory that came first, and calls `take` with its bytes and the other ends.
pub(super) fn take<R>(mut received: Received, max: usize, take: impl FnOnce(&[u8], Received) -> R) -> Result<R> {
    let memory: OwnedFd = received.take()?;
    let len = memfd::check(memory.as_fd(), CONTENTS, false).map_err(unfit)?;
    if len > max as u64 {
        return Err(Error::TooLong { len: usize::try_from(len).unwrap_or(usize::MAX), max });
    }
    // A hole takes memory when it is read, to which the receiver did not agree.
    if memfd::has_holes(memory.as_fd(), len).map_err(|errno| Error::system("lseek", errno))? {
        return Err(malformed("the memory beside a message has holes"));
    }
    let bytes = Frozen::map(memory.as_fd()).map_err(unfit)?;
    Ok(take(&bytes, received))
}

fn unfit(unfit: Unfit) -> Error {
    match unfit {
        Unfit::Kind => malformed("what came beside a message is not memory"),
        Unfit::Seals => malformed("the memory beside a message is not sealed"),
        Unfit::Mode => malformed("the memory beside a message cannot be read"),
        Unfit::Unknown(call, errno) => Error::system(call, errno),
    }
}

/// The message itself is empty.
fn malformed(what: &'static str) -> Error {
    Error::Decode { message: Vec::new(), source: Box::new(Wrong::new(what)) }
}
