//! The memory in which a value's bytes are put together.

use std::cell::Cell;

use crate::error::Result;
use crate::socket::reserve;

/// The longest buffer that a thread keeps, in bytes.
const KEPT: usize = 4 << 20;

/// The shortest buffer, in bytes.
const SHORTEST: usize = 256;

thread_local! {
    /// This thread's buffer, while no call is using it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's buffer, lent to a call. It is taken out of its cell, so that a call within a call makes its own.
///
/// The bytes that are there are counted apart from those that may be written. So to append is one store of a constant length,
/// and one addition.
pub(super) struct Buffer {
    /// The bytes that were written, with older ones or zeroes after them.
    bytes: Vec<u8>,
    /// How many of them were written.
    len: usize,
}

impl Buffer {
    #[inline]
    pub(super) fn new() -> Self {
        Self { bytes: BUFFER.try_with(Cell::take).unwrap_or_default(), len: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The bytes from there on.
    pub(super) fn since(&mut self, start: usize) -> &mut [u8] {
        &mut self.bytes[start..self.len]
    }

    /// Appends the first `len` of these bytes. A copy of a constant length takes less time than one that is exact.
    #[inline]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N], len: usize) {
        // Read once: after the copy, the compiler would have to read it again.
        let start = self.len;
        let place = match self.bytes.get_mut(start..start + N) {
            Some(place) => place,
            None => self.lengthen(N),
        };
        place.copy_from_slice(&bytes);
        self.len = start + len;
    }

    /// Makes room for so many bytes more, and returns it.
    #[cold]
    #[inline(never)]
    fn lengthen(&mut self, more: usize) -> &mut [u8] {
        let end = self.len + more;
        self.bytes.resize(end.max(2 * self.bytes.len()).max(SHORTEST), 0);
        &mut self.bytes[self.len..end]
    }

    /// Appends all of these bytes.
    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                // Memory that is written at once is not zeroed first.
                self.bytes.truncate(self.len);
                self.bytes.extend_from_slice(bytes);
            }
        }
        self.len = end;
    }

    /// Appends so many bytes, to be written to, which may be older ones: an error where there is no memory for them.
    pub(super) fn try_lengthen(&mut self, more: usize) -> Result<&mut [u8]> {
        let (start, end) = (self.len, self.len.saturating_add(more));
        if end > self.bytes.len() {
            let missing = end - self.bytes.len();
            reserve(&mut self.bytes, missing)?;
            self.bytes.resize(end, 0);
        }
        self.len = end;
        Ok(&mut self.bytes[start..end])
    }

    /// Appends bytes that a peer decided on: an error where there is no memory for them.
    #[inline]
    pub(super) fn try_extend(&mut self, bytes: &[u8]) -> Result<()> {
        let missing = (self.len + bytes.len()).saturating_sub(self.bytes.len());
        reserve(&mut self.bytes, missing)?;
        self.extend(bytes);
        Ok(())
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if self.bytes.capacity() <= KEPT {
            // The cell is gone when the thread is ending.
            let _ = BUFFER.try_with(|cell| cell.set(std::mem::take(&mut self.bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, SHORTEST};

    #[test]
    fn what_was_written_stays_where_the_buffer_grows() {
        for before in SHORTEST - 9..=SHORTEST + 1 {
            let mut buffer = Buffer { bytes: Vec::new(), len: 0 };
            let mut expected = Vec::new();
            for byte in 0..before {
                buffer.put([byte as u8, 0xa5], 1);
                expected.push(byte as u8);
            }
            buffer.put([1, 2, 3, 4, 5, 6, 7, 8], 3);
            buffer.extend(&[9; 3 * SHORTEST]);
            buffer.put([10], 1);
            expected.extend_from_slice(&[1, 2, 3]);
            expected.extend_from_slice(&[9; 3 * SHORTEST]);
            expected.push(10);
            assert_eq!(buffer.as_slice(), expected);
            buffer.since(before).reverse();
            assert_eq!(buffer.as_slice().last(), Some(&1));
        }
    }

    #[test]
    fn a_message_has_nothing_of_the_one_before() {
        let mut buffer = Buffer::new();
        buffer.extend(&[7; 2 * SHORTEST]);
        drop(buffer);
        let mut buffer = Buffer::new();
        assert!(buffer.as_slice().is_empty());
        buffer.put([1, 2], 1);
        assert_eq!(buffer.as_slice(), [1]);
    }
}
