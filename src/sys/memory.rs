//! Memory for the part of a message that its receiver's buffer has no room for.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::Result;

/// More than the largest message that the kernel builds on a unix socket: 4 MiB in one piece and 17 pages.
const SPILL: usize = 8 << 20;

/// What may stay resident between messages.
const KEEP: usize = 256 << 10;

/// Address space of 8 MiB that costs memory only where a message was written to it.
///
/// One for each thread that receives: two threads must not receive into the same.
pub(crate) struct Spill {
    start: NonNull<u8>,
}

impl Spill {
    #[cold]
    #[inline(never)]
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                SPILL,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        // The kernel never maps at address 0 unless it is told to.
        NonNull::new(start.cast()).map(|start| Self { start }).ok_or(rustix::io::Errno::NOMEM)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is SPILL bytes long, readable, writable and zeroed by the kernel, it is ours alone, and
        // `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), SPILL) }
    }

    /// Gives memory back to the kernel after `used` bytes were written, if that is much.
    pub(crate) fn trim(&mut self, used: usize) {
        if used > KEEP {
            // SAFETY: the range lies in our own mapping, which reads as zeroes afterwards; nothing borrows it now.
            // An error would only mean that the memory stays resident.
            let _ = unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), SPILL, Advice::LinuxDontNeed) };
        }
    }
}

impl Drop for Spill {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, and nothing borrows it any more. Unmapping it cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), SPILL) };
    }
}
