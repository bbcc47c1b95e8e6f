//! The memory of a ring, which another process writes to at the same time, and may write anything to.
//!
//! No reference to the bytes ever exists. Words go through atomics, and a routine that the compiler cannot look into copies the
//! bytes. So a peer that writes meanwhile causes a wrong byte and nothing worse.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
#[cfg(feature = "channel")]
use std::sync::atomic::Ordering::Release;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::epoch::Epoch;
use super::{Errno, Result, retry};

/// The size of a page of this machine.
pub(crate) fn page_size() -> usize {
    // SAFETY: no conditions. Every system has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

/// Read anew for each copy, so that the compiler does not know what is called.
static COPY: Copy = libc::memcpy;

/// # Safety
///
/// Both places must be that long, and mapped. The bytes of the shared one may change all the time.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: a static of that type. The caller promises the rest.
    unsafe {
        let copy = (&raw const COPY).read_volatile();
        copy(to.cast(), from.cast(), len);
    }
}

/// One page for words, and after it the data, twice in a row, so that every piece of it is in one piece.
///
/// A child of a fork does not have the mapping.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    page: usize,
    /// Of the data: a power of two, but in a [`Segment`].
    capacity: usize,
    /// Of the mapping.
    whole: usize,
    epoch: Epoch,
}

// SAFETY: a mapping belongs to the process and not to a thread, and all access to it is atomic or a copy of raw bytes.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; what changes bytes takes `&mut self`.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps a file of one page and the data, whose length is sealed, and is `page_size() + capacity`.
    pub(crate) fn map(fd: BorrowedFd<'_>, capacity: usize, epoch: Epoch) -> Result<Self> {
        let page = page_size();
        let whole = capacity.checked_mul(2).and_then(|twice| twice.checked_add(page)).ok_or(Errno::NOMEM)?;
        if !capacity.is_power_of_two() || capacity < page {
            return Err(Errno::INVAL);
        }
        let pieces = [(0, 0, page + capacity), (page + capacity, page, capacity)];
        Self::map_pieces(fd, capacity, epoch, whole, &pieces)
    }

    /// Maps pieces of the file: each goes to a place, from a place in the file, and has a length.
    fn map_pieces(
        fd: BorrowedFd<'_>,
        capacity: usize,
        epoch: Epoch,
        whole: usize,
        pieces: &[(usize, usize, usize)],
    ) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags)?
        };
        // From here on it is unmapped if something fails. The kernel never maps at address 0 unless it is told to.
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let memory = Self { start, page: page_size(), capacity, whole, epoch };
        for &(at, from, len) in pieces {
            assert!(at + len <= whole, "within the mapping");
            let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
            // SAFETY: it takes the place of a part of the mapping that was just made and that nobody uses.
            unsafe { rustix::mm::mmap(memory.at(at).cast(), len, prot, flags, fd, from as u64)? };
        }
        // SAFETY: our own mapping. The child of a fork goes without it, and `Drop` and every user look at the epoch.
        unsafe { rustix::mm::madvise(memory.at(0).cast(), whole, Advice::LinuxDontFork)? };
        Ok(memory)
    }

    /// Takes all its memory: missing memory is `ENOMEM` here, and no `SIGBUS` later.
    ///
    /// [fallocate(2)] would wait for the lock of the file. The peer can hold that for as long as it likes, in a `write` whose
    /// bytes do not come ([userfaultfd(2)]). Not even `SIGKILL` ends the wait. Touching the pages needs no lock.
    ///
    /// [fallocate(2)]: https://man7.org/linux/man-pages/man2/fallocate.2.html
    /// [userfaultfd(2)]: https://man7.org/linux/man-pages/man2/userfaultfd.2.html
    pub(crate) fn populate(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let len = self.page + self.capacity;
        // SAFETY: our own mapping, whose pages are looked at and not changed.
        match retry(|| unsafe { rustix::mm::madvise(self.at(0).cast(), len, Advice::LinuxPopulateRead) }) {
            Err(Errno::INVAL) => populate_by_mapping(fd, len), // before Linux 5.14
            Err(Errno::FAULT) => Err(Errno::NOMEM),            // a look would be a SIGBUS
            populated => populated,
        }
    }

    /// A second handle of the same mapping, which does not unmap it.
    #[cfg(test)]
    pub(crate) fn twin(&self) -> std::mem::ManuallyDrop<Self> {
        let Self { start, page, capacity, whole, epoch } = *self;
        std::mem::ManuallyDrop::new(Self { start, page, capacity, whole, epoch })
    }

    #[inline(always)]
    fn at(&self, offset: usize) -> *mut u8 {
        self.start.as_ptr().wrapping_add(offset)
    }

    /// A word of the first page, by its place in bytes.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= 4096, "no page is smaller");
        // SAFETY: aligned, mapped as long as `self`, and outside of all memory that Rust knows. Both processes access it through
        // atomics. A peer that does not harms only itself: a word of any value is valid.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    /// Where the data at that position of the stream begin.
    #[inline(always)]
    fn place(&self, position: u64, len: usize) -> *mut u8 {
        assert!(len <= self.capacity, "no more than there is");
        // In bounds: the data are there twice, so that `capacity` bytes follow any place in the first half. In a segment they are
        // there once, and the position is 0.
        self.at(self.page + (position as usize & (self.capacity - 1)))
    }

    /// Copies bytes in, at that position of the stream.
    #[inline(always)]
    pub(crate) fn put(&mut self, position: u64, bytes: &[u8]) {
        // SAFETY: that many bytes are mapped there, and are no memory that Rust knows. So they do not overlap with `bytes`.
        unsafe { copy(self.place(position, bytes.len()), bytes.as_ptr(), bytes.len()) };
    }

    /// Copies bytes out, from that position of the stream.
    #[inline(always)]
    pub(crate) fn take(&mut self, position: u64, buf: &mut [u8]) {
        // SAFETY: as for `put`, the other way round.
        unsafe { copy(buf.as_mut_ptr(), self.place(position, buf.len()), buf.len()) };
    }
}

/// The same with the data once. All of them are written at a time, from their beginning.
#[cfg(feature = "channel")]
pub(crate) struct Segment(SharedMemory);

#[cfg(feature = "channel")]
impl Segment {
    /// Maps a file of one page and the data, whose length is sealed, and is `page_size() + capacity`.
    pub(crate) fn map(fd: BorrowedFd<'_>, capacity: usize, epoch: Epoch) -> Result<Self> {
        let whole = page_size().checked_add(capacity).ok_or(Errno::NOMEM)?;
        SharedMemory::map_pieces(fd, capacity, epoch, whole, &[(0, 0, whole)]).map(Self)
    }

    /// Copies bytes to the beginning of the data, and stores their number in the first word.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.0.put(0, bytes); // position 0: the data are not looked for in their second half, which is not there
        self.0.word(0).store(bytes.len() as u64, Release);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Returns whether this is still the process that mapped it.
    pub(crate) fn is_here(&self) -> bool {
        self.0.epoch.lasts()
    }
}

/// Takes the pages of a file by a mapping that is populated as it is made, which waits for no lock of the file either. It does
/// not fail where a page cannot be had, so the file is asked.
///
/// A peer can make a file count pages that lie behind its end. It can also punch a hole later, which is the same to this side.
fn populate_by_mapping(fd: BorrowedFd<'_>, len: usize) -> Result<()> {
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses, and which is gone again.
    unsafe {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let start = rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, fd, 0)?;
        rustix::mm::munmap(start, len)?;
    }
    let there = u64::try_from(rustix::fs::fstat(fd)?.st_blocks).unwrap_or(0).saturating_mul(512);
    if there < len as u64 { Err(Errno::NOMEM) } else { Ok(()) }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        if self.epoch.lasts() {
            // SAFETY: our own mapping, whole, that nothing borrows any more. This is the process that made it: a child does not have
            // it, and may have something else there. Unmapping it cannot fail.
            let _ = unsafe { rustix::mm::munmap(self.at(0).cast(), self.whole) };
        }
    }
}
