//! The way from a new process to its program. Allocates nothing, takes no lock, and calls no function of libc that does. All of it
//! may run in another process's memory, whose other threads go on.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::null;

use rustix::fs::CWD;
use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::numbers::Numbers;
use super::{Failed, Options, Plan};
use crate::sys::process::Parent;
use crate::sys::signal::{KernelMask, default_for_a_program};
use crate::sys::{Errno, errno, process};

/// The steps, by the names of their calls, in the order in which they are made.
pub(super) const CALLS: [&str; 16] = [
    "clone",
    "setsid",
    "setpgid",
    "fcntl",
    "dup2",
    "close_range",
    "setpriority",
    "setrlimit",
    "setgroups",
    "setgid",
    "setuid",
    "prctl",
    "poll",
    "chdir",
    "pre_exec",
    "execve",
];

/// The steps that the new process works through. Everything that needs memory is made here before.
pub(in crate::sys) struct Steps<'a> {
    pub(super) paths: &'a [CString],
    pub(super) args: Vec<*const c_char>,
    pub(super) environment: Vec<*const c_char>,
    own_pids: Vec<OwnPid>,
    pub(super) directory: Option<&'a CStr>,
    pub(in crate::sys) numbers: Numbers,
    pub(super) options: &'a mut Options,
    groups: Option<Vec<Gid>>,
    stage: Stage,
    /// The process to die with.
    parent: Option<Parent>,
    /// Stays open until the program runs, whatever is closed.
    spared: [RawFd; 2],
}

/// The process that makes the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In a new process.
    New,
    /// In a process that goes on where they fail, and has a single thread.
    InPlace,
    /// The same, with others, which count on its handlers.
    AmongThreads,
}

/// An entry of the environment that has to be completed in the new process.
struct OwnPid {
    index: usize,
    entry: Vec<u8>,
    /// The address of its value.
    value: usize,
}

impl<'a> Steps<'a> {
    pub(in crate::sys) fn new(plan: Plan<'a>, stage: Stage) -> Result<Self, Failed> {
        let numbers = Numbers::new(plan.moves);
        let parent = match (plan.options.die_with_parent, stage) {
            (false, _) => None,
            (true, Stage::New) => {
                let parent = Parent::new().map_err(Failed::of("pidfd_open"))?;
                Some(parent.apart_from(&numbers.targets).map_err(Failed::of("fcntl"))?)
            }
            (true, _) => Parent::own(),
        };
        let own_pids = plan.own_pids.iter().map(|&index| {
            let mut entry = plan.environment[index].to_bytes().to_vec();
            let value = entry.len();
            // The digits of any number, and the nul byte.
            entry.resize(value + 12, 0);
            OwnPid { index, entry, value }
        });
        Ok(Self {
            paths: plan.paths,
            args: pointers(plan.args),
            environment: pointers(plan.environment),
            own_pids: own_pids.collect(),
            directory: plan.directory,
            numbers,
            groups: plan.options.groups.as_ref().map(|groups| groups.iter().copied().map(Gid::from_raw).collect()),
            options: plan.options,
            spared: [parent.as_ref().and_then(Parent::number).unwrap_or(-1), -1],
            stage,
            parent,
        })
    }

    /// A descriptor that stays open until the program runs.
    pub(super) fn spare(&mut self, number: Option<RawFd>) {
        self.spared[1] = number.unwrap_or(-1);
    }

    /// Becomes the program. Returns only if that fails, with the step that failed.
    ///
    /// Every signal is blocked when it is called.
    pub(in crate::sys) fn run(&mut self) -> Failed {
        match self.prepare() {
            Ok(()) => self.exec(),
            Err(failed) => failed,
        }
    }

    pub(super) fn knows_its_number(&self) -> bool {
        !self.own_pids.is_empty()
    }

    fn prepare(&mut self) -> Result<(), Failed> {
        // First: caught signals are reset before one can come. Other threads count on the ignored ones, as long as the start may
        // fail.
        if self.stage != Stage::AmongThreads {
            default_for_a_program(true);
        }
        if self.options.session {
            rustix::process::setsid().map_err(Failed::of("setsid"))?;
        }
        if let Some(group) = self.options.group {
            rustix::process::setpgid(None, Pid::from_raw(group)).map_err(Failed::of("setpgid"))?;
        }
        self.numbers.place()?;
        if self.options.close_others {
            self.numbers.close_others(self.spared, self.stage).map_err(Failed::of("close_range"))?;
        }
        self.limit()?;
        self.change_user()?;
        if self.options.die_with_parent {
            // After the change of user, which would take it back (prctl.2).
            process::ask_to_die().map_err(Failed::of("prctl"))?;
        }
        if let Some(parent) = &self.parent {
            // The starter may have left before the call: no signal would come.
            if parent.has_left().map_err(Failed::of("poll"))? {
                return Err(Failed { call: "prctl", errno: Errno::SRCH });
            }
        }
        if let Some(directory) = self.directory {
            // As the new user, who may be allowed less.
            rustix::process::chdir(directory).map_err(Failed::of("chdir"))?;
        }
        for own in &mut self.own_pids {
            let digits = Digits::of(rustix::process::getpid());
            own.entry.iter_mut().skip(own.value).zip(digits).for_each(|(place, digit)| *place = digit);
            if let Some(entry) = self.environment.get_mut(own.index) {
                *entry = own.entry.as_ptr().cast();
            }
        }
        if self.stage != Stage::New {
            self.look_for_it()?;
        }
        if self.stage == Stage::AmongThreads {
            default_for_a_program(false);
        }
        KernelMask::set_empty();
        for hook in &mut self.options.hooks {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook));
            let errno = match done {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error),
                Err(panic) => {
                    std::mem::forget(panic);
                    Errno::CANCELED
                }
            };
            return Err(Failed { call: "pre_exec", errno });
        }
        Ok(())
    }

    fn limit(&mut self) -> Result<(), Failed> {
        if let Some(mask) = self.options.umask {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        }
        if let Some(by) = self.options.nice {
            rustix::process::nice(by).map_err(Failed::of("setpriority"))?;
        }
        for &(which, soft, hard) in &self.options.limits {
            process::set_limit(which, soft, hard).map_err(Failed::of("setrlimit"))?;
        }
        Ok(())
    }

    /// By the kernel's calls, which go for one thread: libc's go for all threads, and these are not ours.
    fn change_user(&mut self) -> Result<(), Failed> {
        if let Some(groups) = &self.groups {
            set_thread_groups(groups).map_err(Failed::of("setgroups"))?;
        }
        if let Some(gid) = self.options.gid {
            set_thread_gid(Gid::from_raw(gid)).map_err(Failed::of("setgid"))?;
        }
        if let Some(uid) = self.options.uid {
            if self.groups.is_none() {
                // The program would keep the groups of the user who starts it, even of root. A process that may not change its
                // groups has no privileges by them.
                match set_thread_groups(&[]) {
                    Ok(()) | Err(Errno::PERM) => {}
                    Err(errno) => return Err(Failed { call: "setgroups", errno }),
                }
            }
            set_thread_uid(Uid::from_raw(uid)).map_err(Failed::of("setuid"))?;
        }
        Ok(())
    }

    /// Fails where there is no program, as long as signals wait: one that was caught kills from the next step on.
    fn look_for_it(&self) -> Result<(), Failed> {
        self.first_path(|path| may_be_run(CWD, path)).map_err(Failed::of("execve"))
    }

    fn exec(&self) -> Failed {
        let start = |path: &CString| {
            // SAFETY: a nul-terminated path, and two arrays of nul-terminated strings that end with a null pointer.
            unsafe { libc::execve(path.as_ptr(), self.args.as_ptr(), self.environment.as_ptr()) };
            Err::<(), _>(errno())
        };
        Failed { call: "execve", errno: self.first_path(start).err().unwrap_or(Errno::NOENT) }
    }

    /// Tries the paths as a shell does: the next one where there is nothing, or nothing for us.
    pub(super) fn first_path<T>(&self, mut attempt: impl FnMut(&CString) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut failed = Errno::NOENT;
        for path in self.paths {
            match attempt(path) {
                Ok(done) => return Ok(done),
                Err(errno) => match errno {
                    errno if self.paths.len() == 1 => failed = errno,
                    Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT => {}
                    Errno::ACCESS => failed = Errno::ACCESS,
                    errno => return Err(errno),
                },
            }
        }
        Err(failed)
    }
}

/// Returns whether there is something that this process may run, seen from that directory.
pub(super) fn may_be_run(directory: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    // SAFETY: a nul-terminated path.
    match unsafe { libc::faccessat(directory.as_raw_fd(), path.as_ptr(), libc::X_OK, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => match errno() {
            // A sandbox that does not know the call. The next step says what there is.
            Errno::PERM => Ok(()),
            errno => Err(errno),
        },
    }
}

/// The decimal digits of a number.
struct Digits {
    rest: u32,
    divisor: u32,
}

impl Digits {
    fn of(pid: Pid) -> Self {
        let rest = pid.as_raw_nonzero().get().unsigned_abs();
        let mut divisor = 1;
        while rest / divisor >= 10 {
            divisor *= 10;
        }
        Self { rest, divisor }
    }
}

impl Iterator for Digits {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = self.rest.checked_div(self.divisor)?;
        self.rest -= digit * self.divisor;
        self.divisor /= 10;
        Some(b'0' + digit as u8)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
}
