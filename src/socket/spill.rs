//! Memory of a thread for the part of a message that its receiver's buffer has no room for.

use std::cell::Cell;

use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::memory::Spill;

thread_local! {
    /// This thread's [`Spill`], while no call is using it.
    static SPILL: Cell<Option<Spill>> = const { Cell::new(None) };
}

/// The thread's spill, lent to a call. There until it is dropped.
pub(super) struct Lent(Option<Spill>);

impl Lent {
    /// It is taken out of its cell, so that a call within a call makes its own. The cell is gone when the thread is ending.
    #[inline]
    pub(super) fn new() -> Result<Self> {
        let spill = match SPILL.try_with(Cell::take) {
            Ok(Some(spill)) => spill,
            _ => Spill::new().map_err(|errno| Error::system("mmap", errno))?,
        };
        Ok(Self(Some(spill)))
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], Spill::as_mut_slice)
    }

    /// Hands out the first bytes, which were received there, and gives memory back if they were many.
    #[inline(never)]
    pub(super) fn take<T>(&mut self, len: usize, take: impl FnOnce(&[u8]) -> T) -> T {
        let taken = take(&self.as_mut_slice()[..len]);
        self.0.iter_mut().for_each(|spill| spill.trim(len));
        taken
    }

    /// [Appends](append) the first bytes, which were received there.
    pub(super) fn append_to(&mut self, message: &mut Vec<u8>, len: usize) -> Result<()> {
        self.take(len, |bytes| append(message, bytes))
    }
}

/// Appends bytes that a sender decides on: an error where there is no memory for them.
#[inline]
pub(crate) fn append(message: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    reserve(message, bytes.len())?;
    message.extend_from_slice(bytes);
    Ok(())
}

/// A copy of bytes that a peer decided on: an error where there is no memory for it.
pub(crate) fn copied(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    append(&mut copy, bytes).map(|()| copy)
}

#[inline]
pub(crate) fn reserve(message: &mut Vec<u8>, room: usize) -> Result<()> {
    message.try_reserve(room).map_err(|_| Error::system("malloc", Errno::NOMEM))
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        // No cell to put it back into: then it is unmapped here.
        let _ = SPILL.try_with(|cell| cell.set(self.0.take()));
    }
}
