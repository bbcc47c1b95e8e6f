//! Bytes both ways: conversions, clones, and the descriptors of the ends.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use super::streams::NOW;
use crate::support::{self, Gate, Trial, closed_standard_descriptors, descriptor_flags, exit_code, limit_descriptors};
use ipc::{Error, StreamSocket, datagram_pair, fork, open_ends, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_end_that_was_not_given_answers_so_to_every_call,
        a_clone_is_the_same_side,
        std_streams_are_converted_both_ways,
        what_is_no_stream_is_refused_and_given_back,
        a_peer_that_is_gone_is_no_stranger,
        raw_numbers_are_converted,
        the_standard_numbers_are_left_free,
        a_full_table_is_an_error,
        the_maker_of_the_pair_is_known,
    ]
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

fn the_maker_of_the_pair_is_known() {
    let pair = stream_pair().unwrap();
    let me = std::process::id();
    let child = fork(pair.child, |socket| assert_eq!(socket.peer_credentials().unwrap().pid, me)).unwrap();
    assert_eq!(pair.parent.peer_credentials().unwrap().pid, me);
    assert_eq!(exit_code(&child), 0);
}
