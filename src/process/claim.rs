//! Taking the ends that this program was started with. `docs/given-ends.md` says how they are described.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use super::given::{Given, VARIABLE, parse};
use crate::end::FromFdError;
use crate::error::{Error, Result};
use crate::sys::descriptor::{leave_inherited, take_inherited};

/// What was claimed in this process.
static CLAIMED: Mutex<Vec<Given>> = Mutex::new(Vec::new());

/// Takes an end that this program was started with, by the name that it was given under. Never blocks.
///
/// Each end can be claimed once, and only as what it is: a pipe's writer is not handed out as its reader. A type of the
/// standard library, such as a listener's, takes whatever descriptor was given, and its first call says if it is another.
///
/// Once it is claimed it is close-on-exec, like every end, and a fork severs it; before that, a program that this one starts
/// and a child that it forks have it too, and a stream does not end before they leave. So claim first, and start afterwards.
///
/// # Errors
///
/// - [`Error::NoSuchEnd`]: nothing was given under that name; or what was given is not there any more, as in a program that
///   inherited the description and not the end.
/// - [`Error::AlreadyClaimed`]: it was claimed before, under this name, or under another where a description that is not of
///   this crate's making gives one descriptor two.
/// - [`Error::WrongKind`]: it is something else. It can be claimed again, as what it is.
/// - [`Error::System`]: `/proc/self/environ` cannot be read.
///
/// # Platform
///
/// The description is read from `/proc/self/environ`, which shows the environment that the program was started with,
/// whatever `set_var` was called with since. A descriptor counts only if it is not close-on-exec and has the device and
/// inode that the parent saw (fstat.2).
///
/// # Examples
///
/// ```no_run
/// use std::io::Write;
///
/// // In the program that was started with `Command::new(…).give("results", writer)`:
/// let mut results: ipc::PipeWriter = ipc::claim("results")?;
/// results.write_all(b"42\n")?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn claim<T>(name: &str) -> Result<T>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    // Nothing panics while it is locked.
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    let again = || Err(Error::AlreadyClaimed { name: name.to_owned() });
    if claimed.iter().any(|other| other.name == name) {
        return again();
    }
    let missing = || Error::NoSuchEnd { name: name.to_owned() };
    let given = offered()?.into_iter().find(|given| given.name == name).ok_or_else(missing)?;
    // Whoever has it may have made it inheritable again, and would not be its only owner any more.
    if claimed.iter().any(|other| other.is_that_of(&given)) {
        return again();
    }
    let fd = take_inherited(given.number, given.device, given.inode).ok_or_else(missing)?;
    // Before it is anybody's: a type that is not of this crate would not see to it.
    if let Err(errno) = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC) {
        return Err(Error::system("fcntl", errno));
    }
    match T::try_from(fd) {
        Ok(end) => {
            claimed.push(given);
            Ok(end)
        }
        Err(refused) => {
            let FromFdError { fd, error } = refused.into();
            leave_inherited(fd);
            Err(error)
        }
    }
}

/// The names of the ends that this program was started with and that are still to be claimed. Never blocks.
///
/// # Errors
///
/// [`Error::System`]: `/proc/self/environ` cannot be read.
///
/// # Examples
///
/// ```
/// assert!(ipc::claimable()?.is_empty()); // started by something that gives nothing
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn claimable() -> Result<Vec<String>> {
    let claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut names = Vec::new();
    for given in offered()? {
        if claimed.iter().any(|other| other.name == given.name || other.is_that_of(&given)) {
            continue;
        }
        if take_inherited(given.number, given.device, given.inode).map(leave_inherited).is_some() {
            names.push(given.name);
        }
    }
    Ok(names)
}

fn offered() -> Result<Vec<Given>> {
    let environment = std::fs::read("/proc/self/environ").map_err(|source| Error::System { call: "open", source })?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
    Ok(value.map(parse).unwrap_or_default())
}
