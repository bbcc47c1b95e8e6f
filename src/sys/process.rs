//! Forking, leaving, and looking after a child.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::Timespec;

use super::ledger::Entry;
use super::{Errno, Result, errno, retry};

/// How long a thread that has been joined may still be on its way out.
const LEAVING: Duration = Duration::from_millis(20);

/// Which process this is after a fork.
pub(crate) enum Side {
    Child,
    Parent(Pid),
}

/// That a fork is safe, or somebody answers for it.
pub(crate) struct Permit {
    /// Other threads may run, and wait for children.
    is_promise: bool,
}

impl Permit {
    /// For a process with a single thread; otherwise the number of threads.
    pub(crate) fn alone() -> Result<std::result::Result<Self, usize>> {
        Ok(match second_thread()? {
            None => Ok(Self { is_promise: false }),
            Some(threads) => Err(threads),
        })
    }

    /// For a process that may have more.
    ///
    /// # Safety
    ///
    /// The child may only do what is async-signal-safe until it leaves or starts a program ([fork(2)]).
    ///
    /// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
    pub(crate) unsafe fn promised() -> Self {
        Self { is_promise: true }
    }

    /// A socket at which a child waits until it is held, where another thread could wait for it before.
    pub(crate) fn gate(&self) -> Result<Option<Gate>> {
        if self.is_promise { Gate::new().map(Some) } else { Ok(None) }
    }

    /// [fork(2)], through libc, so that its own locks are in order in the child. What the frames on the stack hold is held by
    /// both processes afterwards.
    ///
    /// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
    pub(crate) fn fork(self) -> Result<Side> {
        // SAFETY: a permit is there if this is the only thread, or if the caller of `promised` answers for the child.
        match unsafe { libc::fork() } {
            -1 => Err(errno()),
            0 => Ok(Side::Child),
            pid => Pid::from_raw(pid).map(Side::Parent).ok_or(Errno::SRCH),
        }
    }
}

/// Keeps a child from running before its parent holds it. Known to the ledger, so that other forks do not take it along.
///
/// A child severs nothing before it has passed its gate, so it keeps the gates open that were made before its own. A gate is
/// made and forked over under stdout's lock: of two children the later one has the other's gate, and never both.
pub(crate) struct Gate {
    parents: (Entry, OwnedFd),
    childs: (Entry, OwnedFd),
}

impl Gate {
    fn new() -> Result<Self> {
        let (one, other) = super::socket::pair(SocketType::STREAM)?;
        let enter = |fd: OwnedFd| {
            let fd = super::descriptor::above_standard(fd, None);
            (Entry::new(fd.as_raw_fd()), fd)
        };
        Ok(Self { parents: enter(one), childs: enter(other) })
    }

    /// In the child: whether the parent holds it.
    pub(crate) fn wait(self) -> bool {
        let Self { parents, childs } = self;
        drop(parents);
        let mut answer = [0; 1];
        retry(|| rustix::io::read(&childs.1, &mut answer)) == Ok(1) && answer == Self::GO
    }

    const GO: [u8; 1] = *b"!";
    const LEAVE: [u8; 1] = *b"-";

    /// In the parent: lets the child go on, or has it leave. Said, because EOF waits for every copy: a fork by somebody else,
    /// which knows no ledger, may have one.
    fn answer(self, answer: [u8; 1]) {
        // A child that was killed meanwhile hears nothing.
        let _ = retry(|| rustix::net::send(&self.parents.1, &answer, SendFlags::NOSIGNAL));
    }
}

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

/// Leaves a child that cannot be what was promised of it, before it runs anything of the caller's.
pub(crate) fn give_up(why: &str) -> ! {
    // Allocates nothing and takes no lock. That nobody reads it must not stop the child from leaving.
    let _ = rustix::io::write(rustix::stdio::stderr(), why.as_bytes());
    exit(101)
}

/// How many threads this process has, if more than one. A thread that is just leaving is given time to.
fn second_thread() -> Result<Option<usize>> {
    let mut started = None;
    loop {
        let Some(threads) = threads_now()? else { return Ok(None) };
        let started = started.get_or_insert_with(Instant::now);
        if started.elapsed() >= LEAVING {
            return Ok(Some(threads));
        }
        // A signal may end it sooner; then there is one more look.
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 50_000 });
    }
}

fn threads_now() -> Result<Option<usize>> {
    // SAFETY: unsharing a thread from its own thread group changes nothing where it is alone, and is refused with
    // EINVAL where it is not.
    let refused = match unsafe { libc::unshare(libc::CLONE_THREAD) } {
        0 => return Ok(None),
        _ => errno(),
    };
    // Or a sandbox has its own opinion on unshare: the directory has two links and one for each thread.
    match rustix::fs::stat(c"/proc/self/task") {
        Ok(tasks) => match (tasks.st_nlink as usize).saturating_sub(2) {
            0 | 1 => Ok(None),
            threads => Ok(Some(threads)),
        },
        Err(_) if refused == Errno::INVAL => Ok(Some(2)),
        Err(_) => Err(refused),
    }
}

/// The number of this process.
pub(crate) fn own_pid() -> Pid {
    rustix::process::getpid()
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

/// Whether children of this process are known to be in another PID namespace than this process (unshare, setns).
pub(crate) fn children_are_elsewhere() -> bool {
    match (namespace(OWN_PIDS), namespace(CHILDRENS_PIDS)) {
        (Some(own), Some(childrens)) => own != childrens,
        // One without its first process cannot be looked at. Before Linux 4.12 there is no such file.
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
        // A process that starts children in another pid namespace than its own (unshare, setns) has 0 for a number there.
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

/// Set when the kernel has been seen to have what forked children are held by, and programs are waited for with.
static CAN_HOLD: AtomicBool = AtomicBool::new(false);
static CAN_WAIT: AtomicBool = AtomicBool::new(false);

/// Fails, with the name of the call, where a forked child could not be held or waited for: before there is one, which would
/// have to be ended in the middle of what it does. Kernels have had both calls since 5.4; a sandbox may not.
pub(crate) fn check_holding() -> std::result::Result<(), (&'static str, Errno)> {
    check_waiting()?;
    if CAN_HOLD.load(Ordering::Relaxed) {
        return Ok(());
    }
    match pidfd(own_pid()) {
        Ok(_) => CAN_HOLD.store(true, Ordering::Relaxed),
        // Nothing is known, and whoever makes the child finds the table full as well.
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

/// Ends a child that there is no pidfd for, if it is still there.
pub(crate) fn kill_and_reap(pid: Pid) {
    // A number that is no child's any more may be a stranger's.
    if retry(|| rustix::process::waitid(WaitId::Pid(pid), LOOK)).is_ok() {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        await_number(pid);
    }
}

/// Takes the status of a child that leaves. An error would mean that somebody else has taken it.
fn await_number(pid: Pid) {
    let _ = retry(|| rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | ALL));
}

/// A descriptor for a child that was started without one, and was perhaps waited for since. Opens its gate; one that cannot
/// be held is ended.
pub(crate) fn hold(pid: Pid, gate: Option<Gate>) -> Result<OwnedFd> {
    let held = pidfd(pid).and_then(|pidfd| {
        // The number may be a stranger's by now. What cannot be waited for is no child of ours.
        retry(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), LOOK))?;
        Ok(super::descriptor::above_standard(pidfd, None))
    });
    match (held, gate) {
        (Ok(pidfd), gate) => {
            if let Some(gate) = gate {
                gate.answer(Gate::GO);
            }
            Ok(pidfd)
        }
        // Gone, if somebody else has waited for it.
        (Err(Errno::SRCH | Errno::CHILD), _) => Err(Errno::CHILD),
        (Err(errno), Some(gate)) => {
            // It leaves by itself. Its number, which somebody may kill it and wait for it by, is not used for a signal.
            gate.answer(Gate::LEAVE);
            await_number(pid);
            Err(errno)
        }
        (Err(errno), None) => {
            kill_and_reap(pid);
            Err(errno)
        }
    }
}

/// Whether a child can be waited for, which takes nothing away.
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

/// The wait status ([wait(2)]) of the child if it has left, which nobody can ask for again.
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
            // Before 6.9; or the signal is none, which kill says again.
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

/// Whether a process of that group runs. `false` where /proc does not say.
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
        // Where the first thread has left, the state is its; the others are counted 14 fields on.
        let mut others = || fields.nth(14).is_some_and(|threads| !matches!(threads, b"0" | b"1"));
        is_its && state.is_some_and(|state| !matches!(state, b"Z" | b"X") || others())
    })
}
