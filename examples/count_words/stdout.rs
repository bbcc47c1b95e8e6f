//! Standard output as C programs have it: a reader that left ends the program, and a closed one is an error.
//!
//! Before `main`, the standard library ignores `SIGPIPE` and opens `/dev/null` in place of each standard descriptor that is
//! closed. Both are right for most programs. One that is to fail as `wc` fails has to look earlier.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::Errno;

use crate::say;

static STDIN_WAS_CLOSED: AtomicBool = AtomicBool::new(false);
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);
static SIGPIPE_WAS_DEFAULT: AtomicBool = AtomicBool::new(false);

/// Called by the dynamic linker or by libc, before the standard library does anything.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let is_closed = |number| {
        // SAFETY: numbers. A descriptor that is not open is an error and no more.
        unsafe { libc::fcntl(number, libc::F_GETFD) == -1 }
    };
    STDIN_WAS_CLOSED.store(is_closed(libc::STDIN_FILENO), Relaxed);
    STDOUT_WAS_CLOSED.store(is_closed(libc::STDOUT_FILENO), Relaxed);
    // SAFETY: zeroes are a valid value of the struct, there is room for one, and no action is set.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action);
        action.sa_sigaction
    };
    SIGPIPE_WAS_DEFAULT.store(action == libc::SIG_DFL, Relaxed);
}

/// Returns whether there was no stdin when this program was started.
pub fn stdin_was_closed() -> bool {
    STDIN_WAS_CLOSED.load(Relaxed)
}

/// Writes to stdout, all of it.
pub fn put(text: &[u8]) -> io::Result<()> {
    if STDOUT_WAS_CLOSED.load(Relaxed) && !text.is_empty() {
        return Err(Errno::BADF.into());
    }
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// The exit of a program that cannot write to its stdout.
pub fn failed(error: &io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe && SIGPIPE_WAS_DEFAULT.load(Relaxed) {
        // SAFETY: the default action runs no code of this program, and no end is written to any more.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::raise(libc::SIGPIPE);
        }
        // Still here: the signal is blocked.
    }
    say(&format!("write error: {}", crate::reason(error)));
    ExitCode::FAILURE
}
