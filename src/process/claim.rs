//! Taking the ends that this program was started with. `docs/given-ends.md` says how they are described.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use crate::sys::descriptor::{leave_inherited, take_inherited};
use crate::{Error, FromFdError, Result};

/// The environment variable that describes the ends.
pub(super) const VARIABLE: &str = "IPC_ENDS";

/// What was claimed in this process.
static CLAIMED: Mutex<Vec<Given>> = Mutex::new(Vec::new());

/// One end, as the variable describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: String,
    pub(crate) number: RawFd,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Given {
    /// Whether both describe the same descriptor.
    fn is_that_of(&self, other: &Self) -> bool {
        (self.number, self.device, self.inode) == (other.number, other.device, other.inode)
    }
}

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

/// Entries that are not of the form are passed over: whoever set the variable meant something else.
pub(crate) fn parse(value: &[u8]) -> Vec<Given> {
    value.split(|byte| *byte == b',').filter_map(parse_one).collect()
}

fn parse_one(entry: &[u8]) -> Option<Given> {
    let mut fields = entry.split(|byte| *byte == b':');
    let mut field = || fields.next();
    let name = decode(field()?)?;
    let number: RawFd = decimal(field()?)?;
    let (device, inode) = (decimal(field()?)?, decimal(field()?)?);
    if fields.next().is_some() {
        return None;
    }
    Some(Given { name, number, device, inode })
}

fn decimal<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    // `parse` would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What goes into a name as it is; every other byte is a `%` and two digits.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn decode(name: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push((high * 16 + low) as u8);
            }
            plain if is_plain(plain) => bytes.push(plain),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// The variable's value.
pub(crate) fn describe(ends: &[Given]) -> OsString {
    let mut value = Vec::new();
    for given in ends {
        if !value.is_empty() {
            value.push(b',');
        }
        for byte in given.name.bytes() {
            match byte {
                plain if is_plain(plain) => value.push(plain),
                other => value.extend_from_slice(format!("%{other:02X}").as_bytes()),
            }
        }
        value.extend_from_slice(format!(":{}:{}:{}", given.number, given.device, given.inode).as_bytes());
    }
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_is_described_is_parsed_again() {
        let given = |name: &str, number| Given { name: name.into(), number, device: 5, inode: u64::MAX };
        let ends = [given("results", 7), given("", 8), given("a:b,c %41 ü", 1_000_000)];
        assert_eq!(parse(describe(&ends).as_bytes()), ends);
    }

    #[test]
    fn what_is_not_of_the_form_is_passed_over() {
        for hostile in
            ["", ",", "a", "a:1", "a:1:2", "a:1:2:3:4", "a:-1:2:3", "a:+1:2:3", "a:99999999999:2:3", "%:1:2:3"]
        {
            assert!(parse(hostile.as_bytes()).is_empty(), "{hostile}");
        }
        assert!(parse(b"%FF:1:2:3,\xFF:1:2:3,a b:1:2:3,%4:1:2:3,%zz:1:2:3").is_empty());
        assert_eq!(parse(b"bad,good:3:4:5,:").len(), 1);
    }
}
