//! Bytes in memory that no process can change any more.

use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::memfd::{self, CONTENTS, Unfit};
use super::{Errno, Result};

/// A mapping of memory that is sealed against every change of its length and its contents.
pub(crate) struct Frozen {
    /// Dangling where there are none.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: bytes that nobody can change may be read by every thread; unmapping them is bound to no thread either.
unsafe impl Send for Frozen {}
// SAFETY: as above.
unsafe impl Sync for Frozen {}

impl Frozen {
    /// Looks at the seals itself, for all that the mapping promises rests on them.
    pub(crate) fn map(fd: BorrowedFd<'_>) -> std::result::Result<Self, Unfit> {
        let len = memfd::check(fd, CONTENTS, false)?;
        let too_long = |_| Unfit::Unknown("mmap", Errno::NOMEM);
        let len = usize::try_from(isize::try_from(len).map_err(too_long)?).unwrap_or_default();
        Self::map_sealed(fd, len).map_err(|errno| Unfit::Unknown("mmap", errno))
    }

    fn map_sealed(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // Private, as kernels before 6.7 refuse a shared mapping of memory that is sealed and open for writing. It is
        // never written to, so its pages stay those of the file.
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, fd, 0)? };
        // The kernel never maps at address 0 unless it is told to.
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is that long and readable, and lives as long as `self`. The seals keep its contents and its
        // length, so that no page goes away, also if others have the descriptor. An empty slice may dangle.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: our own mapping, whole, and nothing borrows it any more. Unmapping it cannot fail.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}
