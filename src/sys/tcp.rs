//! TCP connections: questions to a peer that says nothing, and how long it has said nothing.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};

use super::{Result, errno};

/// How many questions the kernel asks an idle peer before it gives the connection up.
const QUESTIONS: u32 = 2;

/// New in Linux 6.15: the longest time between two attempts to get something across.
const TCP_RTO_MAX_MS: c_int = 44;

/// Makes a connection that nobody else uses into one of a channel's. No bytes wait to be sent with later ones, and a call waits no
/// longer than `turn`. An idle peer is asked often enough to have answered within `deadline`.
pub(crate) fn prepare(fd: BorrowedFd<'_>, deadline: Duration, turn: Duration) -> Result<()> {
    // The time until a question, until the next one, and until its answer.
    let question = Duration::from_secs((deadline.as_secs() / 3).max(1));
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_timeout(fd, Timeout::Recv, Some(turn))?;
    sockopt::set_socket_timeout(fd, Timeout::Send, Some(turn))?;
    sockopt::set_tcp_keepidle(fd, question)?;
    sockopt::set_tcp_keepintvl(fd, question)?;
    sockopt::set_tcp_keepcnt(fd, QUESTIONS)?;
    sockopt::set_socket_keepalive(fd, true)?;
    // If it is refused, a peer whose window is full is asked every two minutes.
    let _ = set_longest_interval(fd, question);
    Ok(())
}

fn set_longest_interval(fd: BorrowedFd<'_>, interval: Duration) -> Result<()> {
    // The kernel's own limits.
    let millis: c_int = interval.as_millis().clamp(1000, 120_000) as c_int;
    // SAFETY: the option is an int, which is borrowed for the call, and its size is the length that is told.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const millis).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if set == -1 { Err(errno()) } else { Ok(()) }
}

/// The silence of a peer, as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// How long nothing came from it, not even an acknowledgement.
    pub(crate) lasts: Duration,
    /// Whether the peer's kernel had something to answer: bytes or a question were sent to it.
    pub(crate) is_asked: bool,
}

/// The beginning of the kernel's `struct tcp_info`, which only ever grows at its end.
#[repr(C)]
#[derive(Default)]
struct Info {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    others: [u8; 4],
    /// `tcpi_rto` to `tcpi_rcv_mss`.
    sizes: [u32; 4],
    unacked: u32,
    /// `tcpi_sacked` to `tcpi_last_ack_sent`.
    more: [u32; 6],
    last_data_recv: u32,
    last_ack_recv: u32,
}

/// Returns how long the peer of a connection has said nothing.
pub(crate) fn silence(fd: BorrowedFd<'_>) -> Result<Silence> {
    let mut info = Info::default();
    let mut len = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `len` bytes into a structure of that size, which is borrowed exclusively. Its fields
    // are numbers: every bit pattern is a value.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if got == -1 {
        return Err(errno());
    }
    Ok(Silence {
        lasts: Duration::from_millis(info.last_data_recv.min(info.last_ack_recv).into()),
        is_asked: info.unacked > 0 || info.probes > 0,
    })
}
