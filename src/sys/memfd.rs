//! Memory with a descriptor ([memfd_create(2)]), and the seals that say what can still become of it.
//!
//! [memfd_create(2)]: https://man7.org/linux/man-pages/man2/memfd_create.2.html

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};

use super::descriptor::off_standard;
use super::{Errno, Result, retry};

/// Its length stays what it is.
pub(crate) const LENGTH: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Every byte of it stays what it is.
pub(crate) const CONTENTS: SealFlags = LENGTH.union(SealFlags::WRITE);

/// Its length stays, and nobody can write to it but through a mapping that was there before the seal. Linux 5.1.
#[cfg(feature = "channel")]
pub(crate) const REUSED: SealFlags = LENGTH.union(SealFlags::FUTURE_WRITE);

/// `f_type` of what memfd_create makes of pages of the usual size ([statfs(2)]).
///
/// [statfs(2)]: https://man7.org/linux/man-pages/man2/statfs.2.html
const TMPFS_MAGIC: u32 = 0x0102_1994;

/// How many bytes one call allocates. A signal interrupts the call, which then undoes its work.
const STEP: u64 = 128 << 10;

/// New, empty memory that can be sealed, close-on-exec. The name is for those who look into `/proc`.
pub(crate) fn create(name: &CStr) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?, // before Linux 6.3
        created => created?,
    };
    off_standard(fd)
}

/// Fails with `EFBIG` if this process may not make files that long (`RLIMIT_FSIZE`, [getrlimit(2)]). The kernel would raise
/// `SIGXFSZ`, which ends the process.
///
/// [getrlimit(2)]: https://man7.org/linux/man-pages/man2/getrlimit.2.html
pub(crate) fn check_limit(len: u64) -> Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if most.is_some_and(|most| len > most) { Err(Errno::FBIG) } else { Ok(()) }
}

/// Makes it that long, with all its memory there: missing memory is `ENOMEM` here, and no `SIGBUS` later.
pub(crate) fn allocate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    (0..len).step_by(STEP as usize).try_for_each(|start| {
        let len = STEP.min(len - start);
        retry(|| rustix::fs::fallocate(fd, FallocateFlags::empty(), start, len))
    })
}

/// Adds seals. `EBUSY`: a process has it mapped for writing, and may still write.
pub(crate) fn seal(fd: BorrowedFd<'_>, seals: SealFlags) -> Result<()> {
    rustix::fs::fcntl_add_seals(fd, seals)
}

/// How often the kernel is asked for a seal on the contents, which waits for a tenth of a second each time.
const SEAL_TRIES: usize = 32;

/// Adds the [`CONTENTS`] seals. The kernel may hold a page itself, to move it or to count it, and cannot tell that from a writer.
/// It waits for the page a while, and then fails with `EBUSY`. So it is asked again, as long as the caller has time.
pub(crate) fn seal_contents(fd: BorrowedFd<'_>, has_time: impl Fn() -> bool) -> Result<()> {
    for _ in 1..SEAL_TRIES {
        match seal(fd, CONTENTS) {
            Err(Errno::BUSY) if has_time() => {}
            sealed => return sealed,
        }
    }
    seal(fd, CONTENTS)
}

/// The reason why the memory behind a descriptor is not used.
pub(crate) enum Unfit {
    /// No memory, or of pages of another size.
    Kind,
    /// Not all of the seals are there.
    Seals,
    /// Not open for what it is needed for.
    Mode,
    /// The kernel did not say, to the call of that name.
    Unknown(&'static str, Errno),
}

/// The length of memory that has these seals, and is open for reading, and for writing if that is asked for.
pub(crate) fn check(fd: BorrowedFd<'_>, seals: SealFlags, for_writing: bool) -> std::result::Result<u64, Unfit> {
    let (has, len) = look(fd, for_writing)?;
    if has.contains(seals) { Ok(len) } else { Err(Unfit::Seals) }
}

/// The seals and the length of memory that is open for reading, and for writing if that is asked for.
pub(crate) fn look(fd: BorrowedFd<'_>, for_writing: bool) -> std::result::Result<(SealFlags, u64), Unfit> {
    let unknown = |call| move |errno| Unfit::Unknown(call, errno);
    let flags = rustix::fs::fcntl_getfl(fd).map_err(unknown("fcntl"))?;
    if flags.contains(OFlags::PATH) {
        return Err(Unfit::Kind);
    }
    // A file of a file system that has no seals says EINVAL.
    let has = rustix::fs::fcntl_get_seals(fd).map_err(|_| Unfit::Kind)?;
    if rustix::fs::fstatfs(fd).map_err(unknown("fstatfs"))?.f_type as u32 != TMPFS_MAGIC {
        return Err(Unfit::Kind);
    }
    match flags & OFlags::RWMODE {
        OFlags::RDWR => {}
        OFlags::RDONLY if !for_writing => {}
        _ => return Err(Unfit::Mode),
    }
    let len = rustix::fs::fstat(fd).map_err(unknown("fstat"))?.st_size;
    u64::try_from(len).map(|len| (has, len)).map_err(|_| Unfit::Kind)
}

/// Returns whether there is a part that was never written, and that would take the reader's memory.
///
/// The one way to ask is a seek. The position belongs to all holders of the descriptor, and another process may be reading the
/// memory as a file. So the memory is opened once more. If that fails, without `/proc` or in a full table, the position is put
/// back.
pub(crate) fn has_holes(fd: BorrowedFd<'_>, len: u64) -> Result<bool> {
    if len == 0 {
        return Ok(false);
    }
    if let Ok(own) = reopen(fd) {
        return Ok(rustix::fs::seek(own, SeekFrom::Hole(0))? < len);
    }
    let position = rustix::fs::seek(fd, SeekFrom::Current(0))?;
    let hole = rustix::fs::seek(fd, SeekFrom::Hole(0))?;
    rustix::fs::seek(fd, SeekFrom::Start(position))?;
    Ok(hole < len)
}

/// The same memory, with a position and flags of its own, and for reading alone.
fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut path = [0; 32]; // longer than the longest, and so with a nul at its end
    write!(&mut path[..], "/proc/self/fd/{}", fd.as_raw_fd()).map_err(|_| Errno::NAMETOOLONG)?;
    let own = rustix::fs::open(
        CStr::from_bytes_until_nul(&path).map_err(|_| Errno::NAMETOOLONG)?,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )?;
    // Another file may be mounted there.
    let (own_stat, stat) = (rustix::fs::fstat(&own)?, rustix::fs::fstat(fd)?);
    if (own_stat.st_dev, own_stat.st_ino) == (stat.st_dev, stat.st_ino) { Ok(own) } else { Err(Errno::NOENT) }
}

/// The same memory, lent to another process: read-only, with flags of its own, of which none is set.
#[cfg(feature = "channel")]
pub(crate) fn lend(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let lent = off_standard(reopen(fd)?)?;
    rustix::fs::fcntl_setfl(&lent, OFlags::empty())?;
    Ok(lent)
}

/// Says that this process is done with what was [lent](lend). The flag means nothing to memory, and all who have the open file
/// description see it. To set it takes no lock that another process can hold, unlike a write.
#[cfg(feature = "channel")]
pub(crate) fn give_back(lent: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fcntl_setfl(lent, OFlags::NONBLOCK)
}

/// Returns whether a process has said that.
#[cfg(feature = "channel")]
pub(crate) fn is_given_back(lent: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(lent).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}
