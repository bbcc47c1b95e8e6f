//! Descriptors as such: closing, duplicating, and the inert one that takes a severed end's place.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::event::EventfdFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::Resource;

use super::inherited::was_open;
use super::{Errno, Result, errno};

/// Closes, and returns the kernel's error. Never retried: after `EINTR` the number is free already, and may be somebody
/// else's ([close(2)]).
///
/// [close(2)]: https://man7.org/linux/man-pages/man2/close.2.html
pub(crate) fn close(fd: OwnedFd) -> Result<()> {
    // SAFETY: `into_raw_fd` gives up the ownership, so this is the number's only owner closing it once.
    match unsafe { libc::close(fd.into_raw_fd()) } {
        0 => Ok(()),
        _ => match errno() {
            Errno::INTR => Ok(()),
            errno => Err(errno),
        },
    }
}

/// Sets close-on-exec.
pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)
}

/// Returns whether the number is open.
pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: borrowed for one call, which copes with a number that is not open.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}

/// A second descriptor of the same open file, close-on-exec, and never 0, 1 or 2.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
        // The limit is so low that no number from 3 on is allowed (fcntl.2). For the caller that is a full table.
        Err(Errno::INVAL) => Err(Errno::MFILE),
        done => done,
    }
}

/// The descriptor, or a copy of it in its place, at a number that is not 0, 1 or 2.
pub(crate) fn off_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate(fd.as_fd()) }
}

/// Returns the descriptor at a number that is not 0, 1 or 2, which `println!` and a started program would take for
/// something else. In a full table it takes the number of `place`, which was kept for it.
pub(crate) fn above_standard(fd: OwnedFd, place: Option<OwnedFd>) -> OwnedFd {
    if fd.as_raw_fd() > 2 {
        return fd;
    }
    match duplicate(fd.as_fd()) {
        Ok(above) => above,
        Err(_) => match place {
            Some(place) => {
                // SAFETY: `place` is owned here, and stands for nothing that anybody waits for.
                match unsafe { replace(place.as_raw_fd(), fd.as_fd()) } {
                    Ok(()) => place,
                    Err(_) => fd,
                }
            }
            None => fd,
        },
    }
}

/// Makes `target` stand for `source`, in the place of whatever it stood for. Allocates nothing.
///
/// # Safety
///
/// The owner of `target`, if it has one, must expect that it changes its meaning.
pub(super) unsafe fn put(source: RawFd, target: RawFd, flags: FdFlags) -> Result<()> {
    loop {
        let done = match flags.contains(FdFlags::CLOEXEC) {
            // SAFETY: it touches no memory. The caller answers for the descriptor that `target` was.
            true => unsafe { libc::dup3(source, target, libc::O_CLOEXEC) },
            // Some sandboxes have this one alone.
            // SAFETY: as above.
            false => unsafe { libc::dup2(source, target) },
        };
        if done >= 0 {
            return Ok(());
        }
        match errno() {
            // EBUSY: a race with an open() that is about to take the number (dup.2). It passes.
            Errno::INTR | Errno::BUSY => continue,
            errno => return Err(errno),
        }
    }
}

/// Puts a close-on-exec copy of `inert` in the place of the open descriptor `number`, whose owner keeps owning it.
///
/// # Safety
///
/// The owner of `number` must expect that it changes its meaning.
pub(super) unsafe fn replace(number: RawFd, inert: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { put(inert.as_raw_fd(), number, FdFlags::CLOEXEC) }
}

/// Descriptors at or over this number cannot be made, nor replaced.
pub(crate) fn table_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A descriptor that can be used for nothing: not read, written, sent to, opened through, or stood in.
///
/// It is an `O_PATH` descriptor, which the kernel refuses every operation on. Its file is an eventfd's, which has no path and no
/// directory above it, and cannot be opened again through /proc. A pipe's could be, and would lead back to the pipe.
///
/// Two descriptors: the inert one, and the eventfd itself, which holds a place in the table.
pub(crate) struct Inert {
    pub(crate) fd: OwnedFd,
    _place: Option<OwnedFd>,
}

impl Inert {
    pub(crate) fn new() -> Result<Self> {
        let Self { fd, _place: place } = Self::without_path().or_else(|_| Self::null())?;
        // Above 2, where neither `println!` nor a program would find it in the meantime.
        Ok(Self { fd: off_standard(fd)?, _place: place.map(off_standard).transpose()? })
    }

    /// Some sandboxes refuse open_tree, and a table with one free place has none for the eventfd. The usual /dev/null has a path,
    /// but is no directory that a path could lead out of.
    fn null() -> Result<Self> {
        let fd =
            rustix::fs::openat(CWD, c"/dev/null", OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        // Major 1, minor 3, on every machine (null.4).
        match is_device && stat.st_rdev == rustix::fs::makedev(1, 3) {
            true => Ok(Self { fd, _place: None }),
            false => Err(Errno::NODEV),
        }
    }

    /// Fails where no number could be replaced, as in a sandbox without dup3.
    pub(crate) fn check(&self) -> Result<()> {
        let raw = self.fd.as_raw_fd();
        // Onto itself it does nothing, and the kernel says so (dup.2). Not every libc asks the kernel.
        // SAFETY: integers; dup3 touches no memory.
        match unsafe { libc::syscall(libc::SYS_dup3, raw, raw, libc::O_CLOEXEC) } {
            -1 if errno() != Errno::INVAL => Err(errno()),
            _ => Ok(()),
        }
    }

    fn without_path() -> Result<Self> {
        let place = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        // SAFETY: open_tree reads the empty, nul-terminated string and nothing else.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_open_tree,
                place.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::O_CLOEXEC, // OPEN_TREE_CLOEXEC is O_CLOEXEC
            )
        };
        if raw < 0 {
            return Err(errno());
        }
        // SAFETY: the kernel just made it, so nobody else owns it. A descriptor fits an int.
        let fd = unsafe { std::os::fd::FromRawFd::from_raw_fd(raw as RawFd) };
        Ok(Self { fd, _place: Some(place) })
    }
}

/// Returns whether the number is that of an [`Inert`] descriptor, or of a copy. Such a descriptor is open for nothing, and
/// its file has no path or is a device, as `/dev/null` is. Fails if that cannot be told.
pub(crate) fn is_inert(number: RawFd) -> Result<bool> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: borrowed for calls that cope with a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    if !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::PATH) {
        return Ok(false);
    }
    let kind = rustix::fs::fstat(fd)?.st_mode & libc::S_IFMT;
    Ok(kind == 0 || kind == libc::S_IFCHR)
}

/// Returns whether the number is a copy of an [`Inert`] descriptor, and not a device that other code opened with `O_PATH`.
pub(super) fn is_copy_of_inert(number: RawFd) -> bool {
    // SAFETY: borrowed for calls that cope with a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let has_no_kind = || rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == 0);
    rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH)) && has_no_kind()
}

/// `FromRawFd`, whose one function is unsafe by its nature.
macro_rules! from_raw_fd {
    ($end:ident) => {
        #[allow(unsafe_code)]
        impl std::os::fd::FromRawFd for $end {
            /// Takes the descriptor over, and sets close-on-exec. Nothing is checked: `TryFrom<OwnedFd>` does.
            unsafe fn from_raw_fd(fd: std::os::fd::RawFd) -> Self {
                // SAFETY: the caller's promise: the number is open, and nobody else owns it.
                Self::adopt(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
            }
        }
    };
}
pub(crate) use from_raw_fd;

/// Returns whether the number is a descriptor that this process was started with, has that identity (of [fstat(2)]), and belongs
/// to no other code. It was open when the program started, and code that takes one over sets close-on-exec. A number that was too
/// large to be noted is checked by its identity alone.
///
/// [fstat(2)]: https://man7.org/linux/man-pages/man2/fstat.2.html
pub(crate) fn is_inherited(number: RawFd, device: u64, inode: u64) -> bool {
    if number <= 2 || was_open(number) == Some(false) {
        return false;
    }
    // SAFETY: borrowed for calls that cope with a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) && is_the_same(fd, device, inode)
}

/// Device and inode (of [fstat(2)]) of what the number stands for, if it stands for anything.
///
/// [fstat(2)]: https://man7.org/linux/man-pages/man2/fstat.2.html
pub(crate) fn identity(number: RawFd) -> Option<(u64, u64)> {
    if number < 0 {
        return None;
    }
    // SAFETY: borrowed for one call, which copes with a number that is not open.
    let stat = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Returns whether the descriptor has that identity.
pub(crate) fn is_the_same(fd: BorrowedFd<'_>, device: u64, inode: u64) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

/// Takes over an [inherited](is_inherited) descriptor, and sets close-on-exec before it has an owner: not every type does
/// so.
pub(crate) fn take_inherited(number: RawFd, device: u64, inode: u64) -> Result<Option<OwnedFd>> {
    if !is_inherited(number, device, inode) {
        return Ok(None);
    }
    // SAFETY: it is open, as was just seen.
    set_close_on_exec(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: it is open, and the parent left it here for the code that asks by its name. Code that asked before has set
    // close-on-exec, and the number is in the list of claimed ones.
    Ok(Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }))
}

/// Leaves a descriptor where it is, to be taken over later.
pub(crate) fn leave_inherited(fd: OwnedFd) {
    // An error would mean that the number is not open any more, and then there is nothing to leave.
    let _ = rustix::io::fcntl_setfd(&fd, FdFlags::empty());
    let _ = fd.into_raw_fd();
}

/// Returns whether two threads, by their numbers, share one table of descriptors. `false` if the kernel does not say ([kcmp(2)]).
///
/// [kcmp(2)]: https://man7.org/linux/man-pages/man2/kcmp.2.html
pub(crate) fn is_table_shared(one: u32, other: u32) -> bool {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: integers; kcmp touches no memory.
    unsafe { libc::syscall(libc::SYS_kcmp, one as libc::pid_t, other as libc::pid_t, KCMP_FILES, 0, 0) == 0 }
}

/// Opens `/dev/null` in place of standard input, output and error where they are closed. A file that is opened later would be
/// there otherwise, and get what is printed.
#[cfg(feature = "testing")]
pub(crate) fn fill_standard() -> Result<()> {
    for standard in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::io::fcntl_getfd(standard) == Err(Errno::BADF) {
            // The lowest number that is free, which is this one.
            std::mem::forget(rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?);
        }
    }
    Ok(())
}
