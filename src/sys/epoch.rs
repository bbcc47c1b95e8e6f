//! The identity of this process, for one load. A value compares it to notice that a fork has copied it into a child.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

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
    /// `None`: the kernel does not wipe pages.
    fn new() -> Result<Option<Self>> {
        // Rounded up to a page. The kernel never maps at address 0 unless it is told to.
        let len = size_of::<u64>();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists. The advice applies to
        // that mapping alone.
        unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let start = rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE)?;
            let page = Self(NonNull::new(start.cast()).ok_or(Errno::NOMEM)?);
            match rustix::mm::madvise(start, len, Advice::LinuxWipeOnFork) {
                Ok(()) => Ok(Some(page)),
                Err(_) => {
                    let _ = rustix::mm::munmap(start, len); // cannot fail
                    Ok(None)
                }
            }
        }
    }

    fn number(&'static self) -> &'static AtomicU64 {
        // SAFETY: the page is mapped for good, readable, writable and aligned, and every access to it is through this atomic.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr()) }
    }
}

/// A count of forks, with the pid. It stands in for the page where the kernel wipes none, as in gVisor and in qemu-user.
mod counted {
    use super::{AtomicBool, AtomicU32, AtomicU64, Errno, Relaxed, Result, own_pid};

    /// Set in every number of this kind, and in none of a page.
    pub(super) const MARK: u64 = 1 << 63;

    /// In the page's place. No number is 0, so that a look at it always goes on to [`number`].
    pub(super) static NO_PAGE: AtomicU64 = AtomicU64::new(0);

    /// How many forks lie between this process and the one that registered the handler.
    static FORKS: AtomicU32 = AtomicU32::new(0);

    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

    pub(super) fn is_registered() -> bool {
        IS_REGISTERED.load(Relaxed)
    }

    /// Has libc count forks. Two threads may both register, which does no harm: a fork then counts twice. No lock is held, which a
    /// fork by another thread would leave locked in the child.
    pub(super) fn register() -> Result<()> {
        extern "C" fn count() {
            FORKS.fetch_add(1, Relaxed);
        }
        if !is_registered() {
            // SAFETY: the handler adds to an atomic, which is safe in the child of any fork.
            match unsafe { libc::pthread_atfork(None, None, Some(count)) } {
                0 => IS_REGISTERED.store(true, Relaxed),
                errno => return Err(Errno::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    /// The number of this process. A child of a raw clone(2), which runs no handlers, differs by its pid.
    pub(super) fn number() -> u64 {
        let pid = own_pid().as_raw_nonzero().get().unsigned_abs();
        (u64::from(FORKS.load(Relaxed)) << 32) | MARK | u64::from(pid)
    }
}

/// Returns whether the kernel was seen to wipe no page, so that forks are counted. It is that of a sandbox or an emulator.
pub(crate) fn is_counted() -> bool {
    counted::is_registered()
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
            None if counted::is_registered() => return Self::counted(),
            None => match Page::new()? {
                Some(page) => PAGE.get_or_init(|| page), // of two threads, one leaves a page behind
                None => return Self::counted(),
            },
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

    fn counted() -> Result<Self> {
        counted::register()?;
        Ok(Self { page: &counted::NO_PAGE, number: counted::number() })
    }

    /// Returns whether this is still the process that it was.
    #[inline]
    pub(crate) fn lasts(self) -> bool {
        self.page.load(Relaxed) == self.number || self.is_counted()
    }

    #[cold]
    #[inline(never)]
    fn is_counted(self) -> bool {
        self.number & counted::MARK != 0 && self.number == counted::number()
    }
}

/// A process, known again in those that it forks. Its number alone would not do: the first one of a pid namespace, and its
/// child that is the first of another, have the same.
pub(crate) struct Process {
    pid: Pid,
    /// Not where there is no memory for it.
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
