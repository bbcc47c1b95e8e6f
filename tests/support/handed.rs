//! Calls that a filter hands to this process (`SECCOMP_RET_TRAP`, seccomp.2), to be answered as another kernel would: for what a
//! filter alone cannot play, such as a kernel that takes a flag and does not heed it.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The last argument of `sendmsg` that lets the call through: the kernel does not look at it.
pub const MADE_HERE: u32 = 0x6d61_6465;

/// How many calls were handed over.
static HANDED: AtomicUsize = AtomicUsize::new(0);

/// How many calls of this process were handed over so far.
pub fn handed() -> usize {
    HANDED.load(SeqCst)
}

/// Takes what is handed over. The handler is not there in a program that is started.
pub(super) fn take_calls() {
    // SAFETY: zeroed bytes are a valid action. The handler makes calls, and adds to an atomic.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = answer as extern "C" fn(_, _, _) as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn answer(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    HANDED.fetch_add(1, SeqCst);
    // SAFETY: the third argument of such a handler is this, and nobody else looks at it meanwhile.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let (call, arguments) = asked(context);
    // SAFETY: the call of the code that was interrupted, with its own arguments.
    let result = unsafe { make(call, arguments) };
    set_result(context, result);
}

/// Makes the call as gVisor does: flags of reads and writes do nothing, and empty messages get lost.
///
/// # Safety
///
/// As for the call.
unsafe fn make(call: libc::c_long, arguments: [libc::c_long; 6]) -> libc::c_long {
    let [a, b, c, d, e, _] = arguments;
    // SAFETY: as the caller says. libc keeps errno for the code that was interrupted, which does not look before its own call
    // has its result.
    let result = unsafe {
        match call {
            libc::SYS_preadv2 | libc::SYS_pwritev2 => libc::syscall(call, a, b, c, d, e, 0),
            libc::SYS_sendmsg if is_empty(b as *const libc::msghdr) => 0,
            libc::SYS_sendmsg => libc::syscall(call, a, b, c, 0, 0, MADE_HERE as libc::c_long),
            _ => return -libc::c_long::from(libc::ENOSYS),
        }
    };
    match result {
        -1 => -libc::c_long::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        result => result,
    }
}

/// # Safety
///
/// The message is one, with its parts.
unsafe fn is_empty(message: *const libc::msghdr) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        let parts = std::slice::from_raw_parts((*message).msg_iov, (*message).msg_iovlen as _);
        parts.iter().all(|part| part.iov_len == 0)
    }
}

#[cfg(target_arch = "x86_64")]
fn asked(context: &libc::ucontext_t) -> (libc::c_long, [libc::c_long; 6]) {
    use libc::{REG_R8, REG_R9, REG_R10, REG_RAX, REG_RDI, REG_RDX, REG_RSI};
    let register = |number: libc::c_int| context.uc_mcontext.gregs[number as usize] as libc::c_long;
    (register(REG_RAX), [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(register))
}

#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t, result: libc::c_long) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result as _;
}

#[cfg(target_arch = "aarch64")]
fn asked(context: &libc::ucontext_t) -> (libc::c_long, [libc::c_long; 6]) {
    let register = |number: usize| context.uc_mcontext.regs[number] as libc::c_long;
    (register(8), [0, 1, 2, 3, 4, 5].map(register))
}

#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t, result: libc::c_long) {
    context.uc_mcontext.regs[0] = result as _;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn asked(_: &libc::ucontext_t) -> (libc::c_long, [libc::c_long; 6]) {
    unimplemented!("nobody has said where this processor has a call's arguments")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_result(_: &mut libc::ucontext_t, _: libc::c_long) {}
