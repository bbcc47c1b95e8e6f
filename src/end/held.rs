//! Values with a buffer in front of an end: taking the end out, and the error that gives them back.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, gives_back};

/// A buffer that could not be flushed, and why. Its owner is given back.
///
/// `?` turns it into [`Error`] or [`std::io::Error`], and drops the owner, which tries once more. `anyhow::Error` and
/// `Box<dyn Error>` take the owner along, with its end open.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// let (reader, writer) = ipc::pipe()?;
/// let mut writer = ipc::BufferedWriter::new(writer);
/// writer.write_all(b"too late")?;
/// drop(reader);
/// let refused = writer.into_inner().unwrap_err();
/// assert!(matches!(refused.error, ipc::Error::Closed));
/// assert!(refused.unflushed.get_ref().is_closed()?);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("what waited could not be sent: {error}")]
pub struct FlushError<T> {
    /// The [`PackedSocket`](crate::PackedSocket), [`MessageWriter`](crate::MessageWriter),
    /// [`BufferedWriter`](crate::BufferedWriter) or [`MessageReader`](crate::MessageReader), with the bytes that are still in it.
    pub unflushed: T,
    /// The cause.
    pub error: Error,
}

impl<T> fmt::Debug for FlushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushError").field("error", &self.error).finish_non_exhaustive()
    }
}

gives_back!(FlushError<T>);

/// An end inside a value that does something when it is dropped, and can give the end back.
pub(crate) struct Held<T>(Option<T>);

impl<T> Held<T> {
    pub(crate) fn new(end: T) -> Self {
        Self(Some(end))
    }

    /// Takes the end out, for good: nothing may be done with it through this value any more.
    pub(crate) fn take(&mut self) -> T {
        self.0.take().expect(HELD)
    }

    /// The same in a destructor. `None`: it was taken out before.
    pub(crate) fn take_last(&mut self) -> Option<T> {
        self.0.take()
    }
}

const HELD: &str = "the end is taken out last of all";

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(HELD)
    }
}
