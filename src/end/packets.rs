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
    let (start, given) = (buf.len(), buf.capacity());
    let mut end = start; // of what was read; from there on are zeroes
    let mut packet = [0; PACKET];
    let result = loop {
        if buf.len() - end < PACKET {
            // Much has come already. A vector that the caller made of the right size is not enlarged for EOF.
            if end - start >= PACKET && buf.capacity() - end < PACKET && buf.capacity() != given {
                buf.truncate(end);
                if buf.try_reserve(PACKET).is_err() {
                    break Err(io::ErrorKind::OutOfMemory.into());
                }
            }
            buf.resize(buf.capacity().min(end + AT_ONCE), 0);
        }
        let has_room = buf.len() - end >= PACKET;
        let room = if has_room { &mut buf[end..] } else { &mut packet[..] };
        match read(room) {
            Ok(0) => break Ok(end - start),
            Ok(count) => {
                if !has_room {
                    // The vector grows for bytes that arrived, and not for EOF.
                    buf.truncate(end);
                    if buf.try_reserve(count).is_err() {
                        break Err(io::ErrorKind::OutOfMemory.into());
                    }
                    buf.extend_from_slice(&packet[..count]);
                }
                end += count;
            }
            Err(error) => break Err(error),
        }
    };
    buf.truncate(end);
    result
}

/// The same into a string, which stays as it is where what was read is not UTF-8.
pub(crate) fn read_to_string(buf: &mut String, read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut bytes = Vec::new();
    let result = read_to_end(&mut bytes, read);
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
