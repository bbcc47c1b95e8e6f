//! Calls with names and deadlines, from one definition. A [`tarpc`] service runs over a
//! [`StreamSocket`](ipc::tokio::StreamSocket) to a process of this machine, or over a [`TcpStream`](tokio::net::TcpStream) to
//! another machine.
//!
//! [`transport`] makes a client's transport of either, and [`server_transport`] a server's, with a limit for each message. A
//! call has a deadline of its own ([`tarpc::context::Context`]), and is an error when that has passed. So a machine that
//! vanished is noticed by a deadline, and a peer that left at once. A transport does not connect anew, and no call is repeated.
//!
//! A server has no deadline: it waits for the next call. [`keep_alive`] gives its connection one, after which a client's
//! machine that vanished is an error, and the server ends.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::time::{Duration, Instant};

use ipc::{Incoming, Link, Outbound, Outgoing, Received, Receiver, Sender, Until};
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use tarpc::serde_transport::{self, Transport};
use tarpc::tokio_util::bytes::{Bytes, BytesMut};
use tarpc::tokio_util::codec::{Framed, LengthDelimitedCodec};
use tarpc::{ClientMessage, Request, Response, context, trace};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_serde::{Deserializer, Serializer};

/// The longest deadline of a call: a server's timer has none that is longer than two years.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The format of a message: that of a value in the channels of `ipc`, with their bounds. [`transport`] uses it.
///
/// A list whose elements take no bytes is no longer than the message and 4096, and values nest 128 deep at most. Both
/// sides refuse what is over that. A value with ends does not travel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

/// The same format, for the calls that a server receives. [`server_transport`] uses it.
///
/// tarpc panics at a call whose deadline is too far in the future. Here, a deadline that is farther than a year is one in a
/// year.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls;

/// A [`ClientMessage`] as it is sent: its deadline is a time from now.
#[derive(Deserialize)]
enum Said<T> {
    Request { deadline: Duration, trace_context: trace::Context, id: u64, message: T },
    Cancel { trace_context: trace::Context, request_id: u64 },
}

/// A link that keeps the one message that it is sent.
#[derive(Debug, Default)]
struct Kept(RefCell<Vec<u8>>);

impl Link for Kept {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(kept: &Self, message: Outbound<'_>, _: Until) -> ipc::Result<()> {
        kept.0.replace(message.bytes().to_vec());
        Ok(())
    }

    fn close(self) -> ipc::Result<()> {
        Ok(())
    }
}

impl Outgoing for Kept {}

/// A link that one message has come through.
#[derive(Debug)]
struct Come<'a>(&'a [u8]);

impl Link for Come<'_> {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    /// Its length was looked at when it was received.
    fn recv<R>(come: &Self, _: usize, _: Until, take: impl FnOnce(&[u8], Received) -> R) -> ipc::Result<Option<R>> {
        Ok(Some(take(come.0, Received::default())))
    }

    fn close(self) -> ipc::Result<()> {
        Ok(())
    }
}

impl Incoming for Come<'_> {}

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, value: &T) -> io::Result<Bytes> {
        let sender = Sender::new(Kept::default());
        sender.send(value).map_err(|unsent| io::Error::new(io::ErrorKind::InvalidInput, unsent.error))?;
        Ok(sender.into_inner().0.take().into())
    }
}

impl<T: for<'de> Deserialize<'de>> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, message: &BytesMut) -> io::Result<T> {
        let received = Receiver::new(Come(message)).recv();
        received.map_err(io::Error::from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl<T: Serialize> Serializer<T> for Calls {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, value: &T) -> io::Result<Bytes> {
        Pin::new(&mut Postcard).serialize(value)
    }
}

impl<T: for<'de> Deserialize<'de>> Deserializer<ClientMessage<T>> for Calls {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, message: &BytesMut) -> io::Result<ClientMessage<T>> {
        Ok(match Pin::new(&mut Postcard).deserialize(message)? {
            Said::Request { deadline, trace_context, id, message } => {
                let mut context = context::current();
                context.deadline = Instant::now() + deadline.min(LONGEST);
                context.trace_context = trace_context;
                ClientMessage::Request(Request { context, id, message })
            }
            Said::Cancel { trace_context, request_id } => ClientMessage::Cancel { trace_context, request_id },
        })
    }
}

/// Makes a client's transport of the stream. The example `count_words_cluster` makes one.
///
/// A message that is longer than `max_message` bytes is an error for the side that sends it. It is one for the side that
/// receives its length too, before memory is taken. The decoded message is bounded too: see [`Postcard`].
pub fn transport<S, Item, SinkItem>(stream: S, max_message: usize) -> Transport<S, Item, SinkItem, Postcard>
where
    S: AsyncRead + AsyncWrite,
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    serde_transport::new(framed(stream, max_message), Postcard)
}

/// Makes a server's transport of the stream, with the limits of [`transport`] and one for the deadline of a call: see
/// [`Calls`]. The example `count_words_cluster` makes one.
///
/// Memory for a message is reserved when its length has arrived: at most `max_message` bytes for each connection. The number
/// of calls at a time is limited by [`max_concurrent_requests`](tarpc::server::Channel::max_concurrent_requests).
pub fn server_transport<S, Call, Answer>(
    stream: S,
    max_message: usize,
) -> Transport<S, ClientMessage<Call>, Response<Answer>, Calls>
where
    S: AsyncRead + AsyncWrite,
    Call: for<'de> Deserialize<'de>,
    Answer: Serialize,
{
    serde_transport::new(framed(stream, max_message), Calls)
}

/// With a length in front of each message, and an error for one that is longer, before memory is taken.
fn framed<S: AsyncRead + AsyncWrite>(stream: S, max_message: usize) -> Framed<S, LengthDelimitedCodec> {
    LengthDelimitedCodec::builder().max_frame_length(max_message).new_framed(stream)
}

/// Makes a machine that vanished an error on that TCP connection, once its kernel has been silent for the deadline or
/// somewhat longer. Whole seconds count, at least 3. A process that is slow is no error, since its kernel answers. But one
/// that reads nothing for so long, while the connection is full, counts as gone.
///
/// Without it, a server whose client's machine vanished waits for ever, and so does a client without a call under way. The
/// example `count_words_cluster` has it at both sides.
///
/// # Errors
///
/// [`io::Error`]: the socket is not a TCP socket.
///
/// # Platform
///
/// Sets `SO_KEEPALIVE` with its times, and `TCP_USER_TIMEOUT`
/// ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)).
///
/// # Examples
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// ipc_remote::rpc::keep_alive(&stream, Duration::from_secs(30))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn keep_alive(stream: impl AsFd, deadline: Duration) -> io::Result<()> {
    /// The questions to an idle peer that are not answered.
    const QUESTIONS: u32 = 2;
    // The kernel's own limits.
    let deadline = Duration::from_secs(deadline.as_secs().clamp(3, 3 * 32_767));
    let question = deadline / (QUESTIONS + 1);
    let stream = stream.as_fd();
    sockopt::set_tcp_keepidle(stream, question)?;
    sockopt::set_tcp_keepintvl(stream, question)?;
    sockopt::set_tcp_keepcnt(stream, QUESTIONS)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}
