//! Ends and their runtime: which flags are set, what waiting costs, and where an end and a fork are refused.

use std::io::{Read, Write};
use std::time::Duration;

use super::{on_one_thread, on_threads};
use crate::support::{self, Gate, Trial, exit_code, poll_until, process_state, processor_time, traced_zombie};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ipc::tokio::{Child, PipeReader, PipeWriter, StreamSocket};
use ipc::{Error, Fork, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        nonblock_is_never_set_and_the_end_that_comes_back_blocks,
        a_fifo_that_gets_another_writer_is_put_under_the_runtime_anew needs [Alone],
        an_end_outlives_its_runtime,
        every_kind_of_end_says_that_its_runtime_is_gone,
        an_error_names_its_call,
        a_child_that_is_traced_is_awaited needs [Alone],
        a_worker_that_its_server_reports_late_is_awaited,
        a_thousand_ends_wait_at_once within 120,
        tasks_that_wait_take_no_processor_time needs [Alone],
        tasks_that_wait_again_take_no_processor_time needs [Alone],
        a_fork_inside_of_a_runtime_with_threads_says_so,
        outside_of_a_runtime_an_end_is_refused,
        a_process_inside_of_a_runtime_is_not_forked,
    ]
}

fn nonblock_is_never_set_and_the_end_that_comes_back_blocks() {
    /// On how many pipes, sockets and pidfds of this process it is set.
    fn set() -> usize {
        let fds: Vec<i32> = support::Inventory::take().numbers().collect();
        let is_set = |fd: &i32| {
            let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            // Not `Signals`, which makes its own and shares it with nobody.
            let is_end = ["pipe:", "socket:", "pidfd"].iter().any(|kind| name.to_string_lossy().contains(kind));
            // SAFETY: a number.
            is_end && unsafe { libc::fcntl(*fd, libc::F_GETFL) } & libc::O_NONBLOCK != 0
        };
        fds.iter().filter(|fd| is_set(fd)).count()
    }
    let before = set();
    let signals = ipc::Signals::new(&[libc::SIGUSR1]).unwrap();
    let (reader, writer) = pipe().unwrap();
    let (stream, messages, rings) = (stream_pair().unwrap(), ipc::datagram_pair().unwrap(), stream_pair().unwrap());
    let (hold, release) = pipe().unwrap();
    let child = fork(hold, |mut hold| hold.read(&mut [0]).map(drop)).unwrap();
    assert_eq!(set(), before);
    let early = Duration::from_millis(5);
    let runtime = on_one_thread();
    let unwatched = runtime.block_on(async {
        // The runtime's own.
        set()
    });
    let (reader, _writer, messages, child) = runtime.block_on(async {
        let mut reader = PipeReader::new(reader).unwrap();
        let mut writer = PipeWriter::new(writer).unwrap();
        let mut socket = StreamSocket::new(stream.parent).unwrap();
        let socket_of_messages = ipc::tokio::DatagramSocket::new(messages.parent).unwrap();
        let mut ring = ipc::tokio::RingReader::new(ipc::RingReader::new(rings.parent).unwrap()).unwrap();
        let mut ring_writer = ipc::tokio::RingWriter::new(ipc::RingWriter::new(rings.child).unwrap()).unwrap();
        let (child, signals) = (Child::new(child).unwrap(), ipc::tokio::Signals::new(signals).unwrap());
        assert!(tokio::time::timeout(early, reader.read(&mut [0])).await.is_err());
        assert!(tokio::time::timeout(early, socket.read(&mut [0])).await.is_err());
        assert!(tokio::time::timeout(early, socket_of_messages.recv_vec()).await.is_err());
        assert!(tokio::time::timeout(early, ring.read(&mut [0])).await.is_err());
        assert!(tokio::time::timeout(early, child.wait()).await.is_err());
        assert!(tokio::time::timeout(early, signals.next()).await.is_err());
        writer.write_all(b"x").await.unwrap();
        socket.write_all(b"x").await.unwrap();
        socket_of_messages.send(b"x").await.unwrap();
        ring_writer.write_all(b"x").await.unwrap();
        assert_eq!(set(), unwatched);
        (reader.into_inner(), writer.into_inner(), socket_of_messages.into_inner(), child.into_inner())
    });
    drop(runtime);
    assert_eq!(set(), before);
    assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 1);
    assert!(matches!(reader.read_timeout(&mut [0], early), Err(Error::TimedOut)));
    assert!(matches!(messages.recv_vec_timeout(early), Err(Error::TimedOut)));
    drop(release);
    assert!(child.wait().unwrap().success());
}

fn a_fifo_that_gets_another_writer_is_put_under_the_runtime_anew() {
    let (reader, writer) = support::named_fifo();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let (reader, mut writer) = (ipc::PipeReader::try_from(reader).unwrap(), std::fs::File::from(writer));
    on_one_thread().block_on(async {
        let mut reader = PipeReader::new(reader).unwrap();
        writer.write_all(b"one").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one");
        let mut writer = std::fs::OpenOptions::new().write(true).open(again).unwrap();
        let mut reader = PipeReader::new(reader.into_inner()).unwrap();
        let before = processor_time();
        assert!(tokio::time::timeout(Duration::from_millis(300), reader.read(&mut [0])).await.is_err());
        assert!(processor_time() - before < Duration::from_millis(100), "that was a busy loop");
        writer.write_all(b"x").unwrap();
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 1);
    });
}

fn an_end_outlives_its_runtime() {
    for runtime in [on_one_thread(), on_threads()] {
        let (reader, writer) = pipe().unwrap();
        let pair = ipc::datagram_pair().unwrap();
        let (mut reader, socket) = runtime.block_on(async {
            (PipeReader::new(reader).unwrap(), ipc::tokio::DatagramSocket::new(pair.parent).unwrap())
        });
        drop(runtime);
        let other = on_one_thread();
        other.block_on(async {
            assert!(reader.read(&mut [0]).await.is_err(), "nobody watches it any more");
            assert!(socket.recv_vec().await.is_err());
        });
        // It can be put under another, also from outside.
        let reader = reader.into_inner();
        writer.write_atomic(b"x").unwrap();
        let mut reader = {
            let _entered = other.enter();
            PipeReader::new(reader).unwrap()
        };
        assert_eq!(other.block_on(reader.read(&mut [0; 8])).unwrap(), 1);
        drop(other);
        drop((reader, socket));
    }
}

fn every_kind_of_end_says_that_its_runtime_is_gone() {
    for runtime in [on_one_thread(), on_threads()] {
        let (_reader, writer) = pipe().unwrap();
        let (streams, rings) = (stream_pair().unwrap(), stream_pair().unwrap());
        let program = ipc::Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut writer, mut stream, mut ring, child) = runtime.block_on(async {
            let ring = ipc::RingReader::new(rings.parent).unwrap();
            (
                PipeWriter::new(writer).unwrap(),
                StreamSocket::new(streams.parent).unwrap(),
                ipc::tokio::RingReader::new(ring).unwrap(),
                Child::new(program).unwrap(),
            )
        });
        drop(runtime);
        on_one_thread().block_on(async {
            assert!(writer.write(b"x").await.is_err());
            assert!(stream.read(&mut [0]).await.is_err());
            assert!(stream.write(b"x").await.is_err());
            assert!(ring.read(&mut [0]).await.is_err());
            assert!(child.wait().await.is_err());
            assert!(child.shut_down(Duration::ZERO).await.is_err());
        });
        drop((writer, stream, ring));
        let child = child.into_inner();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn an_error_names_its_call() {
    on_one_thread().block_on(async {
        let pair = ipc::datagram_pair().unwrap();
        let socket = ipc::tokio::DatagramSocket::new(pair.parent).unwrap();
        support::refuse_calls(&[libc::SYS_sendto, libc::SYS_sendmsg], libc::EPERM);
        let error = socket.send(b"x").await.unwrap_err();
        assert!(matches!(error, Error::System { call, .. } if call.starts_with("send")), "{error:?}");
    });
}

fn a_child_that_is_traced_is_awaited() {
    let go = Gate::new();
    let (child, tracer) = traced_zombie(|| go.pass());
    on_one_thread().block_on(async {
        let child = Child::new(child).unwrap();
        // It is ready, and has no status yet.
        let before = processor_time();
        assert!(tokio::time::timeout(Duration::from_millis(300), child.wait()).await.is_err());
        assert!(processor_time() - before < Duration::from_millis(100), "that was a busy loop");
        go.open();
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
        assert!(Child::new(tracer).unwrap().wait().await.unwrap().success());
    });
}

fn a_thousand_ends_wait_at_once() {
    // Of 2000 descriptors and some.
    support::limit(libc::RLIMIT_NOFILE as i32, |limit| limit.rlim_max.min(4096));
    for runtime in [on_one_thread(), on_threads()] {
        runtime.block_on(async {
            let (mut near, mut tasks) = (Vec::new(), Vec::new());
            for number in 0..1000_u64 {
                let pair = stream_pair().unwrap();
                near.push(StreamSocket::new(pair.parent).unwrap());
                let mut far = StreamSocket::new(pair.child).unwrap();
                tasks.push(tokio::spawn(async move {
                    assert_eq!(far.read_u64().await.unwrap(), number);
                    far.write_u64(number).await.unwrap();
                }));
            }
            for (number, socket) in near.iter_mut().enumerate().rev() {
                socket.write_u64(number as u64).await.unwrap();
            }
            for (number, socket) in near.iter_mut().enumerate() {
                assert_eq!(socket.read_u64().await.unwrap(), number as u64);
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

fn tasks_that_wait_take_no_processor_time() {
    let signals = ipc::Signals::new(&[libc::SIGUSR1]).unwrap();
    let (hold, release) = pipe().unwrap();
    let child = fork(hold, |mut hold| hold.read(&mut [0]).map(drop)).unwrap();
    on_one_thread().block_on(async {
        let signals = ipc::tokio::Signals::new(signals).unwrap();
        let child = Child::new(child).unwrap();
        let (reader, _writer) = pipe().unwrap();
        let (_reader, full) = pipe().unwrap();
        while full.try_write(&[0; 4096]).is_ok() {}
        let (stream, messages) = (stream_pair().unwrap(), ipc::datagram_pair().unwrap());
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let mut reader = PipeReader::new(reader).unwrap();
        let mut full = PipeWriter::new(full).unwrap();
        let mut socket = StreamSocket::new(stream.parent).unwrap();
        let message = ipc::tokio::DatagramSocket::new(messages.parent).unwrap();
        let mut ring = ipc::tokio::RingReader::new(ipc::RingReader::new(there.parent).unwrap()).unwrap();
        let _written = ipc::RingWriter::new(there.child).unwrap();
        let mut full_ring = ipc::tokio::RingWriter::new(ipc::RingWriter::new(back.parent).unwrap()).unwrap();
        let _read = ipc::RingReader::new(back.child).unwrap();
        let fill = async { while full_ring.write(&[0; 4096]).await.is_ok() {} };
        let (mut one, mut two, mut three, data) = ([0], [0], [0], [0; 4096]);
        let all = async {
            tokio::join!(
                async { drop(signals.next().await) },
                async { drop(child.wait().await) },
                async { drop(reader.read(&mut one).await) },
                async { drop(full.write(&data).await) },
                async { drop(socket.read(&mut two).await) },
                async { drop(message.recv_vec().await) },
                async { drop(ring.read(&mut three).await) },
                fill,
            )
        };
        let before = processor_time();
        assert!(tokio::time::timeout(Duration::from_millis(500), all).await.is_err());
        let busy = processor_time() - before;
        assert!(busy < Duration::from_millis(50), "{busy:?} of half a second");
        drop(release);
        assert!(child.wait().await.unwrap().success());
    });
}

/// Each end was ready once, and is not any more.
fn tasks_that_wait_again_take_no_processor_time() {
    let signals = ipc::Signals::new(&[libc::SIGUSR1]).unwrap();
    on_one_thread().block_on(async {
        let signals = ipc::tokio::Signals::new(signals).unwrap();
        let (bytes, to_bytes) = pipe().unwrap();
        let (_unread, full) = pipe().unwrap();
        let (streams, full_streams, ends) = (stream_pair().unwrap(), stream_pair().unwrap(), stream_pair().unwrap());
        let (messages, full_messages) = (ipc::datagram_pair().unwrap(), ipc::datagram_pair().unwrap());
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let mut bytes = PipeReader::new(bytes).unwrap();
        let mut full = PipeWriter::new(full).unwrap();
        let mut stream = StreamSocket::new(streams.parent).unwrap();
        let mut full_stream = StreamSocket::new(full_streams.parent).unwrap();
        let with_ends = StreamSocket::new(ends.parent).unwrap();
        let message = ipc::tokio::DatagramSocket::new(messages.parent).unwrap();
        let full_message = ipc::tokio::DatagramSocket::new(full_messages.parent).unwrap();
        let mut ring = ipc::tokio::RingReader::new(ipc::RingReader::new(there.parent).unwrap()).unwrap();
        let mut to_ring = ipc::RingWriter::new(there.child).unwrap();
        let mut full_ring = ipc::tokio::RingWriter::new(ipc::RingWriter::new(back.parent).unwrap()).unwrap();
        let mut from_ring = ipc::RingReader::new(back.child).unwrap();
        let (mut one, mut two, mut three, mut four) = ([0; 8], [0; 8], [0; 8], [0; 8]);
        let data = [0; 4096];
        let all = async {
            tokio::join!(
                async { while signals.next().await.is_ok() {} },
                async { while bytes.read(&mut one).await.is_ok() {} },
                async { while full.write(&data).await.is_ok() {} },
                async { while stream.read(&mut two).await.is_ok() {} },
                async { while full_stream.write(&data).await.is_ok() {} },
                async { while with_ends.recv_with(&mut three).await.is_ok() {} },
                async { while message.recv_vec().await.is_ok() {} },
                async { while full_message.send(&data).await.is_ok() {} },
                async { while ring.read(&mut four).await.is_ok() {} },
                async { while full_ring.write(&data).await.is_ok() {} },
            )
        };
        let mut all = std::pin::pin!(all);
        let some_time = Duration::from_millis(100);
        // Until the ones wait for bytes, and the others for room.
        assert!(tokio::time::timeout(some_time, all.as_mut()).await.is_err());
        // SAFETY: two numbers; it is blocked, and read.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
        to_bytes.write_atomic(b"x").unwrap();
        streams.child.send_with(b"x", ()).unwrap();
        ends.child.send_with(b"x", ()).unwrap();
        messages.child.send(b"x").unwrap();
        to_ring.write_all(b"x").unwrap();
        from_ring.read_exact(&mut [0; 4096]).unwrap();
        full_messages.child.recv_vec().unwrap();
        assert!(tokio::time::timeout(some_time, all.as_mut()).await.is_err());
        let before = processor_time();
        assert!(tokio::time::timeout(10 * some_time, all.as_mut()).await.is_err());
        let busy = processor_time() - before;
        // On a busy machine, one that asks all the time gets little more.
        assert!(busy < Duration::from_millis(20), "{busy:?} of a second");
    });
}

fn a_fork_inside_of_a_runtime_with_threads_says_so() {
    on_threads().block_on(async {
        let refused = fork((), |()| ()).unwrap_err();
        assert!(matches!(refused.error, Error::InsideRuntime), "{refused:?}");
    });
}

fn outside_of_a_runtime_an_end_is_refused() {
    let (reader, writer) = pipe().unwrap();
    assert!(PipeReader::new(reader).is_err());
    assert!(PipeWriter::new(writer).is_err());
}

fn a_process_inside_of_a_runtime_is_not_forked() {
    let runtime = on_one_thread();
    let refused = |error: Error| assert!(matches!(error, Error::InsideRuntime), "{error:?}");
    runtime.block_on(async {
        let (_reader, writer) = pipe().unwrap();
        let given_back = fork(writer, |_| ()).unwrap_err();
        refused(given_back.error);
        given_back.ends.write_atomic(b"still open").unwrap();
        refused(Fork::new().die_with_parent().spawn((), |()| ()).unwrap_err().error);
        tokio::spawn(async move { refused(fork((), |()| ()).unwrap_err().error) }).await.unwrap();
    });
    {
        let _entered = runtime.enter();
        refused(fork((), |()| ()).unwrap_err().error);
    }
    // Outside of it, and with no thread of its own left, the process is as any other.
    drop(runtime);
    assert_eq!(exit_code(&fork((), |()| 7).unwrap()), 7);
    // A program can be started from anywhere.
    on_one_thread().block_on(async {
        let child = Child::new(ipc::Command::new("true").spawn().unwrap()).unwrap();
        assert!(child.wait().await.unwrap().success());
    });
}

/// Where a sandbox refuses workers that are the caller's children, their server waits for them and says how they left. It may
/// be stopped meanwhile; and before Linux 6.9, a pidfd does not tell that its process was waited for.
fn a_worker_that_its_server_reports_late_is_awaited() {
    // What a start asks about first is answered as by any kernel.
    const REAPING: i32 = libc::WNOHANG | libc::WEXITED | libc::__WALL;
    support::Kernel::new()
        .with(libc::SYS_clone, 0, support::Is::AnyOf(libc::CLONE_PARENT as u32), libc::EPERM)
        .without(libc::SYS_clone3, libc::ENOSYS)
        .with(libc::SYS_waitid, 3, support::Is::Equal(REAPING as u32), libc::EBADF)
        .play();
    let server = ipc::ForkServer::start(|_, mut ends: ipc::Received| -> ipc::Result<u8> {
        ends.take::<ipc::PipeReader>()?.read_to_end(&mut Vec::new())?;
        Ok(7)
    })
    .unwrap();
    // SAFETY: numbers; the process is this one's child, and was not waited for.
    let signal = |number| assert_eq!(unsafe { libc::kill(server.id() as i32, number) }, 0);
    on_one_thread().block_on(async {
        let (hold, release) = pipe().unwrap();
        let worker = Child::new(server.fork(b"", hold).unwrap()).unwrap();
        signal(libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        drop(release);
        poll_until("the worker has left", || process_state(worker.id()) == Some('Z'));
        let mut first = std::pin::pin!(worker.wait());
        assert!(tokio::time::timeout(Duration::from_millis(5), first.as_mut()).await.is_err());
        signal(libc::SIGCONT);
        let (first, second) = tokio::join!(first, worker.wait());
        assert_eq!([first.unwrap().code(), second.unwrap().code(), worker.wait().await.unwrap().code()], [Some(7); 3]);
    });
    drop(server);
    support::await_whoever_is_left();
}
