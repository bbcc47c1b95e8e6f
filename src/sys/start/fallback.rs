//! [posix_spawn(3)], for sandboxes and emulators that refuse [clone(2)] as it is called here. It does less, and refuses the
//! other options. A thread that waits for every child may take one away before it is held.
//!
//! [clone(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
//! [posix_spawn(3)]: https://man7.org/linux/man-pages/man3/posix_spawn.3.html

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::process::Pid;

use super::numbers::apart_from;
use super::steps::{Steps, may_be_run};
use super::{Failed, Started};
use crate::sys::descriptor::duplicate;
use crate::sys::ledger::Entry;
use crate::sys::signal::Mask;
use crate::sys::{Errno, Result, process};

/// Starts the program, or fails with the errno of the call that was `refused`, if the program needs more than this can
/// do.
pub(super) fn start(steps: &mut Steps<'_>, refused: Failed) -> std::result::Result<Started, Failed> {
    let plain = steps.options.is_empty() && !steps.knows_its_number();
    if !plain {
        return Err(refused);
    }
    let mut actions = Actions::new().map_err(Failed::of("posix_spawn"))?;
    let attributes = Attributes::like_a_shell().map_err(Failed::of("posix_spawn"))?;
    let mut directory = None;
    if let Some(path) = steps.directory {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = Some(rustix::fs::open(path, flags, Mode::empty()).map_err(Failed::of("chdir"))?);
        actions.change_to(path).map_err(Failed::of("posix_spawn"))?;
    }
    // Apart from every number that something is moved to, and known to the ledger, so that a fork does not take them along.
    let mut copies = Vec::new();
    for each in &steps.numbers.moves {
        let copy = steps.copy_of(each.source).map_err(Failed::of("fcntl"))?;
        actions.place(copy.as_raw_fd(), each.target).map_err(Failed::of("posix_spawn"))?;
        copies.push((Entry::new(copy.as_raw_fd()), copy));
    }
    for number in steps.numbers.left_behind() {
        actions.close(number).map_err(Failed::of("posix_spawn"))?;
    }
    // A place for the pidfd, so that a full table refuses the start instead of losing the child.
    let place = process::pidfd(process::own_pid()).map_err(Failed::of("pidfd_open"))?;
    // Signals wait until it is held: a handler that waits for whatever child has left would take it away before.
    let mask = Mask::block_all();
    let pid = steps.spawn(directory.as_ref().map_or(CWD, AsFd::as_fd), &actions, &attributes);
    drop(place);
    let started = pid.map_err(Failed::of("posix_spawn")).and_then(|pid| {
        let pidfd = process::hold(pid, None).map_err(Failed::of("pidfd_open"))?;
        Ok(Started { pid, pidfd })
    });
    mask.restore();
    started
}

impl Steps<'_> {
    fn copy_of(&self, source: RawFd) -> Result<OwnedFd> {
        // SAFETY: borrowed for one call from its owner, who lends it as long as the steps are borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(source) };
        apart_from(duplicate(fd)?, &self.numbers.targets)
    }

    /// Starts the first file that there is to run. Under an emulator a start never fails: a process that finds no program is a
    /// process that leaves with 127. So only a file is tried that this process has found, and the next one only after an error.
    fn spawn(&self, directory: BorrowedFd<'_>, actions: &Actions, attributes: &Attributes) -> Result<Pid> {
        self.first_path(|path| {
            may_be_run(directory, path)?;
            // A directory that may be searched cannot be run. A file that cannot be looked at is left to the kernel.
            if rustix::fs::statat(directory, path, AtFlags::empty()).is_ok_and(|stat| !is_file(&stat)) {
                return Err(Errno::ACCESS);
            }
            let mut pid = 0;
            // SAFETY: a nul-terminated path, initialised actions and attributes, and two arrays of nul-terminated strings that end
            // with a null pointer. All of them outlive the call, and it changes none.
            check(unsafe {
                libc::posix_spawn(
                    &mut pid,
                    path.as_ptr(),
                    &actions.0,
                    &attributes.0,
                    self.args.as_ptr().cast(),
                    self.environment.as_ptr().cast(),
                )
            })?;
            Pid::from_raw(pid).ok_or(Errno::SRCH)
        })
    }
}

fn is_file(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn check(result: c_int) -> Result<()> {
    // These return the error itself.
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(result)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init initialises, and only then is it taken as initialised.
        unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    fn change_to(&mut self, directory: &CStr) -> Result<()> {
        // SAFETY: initialised actions and a nul-terminated string, which is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, directory.as_ptr()) })
    }

    fn place(&mut self, source: RawFd, target: RawFd) -> Result<()> {
        // SAFETY: initialised actions and two numbers.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, source, target) })
    }

    fn close(&mut self, number: RawFd) -> Result<()> {
        // SAFETY: initialised actions and a number.
        check(unsafe { libc::posix_spawn_file_actions_addclose(&mut self.0, number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// `SIGPIPE`, which Rust programs ignore, and `SIGCHLD` at their default, and no signal blocked.
    fn like_a_shell() -> Result<Self> {
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: init initialises, and only then is it taken as initialised; the sets are initialised by sigemptyset and
        // copied.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut attributes.0, set.as_ptr()))?;
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, set.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `like_a_shell`, and not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}
