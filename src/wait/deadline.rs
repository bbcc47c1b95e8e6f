//! An end that is read and written until a deadline, with the methods of `Read`, `Write` and `BufRead`.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::Patience;
use crate::end::packets;
use crate::error::{Error, Result};

/// An end whose [`Read`] and [`Write`] wait no longer than until a deadline.
///
/// The `_timeout` calls of an end return at the first progress. A line, `read_exact` or `write_all` takes several reads or
/// writes, and needs one deadline for all of them. Put the end into a `Deadline`, and use std's methods. For lines, put a
/// [`BufReader`](std::io::BufReader) in front of it.
///
/// A call that is out of time fails with [`TimedOut`](io::ErrorKind::TimedOut). Set a new deadline and go on from where it
/// stopped:
///
/// | call | progress before it failed |
/// |---|---|
/// | `read`, `write` | none |
/// | `read_exact` | at the front of the buffer; [`bytes_read`](Self::bytes_read) counts it |
/// | `read_to_end`, [`BufRead::read_until`](std::io::BufRead::read_until) | in the vector; the next call appends to it |
/// | `read_line`, `read_to_string` | in the string, but **lost** if it ends inside a character |
/// | `lines`, `split` | a line that is not whole is **lost** |
/// | `write_all`, `write!` | [`written`](Self::written) counts it |
///
/// It takes an end, or a reference to one: [`PipeReader`](crate::PipeReader), [`PipeWriter`](crate::PipeWriter) or
/// [`StreamSocket`](crate::StreamSocket). It also takes a [`RingReader`](crate::RingReader), a
/// [`RingWriter`](crate::RingWriter), and std's [`UnixStream`](std::os::unix::net::UnixStream) and
/// [`TcpStream`](std::net::TcpStream), or `&mut` of one. A read or a write looks at least once; after 64 of them under one deadline,
/// it does not. The deadline holds across signals, and `O_NONBLOCK` is left alone.
///
/// In the guide: [deadlines](crate::guide::deadlines).
///
/// # Errors
///
/// Those of the end's `_timeout` calls, as an [`io::Error`]; `?` turns it back into the [`Error`].
///
/// # Examples
///
/// One line within a time, for as many reads as it takes:
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use std::time::Duration;
///
/// let (reader, mut writer) = ipc::pipe()?;
/// writer.write_all(b"a line\nhalf a")?;
///
/// let mut lines = BufReader::new(ipc::Deadline::after(reader, Duration::from_secs(5)));
/// let mut line = Vec::new();
/// lines.read_until(b'\n', &mut line)?;
/// assert_eq!(line, b"a line\n");
///
/// lines.get_mut().set_after(Duration::from_millis(10));
/// line.clear();
/// let late = lines.read_until(b'\n', &mut line).unwrap_err();
/// assert_eq!(late.kind(), std::io::ErrorKind::TimedOut);
///
/// writer.write_all(b" line\n")?;
/// lines.get_mut().set_after(Duration::from_secs(5));
/// lines.read_until(b'\n', &mut line)?;
/// assert_eq!(line, b"half a line\n"); // nothing was lost
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "write_all_timeout")]
#[doc(alias = "read_line_timeout")]
#[doc(alias = "read_exact_timeout")]
#[doc(alias = "read_to_end_timeout")]
#[derive(Debug)]
pub struct Deadline<T> {
    end: T,
    /// `None`: too far for the clock.
    deadline: Option<Instant>,
    read: u64,
    written: u64,
    /// Reads and writes since the deadline was set.
    steps: usize,
}

impl<T> Deadline<T> {
    /// Puts an end under a deadline. See [`bytes_read`](Self::bytes_read) for an example.
    #[must_use]
    pub fn at(end: T, deadline: Instant) -> Self {
        Self { end, deadline: Some(deadline), read: 0, written: 0, steps: 0 }
    }

    /// Puts an end under a deadline that is `timeout` from now. [`Duration::MAX`] waits for ever. See [`Deadline`] for an
    /// example.
    #[must_use]
    pub fn after(end: T, timeout: Duration) -> Self {
        Self { end, deadline: Instant::now().checked_add(timeout), read: 0, written: 0, steps: 0 }
    }

    /// Sets another deadline. The counters go on. See [`bytes_read`](Self::bytes_read) for an example.
    pub fn set_at(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.steps = 0;
    }

    /// Sets another deadline, `timeout` from now. [`Duration::MAX`] waits for ever. The counters go on. See [`Deadline`] for an
    /// example.
    pub fn set_after(&mut self, timeout: Duration) {
        self.deadline = Instant::now().checked_add(timeout);
        self.steps = 0;
    }

    /// Returns how many bytes were read through this value, in all.
    ///
    /// A [`BufReader`](std::io::BufReader) around it has taken all of them, and still holds
    /// [`buffer().len()`](std::io::BufReader::buffer) of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::time::{Duration, Instant};
    ///
    /// let (reader, mut writer) = ipc::pipe()?;
    /// writer.write_all(b"half")?;
    /// let mut timed = ipc::Deadline::at(reader, Instant::now() + Duration::from_millis(10));
    /// let mut record = [0; 8];
    /// assert!(timed.read_exact(&mut record).is_err()); // too late for the rest
    ///
    /// writer.write_all(b"past")?;
    /// timed.set_at(Instant::now() + Duration::from_secs(5));
    /// let so_far = timed.bytes_read() as usize;
    /// timed.read_exact(&mut record[so_far..])?;
    /// assert_eq!(&record, b"halfpast");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Returns how many bytes were written through this value, in all.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use std::time::Duration;
    ///
    /// let (_reader, writer) = ipc::pipe()?;
    /// let data = vec![7; 1 << 20];
    /// let mut timed = ipc::Deadline::after(writer, Duration::from_millis(10));
    /// assert!(timed.write_all(&data).is_err()); // nobody reads
    /// let rest = &data[timed.written() as usize..];
    /// assert!(!rest.is_empty() && rest.len() < data.len());
    ///
    /// assert!(!timed.get_ref().is_closed()?);
    /// timed.get_mut().set_max_write(4096);
    /// let writer = timed.into_inner(); // the deadline is gone
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the end. See [`written`](Self::written) for an example.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.end
    }

    /// Returns the end. Its own calls ignore the deadline, and are not counted. See [`written`](Self::written) for an
    /// example.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.end
    }

    /// Gives the end back. See [`written`](Self::written) for an example.
    pub fn into_inner(self) -> T {
        self.end
    }

    /// For the next read or write. Each looks at least once; one of many does not, where the time is up. A peer that always has
    /// a byte more would keep `read_to_end` for ever.
    fn next(&mut self) -> Result<Until> {
        let patience = self.deadline.map_or(Patience::Endless, Patience::Until);
        patience.after_steps(self.steps)?;
        self.steps = self.steps.saturating_add(1);
        Ok(Until(patience))
    }
}

impl<T: TimedRead> Read for Deadline<T> {
    /// Blocks until there is something to read, EOF comes, or the time is up.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let until = self.next().map_err(Error::into_io)?;
        let read = self.end.read_until(buf, until).map_err(Error::into_io)?;
        self.read += read as u64;
        Ok(read)
    }

    /// Reads until the buffer is full. If that fails, [`bytes_read`](Self::bytes_read) counts the bytes at its front.
    fn read_exact(&mut self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read(buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => buf = &mut buf[read..],
            }
        }
        Ok(())
    }

    /// Loses nothing of a pipe of packets, which a writer makes with `O_DIRECT`.
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        packets::read_to_end(buf, |buf| self.read(buf))
    }

    /// Loses nothing of a pipe of packets, which a writer makes with `O_DIRECT`.
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        packets::read_to_string(buf, |buf| self.read(buf))
    }
}

impl<T: TimedWrite> Write for Deadline<T> {
    /// Blocks until there is room or the time is up, and writes as many bytes as fit.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let until = self.next().map_err(Error::into_io)?;
        let written = self.end.write_until(buf, until).map_err(Error::into_io)?;
        self.written += written as u64;
        Ok(written)
    }

    /// Does nothing: the bytes that `write` took are on their way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long a call may wait. Only this crate can make one.
#[derive(Clone, Copy, Debug)]
pub struct Until(pub(crate) Patience);

/// An end that can be read until a [`Deadline`]: [`PipeReader`](crate::PipeReader), [`StreamSocket`](crate::StreamSocket),
/// references to them, [`RingReader`](crate::RingReader), and std's streams. See [`Deadline`] for an example.
///
/// Do not implement it elsewhere: its method may change.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read until a deadline",
    note = "`Deadline` takes the bare end; what has a buffer goes around it: `BufReader::new(Deadline::after(reader, timeout))`"
)]
pub trait TimedRead {
    #[doc(hidden)]
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize>;
}

/// An end that can be written until a [`Deadline`]: [`PipeWriter`](crate::PipeWriter), [`StreamSocket`](crate::StreamSocket),
/// references to them, [`RingWriter`](crate::RingWriter), and std's streams. See [`Deadline`] for an example.
///
/// Do not implement it elsewhere: its method may change.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written until a deadline",
    note = "`Deadline` takes the bare end; what has a buffer goes around it: `BufWriter::new(Deadline::after(writer, timeout))`"
)]
pub trait TimedWrite {
    #[doc(hidden)]
    fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize>;
}

/// For an end that is kept: [`Deadline::after`]`(&mut ring, …)`.
impl<T: TimedRead> TimedRead for &mut T {
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        (**self).read_until(buf, until)
    }
}

/// For an end that is kept: [`Deadline::after`]`(&mut ring, …)`.
impl<T: TimedWrite> TimedWrite for &mut T {
    fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
        (**self).write_until(buf, until)
    }
}
