//! Tokio's own ends, those of crates for it, and `ipc`'s.

use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Instant;

use ::ipc_channel::ipc::{IpcReceiver, IpcSender};
use ::tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ::tokio::net::{UnixDatagram, UnixStream, unix::pipe};
use futures_core::Stream;
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
                        receives.";

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

/// Messages to a stream of `ipc-channel`. It is the peer's, as it starts a thread, and this process goes on forking.
pub struct IpcChannel {
    sender: IpcSender<Vec<u8>>,
    message: Vec<u8>,
    peer: Peer,
}

impl IpcChannel {
    pub fn new(size: usize) -> io::Result<Self> {
        let (sender, receiver): (_, IpcReceiver<Vec<u8>>) = ::ipc_channel::ipc::channel()?;
        let (mut receiver, mut live) = (Some(receiver), None);
        let peer = Peer::start(Core::There, move |count| {
            if let Some(receiver) = receiver.take() {
                let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build()?;
                live = Some((runtime, receiver.to_stream()));
            }
            let (runtime, stream) = live.as_mut().ok_or_else(ended)?;
            runtime.block_on(async {
                for _ in 0..count {
                    let next = poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await;
                    black_box(sum(&next.ok_or_else(ended)?.map_err(other)?));
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
