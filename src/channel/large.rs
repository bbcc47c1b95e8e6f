//! Values that are too large for a datagram: in sealed memory beside an empty one.
//!
//! An empty message with ends beside it is nothing else: a value without bytes has none.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;

use super::link::Outbound;
use super::wrong::Wrong;
use crate::error::{Error, Result};
use crate::socket::{DatagramSocket, Received};
use crate::sys;
use crate::sys::ancillary::MOST;
use crate::sys::frozen::Frozen;
use crate::sys::memfd::{self, CONTENTS, Unfit};
use crate::wait::Patience;

/// Sends the bytes as memory.
pub(super) fn send(socket: &DatagramSocket, message: Outbound<'_>, patience: Patience) -> Result<()> {
    socket.send_ends(&[], attach(message)?, patience).map_err(Error::from)
}

/// What goes beside an empty message: the bytes as memory, and then the ends.
pub(super) fn attach(message: Outbound<'_>) -> Result<(OwnedFd, Outbound<'_>)> {
    if message.ends_len() >= MOST {
        return Err(Error::TooLong { len: message.ends_len(), max: MOST - 1 });
    }
    Ok((freeze(message.bytes())?, message))
}

/// Copies bytes into memory that nobody can change any more.
fn freeze(bytes: &[u8]) -> Result<OwnedFd> {
    let memory = memfd::create(c"ipc-value").map_err(|errno| Error::system("memfd_create", errno))?;
    memfd::check_limit(bytes.len() as u64).map_err(|errno| Error::system("write", errno))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = sys::retry(|| rustix::io::write(&memory, rest)).map_err(|errno| Error::system("write", errno))?;
        rest = &rest[count..];
    }
    memfd::seal(memory.as_fd(), CONTENTS).map_err(|errno| Error::system("fcntl", errno))?;
    // For programs that read it as a file.
    rustix::fs::seek(&memory, SeekFrom::Start(0)).map_err(|errno| Error::system("lseek", errno))?;
    Ok(memory)
}

/// Takes the memory that came first, and calls `take` with what is in it, and the other ends.
pub(super) fn take<R>(mut received: Received, max: usize, take: impl FnOnce(&[u8], Received) -> R) -> Result<R> {
    let memory: OwnedFd = received.take()?;
    let len = memfd::check(memory.as_fd(), CONTENTS, false).map_err(unfit)?;
    if len > max as u64 {
        return Err(Error::TooLong { len: usize::try_from(len).unwrap_or(usize::MAX), max });
    }
    // Nobody would have agreed to the memory that a hole takes when it is read.
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
