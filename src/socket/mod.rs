//! Socket pairs: both ways, as whole messages or as a stream of bytes.

mod ancillary;
mod datagram;
mod stream;

use std::cell::Cell;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) use ancillary::to_send;
pub use ancillary::{Received, SendError};
pub use datagram::{DatagramFlags, DatagramPair, DatagramSocket, datagram_pair, datagram_pair_with};
pub(crate) use stream::PIECE;
pub use stream::{StreamPair, StreamSocket, stream_pair};

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::end::{self, End};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::memory::Spill;

/// A process, and the user and group that it runs as, as the kernel vouches for them (`SO_PEERCRED`, unix.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The number of the process, as this process's pid namespace has it; 0 if it is not in there.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

thread_local! {
    /// This thread's [`Spill`], while no call is using it.
    static SPILL: Cell<Option<Spill>> = const { Cell::new(None) };
}

/// The thread's spill, lent to a call. There until it is dropped.
struct Lent(Option<Spill>);

impl Lent {
    /// It is taken out of its cell, so that a call within a call makes its own. The cell is gone when the thread is ending.
    #[inline]
    fn new() -> Result<Self> {
        let spill = match SPILL.try_with(Cell::take) {
            Ok(Some(spill)) => spill,
            _ => Spill::new().map_err(|errno| Error::system("mmap", errno))?,
        };
        Ok(Self(Some(spill)))
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], Spill::as_mut_slice)
    }

    /// Appends the first bytes, which were received there, and gives memory back if they were many.
    #[inline(never)]
    fn append_to(&mut self, message: &mut Vec<u8>, len: usize) {
        message.extend_from_slice(&self.as_mut_slice()[..len]);
        self.0.iter_mut().for_each(|spill| spill.trim(len));
    }
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        // No cell to put it back into: then it is unmapped here.
        let _ = SPILL.try_with(|cell| cell.set(self.0.take()));
    }
}

/// That messages of ours were lost with the peer, which the kernel says once: to whichever call comes first, and before it
/// hands out what the peer had sent. It is kept here, and passed on to a receiver after that. Clones share it: one may send
/// while another receives.
#[derive(Clone, Default)]
struct Loss(Arc<AtomicBool>);

impl Loss {
    /// Messages of ours were lost: a receiver is to be told.
    #[cold]
    fn note(&self) {
        self.0.store(true, Relaxed);
    }

    /// Sends. A sender that is told of the loss tries again, and is told that the peer is gone.
    #[inline(always)]
    fn sending<T>(&self, mut send: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match send() {
                Err(Error::Reset) => self.note(),
                sent => return sent,
            }
        }
    }

    /// Receives, until the end as `is_end` knows it, and tells of the loss there.
    fn receiving<T>(&self, is_end: impl Fn(&T) -> bool, mut receive: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match receive() {
                Err(Error::Reset) => self.note(),
                Ok(end) if is_end(&end) && self.0.swap(false, Relaxed) => return Err(Error::Reset),
                received => return received,
            }
        }
    }
}

fn shutdown(end: &End, how: Shutdown) -> Result<()> {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    rustix::net::shutdown(end, how).map_err(|errno| end.error("shutdown", errno))
}

fn peer_credentials(end: &End) -> Result<Credentials> {
    let (pid, uid, gid) = sys::socket::peer_credentials(end.as_fd()).map_err(|errno| end.error("getsockopt", errno))?;
    Ok(Credentials { pid, uid, gid })
}

/// Fails if the descriptor is not a unix socket of one of the `kinds`, with a peer.
fn check(fd: BorrowedFd<'_>, expected: &'static str, kinds: &[SocketType]) -> Result<()> {
    let wrong = |found| Err(Error::WrongKind { expected, found });
    let kind = end::kind(fd)?;
    if kind != end::SOCKET {
        return wrong(kind);
    }
    let refused = |errno| Error::system("getsockopt", errno);
    if sockopt::socket_domain(fd).map_err(refused)? != AddressFamily::UNIX {
        return wrong("a socket of another family");
    }
    match sockopt::socket_type(fd).map_err(refused)? {
        // Loses its peer when that is closed, and is still what it was.
        SocketType::DGRAM if kinds.contains(&SocketType::DGRAM) => Ok(()),
        kind if kinds.contains(&kind) => match rustix::net::getpeername(fd) {
            Ok(_) => Ok(()),
            Err(_) => wrong("a unix socket without a peer"),
        },
        SocketType::STREAM => wrong("a unix socket for a stream"),
        _ => wrong("a unix socket for messages"),
    }
}
