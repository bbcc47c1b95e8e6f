//! This process and its children: leaving, the parent, holding a child, waiting for it, signals.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::fork::Gate;
use super::{Errno, Result, errno, retry};

/// Writes to stderr without a lock.
pub(crate) fn print(mut text: &str) -> Result<()> {
    while !text.is_empty() {
        let len = retry(|| rustix::io::write(rustix::stdio::stderr(), text.as_bytes()))?;
        text = text.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// Leaves the process at once: no destructors, no `atexit` handlers.
pub(crate) fn exit(status: u8) -> ! {
    // SAFETY: _exit has no conditions.
    unsafe { libc::_exit(status.into()) }
}

/// Leaves a child that cannot keep a promise of the crate's, before it runs any of the caller's code.
pub(crate) fn give_up(why: &str) -> ! {
    // Allocates nothing and takes no lock. The child leaves even if nobody reads it.
    let _ = rustix::io::write(rustix::stdio::stderr(), why.as_bytes());
    exit(101)
}

/// The number of this process.
pub(crate) fn own_pid() -> Pid {
    rustix::process::getpid()
}

/// This process, if a command of std's has a hook of this crate's. It is noted anew in each child that this crate forks, and not in
/// a process that std makes for a program.
static KEPT: AtomicI32 = AtomicI32::new(0);

/// Notes this process.
pub(crate) fn keep_own() {
    KEPT.store(own_pid().as_raw_nonzero().get(), Ordering::SeqCst);
}

/// Notes a child that was just forked, if its parent was noted.
pub(super) fn forked() {
    if KEPT.load(Ordering::SeqCst) != 0 {
        keep_own();
    }
}

/// Returns whether this process is the noted one. (The first one of a pid namespace, and its child that is the first of
/// another, have the same number.)
pub(crate) fn is_kept() -> bool {
    KEPT.load(Ordering::SeqCst) == own_pid().as_raw_nonzero().get()
}

/// Fails where [`die_with`] would, in the child.
pub(crate) fn check_die_with() -> Result<()> {
    rustix::process::set_parent_process_death_signal(rustix::process::parent_process_death_signal()?)
}

const OWN_PIDS: &CStr = c"/proc/self/ns/pid";
const CHILDRENS_PIDS: &CStr = c"/proc/self/ns/pid_for_children";

/// The inode of a namespace.
fn namespace(path: &CStr) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_ino)
}

/// Returns whether children of this process are known to be in another PID namespace than this process (unshare, setns).
pub(crate) fn children_are_elsewhere() -> bool {
    match (namespace(OWN_PIDS), namespace(CHILDRENS_PIDS)) {
        (Some(own), Some(childrens)) => own != childrens,
        // A namespace without its first process cannot be looked at. Before Linux 4.12 there is no such file.
        (Some(_), None) => rustix::fs::lstat(CHILDRENS_PIDS).is_ok(),
        (None, _) => false,
    }
}

/// A process that another one is to die with.
pub(crate) struct Parent {
    pid: Pid,
    /// If the other one cannot see it as its parent.
    pidfd: Option<OwnedFd>,
}

impl Parent {
    /// This process, as its child will know it.
    pub(crate) fn new() -> Result<Self> {
        let pid = own_pid();
        // In the pid namespace of children that are started in another one (unshare, setns), this process has the number 0.
        let childrens = namespace(CHILDRENS_PIDS);
        let pidfd = match childrens.is_some() && childrens == namespace(OWN_PIDS) {
            true => None,
            false => Some(super::descriptor::above_standard(pidfd(pid)?, None)),
        };
        Ok(Self { pid, pidfd })
    }

    /// This process's own parent, if it is to be seen from here.
    pub(super) fn own() -> Option<Self> {
        rustix::process::getppid().map(|pid| Self { pid, pidfd: None })
    }

    /// The same, with its descriptor at none of these numbers.
    pub(super) fn apart_from(self, sorted: &[RawFd]) -> Result<Self> {
        let pidfd = self.pidfd.map(|pidfd| super::start::apart_from(pidfd, sorted)).transpose()?;
        Ok(Self { pidfd, ..self })
    }

    /// The number of its descriptor, if it has one.
    pub(super) fn number(&self) -> Option<RawFd> {
        self.pidfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// In the child: whether the parent is another one by now.
    pub(super) fn has_left(&self) -> Result<bool> {
        match &self.pidfd {
            None => Ok(rustix::process::getppid() != Some(self.pid)),
            Some(pidfd) => Ok(super::poll::look(pidfd.as_fd(), super::poll::POLLIN)? != 0),
        }
    }

    /// In the child: asks the kernel to kill this process when the thread that forked it ends.
    pub(crate) fn die_with(&self) -> Result<()> {
        ask_to_die()?;
        if self.has_left()? {
            rustix::process::kill_process(own_pid(), Signal::KILL)?;
            // The first process of a pid namespace does not die of its own signals.
            exit(128 + SIGKILL as u8);
        }
        Ok(())
    }
}

/// Asks the kernel to kill this process when the thread that started it ends. It does not, where that has ended before.
pub(super) fn ask_to_die() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// A descriptor that stands for the child of that number. It must not have been waited for.
pub(crate) fn pidfd(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Set once the kernel was seen to have the calls that hold forked children and wait for programs.
static CAN_HOLD: AtomicBool = AtomicBool::new(false);
static CAN_WAIT: AtomicBool = AtomicBool::new(false);

/// Fails, with the name of the call, if a forked child could not be held or waited for. It is asked before the fork, as a child
/// would have to be killed in the middle of its work. Kernels have had both calls since 5.4; a sandbox may refuse them.
pub(crate) fn check_holding() -> std::result::Result<(), (&'static str, Errno)> {
    check_waiting()?;
    if CAN_HOLD.load(Ordering::Relaxed) {
        return Ok(());
    }
    match pidfd(own_pid()) {
        Ok(_) => CAN_HOLD.store(true, Ordering::Relaxed),
        // Not known. Making the child finds the table full as well.
        Err(Errno::MFILE | Errno::NFILE) => {}
        Err(errno) => return Err(("pidfd_open", errno)),
    }
    Ok(())
}

/// The same for a program, whose pidfd comes with it.
pub(crate) fn check_waiting() -> std::result::Result<(), (&'static str, Errno)> {
    if CAN_WAIT.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: a number, which no descriptor has.
    let none = unsafe { BorrowedFd::borrow_raw(RawFd::MAX) };
    match reap(none) {
        Err(Errno::BADF) => CAN_WAIT.store(true, Ordering::Relaxed),
        Err(errno) => return Err(("waitid", errno)),
        Ok(_) => {}
    }
    Ok(())
}

/// Kills a child that there is no pidfd for, if it is still there.
pub(crate) fn kill_number(pid: Pid) {
    // A number that is no child's any more may be another process's.
    if retry(|| rustix::process::waitid(WaitId::Pid(pid), LOOK)).is_ok() {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The same, and blocks until it has left.
pub(crate) fn kill_and_reap(pid: Pid) {
    kill_number(pid);
    await_number(pid);
}

/// Takes the status of a child that was killed by its number, if it has left. Returns whether it has still to leave.
pub(crate) fn is_leaving(pid: Pid) -> bool {
    matches!(
        retry(|| rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | ALL)),
        Ok(None)
    )
}

/// Takes the status of a child that leaves. An error would mean that other code has taken it.
fn await_number(pid: Pid) {
    let _ = retry(|| rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | ALL));
}

/// A descriptor for a child that was started without one. Fails if it was waited for since.
pub(crate) fn pidfd_of_child(pid: Pid) -> Result<OwnedFd> {
    // Gone, if other code has waited for it.
    let pidfd = pidfd(pid).map_err(|errno| if errno == Errno::SRCH { Errno::CHILD } else { errno })?;
    // The number may be another process's by now. One that cannot be waited for is no child of ours.
    retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), LOOK))?;
    Ok(super::descriptor::above_standard(pidfd, None))
}

/// The same. Opens its gate; a child that cannot be held is ended.
pub(crate) fn hold(pid: Pid, gate: Option<Gate>) -> Result<OwnedFd> {
    match (pidfd_of_child(pid), gate) {
        (Ok(pidfd), gate) => {
            if let Some(gate) = gate {
                gate.open();
            }
            Ok(pidfd)
        }
        (Err(Errno::CHILD), _) => Err(Errno::CHILD),
        (Err(errno), Some(gate)) => {
            // It leaves by itself. Its number gets no signal: it may have been killed and waited for meanwhile.
            gate.refuse();
            await_number(pid);
            Err(errno)
        }
        (Err(errno), None) => {
            kill_and_reap(pid);
            Err(errno)
        }
    }
}

/// Whether a child can be waited for. Leaves its status where it is.
const LOOK: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT).union(ALL);

/// Also of a child that does not run its program yet, whose exit signal is 0 (`__WALL`, [waitpid(2)]).
///
/// [waitpid(2)]: https://man7.org/linux/man-pages/man2/waitpid.2.html
const ALL: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL as u32);

/// Blocks until a child that leaves has left, and takes its status away.
pub(super) fn take_away(pidfd: BorrowedFd<'_>) -> Result<()> {
    retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | ALL)).map(drop)
}

/// Sets a resource limit of this process, which may share its memory with another.
pub(super) fn set_limit(which: i32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard]; // rlimit64, on every architecture
    // SAFETY: a limit to read from, and none to write to. 0 is this process.
    match unsafe { libc::syscall(libc::SYS_prlimit64, 0, which, limit.as_ptr(), std::ptr::null_mut::<u64>()) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Blocks until the child has left and its status can be had, and leaves it there.
pub(crate) fn await_exit(pidfd: BorrowedFd<'_>) -> Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | ALL;
    retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)).map(drop)
}

/// The wait status ([wait(2)]) of the child if it has left. The kernel tells it once.
///
/// [wait(2)]: https://man7.org/linux/man-pages/man2/wait.2.html
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    wait_status(pidfd, WaitIdOptions::empty())
}

/// The same, which can be asked for again.
pub(crate) fn peek(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    wait_status(pidfd, WaitIdOptions::NOWAIT)
}

fn wait_status(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<i32>> {
    let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG | ALL;
    let Some(status) = retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options))? else {
        return Ok(None);
    };
    Ok(Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | 0x80,
        (None, Some(signal)) => signal,
        (None, None) => return Ok(None), // stopped or continued, which was not asked for
    }))
}

pub(crate) use libc::{SIGKILL, SIGTERM};

/// Sends a signal to exactly that process.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers and a null pointer; without details the kernel fills in those of kill(2).
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, details, 0) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Sends a signal to the group that the process leads. `was_reaped`: the number is perhaps another's.
pub(crate) fn send_group_signal(pidfd: BorrowedFd<'_>, pid: i32, was_reaped: bool, signal: i32) -> Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4; // Linux 6.9
    let details = std::ptr::null::<libc::siginfo_t>();
    let flags = PIDFD_SIGNAL_PROCESS_GROUP;
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, details, flags) } {
        0 => return Ok(()),
        _ => match errno() {
            // Before 6.9; or there is no such signal, which kill reports again.
            Errno::INVAL => {}
            errno => return Err(errno),
        },
    }
    if was_reaped || retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), LOOK)).is_err() {
        return Err(Errno::SRCH);
    }
    // SAFETY: numbers. The process is our child, and nobody has waited for it, so its number is its own.
    match unsafe { libc::kill(-pid, signal) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Returns whether a process of that group runs. `false` where /proc does not say.
pub(crate) fn group_goes_on(group: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            return false;
        }
        // The name, in parentheses, may have any byte in it. Then: state, parent, group.
        let stat = std::fs::read(process.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
        let mut fields = rest.split(|byte| *byte == b' ').skip(1);
        let state = fields.next();
        let is_its = fields.nth(1) == Some(group.to_string().as_bytes());
        // After the first thread has left, the state is still its own. The other threads are counted 14 fields on.
        let mut others = || fields.nth(14).is_some_and(|threads| !matches!(threads, b"0" | b"1"));
        is_its && state.is_some_and(|state| !matches!(state, b"Z" | b"X") || others())
    })
}
