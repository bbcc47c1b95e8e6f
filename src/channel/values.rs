//! The values that arrive, one after another.

use std::iter::{self, FusedIterator};

use serde::de::DeserializeOwned;

use super::duplex::Duplex;
use super::link::Link;
use super::receiver::{Receiver, is_over_with_the_value};
use crate::error::{Error, Result};
use crate::socket::DatagramSocket;

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
#[must_use = "an iterator receives nothing until it is used"]
pub struct Values<'a, R> {
    from: &'a R,
    is_over: bool,
}

impl<'a, R> Values<'a, R> {
    pub(super) fn new(from: &'a R) -> Self {
        Self { from, is_over: false }
    }

    fn next_by<T, L: Link>(&mut self, recv: impl FnOnce(&R) -> Result<Option<T>>) -> Option<Result<T>> {
        next::<R, T, L>(self.from, &mut self.is_over, recv)
    }

    /// The values that are there, for a `try_recv`: ends where it would block, too.
    pub(super) fn arrived<T, L: Link>(
        mut self,
        try_recv: impl Fn(&R) -> Result<Option<T>>,
    ) -> impl Iterator<Item = Result<T>> {
        let arrived = move |from: &R| match try_recv(from) {
            Err(Error::WouldBlock) => Ok(None),
            received => received,
        };
        iter::from_fn(move || self.next_by::<T, L>(&arrived)).fuse()
    }
}

fn next<R, T, L: Link>(from: &R, is_over: &mut bool, recv: impl FnOnce(&R) -> Result<Option<T>>) -> Option<Result<T>> {
    if *is_over {
        return None;
    }
    let next = recv(from).transpose();
    *is_over = match &next {
        Some(Ok(_)) => false,
        Some(Err(Error::Malformed { .. })) => !L::OUTLIVES_MALFORMED,
        Some(Err(error)) => !is_over_with_the_value(error),
        None => true,
    };
    next
}

/// The same as [`Values`], and owns the [`Receiver`] or the [`Duplex`]: when it is dropped, that is closed.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = ipc::channel()?;
/// let child = ipc::fork(sender, |sender| -> ipc::Result<()> {
///     for number in 1..=3 {
///         sender.send(number)?;
///     }
///     Ok(())
/// })?;
/// let numbers: Vec<u32> = receiver.into_iter().collect::<ipc::Result<_>>()?;
/// assert_eq!(numbers, [1, 2, 3]);
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator receives nothing until it is used"]
pub struct IntoValues<R> {
    from: R,
    is_over: bool,
}

impl<T: DeserializeOwned, L: Link> Iterator for Values<'_, Receiver<T, L>> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.next_by::<T, L>(Receiver::recv)
    }
}

impl<S, R: DeserializeOwned> Iterator for Values<'_, Duplex<S, R>> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_by::<R, DatagramSocket>(Duplex::recv)
    }
}

impl<T: DeserializeOwned, L: Link> Iterator for IntoValues<Receiver<T, L>> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        next::<_, T, L>(&self.from, &mut self.is_over, Receiver::recv)
    }
}

impl<S, R: DeserializeOwned> Iterator for IntoValues<Duplex<S, R>> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        next::<_, R, DatagramSocket>(&self.from, &mut self.is_over, Duplex::recv)
    }
}

impl<T: DeserializeOwned, L: Link> FusedIterator for Values<'_, Receiver<T, L>> {}
impl<S, R: DeserializeOwned> FusedIterator for Values<'_, Duplex<S, R>> {}
impl<T: DeserializeOwned, L: Link> FusedIterator for IntoValues<Receiver<T, L>> {}
impl<S, R: DeserializeOwned> FusedIterator for IntoValues<Duplex<S, R>> {}

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

impl<T: DeserializeOwned, L: Link> IntoIterator for Receiver<T, L> {
    type Item = Result<T>;
    type IntoIter = IntoValues<Self>;

    /// As [`Receiver::iter`], but the iterator owns the receiver.
    fn into_iter(self) -> Self::IntoIter {
        IntoValues { from: self, is_over: false }
    }
}

impl<S, R: DeserializeOwned> IntoIterator for Duplex<S, R> {
    type Item = Result<R>;
    type IntoIter = IntoValues<Self>;

    /// As [`Duplex::iter`], but the iterator owns this end.
    fn into_iter(self) -> Self::IntoIter {
        IntoValues { from: self, is_over: false }
    }
}
