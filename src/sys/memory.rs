//! Memory for the part of a message that its receiver's buffer has no room for.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::Result;

/// More bytes than the largest message that the kernel builds on a unix socket: 17 pages and one piece. The piece is 4 MiB with
/// pages of 4 KiB. The kernel joins more of larger pages (`MAX_PAGE_ORDER`): to 32 MiB with 16 KiB, to 512 MiB with 64 KiB.
fn size(page: usize) -> usize {
    match page {
        0..=0x1000 => 8 << 20,
        0x1001..=0x4000 => 64 << 20,
        _ => 1 << 30,
    }
}

/// Where messages begin: in the middle of a page. A message is often some bytes longer than whole pages. At the beginning of a page,
/// the kernel would copy each of its own pages to an address some bytes after a page's beginning. Some processors take the reads
/// there for reads of what was just written, and wait. 64 KiB took 23 µs for that, instead of 15.
const START: usize = 2 << 10;

/// The most that stays resident between messages.
const KEEP: usize = 256 << 10;

/// Address space that costs memory only where a message was written to it: 8 MiB, or more where pages are large.
///
/// One for each thread that receives: two threads must not receive into the same.
pub(crate) struct Spill {
    start: NonNull<u8>,
    len: usize,
}

impl Spill {
    #[cold]
    #[inline(never)]
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: asks for a number. The page size is always known.
        let len = size(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        // The kernel never maps at address 0 unless it is told to.
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or(rustix::io::Errno::NOMEM)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long, readable, writable and zeroed by the kernel. It is ours alone, and
        // `&mut self` is the only way to it.
        let whole = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        &mut whole[START..]
    }

    /// Gives memory back to the kernel after `used` bytes were written, if that is much.
    pub(crate) fn trim(&mut self, used: usize) {
        if used > KEEP {
            // SAFETY: the range lies in our own mapping, which reads as zeroes afterwards; nothing borrows it now.
            // An error would only mean that the memory stays resident.
            let _ = unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontNeed) };
        }
    }
}

impl Drop for Spill {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, and nothing borrows it any more. Unmapping it cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::{START, size};

    #[test]
    fn there_is_room_for_the_largest_message_whatever_the_pages() {
        // Page and MAX_PAGE_ORDER, as arm64 has them.
        for (page, order) in [(4 << 10, 10), (16 << 10, 11), (64 << 10, 13)] {
            assert!(size(page) - START >= (page << order) + 17 * page, "pages of {page} bytes");
        }
    }
}
