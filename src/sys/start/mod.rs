//! Starting another program: one [clone(2)] that shares this process's memory until the program runs, and so costs the same
//! however large this process is. The pidfd comes with the process, and each step that fails is reported by its name.
//!
//! The new process runs [`Steps`] on a stack of its own, with every signal blocked. The thread that starts it waits in the kernel
//! (`CLONE_VFORK`). libc's wrapper of [clone(2)] calls a function on a stack on every architecture. [clone3(2)] would need assembly
//! for each, and has nothing more that is needed here.
//!
//! Until the program runs, the exit signal of the new process is 0; [execve(2)] makes it `SIGCHLD`. So it sends no signal when it
//! ends, and `waitpid` does not find it. Only its starter sees one that failed.
//!
//! [clone(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
//! [clone3(2)]: https://man7.org/linux/man-pages/man2/clone3.2.html
//! [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html

mod fallback;
mod foreign;
mod numbers;
mod stack;
mod steps;

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Pid;

use super::descriptor::{above_standard, duplicate, is_open};
use super::ledger::Entry;
use super::poll::{POLLIN, poll, pollfd};
use super::signal::KernelMask;
use super::{Errno, errno, process, retry};
pub(crate) use foreign::Foreign;
pub(super) use numbers::apart_from;
use stack::Stack;
pub(crate) use steps::Stage;
pub(super) use steps::Steps;

/// Everything that the new program gets.
pub(crate) struct Plan<'a> {
    /// The paths to try, in order.
    pub(crate) paths: &'a [CString],
    pub(crate) args: &'a [CString],
    pub(crate) environment: &'a [CString],
    /// Entries of the environment that end with `=`, and whose value is the number of the new process.
    pub(crate) own_pids: &'a [usize],
    pub(crate) directory: Option<&'a CStr>,
    /// Descriptors of this process, and the numbers that they have in the program. No number is there twice.
    pub(crate) moves: &'a [(BorrowedFd<'a>, RawFd)],
    pub(crate) options: &'a mut Options,
}

/// A function that runs in the new process before its program does.
pub(crate) type Hook = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// The options of the new process.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) session: bool,
    pub(crate) group: Option<i32>,
    pub(crate) close_others: bool,
    pub(crate) umask: Option<u32>,
    pub(crate) nice: Option<i32>,
    /// The resource, its soft limit, and its hard limit.
    pub(crate) limits: Vec<(i32, u64, u64)>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) gid: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) die_with_parent: bool,
    pub(crate) hooks: Vec<Hook>,
}

impl Options {
    /// Returns whether it asks for no change.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { session, group, close_others, umask, nice, limits, groups, gid, uid, die_with_parent, hooks } = self;
        let numbers =
            [group.is_some(), umask.is_some(), nice.is_some(), groups.is_some(), gid.is_some(), uid.is_some()];
        let set = *session || *close_others || *die_with_parent || numbers.contains(&true);
        !set && limits.is_empty() && hooks.is_empty()
    }

    /// Returns whether the steps may not run in this process's own memory.
    ///
    /// A change of user makes the memory not dumpable, for all who share it, and lets the new user reach for it. A hook may make a
    /// call that is refused with shared memory (a user namespace), and its writes must not be seen here.
    fn need_a_copy(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups.is_some() || !self.hooks.is_empty()
    }
}

/// A step that failed, by the name of its call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) call: &'static str,
    pub(crate) errno: Errno,
}

impl Failed {
    /// Names the call that an errno is of.
    pub(super) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { call, errno }
    }
}

/// A program that runs.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Set when a new process was seen to share the memory, and so its starter to wait for it. An emulator or a tool that runs
/// this program may make a plain fork of it.
static SHARES_MEMORY: AtomicBool = AtomicBool::new(false);

/// The state that both processes see, if they share memory.
struct Shared<'a> {
    steps: Steps<'a>,
    entered: AtomicBool,
    failed: Option<Failed>,
    /// The end on which the new process reports a failure if they do not.
    report: Option<Report>,
}

/// Starts the program.
pub(crate) fn start(plan: Plan<'_>) -> Result<Started, Failed> {
    let copied = plan.options.need_a_copy();
    let report = match copied || !SHARES_MEMORY.load(Relaxed) {
        true => Some(Report::new(plan.moves)?),
        false => None,
    };
    let stack = Stack::new().map_err(Failed::of("mmap"))?;
    // The pidfd gets the lowest number that is free, which may be one that `println!` writes to.
    let place = place_above_standard().map_err(Failed::of("fcntl"))?;
    let mut steps = Steps::new(plan, Stage::New)?;
    steps.spare(report.as_ref().map(Report::number));
    let mut shared = Shared { steps, entered: AtomicBool::new(false), failed: None, report };

    let mask = KernelMask::block_all();
    let cloned = shared.clone(&stack, copied);
    mask.restore();
    // The new process is through with it: it runs the program, or has left. (In a copy, it has a stack of its own.)
    drop(stack);
    let (pid, pidfd) = match cloned {
        Ok(cloned) => cloned,
        Err(refused) if is_refused(refused.errno) => return fallback::start(&mut shared.steps, refused),
        Err(failed) => return Err(failed),
    };
    if shared.entered.load(Relaxed) {
        SHARES_MEMORY.store(true, Relaxed);
    } else if let Some(report) = shared.report.take() {
        shared.failed = report.read();
    }
    if let Some(failed) = shared.failed {
        // It is leaving, and no other call finds it. With a second thread that waits for "all" it may be gone.
        let _ = process::take_away(pidfd.as_fd());
        return Err(failed);
    }
    Ok(Started { pid, pidfd: above_standard(pidfd, place) })
}

/// Returns whether a sandbox or an emulator refuses this way of making a process.
fn is_refused(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::INVAL)
}

impl Shared<'_> {
    /// Makes the process. Afterwards it runs the program, or it has left.
    fn clone(&mut self, stack: &Stack, copied: bool) -> Result<(Pid, OwnedFd), Failed> {
        let memory = if copied { 0 } else { libc::CLONE_VM };
        let flags = memory | libc::CLONE_VFORK;
        let mut pidfd: c_int = -1;
        let pid = match self.clone_with(stack, flags | libc::CLONE_PIDFD, &mut pidfd) {
            // An emulator that knows no pidfds and no other exit signal.
            Err(errno) if is_refused(errno) => {
                return self.clone_and_open(stack, flags | libc::SIGCHLD).map_err(Failed::of("clone"));
            }
            done => done.map_err(Failed::of("clone"))?,
        };
        if pidfd < 0 {
            // No kernel that this crate is for.
            process::kill_and_reap(pid);
            return Err(Failed { call: "clone", errno: Errno::NOSYS });
        }
        // SAFETY: the kernel just made it for us, and nobody else knows its number.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }

    fn clone_and_open(&mut self, stack: &Stack, flags: c_int) -> Result<(Pid, OwnedFd), Errno> {
        // A place, so that a full table refuses the start instead of losing the child.
        let place = process::pidfd(process::own_pid())?;
        let pid = self.clone_with(stack, flags, &mut -1)?;
        drop(place);
        process::hold(pid, None).map(|pidfd| (pid, pidfd))
    }

    fn clone_with(&mut self, stack: &Stack, flags: c_int, pidfd: &mut c_int) -> Result<Pid, Errno> {
        let shared = std::ptr::from_mut(self).cast::<c_void>();
        // SAFETY: the stack is a mapping of its own, aligned and large enough for `run_steps`. It lives until this process goes on.
        // With CLONE_VFORK, that is after the new one has left the memory; without CLONE_VM it has another. No signal
        // handler runs in the new one before its handlers are reset, because every signal is blocked. `shared` is not
        // touched here meanwhile. The kernel writes the pidfd to an integer that is ours. No flag asks for the other two.
        let pid = unsafe {
            libc::clone(
                run_steps,
                stack.top(),
                flags,
                shared,
                std::ptr::from_mut(pidfd),
                std::ptr::null_mut::<c_void>(),
                std::ptr::null_mut::<c_void>(),
            )
        };
        match pid {
            -1 => Err(errno()),
            pid => Pid::from_raw(pid).ok_or(Errno::SRCH),
        }
    }
}

/// The new process. Returns, which ends it, only if the program could not be started.
extern "C" fn run_steps(shared: *mut c_void) -> c_int {
    // SAFETY: the pointer that `clone_with` passes, whose owner waits, or is another process.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    shared.entered.store(true, Relaxed);
    let failed = shared.steps.run();
    shared.failed = Some(failed);
    if let Some(report) = &shared.report {
        report.write(failed);
    }
    127
}

/// A pipe on which a new process with a memory of its own says which step failed.
struct Report {
    reader: OwnedFd,
    /// Known to the ledger, so that a fork does not take it along.
    writer: Option<(Entry, OwnedFd)>,
}

impl Report {
    fn new(moves: &[(BorrowedFd<'_>, RawFd)]) -> Result<Self, Failed> {
        let (reader, writer) = super::pipe::pair(false).map_err(Failed::of("pipe2"))?;
        // The writer must not be at a number that a step moves a descriptor to.
        let mut passed = Vec::new();
        let mut writer = above_standard(writer, None);
        while moves.iter().any(|(_, number)| *number == writer.as_raw_fd()) {
            let next = duplicate(writer.as_fd()).map_err(Failed::of("fcntl"))?;
            passed.push(std::mem::replace(&mut writer, next));
        }
        let entry = Entry::new(writer.as_raw_fd());
        Ok(Self { reader: above_standard(reader, None), writer: Some((entry, writer)) })
    }

    fn number(&self) -> RawFd {
        self.writer.as_ref().map_or(-1, |(_, writer)| writer.as_raw_fd())
    }

    /// In the new process.
    fn write(&self, failed: Failed) {
        let step = steps::CALLS.iter().position(|call| *call == failed.call).unwrap_or(0) as i32;
        let mut bytes = [0; 8];
        let (first, second) = bytes.split_at_mut(4);
        first.copy_from_slice(&step.to_ne_bytes());
        second.copy_from_slice(&failed.errno.raw_os_error().to_ne_bytes());
        if let Some((_, writer)) = &self.writer {
            // A pipe has room for it, and its reader waits.
            let _ = retry(|| rustix::io::write(writer, &bytes));
        }
    }

    /// In the process that started it. `None`: nothing failed.
    fn read(mut self) -> Option<Failed> {
        self.writer = None;
        if SHARES_MEMORY.load(Relaxed) {
            // The kernel has made this process wait, so the report is complete. Another process may have a copy of the
            // writer.
            let mut fds = [pollfd { fd: self.reader.as_raw_fd(), events: POLLIN, revents: 0 }];
            retry(|| poll(&mut fds, Some(Duration::ZERO))).ok().filter(|ready| *ready > 0)?;
        }
        let mut bytes = [0; 8];
        match retry(|| rustix::io::read(&self.reader, &mut bytes)) {
            Ok(8) => {}
            _ => return None,
        }
        let [a, b, c, d, e, f, g, h] = bytes;
        let call = steps::CALLS.get(i32::from_ne_bytes([a, b, c, d]) as usize).copied().unwrap_or("clone");
        Some(Failed { call, errno: Errno::from_raw_os_error(i32::from_ne_bytes([e, f, g, h])) })
    }
}

/// A number above 2 that is kept free, if 0, 1 or 2 is.
fn place_above_standard() -> Result<Option<OwnedFd>, Errno> {
    if (0..=2).all(is_open) {
        return Ok(None);
    }
    // Only a copy of the reader is needed. It takes the lowest number above 2 that is free.
    let (reader, _writer) = super::pipe::pair(false)?;
    duplicate(reader.as_fd()).map(Some)
}
