//! The side that writes.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::RingError;
use super::doorbell::Side;
use super::half::{Half, PIECE};
use super::layout::{LARGEST, hello};
use crate::error::{Error, Result};
use crate::socket::StreamSocket;
use crate::sys::epoch::Epoch;
use crate::sys::memfd::{self, LENGTH};
use crate::sys::shared_memory::{SharedMemory, page_size};
use crate::sys::{ancillary, membarrier};
use crate::wait::{Patience, TimedWrite, Until, Watch};

/// What a ring holds unless somebody says otherwise.
const CAPACITY: usize = 256 << 10;

/// The writing side of a ring in shared memory: what it writes is read by the [`RingReader`](crate::RingReader) at the other
/// end of the socket, with no system call on the way as long as both are awake.
pub struct RingWriter {
    half: Half<true>,
    capacity: usize,
}

impl RingWriter {
    /// Makes a ring of 256 KiB on one end of a [`stream_pair`](crate::stream_pair()). Never blocks.
    pub fn new(socket: StreamSocket) -> Result<Self, RingError> {
        Self::with_capacity(socket, CAPACITY)
    }

    /// Makes a ring that holds so many bytes.
    pub fn with_capacity(socket: StreamSocket, bytes: usize) -> Result<Self, RingError> {
        match make(&socket, bytes) {
            Ok((epoch, side)) => {
                let capacity = side.capacity();
                Ok(Self { half: Half::new(socket, epoch, Some(side)), capacity })
            }
            Err(error) => Err(RingError { socket, error }),
        }
    }

    /// How many bytes the ring holds. Never blocks.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes what there is room for, without blocking, and says how much that was.
    pub fn try_write(&mut self, buf: &[u8]) -> Result<usize> {
        self.write_with(buf, || Patience::None)
    }

    /// Blocks until there is room or the time is up, and writes what there is room for then.
    pub fn write_timeout(&mut self, buf: &[u8], timeout: Duration) -> Result<usize> {
        self.write_with(buf, || Patience::timeout(timeout))
    }

    #[inline]
    fn write_with(&mut self, buf: &[u8], patience: impl FnOnce() -> Patience) -> Result<usize> {
        if !self.begin(buf.len(), patience)? {
            return Ok(0);
        }
        Ok(self.put(buf))
    }

    /// Waits for room, if something is to be written. Whether it is.
    #[inline]
    fn begin(&mut self, len: usize, patience: impl FnOnce() -> Patience) -> Result<bool> {
        self.half.check_process()?;
        if len == 0 {
            return Ok(false);
        }
        if let Some(side) = &self.half.side {
            if self.half.is_over || side.is_other_closed() {
                return Err(Error::Closed);
            }
            if side.left() >= len {
                return Ok(true);
            }
        }
        self.begin_late(patience)?;
        Ok(true)
    }

    /// Where there is not room for everything, as far as is known.
    #[inline(never)]
    fn begin_late(&mut self, patience: impl FnOnce() -> Patience) -> Result<()> {
        self.half.check_fault()?;
        if !self.half.is_closed() && self.half.look()? == 0 {
            self.half.wait(patience())?;
        }
        if self.half.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Writes what there is room for.
    #[inline]
    fn put(&mut self, buf: &[u8]) -> usize {
        let mut written = 0;
        // In pieces, so that the reader can begin while this side goes on.
        for piece in buf.chunks(PIECE) {
            let Some(side) = &mut self.half.side else { break };
            let fitting = &piece[..piece.len().min(side.left())];
            if fitting.is_empty() {
                break;
            }
            side.words.put(side.position(), fitting);
            self.half.advance(fitting.len());
            written += fitting.len();
            if fitting.len() < piece.len() {
                break;
            }
        }
        written
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep.
    pub fn set_spin(&mut self, spin: Duration) {
        self.half.set_spin(spin);
    }

    /// Whether nobody is left to read. Never blocks.
    pub fn is_closed(&self) -> Result<bool> {
        self.half.check_process()?;
        self.half.check_fault()?;
        self.half.is_other_gone()
    }

    /// For [`wait_any`](crate::wait_any): ready when there is room, or nobody left to read.
    pub fn watch(&mut self) -> Watch<'_> {
        let is_ready = self.half.watch();
        Watch::room(&*self.half.socket).buffered(is_ready)
    }

    /// Ends the stream, and says what the kernel said. Never blocks. Dropping does the same.
    pub fn close(self) -> Result<()> {
        self.half.close()
    }
}

/// The memory, and the hello that takes it to the other side.
fn make(socket: &StreamSocket, bytes: usize) -> Result<(Epoch, Side<SharedMemory, true>)> {
    socket.end().check_given()?;
    let capacity = bytes.max(page_size()).checked_next_power_of_two().filter(|capacity| *capacity <= LARGEST);
    let capacity = capacity.ok_or(Error::InvalidInput { what: "a ring holds 1 GiB at most" })?;
    let refused = |call| move |errno| Error::system(call, errno);
    let epoch = Epoch::now().map_err(refused("madvise"))?;
    let memory = memfd::create(c"ipc-ring").map_err(refused("memfd_create"))?;
    memfd::allocate(memory.as_fd(), (page_size() + capacity) as u64).map_err(refused("fallocate"))?;
    memfd::seal(memory.as_fd(), LENGTH).map_err(refused("fcntl"))?;
    let words = SharedMemory::map(memory.as_fd(), capacity, epoch).map_err(refused("mmap"))?;
    let side = Side::new(words, capacity, membarrier::register());
    let fd = socket.as_fd();
    match ancillary::send(fd, &hello(capacity), &[memory.as_raw_fd()], false) {
        Ok(_) => Ok((epoch, side)), // so few bytes go in one piece
        Err(errno) => Err(socket.end().error("sendmsg", errno)),
    }
}

impl Write for RingWriter {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(buf, || Patience::Blocking).map_err(Error::into_io)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if !self.begin(len, || Patience::Blocking).map_err(Error::into_io)? {
            return Ok(0);
        }
        let mut written = 0;
        for buf in bufs {
            let count = self.put(buf);
            written += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(written)
    }

    /// Does nothing: what `write` took can be read.
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For a [`Deadline`](crate::Deadline), and for messages over a ring.
impl TimedWrite for RingWriter {
    fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
        self.write_with(buf, || until.0)
    }
}

impl fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingWriter").field("socket", &*self.half.socket).field("capacity", &self.capacity()).finish()
    }
}
