//! The errors that give a value back.

use std::fmt;

use crate::error::{Error, gives_back};

/// A value that was not sent, and why. It is as it was before, with its ends open and usable.
///
/// `?` turns it into [`Error`] or [`io::Error`](std::io::Error), and drops the value.
///
/// `anyhow::Error` and `Box<dyn Error>` take the value along, with its ends open. They take no value that borrows, such as a
/// `&str`. `.map_err(ipc::Error::from)?` drops the value first.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = ipc::channel()?;
/// drop(receiver);
///
/// let (reader, writer) = ipc::pipe()?;
/// let unsent = sender.send(("read this", reader)).unwrap_err();
/// assert!(matches!(unsent.error, ipc::Error::Closed));
/// let (_, reader) = unsent.value; // still ours
/// drop(writer);
/// assert_eq!(std::io::read_to_string(reader)?, "");
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Unsent<T> {
    /// The value.
    pub value: T,
    /// The cause.
    pub error: Error,
}

/// A call without an answer, and why.
///
/// `?` turns it into [`Error`] or [`io::Error`](std::io::Error), and drops the value.
///
/// # Examples
///
/// See [`Duplex::call_timeout`](crate::Duplex::call_timeout).
pub struct CallError<S> {
    /// The value, if it was not sent. `None`: it was sent, and no answer came.
    pub unsent: Option<S>,
    /// The cause.
    pub error: Error,
}

impl<S> From<Unsent<S>> for CallError<S> {
    fn from(unsent: Unsent<S>) -> Self {
        Self { unsent: Some(unsent.value), error: unsent.error }
    }
}

impl<T> fmt::Display for Unsent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value could not be sent: {}", self.error)
    }
}

impl<S> fmt::Display for CallError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unsent {
            Some(_) => write!(f, "the value could not be sent: {}", self.error),
            None => write!(f, "the value was sent, and no answer came: {}", self.error),
        }
    }
}

/// Without the value, which need not implement `Debug`.
impl<T> fmt::Debug for Unsent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Without the value, which need not implement `Debug`.
impl<S> fmt::Debug for CallError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_unsent = self.unsent.is_some();
        f.debug_struct("CallError").field("error", &self.error).field("is_unsent", &is_unsent).finish_non_exhaustive()
    }
}

impl<T> std::error::Error for Unsent<T> {}
impl<S> std::error::Error for CallError<S> {}

gives_back!(Unsent<T>);
gives_back!(CallError<S>);
