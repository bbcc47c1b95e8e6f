//! Taking the ends that this program was started with. `docs/given-ends.md` says how they are described.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::given::{Given, VARIABLE, parse};
use crate::end::FromFdError;
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::descriptor::{identity, is_inherited, is_the_same, leave_inherited, take_inherited};
use crate::sys::inherited::was_open;

/// The descriptors that were claimed in this process, and those that are being converted right now.
static CLAIMED: Mutex<Vec<Given>> = Mutex::new(Vec::new());

/// Takes an end that this program was started with, by the name that it was given under. Never blocks.
///
/// Each end can be claimed once, and only as its own kind: a pipe's writer is not handed out as its reader. A type of the
/// standard library, such as a listener's, takes any descriptor that was given. Its first call fails if the descriptor is of
/// another kind.
///
/// **Claim first, and start afterwards.** A claimed end is close-on-exec, like every end, and a fork severs it. Before that, the
/// programs that this one starts and the children that it forks have it too, and EOF does not come before they leave.
///
/// The conversion runs outside of any lock, so a `TryFrom` may claim another end. Until it is done, the end counts as
/// claimed. A failed conversion undoes the claim only if it gives the very descriptor back.
///
/// In the guide: [how an end travels](crate::guide::travelling#into-another-program).
///
/// # Errors
///
/// - [`Error::NoSuchEnd`]: no end was given under that name, or it is not open any more. The latter happens in a program
///   that inherited the description and not the end.
/// - [`Error::AlreadyClaimed`]: it was claimed before, under this name or under another of the same descriptor; or another
///   thread is claiming it now.
/// - [`Error::WrongKind`]: it is of another kind. It can be claimed again, as its own.
/// - [`Error::System`]: no descriptor or no memory is left to read the description with (`EMFILE`, `ENFILE`, `ENOMEM`).
///
/// # Platform
///
/// The description is read from `/proc/self/environ`, the environment that the program was started with, so
/// `set_var` has no effect. The current environment ([getenv(3)]) is read only where that file cannot be. A process that is not dumpable
/// (after `setuid`, or with file capabilities) cannot read it, and [setproctitle(3)] writes over it.
///
/// A descriptor counts only if it is not close-on-exec and has the device and inode that the parent saw ([fstat(2)]).
///
/// One case is left to the caller. [`std::process::Command`] starts a program with the description and without the end. Such a
/// program must not open the same file at the same number without close-on-exec (as `dup` does) before it claims. The two
/// descriptors cannot be told apart. [`Command`](crate::Command) removes the description.
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
///
/// [fstat(2)]: https://man7.org/linux/man-pages/man2/fstat.2.html
/// [getenv(3)]: https://man7.org/linux/man-pages/man3/getenv.3.html
/// [setproctitle(3)]: https://man7.org/linux/man-pages/man3/setproctitle.3.html
pub fn claim<T>(name: &str) -> Result<T>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    convert(take(name)?)
}

/// Takes a descriptor that this program was started with, by its number: from a jobserver (`--jobserver-auth=3,4`) or a socket
/// activation (`LISTEN_FDS`, from 3 on). Never blocks.
///
/// As with [`claim`], each can be claimed once, and only as its own kind, and is close-on-exec from then on. A FIFO that is
/// open both ways is a [`Fifo`](crate::Fifo).
///
/// The descriptor must have been open when the program started, which is noted before `main`, and not be close-on-exec. One that
/// this program has opened itself is refused. The caller answers for the number alone.
///
/// # Errors
///
/// - [`Error::NoSuchEnd`]: no descriptor is open there, or the program was not started with it. Numbers over 1023 are refused,
///   and so are 0, 1 and 2 (use [`std::io::stdin`] and its kin).
/// - [`Error::AlreadyClaimed`]: it was claimed before, by this number or by a name.
/// - [`Error::WrongKind`]: it is of another kind. It can be claimed again, as its own.
/// - [`Error::System`]: a sandbox refuses `fcntl`.
///
/// # Examples
///
/// ```no_run
/// use std::net::TcpListener;
///
/// // In a service that systemd starts, or `Command::new(…).give_at(3, listener).env_pid("LISTEN_PID").env("LISTEN_FDS", "1")`:
/// let listener: TcpListener = ipc::claim_number(3)?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn claim_number<T>(number: RawFd) -> Result<T>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    convert(take_number(number)?)
}

fn convert<T>((fd, given): (OwnedFd, Given)) -> Result<T>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    match T::try_from(fd) {
        Ok(end) => Ok(end),
        Err(refused) => {
            let FromFdError { fd, error } = refused.into();
            let mut claimed = claimed();
            // Another one may have been opened at the number, or the conversion kept the descriptor and made this up.
            if fd.as_raw_fd() == given.number && is_the_same(fd.as_fd(), given.device, given.inode) {
                leave_inherited(fd);
                claimed.retain(|other| *other != given);
            }
            Err(error)
        }
    }
}

/// Returns the names of the ends that this program was started with and that are still to be claimed. Never blocks.
///
/// # Errors
///
/// [`Error::System`]: no descriptor or no memory is left to read the description with.
///
/// # Examples
///
/// ```
/// assert!(ipc::claimable()?.is_empty()); // started by a program that gives no ends
/// # Ok::<(), ipc::Error>(())
/// ```
pub fn claimable() -> Result<Vec<String>> {
    let claimed = claimed();
    let is_left = |given: &Given| {
        !claimed.iter().any(|other| other.name == given.name || other.is_that_of(given))
            && is_inherited(given.number, given.device, given.inode)
    };
    Ok(offered()?.into_iter().filter(is_left).map(|given| given.name).collect())
}

/// Nothing panics while it is locked, and no code of the caller's runs.
fn claimed() -> MutexGuard<'static, Vec<Given>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the descriptor, close-on-exec, and notes that it is claimed before another thread can have it.
fn take(name: &str) -> Result<(OwnedFd, Given)> {
    let mut claimed = claimed();
    let again = || Err(Error::AlreadyClaimed { name: name.to_owned() });
    if claimed.iter().any(|other| other.name == name) {
        return again();
    }
    let missing = || Error::NoSuchEnd { name: name.to_owned() };
    let given = offered()?.into_iter().find(|given| given.name == name).ok_or_else(missing)?;
    // Its owner may have made it inheritable again, and would not be its only owner any more.
    if claimed.iter().any(|other| other.is_that_of(&given)) {
        return again();
    }
    let taken = take_inherited(given.number, given.device, given.inode);
    let fd = taken.map_err(|errno| Error::system("fcntl", errno))?.ok_or_else(missing)?;
    claimed.push(given.clone());
    Ok((fd, given))
}

/// The same by a number. The name of such an end is a path.
fn take_number(number: RawFd) -> Result<(OwnedFd, Given)> {
    let mut claimed = claimed();
    let name = format!("/dev/fd/{number}");
    if claimed.iter().any(|other| other.number == number) {
        return Err(Error::AlreadyClaimed { name });
    }
    // Nothing but its number speaks for it, so it has to be known that the program was started with it.
    let found = identity(number).filter(|_| was_open(number) == Some(true));
    let Some((device, inode)) = found else { return Err(Error::NoSuchEnd { name }) };
    let given = Given { name, number, device, inode };
    match take_inherited(number, device, inode).map_err(|errno| Error::system("fcntl", errno))? {
        Some(fd) => {
            claimed.push(given.clone());
            Ok((fd, given))
        }
        None => Err(Error::NoSuchEnd { name: given.name }),
    }
}

/// The description in the environment that the program was started with.
fn offered() -> Result<Vec<Given>> {
    let started_with = match std::fs::read("/proc/self/environ") {
        Ok(environment) => environment,
        // There is room again a moment later, and the file can be read then.
        Err(source) if is_exhausted(&source) => return Err(Error::System { call: "open", source }),
        Err(_) => return Ok(offered_now()),
    };
    Ok(described(&started_with).unwrap_or_else(offered_now))
}

/// The description in an environment. `None`: the bytes are no environment any more.
pub(crate) fn described(environment: &[u8]) -> Option<Vec<Given>> {
    let prefix = [VARIABLE.as_bytes(), b"="].concat();
    match environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(&*prefix)) {
        Some(value) => Some(parse(value)),
        None => is_environment(environment).then(Vec::new),
    }
}

/// The description in the current environment, which the program can change.
fn offered_now() -> Vec<Given> {
    std::env::var_os(VARIABLE).map(|value| parse(value.as_bytes())).unwrap_or_default()
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Returns whether every entry is a name with a value. The title of a process that was written over them, and the padding behind
/// it, are not.
fn is_environment(bytes: &[u8]) -> bool {
    let Some((last, entries)) = bytes.split_last() else { return true };
    *last == 0 && entries.split(|byte| *byte == 0).all(|entry| entry.iter().skip(1).any(|byte| *byte == b'='))
}

#[cfg(test)]
mod tests {
    use super::is_environment;

    #[test]
    fn a_title_is_no_environment() {
        for real in [&b""[..], b"A=b\0", b"A=\0B=c=d\0", b"PATH=/bin\0_=x y\0"] {
            assert!(is_environment(real), "{real:?}");
        }
        for title in
            [&b"\0"[..], b"\0\0\0", b"ker: idle\0\0\0", b"a=b\0\0\0", b"A=b", b"=x\0", b"A=b\0worker\0", b"    "]
        {
            assert!(!is_environment(title), "{title:?}");
        }
    }
}
