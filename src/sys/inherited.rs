//! The descriptors that this program was started with, noted before any of its code runs. One that is opened later has an owner,
//! even without close-on-exec.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::poll::{POLLNVAL, pollfd};

/// The numbers from 0 to this are noted.
pub(crate) const NOTED: RawFd = 1024;

static OPEN: [AtomicU64; NOTED as usize / 64] = [const { AtomicU64::new(0) }; NOTED as usize / 64];

static IS_NOTED: AtomicBool = AtomicBool::new(false);

/// The C library calls it when it starts the program, before `main`, on the only thread. In a library, it is called when that is
/// loaded.
#[used]
// SAFETY: the section is an array of functions of this kind. Arguments that some C libraries pass are ignored.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Code that opens descriptors before `main` calls it first, as the C library may have called that code first.
pub(super) extern "C" fn note() {
    if IS_NOTED.swap(true, Relaxed) {
        return;
    }
    let mut fds = [pollfd { fd: 0, events: 0, revents: 0 }; NOTED as usize];
    for (fd, number) in fds.iter_mut().zip(0..) {
        fd.fd = number;
    }
    // One call for all of them, which waits for nothing. It is refused where the limit of descriptors is lower.
    // SAFETY: that many structures, which outlive the call.
    let polled = unsafe { libc::poll(fds.as_mut_ptr().cast(), NOTED as libc::nfds_t, 0) };
    for fd in &fds {
        let is_open = match polled {
            -1 => {
                // SAFETY: a number, which need not be open.
                let flags = unsafe { libc::fcntl(fd.fd, libc::F_GETFD) };
                flags >= 0
            }
            _ => fd.revents & POLLNVAL == 0,
        };
        if is_open {
            OPEN[fd.fd as usize / 64].fetch_or(1 << (fd.fd % 64), Relaxed);
        }
    }
}

/// Returns whether the number was open when the program started. `None`: not known, as it is too large.
pub(crate) fn was_open(number: RawFd) -> Option<bool> {
    let word = OPEN.get(usize::try_from(number).ok()? / 64)?;
    Some(word.load(Relaxed) & (1 << (number % 64)) != 0)
}
