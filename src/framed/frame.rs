//! The formats of many messages in one piece: each is its length and then its bytes. `docs/packed.md` has both formats in full.
//!
//! The functions here take a peer's bytes apart, and do nothing else.

use crate::error::{Error, Result};
use crate::socket::copied;

/// In front of each message: its length, little-endian.
pub(crate) const HEAD: usize = size_of::<u32>();

/// The size of a packed datagram in bytes, if the socket sends datagrams of that size.
pub(super) const PACK: usize = 32 << 10;

/// In a stream, stands for a length that follows in eight bytes more.
const LONG: u32 = u32::MAX;

/// The longest head, in bytes.
pub(crate) const LONGEST_HEAD: usize = HEAD + size_of::<u64>();

/// The first message of a pack, and what follows it. `None`: there is no whole one.
#[inline]
pub(crate) fn split(pack: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = pack.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*head) as usize)
}

/// Returns whether these bytes are a pack: one message or more, and nothing else.
pub(crate) fn is_pack(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((_, next)) = split(rest) {
        if next.is_empty() {
            return true;
        }
        rest = next;
    }
    false
}

/// The length of the head at the beginning of a stream's bytes, and of the message after it. `None`: more bytes are needed to
/// tell.
#[inline]
pub(crate) fn measure(stream: &[u8]) -> Option<(usize, u64)> {
    let (head, rest) = stream.split_first_chunk()?;
    match u32::from_le_bytes(*head) {
        LONG => Some((LONGEST_HEAD, u64::from_le_bytes(*rest.first_chunk()?))),
        len => Some((HEAD, len.into())),
    }
}

/// The head of a message in a stream: an array, and how much of it counts.
pub(crate) fn stream_head(len: usize) -> ([u8; LONGEST_HEAD], usize) {
    let mut head = [0; LONGEST_HEAD];
    let short = u32::try_from(len).ok().filter(|short| *short != LONG);
    head[..HEAD].copy_from_slice(&short.unwrap_or(LONG).to_le_bytes());
    head[HEAD..].copy_from_slice(&(len as u64).to_le_bytes());
    (head, if short.is_some() { HEAD } else { LONGEST_HEAD })
}

/// A pack that has arrived, as far as it was not received.
pub(crate) struct Pack {
    buf: Vec<u8>,
    next: usize,
    end: usize,
}

impl Pack {
    pub(crate) fn new(size: usize) -> Self {
        Self { buf: vec![0; size], next: 0, end: 0 }
    }

    /// The buffer for the next pack, once this one is empty.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Notes that the first `len` bytes of the buffer are the next datagram.
    pub(crate) fn fill(&mut self, len: usize) -> Result<()> {
        let datagram = &self.buf[..len];
        if !is_pack(datagram) {
            return Err(Error::Malformed { message: copied(datagram)? });
        }
        (self.next, self.end) = (0, len);
        Ok(())
    }

    /// Bytes that were not received.
    pub(crate) fn len(&self) -> usize {
        self.end - self.next
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// The next message. `None`: it is empty.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<&[u8]> {
        let (message, rest) = split(self.buf.get(self.next..self.end)?)?;
        self.next = self.end - rest.len();
        Some(message)
    }

    /// The same, which `take` copies. If that fails, the message stays.
    #[inline]
    pub(crate) fn take_by<T>(&mut self, take: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        let next = self.next;
        let taken = self.take().map(take).transpose();
        if taken.is_err() {
            self.next = next;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_whole_messages_and_nothing_else() {
        assert!(is_pack(&[0; 4]) && is_pack(&[0; 8]) && is_pack(b"\x01\0\0\0x") && is_pack(b"\0\0\0\0\x01\0\0\0x"));
        for bytes in
            [&b""[..], &[0], &[0; 3], &[0; 5], &[0xff; 4], &[0xff; 12], b"\x01\0\0\0", b"\x01\0\0\0xy", b"\x02\0\0\0x"]
        {
            assert!(!is_pack(bytes), "{bytes:?}");
        }
        assert_eq!(split(b"\x01\0\0\0xyz"), Some((&b"x"[..], &b"yz"[..])));
        assert_eq!(split(b"\x01\0\0\0"), None);
    }

    #[test]
    fn the_head_of_a_stream_says_what_was_put_into_it() {
        let most = u32::MAX as usize;
        for len in [0, 1, most - 1, most, most.saturating_add(1), usize::MAX] {
            let (head, count) = stream_head(len);
            assert_eq!(count, if len < most { HEAD } else { LONGEST_HEAD });
            assert_eq!(measure(&head[..count]), Some((count, len as u64)));
            for part in 0..count {
                assert_eq!(measure(&head[..part]), None, "{part} bytes of the head of {len}");
            }
        }
    }
}
