//! The side that writes.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::time::Duration;

use super::RingError;
use super::half::{Half, PIECE};
use super::hello::make;
use crate::error::{Error, Result};
use crate::socket::StreamSocket;
use crate::wait::{Patience, TimedWrite, Until, Watch};

/// The capacity of a ring, at first.
const CAPACITY: usize = 256 << 10;

/// The writing side of a ring in shared memory, which a [`RingReader`](crate::RingReader) in another process reads.
///
/// It passes bytes in one direction, from one process to another, as a pipe does, and faster. While both processes are
/// awake, it makes no system call. [`Write`] blocks while the ring is full, and fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the reader is gone. The reader sees the bytes as soon as `write` returns:
/// there is nothing to flush.
///
/// Each process puts its side on one end of a [`stream_pair`](crate::stream_pair()). The socket, one descriptor, travels to
/// that process first: by a fork, to a program or in a message. It wakes a side that sleeps, and its EOF means that a side
/// is gone, even if it was killed. No other bytes can pass through it any more.
///
/// # Where a pipe is better
///
/// - A reader that was *killed* is noticed when the ring is full, or by [`is_closed`](Self::is_closed). A pipe notices it at
///   the next write. (A reader that was dropped is noticed at the next write here too.)
/// - One process reads and one writes. A side that was used cannot be taken over or shared.
/// - A ring takes its capacity and a page for as long as it exists: 260 KiB unless it is set otherwise. Both processes share
///   that memory. Each maps the data twice, which takes 516 KiB of its addresses, and up to as much of its `Rss`. Pages that
///   are mapped twice count twice there. A pipe takes memory for its contents alone.
/// - While a side [looks again](Self::set_spin), it occupies its core.
///
/// In the guide, with figures: [rings](crate::guide::rings).
///
/// # In another process
///
/// A `RingWriter` belongs to the process that made it. It is no [`Ends`](crate::Ends). A child that has a copy, in a capture
/// or after a bare fork, gets [`Error::NotGiven`] from every call. The peer does not notice when the copy is dropped.
///
/// ```compile_fail,E0277
/// let pair = ipc::stream_pair().unwrap();
/// let ring = ipc::RingWriter::new(pair.parent).unwrap();
/// ipc::fork(ring, |_ring| ()); // `RingWriter: Ends` is not satisfied
/// ```
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let pair = ipc::stream_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
///     let mut ring = ipc::RingReader::new(socket)?;
///     let mut text = String::new();
///     ring.read_to_string(&mut text)?;
///     assert_eq!(text.len(), 1_000_000);
///     Ok(())
/// })?;
///
/// let mut ring = ipc::RingWriter::new(pair.parent)?;
/// ring.write_all(&[b'x'; 1_000_000])?;
/// drop(ring); // EOF
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "shared memory")]
#[doc(alias = "shm")]
pub struct RingWriter {
    half: Half<true>,
    capacity: usize,
}

impl RingWriter {
    /// Makes a ring of 256 KiB on one end of a [`stream_pair`](crate::stream_pair()). Never blocks.
    ///
    /// A ring of 256 KiB is as fast as any, and fits the second cache of most processors. Smaller rings sleep more often;
    /// larger ones go through slower caches.
    ///
    /// # Errors
    ///
    /// The same as [`with_capacity`](Self::with_capacity).
    ///
    /// # Examples
    ///
    /// See [`RingWriter`].
    pub fn new(socket: StreamSocket) -> Result<Self, RingError> {
        Self::with_capacity(socket, CAPACITY)
    }

    /// Makes a ring that holds `bytes` bytes, rounded up to a power of two of pages. Never blocks.
    ///
    /// A reader takes more than 64 MiB only after [`RingReader::set_max_capacity`](crate::RingReader::set_max_capacity).
    ///
    /// # Errors
    ///
    /// The error gives the socket back, and `?` turns it into [`Error`].
    ///
    /// - [`Error::InvalidInput`]: more than 1 GiB.
    /// - [`Error::System`]: no memory (`ENOMEM`), or no descriptor (`EMFILE`, `ENFILE`) is left. This process may not make
    ///   files of that length (`EFBIG`, `RLIMIT_FSIZE` of
    ///   [setrlimit(2)](https://man7.org/linux/man-pages/man2/setrlimit.2.html)). The peer is a writer too (`EPERM`, from Linux 6.16
    ///   on; before, neither side is told).
    /// - [`Error::Closed`]: the peer is gone.
    /// - [`Error::WouldBlock`]: the socket is full of bytes that were written to it before.
    /// - [`Error::NotGiven`]: this process was not given the socket.
    ///
    /// # Platform
    ///
    /// [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html), sealed against every change of its length,
    /// and allocated with [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html);
    /// [membarrier(2)](https://man7.org/linux/man-pages/man2/membarrier.2.html), and a fence with each write where it is refused.
    /// The mapping is not inherited by a fork (`MADV_DONTFORK`). `docs/ring.md` has the format, for peers in other languages.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let refused = ipc::RingWriter::with_capacity(pair.parent, 2 << 30).unwrap_err();
    /// assert!(matches!(refused.error, ipc::Error::InvalidInput { .. })); // too large; the socket is given back
    ///
    /// let ring = ipc::RingWriter::with_capacity(refused.socket, 100_000)?;
    /// assert_eq!(ring.capacity(), 128 << 10);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn with_capacity(socket: StreamSocket, bytes: usize) -> Result<Self, RingError> {
        match make(&socket, bytes) {
            Ok((epoch, side)) => {
                let capacity = side.capacity();
                Ok(Self { half: Half::new(socket, epoch, Some(side)), capacity })
            }
            Err(error) => Err(RingError { socket, error }),
        }
    }

    /// Returns how many bytes the ring holds. Never blocks.
    ///
    /// # Examples
    ///
    /// See [`with_capacity`](Self::with_capacity).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes as many bytes as there is room for, without blocking, and returns their number.
    ///
    /// The kernel may have no memory to wake a reader that sleeps (`ENOBUFS`). The bytes are written all the same, and the next
    /// call that writes, waits or closes wakes it.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: the ring is full, and the reader is there.
    /// - [`Error::Closed`]: the reader is gone.
    /// - [`Error::Malformed`]: the reader has written nonsense into the shared memory. Every later call returns this too.
    /// - [`Error::NotGiven`]: this process has a copy of the ring of another one.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let mut ring = ipc::RingWriter::with_capacity(pair.parent, 4096)?;
    /// assert_eq!(ring.try_write(&[0; 5000])?, ring.capacity());
    /// assert!(matches!(ring.try_write(b"more"), Err(ipc::Error::WouldBlock)));
    /// let late = ring.write_timeout(b"more", std::time::Duration::from_millis(10));
    /// assert!(matches!(late, Err(ipc::Error::TimedOut)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_write(&mut self, buf: &[u8]) -> Result<usize> {
        self.write_with(buf, || Patience::None)
    }

    /// Blocks until there is room or the time is up, writes as many bytes as fit, and returns their number.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals, and
    /// against any bytes of the peer. A descriptor that the peer sends can delay it: see
    /// [`RingReader::read_timeout`](crate::RingReader::read_timeout).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was written; and as [`try_write`](Self::try_write).
    ///
    /// # Examples
    ///
    /// See [`try_write`](Self::try_write).
    pub fn write_timeout(&mut self, buf: &[u8], timeout: Duration) -> Result<usize> {
        self.write_with(buf, || Patience::timeout(timeout))
    }

    #[inline]
    fn write_with(&mut self, buf: &[u8], patience: impl Fn() -> Patience) -> Result<usize> {
        if !self.begin(buf.len(), &patience)? {
            return Ok(0);
        }
        Ok(self.put(buf, || patience().is_endless()))
    }

    /// Waits for room. `false`: there is nothing to write.
    #[inline]
    fn begin(&mut self, len: usize, patience: impl FnOnce() -> Patience) -> Result<bool> {
        self.half.check_process()?;
        if len == 0 {
            return self.half.check_fault().map(|()| false);
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

    /// The rest of [`begin`](Self::begin), if there is not room for everything as far as is known.
    #[inline(never)]
    fn begin_late(&mut self, patience: impl FnOnce() -> Patience) -> Result<()> {
        self.half.check_fault()?;
        // A reader that takes its word back has left all the same: there is no room, and 0 would be no progress.
        let has_left = self.half.is_closed() || (self.half.look()? == 0 && self.half.wait(patience())? == 0);
        if has_left || self.half.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Writes as many bytes as there is room for.
    #[inline]
    fn put(&mut self, buf: &[u8], may_wait: impl Fn() -> bool) -> usize {
        let mut written = 0;
        // In pieces, so that the reader can begin while this side goes on.
        for piece in buf.chunks(PIECE) {
            let Some(side) = &mut self.half.side else { break };
            let fitting = &piece[..piece.len().min(side.left())];
            if fitting.is_empty() {
                break;
            }
            side.words.put(side.position(), fitting);
            self.half.advance(fitting.len(), &may_wait);
            written += fitting.len();
            if fitting.len() < piece.len() {
                break;
            }
        }
        written
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; 20 µs at first, and zero for not at all.
    ///
    /// A look costs some nanoseconds and no system call, and occupies the core. The time adapts, as a pipe's does
    /// ([`PipeReader::set_spin`](crate::PipeReader::set_spin)).
    ///
    /// If both sides run on one core, looking is in vain. A call then gives the core to the other side once before it sleeps. It
    /// does not if `spin` is zero, or if it has less than 10 ms left. A message and its answer take less time than over pipes.
    ///
    /// # Platform
    ///
    /// [sched_yield(2)](https://man7.org/linux/man-pages/man2/sched_yield.2.html), and
    /// [getcpu(2)](https://man7.org/linux/man-pages/man2/getcpu.2.html) to know the core.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pair = ipc::stream_pair()?;
    /// let mut ring = ipc::RingWriter::new(pair.parent)?;
    /// ring.set_spin(Duration::ZERO); // it sleeps at once
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "sched_yield")]
    pub fn set_spin(&mut self, spin: Duration) {
        self.half.set_spin(spin);
    }

    /// Returns whether the reader is gone, also if it was killed. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NotGiven`], [`Error::Malformed`]: as [`try_write`](Self::try_write).
    ///
    /// # Platform
    ///
    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let ring = ipc::RingWriter::new(pair.parent)?;
    /// assert!(!ring.is_closed()?);
    /// drop(pair.child);
    /// assert!(ring.is_closed()?);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn is_closed(&self) -> Result<bool> {
        self.half.check_process()?;
        self.half.check_fault()?;
        self.half.is_other_gone()
    }

    /// For [`wait_any`](crate::wait_any): ready ([`Ready::WRITE`](crate::Ready::WRITE)) when there is room, or the reader
    /// is gone.
    ///
    /// The watch asks the reader for a wake-up, which costs the reader a system call at its next read. Make a new one for each
    /// wait. A wake-up may come for nothing: call [`try_write`](Self::try_write) after it. A broken ring is ready too, and
    /// that call returns the error.
    ///
    /// # Examples
    ///
    /// See [`RingReader::watch`](crate::RingReader::watch).
    pub fn watch(&mut self) -> Watch<'_> {
        let is_ready = self.arm();
        Watch::room(&*self.half.socket).buffered(is_ready)
    }

    /// Asks to be rung for. Returns whether the ring is ready at once.
    pub(crate) fn arm(&mut self) -> bool {
        self.half.watch()
    }

    /// The socket that it is rung at.
    #[cfg(feature = "tokio")]
    pub(crate) fn bell(&self) -> &StreamSocket {
        &self.half.socket
    }

    /// Ends the stream: nothing can be written any more.
    #[cfg(feature = "tokio")]
    pub(crate) fn end_stream(&mut self) -> Result<()> {
        self.half.check_process()?;
        self.half.finish();
        self.half.is_over = true;
        Ok(())
    }

    /// Ends the stream, and returns the kernel's error if there is one. Never blocks. Dropping ends it too.
    ///
    /// The reader gets every byte, and then EOF.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process has a copy of the ring of another one. The copy alone is closed.
    /// - [`Error::System`]: other code closed the number.
    ///
    /// # Examples
    ///
    /// See [`RingReader`](crate::RingReader).
    pub fn close(mut self) -> Result<()> {
        self.half.close()
    }
}

/// Blocks while the ring is full. See [`RingWriter`].
impl Write for RingWriter {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(buf, || Patience::Blocking).map_err(Error::into_io)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = bufs.iter().fold(0, |len: usize, buf| len.saturating_add(buf.len())); // they may overlap
        if !self.begin(len, || Patience::Blocking).map_err(Error::into_io)? {
            return Ok(0);
        }
        let mut written = 0;
        for buf in bufs {
            let count = self.put(buf, || true);
            written += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(written)
    }

    /// Does nothing: the bytes that `write` took can be read.
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
