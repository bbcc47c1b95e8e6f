//! Socket pairs: both ways, as whole messages or as a stream of bytes.

mod datagram;
mod loss;
mod received;
#[cfg(feature = "channel")]
mod segments;
mod spill;
mod stream;

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketType, sockopt};

#[cfg(feature = "channel")]
pub(crate) use datagram::value_pair;
pub use datagram::{DatagramFlags, DatagramPair, DatagramSocket, datagram_pair, datagram_pair_with};
pub use received::{Received, SendError};
pub(crate) use spill::copied;
#[cfg(feature = "channel")]
pub(crate) use spill::reserve;
pub(crate) use stream::PIECE;
pub use stream::{StreamPair, StreamSocket, stream_pair};

use crate::end::{self, End};
use crate::error::{Error, Result};
use crate::sys;

/// A process, with its user and group. The kernel vouches for them.
///
/// # Platform
///
/// `SO_PEERCRED` and `SCM_CREDENTIALS` ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)).
///
/// # Examples
///
/// See [`DatagramSocket::set_passcred`].
#[doc(alias = "ucred")]
#[doc(alias = "SCM_CREDENTIALS")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The number of the process in this process's pid namespace; 0 if it is not in there.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

fn shutdown(end: &End, how: Shutdown) -> Result<()> {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    rustix::net::shutdown(end, how).map_err(|errno| end.error("shutdown", errno))
}

fn set_passcred(end: &End, on: bool) -> Result<()> {
    sockopt::set_socket_passcred(end, on).map_err(|errno| end.error("setsockopt", errno))
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
