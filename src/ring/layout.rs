//! The parts of a ring that both sides see: the hello, and the words of the first page. `docs/ring.md` has it byte by byte.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
use std::sync::atomic::{compiler_fence, fence};

use crate::sys::membarrier;
use crate::sys::shared_memory::{SharedMemory, page_size};

/// How long the hello is.
pub(super) const HELLO: usize = 32;

const MAGIC: [u8; 8] = *b"ipc ring";

const VERSION: u32 = 1;

/// The most that a ring holds.
pub(super) const LARGEST: usize = 1 << 30;

/// The bytes that go over the socket with the memory: magic, version, size of the first page, capacity, and room.
pub(super) fn hello(capacity: usize) -> [u8; HELLO] {
    let mut hello = [0; HELLO];
    hello[..8].copy_from_slice(&MAGIC);
    hello[8..12].copy_from_slice(&VERSION.to_le_bytes());
    hello[12..16].copy_from_slice(&(page_size() as u32).to_le_bytes());
    hello[16..24].copy_from_slice(&(capacity as u64).to_le_bytes());
    hello
}

/// The capacity that a hello tells, if it is one of this version and of a machine like this.
pub(super) fn capacity(told: &[u8; HELLO]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&told[16..24]);
    let capacity = u64::from_le_bytes(bytes);
    let alike = told[..16] == hello(0)[..16] && told[24..] == [0; 8];
    (alike && capacity.is_power_of_two() && capacity >= page_size() as u64).then_some(capacity)
}

/// The words of the first page, by their places. Each is on a pair of cache lines of its own, as processors fetch pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Word {
    /// How many bytes were written, since the beginning. The writer's.
    Head = 0,
    /// How many bytes were read. The reader's.
    Tail = 128,
    /// The state of the writer, in [`bits`].
    Writer = 256,
    /// The state of the reader.
    Reader = 384,
}

/// The state of a side.
pub(super) mod bits {
    /// It sleeps, or is about to: the side that moves its counter rings, and clears the bit.
    pub(in super::super) const WAITING: u64 = 1;
    /// It is done, and does nothing more.
    pub(in super::super) const CLOSED: u64 = 2;
    /// Its process takes part in the barriers of others.
    pub(in super::super) const REGISTERED: u64 = 4;
    /// It makes a barrier for both before it sleeps, so that the other side needs none.
    pub(in super::super) const BARS: u64 = 8;
    /// The core at which it last waited or rang, plus one; 0 where it does not say.
    pub(in super::super) const CORE: u64 = !0 << CORE_SHIFT;
    pub(in super::super) const CORE_SHIFT: u32 = 32;
}

/// The operations on the words: by [`SharedMemory`], and by the model that checks the protocol.
pub(super) trait Words {
    /// Returns the word. Everything that was done before its value was stored is visible then.
    fn load(&self, word: Word) -> u64;

    /// Stores a value. A process that loads it sees everything that was done before.
    fn store(&self, word: Word, value: u64);

    /// Clears bits, and returns the old value.
    fn clear(&self, word: Word, bits: u64) -> u64;

    /// A barrier for this thread alone.
    fn barrier(&self);

    /// No barrier for the processor: the other side makes one for both.
    fn no_barrier(&self);

    /// A barrier for both sides. `false`: it was refused.
    fn barrier_for_both(&self) -> bool;
}

impl Words for SharedMemory {
    #[inline(always)]
    fn load(&self, word: Word) -> u64 {
        self.word(word as usize).load(Acquire)
    }

    #[inline(always)]
    fn store(&self, word: Word, value: u64) {
        self.word(word as usize).store(value, Release);
    }

    fn clear(&self, word: Word, bits: u64) -> u64 {
        self.word(word as usize).fetch_and(!bits, AcqRel)
    }

    #[inline(always)]
    fn barrier(&self) {
        fence(SeqCst);
    }

    #[inline(always)]
    fn no_barrier(&self) {
        compiler_fence(SeqCst);
    }

    fn barrier_for_both(&self) -> bool {
        membarrier::everywhere()
    }
}
