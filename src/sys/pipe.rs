//! Reading and writing pipes without waiting and without `SIGPIPE`, on every kernel.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;
use rustix::pipe::{IoSliceRaw, PipeFlags, SpliceFlags};

use super::descriptor::duplicate;
use super::poll::{POLLOUT, look};
use super::rw_flags::{self, Known};
use super::signal::{Sigpipe, without_sigpipe};
use super::{Errno, Result, is_refused, retry};

/// "At the current position", which is all that a pipe has.
pub(super) const CURRENT: u64 = u64::MAX;

/// `EPIPE` without the signal, for one call. Linux 6.18.
const NOSIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);

/// Returns how an end that comes from elsewhere avoids `SIGPIPE`, after asking what this kernel makes of flags.
pub(crate) fn prepare() -> Sigpipe {
    rw_flags::ask();
    Sigpipe::look()
}

/// Reads what is there, or answers `EAGAIN`, whatever the end's `O_NONBLOCK` says. If every way to do so is refused, the
/// answer is that of the first.
#[inline]
pub(crate) fn read_nowait(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
    if rw_flags::known().are_ignored() {
        return read_another_way(fd, bufs, Errno::OPNOTSUPP);
    }
    match rustix::io::preadv2(fd, bufs, CURRENT, ReadWriteFlags::NOWAIT) {
        // Kernels before about 6.4, named FIFOs, and every pipe that was spliced from or to.
        Err(errno) if is_refused(errno) => read_another_way(fd, bufs, errno),
        done => done,
    }
}

#[cold]
fn read_another_way(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>], refused: Errno) -> Result<usize> {
    // The descriptor decides which way vmsplice(2) moves bytes. On one that can be written, it would lend the buffers to the
    // pipe.
    if rustix::fs::fcntl_getfl(fd)? & OFlags::RWMODE == OFlags::RDONLY {
        match vmsplice_nowait(fd, bufs) {
            Err(errno) if is_refused(errno) => {}
            done => return done,
        }
    }
    match splice_nowait(fd, bufs) {
        Err(errno) if is_refused(errno) => Err(refused),
        done => done,
    }
}

/// On a descriptor that is open for reading alone, [vmsplice(2)] copies into memory. Its flag goes for the one call too.
///
/// [vmsplice(2)]: https://man7.org/linux/man-pages/man2/vmsplice.2.html
fn vmsplice_nowait(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let copy = |bufs: &[IoSliceRaw<'_>]| {
        // SAFETY: the slices come from exclusive borrows that outlive the call. The kernel keeps no reference to them: on a
        // descriptor that cannot be written it copies, and lends no page to the pipe.
        unsafe { rustix::pipe::vmsplice(fd, bufs, SpliceFlags::NONBLOCK) }
    };
    if let [only] = bufs {
        return copy(&[IoSliceRaw::from_slice_mut(only)]);
    }
    let bufs: Vec<_> = bufs.iter_mut().map(|buf| IoSliceRaw::from_slice_mut(buf)).collect();
    copy(&bufs)
}

/// Moves it into a private pipe and reads it there: for sandboxes without vmsplice, and for a FIFO that is open both ways.
fn splice_nowait(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let len = bufs.iter().map(|buf| buf.len()).sum();
    let (reader, writer) = private()?;
    // The slices have room for all bytes that were moved. A pipe of packets needs one read for each.
    let moved = rustix::pipe::splice(fd, None, &writer, None, len, SpliceFlags::NONBLOCK)?;
    let mut read = 0;
    while read < moved {
        read += match retry(|| rustix::io::readv(&reader, &mut after(bufs, read)))? {
            0 => break,
            count => count,
        };
    }
    Ok(read) // 0: the end
}

/// The room behind the first bytes.
fn after<'a>(bufs: &'a mut [IoSliceMut<'_>], mut filled: usize) -> Vec<IoSliceMut<'a>> {
    let rest = bufs.iter_mut().map(|buf| {
        let full = filled.min(buf.len());
        filled -= full;
        IoSliceMut::new(&mut buf[full..])
    });
    rest.collect()
}

/// Writes, waiting for room as [write(2)] does, and never raises `SIGPIPE`.
///
/// [write(2)]: https://man7.org/linux/man-pages/man2/write.2.html
#[inline]
pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8], sigpipe: Sigpipe) -> Result<usize> {
    match sigpipe {
        Sigpipe::Ignored => rustix::io::write(fd, buf),
        Sigpipe::Avoid => write_avoiding(fd, &[IoSlice::new(buf)], ReadWriteFlags::empty(), rw_flags::known()),
    }
}

/// The same from several buffers, of which there may be at most `IOV_MAX`.
pub(crate) fn write_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], sigpipe: Sigpipe) -> Result<usize> {
    match sigpipe {
        Sigpipe::Ignored => rustix::io::writev(fd, bufs),
        Sigpipe::Avoid => write_avoiding(fd, bufs, ReadWriteFlags::empty(), rw_flags::known()),
    }
}

fn write_avoiding(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], flags: ReadWriteFlags, known: Known) -> Result<usize> {
    if known.may_avoid_signal() {
        match rustix::io::pwritev2(fd, bufs, CURRENT, flags | NOSIGNAL) {
            Err(errno) if is_refused(errno) => {
                // Of several flags, another one may be the one that was refused.
                if flags.is_empty() {
                    rw_flags::note_no_nosignal();
                }
            }
            done => return done,
        }
    }
    without_sigpipe(|| match flags.is_empty() {
        true => rustix::io::writev(fd, bufs),
        false => rustix::io::pwritev2(fd, bufs, CURRENT, flags),
    })
}

/// Writes as many bytes as there is room for, or returns `EAGAIN`, whatever the end's `O_NONBLOCK` says. Returns an errno that
/// [`is_refused`] knows if the kernel cannot do that on this end.
#[inline]
pub(crate) fn write_nowait(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], sigpipe: Sigpipe) -> Result<usize> {
    let known = rw_flags::known();
    match sigpipe {
        _ if known.are_ignored() => Err(Errno::OPNOTSUPP),
        Sigpipe::Ignored => rustix::io::pwritev2(fd, bufs, CURRENT, ReadWriteFlags::NOWAIT),
        Sigpipe::Avoid => write_avoiding(fd, bufs, ReadWriteFlags::NOWAIT, known),
    }
}

/// One write that does not wait, and is repeated until it works. The end's `O_NONBLOCK` does not matter. At most `PIPE_BUF` bytes
/// go in whole or not at all.
pub(crate) struct NowaitWrite<'buf> {
    buf: &'buf [u8],
    sigpipe: Sigpipe,
    staged: Option<Staged>,
}

/// A write on a kernel that refuses the flag. The bytes are in a private pipe, and can be moved from there without waiting.
struct Staged {
    reader: OwnedFd,
    len: usize,
    /// The errno of the kernel. It is the answer if moving them is refused too.
    refused: Errno,
}

impl<'buf> NowaitWrite<'buf> {
    pub(crate) fn new(buf: &'buf [u8], sigpipe: Sigpipe) -> Self {
        Self { buf, sigpipe, staged: None }
    }

    /// Writes what there is room for, or answers `EAGAIN`.
    pub(crate) fn attempt(&mut self, fd: BorrowedFd<'_>) -> Result<usize> {
        if self.staged.is_none() {
            match write_nowait(fd, &[IoSlice::new(self.buf)], self.sigpipe) {
                Err(errno) if is_refused(errno) => self.staged = Some(Staged::new(self.buf, errno)?),
                done => return done,
            }
        }
        let Some(Staged { reader, len, refused }) = &self.staged else { return Err(Errno::OPNOTSUPP) };
        // splice(2) has no flag against the signal.
        let moved = self.sigpipe.avoid(|| rustix::pipe::splice(reader, None, fd, None, *len, SpliceFlags::NONBLOCK));
        moved.map_err(|errno| if is_refused(errno) { *refused } else { errno })
    }
}

/// Writes up to `PIPE_BUF` bytes or answers `EAGAIN`, with plain calls, where the kernel refuses those that never wait. Only for the
/// pipe's one writer: it has a free page after [`POLLOUT`], and nobody else fills it.
#[cold]
pub(crate) fn write_alone(fd: BorrowedFd<'_>, buf: &[u8], sigpipe: Sigpipe) -> Result<usize> {
    match look(fd, POLLOUT)? {
        0 => Err(Errno::AGAIN),
        _ => write(fd, &buf[..buf.len().min(libc::PIPE_BUF)], sigpipe),
    }
}

impl Staged {
    /// A page of a fresh pipe takes `PIPE_BUF` bytes in one piece, and splice moves a page whole.
    fn new(buf: &[u8], refused: Errno) -> Result<Self> {
        let (reader, writer) = private()?;
        let len = retry(|| rustix::io::write(&writer, buf))?;
        Ok(Self { reader, len, refused })
    }
}

/// The kernel refuses more than this in one call, or takes it for this (`MAX_RW_COUNT`, [read(2)]).
///
/// [read(2)]: https://man7.org/linux/man-pages/man2/read.2.html
const MOST_BYTES: usize = 0x7fff_f000;

/// Moves bytes, one of the two being a pipe, and never raises `SIGPIPE`.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize, sigpipe: Sigpipe) -> Result<usize> {
    let len = len.min(MOST_BYTES);
    retry(|| sigpipe.avoid(|| rustix::pipe::splice(from, None, to, None, len, SpliceFlags::empty())))
}

/// The same from a position of a file, whose own position stays.
pub(crate) fn splice_at(
    from: BorrowedFd<'_>,
    offset: u64,
    to: BorrowedFd<'_>,
    len: usize,
    sigpipe: Sigpipe,
) -> Result<usize> {
    let len = len.min(MOST_BYTES);
    retry(|| {
        let mut at = offset;
        sigpipe.avoid(|| rustix::pipe::splice(from, Some(&mut at), to, None, len, SpliceFlags::empty()))
    })
}

/// Has bytes of a pipe in a second one too, and never raises `SIGPIPE`.
pub(crate) fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize, sigpipe: Sigpipe) -> Result<usize> {
    let len = len.min(MOST_BYTES);
    retry(|| sigpipe.avoid(|| rustix::pipe::tee(from, to, len, SpliceFlags::empty())))
}

/// `F_SETPIPE_SZ`, without the kernel's habit of looking at 32 bits only.
pub(crate) fn set_capacity(fd: BorrowedFd<'_>, bytes: usize) -> Result<usize> {
    if bytes > 1 << 31 {
        return Err(Errno::INVAL);
    }
    rustix::pipe::fcntl_setpipe_size(fd, bytes)
}

/// A new pipe, close-on-exec.
pub(crate) fn pair(nonblock: bool) -> Result<(OwnedFd, OwnedFd)> {
    rw_flags::ask();
    make(nonblock)
}

fn make(nonblock: bool) -> Result<(OwnedFd, OwnedFd)> {
    let mut flags = PipeFlags::CLOEXEC;
    flags.set(PipeFlags::NONBLOCK, nonblock);
    rustix::pipe::pipe_with(flags)
}

/// A private one, and so not at 0, 1 or 2, where other threads would read from it and print into it.
pub(super) fn private() -> Result<(OwnedFd, OwnedFd)> {
    let above = |fd: OwnedFd| if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate(fd.as_fd()) };
    let (reader, writer) = make(true)?;
    Ok((above(reader)?, above(writer)?))
}

/// Returns whether the pipe is none that has a name, as far as is known. Of one that has, [poll(2)] says nothing at EOF if there was
/// no writer when this end was opened, and none has come since.
///
/// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
#[cfg(feature = "tokio")]
pub(crate) fn is_nameless(fd: BorrowedFd<'_>) -> bool {
    const PIPEFS_MAGIC: u32 = 0x5049_5045;
    rustix::fs::fstatfs(fd).is_ok_and(|system| system.f_type as u32 == PIPEFS_MAGIC)
}

/// Bytes that can be read now.
pub(crate) fn available(fd: impl AsFd) -> Result<usize> {
    rustix::io::ioctl_fionread(fd).map(|bytes| bytes as usize)
}
