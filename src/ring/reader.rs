//! The side that reads.

use std::fmt;
use std::io::{self, IoSliceMut, Read};
use std::time::Duration;

use super::RingError;
use super::half::{Half, PIECE};
use super::hello::{Cut, Hello};
use crate::error::{Error, Result};
use crate::socket::StreamSocket;
use crate::sys::epoch::Epoch;
use crate::sys::poll::POLLIN;
use crate::wait::{Patience, TimedRead, Until, Watch};

/// The most that a writer may make this process map, at first.
const MAX_CAPACITY: usize = 64 << 20;

/// The reading side of a ring in shared memory, which a [`RingWriter`](crate::RingWriter) in another process writes.
///
/// [`Read`] blocks until there is something to read, or the writer is gone and everything was read: `Ok(0)`, EOF. It makes no
/// system call while there are bytes to read and the writer is awake. [`RingWriter`](crate::RingWriter) describes the ring,
/// and when a pipe is better.
///
/// Buffers of 16 KiB are the fastest: their bytes are still in the first cache, and no read is a system call.
///
/// # A writer that is not trusted
///
/// The writer can write anything into the memory and the socket, at any time. It decides which bytes are read, and nothing
/// more. A wrong hello, seal or counter is an error and stays one. The ring takes no more memory than
/// [`set_max_capacity`](Self::set_max_capacity) allows. The peer can hold up a call in one way: see
/// [`read_timeout`](Self::read_timeout).
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let pair = ipc::stream_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
///     let mut ring = ipc::RingWriter::new(socket)?;
///     ring.write_all(b"from shared memory")?;
///     ring.close()
/// })?;
///
/// let mut ring = ipc::RingReader::new(pair.parent)?;
/// let mut text = String::new();
/// ring.read_to_string(&mut text)?;
/// assert_eq!(text, "from shared memory");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "shared memory")]
#[doc(alias = "shm")]
pub struct RingReader {
    half: Half<false>,
    /// The part of the hello that has arrived.
    hello: Hello,
    max_capacity: usize,
}

impl RingReader {
    /// Makes the reading side on one end of a [`stream_pair`](crate::stream_pair()). Its [`RingWriter`](crate::RingWriter) is
    /// at the other end. Never blocks.
    ///
    /// The first call that reads takes the memory that the writer sent, and checks it.
    ///
    /// # Errors
    ///
    /// The error gives the socket back, and `?` turns it into [`Error`].
    ///
    /// - [`Error::NotGiven`]: this process was not given the socket.
    /// - [`Error::System`]: no memory is left (`ENOMEM`).
    ///
    /// # Examples
    ///
    /// See [`RingReader`].
    pub fn new(socket: StreamSocket) -> Result<Self, RingError> {
        let given = socket.end().check_given();
        match given.and_then(|()| Epoch::now().map_err(|errno| Error::system("madvise", errno))) {
            Ok(epoch) => {
                let half = Half::new(socket, epoch, None);
                Ok(Self { half, hello: Hello::default(), max_capacity: MAX_CAPACITY })
            }
            Err(error) => Err(RingError { socket, error }),
        }
    }

    /// Sets the largest capacity that the writer can make this process map, in bytes; 64 MiB at first. A larger ring is
    /// [`Error::TooLong`].
    ///
    /// It has no effect once the memory was taken. More than 1 GiB is the same as 1 GiB.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let _writer = ipc::RingWriter::new(pair.parent)?; // 256 KiB
    /// let mut reader = ipc::RingReader::new(pair.child)?;
    /// reader.set_max_capacity(64 << 10);
    /// let refused = reader.try_read(&mut [0; 16]);
    /// assert!(matches!(refused, Err(ipc::Error::TooLong { len: 262_144, max: 65_536 })));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn set_max_capacity(&mut self, bytes: usize) {
        self.max_capacity = bytes;
    }

    /// Reads the bytes that are there, without blocking. `Ok(0)` is EOF.
    ///
    /// The kernel may have no memory to wake a writer that sleeps (`ENOBUFS`). Then the next call wakes it.
    ///
    /// # Errors
    ///
    /// - [`Error::WouldBlock`]: there is nothing to read, and the writer is there, or has still to come.
    /// - [`Error::Malformed`]: the hello is wrong, its memory does not fit it, or the writer has written nonsense into the
    ///   shared memory.
    /// - [`Error::Truncated`]: the writer left in the middle of its hello.
    /// - [`Error::WrongKind`]: the descriptor that came with the hello is no sealed memory.
    /// - [`Error::TooLong`]: the ring is larger than [`set_max_capacity`](Self::set_max_capacity) allows.
    /// - [`Error::System`]: the memory could not be mapped (`ENOMEM`); or no descriptor is left for it (`EMFILE`), and then the
    ///   call can be made again.
    /// - [`Error::NotGiven`]: this process has a copy of the ring of another one.
    ///
    /// A fault of the hello, its memory or the counters stays: each later call returns the same error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let pair = ipc::stream_pair()?;
    /// let mut reader = ipc::RingReader::new(pair.parent)?;
    /// let mut writer = ipc::RingWriter::new(pair.child)?;
    /// let mut buf = [0; 16];
    /// assert!(matches!(reader.try_read(&mut buf), Err(ipc::Error::WouldBlock)));
    /// writer.write_all(b"now")?;
    /// assert_eq!(reader.try_read(&mut buf)?, 3);
    /// drop(writer);
    /// assert_eq!(reader.try_read(&mut buf)?, 0);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn try_read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.read_with(buf, || Patience::None)
    }

    /// Blocks until there is something to read, EOF (`Ok(0)`), or the time is up.
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals, and
    /// against any bytes of the peer. A peer can delay it by sending a descriptor whose last close takes long (a TCP socket
    /// with `SO_LINGER`), as this process closes it. From Linux 6.16 on, only a descriptor that was sent before this side read
    /// the hello can.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up, and nothing was read; and as [`try_read`](Self::try_read).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pair = ipc::stream_pair()?;
    /// let mut ring = ipc::RingReader::new(pair.parent)?;
    /// let late = ring.read_timeout(&mut [0; 16], Duration::from_millis(10));
    /// assert!(matches!(late, Err(ipc::Error::TimedOut)));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn read_timeout(&mut self, buf: &mut [u8], timeout: Duration) -> Result<usize> {
        self.read_with(buf, || Patience::timeout(timeout))
    }

    #[inline]
    fn read_with(&mut self, buf: &mut [u8], patience: impl Fn() -> Patience) -> Result<usize> {
        self.begin(buf.len(), &patience)?;
        Ok(self.take(buf, || patience().is_endless()))
    }

    /// Waits for something to read, if there is a place to put it.
    #[inline]
    fn begin(&mut self, len: usize, patience: impl FnOnce() -> Patience) -> Result<()> {
        self.half.check_process()?;
        if self.half.side.as_ref().is_some_and(|side| side.left() >= len) {
            return Ok(());
        }
        self.begin_late(len, patience)
    }

    /// The rest of [`begin`](Self::begin), if there is less than could be read as far as is known.
    #[inline(never)]
    fn begin_late(&mut self, len: usize, patience: impl FnOnce() -> Patience) -> Result<()> {
        self.half.check_fault()?;
        if len == 0 || self.half.look()? > 0 {
            return Ok(());
        }
        let patience = patience();
        if self.half.side.is_some() || self.open(patience)? {
            self.half.wait(patience)?;
        }
        Ok(())
    }

    /// Reads the bytes that are there.
    #[inline]
    fn take(&mut self, buf: &mut [u8], may_wait: impl Fn() -> bool) -> usize {
        let mut read = 0;
        // In pieces, so that the writer can go on while this side does.
        for piece in buf.chunks_mut(PIECE) {
            let Some(side) = &mut self.half.side else { break };
            let len = piece.len().min(side.left());
            if len == 0 {
                break;
            }
            side.words.take(side.position(), &mut piece[..len]);
            self.half.advance(len, &may_wait);
            read += len;
            if len < PIECE {
                break;
            }
        }
        read
    }

    /// Waits for the hello, and maps the memory that came with it. `false`: the writer left before.
    #[cold]
    fn open(&mut self, patience: Patience) -> Result<bool> {
        while !self.hello.is_whole() {
            if self.half.is_over {
                return self.hello.cut_short().map_or(Ok(false), |fault| Err(self.half.fail(fault)));
            }
            match self.hello.receive(self.half.socket.end()) {
                Ok(None) => {}
                Ok(Some(Cut::Over)) => self.half.is_over = true,
                Ok(Some(Cut::Lost(fault))) => return Err(self.half.fail(fault)),
                Err(Error::WouldBlock) => patience.sleep(self.half.socket.end(), POLLIN)?,
                Err(error) => return Err(error),
            }
        }
        match std::mem::take(&mut self.hello).map(self.max_capacity, self.half.epoch) {
            Ok(side) => {
                self.half.side = Some(side);
                Ok(true)
            }
            Err(fault) => Err(self.half.fail(fault)),
        }
    }

    /// Returns how many bytes can be read now. Never blocks.
    ///
    /// 0 may be EOF or not: [`try_read`](Self::try_read) tells.
    ///
    /// # Errors
    ///
    /// The same as [`try_read`](Self::try_read), but never [`Error::WouldBlock`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = ipc::stream_pair()?;
    /// let mut writer = ipc::RingWriter::new(pair.parent)?;
    /// let mut reader = ipc::RingReader::new(pair.child)?;
    /// writer.try_write(b"seven b")?;
    /// assert_eq!(reader.available()?, 7);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn available(&mut self) -> Result<usize> {
        self.half.check_process()?;
        self.half.check_fault()?;
        if self.half.side.is_none() {
            match self.open(Patience::None) {
                Ok(true) => {}
                Ok(false) | Err(Error::WouldBlock) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        self.half.look()
    }

    /// Lets blocking and `_timeout` calls look again for this long before they sleep; 20 µs at first, and zero for not at all.
    ///
    /// See [`RingWriter::set_spin`](crate::RingWriter::set_spin) for the cost, and for an example.
    pub fn set_spin(&mut self, spin: Duration) {
        self.half.set_spin(spin);
    }

    /// For [`wait_any`](crate::wait_any): ready when there is something to read, or EOF.
    ///
    /// The watch asks the writer for a wake-up, which costs the writer a system call at its next write. Make a new one for
    /// each wait. A wake-up may come for nothing: call [`try_read`](Self::try_read) after it. A broken ring is ready too, and
    /// that call returns the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let pair = ipc::stream_pair()?;
    /// let mut ring = ipc::RingReader::new(pair.parent)?;
    /// let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
    ///     ipc::RingWriter::new(socket)?.write_all(b"news")?;
    ///     Ok(())
    /// })?;
    /// let mut buf = [0; 16];
    /// let len = loop {
    ///     ipc::wait_any(&mut [ring.watch(), ipc::Watch::readable(&child)], None)?;
    ///     match ring.try_read(&mut buf) {
    ///         Err(ipc::Error::WouldBlock) => continue,
    ///         done => break done?,
    ///     }
    /// };
    /// assert_eq!(&buf[..len], b"news");
    /// # child.wait()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn watch(&mut self) -> Watch<'_> {
        let is_ready = self.arm();
        Watch::readable(&*self.half.socket).buffered(is_ready)
    }

    /// Asks to be rung for. Returns whether the ring is ready at once.
    pub(crate) fn arm(&mut self) -> bool {
        match self.available() {
            // The hello comes first, and wakes this side by itself.
            Ok(0) if self.half.side.is_none() => self.half.is_over,
            Ok(0) => self.half.watch(),
            _ => true,
        }
    }

    /// The socket that it is rung at.
    #[cfg(feature = "tokio")]
    pub(crate) fn bell(&self) -> &StreamSocket {
        &self.half.socket
    }

    /// Closes the end, and returns the kernel's error if there is one. Never blocks. Dropping closes too.
    ///
    /// Bytes that were not read are lost. The writer notices at its next write.
    ///
    /// # Errors
    ///
    /// The same as [`RingWriter::close`](crate::RingWriter::close).
    ///
    /// # Examples
    ///
    /// See [`RingReader`], where the writer closes.
    pub fn close(mut self) -> Result<()> {
        self.take_memory_to_leave();
        self.half.close()
    }

    /// A writer whose hello was not read yet learns of the end from the memory, as any other.
    fn take_memory_to_leave(&mut self) {
        let is_open = self.half.side.is_none() && !self.half.is_over && self.half.check_fault().is_ok();
        if is_open && self.half.check_process().is_ok() {
            let _ = self.open(Patience::None); // no call is left to return its error
        }
    }
}

impl Drop for RingReader {
    fn drop(&mut self) {
        self.take_memory_to_leave();
    }
}

/// Blocks until there is something to read, or the writer is gone. See [`RingReader`].
impl Read for RingReader {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(buf, || Patience::Blocking).map_err(Error::into_io)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = bufs.iter().fold(0, |len: usize, buf| len.saturating_add(buf.len()));
        self.begin(len, || Patience::Blocking).map_err(Error::into_io)?;
        let mut read = 0;
        for buf in bufs {
            let count = self.take(buf, || true);
            read += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(read)
    }
}

/// For a [`Deadline`](crate::Deadline), and for messages over a ring.
impl TimedRead for RingReader {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        self.read_with(buf, || until.0)
    }
}

impl fmt::Debug for RingReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingReader").field("socket", &*self.half.socket).finish_non_exhaustive()
    }
}
