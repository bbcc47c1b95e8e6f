//! What a ring's peer can do wrong, by accident or on purpose: this side answers with an error, and neither panics, hangs past
//! a deadline, nor takes memory that was not agreed to.
//!
//! The hostile peer speaks the format of `docs/ring.md` by hand.

mod deaths;
mod hellos;
mod wake_ups;
mod words;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::AtomicU64;

use crate::support::{self, Trial};
use ipc::{RingReader, RingWriter, StreamSocket, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::joined([deaths::trials(), hellos::trials(), wake_ups::trials(), words::trials()])
}

const CAPACITY: usize = 8192;
const HEAD: usize = 0;
const TAIL: usize = 128;
const WRITER: usize = 256;
const READER: usize = 384;

fn page() -> usize {
    // SAFETY: no conditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn hello(capacity: u64) -> Vec<u8> {
    let page = page() as u32;
    [&b"ipc ring"[..], &1_u32.to_le_bytes(), &page.to_le_bytes(), &capacity.to_le_bytes(), &[0; 8]].concat()
}

const LENGTH: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Memory that can be sealed.
fn memory(len: usize, seals: i32) -> OwnedFd {
    // SAFETY: a nul-terminated name; the descriptor is new; numbers.
    unsafe {
        let raw = libc::memfd_create(c"by hand".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        let file = File::from_raw_fd(raw);
        file.set_len(len as u64).unwrap();
        assert_eq!(libc::fcntl(raw, libc::F_ADD_SEALS, seals), 0);
        file.into()
    }
}

/// The memory of a ring, mapped by hand.
struct Mapped {
    start: *mut u8,
    len: usize,
}

impl Mapped {
    fn new(fd: impl AsFd) -> Self {
        let len = page() + CAPACITY;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open descriptor.
        let start = unsafe { libc::mmap(null_mut(), len, prot, libc::MAP_SHARED, fd.as_fd().as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), len }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, and mapped as long as `self`.
        unsafe { AtomicU64::from_ptr(self.start.add(offset).cast()) }
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the mapping, whole; what it holds may be anything.
        unsafe { self.start.write_bytes(byte, self.len) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A reader of the crate, and its writer by hand: the socket, the memory.
fn reader_with_hand() -> (RingReader, StreamSocket, Mapped, OwnedFd) {
    let pair = stream_pair().unwrap();
    let memory = memory(page() + CAPACITY, LENGTH);
    let mapped = Mapped::new(&memory);
    pair.child.send_with(&hello(CAPACITY as u64), &memory).unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_eq!(reader.available().unwrap(), 0);
    (reader, pair.child, mapped, memory)
}

/// A writer of the crate, and its reader by hand.
fn writer_with_hand() -> (RingWriter, StreamSocket, Mapped, OwnedFd) {
    let pair = stream_pair().unwrap();
    let writer = RingWriter::with_capacity(pair.parent, CAPACITY).unwrap();
    let mut told = [0; 100];
    let (len, mut received) = pair.child.recv_with(&mut told).unwrap();
    assert_eq!(told[..len], hello(CAPACITY as u64));
    assert_eq!(received.len(), 1);
    let memory: OwnedFd = received.take().unwrap();
    (writer, pair.child, Mapped::new(&memory), memory)
}
