//! Streams of bytes that carry messages. A stream of another kind joins here: it reads and writes [`Until`] a time,
//! closes, and says when reading is worth a try.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::batch::Outlet;
use crate::error::{Error, Result};
use crate::pipe::{BUFFER, PipeReader, PipeWriter};
use crate::ring::{self, RingReader, RingWriter};
use crate::socket::{PIECE, StreamSocket};
use crate::sys;
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::wait::{Spin, TimedRead, TimedWrite, Until, Watch};

/// The usual capacity of a pipe.
const USUAL_CAPACITY: usize = 64 << 10;

/// A stream that a [`MessageReader`](crate::MessageReader) reads from: a [`PipeReader`], a [`RingReader`], a [`StreamSocket`], a
/// [`UnixStream`] or a [`TcpStream`]. See [`MessageReader`](crate::MessageReader) for an example.
///
/// This trait is sealed: other crates cannot implement it.
#[diagnostic::on_unimplemented(
    message = "messages cannot be read from `{Self}`",
    note = "a `MessageReader` takes a `PipeReader`, a `RingReader`, a `StreamSocket`, a `UnixStream` or a `TcpStream`, without a buffer around it",
    note = "messages over a `DatagramSocket` are packed by a `PackedSocket`"
)]
pub trait ByteReader: Source {}

impl ByteReader for PipeReader {}
impl ByteReader for RingReader {}
impl ByteReader for StreamSocket {}
impl ByteReader for UnixStream {}
impl ByteReader for TcpStream {}

/// A stream that a [`MessageWriter`](crate::MessageWriter) writes to: a [`PipeWriter`], a [`RingWriter`], a [`StreamSocket`], a
/// [`UnixStream`] or a [`TcpStream`]. See [`MessageWriter`](crate::MessageWriter) for an example.
///
/// This trait is sealed: other crates cannot implement it.
#[diagnostic::on_unimplemented(
    message = "messages cannot be written to `{Self}`",
    note = "a `MessageWriter` takes a `PipeWriter`, a `RingWriter`, a `StreamSocket`, a `UnixStream` or a `TcpStream`, without a buffer around it",
    note = "messages over a `DatagramSocket` are packed by a `PackedSocket`"
)]
pub trait ByteWriter: Outlet + fmt::Debug {}

impl ByteWriter for PipeWriter {}
impl ByteWriter for RingWriter {}
impl ByteWriter for StreamSocket {}
impl ByteWriter for UnixStream {}
impl ByteWriter for TcpStream {}

/// The part of [`ByteReader`] that cannot be named outside this crate. [`Outlet`] is the one of [`ByteWriter`].
pub trait Source: TimedRead + fmt::Debug + Sized {
    /// How many bytes are read at a time. A buffer is never shorter.
    const READ: usize = 64 << 10;

    /// Ready when reading is worth a try.
    fn watch(&mut self) -> Result<Watch<'_>>;

    /// Closes it, and returns the kernel's error.
    fn close(self) -> Result<()>;
}

impl Source for PipeReader {
    fn watch(&mut self) -> Result<Watch<'_>> {
        Ok(Watch::readable(self))
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Outlet for PipeWriter {
    fn batch_size(&self) -> usize {
        BUFFER
    }

    fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
        self.write_some(bytes, until.0)
    }

    /// Enlarges an empty pipe of the usual size for a message that just does not fit. Otherwise the writer sleeps with the last
    /// bytes until the reader has emptied the pipe. A pipe with bytes in it has a slow reader, and more room would not help.
    fn make_room(&mut self, len: usize) -> bool {
        if len <= USUAL_CAPACITY || len > 2 * USUAL_CAPACITY {
            return false;
        }
        // Both questions take the pipe's lock, which a reader may hold: they are not asked with every message.
        let is_usual = matches!(self.capacity(), Ok(USUAL_CAPACITY));
        if is_usual && !matches!(sys::pipe::available(&*self), Ok(0)) {
            return false;
        }
        // The kernel refuses it where the user has too many pages in pipes. The message then takes longer.
        let _ = is_usual.then(|| self.set_capacity(2 * USUAL_CAPACITY));
        true
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Source for RingReader {
    /// The bytes are still in the first cache when they are received. A read makes no system call that longer ones would save.
    const READ: usize = ring::PIECE;

    fn watch(&mut self) -> Result<Watch<'_>> {
        Ok(self.watch())
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Outlet for RingWriter {
    /// A put makes no system call unless the reader sleeps, so that a batch saves less than the copy of a long message costs.
    const PAST: usize = 2 << 10;

    fn batch_size(&self) -> usize {
        ring::PIECE
    }

    fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
        self.write_until(bytes, until)
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Source for StreamSocket {
    fn watch(&mut self) -> Result<Watch<'_>> {
        Ok(Watch::readable(self))
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

impl Outlet for StreamSocket {
    /// As much as one system call takes.
    fn batch_size(&self) -> usize {
        PIECE
    }

    fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
        self.write_with(&bytes[..bytes.len().min(PIECE)], until.0)
    }

    fn close(self) -> Result<()> {
        self.close()
    }
}

/// The standard library's streams, whose settings are left alone. Here and for a [`Deadline`](crate::Deadline).
macro_rules! std_streams {
    ($($stream:ty: $batch:expr),*) => {$(
        impl TimedRead for $stream {
            fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
                let read = |wait| sys::socket::read(self.as_fd(), buf, wait);
                until.0.persist(self, &Spin::default(), "recv", POLLIN, None, read)
            }
        }

        impl TimedWrite for $stream {
            fn write_until(&mut self, buf: &[u8], until: Until) -> Result<usize> {
                let piece = &buf[..buf.len().min($batch)];
                let write = |wait| sys::socket::write(self.as_fd(), piece, wait);
                until.0.persist(self, &Spin::default(), "send", POLLOUT, None, write)
            }
        }

        impl Source for $stream {
            fn watch(&mut self) -> Result<Watch<'_>> {
                Ok(Watch::readable(self))
            }

            fn close(self) -> Result<()> {
                sys::descriptor::close(self.into()).map_err(|errno| Error::system("close", errno))
            }
        }

        impl Outlet for $stream {
            fn batch_size(&self) -> usize {
                $batch
            }

            fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
                match self.write_until(bytes, until) {
                    Err(Error::Reset) => Err(Error::Closed),
                    written => written,
                }
            }

            fn close(self) -> Result<()> {
                sys::descriptor::close(self.into()).map_err(|errno| Error::system("close", errno))
            }
        }
    )*};
}
std_streams!(UnixStream: PIECE, TcpStream: 2 * PIECE);
