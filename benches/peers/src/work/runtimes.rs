//! Under tokio: ends that are awaited, each process with a runtime on its one thread.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::channel::{FILL, sum};
use crate::machine::Core;
use crate::peer::Peer;
use crate::rivals::bare;
use crate::rivals::tokio::{self as rivals, Messages, runtime};
use crate::turns::{Contender, Entry, Pass, Turns, USUAL};

use super::calls::timed;
use super::size_name;

pub const STREAMS: &str = "under tokio, streams";
pub const MESSAGES: &str = "under tokio, messages";
pub const ROUND_TRIPS: &str = "under tokio, round trips";
pub const MANY: &str = "under tokio, a thousand ends";
pub const PROGRAMS: &str = "under tokio, talking to a program";

pub const STREAM_SIZES: [usize; 3] = [64, 4 << 10, 64 << 10];
pub const SIZES: [usize; 2] = [16, 4 << 10];
pub const FED: [usize; 2] = [16, 1 << 20];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    for size in STREAM_SIZES {
        turns.take(STREAMS, &size_name(size), size as u64, USUAL, streams(size))?;
    }
    for size in SIZES {
        turns.take(MESSAGES, &size_name(size), size as u64, USUAL, messages(size))?;
        turns.take(ROUND_TRIPS, &size_name(size), size as u64, USUAL, round_trips(size))?;
    }
    turns.take(MANY, &size_name(16), 16, USUAL, many())?;
    FED.iter().try_for_each(|size| turns.take(PROGRAMS, &size_name(*size), *size as u64, USUAL, programs(*size)))
}

fn streams(size: usize) -> Vec<Entry> {
    vec![
        stream("tokio::net::unix::pipe", size, rivals::pipe, rivals::sender, rivals::receiver),
        stream("tokio::net::UnixStream", size, rivals::std_streams, rivals::stream, rivals::stream),
        stream("ipc pipe", size, rivals::our_pipe, ipc::tokio::PipeWriter::new, ipc::tokio::PipeReader::new),
        stream(
            "ipc stream pair",
            size,
            rivals::our_streams,
            ipc::tokio::StreamSocket::new,
            ipc::tokio::StreamSocket::new,
        ),
        stream("ipc ring", size, rivals::our_streams, rivals::ring_writer, rivals::ring_reader),
    ]
}

fn messages(size: usize) -> Vec<Entry> {
    vec![
        one_way("tokio::net::UnixDatagram", size, rivals::std_datagrams, rivals::datagram),
        one_way("tokio-seqpacket", size, bare::seqpacket, rivals::seqpacket),
        Entry::new("ipc-channel, asynchronous", move || rivals::IpcChannel::new(size)),
        one_way("ipc datagram", size, rivals::our_datagrams, ipc::tokio::DatagramSocket::new),
        one_way("ipc channel", size, rivals::our_channel, rivals::our_values),
    ]
}

fn round_trips(size: usize) -> Vec<Entry> {
    let streams = || {
        let pair = ipc::stream_pair()?;
        Ok((pair.parent, pair.child))
    };
    vec![
        trip("tokio::net::unix::pipe", size, rivals::two_pipes, rivals::both_pipes),
        trip("tokio::net::UnixStream", size, rivals::std_streams, |end| rivals::stream(end).map(rivals::Bytes)),
        trip("tokio::net::UnixDatagram", size, rivals::std_datagrams, rivals::datagram),
        trip("tokio-seqpacket", size, bare::seqpacket, rivals::seqpacket),
        trip("ipc pipe", size, rivals::our_two_pipes, rivals::our_both_pipes),
        trip("ipc stream pair", size, streams, |end| ipc::tokio::StreamSocket::new(end).map(rivals::Bytes)),
        Entry::new("ipc-channel, asynchronous", move || rivals::IpcChannels::new(size)),
        trip("ipc datagram", size, rivals::our_datagrams, ipc::tokio::DatagramSocket::new),
        trip("ipc channel", size, rivals::our_channels, rivals::our_values),
    ]
}

/// What is made before a fork, and put under the runtime of the process that uses it.
enum Side<End, Live> {
    Bare(End, fn(End) -> io::Result<Live>),
    Live(Runtime, Live),
    Gone,
}

impl<End, Live> Side<End, Live> {
    fn live(&mut self) -> io::Result<(&Runtime, &mut Live)> {
        if let Side::Bare(..) = self {
            let Side::Bare(end, open) = std::mem::replace(self, Side::Gone) else { unreachable!("it was looked at") };
            let runtime = runtime()?;
            let live = runtime.block_on(async { open(end) })?;
            *self = Side::Live(runtime, live);
        }
        match self {
            Side::Live(runtime, live) => Ok((runtime, live)),
            _ => Err(io::Error::other("it could not be opened")),
        }
    }
}

/// A stream from a peer to here.
fn stream<A: 'static, B: 'static, W: AsyncWrite + Unpin + 'static, R: AsyncRead + Unpin + 'static>(
    name: &'static str,
    size: usize,
    make: fn() -> io::Result<(A, B)>,
    writer: Open<A, W>,
    reader: Open<B, R>,
) -> Entry {
    Entry::new(name, move || {
        let (message, mut buf) = (vec![FILL; size], vec![0; 64 << 10]);
        let write = async move |writer: &mut W, count| {
            for _ in 0..count {
                writer.write_all(&message).await?;
            }
            writer.flush().await
        };
        let read = async move |reader: &mut R, count| {
            let mut left = count as usize * size;
            while left > 0 {
                let len = reader.read(&mut buf).await?;
                if len == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                black_box(sum(&buf[..len]));
                left -= len;
            }
            Ok(None)
        };
        both(make()?, (writer, reader), write, read)
    })
}

/// Messages from a peer to here.
fn one_way<E: 'static, M: Messages + 'static>(
    name: &'static str,
    size: usize,
    make: fn() -> io::Result<(E, E)>,
    open: Open<E, M>,
) -> Entry {
    Entry::new(name, move || {
        let (message, mut buf) = (vec![FILL; size], vec![0; size]);
        let send = async move |messages: &mut M, count| {
            for _ in 0..count {
                messages.send(&message).await?;
            }
            Ok(())
        };
        let receive = async move |messages: &mut M, count| {
            for _ in 0..count {
                messages.receive(&mut buf).await?;
                black_box(sum(&buf));
            }
            Ok(None)
        };
        both(make()?, (open, open), send, receive)
    })
}

/// A message to a peer and an answer of the same length.
fn trip<E: 'static, M: Messages + 'static>(
    name: &'static str,
    size: usize,
    make: fn() -> io::Result<(E, E)>,
    open: Open<E, M>,
) -> Entry {
    Entry::new(name, move || {
        let (message, mut buf) = (vec![FILL; size], vec![0; size]);
        let (answer, mut request) = (message.clone(), buf.clone());
        let answer = async move |messages: &mut M, count| rivals::answer(messages, &answer, &mut request, count).await;
        let ask = async move |messages: &mut M, count| {
            rivals::ask(messages, &message, &mut buf, count).await.map(|mut times| Some(Pass::of_each(&mut times)))
        };
        both(make()?, (open, open), answer, ask)
    })
}

/// How an end is put under the runtime that runs.
type Open<E, M> = fn(E) -> io::Result<M>;

/// A peer's part and this process's, each with its side under a runtime of its own. It takes as long as all of ours, unless that
/// says itself how long it took.
fn both<A: 'static, B: 'static, L: 'static, M: 'static>(
    (theirs, ours): (A, B),
    (open_theirs, open_ours): (Open<A, L>, Open<B, M>),
    mut their_part: impl AsyncFnMut(&mut L, u64) -> io::Result<()> + 'static,
    mut our_part: impl AsyncFnMut(&mut M, u64) -> io::Result<Option<Pass>> + 'static,
) -> io::Result<Passes<impl FnMut(u64) -> io::Result<Pass> + 'static>> {
    let (mut theirs, mut ours) = (Side::Bare(theirs, open_theirs), Side::Bare(ours, open_ours));
    let peer = Peer::start(Core::There, move |count| {
        let (runtime, live) = theirs.live()?;
        runtime.block_on(their_part(live, count)).map(|()| 0)
    })?;
    // The peer's side, before this one could wait for it.
    peer.order(0)?;
    peer.answer()?;
    Ok(Passes(move |count| {
        let (runtime, live) = ours.live()?;
        let started = Instant::now();
        peer.order(count)?;
        let timed = runtime.block_on(our_part(live, count))?;
        let pass = timed.unwrap_or_else(|| Pass::of(started.elapsed(), count));
        peer.answer()?;
        Ok(pass)
    }))
}

/// Something that says itself how long it took.
struct Passes<F>(F);

impl<F: FnMut(u64) -> io::Result<Pass>> Contender for Passes<F> {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        (self.0)(count)
    }
}

/// How many tasks wait at once, each for an end of its own.
const TASKS: usize = 1000;

fn many() -> Vec<Entry> {
    vec![
        thousand("tokio::net::UnixStream", || {
            let (one, other) = rivals::std_streams()?;
            Ok((rivals::stream(one)?, rivals::stream(other)?))
        }),
        thousand("ipc stream pair", || {
            let pair = ipc::stream_pair()?;
            Ok((ipc::tokio::StreamSocket::new(pair.parent)?, ipc::tokio::StreamSocket::new(pair.child)?))
        }),
    ]
}

/// A thousand tasks that answer, in one runtime with who asks: the time of one answer.
fn thousand<S>(name: &'static str, make: fn() -> io::Result<(S, S)>) -> Entry
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Entry::new(name, move || {
        allow_descriptors()?;
        let runtime = runtime()?;
        let mut near: Vec<S> = Vec::new();
        runtime.block_on(async {
            for _ in 0..TASKS {
                let (ours, mut theirs) = make()?;
                near.push(ours);
                tokio::spawn(async move {
                    let mut message = [0; 16];
                    while theirs.read_exact(&mut message).await.is_ok() && theirs.write_all(&message).await.is_ok() {}
                });
            }
            io::Result::Ok(())
        })?;
        Ok(Passes(move |count: u64| {
            let rounds = count.div_ceil(TASKS as u64);
            let started = Instant::now();
            runtime.block_on(async {
                let mut message = [FILL; 16];
                for _ in 0..rounds {
                    for socket in &mut near {
                        socket.write_all(&message).await?;
                    }
                    for socket in &mut near {
                        socket.read_exact(&mut message).await?;
                    }
                }
                io::Result::Ok(())
            })?;
            Ok(Pass::of(started.elapsed(), rounds * TASKS as u64))
        }))
    })
}

/// Both contenders have two thousand ends each.
fn allow_descriptors() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit.
    bare::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max.min(8192);
    // SAFETY: a limit.
    bare::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

fn programs(size: usize) -> Vec<Entry> {
    vec![program("tokio::process", size, rivals::talk), program("ipc::tokio::communicate", size, rivals::our_talk)]
}

/// A program that gives back what it is fed.
fn program<F>(name: &'static str, size: usize, talk: fn(Vec<u8>) -> F) -> Entry
where
    F: Future<Output = io::Result<Vec<u8>>> + 'static,
{
    Entry::new(name, move || {
        let (runtime, input) = (runtime()?, vec![FILL; size]);
        Ok(move |count| {
            timed(count, || match runtime.block_on(talk(input.clone()))? == input {
                true => Ok(()),
                false => Err(io::Error::other("it was not given back")),
            })
        })
    })
}
