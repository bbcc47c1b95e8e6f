//! Signals: the process's action for one, and keeping one away for the length of a call.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Errno, Result, errno};

/// Returns whether the kernel reaps ended children by itself, so that none can be waited for.
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

/// How a write to a pipe avoids `SIGPIPE`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sigpipe {
    /// The process ignores it, so nothing is to do.
    Ignored,
    /// It would come, and must not.
    Avoid,
}

impl Sigpipe {
    /// For an end that is being made.
    pub(crate) fn look() -> Self {
        match disposition(libc::SIGPIPE) {
            Ok(action) if action.sa_sigaction == libc::SIG_IGN => Sigpipe::Ignored,
            _ => Sigpipe::Avoid,
        }
    }

    /// For an end that was made earlier.
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

/// Ignores `SIGPIPE`, as Rust's standard library does before `main`.
#[cfg(feature = "testing")]
pub(crate) fn ignore_sigpipe() {
    // SAFETY: numbers, and the action to ignore it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

    /// Blocks these too in this thread.
    pub(super) fn add(set: &libc::sigset_t) -> Self {
        Self::change(libc::SIG_BLOCK, set)
    }

    /// Blocks these no longer in this thread.
    pub(super) fn remove(set: &libc::sigset_t) -> Self {
        Self::change(libc::SIG_UNBLOCK, set)
    }

    /// Returns whether a signal is blocked in it.
    pub(super) fn has(&self, signal: i32) -> bool {
        // SAFETY: an initialised set, and a number, of which libc sees whether it is a signal's.
        unsafe { libc::sigismember(&self.0, signal) == 1 }
    }

    /// Blocks one signal less, when it becomes the thread's mask.
    pub(super) fn take_out(&mut self, signal: i32) {
        // SAFETY: as above.
        unsafe { libc::sigdelset(&mut self.0, signal) };
    }

    /// Makes this the thread's mask.
    pub(crate) fn restore(&self) {
        Self::change(libc::SIG_SETMASK, &self.0);
    }
}

/// The kernel's own numbers: libc keeps two signals for itself, and hides them.
mod kernel {
    /// How many signals there are.
    pub(super) const SIGNALS: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 128 } else { 64 };

    /// The bytes of a set of them.
    pub(super) const SET: usize = SIGNALS as usize / 8;

    /// The word of an action that has the handler. An action begins with it, or with the flags.
    pub(super) const HANDLER: usize = if SIGNALS == 64 { 0 } else { 1 };
}

/// The action of a process for one signal, as the kernel has it: larger than that on any architecture.
#[derive(Clone, Copy)]
#[repr(C)]
struct Action([usize; 16]);

impl Action {
    /// Zeroes are `SIG_DFL`, no flags and an empty mask, in whatever order.
    const DEFAULT: Self = Self([0; 16]);

    fn of(signal: i32) -> Result<Self> {
        let mut action = Self::DEFAULT;
        let none = std::ptr::null::<Action>();
        // SAFETY: no new action, and room for the old one.
        match unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, kernel::SET) } {
            0 => Ok(action),
            _ => Err(errno()),
        }
    }

    /// Fails for `SIGKILL` and `SIGSTOP`, which are always at their default.
    fn set(&self, signal: i32) -> Result<()> {
        let none = std::ptr::null_mut::<Action>();
        // SAFETY: an action that is the default, or one that the kernel gave before.
        match unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const *self, none, kernel::SET) } {
            0 => Ok(()),
            _ => Err(errno()),
        }
    }

    fn handler(&self) -> usize {
        self.0[kernel::HANDLER]
    }
}

/// Resets the signals that a program must not begin with. They are every signal that is caught, `SIGPIPE`, which Rust programs
/// ignore, and `SIGCHLD`, without which a program cannot wait for its children. Other signals stay ignored ([nohup(1)]). Caught
/// signals can be left to [execve(2)], which resets them too: other threads may still count on them.
///
/// Async-signal-safe, also where the memory is another process's.
///
/// [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html
/// [nohup(1)]: https://man7.org/linux/man-pages/man1/nohup.1.html
pub(super) fn default_for_a_program(also_caught: bool) {
    for signal in 1..=kernel::SIGNALS {
        let Ok(action) = Action::of(signal) else { continue };
        if signal == libc::SIGPIPE && action.handler() == libc::SIG_IGN && !also_caught {
            // Other threads may write without a reader until the program runs, and would end this process.
            catch_sigpipe();
        } else if is_reset(signal, &action, also_caught) {
            // The two signals that this is refused for are at their default.
            let _ = Action::DEFAULT.set(signal);
        }
    }
}

/// Catches `SIGPIPE` with a handler that does nothing. This is as harmless as ignoring it, and execve(2) makes it the
/// default.
fn catch_sigpipe() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeroed bytes are a valid sigaction, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPIPE, &action, std::ptr::null_mut());
    }
}

fn is_reset(signal: i32, action: &Action, also_caught: bool) -> bool {
    match action.handler() {
        libc::SIG_DFL => false,
        libc::SIG_IGN => matches!(signal, libc::SIGPIPE | libc::SIGCHLD),
        _ => also_caught,
    }
}

/// The actions of this process for signals, to be put back.
pub(super) struct Actions(Vec<(i32, Action)>);

impl Actions {
    /// Of every signal; or, among threads, which may change the others meanwhile, of those that [`default_for_a_program`] sets.
    pub(super) fn save(among_threads: bool) -> Self {
        let actions = (1..=kernel::SIGNALS).filter_map(|signal| Some((signal, Action::of(signal).ok()?)));
        Self(actions.filter(|(signal, action)| !among_threads || is_reset(*signal, action, false)).collect())
    }

    pub(super) fn restore(&self) {
        for (signal, action) in &self.0 {
            // Refused for the two that cannot be changed.
            let _ = action.set(*signal);
        }
    }
}

/// This thread's signal mask as the kernel has it, with the signals that libc keeps for itself.
pub(super) struct KernelMask([u64; 2]);

impl KernelMask {
    pub(super) fn block_all() -> Self {
        Self::set(&[u64::MAX; 2])
    }

    pub(super) fn set_empty() -> Self {
        Self::set(&[0; 2])
    }

    pub(super) fn restore(&self) {
        Self::set(&self.0);
    }

    fn set(mask: &[u64; 2]) -> Self {
        let mut old = [0; 2];
        // SAFETY: two sets of the size that is said, or larger. The call cannot fail with these (rt_sigprocmask.2).
        unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask.as_ptr(), old.as_mut_ptr(), kernel::SET);
        }
        Self(old)
    }
}

/// Makes a call that may raise `SIGPIPE`, and takes the signal away before a handler sees it.
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
    // After any result: a write whose last reader left half-way returns a count, and raises the signal too.
    if !was_pending {
        take_own(&sigpipe);
    }
    before.restore();
    result
}

/// Takes a blocked `SIGPIPE` that the kernel sent for a call of this process. One from another process, which came
/// meanwhile, is not ours to take: it is sent on.
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
