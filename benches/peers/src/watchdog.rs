//! Ends a run that hangs, and says who was at it.
//!
//! It is a signal and no thread: a process with threads cannot be forked safely, and this one is, all the time.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What to print when the time is up; of the [`Watch`] that is alive.
static MESSAGE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The processes to end then; 0: a free place.
static CHILDREN: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

/// The status of a run that was ended, as timeout(1) has it.
const TIMED_OUT: i32 = 124;

/// Watches over something, until it is dropped. One at a time.
pub struct Watch {
    _message: String,
}

impl Watch {
    pub fn over(what: &str, limit: Duration) -> Self {
        let message = format!("\npeers: no end after {} s, so this run ends: {what}\n", limit.as_secs());
        LENGTH.store(message.len(), Relaxed);
        MESSAGE.store(message.as_ptr().cast_mut(), Relaxed);
        alarm(limit.as_secs());
        Self { _message: message }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        alarm(0);
        MESSAGE.store(null_mut(), Relaxed);
    }
}

fn alarm(seconds: u64) {
    // SAFETY: no pointers; children do not inherit it.
    unsafe { libc::alarm(seconds as libc::c_uint) };
}

/// Must come before the first [`Watch`].
pub fn install() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = time_is_up;
    // SAFETY: the handler does what is async-signal-safe, and never returns.
    let before = unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends that child too, if it comes to that.
pub fn add_child(pid: u32) {
    let free = CHILDREN.iter().find(|place| place.load(Relaxed) == 0).expect("there are never so many at once");
    free.store(pid as i32, Relaxed);
}

/// It was waited for.
pub fn remove_child(pid: u32) {
    CHILDREN.iter().filter(|place| place.load(Relaxed) == pid as i32).for_each(|place| place.store(0, Relaxed));
}

extern "C" fn time_is_up(_: libc::c_int) {
    let message = MESSAGE.load(Relaxed);
    // SAFETY: calls that are async-signal-safe; the message lives as long as the watch, and that is still there.
    unsafe {
        if !message.is_null() {
            libc::write(2, message.cast(), LENGTH.load(Relaxed));
        }
        for pid in CHILDREN.iter().map(|place| place.load(Relaxed)).filter(|pid| *pid > 0) {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, null_mut(), 0);
        }
        libc::_exit(TIMED_OUT);
    }
}
