//! Signals: what the process does about one, and keeping one away for the length of a call.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Errno, Result, errno};

/// Whether the kernel takes ended children away by itself, so that nobody can wait for one.
pub(crate) fn loses_children() -> bool {
    disposition(libc::SIGCHLD)
        .is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
}

fn disposition(signal: libc::c_int) -> Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; the old one is written to memory that is ours and large enough.
    match unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: zeroed bytes are a valid sigaction (integers, and a handler that may be 0), and the call filled it.
        0 => Ok(unsafe { action.assume_init() }),
        _ => Err(errno()),
    }
}

/// Set in a child whose signals were reset, where ends may have been made while `SIGPIPE` was ignored.
static RESET: AtomicBool = AtomicBool::new(false);

/// What has to be done about `SIGPIPE` when writing to a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sigpipe {
    /// The process ignores it: nothing.
    Ignored,
    /// It would come, and must not.
    Avoid,
}

impl Sigpipe {
    /// What goes for an end that is being made.
    pub(crate) fn look() -> Self {
        match disposition(libc::SIGPIPE) {
            Ok(action) if action.sa_sigaction == libc::SIG_IGN => Sigpipe::Ignored,
            _ => Sigpipe::Avoid,
        }
    }

    /// What goes for an end that was made earlier.
    #[inline]
    pub(crate) fn now(self) -> Self {
        if RESET.load(Ordering::Relaxed) { Sigpipe::Avoid } else { self }
    }

    /// Makes a call that raises the signal and has no flag against it.
    pub(crate) fn avoid<T>(self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Sigpipe::Ignored => call(),
            Sigpipe::Avoid => without_sigpipe(call),
        }
    }
}

/// Sets every signal to its default.
pub(crate) fn reset_all() {
    RESET.store(true, Ordering::Relaxed);
    // SAFETY: zeroed bytes are a valid sigaction: SIG_DFL, no flags, an empty mask.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: a valid action and no place for the old one. Signals that cannot be set (SIGKILL, SIGSTOP, the two
        // that libc keeps for itself) are refused with EINVAL, which is as it should be.
        unsafe { libc::sigaction(signal, &default, std::ptr::null_mut()) };
    }
}

/// A signal mask to come back to.
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// Blocks every signal in this thread.
    pub(crate) fn block_all() -> Self {
        let mut all = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the set.
        let all = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            all.assume_init()
        };
        Self::change(libc::SIG_SETMASK, &all)
    }

    /// Blocks none in this thread.
    pub(crate) fn set_empty() -> Self {
        let mut none = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set.
        let none = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            none.assume_init()
        };
        Self::change(libc::SIG_SETMASK, &none)
    }

    fn change(how: libc::c_int, set: &libc::sigset_t) -> Self {
        let mut old = MaybeUninit::zeroed();
        // SAFETY: both sets are ours, and `how` is a valid choice, so the call cannot fail (pthread_sigmask.3).
        unsafe {
            libc::pthread_sigmask(how, set, old.as_mut_ptr());
            Self(old.assume_init())
        }
    }

    /// Makes this the thread's mask.
    pub(crate) fn restore(&self) {
        Self::change(libc::SIG_SETMASK, &self.0);
    }
}

/// Makes a call that may raise `SIGPIPE`, and takes the signal away before anybody sees it.
///
/// The kernel sends that signal to the calling thread, so it is blocked here, and one that came is taken with
/// `sigtimedwait`. One that was pending before the call stays.
pub(crate) fn without_sigpipe<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut sigpipe = MaybeUninit::uninit();
    let mut pending = MaybeUninit::zeroed();
    // SAFETY: sigemptyset initialises the set and sigaddset adds a valid signal; sigpending fills the other.
    let (sigpipe, was_pending) = unsafe {
        libc::sigemptyset(sigpipe.as_mut_ptr());
        libc::sigaddset(sigpipe.as_mut_ptr(), libc::SIGPIPE);
        libc::sigpending(pending.as_mut_ptr());
        (sigpipe.assume_init(), libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1)
    };
    let before = Mask::change(libc::SIG_BLOCK, &sigpipe);
    let result = call();
    // Whatever the result: a write whose last reader left half-way returns what went in, and raises the signal too.
    if !was_pending {
        take_own(&sigpipe);
    }
    before.restore();
    result
}

/// Takes a blocked `SIGPIPE` that the kernel sent for a call of this process. One from another process, which came
/// meanwhile, is none of ours to take: it is sent on.
fn take_own(sigpipe: &libc::sigset_t) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut details = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: a valid set and time, and room for the details, which are integers. The sender's number is there for every
    // signal that somebody sent; the kernel names the process itself. And numbers, for kill.
    unsafe {
        loop {
            match libc::sigtimedwait(sigpipe, details.as_mut_ptr(), &at_once) {
                -1 if errno() == Errno::INTR => continue,
                -1 => return, // EAGAIN: none came
                _ => break,
            }
        }
        if details.assume_init().si_pid() != libc::getpid() {
            libc::kill(libc::getpid(), libc::SIGPIPE);
        }
    }
}
