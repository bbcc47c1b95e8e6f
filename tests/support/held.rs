//! System calls that another process lets go on (seccomp_unotify.2), so that a test can step in between two of them.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Holds every call of `call` with that first argument, in this process and in those that it makes from now on, until whoever
/// has the descriptor lets it go on.
pub fn hold_calls(call: libc::c_long, first: u32) -> OwnedFd {
    hold_calls_with(call, 0, first)
}

/// The same for an argument by its place, from 0.
pub fn hold_calls_with(call: libc::c_long, place: u32, argument: u32) -> OwnedFd {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let low = if cfg!(target_endian = "big") { 4 } else { 0 };
    // Where seccomp_data(seccomp.2) has the number of the call, and the lower half of the argument.
    let mut steps = [
        load(0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, call as u32),
        load(16 + 8 * place + low),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, argument),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: integers, and a program that lives as long as the call; then a descriptor that is nobody else's.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "{}", Error::last_os_error());
        let listener = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program);
        assert!(listener >= 0, "{}", Error::last_os_error());
        OwnedFd::from_raw_fd(listener as i32)
    }
}

/// A call that waits to go on.
pub struct Held<'a> {
    listener: &'a OwnedFd,
    id: u64,
    /// The process that made it.
    pub pid: u32,
}

impl<'a> Held<'a> {
    /// Waits for the next one.
    pub fn next(listener: &'a OwnedFd) -> Self {
        const RECEIVE: u32 = 0xc050_2100;
        // SAFETY: integers, for which zeroes are valid.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request has the size of the structure in it.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) };
        assert_eq!(received, 0, "{}", Error::last_os_error());
        Self { listener, id: call.id, pid: call.pid }
    }

    /// Lets it go on.
    pub fn go_on(self) {
        const CONTINUE: u32 = 1;
        self.answer(0, CONTINUE);
    }

    /// Refuses it.
    pub fn refuse(self, errno: i32) {
        self.answer(-errno, 0);
    }

    fn answer(self, error: i32, flags: u32) {
        const SEND: u32 = 0xc018_2101;
        let mut answer = libc::seccomp_notif_resp { id: self.id, val: 0, error, flags };
        // SAFETY: the request has the size of the structure in it.
        let sent = unsafe { libc::ioctl(self.listener.as_raw_fd(), SEND as _, &raw mut answer) };
        assert_eq!(sent, 0, "{}", Error::last_os_error());
    }
}
