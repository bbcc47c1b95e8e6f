//! Which descriptors belong to this crate's ends: one process-wide, lock-free bitmap, and a second one for those that
//! were severed.
//!
//! A bit is set after the descriptor exists and cleared before it is closed or handed on, so a set bit is always ours.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::Result;
use super::descriptor::replace;

/// 64 descriptors.
#[derive(Default)]
struct Word {
    live: AtomicU64,
    severed: AtomicU64,
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
        words[word].live.fetch_or(bit, SeqCst);
        Self(fd)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((word, bit)) = find(self.0) {
            word.live.fetch_and(!bit, SeqCst);
            word.severed.fetch_and(!bit, SeqCst);
        }
    }
}

/// Whether this descriptor was an end that this process was not given.
pub(crate) fn is_severed(fd: RawFd) -> bool {
    find(fd).is_some_and(|(word, bit)| word.severed.load(SeqCst) & bit != 0)
}

/// Notes that the descriptor is an inert one now.
fn sever(fd: RawFd) {
    if let Some((word, bit)) = find(fd) {
        word.live.fetch_and(!bit, SeqCst);
        word.severed.fetch_or(bit, SeqCst);
    }
}

/// The ends that are open, in the order of their numbers. Allocates nothing and takes no lock.
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
        // SAFETY: a live number is owned by an end of this crate, and every end expects to be severed: it owns a valid
        // descriptor as before, and asks here what an EBADF means.
        unsafe { replace(number, inert)? };
        sever(number);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
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
            sever(number);
            assert!(is_severed(number) && !live().any(|fd| fd == number));
            drop(entry);
            assert!(!is_severed(number));
        }
    }
}
