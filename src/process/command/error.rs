//! The error of a program that could not be started.

use std::io;
use std::path::Path;

use super::Command;
use crate::error::{Error, in_directory};
use crate::sys::Errno;

/// A program that could not be started, and why. The command is given back, with its ends.
///
/// `?` turns it into [`Error`] or [`io::Error`], and closes the ends. An error that is about the program or one of its options
/// becomes [`Error::NotStarted`] then, which keeps its name.
///
/// An [`io::Error`] has room for the errno or for a text. As with std's `Command`, `?` keeps the errno, for
/// [`raw_os_error`](io::Error::raw_os_error). `.map_err(ipc::Error::from)?` keeps the name instead.
///
/// `anyhow::Error` and `Box<dyn Error>` take the whole value, and the ends stay open in it: EOF does not come as long as the
/// error lives. `.map_err(ipc::Error::from)?` closes them first.
///
/// # Examples
///
/// ```
/// use std::io::ErrorKind;
///
/// let (reader, writer) = ipc::pipe()?;
/// let refused = ipc::Command::new("/no/such/program").stdout(writer).spawn().unwrap_err();
/// let command = refused.command; // still holds the writer
/// assert_eq!(std::io::Error::from(refused.error).kind(), ErrorKind::NotFound);
/// assert!(matches!(reader.try_read(&mut [0]), Err(ipc::Error::WouldBlock)));
/// drop(command);
/// assert_eq!(reader.try_read(&mut [0])?, 0);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{:?} could not be started{}: {error}", command.0.program, in_directory(self.directory()))]
pub struct SpawnError {
    /// The command, with its ends.
    pub command: Command,
    /// The cause.
    pub error: Error,
}

impl SpawnError {
    /// The directory, if the start failed because of it.
    fn directory(&self) -> Option<&Path> {
        match self.error {
            Error::System { call: "chdir", .. } => self.command.0.directory.as_deref(),
            _ => None,
        }
    }
}

/// The calls that fail because of the program, or of an option that it was given. (`posix_spawn` stands in for all of them.)
const ABOUT_THE_PROGRAM: [&str; 14] = [
    "posix_spawn",
    "execve",
    "chdir",
    "pre_exec",
    "dup2",
    "close_range",
    "prctl",
    "setsid",
    "setpgid",
    "setpriority",
    "setrlimit",
    "setgroups",
    "setgid",
    "setuid",
];

impl From<SpawnError> for Error {
    fn from(refused: SpawnError) -> Self {
        let directory = refused.directory().map(Into::into);
        match refused.error {
            error @ Error::System { call, .. } if ABOUT_THE_PROGRAM.contains(&call) && !is_this_processes(&error) => {
                let program = refused.command.0.program.clone();
                Error::NotStarted { program, directory, error: Box::new(error) }
            }
            // The fault is this process's: a limit, or a sandbox.
            error => error,
        }
    }
}

/// Returns whether the reason lies with this process or with the system: no memory, no place in a table of descriptors, the
/// process limit.
fn is_this_processes(error: &Error) -> bool {
    let Error::System { source, .. } = error else { return false };
    let is_kind = matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory);
    is_kind || matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE))
}

impl From<SpawnError> for io::Error {
    fn from(refused: SpawnError) -> Self {
        // As std's own: with the errno, which a boxed error would hide.
        refused.error.into()
    }
}
