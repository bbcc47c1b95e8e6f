//! A copy that cannot go on says how far it came and why, and no byte is lost: it was copied, or is in the error, or can still
//! be read from the source.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, SOURCES, Trial, bytes, channel, disk_file, exit_code, handle_signal, handled, memory_file, named_fifo,
    poll_until, read_some, refuse_calls, refused, source, target, tcp_pair,
};
use ipc::{CopyError, Error, Fork, PipeReader, PipeWriter, StreamSocket, datagram_pair, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_end_that_was_not_given_is_refused_on_either_side,
        a_socket_for_messages_is_refused_on_either_side,
        one_file_or_one_pipe_on_both_sides_is_refused,
        a_target_that_nobody_reads_is_closed_and_raises_nothing,
        a_reader_that_is_killed_in_the_middle_loses_nothing,
        a_writer_that_is_killed_ends_the_copy,
        a_peer_that_left_something_unread_is_a_reset_after_all_that_it_sent,
        a_full_device_gives_back_what_was_taken,
        a_limit_in_the_middle_loses_nothing,
        a_target_that_is_not_open_for_writing_is_refused_first,
        a_time_limit_of_a_socket_ends_the_copy,
        the_error_turns_into_the_others,
    ]
}

/// That what was not copied is in the error, or still in the source.
#[track_caller]
fn assert_rest(stopped: &CopyError, from: impl AsFd, sent: &[u8]) {
    let mut rest = stopped.unwritten.clone();
    File::from(from.as_fd().try_clone_to_owned().unwrap()).read_to_end(&mut rest).unwrap();
    assert!(rest == sent[stopped.copied as usize..], "{} were copied, {} are left", stopped.copied, rest.len());
}

/// What stopped it.
#[track_caller]
fn stopped(from: impl AsFd, to: impl AsFd) -> CopyError {
    ipc::copy(from, to).expect_err("the copy cannot go to the end")
}

/// That nothing was copied, and nothing taken from a pipe that holds five bytes.
#[track_caller]
fn assert_untouched(what: &str, stopped: &CopyError, from: &PipeReader) {
    assert_eq!((stopped.copied, stopped.unwritten.len()), (0, 0), "{what}");
    assert_eq!(from.available().unwrap(), 5, "{what}");
}

fn holding_five() -> PipeReader {
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"hello").unwrap();
    reader
}

fn an_end_that_was_not_given_is_refused_on_either_side() {
    let (captured_reader, captured_writer) = pipe().unwrap();
    let captured_pair = stream_pair().unwrap();
    let child = fork((), |()| {
        let from = holding_five();
        for captured in [&captured_writer as &dyn AsFd, &captured_pair.child] {
            let stopped = stopped(&from, captured);
            assert!(matches!(stopped.error, Error::NotGiven), "{stopped:?}");
            assert_untouched("to it", &stopped, &from);
        }
        for captured in [&captured_reader as &dyn AsFd, &captured_pair.child] {
            let to = memory_file();
            assert!(matches!(stopped(captured, &to).error, Error::NotGiven));
            assert_eq!(to.metadata().unwrap().len(), 0);
        }
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    drop(captured_reader);
}

fn a_socket_for_messages_is_refused_on_either_side() {
    let pair = datagram_pair().unwrap();
    pair.parent.send(b"a message").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&pair.child as &dyn AsFd, &udp] {
        let from = holding_five();
        for (from, to) in [(&from as &dyn AsFd, socket), (socket, &memory_file())] {
            let wrong = stopped(from, to).error;
            assert!(matches!(wrong, Error::WrongKind { found: "a socket for messages", .. }), "{wrong:?}");
        }
        assert_eq!(from.available().unwrap(), 5);
    }
    assert_eq!(pair.child.recv_vec().unwrap().unwrap(), b"a message");
}

fn one_file_or_one_pipe_on_both_sides_is_refused() {
    let mut file = disk_file();
    file.write_all(b"hello").unwrap();
    let again = File::options().read(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let wrong = stopped(again, &file);
    assert_eq!(refused(Err::<(), _>(wrong.error)), ("copy_file_range", libc::EINVAL));
    assert_eq!(file.metadata().unwrap().len(), 5);

    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"hello").unwrap();
    let wrong = stopped(&reader, &writer);
    assert_untouched("the same pipe", &wrong, &reader);
    assert_eq!(refused(Err::<(), _>(wrong.error)), ("splice", libc::EINVAL));

    // One socket can be both: what comes is sent back.
    let mut pair = stream_pair().unwrap();
    pair.parent.write_all(b"echo").unwrap();
    pair.parent.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ipc::copy(&pair.child, &pair.child).unwrap(), 4);
    drop(pair.child);
    assert_eq!(io::read_to_string(&mut pair.parent).unwrap(), "echo");
}

fn a_target_that_nobody_reads_is_closed_and_raises_nothing() {
    for refuse in [false, true] {
        let child = Fork::new().reset_signals().spawn((), |()| {
            if refuse {
                refuse_calls(&[libc::SYS_splice, libc::SYS_sendfile], libc::ENOSYS);
            }
            assert_closed();
            handle_signal(libc::SIGPIPE);
            assert_closed();
            assert_eq!(handled(), 0);
        });
        assert_eq!(exit_code(&child.unwrap()), 0, "refused: {refuse}");
    }
}

fn assert_closed() {
    let fifo = named_fifo();
    drop(fifo.0);
    for kind in SOURCES {
        for (to, name) in [
            (&pipe_to_nobody() as &dyn AsFd, "a pipe"),
            (&fifo.1, "a FIFO with a name"),
            (&stream_to_nobody(), "a unix stream"),
            (&tcp_that_was_reset(), "a TCP connection"),
        ] {
            let source = source(kind, b"for nobody");
            let stopped = stopped(&source.end, to);
            assert!(matches!(stopped.error, Error::Closed), "{kind} to {name}: {stopped:?}");
            assert_eq!(stopped.copied, 0, "{kind} to {name}");
            source.done();
        }
    }
}

fn pipe_to_nobody() -> PipeWriter {
    let (_, writer) = pipe().unwrap();
    writer
}

fn stream_to_nobody() -> StreamSocket {
    let pair = stream_pair().unwrap();
    pair.parent
}

/// A connection whose peer is gone, and which knows it.
fn tcp_that_was_reset() -> impl AsFd {
    let (peer, mut tcp) = tcp_pair();
    drop(peer);
    // The first write tells the peer's machine, which answers with a reset.
    poll_until("the connection is reset", || tcp.write(b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
    tcp
}

fn a_reader_that_is_killed_in_the_middle_loses_nothing() {
    for refuse in [false, true] {
        let child = fork((), |()| {
            if refuse {
                refuse_calls(&[libc::SYS_splice, libc::SYS_sendfile], libc::ENOSYS);
            }
            let sent = bytes(400_000);
            let ((from, feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
            let reader = fork(drain, |drain| {
                read_some(&drain, 100_000);
                std::process::abort()
            });
            let feeder = fork(feed, |mut feed| feed.write_all(&sent).unwrap());
            let stopped = stopped(&from, to);
            assert!(matches!(stopped.error, Error::Closed), "{stopped:?}");
            assert!(stopped.copied >= 100_000);
            assert_rest(&stopped, &from, &sent);
            assert_eq!(exit_code(&feeder.unwrap()), 0);
            reader.unwrap().wait().unwrap();
        });
        assert_eq!(exit_code(&child.unwrap()), 0, "refused: {refuse}");
    }
}

fn a_writer_that_is_killed_ends_the_copy() {
    let sent = bytes(50_000);
    for kind in ["a pipe", "a unix stream", "a TCP connection"] {
        let (from, feed) = channel(kind);
        let feeder = fork(feed, |mut feed| -> () {
            feed.write_all(&sent).unwrap();
            loop {
                std::thread::park();
            }
        });
        let to = memory_file();
        let copier = fork(from, |from| assert_eq!(ipc::copy(from, &to).unwrap(), 50_000)).unwrap();
        poll_until("all of it was copied", || to.metadata().unwrap().len() == 50_000);
        let feeder = feeder.unwrap();
        feeder.kill().unwrap();
        feeder.wait().unwrap();
        assert_eq!(exit_code(&copier), 0, "{kind}");
    }
}

fn a_peer_that_left_something_unread_is_a_reset_after_all_that_it_sent() {
    for to in ["a file in memory", "a pipe"] {
        let mut pair = stream_pair().unwrap();
        pair.parent.write_all(b"never read").unwrap();
        pair.child.write_all(b"last words").unwrap();
        drop(pair.child);
        let target = target(to);
        // The kernel says it once. Who did not listen would take what comes next for the end.
        let stopped = stopped(&pair.parent, &target.end);
        assert!(matches!(stopped.error, Error::Reset), "to {to}: {stopped:?}");
        assert_eq!(stopped.copied, 10, "to {to}");
        assert_eq!(ipc::copy(&pair.parent, &target.end).unwrap(), 0, "to {to}: and then the end");
        assert_eq!(target.arrived(), b"last words", "to {to}");
    }
}

fn a_full_device_gives_back_what_was_taken() {
    let sent = bytes(200_000);
    for kind in SOURCES {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let source = source(kind, &sent);
        let stopped = stopped(&source.end, full);
        assert_eq!(stopped.copied, 0, "{kind}");
        assert_rest(&stopped, &source.end, &sent);
        assert_eq!(refused(Err::<(), _>(stopped.error)), ("write", libc::ENOSPC), "{kind}");
        source.done();
    }
}

fn a_limit_in_the_middle_loses_nothing() {
    for refuse in [false, true] {
        let child = fork((), |()| {
            if refuse {
                refuse_calls(&[libc::SYS_copy_file_range, libc::SYS_splice, libc::SYS_sendfile], libc::ENOSYS);
            }
            let sent = bytes(300_000);
            for kind in SOURCES {
                for to in [disk_file(), memory_file()] {
                    let source = source(kind, &sent);
                    limit_files(100_000);
                    let stopped = stopped(&source.end, &to);
                    limit_files(libc::RLIM_INFINITY);
                    assert_eq!(stopped.copied, 100_000, "{kind}");
                    assert_rest(&stopped, &source.end, &sent);
                    assert!(std::fs::read(format!("/proc/self/fd/{}", to.as_raw_fd())).unwrap() == sent[..100_000]);
                    assert_eq!(refused(Err::<(), _>(stopped.error)).1, libc::EFBIG, "{kind}");
                    source.done();
                }
            }
        });
        assert_eq!(exit_code(&child.unwrap()), 0, "refused: {refuse}");
    }
}

/// Lets no file become longer, from now on.
fn limit_files(bytes: libc::rlim_t) {
    // SAFETY: integers, and a limit that lives as long as the call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0, "{}", io::Error::last_os_error());
    }
}

fn a_target_that_is_not_open_for_writing_is_refused_first() {
    let (other_reader, _writer) = pipe().unwrap();
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let path = File::options().read(true).custom_flags(libc::O_PATH).open("/dev/null").unwrap();
    for to in [&other_reader as &dyn AsFd, &file, &File::open("/dev/null").unwrap(), &path] {
        let from = holding_five();
        let stopped = stopped(&from, to);
        assert_untouched("not open for writing", &stopped, &from);
        assert_eq!(refused(Err::<(), _>(stopped.error)), ("write", libc::EBADF));
    }
    let wrong = stopped(File::options().write(true).open("/dev/null").unwrap(), memory_file());
    assert_eq!(refused(Err::<(), _>(wrong.error)), ("read", libc::EBADF));
}

fn a_time_limit_of_a_socket_ends_the_copy() {
    let pair = stream_pair().unwrap();
    let (from, mut feed) = (UnixStream::from(pair.parent), pair.child);
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (_reader, writer) = pipe().unwrap();
    for to in [&writer as &dyn AsFd, &memory_file()] {
        feed.write_all(b"hello").unwrap();
        let started = Instant::now();
        let stopped = stopped(&from, to);
        assert!(matches!(stopped.error, Error::TimedOut), "{stopped:?}");
        assert_eq!(stopped.copied, 5);
        assert!(started.elapsed() < FAR);
    }
}

fn the_error_turns_into_the_others() {
    fn ours() -> Result<u64, Error> {
        Ok(ipc::copy(holding_five(), pipe_to_nobody())?)
    }
    fn io() -> io::Result<u64> {
        Ok(ipc::copy(holding_five(), pipe_to_nobody())?)
    }
    fn any() -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        Ok(ipc::copy(holding_five(), pipe_to_nobody())?)
    }
    assert!(matches!(ours(), Err(Error::Closed)));
    assert_eq!(io().unwrap_err().kind(), ErrorKind::BrokenPipe);
    let stopped = any().unwrap_err().downcast::<CopyError>().unwrap();
    assert_eq!(stopped.to_string(), "the copy stopped after 0 bytes: the other side is closed");
    assert!(stopped.source().is_none(), "a report of the chain says it once");
}
