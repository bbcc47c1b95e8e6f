//! Links beside what they stand on, without them: the same bytes through a `TcpStream` with a length in front, libzmq and tarpc.
//!
//! ```text
//! cargo bench -p ipc-remote
//! ```
//!
//! Prints the table of `remote/README.md`. Pairs take turns, in rounds; a row is the round with the median ratio. `LINKS_ONLY=Push` runs
//! those with that in their names.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures::StreamExt;
use ipc::{Receiver, Sender, TcpOptions};
use ipc_remote::rpc::{Postcard, transport};
use ipc_remote::zeromq::Options;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tarpc::serde_transport::Transport;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context};
use tokio::io::{AsyncRead, AsyncWrite};

const SIZES: [(usize, usize); 3] = [(64, 200_000), (4096, 30_000), (65_536, 4_000)];
const ROUNDS: usize = 11;

/// So many messages of one size from one process to another, and an answer at the end: messages a second.
type Run = fn(usize, usize) -> f64;

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let only = std::env::var("LINKS_ONLY").unwrap_or_default();
    let pairs: [(&str, Run, Run); 7] = [
        ("`TcpOptions`, one way, each value flushed, beside a `TcpStream`", tcp_flushed, tcp_bare),
        ("`TcpOptions`, one way, beside one in a `BufWriter` and a `BufReader`", tcp_ours, tcp_buffered),
        ("`TcpOptions`, there and back, beside a `TcpStream`", tcp_ours_back, tcp_bare_back),
        ("`Push` and `Pull`, beside libzmq", zeromq_ours, zeromq_bare),
        ("a call through `transport`, beside tarpc over TCP", rpc_ours, rpc_bare),
        ("the same over a `StreamSocket`, beside tarpc over TCP", rpc_socket, rpc_bare),
        ("the same over a `StreamSocket`, beside tarpc over tokio's `UnixStream`", rpc_socket, rpc_unix),
    ];
    println!("| link | bytes | messages/s | bare | ratio |\n|---|---|---|---|---|");
    for (name, ours, bare) in pairs.into_iter().filter(|(name, ..)| name.contains(&only)) {
        for (size, count) in SIZES {
            let is_slow = name.contains("back") || name.contains("tarpc");
            let count = if is_test {
                10
            } else if is_slow {
                count.min(20_000) / 4
            } else if name.contains("BufWriter") {
                10 * count // or a pass is over before the connection has its speed
            } else {
                count
            };
            let mut rounds: Vec<_> = (0..if is_test { 1 } else { ROUNDS })
                .map(|round| match round % 2 {
                    0 => {
                        let ours = ours(size, count);
                        (ours, bare(size, count))
                    }
                    _ => {
                        let bare = bare(size, count);
                        (ours(size, count), bare)
                    }
                })
                .collect();
            rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
            let (ours, bare) = rounds[rounds.len() / 2];
            println!("| {name} | {size} | {ours:.0} | {bare:.0} | {:.2} |", ours / bare);
        }
    }
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The time from the first message to the answer, which says that all have arrived.
fn timed(count: usize, run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    rate(count, started.elapsed())
}

fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// A value goes as soon as it is sent.
fn tcp_flushed(size: usize, count: usize) -> f64 {
    tcp_ours_with(size, count, true)
}

fn tcp_ours(size: usize, count: usize) -> f64 {
    tcp_ours_with(size, count, false)
}

fn tcp_ours_with(size: usize, count: usize, is_flushed: bool) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> ipc::Result<()> {
        let link = TcpOptions::new().connect(address)?;
        let (values, answers) = (Receiver::<ByteBuf, _>::new(link.reader), Sender::new(link.writer));
        for value in values.iter() {
            assert_eq!(value?.len(), size);
        }
        answers.send(1_u8)?;
        answers.close()
    })
    .expect("a child");
    let link = TcpOptions::new().greet(listener.accept().expect("a connection").0).expect("a link");
    let (values, answers) = (Sender::new(link.writer), Receiver::<u8, _>::new(link.reader));
    let rate = timed(count, || {
        for _ in 0..count {
            values.send(ByteBuf::from(vec![7; size])).expect("sent");
            if is_flushed {
                values.flush().expect("sent");
            }
        }
        values.close().expect("all sent");
        answers.recv().expect("an answer");
    });
    assert!(child.wait().expect("its status").success());
    rate
}

/// A connection as a program has it that has no link: with a length in front of each value, which postcard encodes.
struct Bare<R, W> {
    reader: R,
    writer: W,
    framed: Vec<u8>,
    message: Vec<u8>,
}

impl<R: Read, W: Write> Bare<R, W> {
    fn new(reader: R, writer: W, size: usize) -> Self {
        Self { reader, writer, framed: vec![0; size + 16], message: Vec::new() }
    }

    fn send(&mut self, value: &ByteBuf) -> std::io::Result<()> {
        let len = postcard::to_slice(value, &mut self.framed[4..]).expect("encoded").len();
        self.framed[..4].copy_from_slice(&(len as u32).to_le_bytes());
        self.writer.write_all(&self.framed[..4 + len])
    }

    /// Returns `None` at EOF.
    fn recv(&mut self) -> std::io::Result<Option<ByteBuf>> {
        let mut head = [0; 4];
        if self.reader.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        self.message.resize(u32::from_le_bytes(head) as usize, 0);
        self.reader.read_exact(&mut self.message)?;
        Ok(Some(postcard::from_bytes(&self.message).expect("decoded")))
    }
}

/// The options that a link sets too.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))
}

/// A write for each message.
fn tcp_bare(size: usize, count: usize) -> f64 {
    tcp_with_lengths(size, count, 0)
}

fn tcp_buffered(size: usize, count: usize) -> f64 {
    tcp_with_lengths(size, count, 68 << 10)
}

fn tcp_with_lengths(size: usize, count: usize, buffer: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        set_options(&stream)?;
        let mut bare = Bare::new(BufReader::with_capacity(buffer, &stream), &stream, size);
        while let Some(value) = bare.recv()? {
            assert_eq!(value.len(), size);
        }
        (&stream).write_all(&[1])
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    set_options(&stream).expect("options");
    let rate = timed(count, || {
        let mut bare = Bare::new(&stream, BufWriter::with_capacity(buffer, &stream), size);
        for _ in 0..count {
            bare.send(&ByteBuf::from(vec![7; size])).expect("sent");
        }
        bare.writer.flush().expect("all sent");
        stream.shutdown(std::net::Shutdown::Write).expect("the end");
        (&stream).read_exact(&mut [0]).expect("an answer");
    });
    assert!(child.wait().expect("its status").success());
    rate
}

fn tcp_ours_back(size: usize, count: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> ipc::Result<()> {
        let link = TcpOptions::new().connect(address)?;
        let (values, answers) = (Receiver::<ByteBuf, _>::new(link.reader), Sender::new(link.writer));
        for value in values.iter() {
            answers.send(value?)?;
            answers.flush()?;
        }
        answers.close()
    })
    .expect("a child");
    let link = TcpOptions::new().greet(listener.accept().expect("a connection").0).expect("a link");
    let (values, answers) = (Sender::new(link.writer), Receiver::<ByteBuf, _>::new(link.reader));
    let mut value = ByteBuf::from(vec![7; size]);
    let rate = timed(count, || {
        for _ in 0..count {
            values.send(std::mem::take(&mut value)).expect("sent");
            values.flush().expect("sent");
            value = answers.recv().expect("an answer").expect("no EOF");
        }
    });
    values.close().expect("all sent");
    assert!(child.wait().expect("its status").success());
    rate
}

fn tcp_bare_back(size: usize, count: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        set_options(&stream)?;
        let mut bare = Bare::new(&stream, &stream, size);
        while let Some(value) = bare.recv()? {
            bare.send(&value)?;
        }
        Ok(())
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    set_options(&stream).expect("options");
    let mut value = ByteBuf::from(vec![7; size]);
    let rate = timed(count, || {
        let mut bare = Bare::new(&stream, &stream, size);
        for _ in 0..count {
            bare.send(&std::mem::take(&mut value)).expect("sent");
            value = bare.recv().expect("an answer").expect("no EOF");
        }
    });
    drop(stream);
    assert!(child.wait().expect("its status").success());
    rate
}

/// Starts a child that connects to the address, which it is told.
fn told(work: impl FnOnce(String) + 'static) -> (ipc::Child, Sender<String>) {
    let (tell, address) = ipc::channel::<String>().expect("a channel");
    let child = ipc::fork(address, move |address| work(address.recv().expect("an address").expect("no EOF")));
    (child.expect("a child"), tell)
}

const ANY: &str = "tcp://127.0.0.1:*";

fn zeromq_ours(size: usize, count: usize) -> f64 {
    let (child, tell) = told(move |address| {
        let values = Sender::new(Options::new().push_connect(&address).expect("a link"));
        for _ in 0..count {
            values.send(ByteBuf::from(vec![7; size])).expect("sent");
        }
        values.close().expect("all sent");
    });
    let pull = Options::new().pull_bind(ANY).expect("a link");
    tell.send(pull.address().expect("its address")).expect("told");
    let values = Receiver::<ByteBuf, _>::new(pull);
    values.recv().expect("the first").expect("no EOF");
    let rate = timed(count, || {
        for value in values.iter() {
            assert_eq!(value.expect("a value").len(), size);
        }
    });
    assert!(child.wait().expect("its status").success());
    rate
}

fn zeromq_bare(size: usize, count: usize) -> f64 {
    let (child, tell) = told(move |address| {
        let socket = zmq::Context::new().socket(zmq::PUSH).expect("a socket");
        socket.connect(&address).expect("connected");
        for _ in 0..count {
            let encoded = postcard::to_allocvec(&ByteBuf::from(vec![7; size])).expect("encoded");
            socket.send(&encoded, 0).expect("sent");
        }
    });
    let socket = zmq::Context::new().socket(zmq::PULL).expect("a socket");
    socket.bind(ANY).expect("bound");
    tell.send(socket.get_last_endpoint().expect("its address").expect("text")).expect("told");
    socket.recv_bytes(0).expect("the first");
    let rate = timed(count, || {
        for _ in 1..count {
            let message = socket.recv_msg(0).expect("a message");
            assert_eq!(postcard::from_bytes::<ByteBuf>(&message).expect("decoded").len(), size);
        }
    });
    assert!(child.wait().expect("its status").success());
    rate
}

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

/// tarpc's own frames, with the same codec.
fn bare<S, Item, SinkItem>(stream: S) -> Transport<S, Item, SinkItem, Postcard>
where
    S: AsyncRead + AsyncWrite,
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    let framed = LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_framed(stream);
    tarpc::serde_transport::new(framed, Postcard)
}

fn rpc_over_tcp(size: usize, count: usize, is_ours: bool) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| {
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let channel = BaseChannel::with_defaults(if is_ours { transport(stream, LONGEST) } else { bare(stream) });
            channel.execute(Server.serve()).for_each(|answer| answer).await;
        });
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).expect("options");
    let rate = called(count, size, move || {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
        let transport = if is_ours { transport(stream, LONGEST) } else { bare(stream) };
        EchoClient::new(client::Config::default(), transport).spawn()
    });
    assert!(child.wait().expect("its status").success());
    rate
}

fn rpc_ours(size: usize, count: usize) -> f64 {
    rpc_over_tcp(size, count, true)
}

fn rpc_bare(size: usize, count: usize) -> f64 {
    rpc_over_tcp(size, count, false)
}

/// What a `StreamSocket` stands on, as tokio has it.
fn rpc_unix(size: usize, count: usize) -> f64 {
    let connected = |socket: ipc::StreamSocket| {
        let stream = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket));
        stream.set_nonblocking(true).expect("an option");
        tokio::net::UnixStream::from_std(stream).expect("a stream")
    };
    let pair = ipc::stream_pair().expect("a pair");
    let child = ipc::fork(pair.child, move |socket| {
        runtime().block_on(async {
            let channel = BaseChannel::with_defaults(bare(connected(socket)));
            channel.execute(Server.serve()).for_each(|answer| answer).await;
        });
    })
    .expect("a child");
    let rate =
        called(count, size, move || EchoClient::new(client::Config::default(), bare(connected(pair.parent))).spawn());
    assert!(child.wait().expect("its status").success());
    rate
}

fn rpc_socket(size: usize, count: usize) -> f64 {
    let pair = ipc::stream_pair().expect("a pair");
    let child = ipc::fork(pair.child, |socket| {
        runtime().block_on(async {
            let stream = ipc::tokio::StreamSocket::new(socket).expect("a stream");
            let channel = BaseChannel::with_defaults(transport(stream, LONGEST));
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
