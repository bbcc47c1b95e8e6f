//! Bytes both ways: [`StreamSocket`] reads and writes like a pipe, in two directions, and never raises a signal.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::support::{
    self, Gate, Sigpipe, Trial, asleep_in, closed_standard_descriptors, descriptor_flags, exit_code, handle_signal,
    handled, limit_descriptors, sigpipe, status_flags, with_interval_timer,
};
use ipc::{Error, StreamPair, StreamSocket, Watch, datagram_pair, fork, open_ends, pipe, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_go_both_ways,
        much_goes_both_ways_at_once,
        borders_of_writes_are_not_kept,
        the_end_arrives_when_the_peer_leaves,
        the_end_arrives_when_the_peer_is_killed,
        a_half_that_is_shut_down_ends_alone,
        shutting_down_goes_for_all_that_hold_the_end,
        reading_has_deadlines,
        writing_has_deadlines,
        deadlines_hold_under_signals,
        a_blocked_call_goes_on_after_signals,
        waiting_for_ever_ends_when_something_comes,
        nothing_waits_when_told_not_to,
        empty_buffers_tell_nothing,
        several_buffers_are_one_call,
        empty_leading_buffers_are_no_end,
        more_buffers_than_the_kernel_takes_are_clamped,
        writing_to_nobody_is_an_error_and_never_a_signal,
        a_loss_is_said_once_and_then_it_is_the_end,
        a_sender_hears_of_a_loss_as_closed,
        an_end_that_was_not_given_answers_so_to_every_call,
        a_clone_is_the_same_side,
        std_streams_are_converted_both_ways,
        what_is_no_stream_is_refused_and_given_back,
        a_peer_that_is_gone_is_no_stranger,
        raw_numbers_are_converted,
        the_standard_numbers_are_left_free,
        a_full_table_is_an_error,
        readiness_says_what_a_call_would_do,
        o_nonblock_is_never_touched,
        the_maker_of_the_pair_is_known,
    ]
}

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);

/// Fills the way to the peer, and says with how much.
fn fill(socket: &StreamSocket) -> usize {
    let mut written = 0;
    loop {
        match socket.try_write(&[1; 4096]) {
            Ok(more) => written += more,
            Err(Error::WouldBlock) => return written,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn bytes_go_both_ways() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        let mut question = [0; 4];
        while socket.read_exact(&mut question).is_ok() {
            question.reverse();
            socket.write_all(&question).unwrap();
        }
    })
    .unwrap();
    // Through a reference, as two holders would.
    let (mut reader, mut writer) = (&pair.parent, &pair.parent);
    for round in 0..100_u32 {
        writer.write_all(&round.to_le_bytes()).unwrap();
        let mut answer = [0; 4];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(answer, round.to_be_bytes());
    }
    writer.flush().unwrap();
    drop(pair.parent);
    assert_eq!(exit_code(&child), 0);
}

fn much_goes_both_ways_at_once() {
    const LEN: usize = 4 << 20;
    let pair = stream_pair().unwrap();
    let exchange = |socket: &StreamSocket, byte: u8| {
        // Reads while it waits to write: neither side waits for the other.
        let (mut sent, mut arrived, mut buf) = (0, 0, vec![0; 64 << 10]);
        while sent < LEN || arrived < LEN {
            if sent < LEN {
                match socket.try_write(&vec![byte; (LEN - sent).min(64 << 10)]) {
                    Ok(more) => sent += more,
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            // Once it has everything, the peer may leave.
            if arrived < LEN {
                match socket.read_timeout(&mut buf, if sent < LEN { NOW } else { Duration::MAX }) {
                    Ok(more) => {
                        assert!(more > 0 && buf[..more].iter().all(|other| *other == !byte));
                        arrived += more;
                    }
                    Err(Error::TimedOut) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let child = fork(pair.child, |socket| exchange(&socket, 0x0f)).unwrap();
    exchange(&pair.parent, 0xf0);
    assert_eq!(exit_code(&child), 0);
}

fn borders_of_writes_are_not_kept() {
    let StreamPair { mut parent, mut child } = stream_pair().unwrap();
    child.write_all(b"one ").unwrap();
    child.write_all(b"two").unwrap();
    let mut buf = [0; 99];
    assert_eq!(parent.read(&mut buf[..2]).unwrap(), 2);
    assert_eq!(parent.read(&mut buf[2..]).unwrap(), 5);
    assert_eq!(&buf[..7], b"one two");
}

fn the_end_arrives_when_the_peer_leaves() {
    let mut pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| socket.write_all(b"last words").unwrap()).unwrap();
    assert_eq!(std::io::read_to_string(&mut pair.parent).unwrap(), "last words");
    for _ in 0..2 {
        assert_eq!(pair.parent.read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.parent.try_read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [0], NOW).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [0], Duration::MAX).unwrap(), 0);
    }
    assert_eq!(exit_code(&child), 0);
}

fn the_end_arrives_when_the_peer_is_killed() {
    let mut pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        socket.write_all(b"half").unwrap();
        let _ = socket.read(&mut [0]);
    })
    .unwrap();
    let mut half = [0; 4];
    pair.parent.read_exact(&mut half).unwrap();
    asleep_in(child.id(), &[libc::SYS_recvfrom]);
    child.kill().unwrap();
    assert_eq!(pair.parent.read(&mut [0]).unwrap(), 0);
    child.wait().unwrap();
}

fn a_half_that_is_shut_down_ends_alone() {
    let mut pair = stream_pair().unwrap();
    pair.parent.write_all(b"that was all").unwrap();
    pair.parent.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(pair.parent.try_write(b"more"), Err(Error::Closed)));
    assert_eq!(std::io::read_to_string(&mut pair.child).unwrap(), "that was all");
    pair.child.write_all(b"and back").unwrap();
    let mut text = [0; 8];
    pair.parent.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"and back");
    pair.parent.shutdown(Shutdown::Read).unwrap();
    assert_eq!(pair.parent.read(&mut text).unwrap(), 0);
    assert!(matches!(pair.child.try_write(b"more"), Err(Error::Closed)));
    pair.parent.shutdown(Shutdown::Both).unwrap();

    let pair = stream_pair().unwrap();
    pair.parent.shutdown(Shutdown::Both).unwrap();
    assert_eq!(pair.child.try_read(&mut text).unwrap(), 0);
    assert!(matches!(pair.child.try_write(b"more"), Err(Error::Closed)));
}

fn shutting_down_goes_for_all_that_hold_the_end() {
    let pair = stream_pair().unwrap();
    let other = pair.parent.try_clone().unwrap();
    let child = fork(pair.parent, |socket| socket.shutdown(Shutdown::Write).unwrap()).unwrap();
    assert_eq!(exit_code(&child), 0);
    assert_eq!(pair.child.try_read(&mut [0]).unwrap(), 0);
    assert!(matches!(other.try_write(b"x"), Err(Error::Closed)));
}

fn reading_has_deadlines() {
    let pair = stream_pair().unwrap();
    let mut buf = [0; 9];
    for timeout in [NOW, Duration::from_nanos(1), SHORT] {
        let start = Instant::now();
        assert!(matches!(pair.parent.read_timeout(&mut buf, timeout), Err(Error::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < timeout + support::FAR);
    }
    pair.child.try_write(b"here").unwrap();
    assert_eq!(pair.parent.read_timeout(&mut buf, NOW).unwrap(), 4, "what is there is read, however late it is");
}

fn writing_has_deadlines() {
    let pair = stream_pair().unwrap();
    fill(&pair.parent);
    for timeout in [NOW, Duration::from_nanos(1), SHORT] {
        let start = Instant::now();
        assert!(matches!(pair.parent.write_timeout(b"x", timeout), Err(Error::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < timeout + support::FAR);
    }
    while pair.child.try_read(&mut [0; 4096]).is_ok() {}
    assert_eq!(pair.parent.write_timeout(b"room", NOW).unwrap(), 4);
    let much = vec![0; 8 << 20];
    let went = pair.parent.write_timeout(&much, SHORT).unwrap();
    assert!(went > 0 && went < much.len(), "it returns at the first progress: {went}");
}

fn deadlines_hold_under_signals() {
    let pair = stream_pair().unwrap();
    fill(&pair.parent);
    let limit = Duration::from_millis(100);
    with_interval_timer(Duration::from_millis(1), || {
        for write in [false, true] {
            let (start, signals) = (Instant::now(), handled());
            let result = match write {
                true => pair.parent.write_timeout(b"x", limit),
                false => pair.parent.read_timeout(&mut [0], limit),
            };
            assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
            assert!(start.elapsed() >= limit, "not early");
            assert!(start.elapsed() < limit + support::FAR, "nor late: {:?}", start.elapsed());
            assert!(handled() > signals + 5);
        }
    });
}

fn a_blocked_call_goes_on_after_signals() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        handle_signal(libc::SIGUSR1);
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        byte[0]
    })
    .unwrap();
    for _ in 0..20 {
        asleep_in(child.id(), &[libc::SYS_recvfrom]);
        child.signal(libc::SIGUSR1).unwrap();
    }
    (&pair.parent).write_all(&[7]).unwrap();
    assert_eq!(exit_code(&child), 7);
}

fn waiting_for_ever_ends_when_something_comes() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        assert_eq!(socket.read_timeout(&mut [0; 9], Duration::MAX).unwrap(), 4);
        fill(&socket);
        socket.try_clone().unwrap().write_timeout(b"x", Duration::MAX).unwrap();
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll, libc::SYS_recvfrom]);
    (&pair.parent).write_all(b"here").unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll, libc::SYS_sendto]);
    let mut rest = Vec::new();
    (&pair.parent).read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'x'));
    assert_eq!(exit_code(&child), 0);
}

fn nothing_waits_when_told_not_to() {
    let pair = stream_pair().unwrap();
    assert!(matches!(pair.parent.try_read(&mut [0]), Err(Error::WouldBlock)));
    let written = fill(&pair.parent);
    assert!(written >= 4096);
    let mut read = 0;
    let mut buf = [0; 10_000];
    loop {
        match pair.child.try_read(&mut buf) {
            Ok(more) => read += more,
            Err(Error::WouldBlock) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(read, written);
    assert!(pair.parent.try_write(b"x").is_ok());
}

fn empty_buffers_tell_nothing() {
    let pair = stream_pair().unwrap();
    let mut parent = &pair.parent;
    for gone in [false, true] {
        assert_eq!(parent.read(&mut []).unwrap(), 0);
        assert_eq!(pair.parent.try_read(&mut []).unwrap(), 0);
        assert_eq!(pair.parent.read_timeout(&mut [], Duration::MAX).unwrap(), 0);
        assert_eq!(parent.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(parent.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!(parent.write(&[]).unwrap(), 0);
        assert_eq!(pair.parent.try_write(&[]).unwrap(), 0);
        assert_eq!(pair.parent.write_timeout(&[], NOW).unwrap(), 0);
        assert_eq!(parent.write_vectored(&[]).unwrap(), 0);
        assert_eq!(parent.write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
        if !gone {
            assert!(matches!(pair.child.try_read(&mut [0]), Err(Error::WouldBlock)), "nothing was sent");
            pair.child.shutdown(Shutdown::Both).unwrap();
        }
    }
}

fn several_buffers_are_one_call() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let parts = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b" two")];
    assert_eq!(parent.write_vectored(&parts).unwrap(), 7);
    let (mut first, mut second) = ([0; 5], [0; 9]);
    let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 7);
    assert_eq!((&first, &second[..2]), (b"one t", &b"wo"[..]));
    // Through the value too.
    let StreamPair { mut parent, mut child } = pair;
    assert_eq!(parent.write_vectored(&[IoSlice::new(b"x")]).unwrap(), 1);
    assert_eq!(child.read_vectored(&mut [IoSliceMut::new(&mut first)]).unwrap(), 1);
}

fn empty_leading_buffers_are_no_end() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let mut parts = vec![IoSlice::new(b""); 3000];
    parts.push(IoSlice::new(b"after all"));
    assert_eq!(parent.write_vectored(&parts).unwrap(), 9);
    let mut buf = [0; 9];
    let mut bufs: Vec<_> = (0..3000).map(|_| IoSliceMut::new(&mut [])).collect();
    bufs.push(IoSliceMut::new(&mut buf));
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 9);
    assert_eq!(&buf, b"after all");
}

fn more_buffers_than_the_kernel_takes_are_clamped() {
    let pair = stream_pair().unwrap();
    let (mut parent, mut child) = (&pair.parent, &pair.child);
    let bytes: Vec<u8> = (0..3000).map(|i| i as u8).collect();
    let parts: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
    assert_eq!(parent.write_vectored(&parts).unwrap(), 1024);
    parent.write_all(&bytes[1024..]).unwrap();
    let mut read = vec![0; 3000];
    let mut bufs: Vec<_> = read.chunks_mut(1).map(IoSliceMut::new).collect();
    assert_eq!(child.read_vectored(&mut bufs).unwrap(), 1024);
    child.read_exact(&mut read[1024..]).unwrap();
    assert!(read == bytes);
}

fn writing_to_nobody_is_an_error_and_never_a_signal() {
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        // At its default, the signal would end this test.
        sigpipe(disposition);
        let pair = stream_pair().unwrap();
        drop(pair.child);
        for _ in 0..2 {
            let mut parent = &pair.parent;
            assert_eq!(parent.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(parent.write_vectored(&[IoSlice::new(b"x")]).unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
            assert!(matches!(pair.parent.write_timeout(b"x", NOW), Err(Error::Closed)));
        }
    }
    handle_signal(libc::SIGPIPE);
    let pair = stream_pair().unwrap();
    drop(pair.child);
    assert!((&pair.parent).write(b"x").is_err());
    assert_eq!(handled(), 0);
}

fn a_loss_is_said_once_and_then_it_is_the_end() {
    type ReadOne = fn(&StreamSocket) -> Result<usize, Error>;
    let ways: [ReadOne; 4] = [
        |mut socket| Ok(socket.read(&mut [0; 9])?),
        |socket| socket.try_read(&mut [0; 9]),
        |socket| socket.read_timeout(&mut [0; 9], NOW),
        |mut socket| Ok(socket.read_vectored(&mut [IoSliceMut::new(&mut [0; 9])])?),
    ];
    for read in ways {
        let pair = stream_pair().unwrap();
        (&pair.child).write_all(b"theirs").unwrap();
        (&pair.parent).write_all(b"unread").unwrap();
        drop(pair.child);
        assert_eq!(read(&pair.parent).unwrap(), 6, "what it sent comes first");
        let said = read(&pair.parent);
        assert!(matches!(said, Err(Error::Reset)), "{said:?}");
        for _ in 0..2 {
            assert_eq!(read(&pair.parent).unwrap(), 0);
        }
    }
    let pair = stream_pair().unwrap();
    (&pair.parent).write_all(b"unread").unwrap();
    drop(pair.child);
    assert_eq!((&pair.parent).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_sender_hears_of_a_loss_as_closed() {
    let pair = stream_pair().unwrap();
    (&pair.child).write_all(b"theirs").unwrap();
    (&pair.parent).write_all(b"unread").unwrap();
    drop(pair.child);
    assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
    assert_eq!(pair.parent.try_read(&mut [0; 9]).unwrap(), 6);
    assert!(matches!(pair.parent.try_read(&mut [0; 9]), Err(Error::Reset)));
    assert_eq!(pair.parent.try_read(&mut [0; 9]).unwrap(), 0);
    assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
}

fn an_end_that_was_not_given_answers_so_to_every_call() {
    let pair = stream_pair().unwrap();
    let gate = Gate::new();
    // As a value that came along in a frame of the stack, which both processes own.
    let mut socket = pair.child;
    let child = fork((), |()| {
        fn not_given<T: std::fmt::Debug>(result: Result<T, Error>) {
            assert!(matches!(result, Err(Error::NotGiven)), "{result:?}");
        }
        not_given(socket.try_read(&mut [0]));
        not_given(socket.read_timeout(&mut [0], Duration::MAX));
        not_given(socket.read(&mut [0]).map_err(Error::from));
        not_given(socket.read_vectored(&mut [IoSliceMut::new(&mut [0])]).map_err(Error::from));
        not_given(socket.try_write(b"x"));
        not_given(socket.write_timeout(b"x", NOW));
        not_given(socket.write(b"x").map_err(Error::from));
        not_given(socket.write_vectored(&[IoSlice::new(b"x")]).map_err(Error::from));
        not_given(socket.shutdown(Shutdown::Both));
        not_given(socket.try_clone());
        not_given(socket.peer_credentials());
        not_given(socket.set_passcred(true));
        not_given(socket.send_with(b"x", ()).map_err(Error::from));
        not_given(socket.recv_with(&mut [0]));
        let refused = fork(socket.as_fd(), |_| ()).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        gate.pass();
    })
    .unwrap();
    drop(socket);
    // The parent's are what they were, and the child holds nothing up.
    assert_eq!(pair.parent.read_timeout(&mut [0], Duration::MAX).unwrap(), 0);
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_clone_is_the_same_side() {
    let pair = stream_pair().unwrap();
    let clone = pair.parent.try_clone().unwrap();
    assert_eq!(descriptor_flags(&clone), libc::FD_CLOEXEC);
    (&clone).write_all(b"clone").unwrap();
    let mut text = [0; 5];
    (&pair.child).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"clone");
    drop(pair.parent);
    assert!(matches!(pair.child.try_read(&mut text), Err(Error::WouldBlock)), "the side is still held");
    clone.close().unwrap();
    assert_eq!(pair.child.try_read(&mut text).unwrap(), 0);
}

fn std_streams_are_converted_both_ways() {
    let (one, other) = UnixStream::pair().unwrap();
    let number = one.as_raw_fd();
    // SAFETY: an open descriptor.
    unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    let mut ours = StreamSocket::from(one);
    assert_eq!((ours.as_raw_fd(), open_ends()), (number, 1));
    assert_eq!(descriptor_flags(&ours), libc::FD_CLOEXEC);
    ours.write_all(b"to std").unwrap();
    let mut text = [0; 6];
    (&other).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"to std");
    let mut back = UnixStream::from(ours);
    assert_eq!((back.as_raw_fd(), open_ends()), (number, 0));
    back.write_all(b"by std").unwrap();
    let mut theirs = StreamSocket::try_from(OwnedFd::from(other)).unwrap();
    theirs.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"by std");
    assert_eq!(format!("{theirs:?}"), format!("StreamSocket({})", theirs.as_raw_fd()));
}

fn what_is_no_stream_is_refused_and_given_back() {
    let (reader, writer) = pipe().unwrap();
    let messages = datagram_pair().unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    // SAFETY: integers; the descriptor is new.
    let alone = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) };
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("listener-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let strangers: [OwnedFd; 11] = [
        reader.into(),
        writer.into(),
        messages.child.into(),
        datagram.into(),
        tcp.into(),
        connected.into(),
        alone,
        listener.into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/").unwrap().into(),
        File::open("/proc/self/exe").unwrap().into(),
    ];
    for stranger in strangers {
        let number = stranger.as_raw_fd();
        // SAFETY: an open descriptor.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        let refused = StreamSocket::try_from(stranger).unwrap_err();
        assert!(matches!(refused.error, Error::WrongKind { .. }), "{refused:?}");
        assert_eq!((refused.fd.as_raw_fd(), descriptor_flags(&refused.fd)), (number, 0), "as it was");
    }
}

fn a_peer_that_is_gone_is_no_stranger() {
    let (one, other) = UnixStream::pair().unwrap();
    (&other).write_all(b"left").unwrap();
    drop(other);
    let socket = StreamSocket::try_from(OwnedFd::from(one)).unwrap();
    assert_eq!(socket.try_read(&mut [0; 9]).unwrap(), 4);
    assert_eq!(socket.try_read(&mut [0; 9]).unwrap(), 0);
}

fn raw_numbers_are_converted() {
    let pair = stream_pair().unwrap();
    let number = pair.child.into_raw_fd();
    assert_eq!(open_ends(), 1);
    // SAFETY: the number was just given up.
    let child = unsafe { StreamSocket::from_raw_fd(number) };
    assert_eq!(open_ends(), 2);
    assert_eq!(child.try_write(b"x").unwrap(), 1);
    assert_eq!(pair.parent.try_read(&mut [0; 9]).unwrap(), 1);
}

fn the_standard_numbers_are_left_free() {
    closed_standard_descriptors(|| {
        let pair = stream_pair().unwrap();
        let clone = pair.parent.try_clone().unwrap();
        for socket in [&pair.parent, &pair.child, &clone] {
            assert!(socket.as_raw_fd() > 2);
        }
    });
}

fn a_full_table_is_an_error() {
    for free in [0, 1] {
        let full = limit_descriptors(free);
        let refused = stream_pair();
        drop(full);
        let Err(Error::System { source, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
    }
    let pair = stream_pair().unwrap();
    let full = limit_descriptors(0);
    let refused = pair.parent.try_clone();
    drop(full);
    assert!(matches!(refused, Err(Error::System { .. })), "{refused:?}");
}

fn readiness_says_what_a_call_would_do() {
    use ipc::Ready;
    let pair = stream_pair().unwrap();
    let look = |socket: &StreamSocket| {
        let mut on = [Watch::readable(socket), Watch::writable(socket)];
        wait_any(&mut on, Some(NOW)).unwrap();
        (on[0].ready().contains(Ready::READ), on[1].ready().contains(Ready::WRITE))
    };
    assert_eq!(look(&pair.parent), (false, true));
    fill(&pair.parent);
    (&pair.child).write_all(b"x").unwrap();
    assert_eq!(look(&pair.parent), (true, false));
    pair.parent.try_read(&mut [0]).unwrap();
    assert_eq!(look(&pair.parent), (false, false));
    drop(pair.child);
    assert_eq!(look(&pair.parent), (true, true), "neither call would wait");
}

fn o_nonblock_is_never_touched() {
    let pair = stream_pair().unwrap();
    let before = status_flags(&pair.parent);
    assert_eq!(before & libc::O_NONBLOCK, 0);
    fill(&pair.parent);
    let _ = pair.parent.try_read(&mut [0]);
    let _ = pair.parent.write_timeout(b"x", SHORT);
    let _ = pair.parent.read_timeout(&mut [0], SHORT);
    assert_eq!(status_flags(&pair.parent), before);

    // One that somebody else set: a plain call says so, and a deadline waits all the same.
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let socket = StreamSocket::from(one);
    assert_eq!((&socket).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    assert!(matches!(socket.read_timeout(&mut [0], SHORT), Err(Error::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    drop(other);
}

fn the_maker_of_the_pair_is_known() {
    let pair = stream_pair().unwrap();
    let me = std::process::id();
    let child = fork(pair.child, |socket| assert_eq!(socket.peer_credentials().unwrap().pid, me)).unwrap();
    assert_eq!(pair.parent.peer_credentials().unwrap().pid, me);
    assert_eq!(exit_code(&child), 0);
}
