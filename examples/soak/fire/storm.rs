//! A timer that interrupts every system call, again and again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many signals came to this process.
static CAME: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    CAME.fetch_add(1, Relaxed);
}

/// The storm lasts as long as this. It does not go along into a fork.
pub struct Storm(());

impl Storm {
    /// Interrupts this process every `period`, without `SA_RESTART`.
    pub fn begin(period: Duration) -> Self {
        CAME.store(0, Relaxed);
        // SAFETY: zeroed bytes are a valid action without flags, and the handler adds to an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count as *const () as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        }
        set_timer(period);
        Self(())
    }

    /// Returns how many signals it has brought so far.
    pub fn came(&self) -> u64 {
        CAME.load(Relaxed)
    }
}

impl Drop for Storm {
    /// The handler stays, for a signal that is under way.
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
    }
}

fn set_timer(period: Duration) {
    let period = libc::timeval { tv_sec: period.as_secs() as _, tv_usec: period.subsec_micros() as _ };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: a valid timer, and the old one is not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
