//! Messages, and what a dropped future leaves behind.

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::task::Poll;

use super::{on_one_thread, on_threads};
use crate::support::{self, Trial, exit_code};
use ipc::tokio::{DatagramSocket, StreamSocket};
use ipc::{Error, PipeReader, datagram_pair, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_arrive_whole_and_in_order,
        a_dead_peer_is_seen_after_everything_it_sent,
        a_message_that_does_not_fit_is_in_the_error,
        ends_travel_and_come_back_when_they_do_not,
        one_task_sends_while_another_receives,
        a_call_that_receives_waits_for_what_comes_later,
        a_call_that_sends_goes_on_when_the_peer_receives_again,
    ]
}

fn messages_arrive_whole_and_in_order() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| -> ipc::Result<()> {
        while let Some(message) = socket.recv_vec()? {
            socket.send(&message)?;
        }
        Ok(())
    })
    .unwrap();
    on_one_thread().block_on(async {
        let socket = DatagramSocket::new(pair.parent).unwrap();
        for len in [0, 1, 100, 4096, 100_000] {
            let message = vec![len as u8; len];
            socket.send(&message).await.unwrap();
            let mut buf = vec![0; 200_000];
            assert_eq!(socket.recv(&mut buf).await.unwrap(), Some(len), "an empty message is not EOF");
            assert!(buf[..len] == message);
        }
    });
    assert_eq!(exit_code(&child), 0);
}

/// Polls a future so many times, and drops it. `None`: it was not ready.
pub async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for time in 0..times {
        if let Poll::Ready(done) = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(done);
        }
        if time + 1 < times {
            tokio::task::yield_now().await;
        }
    }
    None
}

fn a_dead_peer_is_seen_after_everything_it_sent() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| socket.send(b"last words")).unwrap();
    child.wait().unwrap();
    on_one_thread().block_on(async {
        let socket = DatagramSocket::new(pair.parent).unwrap();
        assert_eq!(socket.recv_vec().await.unwrap().unwrap(), b"last words");
        assert_eq!(socket.recv_vec().await.unwrap(), None);
        assert!(matches!(socket.send(b"x").await, Err(Error::Closed)));
    });
}

fn a_message_that_does_not_fit_is_in_the_error() {
    on_one_thread().block_on(async {
        let pair = datagram_pair().unwrap();
        let near = DatagramSocket::new(pair.parent).unwrap();
        let far = DatagramSocket::new(pair.child).unwrap();
        near.send(b"longer than that").await.unwrap();
        near.send(b"next").await.unwrap();
        let error = far.recv(&mut [0; 4]).await.unwrap_err();
        assert!(matches!(error, Error::BufferTooSmall { message } if message == b"longer than that"));
        assert_eq!(far.recv_vec().await.unwrap().unwrap(), b"next");
        let too_long = near.send(&vec![0; 1 << 24]).await.unwrap_err();
        assert!(matches!(too_long, Error::TooLong { len, .. } if len == 1 << 24));
    });
}

fn ends_travel_and_come_back_when_they_do_not() {
    on_one_thread().block_on(async {
        let pair = datagram_pair().unwrap();
        let near = DatagramSocket::new(pair.parent).unwrap();
        let far = DatagramSocket::new(pair.child).unwrap();
        let (reader, writer) = pipe().unwrap();
        near.send_with(b"take this", reader).await.unwrap();
        let mut message = Vec::new();
        let mut received = far.recv_with(&mut message).await.unwrap().unwrap();
        assert_eq!(message, b"take this");
        let mut reader: PipeReader = received.take().unwrap();
        writer.write_atomic(b"through it").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through it");

        drop((received, far));
        let refused = near.send_with(b"and this", reader).await.unwrap_err();
        assert!(matches!(refused.error, Error::Closed));
        assert_eq!(refused.ends.try_read(&mut [0]).unwrap(), 0, "it is open");
    });
}

fn one_task_sends_while_another_receives() {
    on_threads().block_on(async {
        let pair = datagram_pair().unwrap();
        let far = DatagramSocket::new(pair.child).unwrap();
        let near = std::sync::Arc::new(DatagramSocket::new(pair.parent).unwrap());
        let sender = near.clone();
        let send = tokio::spawn(async move {
            for number in 0..10_000_u32 {
                sender.send(&number.to_ne_bytes()).await.unwrap();
            }
        });
        let echo = tokio::spawn(async move {
            for _ in 0..10_000 {
                let message = far.recv_vec().await.unwrap().unwrap();
                far.send(&message).await.unwrap();
            }
        });
        for number in 0..10_000_u32 {
            assert_eq!(near.recv_vec().await.unwrap().unwrap(), number.to_ne_bytes());
        }
        send.await.unwrap();
        echo.await.unwrap();
    });
}

/// Awaits a call that is polled before `then` is done.
async fn waiting<T>(call: impl Future<Output = T>, then: impl FnOnce()) -> T {
    let later = async {
        tokio::task::yield_now().await;
        then();
    };
    tokio::join!(biased; call, later).0
}

fn a_call_that_receives_waits_for_what_comes_later() {
    on_one_thread().block_on(async {
        let (pair, streams) = (datagram_pair().unwrap(), stream_pair().unwrap());
        let (near, far) = (DatagramSocket::new(pair.parent).unwrap(), pair.child);
        let (stream, far_stream) = (StreamSocket::new(streams.parent).unwrap(), streams.child);
        let (mut buf, mut message) = ([0; 8], Vec::new());
        let send = || far.send(b"later").unwrap();
        // Of each kind twice. The second time, nothing of this side's can go meanwhile.
        for _ in 0..2 {
            assert_eq!(waiting(near.recv(&mut buf), send).await.unwrap(), Some(5));
            assert_eq!(waiting(near.recv_vec(), send).await.unwrap().unwrap(), b"later");
            assert!(waiting(near.recv_with(&mut message), send).await.unwrap().is_some());
            let send = || assert_eq!(far_stream.send_with(b"later", ()).unwrap(), 5);
            assert_eq!(waiting(stream.recv_with(&mut buf), send).await.unwrap().0, 5);
            while polled(2, near.send(&[0; 4096])).await.is_some() {}
            while polled(2, stream.send_with(&[0; 4096], ())).await.is_some() {}
        }
    });
}

fn a_call_that_sends_goes_on_when_the_peer_receives_again() {
    on_one_thread().block_on(async {
        let (pair, streams) = (datagram_pair().unwrap(), stream_pair().unwrap());
        let (near, far) = (DatagramSocket::new(pair.parent).unwrap(), pair.child);
        let (stream, far_stream) = (StreamSocket::new(streams.parent).unwrap(), streams.child);
        let long = [0; 4096];
        let receive_all = || while far.try_recv_vec().is_ok() {};
        let read_all = || while far_stream.try_read(&mut [0; 4096]).is_ok() {};
        for _ in 0..2 {
            while polled(2, near.send(&long)).await.is_some() {}
            waiting(near.send(&long), receive_all).await.unwrap();
            while polled(2, near.send_with(&long, ())).await.is_some() {}
            waiting(near.send_with(&long, ()), receive_all).await.unwrap();
            while polled(2, stream.send_with(&long, ())).await.is_some() {}
            assert!(waiting(stream.send_with(&long, ()), read_all).await.unwrap() > 0);
        }
    });
}
