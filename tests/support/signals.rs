//! What a process does about signals. A test has a process of its own, so what is not a guard stays for the whole test.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// What the process does about `SIGPIPE`.
#[derive(Clone, Copy, Debug)]
pub enum Sigpipe {
    /// It kills.
    Default,
    /// What the main function of every Rust program starts with.
    Ignore,
}

pub fn sigpipe(disposition: Sigpipe) {
    let handler = match disposition {
        Sigpipe::Default => libc::SIG_DFL,
        Sigpipe::Ignore => libc::SIG_IGN,
    };
    set_action(libc::SIGPIPE, handler);
}

/// How often the handler was called.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Counts a signal from now on, see [`handled`]. It interrupts system calls.
pub fn handle_signal(signal: libc::c_int) {
    set_action(signal, count as *const () as libc::sighandler_t);
}

/// How many signals were handled so far.
pub fn handled() -> usize {
    HANDLED.load(SeqCst)
}

/// Returns what was there before.
fn set_action(signal: libc::c_int, handler: libc::sighandler_t) -> libc::sigaction {
    let mut old = MaybeUninit::zeroed();
    // SAFETY: zeroed bytes are a valid action without flags, so without SA_RESTART; the handler adds to an atomic, which
    // is safe at any time; the old action has room.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(signal, &action, old.as_mut_ptr()), 0, "{}", std::io::Error::last_os_error());
        old.assume_init()
    }
}

/// Interrupts system calls by `SIGALRM` all the time, every `period`, while `body` runs.
pub fn with_interval_timer<T>(period: Duration, body: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigaction);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_timer(Duration::ZERO);
            // SAFETY: the action that was there before.
            unsafe { libc::sigaction(libc::SIGALRM, &self.0, std::ptr::null_mut()) };
        }
    }
    let _restore = Restore(set_action(libc::SIGALRM, count as *const () as libc::sighandler_t));
    set_timer(period);
    body()
}

fn set_timer(period: Duration) {
    let period = libc::timeval { tv_sec: period.as_secs() as _, tv_usec: period.subsec_micros() as _ };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: a valid timer, and the old one is not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn only(signal: libc::c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the signal is valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        set.assume_init()
    }
}

pub fn block_signal(signal: libc::c_int) {
    // SAFETY: a valid set, and the old one is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &only(signal), std::ptr::null_mut()) };
    assert_eq!(result, 0);
}

fn members(set: &libc::sigset_t) -> Vec<libc::c_int> {
    // SAFETY: an initialised set and valid signals.
    (1..=libc::SIGRTMAX()).filter(|signal| unsafe { libc::sigismember(set, *signal) } == 1).collect()
}

/// The signals that are blocked.
pub fn signal_mask() -> Vec<libc::c_int> {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: no new set, and room for the one that is there.
    unsafe {
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()), 0);
        members(&set.assume_init())
    }
}

/// Whether the signal was sent and is held back.
pub fn is_pending(signal: libc::c_int) -> bool {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: room for the set.
    unsafe {
        assert_eq!(libc::sigpending(set.as_mut_ptr()), 0);
        members(&set.assume_init()).contains(&signal)
    }
}

/// Takes a signal that is blocked and pending.
pub fn take_pending(signal: libc::c_int) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid set and a valid time; no details are asked for.
    let taken = unsafe { libc::sigtimedwait(&only(signal), std::ptr::null_mut(), &at_once) };
    assert_eq!(taken, signal, "the signal was pending");
}
