//! Whether empty messages arrive. gVisor drops them, with the descriptors beside them, and tells the sender that all is well.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::net::{RecvFlags, SendFlags, SocketType};

use super::{Errno, retry, rw_flags, socket};

/// No lock: a child that was forked while a thread held it would wait for ever.
static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);

const UNKNOWN: u8 = 0;
const ARRIVE: u8 = 1;
const ARE_LOST: u8 = 2;

/// Asks, once a process. Call it for each socket that is made or adopted, and not at the first message: by then the process may have a
/// filter that kills for calls it does not expect. For the ends of pipes that may arrive there, it asks about flags too.
#[inline]
pub(crate) fn ask() {
    if KNOWN.load(Relaxed) == UNKNOWN {
        ask_now();
    }
    rw_flags::ask();
}

#[cold]
fn ask_now() {
    // In a full table there is no answer. Empty messages then count as arriving, and the next socket asks again.
    let Ok((one, other)) = socket::pair(SocketType::SEQPACKET) else { return };
    let sent = retry(|| rustix::net::send(&one, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT));
    let received = retry(|| rustix::net::recv(other.as_fd(), &mut [0][..], RecvFlags::DONTWAIT));
    let known = match (sent, received) {
        (Ok(_), Err(Errno::AGAIN)) => ARE_LOST,
        (Err(Errno::NOBUFS | Errno::NOMEM), _) => return,
        _ => ARRIVE,
    };
    KNOWN.store(known, Relaxed);
}

/// Returns whether empty messages are lost, as far as is known. A receive of 0 bytes is then EOF, whatever is beside it.
#[inline]
pub(crate) fn are_lost() -> bool {
    KNOWN.load(Relaxed) == ARE_LOST
}
