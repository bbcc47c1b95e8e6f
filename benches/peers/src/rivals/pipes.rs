//! Pipes of the standard library, `os_pipe` and `interprocess`. All of them are `Read` and `Write`, and nothing more.

use std::io::{self, BufReader, BufWriter, Read, Write};

use crate::channel::{Receiver, Sender};

use super::{Made, ended};

pub const STD_NOTE: &str = "`std::io::pipe`, `UnixStream::pair`, `UnixDatagram::pair`. \"+ BufWriter\" is `BufWriter` and \
                            `BufReader` with their usual 8 KiB, which is their best size over a pipe. Each read is as long as a \
                            write. \"framed by hand\" sends messages through these with a length of four bytes before each.";

pub const OS_PIPE_NOTE: &str = "`os_pipe::pipe`. It has no messages.";

pub const INTERPROCESS_NOTE: &str = "`unnamed_pipe::pipe`. Its `flush` is an fsync(2), which fails on a pipe, so it is not called. On Linux its local sockets are unix stream sockets with a name, for which \
                                     `UnixStream` stands here; it has no messages.";

pub fn std() -> Made<io::PipeReader, io::PipeWriter> {
    io::pipe()
}

pub fn std_buffered() -> Made<BufReader<io::PipeReader>, BufWriter<io::PipeWriter>> {
    let (reader, writer) = io::pipe()?;
    Ok((BufReader::new(reader), BufWriter::new(writer)))
}

pub fn os_pipe() -> Made<os_pipe::PipeReader, os_pipe::PipeWriter> {
    os_pipe::pipe()
}

pub fn interprocess() -> Made<interprocess::unnamed_pipe::Recver, Unflushed> {
    let (sender, receiver) = interprocess::unnamed_pipe::pipe()?;
    Ok((receiver, Unflushed(sender)))
}

/// The writer of `interprocess`, but for a `flush` that fails on every pipe.
pub struct Unflushed(interprocess::unnamed_pipe::Sender);

impl Write for Unflushed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages with their length before them, as one does it by hand.
pub struct Framed<T>(T);

pub fn framed_by_hand() -> Made<Framed<BufWriter<io::PipeWriter>>, Framed<BufReader<io::PipeReader>>> {
    let (reader, writer) = std_buffered()?;
    Ok((Framed(writer), Framed(reader)))
}

impl<W: Write> Sender for Framed<W> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(&(message.len() as u32).to_le_bytes())?;
        self.0.write_all(message)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<R: Read> Receiver for Framed<R> {
    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len)?;
        let message = buf.get_mut(..u32::from_le_bytes(len) as usize).ok_or_else(ended)?;
        self.0.read_exact(message)?;
        each(message);
        Ok(1)
    }
}
