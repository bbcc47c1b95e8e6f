//! One service, over a socket pair to a forked child and over TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::time::Duration;

use ipc::{Child, fork};
use ipc_remote::rpc::{Postcard, keep_alive};
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use tarpc::context;
use tarpc::tokio_util::bytes::BytesMut;
use tokio_serde::{Deserializer, Serializer};

use crate::over_rpc::{self, client_over, runtime, serve_over};
use crate::support::{self, Machine, Trial, await_orphans, exit_code};
use crate::work::{Done, Job, work};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_forked_child_serves_over_a_socket_pair,
        another_machine_serves_over_tcp,
        a_message_over_the_limit_is_an_error,
        a_server_that_is_killed_is_an_error,
        a_server_that_says_nothing_is_an_error_after_the_deadline,
        a_worker_leaves_when_its_masters_machine_vanishes needs [OwnNetwork, IP] within 90,
        a_message_that_claims_more_than_it_has_is_refused,
        a_deadline_that_is_too_far_does_not_end_the_server,
        keep_alive_takes_a_connection_over_tcp_alone,
    ]
}

fn job(text: &str) -> Job {
    Job { number: 1, file: 0, text: text.into() }
}

/// A child that serves over a socket pair, with the worker in a child of its own.
fn forked() -> (Child, ipc::StreamSocket) {
    let pair = ipc::stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let (jobs, to_do) = ipc::channel().unwrap();
        let (results, done) = ipc::channel().unwrap();
        let worker = fork((to_do, results), |(jobs, results)| work(jobs, results)).unwrap();
        let serving = async { serve_over(ipc::tokio::StreamSocket::new(socket)?, jobs, done).await };
        runtime().unwrap().block_on(serving).unwrap();
        assert!(worker.wait().unwrap().success());
    })
    .unwrap();
    (child, pair.parent)
}

fn a_forked_child_serves_over_a_socket_pair() {
    let (child, socket) = forked();
    runtime().unwrap().block_on(async {
        let client = client_over(ipc::tokio::StreamSocket::new(socket).unwrap());
        for (text, words) in [("one two", 2), ("", 0), (&"word ".repeat(100_000), 100_000)] {
            assert_eq!(client.count(context::current(), job(text)).await.unwrap().unwrap().words, words);
        }
    });
    assert_eq!(exit_code(&child), 0);
}

fn another_machine_serves_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let child = fork((), move |()| over_rpc::serve(&address).unwrap()).unwrap();
    let mut ask = over_rpc::client(listener.accept().unwrap().0).unwrap();
    assert_eq!(ask(&job("three words here")).unwrap(), 3);
    drop(ask);
    assert_eq!(exit_code(&child), 0);
}

fn a_message_over_the_limit_is_an_error() {
    let (child, socket) = forked();
    runtime().unwrap().block_on(async {
        let client = client_over(ipc::tokio::StreamSocket::new(socket).unwrap());
        let refused = client.count(context::current(), job(&"x".repeat(65 << 20))).await;
        assert!(refused.is_err(), "{refused:?}");
    });
    assert_eq!(exit_code(&child), 0);
}

fn a_server_that_is_killed_is_an_error() {
    let (child, socket) = forked();
    runtime().unwrap().block_on(async {
        let client = client_over(ipc::tokio::StreamSocket::new(socket).unwrap());
        assert_eq!(client.count(context::current(), job("one")).await.unwrap().unwrap().words, 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(client.count(context::current(), job("two")).await.is_err());
    });
    await_orphans(1); // its worker, which is at EOF
}

fn a_server_that_says_nothing_is_an_error_after_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _silent = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    runtime().unwrap().block_on(async {
        let client = client_over(tokio::net::TcpStream::from_std(stream).unwrap());
        let mut context = context::current();
        context.deadline = std::time::Instant::now() + Duration::from_millis(200);
        let refused = client.count(context, job("one")).await;
        assert!(matches!(refused, Err(tarpc::client::RpcError::DeadlineExceeded)), "{refused:?}");
    });
}

fn a_worker_leaves_when_its_masters_machine_vanishes() {
    for is_asked in [true, false] {
        let machine = Machine::start(|_until| over_rpc::serve(Machine::MASTER).unwrap());
        let mut ask = over_rpc::client(machine.listener.accept().unwrap().0).unwrap();
        assert_eq!(ask(&job("two words")).unwrap(), 2);
        if is_asked {
            // Its answer is under way when the cable is cut, or soon after.
            machine.cut();
            assert!(ask(&job("one")).is_err());
        } else {
            machine.cut();
        }
        let left = machine.child.wait_timeout(over_rpc::DEADLINE * 3 / 2 + Duration::from_secs(2)).unwrap();
        assert!(left.expect("it leaves").success());
    }
}

fn decoded<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> std::io::Result<T> {
    Pin::new(&mut Postcard).deserialize(&BytesMut::from(bytes))
}

/// As deep as it is long.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nested(Option<Box<Nested>>);

fn a_message_that_claims_more_than_it_has_is_refused() {
    let value = (7_u32, "seven".to_owned(), Some(vec![(); 3]));
    let bytes = Pin::new(&mut Postcard).serialize(&value).unwrap();
    assert_eq!(decoded::<(u32, String, Option<Vec<()>>)>(&bytes).unwrap(), value);
    assert_eq!(decoded::<()>(&Pin::new(&mut Postcard).serialize(&()).unwrap()).unwrap(), ());
    // A list of 2^63 values that take no bytes, and values that nest as deep as the message is long.
    let hollow = [&[0xff; 9][..], &[0]].concat();
    for refused in [
        decoded::<Vec<()>>(&hollow).map(drop),
        decoded::<Vec<u8>>(&hollow).map(drop),
        decoded::<Nested>(&[1; 1 << 20]).map(drop),
        decoded::<u8>(&[1, 1]).map(drop), // more than one value
        decoded::<u8>(&[]).map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
    }
    // What the other side would refuse is not sent.
    let mut deep = Nested(None);
    for _ in 0..200 {
        deep = Nested(Some(Box::new(deep)));
    }
    let unsent = <Postcard as Serializer<_>>::serialize(Pin::new(&mut Postcard), &deep).unwrap_err();
    assert_eq!(unsent.kind(), ErrorKind::InvalidInput);
    let end = ipc::pipe().unwrap().0;
    let unsent = <Postcard as Serializer<_>>::serialize(Pin::new(&mut Postcard), &end).unwrap_err();
    assert_eq!(unsent.kind(), ErrorKind::InvalidInput);
}

fn a_deadline_that_is_too_far_does_not_end_the_server() {
    let (child, socket) = forked();
    let mut socket = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket));
    // Farther than an `Instant` goes, and farther than a timer goes.
    for (number, seconds) in [u64::MAX, 3 * 365 * 24 * 60 * 60, 10].into_iter().enumerate() {
        let trace = tarpc::trace::Context::default();
        let words = "one two".as_bytes();
        // A request, its context, its number; and the call, of the only function there is.
        let call = (0_u8, (Duration::new(seconds, 7), trace), number as u64, (0_u8, (1_u64, 0_u32, words)));
        let call = Pin::new(&mut Postcard).serialize(&call).unwrap();
        socket.write_all(&(call.len() as u32).to_be_bytes()).unwrap();
        socket.write_all(&call).unwrap();
        let mut len = [0; 4];
        socket.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        socket.read_exact(&mut answer).unwrap();
        // The answer of that function.
        let (answered, done) = decoded::<(u64, Result<(u8, Result<Done, String>), ()>)>(&answer).unwrap();
        assert_eq!((answered, done.unwrap().1.unwrap().words), (number as u64, 2));
    }
    drop(socket);
    assert_eq!(exit_code(&child), 0);
}

fn keep_alive_takes_a_connection_over_tcp_alone() {
    let socket = ipc::stream_pair().unwrap().parent;
    assert!(keep_alive(&socket, Duration::from_secs(30)).is_err());
    let (stream, _peer) = support::tcp_pair();
    for (deadline, question) in [(0, 1), (30, 10), (u64::MAX, 32_767)] {
        keep_alive(&stream, Duration::from_secs(deadline)).unwrap();
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(question));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 2);
    }
}
