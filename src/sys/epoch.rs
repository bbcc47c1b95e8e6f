//! The identity of this process, for one load. A value compares it to notice that a fork has copied it into a child.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::Pid;

use super::process::own_pid;
use super::{Errno, Result};

/// A page that the kernel wipes in each child of a fork (`MADV_WIPEONFORK`, [madvise(2)]). It stays for as long as the process.
///
/// [madvise(2)]: https://man7.org/linux/man-pages/man2/madvise.2.html
struct Page(NonNull<u64>);

// SAFETY: the page is never unmapped, and is used as one atomic alone.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

static PAGE: OnceLock<Page> = OnceLock::new();

/// The last number that was given out, here or in a process that this one was forked from.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Page {
    fn new() -> Result<Self> {
        // Rounded up to a page. The kernel never maps at address 0 unless it is told to.
        let len = size_of::<u64>();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists. The advice applies to
        // that mapping alone.
        unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let start = rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE)?;
            let page = Self(NonNull::new(start.cast()).ok_or(Errno::NOMEM)?);
            match rustix::mm::madvise(start, len, Advice::LinuxWipeOnFork) {
                Ok(()) => Ok(page),
                Err(errno) => {
                    let _ = rustix::mm::munmap(start, len); // cannot fail
                    Err(errno)
                }
            }
        }
    }

    fn number(&'static self) -> &'static AtomicU64 {
        // SAFETY: the page is mapped for good, readable, writable and aligned, and every access to it is through this atomic.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr()) }
    }
}

/// This process, as long as it is the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    page: &'static AtomicU64,
    number: u64,
}

impl Epoch {
    pub(crate) fn now() -> Result<Self> {
        let page = match PAGE.get() {
            Some(page) => page,
            None => {
                let page = Page::new()?;
                PAGE.get_or_init(|| page) // of two threads, one leaves a page behind
            }
        };
        let page = page.number();
        let mut number = page.load(Relaxed);
        if number == 0 {
            let new = LAST.fetch_add(1, Relaxed) + 1;
            number = match page.compare_exchange(0, new, Relaxed, Relaxed) {
                Ok(_) => new,
                Err(others) => others,
            };
        }
        Ok(Self { page, number })
    }

    /// Returns whether this is still the process that it was.
    #[inline]
    pub(crate) fn lasts(self) -> bool {
        self.page.load(Relaxed) == self.number
    }
}

/// A process, known again in those that it forks. Its number alone would not do: the first one of a pid namespace, and its
/// child that is the first of another, have the same.
pub(crate) struct Process {
    pid: Pid,
    /// Not in sandboxes and emulators that do not know `MADV_WIPEONFORK`.
    epoch: Option<Epoch>,
}

impl Process {
    pub(crate) fn this() -> Self {
        Self { pid: own_pid(), epoch: Epoch::now().ok() }
    }

    pub(crate) fn is_this(&self) -> bool {
        self.epoch.map_or_else(|| self.pid == own_pid(), Epoch::lasts)
    }
}
