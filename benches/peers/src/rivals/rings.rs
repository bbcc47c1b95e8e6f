//! `ipc`'s ring in shared memory, and the limit that it is measured by: a ring made by hand, which spins and does nothing else.

use std::io::{self, Read, Write};
use std::ptr::{self, null_mut};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Duration;

use ::ipc::{MessageReader, MessageWriter, RingReader, RingWriter, StreamSocket};

use crate::channel::{Receiver, Records, Sender};

use super::bare::check;
use super::{Made, ended, ours};

pub const LIMIT_NOTE: &str = "A ring of 256 KiB made by hand, with its memory mapped twice in a row: it copies in, publishes, and copies out. It \
                              spins, never sleeps, sees no dead peer, and believes what it reads. It is the limit of a ring that copies each write by itself; batches can pass it.";

/// How a ring is made and used; each is left alone where there is none.
#[derive(Clone, Copy, Default)]
struct Settings {
    spin: Option<Duration>,
    capacity: Option<usize>,
}

/// A side of `ipc`'s ring, which is made in the process that uses it.
pub struct Side<T>(State<T>);

enum State<T> {
    Socket(Option<StreamSocket>, Settings),
    Ring(T),
}

impl<T> Side<T> {
    #[inline]
    fn ring(&mut self, make: impl FnOnce(StreamSocket, Settings) -> io::Result<T>) -> io::Result<&mut T> {
        if let State::Socket(socket, settings) = &mut self.0 {
            self.0 = State::Ring(make(socket.take().ok_or(io::ErrorKind::NotConnected)?, *settings)?);
        }
        match &mut self.0 {
            State::Ring(ring) => Ok(ring),
            State::Socket(..) => unreachable!("it was made"),
        }
    }
}

fn writer(socket: StreamSocket, settings: Settings) -> io::Result<RingWriter> {
    let mut ring = match settings.capacity {
        Some(bytes) => RingWriter::with_capacity(socket, bytes)?,
        None => RingWriter::new(socket)?,
    };
    settings.spin.into_iter().for_each(|spin| ring.set_spin(spin));
    Ok(ring)
}

fn reader(socket: StreamSocket, settings: Settings) -> io::Result<RingReader> {
    let mut ring = RingReader::new(socket)?;
    settings.spin.into_iter().for_each(|spin| ring.set_spin(spin));
    Ok(ring)
}

impl Write for Side<RingWriter> {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.ring(writer)?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The length of a buffer that its documentation recommends.
const READ: usize = 16 << 10;

impl Read for Side<RingReader> {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(READ);
        self.ring(reader)?.read(&mut buf[..len])
    }
}

fn sides<A, B>(settings: Settings) -> Made<Side<A>, Side<B>> {
    let (parent, child) = ours::streams()?;
    Ok((Side(State::Socket(Some(parent), settings)), Side(State::Socket(Some(child), settings))))
}

/// As it comes.
pub fn ring() -> Made<Side<RingReader>, Side<RingWriter>> {
    sides(Settings::default())
}

/// As large as the ring of `shmem-ipc` here.
const LARGE: Settings = Settings { spin: None, capacity: Some(1 << 20) };

pub fn large() -> Made<Side<RingReader>, Side<RingWriter>> {
    sides(LARGE)
}

pub fn spinning() -> Made<Side<RingReader>, Side<RingWriter>> {
    sides(Settings { spin: Some(Duration::from_micros(50)), ..Settings::default() })
}

/// It sleeps at once.
pub fn sleeping() -> Made<Side<RingReader>, Side<RingWriter>> {
    sides(Settings { spin: Some(Duration::ZERO), ..Settings::default() })
}

/// Records of one length, as each other contender passes them.
pub fn records() -> Made<Records<Side<RingWriter>>, Records<Side<RingReader>>> {
    let (reader, writer) = ring()?;
    Ok((Records(writer), Records(reader)))
}

pub struct Messages<T>(Side<T>);

pub fn messages() -> Made<Messages<MessageWriter<RingWriter>>, Messages<MessageReader<RingReader>>> {
    let (writer, reader) = sides(Settings::default())?;
    Ok((Messages(writer), Messages(reader)))
}

pub fn large_messages() -> Made<Messages<MessageWriter<RingWriter>>, Messages<MessageReader<RingReader>>> {
    let (writer, reader) = sides(LARGE)?;
    Ok((Messages(writer), Messages(reader)))
}

impl Sender for Messages<MessageWriter<RingWriter>> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let make = |socket, settings| Ok(MessageWriter::new(writer(socket, settings)?));
        Ok(self.0.ring(make)?.send(message)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0.0 {
            State::Ring(ring) => Ok(ring.flush()?),
            State::Socket(..) => Ok(()),
        }
    }
}

impl Receiver for Messages<MessageReader<RingReader>> {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let make = |socket, settings| Ok(MessageReader::new(reader(socket, settings)?));
        each(self.0.ring(make)?.recv()?.ok_or_else(ended)?);
        Ok(1)
    }
}

const CAPACITY: usize = 256 << 10;
const PAGE: usize = 4096;

/// One page for the two counters, and the data twice.
struct Memory(*mut u8);

// SAFETY: counters are atomics, and each byte is one side's at a time.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a descriptor that is new and closed here; and mappings in the place of one that is new, which stay.
        unsafe {
            let fd = check(libc::memfd_create(c"limit".as_ptr(), libc::MFD_CLOEXEC))?;
            check(libc::ftruncate(fd, (PAGE + CAPACITY) as libc::off_t))?;
            let whole = PAGE + 2 * CAPACITY;
            let start = libc::mmap(null_mut(), whole, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            for (at, from, len) in [(0, 0, PAGE + CAPACITY), (PAGE + CAPACITY, PAGE, CAPACITY)] {
                let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                let mapped = libc::mmap(start.byte_add(at), len, prot, flags, fd, from as libc::off_t);
                if mapped == libc::MAP_FAILED {
                    return Err(io::Error::last_os_error());
                }
            }
            check(libc::close(fd))?;
            Ok(Self(start.cast()))
        }
    }

    #[inline]
    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, and mapped for good.
        unsafe { AtomicU64::from_ptr(self.0.add(offset).cast()) }
    }

    #[inline]
    fn at(&self, position: u64) -> *mut u8 {
        // SAFETY: in the first half of the data.
        unsafe { self.0.add(PAGE + position as usize % CAPACITY) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: its own mapping.
        unsafe { libc::munmap(self.0.cast(), PAGE + 2 * CAPACITY) };
    }
}

const HEAD: usize = 0;
const TAIL: usize = 128;

/// One side: its own counter, and the other's as it was seen last.
pub struct Limit<const WRITER: bool>(Arc<Memory>, u64, u64);

pub fn limit() -> Made<Limit<false>, Limit<true>> {
    let memory = Arc::new(Memory::new()?);
    Ok((Limit(memory.clone(), 0, 0), Limit(memory, 0, 0)))
}

pub fn limit_records() -> Made<Records<Limit<true>>, Records<Limit<false>>> {
    let (reader, writer) = limit()?;
    Ok((Records(writer), Records(reader)))
}

impl Write for Limit<true> {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Self(memory, head, tail) = self;
        while *head - *tail == CAPACITY as u64 {
            *tail = memory.counter(TAIL).load(Acquire);
        }
        let len = buf.len().min(CAPACITY - (*head - *tail) as usize).min(16 << 10);
        // SAFETY: so many bytes have room there, which nobody reads.
        unsafe { ptr::copy_nonoverlapping(buf.as_ptr(), memory.at(*head), len) };
        *head += len as u64;
        memory.counter(HEAD).store(*head, Release);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Limit<false> {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Self(memory, tail, head) = self;
        while head == tail {
            *head = memory.counter(HEAD).load(Acquire);
        }
        let len = buf.len().min((*head - *tail) as usize).min(16 << 10);
        // SAFETY: so many bytes are there, which nobody writes to.
        unsafe { ptr::copy_nonoverlapping(memory.at(*tail), buf.as_mut_ptr(), len) };
        *tail += len as u64;
        memory.counter(TAIL).store(*tail, Release);
        Ok(len)
    }
}
