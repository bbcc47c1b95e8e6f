//! Rings: a task sleeps and is woken, and the other side can be plain blocking code.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use super::{on_one_thread, on_threads};
use crate::support::{self, Gate, Trial, bytes, exit_code, refuse_calls};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ipc::tokio::{Child, RingReader, RingWriter};
use ipc::{fork, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_pass_in_both_directions within 120,
        no_wake_up_is_lost within 120,
        eof_and_death_wake_a_task_that_waits,
        a_reader_that_leaves_wakes_a_writer_that_waits,
        shutting_down_ends_the_stream,
        the_side_that_comes_back_blocks,
        a_ring_that_is_never_empty_lets_other_tasks_run,
        a_wake_up_that_is_owed_lets_other_tasks_run,
        a_task_that_owes_a_wake_up_needs_none_itself,
    ]
}

/// A child that sends back what it gets, through two rings of its own.
fn echo() -> (ipc::StreamSocket, ipc::StreamSocket, ipc::Child) {
    let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
    let child = fork((there.child, back.child), |(there, back)| {
        let mut there = ipc::RingReader::new(there).unwrap();
        let mut back = ipc::RingWriter::with_capacity(back, 8192).unwrap();
        std::io::copy(&mut there, &mut back).unwrap();
    });
    (there.parent, back.parent, child.unwrap())
}

fn bytes_pass_in_both_directions() {
    let (there, back, child) = echo();
    let data = bytes(3_000_000);
    on_threads().block_on(async {
        let mut writer = RingWriter::new(ipc::RingWriter::with_capacity(there, 4096).unwrap()).unwrap();
        let mut reader = RingReader::new(ipc::RingReader::new(back).unwrap()).unwrap();
        let send = async {
            writer.write_all(&data).await.unwrap();
            drop(writer);
        };
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(send, reader.read_to_end(&mut arrived));
        read.unwrap();
        assert!(arrived == data);
    });
    assert_eq!(exit_code(&child), 0);
}

fn no_wake_up_is_lost() {
    let (there, back, child) = echo();
    on_one_thread().block_on(async {
        let mut writer = RingWriter::new(ipc::RingWriter::with_capacity(there, 4096).unwrap()).unwrap();
        let mut reader = RingReader::new(ipc::RingReader::new(back).unwrap()).unwrap();
        for number in 0..support::rounds(2500) as u32 {
            writer.write_all(&number.to_le_bytes()).await.unwrap();
            let mut answer = [0; 4];
            reader.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, number.to_le_bytes());
        }
    });
    assert_eq!(exit_code(&child), 0);
}

fn eof_and_death_wake_a_task_that_waits() {
    for is_killed in [false, true] {
        let pair = stream_pair().unwrap();
        let child = fork(pair.child, |socket| {
            ipc::RingWriter::new(socket).unwrap().write_all(b"last").unwrap();
            if is_killed {
                Gate::new().pass();
            }
        });
        let child = child.unwrap();
        on_one_thread().block_on(async {
            let mut reader = RingReader::new(ipc::RingReader::new(pair.parent).unwrap()).unwrap();
            let mut data = [0; 4];
            reader.read_exact(&mut data).await.unwrap();
            let child = Child::new(child).unwrap();
            let kill = async {
                if is_killed {
                    tokio::task::yield_now().await;
                    child.kill().unwrap();
                }
            };
            let (read, ()) = tokio::join!(reader.read(&mut data), kill);
            assert_eq!(read.unwrap(), 0);
            child.wait().await.unwrap();
        });
    }
}

fn a_reader_that_leaves_wakes_a_writer_that_waits() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        ipc::RingReader::new(socket).unwrap().read_exact(&mut [0; 10]).unwrap();
    });
    on_one_thread().block_on(async {
        let mut writer = RingWriter::new(ipc::RingWriter::with_capacity(pair.parent, 4096).unwrap()).unwrap();
        let error = writer.write_all(&bytes(1_000_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn shutting_down_ends_the_stream() {
    on_one_thread().block_on(async {
        let pair = stream_pair().unwrap();
        let mut reader = RingReader::new(ipc::RingReader::new(pair.parent).unwrap()).unwrap();
        let mut writer = RingWriter::new(ipc::RingWriter::new(pair.child).unwrap()).unwrap();
        writer.write_all(b"all").await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(writer.write_all(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut data = Vec::new();
        reader.read_to_end(&mut data).await.unwrap();
        assert_eq!(data, b"all");
    });
}

fn the_side_that_comes_back_blocks() {
    let (there, back, child) = echo();
    let (mut writer, mut reader) = on_one_thread().block_on(async {
        let mut writer = RingWriter::new(ipc::RingWriter::new(there).unwrap()).unwrap();
        let reader = RingReader::new(ipc::RingReader::new(back).unwrap()).unwrap();
        writer.write_all(b"asyn").await.unwrap();
        (writer.into_inner(), reader.into_inner())
    });
    let mut data = [0; 4];
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"asyn");
    writer.write_all(b"sync").unwrap();
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"sync");
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn a_ring_that_is_never_empty_lets_other_tasks_run() {
    on_one_thread().block_on(async {
        let pair = stream_pair().unwrap();
        let mut reader = RingReader::new(ipc::RingReader::new(pair.parent).unwrap()).unwrap();
        let mut writer = RingWriter::new(ipc::RingWriter::new(pair.child).unwrap()).unwrap();
        let over = std::rc::Rc::new(std::cell::Cell::new(false));
        let local = tokio::task::LocalSet::new();
        let seen = over.clone();
        local.spawn_local(async move { seen.set(true) });
        // Neither call ever has to wait.
        let busy = async {
            while !over.get() {
                writer.write_all(b"x").await.unwrap();
                reader.read_exact(&mut [0]).await.unwrap();
            }
        };
        local.run_until(busy).await;
    });
}

/// A full ring whose reader waits, and whose writer could not wake it.
fn owing() -> (RingWriter, ipc::RingReader) {
    let pair = stream_pair().unwrap();
    let mut writer = ipc::RingWriter::with_capacity(pair.parent, 1).unwrap();
    let mut reader = ipc::RingReader::new(pair.child).unwrap();
    assert_eq!(ipc::wait_any(&mut [reader.watch()], Some(Duration::ZERO)).unwrap(), 0); // it waits from now on
    while writer.try_write(&[0; 1000]).is_ok() {}
    (RingWriter::new(writer).unwrap(), reader)
}

/// The kernel has no memory to wake the reader with, and the writer may not sleep before it is woken.
fn a_wake_up_that_is_owed_lets_other_tasks_run() {
    let run = || {
        refuse_calls(&[libc::SYS_sendto], libc::ENOBUFS);
        on_one_thread().block_on(async {
            let (mut writer, _reader) = owing();
            tokio::select! {
                biased;
                result = writer.write(b"x") => panic!("there is no room: {result:?}"),
                () = tokio::task::yield_now() => {}
            }
        });
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

/// Neither side can wake the other. So the one whose task waits looks again by itself.
fn a_task_that_owes_a_wake_up_needs_none_itself() {
    let run = || {
        refuse_calls(&[libc::SYS_sendto], libc::ENOBUFS);
        on_one_thread().block_on(async {
            let (mut writer, mut reader) = owing();
            let waits = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&waits);
            let task = tokio::spawn(async move {
                let mut write = pin!(writer.write(b"x"));
                let note = |cx: &mut Context<'_>| {
                    let poll = write.as_mut().poll(cx);
                    seen.store(poll.is_pending(), Relaxed);
                    poll
                };
                std::future::poll_fn(note).await
            });
            while !waits.load(Relaxed) {
                tokio::task::yield_now().await;
            }
            assert!(reader.try_read(&mut [0; 4096]).unwrap() > 0);
            assert_eq!(task.await.unwrap().unwrap(), 1);
        });
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}
