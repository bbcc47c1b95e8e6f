//! A memory barrier that one side makes for both ([membarrier(2)]), so that the other, which is in a hurry, needs none.
//!
//! [membarrier(2)]: https://man7.org/linux/man-pages/man2/membarrier.2.html

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::thread::{MembarrierCommand, membarrier};

use super::epoch;

/// Whether this process has registered: not tried, done, refused. A forked child is registered as well.
static REGISTERED: AtomicU8 = AtomicU8::new(UNKNOWN);

const UNKNOWN: u8 = 0;
const DONE: u8 = 1;
const REFUSED: u8 = 2;

/// Asks the kernel to let every thread of this process take part in the barriers of others. Says whether it does; some
/// sandboxes refuse. Where no page is wiped, it is not asked: gVisor takes 13 ms for a barrier.
pub(crate) fn register() -> bool {
    match REGISTERED.load(Relaxed) {
        UNKNOWN => {
            let done = !epoch::is_counted() && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
            REGISTERED.store(if done { DONE } else { REFUSED }, Relaxed);
            done
        }
        state => state == DONE,
    }
}

/// A full barrier in this thread, and in every running thread of all processes that have registered. Says whether the kernel
/// made it.
pub(crate) fn everywhere() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}
