//! Memory for large values, which the socket that sends them uses again: making memory takes longer than copying into it.
//!
//! The receiver gets a descriptor that reads. It copies the value, and says so at the descriptor, whose flags both see.

use std::os::fd::AsFd;
use std::sync::Mutex;

use crate::end::End;
use crate::sys::epoch::Epoch;
use crate::sys::memfd::{self, REUSED};
use crate::sys::shared_memory::{self, page_size};
use crate::sys::{Errno, Result, is_refused};

/// The longest value that goes in a segment, in bytes.
pub(crate) const LONGEST: usize = 4 << 20;

/// The most that a socket keeps, in bytes.
const MOST: usize = 9 << 20;

/// How many segments it keeps at most. Each takes a descriptor.
const MANY: usize = 16;

/// A segment is a multiple of this, so that one serves for values of somewhat different lengths.
const STEP: usize = 64 << 10;

/// How many values in a row find all segments under way before those are given up: receivers that are gone give none back.
const MISSES: u32 = 64;

/// The segments of one sending socket. A clone of the socket has its own.
#[derive(Default)]
pub(crate) struct Segments(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Whether there was a large value before: one alone gets memory that nobody keeps.
    had_one: bool,
    /// Whether the kernel cannot do it.
    is_refused: bool,
    /// How many values in a row found all of the segments under way.
    misses: u32,
    /// The one that was sent first is at the front.
    segments: Vec<Segment>,
}

impl Kept {
    fn has_room_for(&self, capacity: usize) -> bool {
        let sum: usize = self.segments.iter().map(|segment| segment.memory.capacity()).sum();
        self.segments.len() < MANY && sum + capacity <= MOST
    }
}

/// A segment of memory with a value, or with what is left of one.
pub(crate) struct Segment {
    memory: shared_memory::Segment,
    /// The descriptor that the receiver has, or has had.
    lent: End,
    /// Whether it was sent. It is used again when the receiver has given it back.
    is_sent: bool,
}

impl Segments {
    /// A segment with these bytes. `None` for the first value, for one that is too long, and where no memory is to be had or all
    /// of it is under way.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Option<Segment> {
        if bytes.len() > LONGEST {
            return None;
        }
        let epoch = Epoch::now().ok()?;
        // Of two threads that are here at a time, one gets `None`.
        let mut kept = self.0.try_lock().ok()?;
        if !std::mem::replace(&mut kept.had_one, true) {
            kept.segments.reserve(MANY); // from here on, sending allocates nothing
            return None;
        }
        if kept.is_refused {
            return None;
        }
        // The child of a fork has the descriptors at most, and they are severed.
        kept.segments.retain(|segment| segment.memory.is_here());
        let mut segment = match kept.segments.iter().position(|segment| segment.is_free_for(bytes.len())) {
            Some(at) => {
                kept.misses = 0;
                kept.segments.remove(at).lend_again()?
            }
            None => {
                let capacity = (page_size() + bytes.len()).next_multiple_of(STEP) - page_size();
                if !kept.has_room_for(capacity) {
                    kept.segments.retain(|segment| !segment.is_free_for(0)); // those that were too short
                }
                if !kept.has_room_for(capacity) {
                    kept.misses += 1;
                    if kept.misses < MISSES {
                        return None;
                    }
                    // What is left of them is the receivers'.
                    kept.misses = 0;
                    kept.segments.clear();
                }
                drop(kept);
                Segment::new(capacity, epoch).inspect_err(|errno| self.note(*errno)).ok()?
            }
        };
        segment.memory.fill(bytes);
        Some(segment)
    }

    /// Notes that the kernel refuses what a segment needs, and is not asked for it at each value.
    #[cold]
    fn note(&self, errno: Errno) {
        if let Ok(mut kept) = self.0.try_lock() {
            kept.is_refused |= errno == Errno::INVAL || is_refused(errno);
        }
    }

    /// Keeps it, after it was sent or not. Other threads may have taken its place meanwhile.
    pub(crate) fn keep(&self, mut segment: Segment, is_sent: bool) {
        segment.is_sent = is_sent;
        if let Ok(mut kept) = self.0.try_lock() {
            if kept.has_room_for(segment.memory.capacity()) {
                kept.segments.push(segment);
            }
        }
    }
}

impl Segment {
    fn new(capacity: usize, epoch: Epoch) -> Result<Self> {
        let len = (page_size() + capacity) as u64;
        let memory = memfd::create(c"ipc-values")?;
        let lent = End::internal(memfd::lend(memory.as_fd())?);
        memfd::check_limit(len)?;
        memfd::allocate(memory.as_fd(), len)?;
        let mapped = shared_memory::Segment::map(memory.as_fd(), capacity, epoch)?;
        // The mapping was there before the seal, and is the only one that can be written to.
        memfd::seal(memory.as_fd(), REUSED)?;
        Ok(Self { memory: mapped, lent, is_sent: false })
    }

    fn is_free_for(&self, len: usize) -> bool {
        self.memory.capacity() >= len && (!self.is_sent || memfd::is_given_back(self.lent.as_fd()))
    }

    /// With a descriptor that nobody has had: whoever had the last one could say that this one is given back.
    fn lend_again(self) -> Option<Self> {
        if !self.is_sent {
            return Some(self);
        }
        let lent = End::internal(memfd::lend(self.lent.as_fd()).ok()?);
        Some(Self { lent, is_sent: false, ..self })
    }

    /// The descriptor that goes to the receiver.
    pub(crate) fn lent(&self) -> &End {
        &self.lent
    }
}
