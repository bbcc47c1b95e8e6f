//! The numbers of this crate's ends, in one process-wide, lock-free bitmap. Others have the severed ends, those that no user
//! sees, and the sockets whose messages are marked, one for each mark.
//!
//! A bit is set after the descriptor exists and cleared before it is closed or handed on, so a set bit is always ours. Only
//! the bit of a severed end stays when its descriptor is handed on, and is looked at again before it is believed.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::Result;
use super::descriptor::{is_copy_of_inert, is_inert, replace};
use super::socket::Mark;

/// 64 descriptors.
#[derive(Default)]
struct Word {
    live: AtomicU64,
    /// Those of the live ones that belong to an end, and are none themselves.
    internal: AtomicU64,
    severed: AtomicU64,
    labelled: AtomicU64,
    timed: AtomicU64,
}

impl Word {
    fn unmark(&self, bit: u64) {
        self.labelled.fetch_and(!bit, SeqCst);
        self.timed.fetch_and(!bit, SeqCst);
    }
}

/// Block 0 holds the numbers below 1024, block n the 512 · 2ⁿ numbers from there on: 22 of them are all that there can
/// be. A block is made when the first end lands in it, and then stays.
static BLOCKS: [OnceLock<Box<[Word]>>; 22] = [const { OnceLock::new() }; 22];

const FIRST: usize = 1024;

/// Block, word and bit of a descriptor.
fn locate(fd: RawFd) -> (usize, usize, u64) {
    // Descriptors are never negative.
    let number = fd as u32 as usize;
    let block = (number / FIRST).checked_ilog2().map_or(0, |log| log as usize + 1);
    let within = number - start(block);
    (block, within / 64, 1 << (within % 64))
}

fn start(block: usize) -> usize {
    if block == 0 { 0 } else { FIRST << (block - 1) }
}

fn len(block: usize) -> usize {
    if block == 0 { FIRST } else { FIRST << (block - 1) }
}

fn find(fd: RawFd) -> Option<(&'static Word, u64)> {
    let (block, word, bit) = locate(fd);
    Some((&BLOCKS.get(block)?.get()?[word], bit))
}

/// The entry of one descriptor, struck out when it is dropped. Drop it before the descriptor.
#[derive(Debug)]
pub(crate) struct Entry(RawFd);

impl Entry {
    /// Enters a descriptor that is open.
    pub(crate) fn new(fd: RawFd) -> Self {
        let (block, word, bit) = locate(fd);
        let words = BLOCKS[block].get_or_init(|| (0..len(block) / 64).map(|_| Word::default()).collect());
        words[word].severed.fetch_and(!bit, SeqCst);
        words[word].internal.fetch_and(!bit, SeqCst);
        words[word].unmark(bit);
        words[word].live.fetch_or(bit, SeqCst);
        Self(fd)
    }

    /// Enters a descriptor that is no end, and that a child gets none of all the same.
    #[cfg(feature = "channel")]
    pub(crate) fn internal(fd: RawFd) -> Self {
        let entry = Self::new(fd);
        if let Some((word, bit)) = find(fd) {
            word.internal.fetch_or(bit, SeqCst);
        }
        entry
    }

    /// Enters the inert descriptor of a severed end, and a descriptor that was made an end again.
    pub(crate) fn severed(fd: RawFd) -> Self {
        let entry = Self::new(fd);
        sever(fd);
        entry
    }

    /// Notes that this is a socket whose messages the crate marks so, and not otherwise.
    pub(crate) fn note_marked(&self, mark: Mark) {
        let Some((word, bit)) = find(self.0) else { return };
        let (noted, other) = match mark {
            Mark::Label => (&word.labelled, &word.timed),
            Mark::Time => (&word.timed, &word.labelled),
        };
        noted.fetch_or(bit, SeqCst);
        other.fetch_and(!bit, SeqCst);
    }

    /// Strikes the entry out for a descriptor that goes on as a plain one. A severed one stays severed.
    pub(crate) fn leave(self) {
        let Self(fd) = self;
        let severed = is_severed(fd);
        drop(self);
        if let Some((word, bit)) = find(fd).filter(|_| severed) {
            word.severed.fetch_or(bit, SeqCst);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((word, bit)) = find(self.0) {
            word.live.fetch_and(!bit, SeqCst);
            word.severed.fetch_and(!bit, SeqCst);
            word.unmark(bit);
        }
    }
}

/// Returns whether this descriptor was an end that this process was not given. Allocates nothing and takes no lock.
pub(crate) fn is_severed(fd: RawFd) -> bool {
    let Some((word, bit)) = find(fd).filter(|(word, bit)| word.severed.load(SeqCst) & bit != 0) else { return false };
    // It may have been handed on as a plain descriptor and closed, and the number be another file's.
    let severed = is_inert(fd).unwrap_or(true);
    if !severed {
        word.severed.fetch_and(!bit, SeqCst);
    }
    severed
}

/// Returns whether this was an end that this process was not given, or is a copy of one. An open end costs no system call.
pub(crate) fn is_severed_or_copy(fd: RawFd) -> bool {
    is_severed(fd) || (!is_live(fd) && is_copy_of_inert(fd))
}

/// Returns whether this is an end of this crate that is open.
pub(crate) fn is_live(fd: RawFd) -> bool {
    find(fd).is_some_and(|(word, bit)| word.live.load(SeqCst) & bit != 0)
}

/// The mark of its messages, if this is an end of this crate that has one.
pub(crate) fn mark(fd: RawFd) -> Option<Mark> {
    let (word, bit) = find(fd)?;
    let is_set = |bits: &AtomicU64| bits.load(SeqCst) & bit != 0;
    // In this order, as one is noted before the other is struck out.
    match (is_set(&word.labelled), is_set(&word.timed)) {
        (_, true) => Some(Mark::Time),
        (true, false) => Some(Mark::Label),
        (false, false) => None,
    }
}

/// Notes that the descriptor is an inert one now.
fn sever(fd: RawFd) {
    if let Some((word, bit)) = find(fd) {
        word.live.fetch_and(!bit, SeqCst);
        word.unmark(bit);
        word.severed.fetch_or(bit, SeqCst);
    }
}

/// How many ends are open.
pub(crate) fn count() -> usize {
    live().filter(|number| find(*number).is_none_or(|(word, bit)| word.internal.load(SeqCst) & bit == 0)).count()
}

/// The ends that are open, and what is internal to one, in the order of their numbers. Allocates nothing and takes no lock.
pub(crate) fn live() -> impl Iterator<Item = RawFd> {
    let blocks = BLOCKS.iter().enumerate().filter_map(|(block, words)| Some((start(block), words.get()?)));
    let words = blocks.flat_map(|(start, words)| {
        words.iter().enumerate().map(move |(i, word)| (start + i * 64, word.live.load(SeqCst)))
    });
    words.filter(|(_, bits)| *bits != 0).flat_map(|(start, bits)| {
        (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| (start + bit) as RawFd)
    })
}

/// The ends that a child is not to have: all but the `given`, which are in order.
pub(crate) fn others(given: &[RawFd]) -> impl Iterator<Item = RawFd> {
    live().filter(|number| given.binary_search(number).is_err())
}

/// Takes every end but the `given` away from this process, which must be a child that was just forked. Allocates
/// nothing and takes no lock.
pub(crate) fn sever_others(given: &[RawFd], inert: BorrowedFd<'_>) -> Result<()> {
    others(given).try_for_each(|number| {
        // SAFETY: an end of this crate owns a live number, and every end expects to be severed. It owns a valid descriptor as
        // before, and asks here for the meaning of an EBADF.
        unsafe { replace(number, inert)? };
        sever(number);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::super::descriptor::Inert;
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        for number in [0, 63, 64, 1023, 1024, 2047, 2048, 4095, 4096, 1 << 20, (1 << 30) - 1, i32::MAX] {
            let (block, word, bit) = locate(number);
            assert!(word < len(block) / 64, "{number} is beyond its block");
            assert_eq!(start(block) + word * 64 + bit.trailing_zeros() as usize, number as usize);
        }
    }

    #[test]
    fn an_entry_is_seen_until_it_is_dropped() {
        // Numbers that no descriptor of the test process has.
        for number in [900, 1024, 70_000] {
            let entry = Entry::new(number);
            assert!(live().any(|fd| fd == number));
            assert_eq!(mark(number), None);
            for noted in [Mark::Label, Mark::Time, Mark::Label] {
                entry.note_marked(noted);
                assert_eq!(mark(number), Some(noted));
            }
            drop(entry);
            assert!(mark(number).is_none() && !live().any(|fd| fd == number));
        }
    }

    #[test]
    fn what_was_severed_stays_so_until_the_number_is_another_ones() {
        let inert = Inert::new().unwrap();
        let taken = std::fs::File::open("/dev/null").unwrap();
        let number = taken.as_raw_fd();
        let entry = Entry::new(number);
        sever(number);
        assert!(!is_severed(number), "it is open for something");
        // SAFETY: the test owns the number and expects that it changes its meaning.
        unsafe { replace(number, inert.fd.as_fd()).unwrap() };
        sever(number);
        assert!(is_severed(number) && !live().any(|fd| fd == number));
        entry.leave();
        assert!(is_severed(number), "as a plain descriptor");
        let entry = Entry::severed(number);
        assert!(is_severed(number) && !live().any(|fd| fd == number), "as an end again");
        drop(entry);
        assert!(!is_severed(number));
    }
}
