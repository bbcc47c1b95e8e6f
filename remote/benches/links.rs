//! Links beside what they stand on, without them: the same bytes through a `TcpStream` with a length in front, libzmq and tarpc.
//!
//! ```text
//! cargo bench -p ipc-remote
//! ```
//!
//! Prints the table of `remote/README.md`. Pairs take turns, in rounds; a figure is the median of the rounds' ratios.

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
const ROUNDS: usize = 5;

/// So many messages of one size from one process to another, and an answer at the end: messages a second.
type Run = fn(usize, usize) -> f64;

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let pairs: [(&str, Run, Run); 6] = [
        ("`TcpOptions`, one way, beside a `TcpStream` with lengths", tcp_ours, tcp_bare),
        ("the same, beside one in a `BufWriter` and a `BufReader`", tcp_ours, tcp_buffered),
        ("`TcpOptions`, there and back, beside the same", tcp_ours_back, tcp_bare_back),
        ("`Push` and `Pull`, beside libzmq", zeromq_ours, zeromq_bare),
        ("a call through `transport`, beside tarpc over TCP", rpc_ours, rpc_bare),
        ("the same over a `StreamSocket`, beside tarpc over TCP", rpc_socket, rpc_bare),
    ];
    println!("| link | bytes | messages/s | bare | ratio |\n|---|---|---|---|---|");
    for (name, ours, bare) in pairs {
        for (size, count) in SIZES {
            let is_slow = name.contains("back") || name.contains("tarpc");
            let count = if is_test {
                10
            } else if is_slow {
                count.min(20_000) / 5
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

fn tcp_ours(size: usize, count: usize) -> f64 {
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
    let mut value = ByteBuf::from(vec![7; size]);
    let rate = timed(count, || {
        for _ in 0..count {
            values.send(std::mem::take(&mut value)).expect("sent");
            value = ByteBuf::from(vec![7; size]);
        }
        values.close().expect("all sent");
        answers.recv().expect("an answer");
    });
    assert!(child.wait().expect("its status").success());
    rate
}

/// A write for each message.
fn tcp_bare(size: usize, count: usize) -> f64 {
    tcp_with_lengths(size, count, 0)
}

fn tcp_buffered(size: usize, count: usize) -> f64 {
    tcp_with_lengths(size, count, 64 << 10)
}

fn tcp_with_lengths(size: usize, count: usize, buffer: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        let mut reader = BufReader::with_capacity(buffer, stream.try_clone()?);
        let mut head = [0; 4];
        while reader.read_exact(&mut head).is_ok() {
            let mut message = vec![0; u32::from_le_bytes(head) as usize];
            reader.read_exact(&mut message)?;
            assert_eq!(message.len(), size);
        }
        (&stream).write_all(&[1])
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    let rate = timed(count, || {
        let mut writer = BufWriter::with_capacity(buffer, &stream);
        let mut framed = Vec::new();
        for _ in 0..count {
            let message = vec![7; size];
            framed.clear();
            framed.extend_from_slice(&(size as u32).to_le_bytes());
            framed.extend_from_slice(&message);
            writer.write_all(&framed).expect("sent");
        }
        writer.flush().expect("all sent");
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
    fn recv(stream: &TcpStream, message: &mut Vec<u8>) -> std::io::Result<()> {
        let mut head = [0; 4];
        (&*stream).read_exact(&mut head)?;
        message.resize(u32::from_le_bytes(head) as usize, 0);
        (&*stream).read_exact(message)
    }
    fn send(stream: &TcpStream, framed: &mut Vec<u8>, message: &[u8]) -> std::io::Result<()> {
        framed.clear();
        framed.extend_from_slice(&(message.len() as u32).to_le_bytes());
        framed.extend_from_slice(message);
        (&*stream).write_all(framed)
    }
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let (mut message, mut framed) = (Vec::new(), Vec::new());
        while recv(&stream, &mut message).is_ok() {
            send(&stream, &mut framed, &message)?;
        }
        Ok(())
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    stream.set_nodelay(true).expect("an option");
    let (mut message, mut framed) = (vec![7; size], Vec::new());
    let rate = timed(count, || {
        for _ in 0..count {
            send(&stream, &mut framed, &message).expect("sent");
            recv(&stream, &mut message).expect("an answer");
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
            socket.send(&vec![7; size][..], 0).expect("sent");
        }
    });
    let socket = zmq::Context::new().socket(zmq::PULL).expect("a socket");
    socket.bind(ANY).expect("bound");
    tell.send(socket.get_last_endpoint().expect("its address").expect("text")).expect("told");
    socket.recv_bytes(0).expect("the first");
    let rate = timed(count, || {
        for _ in 1..count {
            assert_eq!(socket.recv_bytes(0).expect("a message").len(), size);
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
