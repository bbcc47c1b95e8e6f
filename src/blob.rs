//! Bytes that processes share, and that none can change any more.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::SeekFrom;

use crate::end::{self, Ends, FromFdError};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::frozen::Frozen;
use crate::sys::memfd::{self, Unfit};

/// Bytes in memory with a descriptor, which no process can change any more. Passing the descriptor shares them with another
/// process, without a copy.
///
/// A `Blob` is a `[u8]`: reading it is reading memory, and takes no system call. A clone is another handle of the same
/// bytes, and takes no descriptor.
///
/// It is data, and no channel. A [`fork`](crate::fork()) severs nothing of it: a child reads what its closure captured. It goes
/// to another program with [`Command::give`](crate::Command::give) and [`claim`](crate::claim()), and to a process that is
/// running with [`DatagramSocket::send_with`](crate::DatagramSocket::send_with) and [`Received::take`](crate::Received::take).
/// It does not count among the [`open_ends`](crate::open_ends).
///
/// The bytes take memory for as long as any process has them, and count as shared memory (`Shmem` of `/proc/meminfo`).
/// Making one copies the bytes once, which is worth it for many bytes, or for several processes. A message is cheaper for
/// less than some 64 KiB to one process. A blob takes a descriptor and a mapping at each side, some µs.
///
/// # Platform
///
/// [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html), with the seals `F_SEAL_SHRINK`,
/// `F_SEAL_GROW`, `F_SEAL_WRITE` and `F_SEAL_SEAL` ([fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html)), which are
/// looked at whenever a descriptor becomes a `Blob`, and [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
///
/// # Examples
///
/// ```
/// let table = ipc::Blob::new(&[7; 100_000])?;
///
/// let pair = ipc::datagram_pair()?;
/// let child = ipc::fork(pair.child, |socket| -> ipc::Result<u8> {
///     let mut received = socket.recv_with(&mut Vec::new())?.expect("a message");
///     let table: ipc::Blob = received.take()?; // the same memory
///     Ok(table[99_999])
/// })?;
/// pair.parent.send_with(b"the table", &table)?; // lent, and still ours
/// assert_eq!(child.wait()?.code(), Some(7));
/// assert_eq!(table.len(), 100_000);
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "shared memory")]
#[doc(alias = "shm")]
#[doc(alias = "mmap")]
#[doc(alias = "SharedMemory")]
#[doc(alias = "IpcSharedMemory")]
#[doc(alias = "F_SEAL_WRITE")]
#[derive(Clone)]
pub struct Blob(Arc<Shared>);

/// The mapping goes before the descriptor; either could go first.
struct Shared {
    bytes: Frozen,
    fd: OwnedFd,
}

impl Blob {
    /// Copies the bytes into memory that can be shared. Waits for no process; see [`BlobWriter::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::System`]: no memory (`ENOMEM`) or no descriptors (`EMFILE`, `ENFILE`) are left; or this process may not make
    /// files so long (`EFBIG`, `RLIMIT_FSIZE` of [setrlimit(2)](https://man7.org/linux/man-pages/man2/setrlimit.2.html)).
    ///
    /// # Examples
    ///
    /// ```
    /// let blob = ipc::Blob::new(b"for all to read")?;
    /// assert_eq!(&blob[..7], b"for all");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut writer = BlobWriter::new()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// Returns the descriptor of the memory, close-on-exec, for another process or for another type. Never blocks.
    ///
    /// No process can write to it. It is a duplicate where clones of this `Blob` are left. See [`Blob`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: clones are left, and no descriptors are (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// let fd = ipc::Blob::new(b"for all to read")?.into_fd()?;
    /// let blob = ipc::Blob::try_from(fd)?;
    /// assert_eq!(&*blob, b"for all to read");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn into_fd(self) -> Result<OwnedFd> {
        match Arc::try_unwrap(self.0) {
            Ok(shared) => Ok(shared.fd),
            Err(shared) => sys::descriptor::duplicate(shared.fd.as_fd()).map_err(|errno| Error::system("fcntl", errno)),
        }
    }
}

/// The kind that a descriptor has to be.
const EXPECTED: &str = "memory that is sealed against every change";

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsFd for Blob {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// Its descriptor. A process that it is given to makes a `Blob` of it again.
impl Ends for Blob {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        visit(self.as_fd());
    }
}

impl TryFrom<OwnedFd> for Blob {
    type Error = FromFdError;

    /// Takes the descriptor over, if it is memory with all four seals and without holes, and maps it. Sets close-on-exec.
    /// Otherwise the error gives the descriptor back ([`Error::WrongKind`]).
    ///
    /// A hole is a part that was never written. Reading it would take this process's memory, and as much as the maker of
    /// the descriptor likes.
    fn try_from(fd: OwnedFd) -> Result<Self, FromFdError> {
        match arrived(fd.as_fd()) {
            Ok(bytes) => Ok(Self(Arc::new(Shared { bytes, fd }))),
            Err(error) => Err(FromFdError { fd, error }),
        }
    }
}

fn arrived(fd: BorrowedFd<'_>) -> Result<Frozen> {
    let bytes = map(fd)?;
    if memfd::has_holes(fd, bytes.len() as u64).map_err(|errno| Error::system("lseek", errno))? {
        return Err(Error::WrongKind { expected: EXPECTED, found: "memory with holes" });
    }
    sys::descriptor::set_close_on_exec(fd).map_err(|errno| Error::system("fcntl", errno))?;
    Ok(bytes)
}

/// Looks at the seals, and maps.
fn map(fd: BorrowedFd<'_>) -> Result<Frozen> {
    Frozen::map(fd).map_err(|unfit| {
        let found = match unfit {
            Unfit::Unknown(call, errno) => return Error::system(call, errno),
            Unfit::Seals => "memory that can still be changed",
            Unfit::Mode => "a descriptor that cannot be read",
            Unfit::Kind => match end::kind(fd) {
                Ok(kind) => kind,
                Err(error) => return error,
            },
        };
        Error::WrongKind { expected: EXPECTED, found }
    })
}

/// Shows its length and its number. The bytes may be many.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("len", &self.len()).field("fd", &self.as_fd().as_raw_fd()).finish()
    }
}

/// Makes a [`Blob`] of bytes that come piece by piece.
///
/// [`Write`] puts them at the end, and never blocks. Bytes that were written and not finished are gone when the writer is
/// dropped.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// let mut writer = ipc::BlobWriter::new()?;
/// for number in 0..1000 {
///     writeln!(writer, "{number}")?;
/// }
/// let blob = writer.finish()?;
/// assert!(blob.ends_with(b"999\n"));
/// # Ok::<(), ipc::Error>(())
/// ```
#[must_use = "nothing is shared before `finish`"]
pub struct BlobWriter {
    fd: OwnedFd,
    len: u64,
}

impl BlobWriter {
    /// Makes an empty one. Never blocks. See [`BlobWriter`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: no descriptors are left (`EMFILE`, `ENFILE`), or no memory (`ENOMEM`).
    ///
    /// # Platform
    ///
    /// [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html), with `MFD_NOEXEC_SEAL` where the
    /// kernel has it (Linux 6.3).
    ///
    /// # Examples
    ///
    /// See [`BlobWriter`].
    #[doc(alias = "memfd_create")]
    pub fn new() -> Result<Self> {
        let fd = memfd::create(c"ipc-blob").map_err(|errno| Error::system("memfd_create", errno))?;
        Ok(Self { fd, len: 0 })
    }

    /// One write at the end, if one more byte may be there.
    fn append(&mut self, mut write: impl FnMut(&OwnedFd) -> sys::Result<usize>) -> io::Result<usize> {
        memfd::check_limit(self.len + 1)?;
        let count = sys::retry(|| write(&self.fd))?;
        self.len += count as u64;
        Ok(count)
    }

    /// Seals the bytes that were written. No process can change them from here on. See [`BlobWriter`] for an example.
    ///
    /// The kernel itself may hold a page of the memory for a moment, to move it for instance. This waits until it lets go, for
    /// some seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::System`], and the bytes are lost: a process, such as a debugger, has the memory mapped for writing, or the kernel
    /// does not let go of a page (`EBUSY`). There is no address space for it (`ENOMEM`).
    ///
    /// # Platform
    ///
    /// `F_ADD_SEALS` of [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
    ///
    /// # Examples
    ///
    /// See [`BlobWriter`].
    pub fn finish(self) -> Result<Blob> {
        memfd::seal_contents(self.fd.as_fd(), || true).map_err(|errno| Error::system("fcntl", errno))?;
        // For programs that read it as a file.
        rustix::fs::seek(&self.fd, SeekFrom::Start(0)).map_err(|errno| Error::system("lseek", errno))?;
        let bytes = map(self.fd.as_fd())?;
        Ok(Blob(Arc::new(Shared { bytes, fd: self.fd })))
    }
}

/// Puts bytes at the end. Never blocks.
///
/// Past the length that this process may give to a file (`RLIMIT_FSIZE`), a write is an error, and no `SIGXFSZ`.
impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.append(|fd| rustix::io::write(fd, buf))
    }

    /// More than 1024 slices are written as the first 1024.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(which) = sys::for_one_call(bufs) else { return Ok(0) };
        self.append(|fd| rustix::io::writev(fd, &bufs[which.clone()]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter").field("fd", &self.fd.as_raw_fd()).finish()
    }
}
