//! Reading to EOF from a pipe that may be one of packets. A writer makes any pipe one with `O_DIRECT`, as `dd oflag=direct`
//! does with its standard output. A read without room for a whole packet then throws its rest away.

use std::io;

/// The longest packet, in bytes: `PIPE_BUF`.
pub(crate) const PACKET: usize = 4096;

/// How many bytes one read asks for at most, where the vector has room for them.
const AT_ONCE: usize = 64 << 10;

/// Reads until EOF into a vector, behind what is in it. Each read has room for a packet.
pub(crate) fn read_to_end(
    buf: &mut Vec<u8>,
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut all = All::new(buf);
    while all.read(&mut read)? > 0 {}
    Ok(all.len())
}

/// The bytes that were read so far, behind those that were in a vector, and zeroes behind them. They are gone when this is dropped.
pub(crate) struct All<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
    /// The capacity that the vector had.
    given: usize,
    /// Of what was read.
    end: usize,
}

impl<'a> All<'a> {
    pub(crate) fn new(buf: &'a mut Vec<u8>) -> Self {
        let (start, given) = (buf.len(), buf.capacity());
        Self { buf, start, given, end: start }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Makes one read with room for a packet, and returns its number of bytes.
    #[inline]
    pub(crate) fn read<E: From<io::Error>>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        if self.buf.len() - self.end < PACKET {
            // Much has come already. A vector that the caller made of the right size is not enlarged for EOF.
            let is_full = self.buf.capacity() - self.end < PACKET && self.buf.capacity() != self.given;
            if self.len() >= PACKET && is_full {
                self.reserve(PACKET)?;
            }
            self.buf.resize(self.buf.capacity().min(self.end + AT_ONCE), 0);
        }
        if self.buf.len() - self.end >= PACKET {
            let count = read(&mut self.buf[self.end..])?;
            self.end += count;
            return Ok(count);
        }
        // The vector grows for bytes that arrived, and not for EOF.
        let mut packet = [0; PACKET];
        let count = read(&mut packet)?;
        self.reserve(count)?;
        self.buf.extend_from_slice(&packet[..count]);
        self.end += count;
        Ok(count)
    }

    fn reserve(&mut self, room: usize) -> io::Result<()> {
        self.buf.truncate(self.end);
        // Where there is no memory for twice as much, there may be some for these bytes, which have left the pipe.
        let reserved = self.buf.try_reserve(room).or_else(|_| self.buf.try_reserve_exact(room));
        reserved.map_err(|_| io::ErrorKind::OutOfMemory.into())
    }
}

impl Drop for All<'_> {
    fn drop(&mut self) {
        self.buf.truncate(self.end);
    }
}

/// The same into a string, which stays as it is where what was read is not UTF-8.
pub(crate) fn read_to_string(buf: &mut String, read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut bytes = Vec::new();
    let result = read_to_end(&mut bytes, read);
    append_text(buf, bytes, result)
}

/// Appends what was read with that result, if it is UTF-8.
pub(crate) fn append_text(buf: &mut String, bytes: Vec<u8>, result: io::Result<usize>) -> io::Result<usize> {
    match String::from_utf8(bytes) {
        Ok(text) if buf.capacity() == 0 => *buf = text,
        Ok(text) if buf.try_reserve(text.len()).is_ok() => buf.push_str(&text),
        Ok(_) => return result.and(Err(io::ErrorKind::OutOfMemory.into())),
        Err(_) => {
            let invalid = io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
            return result.and(Err(invalid));
        }
    }
    result
}
