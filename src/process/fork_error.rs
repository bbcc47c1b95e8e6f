//! A fork that did not happen.

use std::fmt;

use crate::error::{Error, gives_back};

/// A fork that did not happen, and why. The ends are given back.
///
/// `?` turns it into [`Error`] or [`io::Error`](std::io::Error), and closes the ends that it owns.
///
/// `anyhow::Error` and `Box<dyn Error>` take the whole value, and the ends stay open in it: EOF does not come as long as the
/// error lives. `.map_err(ipc::Error::from)?` closes them first.
///
/// **Borrowed ends** cannot go into a `Box<dyn Error>` or an `anyhow::Error`, which hold no borrowed value. `fork(&end, …)?`
/// does not compile there: "returns a value referencing data owned by the current function". Convert the error first:
///
/// ```
/// fn start(writer: ipc::PipeWriter) -> Result<ipc::Child, Box<dyn std::error::Error>> {
///     let child = ipc::fork(&writer, |writer| writer.write_atomic(b"lent")).map_err(ipc::Error::from)?;
///     Ok(child)
/// }
///
/// let (reader, writer) = ipc::pipe()?;
/// assert!(start(writer)?.wait()?.success());
/// assert_eq!(std::io::read_to_string(reader)?, "lent");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Examples
///
/// ```
/// // A second thread: this process cannot be forked.
/// let (stop, wait) = std::sync::mpsc::channel::<()>();
/// let thread = std::thread::spawn(move || wait.recv());
///
/// let (_reader, writer) = ipc::pipe()?;
/// let refused = ipc::fork(writer, |_writer| ()).unwrap_err();
/// assert!(matches!(refused.error, ipc::Error::MultiThreaded { threads: 2.. }));
/// let writer = refused.ends; // still open, still ours
/// # drop((stop, writer));
/// # thread.join().unwrap().unwrap_err();
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("the process could not be forked: {error}")]
pub struct ForkError<E> {
    /// The ends that were to be given to the child.
    pub ends: E,
    /// The cause.
    pub error: Error,
}

impl<E> fmt::Debug for ForkError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkError").field("error", &self.error).finish_non_exhaustive()
    }
}

gives_back!(ForkError<E>);
