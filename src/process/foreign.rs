//! Ends for a program that another library's command starts.

use std::os::fd::RawFd;

use crate::end::{self, Ends};
use crate::error::{Error, Result};
use crate::sys;

/// Gives an end to a program that a [`std::process::Command`] starts, under that descriptor number. Never blocks.
///
/// It is for a command that is not yours to choose. tokio's is one of them, as
/// [`as_std_mut`](https://docs.rs/tokio/latest/tokio/process/struct.Command.html#method.as_std_mut) says.
/// [`Command::give_at`](crate::Command::give_at) is the same for [`Command`](crate::Command), which closes its ends at the start.
///
/// **The command keeps a copy** of the end until it is dropped, as std's does with its stdin and stdout. Drop it after the start,
/// or EOF does not come. A reference lends the end. A value is closed here when this returns.
///
/// Where this process has the number open itself, leave it open until the start. The start fails with `EBUSY` if another file has
/// come there.
///
/// **Not for [`CommandExt::exec`](std::os::unix::process::CommandExt::exec)**, which fails with `EOPNOTSUPP`: the file that this
/// process has at the number would be replaced. [`Command::exec`](crate::Command::exec) puts it back.
///
/// A child that is forked has no copy of an end in the command. A start there fails with `EBADF`.
///
/// # Errors
///
/// A value is closed then too. A lent end stays as it was.
///
/// - [`Error::InvalidInput`]: the number is below 3, for which the command has methods of its own; or `end` is not exactly one
///   descriptor.
/// - [`Error::NotGiven`]: this process was not given the end.
/// - [`Error::System`] of `fcntl`: no descriptor is left (`EMFILE`), or the number is over `RLIMIT_NOFILE` (`EBADF`).
///
/// # Examples
///
/// ```
/// use std::process::Command;
///
/// let (reader, writer) = ipc::pipe()?;
/// let mut command = Command::new("sh");
/// command.args(["-c", "echo by number >&7"]);
/// ipc::give_at(&mut command, 7, writer)?;
/// assert!(command.status()?.success());
/// drop(command);
/// assert_eq!(std::io::read_to_string(reader)?, "by number\n");
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "pre_exec")]
#[doc(alias = "fd_mappings")]
pub fn give_at(command: &mut std::process::Command, number: RawFd, end: impl Ends) -> Result<()> {
    if number < 3 {
        return Err(Error::InvalidInput {
            what: "numbers below 3 are given with the command's stdin, stdout and stderr",
        });
    }
    let fd = end::one_descriptor(&end)?;
    let copy = sys::start::Foreign::new(fd, number).map_err(|errno| Error::system("fcntl", errno))?;
    end::leave(fd);
    // Its number may be the one that is asked for.
    drop(end);
    copy.give(command, number);
    Ok(())
}
