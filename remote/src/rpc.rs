//! Calls with names and deadlines: a [`tarpc`] service over a [`StreamSocket`](ipc::tokio::StreamSocket) to a process of this
//! machine, or over a [`TcpStream`](tokio::net::TcpStream) to another machine, from one definition.
//!
//! [`transport`] makes a transport of either, with a limit for each message. A call has a deadline of its own
//! ([`tarpc::context::Context`]), and is an error when that has passed. So a machine that vanished is noticed by a
//! deadline, and a peer that left at once. A transport does not connect anew, and no call is repeated.

use std::io;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tarpc::serde_transport::{self, Transport};
use tarpc::tokio_util::bytes::{Bytes, BytesMut};
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_serde::{Deserializer, Serializer};

/// The format of a message: postcard's, as in the channels of `ipc`. [`transport`] uses it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, value: &T) -> io::Result<Bytes> {
        let encoded =
            postcard::to_allocvec(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(encoded.into())
    }
}

impl<T: for<'de> Deserialize<'de>> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, message: &BytesMut) -> io::Result<T> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        match postcard::take_from_bytes(message).map_err(|error| invalid(error.to_string()))? {
            (value, []) => Ok(value),
            (_, rest) => Err(invalid(format!("{} bytes are left over", rest.len()))),
        }
    }
}

/// Makes a transport for a client or a server of the stream. The example `count_words_cluster` makes both.
///
/// A message that is longer than `max_message` bytes is an error for the side that sends it. It is one for the side that
/// receives its length too, before memory is taken.
pub fn transport<S, Item, SinkItem>(stream: S, max_message: usize) -> Transport<S, Item, SinkItem, Postcard>
where
    S: AsyncRead + AsyncWrite,
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    let framed = LengthDelimitedCodec::builder().max_frame_length(max_message).new_framed(stream);
    serde_transport::new(framed, Postcard)
}
