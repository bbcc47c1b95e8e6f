//! Starting another program: posix_spawn(3), which costs the same however large this process is, and execve(2).

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::Pid;

use super::descriptor::duplicate;
use super::signal::Mask;
use super::{Errno, Result, errno};

/// What the new program gets.
pub(crate) struct Program<'a> {
    pub(crate) args: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) directory: Option<&'a CStr>,
    /// Descriptors of this process, and the numbers that they have in the program. No descriptor has a number that
    /// another one is to get.
    pub(crate) moves: &'a [(OwnedFd, RawFd)],
}

impl Program<'_> {
    /// Starts the program at `path`. `SIGPIPE` is at its default in it, and no signal is blocked.
    pub(crate) fn spawn(&self, path: &CStr) -> Result<Pid> {
        let mut actions = Actions::new()?;
        let mut attributes = Attributes::new()?;
        if let Some(directory) = self.directory {
            // SAFETY: initialised actions and a nul-terminated string, which is copied.
            check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut actions.0, directory.as_ptr()) })?;
        }
        for (fd, number) in self.moves {
            // SAFETY: initialised actions and two numbers.
            check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut actions.0, fd.as_raw_fd(), *number) })?;
        }
        attributes.like_a_shell()?;
        let (args, environment) = (pointers(self.args), pointers(self.environment));
        let mut pid = 0;
        // SAFETY: a nul-terminated path, initialised actions and attributes, and two arrays of nul-terminated strings that
        // end with a null pointer; all of them outlive the call, and it changes none.
        check(unsafe {
            libc::posix_spawn(
                &mut pid,
                path.as_ptr(),
                &actions.0,
                &attributes.0,
                args.as_ptr().cast(),
                environment.as_ptr().cast(),
            )
        })?;
        Pid::from_raw(pid).ok_or(Errno::SRCH)
    }

    /// Becomes the program at the first of `paths` that can be started. Returns only if none can: then this process has
    /// its descriptors, directory and signals as before.
    pub(crate) fn exec(&self, paths: &[CString]) -> Errno {
        let (args, environment) = (pointers(self.args), pointers(self.environment));
        let start = |path: &CStr| {
            // SAFETY: as for posix_spawn.
            unsafe { libc::execve(path.as_ptr(), args.as_ptr().cast(), environment.as_ptr().cast()) };
            errno()
        };
        let prepared = Prepared::new(self);
        let failed = match &prepared {
            Ok(_) => first_that_works(paths, |path| Err::<(), _>(start(path))).err().unwrap_or(Errno::NOENT),
            Err(errno) => *errno,
        };
        drop(prepared);
        failed
    }
}

/// Tries a program at several paths, as a shell does: the next one where there is nothing, or nothing for us.
pub(crate) fn first_that_works<T>(paths: &[CString], mut start: impl FnMut(&CStr) -> Result<T>) -> Result<T> {
    let mut failed = Errno::NOENT;
    for path in paths {
        match start(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::ACCESS) => failed = Errno::ACCESS,
            done => return done,
        }
    }
    Err(failed)
}

fn check(result: libc::c_int) -> Result<()> {
    // These return the error itself.
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(result)) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
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
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: init initialises, and only then is it taken as initialised.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            Ok(Self(attributes.assume_init()))
        }
    }

    /// `SIGPIPE`, which Rust programs ignore, at its default, and no signal blocked.
    fn like_a_shell(&mut self) -> Result<()> {
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        // SAFETY: initialised attributes; the sets are initialised by sigemptyset and copied.
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut self.0, set.as_ptr()))?;
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            check(libc::posix_spawnattr_setsigdefault(&mut self.0, set.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(&mut self.0, flags as libc::c_short))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

/// This process, made ready to become a program; put back as it was when dropped.
struct Prepared {
    /// A number, and what it stood for: nothing, or a copy and whether it was close-on-exec.
    numbers: Vec<(RawFd, Option<(OwnedFd, FdFlags)>)>,
    directory: Option<OwnedFd>,
    sigpipe: libc::sigaction,
    mask: Mask,
}

impl Prepared {
    fn new(program: &Program<'_>) -> Result<Self> {
        let directory = match program.directory {
            Some(_) => Some(rustix::fs::openat(CWD, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?),
            None => None,
        };
        let mask = Mask::set_empty();
        // SAFETY: zeroed bytes are a valid sigaction: SIG_DFL, no flags, an empty mask. The old one is filled in.
        let sigpipe = unsafe {
            let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            let mut old = MaybeUninit::zeroed();
            libc::sigaction(libc::SIGPIPE, &default, old.as_mut_ptr());
            old.assume_init()
        };
        // From here on, an early return puts everything back.
        let mut prepared = Self { numbers: Vec::new(), directory, sigpipe, mask };
        if let Some(directory) = program.directory {
            rustix::process::chdir(directory)?;
        }
        for (fd, number) in program.moves {
            // SAFETY: borrowed for two calls that cope with a number that is not open.
            let there = unsafe { BorrowedFd::borrow_raw(*number) };
            let saved = match rustix::io::fcntl_getfd(there) {
                Ok(flags) => Some((duplicate(there)?, flags)),
                Err(_) => None,
            };
            put(fd.as_fd(), *number, FdFlags::empty())?;
            prepared.numbers.push((*number, saved));
        }
        Ok(prepared)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for (number, saved) in self.numbers.drain(..).rev() {
            match saved {
                // What stood there before is put back by the same call that displaced it, into a place that exists.
                Some((fd, flags)) => drop(put(fd.as_fd(), number, flags)),
                // SAFETY: there was nothing, and what is there now was put there above, for nobody else.
                None => drop(unsafe { OwnedFd::from_raw_fd(number) }),
            }
        }
        if let Some(directory) = &self.directory {
            let _ = rustix::process::fchdir(directory);
        }
        // SAFETY: the action that was there before.
        unsafe { libc::sigaction(libc::SIGPIPE, &self.sigpipe, std::ptr::null_mut()) };
        self.mask.restore();
    }
}

/// Makes `number` stand for `fd`, in the place of whatever it stood for.
fn put(fd: BorrowedFd<'_>, number: RawFd, flags: FdFlags) -> Result<()> {
    let flags = if flags.contains(FdFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
    loop {
        // SAFETY: dup3 touches no memory. What `number` stood for is saved, and comes back if the program does not start.
        if unsafe { libc::dup3(fd.as_raw_fd(), number, flags) } >= 0 {
            return Ok(());
        }
        match errno() {
            Errno::INTR | Errno::BUSY => continue,
            errno => return Err(errno),
        }
    }
}
