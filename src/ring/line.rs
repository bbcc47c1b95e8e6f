//! The socket between the two sides: one rings there, the other sleeps there, and its EOF means that a side is gone.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::error::Result;
use crate::socket::StreamSocket;
use crate::sys::poll::POLLIN;
use crate::sys::{self, Errno};
use crate::wait::{Look, Patience};

/// The operations of a side on the socket: by [`StreamSocket`], and by the model that checks the protocol.
pub(super) trait Line {
    /// Rings, without waiting for anything.
    fn ring(&self) -> sys::Result<Rung>;

    /// Takes the rings that are there, or waits for one.
    fn hear(&self, wait: bool) -> Result<Heard>;

    /// Waits until there is something to hear, and takes nothing.
    fn sleep(&self, patience: Patience) -> Result<()>;

    /// Lets some time pass, in which the kernel may find memory.
    fn pause(&self, time: Duration);

    /// Wakes the other side for good, which takes no memory. No side can ring any more.
    fn hang_up(&self);

    /// Returns whether a call is to look again before it sleeps.
    fn looks_again(&self, patience: Patience, look: &mut Look<'_>) -> bool;

    /// The core that this side runs on, now.
    fn core(&self) -> usize;
}

/// The outcome of a look at the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Silence,
    /// A ring, or a signal: time to look.
    Bell,
    /// The peer is gone.
    End,
}

/// The outcome of a ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// It is on its way.
    Heard,
    /// The kernel has no memory for it just now.
    Later,
    /// The peer is gone.
    Nobody,
}

impl Line for StreamSocket {
    #[cold]
    #[inline(never)]
    fn ring(&self) -> sys::Result<Rung> {
        match sys::retry(|| sys::socket::write(self.as_fd(), &[1], false)) {
            // No room: then it has not heard the rings before this one.
            Ok(_) | Err(Errno::AGAIN) => Ok(Rung::Heard),
            Err(Errno::NOBUFS | Errno::NOMEM) => Ok(Rung::Later),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Rung::Nobody),
            Err(errno) => Err(errno),
        }
    }

    fn hear(&self, wait: bool) -> Result<Heard> {
        match sys::socket::read(self.as_fd(), &mut [0; 256], wait) {
            Ok(0) => Ok(Heard::End),
            Ok(_) | Err(Errno::INTR) => Ok(Heard::Bell),
            Err(Errno::AGAIN) => Ok(Heard::Silence),
            // The peer has not heard all of our rings.
            Err(Errno::CONNRESET | Errno::NOTCONN) => Ok(Heard::End),
            Err(errno) => Err(self.end().error("recv", errno)),
        }
    }

    fn sleep(&self, patience: Patience) -> Result<()> {
        patience.sleep(self.end(), POLLIN)
    }

    fn pause(&self, time: Duration) {
        let _ = sys::poll::poll(&mut [], Some(time)); // a signal may end it
    }

    fn hang_up(&self) {
        // It fails if the peer is gone.
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
    }

    /// Makes no system call. Whether the socket waits at all shows when the side sleeps.
    fn looks_again(&self, patience: Patience, look: &mut Look<'_>) -> bool {
        patience.has_time_to_look(look)
    }

    fn core(&self) -> usize {
        sys::core()
    }
}
