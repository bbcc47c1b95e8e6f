//! The stack of a new process, until its program runs.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::sys::{Errno, errno};

/// The steps take a few kilobytes of it; a hook may take more. Only touched pages take memory.
const SIZE: usize = 256 << 10;

/// A mapping of its own, with a page below it that nothing may touch.
pub(super) struct Stack {
    start: *mut c_void,
    len: usize,
}

impl Stack {
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: asks for a number. It is a power of two, or −1 where it is not known.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10);
        let len = SIZE.max(4 * page) + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, which overlaps no other. Through libc, which tells tools that watch memory.
        let start = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(errno());
        }
        let stack = Self { start, len };
        // SAFETY: the first page of the mapping above, which nobody uses yet.
        match unsafe { libc::mprotect(start, page, libc::PROT_NONE) } {
            0 => Ok(stack),
            _ => Err(errno()),
        }
    }

    /// The address at which it begins. It grows downwards from there, on every architecture that Rust runs Linux on.
    pub(super) fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping. It is aligned as a page is.
        unsafe { self.start.cast::<u8>().add(self.len).cast() }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made. The child that ran on it runs another program by now, or has left.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
