//! Socket pairs: both ways, as whole messages.

mod datagram;

use std::cell::Cell;

pub use datagram::{DatagramFlags, DatagramPair, DatagramSocket, datagram_pair, datagram_pair_with};

use crate::sys::memory::Spill;
use crate::{Error, Result};

/// A process, and the user and group that it runs as, as the kernel vouches for them (`SO_PEERCRED`, unix.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The number of the process, as this process's pid namespace has it; 0 if it is not in there.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

thread_local! {
    /// This thread's [`Spill`], while no call is using it.
    static SPILL: Cell<Option<Spill>> = const { Cell::new(None) };
}

/// Lends the thread's spill to a call.
fn with_spill<T>(call: impl FnOnce(&mut Spill) -> Result<T>) -> Result<T> {
    // Taken out of its cell, so that a call within a call makes its own. The cell is gone when the thread is ending.
    let kept = SPILL.try_with(Cell::take).ok().flatten();
    let mut spill = match kept {
        Some(spill) => spill,
        None => Spill::new().map_err(|errno| Error::system("mmap", errno))?,
    };
    let result = call(&mut spill);
    // No cell to put it back into: then it is unmapped here.
    let _ = SPILL.try_with(|cell| cell.set(Some(spill)));
    result
}
