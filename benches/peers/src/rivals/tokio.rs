//! Tokio's own ends, those of crates for it, and `ipc`'s.

use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Instant;

use ::ipc_channel::asynch::IpcStream;
use ::ipc_channel::ipc::{IpcReceiver, IpcSender};
use ::tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ::tokio::net::{UnixDatagram, UnixStream, unix::pipe};
use ::tokio::runtime::Runtime;
use futures_core::Stream as _;
use serde_bytes::ByteBuf;
use tokio_seqpacket::UnixSeqpacket;

use crate::channel::{FILL, sum};
use crate::machine::Core;
use crate::peer::Peer;
use crate::turns::{Contender, Pass};

use super::bare::{Seqpacket, check};
use super::{Made, ended, other};

pub const NOTE: &str = "Each process has a runtime on its one thread, and is inside of it for a whole pass. Tokio's pipes and \
                        sockets, and `tokio-seqpacket`, have `O_NONBLOCK` set, as they ask for. A talk with a program feeds \
                        `cat` and reads what it gives back. `ipc-channel`'s stream is fed by a thread of its own in the process that \
                        receives. `ipc channel` sends `ByteBuf`s of serde_bytes.";

/// Messages both ways.
pub trait Messages {
    async fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// One that is as long as the buffer.
    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()>;
}

/// A stream whose messages are all as long.
pub struct Bytes<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Messages for Bytes<S> {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message).await
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(buf).await.map(drop)
    }
}

/// The same of two that are one way each.
impl<W: AsyncWrite + Unpin, R: AsyncRead + Unpin> Messages for (W, R) {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message).await
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.1.read_exact(buf).await.map(drop)
    }
}

impl Messages for UnixDatagram {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        UnixDatagram::send(self, message).await.map(drop)
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.recv(buf).await.map(drop)
    }
}

impl Messages for UnixSeqpacket {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        UnixSeqpacket::send(self, message).await.map(drop)
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.recv(buf).await.map(drop)
    }
}

impl Messages for ::ipc::tokio::DatagramSocket {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        Ok(::ipc::tokio::DatagramSocket::send(self, message).await?)
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.recv(buf).await?.ok_or_else(ended).map(drop)
    }
}

/// The writer first, as for all that go from the peer to here.
pub fn pipe() -> Made<OwnedFd, OwnedFd> {
    let (reader, writer) = io::pipe()?;
    Ok((writer.into(), reader.into()))
}

pub fn sender(end: OwnedFd) -> io::Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(end)
}

pub fn receiver(end: OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(end)
}

pub fn two_pipes() -> Made<(OwnedFd, OwnedFd), (OwnedFd, OwnedFd)> {
    let ((one, their_reader), (their_writer, other)) = (pipe()?, pipe()?);
    Ok(((one, other), (their_writer, their_reader)))
}

pub fn both_pipes((writer, reader): (OwnedFd, OwnedFd)) -> io::Result<(pipe::Sender, pipe::Receiver)> {
    Ok((sender(writer)?, receiver(reader)?))
}

pub fn std_streams() -> Made<net::UnixStream, net::UnixStream> {
    net::UnixStream::pair()
}

pub fn stream(end: net::UnixStream) -> io::Result<UnixStream> {
    end.set_nonblocking(true)?;
    UnixStream::from_std(end)
}

pub fn std_datagrams() -> Made<net::UnixDatagram, net::UnixDatagram> {
    net::UnixDatagram::pair()
}

pub fn datagram(end: net::UnixDatagram) -> io::Result<UnixDatagram> {
    end.set_nonblocking(true)?;
    UnixDatagram::from_std(end)
}

pub fn seqpacket(end: Seqpacket) -> io::Result<UnixSeqpacket> {
    // `try_from` leaves it as it is, and a socket that blocks would hold up the runtime.
    // SAFETY: it sets a flag of an open descriptor.
    check(unsafe { libc::fcntl(end.0.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    UnixSeqpacket::try_from(end.0)
}

pub type OurPipes = (::ipc::PipeWriter, ::ipc::PipeReader);

pub fn our_pipe() -> Made<::ipc::PipeWriter, ::ipc::PipeReader> {
    let (reader, writer) = ::ipc::pipe()?;
    Ok((writer, reader))
}

pub fn our_two_pipes() -> Made<OurPipes, OurPipes> {
    let ((one, their_reader), (their_writer, other)) = (our_pipe()?, our_pipe()?);
    Ok(((one, other), (their_writer, their_reader)))
}

pub fn our_both_pipes((writer, reader): OurPipes) -> io::Result<(::ipc::tokio::PipeWriter, ::ipc::tokio::PipeReader)> {
    Ok((::ipc::tokio::PipeWriter::new(writer)?, ::ipc::tokio::PipeReader::new(reader)?))
}

pub use super::ours::{datagrams as our_datagrams, streams as our_streams};

pub fn ring_writer(socket: ::ipc::StreamSocket) -> io::Result<::ipc::tokio::RingWriter> {
    ::ipc::tokio::RingWriter::new(::ipc::RingWriter::new(socket)?)
}

pub fn ring_reader(socket: ::ipc::StreamSocket) -> io::Result<::ipc::tokio::RingReader> {
    ::ipc::tokio::RingReader::new(::ipc::RingReader::new(socket)?)
}

/// A side of our channels, which may go one way.
type OurSide = (Option<::ipc::Sender<ByteBuf>>, Option<::ipc::Receiver<ByteBuf>>);

/// The same, under a runtime.
pub struct OurValues(Option<::ipc::tokio::Sender<ByteBuf>>, Option<::ipc::tokio::Receiver<ByteBuf>>);

pub fn our_channel() -> Made<OurSide, OurSide> {
    let (sender, receiver) = ::ipc::channel()?;
    Ok(((Some(sender), None), (None, Some(receiver))))
}

pub fn our_channels() -> Made<OurSide, OurSide> {
    let ((one, their_receiver), (their_sender, other)) = (::ipc::channel()?, ::ipc::channel()?);
    Ok(((Some(one), Some(other)), (Some(their_sender), Some(their_receiver))))
}

pub fn our_values((sender, receiver): OurSide) -> io::Result<OurValues> {
    let sender = sender.map(::ipc::tokio::Sender::new).transpose()?;
    Ok(OurValues(sender, receiver.map(::ipc::tokio::Receiver::new).transpose()?))
}

impl Messages for OurValues {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sender = self.0.as_ref().ok_or_else(ended)?;
        Ok(sender.send(ByteBuf::from(message)).await?)
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let value = self.1.as_ref().ok_or_else(ended)?.recv().await?.ok_or_else(ended)?;
        buf.copy_from_slice(&value);
        Ok(())
    }
}

/// One order after another, each answered: how long each took, in nanoseconds.
pub async fn ask(messages: &mut impl Messages, order: &[u8], buf: &mut [u8], count: u64) -> io::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(count as usize);
    let mut before = Instant::now();
    for _ in 0..count {
        messages.send(order).await?;
        messages.receive(buf).await?;
        let now = Instant::now();
        times.push(now.duration_since(before).as_nanos() as u64);
        before = now;
    }
    Ok(times)
}

/// The answers to those.
pub async fn answer(messages: &mut impl Messages, answer: &[u8], buf: &mut [u8], count: u64) -> io::Result<()> {
    for _ in 0..count {
        messages.receive(buf).await?;
        messages.send(answer).await?;
    }
    Ok(())
}

/// A runtime on one thread.
pub fn runtime() -> io::Result<Runtime> {
    ::tokio::runtime::Builder::new_current_thread().enable_io().build()
}

type Stream = IpcStream<Vec<u8>>;

/// What `ipc-channel` receives with, which becomes a stream where it is used: that starts a thread.
enum Incoming {
    Bare(Option<IpcReceiver<Vec<u8>>>),
    Live(Runtime, Stream),
}

impl Incoming {
    fn live(&mut self) -> io::Result<(&Runtime, &mut Stream)> {
        if let Self::Bare(receiver) = self {
            let receiver = receiver.take().ok_or_else(ended)?;
            *self = Self::Live(runtime()?, receiver.to_stream());
        }
        match self {
            Self::Live(runtime, stream) => Ok((runtime, stream)),
            Self::Bare(_) => Err(ended()),
        }
    }
}

async fn next(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let next = poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await;
    next.ok_or_else(ended)?.map_err(other)
}

/// Messages to a stream of `ipc-channel`. It is the peer's, as it starts a thread, and this process goes on forking.
pub struct IpcChannel {
    sender: IpcSender<Vec<u8>>,
    message: Vec<u8>,
    peer: Peer,
}

impl IpcChannel {
    pub fn new(size: usize) -> io::Result<Self> {
        let (sender, receiver) = ::ipc_channel::ipc::channel()?;
        let mut incoming = Incoming::Bare(Some(receiver));
        let peer = Peer::start(Core::There, move |count| {
            let (runtime, stream) = incoming.live()?;
            runtime.block_on(async {
                for _ in 0..count {
                    black_box(sum(&next(stream).await?));
                }
                Ok(0)
            })
        })?;
        Ok(Self { sender, message: vec![FILL; size], peer })
    }
}

impl Contender for IpcChannel {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        let started = Instant::now();
        self.peer.order(count)?;
        (0..count).try_for_each(|_| self.sender.send(self.message.clone()).map_err(other))?;
        self.peer.answer()?;
        Ok(Pass::of(started.elapsed(), count))
    }
}

/// A sender and a stream of `ipc-channel`.
struct IpcValues<'a>(&'a IpcSender<Vec<u8>>, &'a mut Stream);

impl Messages for IpcValues<'_> {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message.to_vec()).map_err(other)
    }

    async fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&next(self.1).await?);
        Ok(())
    }
}

/// Round trips between streams of `ipc-channel`, in two processes that are not this one. The one that asks says how long it took.
pub struct IpcChannels {
    asks: Peer,
    answers: Peer,
}

impl IpcChannels {
    pub fn new(size: usize) -> io::Result<Self> {
        let ((orders, their_orders), (their_answers, answers)) =
            (::ipc_channel::ipc::channel()?, ::ipc_channel::ipc::channel()?);
        let (mut incoming, message, mut buf) = (Incoming::Bare(Some(their_orders)), vec![FILL; size], vec![0; size]);
        let answering = Peer::start(Core::There, move |count| {
            let (runtime, stream) = incoming.live()?;
            runtime.block_on(answer(&mut IpcValues(&their_answers, stream), &message, &mut buf, count)).map(|()| 0)
        })?;
        let (mut incoming, message, mut buf) = (Incoming::Bare(Some(answers)), vec![FILL; size], vec![0; size]);
        let asking = Peer::start(Core::Here, move |count| {
            let (runtime, stream) = incoming.live()?;
            let mut times = runtime.block_on(ask(&mut IpcValues(&orders, stream), &message, &mut buf, count))?;
            if times.is_empty() {
                return Ok(0); // the first order is for the stream alone
            }
            let Pass { ns, p99 } = Pass::of_each(&mut times);
            Ok(ns as u64 | (p99.unwrap_or_default() as u64) << 32)
        })?;
        for peer in [&answering, &asking] {
            peer.order(0)?;
            peer.answer()?;
        }
        Ok(Self { asks: asking, answers: answering })
    }
}

impl Contender for IpcChannels {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        self.answers.order(count)?;
        self.asks.order(count)?;
        let times = self.asks.answer()?;
        self.answers.answer()?;
        Ok(Pass { ns: f64::from(times as u32), p99: Some((times >> 32) as f64) })
    }
}

/// Feeds `cat`, and reads what it gives back.
pub async fn talk(input: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut command = ::tokio::process::Command::new("/bin/cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (Some(mut stdin), output) = (child.stdin.take(), child.wait_with_output()) else { return Err(ended()) };
    let feed = async {
        stdin.write_all(&input).await?;
        drop(stdin);
        Ok(())
    };
    let ((), output) = ::tokio::try_join!(feed, output)?;
    Ok(output.stdout)
}

pub async fn our_talk(input: Vec<u8>) -> io::Result<Vec<u8>> {
    Ok(::ipc::tokio::communicate(::ipc::Command::new("/bin/cat"), &input, None).await?.stdout)
}
