//! Both sides of a ring in two threads, over one mapping. The two sides of a real ring have the memory at different addresses,
//! where ThreadSanitizer does not see that it is the same. Here it sees the bytes that the order of the words leaves open.
//!
//! It does not see all of them. Bytes that wrap are written through one half of the double mapping and may be read through the
//! other. ThreadSanitizer takes these for different addresses.

use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::thread;

use super::doorbell::Side;
use super::layout::{Word, Words};
use crate::sys::epoch::Epoch;
use crate::sys::memfd;
use crate::sys::shared_memory::{SharedMemory, page_size};

/// A second handle of the same mapping.
struct Twin(ManuallyDrop<SharedMemory>);

impl Words for Twin {
    fn load(&self, word: Word) -> u64 {
        self.0.load(word)
    }

    fn store(&self, word: Word, value: u64) {
        self.0.store(word, value);
    }

    fn clear(&self, word: Word, bits: u64) -> u64 {
        self.0.clear(word, bits)
    }

    fn barrier(&self) {
        self.0.barrier();
    }

    fn no_barrier(&self) {
        self.0.no_barrier();
    }

    fn barrier_for_both(&self) -> bool {
        self.0.barrier_for_both()
    }
}

/// Looks until this side can go on.
fn await_some<const WRITER: bool>(side: &mut Side<Twin, WRITER>) -> usize {
    loop {
        // In this order, so that moves before the close are seen.
        let is_over = side.is_other_closed();
        match side.look().expect("the other side's counter is where it can be") {
            0 if !is_over => thread::yield_now(),
            left => return left,
        }
    }
}

#[test]
fn two_threads_pass_bytes_through_one_mapping() {
    let capacity = page_size();
    let fd = memfd::create(c"threads").unwrap();
    memfd::allocate(fd.as_fd(), (page_size() + capacity) as u64).unwrap();
    let memory = SharedMemory::map(fd.as_fd(), capacity, Epoch::now().unwrap()).unwrap();
    let mut writer = Side::<_, true>::new(Twin(memory.twin()), capacity, false);
    let mut reader = Side::<_, false>::new(Twin(memory.twin()), capacity, false);
    let whole: Vec<u8> = (0..20 * capacity + 7).map(|at| at as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &whole[..];
            for most in (1..2000).cycle() {
                if rest.is_empty() {
                    break;
                }
                let len = await_some(&mut writer).min(most).min(rest.len());
                let at = writer.position();
                writer.words.0.put(at, &rest[..len]);
                let _ = writer.advance(len); // nobody sleeps
                rest = &rest[len..];
            }
            let _ = writer.close();
        });
        let (mut read, mut buf) = (Vec::new(), [0; 1000]);
        loop {
            let len = await_some(&mut reader).min(buf.len());
            if len == 0 {
                break;
            }
            let at = reader.position();
            reader.words.0.take(at, &mut buf[..len]);
            let _ = reader.advance(len);
            read.extend_from_slice(&buf[..len]);
        }
        assert!(read == whole);
    });
}
