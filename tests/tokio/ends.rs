//! Bytes, children and forks.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::messages::polled;
use super::{on_one_thread, on_threads};
use crate::support::{self, Trial, bytes, exit_code};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ipc::tokio::{Child, PipeReader, PipeWriter, StreamSocket};
use ipc::{Error, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        signals_are_awaited,
        a_stream_passes_whole_in_both_directions,
        eof_arrives_and_a_dead_reader_is_an_error,
        a_killed_writer_is_eof_for_a_task_that_waits,
        a_killed_reader_wakes_a_writer_that_waits,
        packets_of_a_pipe_are_read_to_the_end,
        a_short_read_does_not_mean_that_the_pipe_is_empty needs [NoWait],
        a_fifo_that_nobody_writes_any_more_is_at_its_end_after_a_short_read,
        what_was_read_before_the_end_is_kept,
        a_reader_works_after_a_splice,
        a_read_of_nothing_does_not_wait,
        a_stream_socket_ends_each_direction_by_itself,
        a_child_is_awaited_killed_and_asked_again,
        many_children_leave_at_once,
    ]
}

/// Over a long write: pieces of it are short, and a short one does not mean that the pipe is full.
const LONG: usize = 3_000_000;

fn a_stream_passes_whole_in_both_directions() {
    let (from_child, to_parent) = pipe().unwrap();
    let (from_parent, to_child) = pipe().unwrap();
    let child =
        fork((from_parent, to_parent), |(mut from, mut to)| std::io::copy(&mut from, &mut to).map(drop)).unwrap();
    let data = bytes(LONG);
    let (sent, runtime) = (data.clone(), on_one_thread());
    runtime.block_on(async {
        let mut writer = PipeWriter::new(to_child).unwrap();
        let mut reader = PipeReader::new(from_child).unwrap();
        let send = async {
            writer.write_all(&sent).await.unwrap();
            drop(writer);
        };
        let mut back = Vec::new();
        let (_, read) = tokio::join!(send, reader.read_to_end(&mut back));
        assert_eq!(read.unwrap(), LONG);
        assert!(back == data);
    });
    assert_eq!(exit_code(&child), 0);
}

fn eof_arrives_and_a_dead_reader_is_an_error() {
    on_one_thread().block_on(async {
        let (reader, writer) = pipe().unwrap();
        let mut reader = PipeReader::new(reader).unwrap();
        let mut writer = PipeWriter::new(writer).unwrap();
        writer.write_all(b"last").await.unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "last");
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0, "and every time");

        let (reader, writer) = pipe().unwrap();
        let mut writer = PipeWriter::new(writer).unwrap();
        drop(reader);
        let closed = writer.write(b"x").await.unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::BrokenPipe);
        assert!(matches!(Error::from(closed), Error::Closed));
    });
}

fn a_killed_writer_is_eof_for_a_task_that_waits() {
    let (reader, writer) = pipe().unwrap();
    let (hold, _release) = pipe().unwrap();
    let child = fork((writer, hold), |(mut writer, hold)| {
        writer.write_all(b"alive").unwrap();
        hold.read_timeout(&mut [0], Duration::MAX).map(drop)
    })
    .unwrap();
    on_one_thread().block_on(async {
        let mut reader = PipeReader::new(reader).unwrap();
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        child.kill().unwrap();
        assert_eq!(reader.read(&mut text).await.unwrap(), 0);
    });
    child.wait().unwrap();
}

fn a_killed_reader_wakes_a_writer_that_waits() {
    let (reader, writer) = pipe().unwrap();
    let (hold, _release) = pipe().unwrap();
    let child = fork((reader, hold), |(_reader, hold)| hold.read_timeout(&mut [0], Duration::MAX).map(drop)).unwrap();
    on_one_thread().block_on(async {
        let mut writer = PipeWriter::new(writer).unwrap();
        let full = async {
            let data = [0; 4096];
            loop {
                if let Err(error) = writer.write(&data).await {
                    return error;
                }
            }
        };
        // The writer is polled first, and waits; then its reader dies.
        let kill = async {
            tokio::task::yield_now().await;
            child.kill().unwrap();
        };
        let (error, ()) = tokio::join!(full, kill);
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
    child.wait().unwrap();
}

/// Reading to the end with less room than a packet would throw its rest away.
fn packets_of_a_pipe_are_read_to_the_end() {
    let data: Vec<u8> = bytes(LONG).iter().map(|byte| b'a' + byte % 26).collect();
    let start = || {
        let (reader, writer) = pipe().unwrap();
        let child = fork(writer, |mut writer| {
            // SAFETY: a descriptor that is open, and flags.
            assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) }, 0);
            data.chunks(3001).for_each(|packet| writer.write_all(packet).unwrap());
        });
        (reader, child.unwrap())
    };
    // Before there is a runtime with threads.
    let starts = [(); 8].map(|()| start());
    let mut starts = starts.into_iter();
    for runtime in [on_one_thread(), on_threads()] {
        for capacity in [0, 4097, LONG] {
            let (reader, child) = starts.next().unwrap();
            let mut all = Vec::with_capacity(capacity);
            all.extend_from_slice(b"was");
            let read = runtime.block_on(async { PipeReader::new(reader).unwrap().read_to_end(&mut all).await });
            assert_eq!(read.unwrap(), LONG);
            assert!(all[..3] == *b"was" && all[3..] == data);
            assert_eq!(exit_code(&child), 0);
        }
        let (reader, child) = starts.next().unwrap();
        let mut all = "was".to_owned();
        let read = runtime.block_on(async { PipeReader::new(reader).unwrap().read_to_string(&mut all).await });
        assert_eq!(read.unwrap(), LONG);
        assert!(all.as_bytes()[..3] == *b"was" && all.as_bytes()[3..] == data);
        assert_eq!(exit_code(&child), 0);
    }
}

/// The second reader was opened after the writer had left: the kernel says no hang-up of it.
fn a_fifo_that_nobody_writes_any_more_is_at_its_end_after_a_short_read() {
    let (first, writer) = support::named_fifo();
    let path = format!("/proc/self/fd/{}", first.as_raw_fd());
    ipc::PipeWriter::try_from(writer).unwrap().write_atomic(b"left behind").unwrap();
    let second = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    on_one_thread().block_on(async {
        let mut reader = PipeReader::new(ipc::PipeReader::try_from(OwnedFd::from(second)).unwrap()).unwrap();
        let mut buf = [0; 64];
        assert_eq!(reader.read(&mut buf).await.unwrap(), 11);
        assert_eq!(reader.read(&mut buf).await.unwrap(), 0);
    });
}

/// Packets that are there already, and no event comes between them.
fn a_short_read_does_not_mean_that_the_pipe_is_empty() {
    on_one_thread().block_on(async {
        let (reader, writer) = pipe().unwrap();
        // SAFETY: a descriptor that is open, and flags.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) }, 0);
        let mut reader = PipeReader::new(reader).unwrap();
        for packets in [1, 2, 7] {
            (1..=packets).for_each(|len| writer.write_atomic(&bytes(len)).unwrap());
            for len in 1..=packets {
                let mut buf = [0; ipc::PIPE_BUF];
                assert_eq!(reader.read(&mut buf).await.unwrap(), len);
                assert!(buf[..len] == bytes(len));
            }
        }
        drop(writer);
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

fn what_was_read_before_the_end_is_kept() {
    on_one_thread().block_on(async {
        let (reader, writer) = pipe().unwrap();
        let mut reader = PipeReader::new(reader).unwrap();
        let mut all = Vec::new();
        for round in 0..200 {
            writer.write_atomic(&bytes(100)).unwrap();
            assert!(polled(1 + round % 3, reader.read_to_end(&mut all)).await.is_none());
        }
        drop(writer);
        reader.read_to_end(&mut all).await.unwrap();
        assert!(all == bytes(100).repeat(200));

        let (reader, writer) = pipe().unwrap();
        let mut reader = PipeReader::new(reader).unwrap();
        writer.write_atomic(b"abc\xff").unwrap();
        drop(writer);
        let mut text = "before".to_owned();
        assert_eq!(reader.read_to_string(&mut text).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(text, "before");
    });
}

fn a_reader_works_after_a_splice() {
    let (reader, writer) = pipe().unwrap();
    let (_sink, to) = pipe().unwrap();
    writer.write_atomic(b"away").unwrap();
    assert_eq!(reader.splice_to(&to, 100).unwrap(), 4);
    on_one_thread().block_on(async {
        let mut reader = PipeReader::new(reader).unwrap();
        let mut writer = PipeWriter::new(writer).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(5), reader.read(&mut [0])).await.is_err());
        let mut five = [0; 5];
        let (read, written) = tokio::join!(reader.read_exact(&mut five), writer.write_all(b"still"));
        read.unwrap();
        written.unwrap();
        assert_eq!(&five, b"still");
    });
}

fn a_read_of_nothing_does_not_wait() {
    on_one_thread().block_on(async {
        let (reader, _writer) = pipe().unwrap();
        let (streams, rings) = (stream_pair().unwrap(), stream_pair().unwrap());
        let ring = ipc::RingReader::new(rings.parent).unwrap();
        assert_eq!(PipeReader::new(reader).unwrap().read(&mut []).await.unwrap(), 0);
        assert_eq!(StreamSocket::new(streams.parent).unwrap().read(&mut []).await.unwrap(), 0);
        assert_eq!(ipc::tokio::RingReader::new(ring).unwrap().read(&mut []).await.unwrap(), 0);
    });
}

fn a_stream_socket_ends_each_direction_by_itself() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        socket.write_all(&all).unwrap();
    })
    .unwrap();
    let data = bytes(LONG);
    on_one_thread().block_on(async {
        let mut socket = StreamSocket::new(pair.parent).unwrap();
        socket.write_all(&data).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut back = Vec::new();
        socket.read_to_end(&mut back).await.unwrap();
        assert!(back == data);
        assert_eq!(socket.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
    assert_eq!(exit_code(&child), 0);
}

fn a_child_is_awaited_killed_and_asked_again() {
    let (hold, release) = pipe().unwrap();
    let children = [3, 4].map(|status| {
        let hold = hold.try_clone().unwrap();
        fork(hold, move |hold| hold.read_timeout(&mut [0], Duration::MAX).map(|_| status)).unwrap()
    });
    drop(hold);
    on_one_thread().block_on(async {
        let [first, second] = children.map(|child| Child::new(child).unwrap());
        assert!(tokio::time::timeout(Duration::from_millis(5), first.wait()).await.is_err(), "it runs");
        first.kill().unwrap();
        // Two wait for it at once, and both are told.
        let (one, two) = tokio::join!(first.wait(), first.wait());
        assert_eq!([one.unwrap().signal(), two.unwrap().signal()], [Some(libc::SIGKILL); 2]);
        assert_eq!(first.wait().await.unwrap().signal(), Some(libc::SIGKILL));
        second.signal(0).unwrap();
        drop(release);
        assert_eq!(second.wait().await.unwrap().code(), Some(4));
        assert_eq!(second.into_inner().wait().unwrap().code(), Some(4), "the status stays");
    });
}

fn many_children_leave_at_once() {
    let (hold, release) = pipe().unwrap();
    let children: Vec<_> = (0..50_u8)
        .map(|number| fork(&hold, move |hold| hold.read_timeout(&mut [0], Duration::MAX).map(|_| number)).unwrap())
        .collect();
    drop(hold);
    on_threads().block_on(async {
        let tasks: Vec<_> = children
            .into_iter()
            .map(|child| {
                let child = Child::new(child).unwrap();
                tokio::spawn(async move { child.wait().await.unwrap().code() })
            })
            .collect();
        drop(release);
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number as i32));
        }
    });
}

fn signals_are_awaited() {
    let signals = ipc::Signals::new(&[libc::SIGTERM, libc::SIGUSR1]).unwrap();
    let raise = |signal| {
        // SAFETY: numbers.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
    };
    super::on_one_thread().block_on(async {
        let signals = ipc::tokio::Signals::new(signals).unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), signals.next()).await;
        assert!(early.is_err());
        raise(libc::SIGTERM);
        assert_eq!(signals.next().await.unwrap(), libc::SIGTERM);
        let later = async {
            tokio::task::yield_now().await;
            raise(libc::SIGUSR1);
        };
        let (signal, ()) = tokio::join!(signals.next(), later);
        assert_eq!(signal.unwrap(), libc::SIGUSR1);
        assert!(matches!(signals.into_inner().try_next(), Err(ipc::Error::WouldBlock)));
    });
}
