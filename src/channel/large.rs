//! Values that are too large for a datagram: in memory beside an empty one. It is a segment that its sender uses again when the value
//! was copied, or sealed memory of the value's own.
//!
//! An empty message with ends beside it is nothing else: a value without bytes has none.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::SeekFrom;

use super::buffer::Buffer;
use super::link::Outbound;
use super::wrong::Wrong;
use crate::error::{Error, Result};
use crate::socket::{DatagramSocket, Received};
use crate::sys::ancillary::MOST;
use crate::sys::frozen::Frozen;
use crate::sys::memfd::{self, CONTENTS, REUSED, Unfit};
use crate::sys::shared_memory::page_size;
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

/// Sends the bytes as memory: in a segment that the socket uses again, or in memory of their own.
pub(super) fn send(socket: &DatagramSocket, message: Outbound<'_>, patience: Patience) -> Result<()> {
    check_ends(message)?;
    let Some(segment) = socket.segments.fill(message.bytes()) else {
        return socket.send_ends(&[], attach(message, patience)?, patience).map_err(Error::from);
    };
    let sent = socket.send_ends(&[], (segment.lent(), message), patience).map_err(Error::from);
    socket.segments.keep(segment, sent.is_ok());
    sent
}

/// The descriptors beside an empty message: the bytes as memory, and then the ends. Its error may be one that [`is_busy`] knows.
pub(super) fn attach(message: Outbound<'_>, patience: Patience) -> Result<(OwnedFd, Outbound<'_>)> {
    check_ends(message)?;
    Ok((freeze(message.bytes(), patience)?, message))
}

/// The memory takes a place among them.
fn check_ends(message: Outbound<'_>) -> Result<()> {
    match message.ends_len() {
        len @ MOST.. => Err(Error::TooLong { len, max: MOST - 1 }),
        _ => Ok(()),
    }
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
    let (seals, len) = memfd::look(memory.as_fd(), false).map_err(unfit)?;
    if !seals.contains(CONTENTS) {
        if !seals.contains(REUSED) {
            return Err(unfit(Unfit::Seals));
        }
        let bytes = copy(memory, len, max)?;
        return Ok(take(bytes.as_slice(), received));
    }
    check_len(len, max)?;
    // A hole takes memory when it is read, to which the receiver did not agree.
    if memfd::has_holes(memory.as_fd(), len).map_err(|errno| Error::system("lseek", errno))? {
        return Err(malformed("the memory beside a message has holes"));
    }
    let bytes = Frozen::map(memory.as_fd()).map_err(unfit)?;
    Ok(take(&bytes, received))
}

/// Copies the value out of a segment, and gives that back. Its sender can write to it all the time, and may write anything. A read
/// waits for no lock of the memory, and takes none where there is a hole.
fn copy(segment: OwnedFd, len: u64, max: usize) -> Result<Buffer> {
    let mut told = [0; 8];
    read(&segment, &mut told, 0)?;
    let told = u64::from_le_bytes(told);
    if told > len.saturating_sub(page_size() as u64) {
        return Err(malformed("the memory beside a message is shorter than its value"));
    }
    let copied = check_len(told, max).and_then(|len| {
        let mut bytes = Buffer::new();
        read(&segment, bytes.try_lengthen(len)?, page_size() as u64)?;
        Ok(bytes)
    });
    // Where a sandbox refuses it, the sender makes new memory.
    let _ = memfd::give_back(segment.as_fd());
    copied
}

/// Reads all of it.
fn read(segment: &OwnedFd, buf: &mut [u8], from: u64) -> Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match sys::retry(|| rustix::io::pread(segment, &mut buf[done..], from + done as u64)) {
            Ok(0) => return Err(malformed("the memory beside a message has become shorter")),
            Ok(count) => done += count,
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    }
    Ok(())
}

fn check_len(len: u64, max: usize) -> Result<usize> {
    match usize::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        len => Err(Error::TooLong { len: len.unwrap_or(usize::MAX), max }),
    }
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
