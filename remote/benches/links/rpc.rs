//! Calls through `transport`, and through tarpc's own.

use std::pin::Pin;
use std::time::Instant;

use futures::StreamExt;
use ipc_remote::rpc::{Postcard, server_transport, transport};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tarpc::serde_transport::Transport;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_util::bytes::{Bytes, BytesMut};
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_serde::{Deserializer, Serializer};

use crate::{listen, rate};

#[tarpc::service]
trait Echo {
    async fn echo(bytes: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn echo(self, _: context::Context, bytes: ByteBuf) -> ByteBuf {
        bytes
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn called(count: usize, size: usize, make: impl FnOnce() -> EchoClient) -> f64 {
    runtime().block_on(async {
        let client = make();
        let mut bytes = ByteBuf::from(vec![7; size]);
        let started = Instant::now();
        for _ in 0..count {
            bytes = client.echo(context::current(), bytes).await.expect("an answer");
        }
        rate(count, started.elapsed())
    })
}

const LONGEST: usize = 8 << 20;

/// The codec of `transport`, or postcard's own encoder and decoder, as a program has them that has no link.
#[derive(Clone, Copy)]
struct Codec {
    is_ours: bool,
}

impl<T: Serialize> Serializer<T> for Codec {
    type Error = std::io::Error;

    fn serialize(self: Pin<&mut Self>, value: &T) -> std::io::Result<Bytes> {
        match self.is_ours {
            true => Pin::new(&mut Postcard).serialize(value),
            false => Ok(postcard::to_allocvec(value).expect("encoded").into()),
        }
    }
}

impl<T: for<'de> Deserialize<'de>> Deserializer<T> for Codec {
    type Error = std::io::Error;

    fn deserialize(self: Pin<&mut Self>, message: &BytesMut) -> std::io::Result<T> {
        match self.is_ours {
            true => Pin::new(&mut Postcard).deserialize(message),
            false => Ok(postcard::from_bytes(message).expect("decoded")),
        }
    }
}

/// tarpc's own frames, which are those of `transport`.
fn framed<S, Item, SinkItem>(stream: S, is_ours: bool) -> Transport<S, Item, SinkItem, Codec>
where
    S: AsyncRead + AsyncWrite,
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    let framed = LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_framed(stream);
    tarpc::serde_transport::new(framed, Codec { is_ours })
}

fn over_tcp(size: usize, count: usize, is_ours: bool) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| {
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let channel = BaseChannel::with_defaults(framed(stream, is_ours));
            channel.execute(Server.serve()).for_each(|answer| answer).await;
        });
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).expect("options");
    let rate = called(count, size, move || {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
        let transport = framed(stream, is_ours);
        EchoClient::new(client::Config::default(), transport).spawn()
    });
    assert!(child.wait().expect("its status").success());
    rate
}

pub fn ours(size: usize, count: usize) -> f64 {
    over_tcp(size, count, true)
}

pub fn bare(size: usize, count: usize) -> f64 {
    over_tcp(size, count, false)
}

/// What a `StreamSocket` stands on, as tokio has it.
pub fn unix(size: usize, count: usize) -> f64 {
    let connected = |socket: ipc::StreamSocket| {
        let stream = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket));
        stream.set_nonblocking(true).expect("an option");
        tokio::net::UnixStream::from_std(stream).expect("a stream")
    };
    let pair = ipc::stream_pair().expect("a pair");
    let child = ipc::fork(pair.child, move |socket| {
        runtime().block_on(async {
            let channel = BaseChannel::with_defaults(framed(connected(socket), false));
            channel.execute(Server.serve()).for_each(|answer| answer).await;
        });
    })
    .expect("a child");
    let rate = called(count, size, move || {
        EchoClient::new(client::Config::default(), framed(connected(pair.parent), false)).spawn()
    });
    assert!(child.wait().expect("its status").success());
    rate
}

pub fn socket(size: usize, count: usize) -> f64 {
    let pair = ipc::stream_pair().expect("a pair");
    let child = ipc::fork(pair.child, |socket| {
        runtime().block_on(async {
            let stream = ipc::tokio::StreamSocket::new(socket).expect("a stream");
            let channel = BaseChannel::with_defaults(server_transport(stream, LONGEST));
            channel.execute(Server.serve()).for_each(|answer| answer).await;
        });
    })
    .expect("a child");
    let rate = called(count, size, move || {
        let stream = ipc::tokio::StreamSocket::new(pair.parent).expect("a stream");
        EchoClient::new(client::Config::default(), transport(stream, LONGEST)).spawn()
    });
    assert!(child.wait().expect("its status").success());
    rate
}
