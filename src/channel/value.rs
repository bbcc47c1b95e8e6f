//! A value on its way: encoded and sent, received and decoded.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::buffer::Buffer;
use super::decode::decode;
use super::encode::encode;
use super::large;
use super::link::{Link, Outbound};
use super::scope;
use super::wrong::Wrong;
use crate::error::{Error, Result};
use crate::socket::Received;
use crate::sys::Errno;
use crate::sys::ancillary::MOST;
use crate::wait::{Patience, Until};

/// Encodes a value and sends it. The caller keeps the value.
#[inline]
pub(super) fn send<T: Serialize + ?Sized, L: Link>(link: &L::Shared, value: &T, patience: Patience) -> Result<()> {
    attempt::<T, L>(link, value, patience).map_err(|error| large::in_time(error, Until(patience)))
}

/// The same, but busy memory stays `EBUSY`.
#[inline]
pub(super) fn attempt<T: Serialize + ?Sized, L: Link>(link: &L::Shared, value: &T, patience: Patience) -> Result<()> {
    lend(value, L::CARRIES_ENDS, |message| L::send(link, message, Until(patience)))
}

/// Encodes a value, and calls `send` with it.
#[inline]
pub(super) fn lend<T: Serialize + ?Sized, R>(
    value: &T,
    are_carried: bool,
    send: impl FnOnce(Outbound<'_>) -> Result<R>,
) -> Result<R> {
    let mut buffer = Buffer::new();
    let (encoded, attached) = scope::sending(|| encode(value, &mut buffer));
    if let Err(wrong) = encoded {
        return Err(attached.refused.map_or_else(|| Error::Encode { source: Box::new(wrong) }, |refused| *refused));
    }
    let bytes = buffer.as_slice();
    if attached.count > 0 {
        check_ends(attached.count, are_carried, bytes)?;
    }
    send(Outbound::new(bytes, &attached.ends))
}

#[cold]
fn check_ends(count: usize, are_carried: bool, bytes: &[u8]) -> Result<()> {
    if !are_carried {
        return Err(Error::CannotCarry);
    }
    if count > MOST {
        return Err(Error::TooLong { len: count, max: MOST });
    }
    match bytes {
        [] => Err(Error::Encode { source: "a value with ends encodes to no bytes".into() }),
        _ => Ok(()),
    }
}

/// Receives a message and decodes it.
#[inline]
pub(super) fn recv<T: DeserializeOwned, L: Link>(
    link: &L::Shared,
    max: usize,
    patience: Patience,
) -> Result<Option<T>> {
    L::recv(link, max, Until(patience), open)?.transpose()
}

/// Decodes a message with the ends that came beside it.
#[inline]
pub(super) fn open<T: DeserializeOwned>(message: &[u8], received: Received) -> Result<T> {
    let ends = if received.is_empty() { Vec::new() } else { received.into_ends() };
    scope::receiving(ends, || decode(message)).map_err(|wrong| undecoded(message, wrong))
}

/// All of a message is in the error. Its sender has decided how long it is, up to the receiver's limit.
#[cold]
fn undecoded(message: &[u8], wrong: Wrong) -> Error {
    let mut whole = Vec::new();
    if whole.try_reserve_exact(message.len()).is_err() {
        return Error::system("malloc", Errno::NOMEM);
    }
    whole.extend_from_slice(message);
    Error::Decode { message: whole, source: Box::new(wrong) }
}
