//! Processes that are not this one's children. Makes a sibling, which is a child of this process's parent, and asks for the
//! status of a process that another one waits for.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use super::fork::Permit;
use super::poll::{POLLIN, look};
use super::process::send_signal;
use super::{Errno, Result, errno};

/// The two processes after [`Thread::fork`].
pub(crate) enum Sibling {
    /// The new one.
    New,
    /// The one that made it. It has no new child.
    Maker(Pid, OwnedFd),
}

/// Whether processes work after a bare [clone(2)] with this libc, on an architecture that passes its arguments in one of the two
/// usual orders.
///
/// [clone(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
const KNOWN: bool = cfg!(all(
    target_env = "gnu",
    any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "arm",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "powerpc64",
        target_arch = "loongarch64",
    )
));

/// The thread that forks, as libc and the kernel keep it: it stays on this one.
pub(crate) struct Thread {
    /// The address at which libc has the thread's number.
    number: *mut libc::pid_t,
    /// The list of its robust mutexes, and the length of that list's head.
    robust: (*mut libc::c_void, usize),
}

impl Thread {
    /// This thread. `ENOSYS` where a copy of it would not be safe.
    pub(crate) fn current() -> Result<Self> {
        if !KNOWN {
            return Err(Errno::NOSYS);
        }
        let mut number = std::ptr::null_mut::<libc::pid_t>();
        // SAFETY: room for a pointer. A kernel without CONFIG_CHECKPOINT_RESTORE refuses it.
        if unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut number) } != 0 {
            return Err(errno());
        }
        // SAFETY: if it is not null, libc has told the kernel to write to it when the thread ends. So it is valid for as long as
        // the thread runs.
        if number.is_null() || unsafe { number.read() } != rustix::thread::gettid().as_raw_nonzero().get() {
            return Err(Errno::NOSYS);
        }
        let mut robust = (std::ptr::null_mut::<libc::c_void>(), 0_usize);
        // SAFETY: room for a pointer and a length. If it is refused, there is none.
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut robust.0, &raw mut robust.1) };
        Ok(Self { number, robust })
    }

    /// A fork whose child is a child of this process's parent: [clone(2)] with `CLONE_PARENT`. The pidfd comes with it.
    ///
    /// The plain call instead of [clone3(2)], which container runtimes refuse because they cannot look into it.
    ///
    /// [clone(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
    /// [clone3(2)]: https://man7.org/linux/man-pages/man2/clone3.2.html
    pub(crate) fn fork(&self, _alone: Permit) -> Result<Sibling> {
        let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        let mut pidfd: libc::c_int = -1;
        let no_stack = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: a copy of this process with a memory of its own, like a fork. The only thread is this one, and goes on in both,
        // each on its own copy of the stack. The kernel writes the pidfd to an integer that is ours. In the new process it writes
        // the thread's number to where libc keeps it, as for libc's own fork. The last two arguments change places between
        // architectures, and the kernel ignores one of them without CLONE_SETTLS.
        let pid = unsafe {
            let flags = flags as libc::c_ulong;
            libc::syscall(libc::SYS_clone, flags, no_stack, &raw mut pidfd, self.number, self.number)
        };
        match pid {
            -1 => Err(errno()),
            0 => {
                self.renew();
                super::process::forked();
                Ok(Sibling::New)
            }
            pid => {
                // SAFETY: the kernel just made it for this process, and nobody else knows its number.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
                Ok(Sibling::Maker(pid, pidfd))
            }
        }
    }

    /// In the new process, whose thread the kernel does not know the list of.
    fn renew(&self) {
        let (head, len) = self.robust;
        if !head.is_null() {
            // SAFETY: the head that libc registered in the process that this one is a copy of. It holds no lock: the caller
            // was the only thread, and holds none.
            unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) };
        }
    }
}

/// pidfs, as [ioctl(2)] numbers it.
///
/// [ioctl(2)]: https://man7.org/linux/man-pages/man2/ioctl.2.html
const PIDFS: u8 = 0xff;

/// `struct pidfd_info` in its first form.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Of the process, of its thread group and of its parent.
    pids: [u32; 3],
    users_and_groups: [u32; 8],
    exit_code: i32,
}

/// The exit status is known (`PIDFD_INFO_EXIT`).
const EXIT: u64 = 1 << 3;

/// The wait status ([wait(2)]) of a process that has left and was waited for, by any process. `None`: it was not yet. Linux
/// 6.15.
///
/// [wait(2)]: https://man7.org/linux/man-pages/man2/wait.2.html
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    let request = rustix::ioctl::opcode::read_write::<Info>(PIDFS, 11);
    // SAFETY: the request has the size of the structure in it, whose fields are integers, and the kernel fills no more.
    match unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &raw mut info) } {
        0 => Ok((info.mask & EXIT != 0).then_some(info.exit_code)),
        _ => Err(errno()),
    }
}

/// The wait status of a process that has left and was not waited for, as /proc has it ([proc_pid_stat(5)]). `None`: it runs, was
/// waited for, or /proc does not say.
///
/// [proc_pid_stat(5)]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
pub(crate) fn unreaped_status(pid: u32, pidfd: BorrowedFd<'_>) -> Option<i32> {
    if !look(pidfd, POLLIN).is_ok_and(|events| events & POLLIN != 0) {
        return None;
    }
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have any byte in it. Then: state, and 49 fields on, the status.
    let stat = String::from_utf8_lossy(stat.rsplit(|byte| *byte == b')').next()?);
    let mut fields = stat.split_ascii_whitespace();
    let has_left = fields.next() == Some("Z");
    let status = fields.nth(48)?.parse().ok()?;
    // It may show another PID namespace. A process that may not know sees 0.
    let is_own = std::fs::read_link("/proc/self").is_ok_and(|it| it.to_str() == Some(&std::process::id().to_string()));
    let is_true = is_own && has_left && (status != 0 || may_look_at(pid));
    // Last: until it is waited for, the number is its own.
    (is_true && send_signal(pidfd, 0) != Err(Errno::SRCH)).then_some(status)
}

/// Returns whether this process may look into that one, as [ptrace(2)] defines it for reading.
///
/// [ptrace(2)]: https://man7.org/linux/man-pages/man2/ptrace.2.html
fn may_look_at(pid: u32) -> bool {
    let (mut head, mut len) = (std::ptr::null_mut::<libc::c_void>(), 0_usize);
    // The call asks for the real user, and /proc for the effective one.
    let is_one_user = rustix::process::getuid() == rustix::process::geteuid()
        && rustix::process::getgid() == rustix::process::getegid();
    // SAFETY: the kernel writes a pointer and a length, for which there is room. The pointer is another process's, and not used.
    is_one_user && unsafe { libc::syscall(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut len) } == 0
}
