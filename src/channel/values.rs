//! The values that arrive, one after another.

use std::iter::FusedIterator;

use serde::de::DeserializeOwned;

use super::duplex::Duplex;
use super::link::Link;
use super::receiver::{Receiver, is_over_with_the_value};
use crate::error::Result;

/// Iterates over the values that arrive at a [`Receiver`] or a [`Duplex`], until EOF. Its `next` blocks. An error that would
/// come again ends it too.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = ipc::channel()?;
/// sender.send(1)?;
/// sender.send(2)?;
/// sender.close()?;
/// let mut sum = 0;
/// for number in &receiver {
///     sum += number?;
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct Values<'a, R> {
    from: &'a R,
    is_over: bool,
}

impl<'a, R> Values<'a, R> {
    pub(super) fn new(from: &'a R) -> Self {
        Self { from, is_over: false }
    }

    pub(super) fn next_by<T>(&mut self, recv: impl FnOnce(&R) -> Result<Option<T>>) -> Option<Result<T>> {
        if self.is_over {
            return None;
        }
        let next = recv(self.from).transpose();
        self.is_over = match &next {
            Some(Ok(_)) => false,
            Some(Err(error)) => !is_over_with_the_value(error),
            None => true,
        };
        next
    }
}

impl<T: DeserializeOwned, L: Link> Iterator for Values<'_, Receiver<T, L>> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.next_by(Receiver::recv)
    }
}

impl<S, R: DeserializeOwned> Iterator for Values<'_, Duplex<S, R>> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_by(Duplex::recv)
    }
}

impl<T: DeserializeOwned, L: Link> FusedIterator for Values<'_, Receiver<T, L>> {}
impl<S, R: DeserializeOwned> FusedIterator for Values<'_, Duplex<S, R>> {}

impl<'a, T: DeserializeOwned, L: Link> IntoIterator for &'a Receiver<T, L> {
    type Item = Result<T>;
    type IntoIter = Values<'a, Receiver<T, L>>;

    /// The same as [`Receiver::iter`].
    fn into_iter(self) -> Self::IntoIter {
        Values::new(self)
    }
}

impl<'a, S, R: DeserializeOwned> IntoIterator for &'a Duplex<S, R> {
    type Item = Result<R>;
    type IntoIter = Values<'a, Duplex<S, R>>;

    /// The same as [`Duplex::iter`].
    fn into_iter(self) -> Self::IntoIter {
        Values::new(self)
    }
}
