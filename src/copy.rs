//! Copying from one descriptor to another until EOF, the fastest way that the kernel has for the two.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{FileType, OFlags};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::end;
use crate::error::{Bytes, Error, Result, gives_back};
use crate::pipe::CUT;
use crate::sys::poll::{POLLIN, POLLOUT, pollfd};
use crate::sys::signal::Sigpipe;
use crate::sys::{self, Errno, ledger};

/// Blocks until EOF of `from`, copies all of it to `to`, and returns the number of bytes.
///
/// Both can be any end for bytes, and any file, device, or socket for a stream. The kernel moves the bytes without passing
/// them through this process if it can and if that is faster. Otherwise they are read and written. The result is the same.
///
/// - **EOF of a pipe or a socket** comes when the last writer is closed, in every process. A reader at the other side of `to`
///   sees EOF when `to` is closed, which `copy` does not do.
/// - **A file** is read from its current position, and written at its current position, and both move on.
/// - **Bytes arrive as they were.** The reader of `to` does not see later changes of a file that was copied. With
///   [`splice_from`](crate::PipeWriter::splice_from), which copies nothing, it does.
/// - **An end with `O_NONBLOCK`** is waited for like any other.
///
/// Ends that travel in a stream of bytes are not copied along.
///
/// In the guide: [moving bytes without copying](crate::guide::moving_bytes).
///
/// # Errors
///
/// [`CopyError`] has the number of bytes that were copied, and the cause:
///
/// - [`Error::Closed`]: `to` has no reader any more. `SIGPIPE` is not raised.
/// - [`Error::Reset`]: the peer of a socket went away without having read everything.
/// - [`Error::NotGiven`]: this process was not given one of the two. Nothing was copied.
/// - [`Error::WrongKind`]: one of the two is a socket for messages. Nothing was copied.
/// - [`Error::TimedOut`]: a time limit set on a socket itself (`SO_RCVTIMEO`, `SO_SNDTIMEO`) is up.
/// - [`Error::System`] with `EINVAL`: the two are one file or one pipe, and the copy would not end. Nothing was copied.
/// - [`Error::System`] with `EBADF`: `to` is not open for writing. Nothing was copied.
/// - [`Error::System`]: any other error of the calls below, such as `ENOSPC`.
///
/// # Platform
///
/// [copy_file_range(2)] and [sendfile(2)] from files to files, [splice(2)] from pipes to pipes and files. [read(2)] and
/// [write(2)] otherwise, and if the kernel refuses these. After [splice(2)], the kernel refuses `RWF_NOWAIT` on a pipe. `try_`
/// and `_timeout` calls then use other system calls, and work as before.
///
/// # Examples
///
/// ```
/// use std::fs::File;
/// use std::io::{Read, Write};
///
/// let (reader, mut writer) = ipc::pipe()?;
/// let child = ipc::fork(reader, |reader| -> Result<(), Box<dyn std::error::Error>> {
///     let copied = ipc::copy(reader, File::create("/dev/null")?)?;
///     assert_eq!(copied, 300_000);
///     Ok(())
/// })?;
/// writer.write_all(&[7; 300_000])?;
/// drop(writer); // or EOF never comes
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [copy_file_range(2)]: https://man7.org/linux/man-pages/man2/copy_file_range.2.html
/// [read(2)]: https://man7.org/linux/man-pages/man2/read.2.html
/// [sendfile(2)]: https://man7.org/linux/man-pages/man2/sendfile.2.html
/// [splice(2)]: https://man7.org/linux/man-pages/man2/splice.2.html
/// [write(2)]: https://man7.org/linux/man-pages/man2/write.2.html
#[doc(alias = "splice")]
#[doc(alias = "sendfile")]
#[doc(alias = "copy_file_range")]
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<u64, CopyError> {
    copy_up_to(from, to, u64::MAX)
}

/// Blocks until `len` bytes of `from` are copied to `to`, or EOF comes before, and returns the number of bytes.
///
/// Same as [`copy`], but stops after `len` bytes, and takes nothing after them from `from`. A pipe of packets, made with
/// `O_DIRECT`, can lose the rest of the last packet.
///
/// # Errors
///
/// As [`copy`].
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (from, mut writer) = ipc::pipe()?;
/// let (mut reader, to) = ipc::pipe()?;
/// writer.write_all(b"header and body")?;
///
/// assert_eq!(ipc::copy_up_to(&from, &to, 6)?, 6);
/// drop(to);
/// assert_eq!(std::io::read_to_string(&mut reader)?, "header");
/// assert_eq!(from.available()?, 9); // the rest is still there
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn copy_up_to(from: impl AsFd, to: impl AsFd, len: u64) -> Result<u64, CopyError> {
    let mut copy = Copy { from: from.as_fd(), to: to.as_fd(), len, copied: 0, unwritten: Vec::new() };
    match copy.run() {
        Ok(()) => Ok(copy.copied),
        Err(error) => Err(CopyError { copied: copy.copied, unwritten: copy.unwritten, error }),
    }
}

/// A copy that stopped before EOF, how far it had come, and why.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// let (from, mut writer) = ipc::pipe()?;
/// writer.write_all(b"for nobody")?;
/// drop(writer);
/// let (reader, to) = ipc::pipe()?;
/// drop(reader);
///
/// let stopped = ipc::copy(&from, &to).unwrap_err();
/// assert!(matches!(stopped.error, ipc::Error::Closed));
/// assert_eq!(stopped.copied, 0);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("the copy stopped after {copied} bytes: {error}")]
pub struct CopyError {
    /// The bytes that were copied.
    pub copied: u64,
    /// The bytes after those, which were taken from the source and could not be written. At most 64 KiB, most often none.
    pub unwritten: Vec<u8>,
    /// The cause.
    pub error: Error,
}

gives_back!(CopyError);

/// Of the bytes, their number and the first few.
impl fmt::Debug for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyError")
            .field("copied", &self.copied)
            .field("unwritten", &Bytes(&self.unwritten))
            .field("error", &self.error)
            .finish()
    }
}

/// The kinds that the kernel tells apart when it moves bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has a position, and a length that may change. Block devices too.
    File,
    Pipe,
    Socket,
    /// A character device, such as a terminal or `/dev/null`.
    Device,
}

impl Kind {
    /// The kind, and which one it is.
    fn of(fd: BorrowedFd<'_>) -> Result<(Self, (u64, u64))> {
        let stat = rustix::fs::fstat(fd).map_err(|errno| end::error(&[fd], "fstat", errno))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::BlockDevice => Kind::File,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => match socket_type(fd).map_err(|errno| end::error(&[fd], "getsockopt", errno))? {
                SocketType::STREAM => Kind::Socket,
                _ => return Err(Error::WrongKind { expected: "a stream of bytes", found: "a socket for messages" }),
            },
            _ => Kind::Device,
        };
        Ok((kind, (stat.st_dev, stat.st_ino)))
    }
}

/// A call that moves bytes inside the kernel.
#[derive(Clone, Copy)]
enum Way {
    CopyFileRange,
    Sendfile,
    Splice,
}

impl Way {
    /// The ways worth trying, best first. After these, bytes are read and written, which always works.
    ///
    /// From a file to a pipe or a socket, sendfile and splice would put the file's own memory there. The reader would see later
    /// writes to the file. So the file is read and written.
    ///
    /// Between a pipe and a socket or a terminal, splice holds the pipe's lock while it waits for the other side. Every
    /// other call on the pipe waits too, whatever its deadline. So that is read and written as well.
    fn between(from: Kind, to: Kind) -> &'static [Self] {
        match (from, to) {
            (Kind::File, Kind::File) => &[Way::CopyFileRange, Way::Sendfile],
            (Kind::File, Kind::Device) => &[Way::Sendfile],
            (Kind::File, _) => &[],
            (Kind::Pipe, Kind::Pipe | Kind::File) => &[Way::Splice],
            _ => &[],
        }
    }

    /// Its manual page.
    fn name(self) -> &'static str {
        match self {
            Way::CopyFileRange => "copy_file_range",
            Way::Sendfile => "sendfile",
            Way::Splice => "splice",
        }
    }
}

/// Why a way was left.
enum Stop {
    /// No more bytes were there to move.
    Nothing,
    /// The kernel refuses the call, or to go on with it.
    Refused,
}

/// In one call, so that a signal is not held up for long.
const PIECE: usize = 64 << 20;

/// Read at a time, where bytes are read and written.
const BUFFER: usize = 64 << 10;

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// The most that is copied.
    len: u64,
    copied: u64,
    unwritten: Vec<u8>,
}

impl Copy<'_> {
    fn run(&mut self) -> Result<()> {
        // Before anything is taken from the one that is there.
        if [self.from, self.to].iter().any(|fd| ledger::is_severed(fd.as_raw_fd())) {
            return Err(Error::NotGiven);
        }
        let ((from, source), (to, target)) = (Kind::of(self.from)?, Kind::of(self.to)?);
        // The kernel would say so when bytes are written that the source does not have any more.
        if !is_writable(self.to)? {
            return Err(Error::system("write", Errno::BADF));
        }
        let ways = Way::between(from, to);
        if source == target && matches!(from, Kind::File | Kind::Pipe) {
            return Err(Error::system(ways[0].name(), Errno::INVAL));
        }
        let sigpipe = if to == Kind::Pipe { sys::pipe::prepare() } else { Sigpipe::look() };
        for way in ways {
            match self.moves(*way, sigpipe)? {
                Stop::Refused => {}
                Stop::Nothing if self.room(1) == 0 => return Ok(()),
                // Of a file in /proc, and of one that has grown, that is not the end: only reading knows.
                Stop::Nothing if from == Kind::File => break,
                Stop::Nothing => return Ok(()),
            }
        }
        self.read_and_write(to, sigpipe)
    }

    /// Returns how many bytes of a piece are still to be copied.
    fn room(&self, piece: usize) -> usize {
        (self.len - self.copied).min(piece as u64) as usize
    }

    /// Has the kernel move bytes for as long as it does.
    fn moves(&mut self, way: Way, sigpipe: Sigpipe) -> Result<Stop> {
        loop {
            let piece = self.room(PIECE);
            if piece == 0 {
                return Ok(Stop::Nothing);
            }
            let moved = match way {
                Way::CopyFileRange => sys::retry(|| rustix::fs::copy_file_range(self.from, None, self.to, None, piece)),
                Way::Sendfile => sys::retry(|| rustix::fs::sendfile(self.to, self.from, None, piece)),
                Way::Splice => sys::pipe::splice(self.from, self.to, piece, sigpipe),
            };
            match moved {
                Ok(0) => return Ok(Stop::Nothing),
                Ok(len) => self.copied += len as u64,
                // Either of the two.
                Err(Errno::AGAIN) => self.wait(&[(self.from, POLLIN), (self.to, POLLOUT)])?,
                Err(errno) if is_refusal(errno) => return Ok(Stop::Refused),
                Err(errno) => return Err(end::error(&[self.from, self.to], way.name(), errno)),
            }
        }
    }

    fn read_and_write(&mut self, to: Kind, sigpipe: Sigpipe) -> Result<()> {
        let mut buf = vec![0; self.room(BUFFER)];
        loop {
            // None left: a read of nothing is 0 too.
            let piece = self.room(BUFFER);
            let len = match sys::retry(|| rustix::io::read(self.from, &mut buf[..piece])) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(Errno::AGAIN) => {
                    self.wait(&[(self.from, POLLIN)])?;
                    continue;
                }
                Err(errno) => return Err(end::error(&[self.from], "read", errno)),
            };
            let mut rest = &buf[..len];
            while !rest.is_empty() {
                match self.write(rest, to, sigpipe) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) => {
                        self.unwritten = rest.to_vec();
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Writes something of it.
    fn write(&mut self, bytes: &[u8], to: Kind, sigpipe: Sigpipe) -> Result<usize> {
        loop {
            let written = sys::retry(|| match to {
                Kind::Pipe => sys::pipe::write(self.to, &bytes[..bytes.len().min(CUT)], sigpipe),
                Kind::Socket => sys::socket::write(self.to, bytes, true),
                Kind::File | Kind::Device => rustix::io::write(self.to, bytes),
            });
            match written {
                Ok(0) => return Err(Error::System { call: "write", source: io::ErrorKind::WriteZero.into() }),
                Ok(len) => {
                    self.copied += len as u64;
                    return Ok(len);
                }
                Err(Errno::AGAIN) => self.wait(&[(self.to, POLLOUT)])?,
                Err(errno) => return Err(end::error(&[self.to], "write", errno)),
            }
        }
    }

    /// After `EAGAIN`: waits until each of them is ready.
    fn wait(&self, on: &[(BorrowedFd<'_>, i16)]) -> Result<()> {
        let nonblocking =
            |fd: BorrowedFd<'_>| rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        if !on.iter().any(|(fd, _)| nonblocking(*fd)) {
            return Err(Error::TimedOut); // which a socket that waits says when its own time is up
        }
        on.iter().try_for_each(|(fd, events)| {
            let mut fds = [pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 }];
            let polled = sys::retry(|| sys::poll::poll(&mut fds, None));
            polled.map(drop).map_err(|errno| end::error(&[*fd], "poll", errno))
        })
    }
}

fn is_writable(fd: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|errno| end::error(&[fd], "fcntl", errno))?;
    Ok(!flags.contains(OFlags::PATH) && [OFlags::WRONLY, OFlags::RDWR].contains(&(flags & OFlags::RWMODE)))
}

/// Returns whether the errno means that the kernel does not make this call with these two, or no longer does, and has moved
/// no byte.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        // It does not know the call, or not for these; a sandbox refuses it.
        Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS
        // Two file systems; a file that is only appended to; a swap file; positions that do not fit.
        | Errno::XDEV | Errno::BADF | Errno::TXTBSY | Errno::OVERFLOW | Errno::SPIPE
    )
}
