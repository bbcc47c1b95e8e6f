//! What becomes a message socket and what does not, what it becomes in turn, who made it, and to whom it was given.

use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use crate::support::{self, Trial, descriptor_flags, exit_code, refused, status_flags};
use ipc::{DatagramPair, DatagramSocket, Error, datagram_pair, fork, open_ends};

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_is_no_message_socket_is_given_back,
        a_socket_without_a_peer_is_given_back,
        a_connected_socket_is_taken_over,
        a_socket_whose_peer_is_gone_can_be_taken_over,
        a_connectionless_socket_is_taken_over,
        an_end_becomes_a_descriptor_and_an_end_again,
        ends_and_their_clones_are_close_on_exec,
        a_number_that_is_no_socket_is_an_error_at_every_call,
        the_peers_credentials_are_those_of_the_maker,
        an_end_that_was_not_given_says_so_at_every_call,
    ]
}

fn sockets(domain: i32, kind: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are new and nobody else's.
    unsafe {
        let result = libc::socketpair(domain, kind, 0, fds.as_mut_ptr());
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

fn lone_socket(kind: i32) -> OwnedFd {
    // SAFETY: the descriptor is new.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// Whether the kernel says something about each message, so that an empty one is told from EOF.
fn marks_messages(fd: impl AsFd) -> bool {
    let mut on = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option is an int, and the length says so.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMP,
            (&raw mut on).cast::<libc::c_void>(),
            &mut len,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    on != 0
}

/// That it is refused, and given back as it was.
#[track_caller]
fn assert_wrong_kind(fd: OwnedFd) -> &'static str {
    let before = (fd.as_raw_fd(), descriptor_flags(&fd), status_flags(&fd));
    let refused = DatagramSocket::try_from(fd).unwrap_err();
    assert_eq!((refused.fd.as_raw_fd(), descriptor_flags(&refused.fd), status_flags(&refused.fd)), before);
    assert_eq!(open_ends(), 0);
    match refused.error {
        Error::WrongKind { expected, found } => {
            assert_eq!(expected, "a connected unix socket for messages");
            found
        }
        other => panic!("{other:?}"),
    }
}

fn what_is_no_message_socket_is_given_back() {
    assert_eq!(assert_wrong_kind(std::fs::File::open("/proc/self/exe").unwrap().into()), "a file");
    assert_eq!(assert_wrong_kind(std::fs::File::open("/").unwrap().into()), "a directory");
    assert_eq!(assert_wrong_kind(std::fs::File::open("/dev/null").unwrap().into()), "a character device");
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(assert_wrong_kind(reader.into()), "the reading end of a pipe");
    assert_eq!(assert_wrong_kind(writer.into()), "the writing end of a pipe");
    let other_family = "a socket of another family";
    assert_eq!(assert_wrong_kind(UdpSocket::bind("127.0.0.1:0").unwrap().into()), other_family);
    assert_eq!(assert_wrong_kind(TcpListener::bind("127.0.0.1:0").unwrap().into()), other_family);
    let (stream, _peer) = UnixStream::pair().unwrap();
    // Neither is one that would keep its close-on-exec off.
    // SAFETY: an open descriptor and a number.
    assert_eq!(unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    assert_eq!(assert_wrong_kind(stream.into()), "a unix socket for a stream");
}

fn a_socket_without_a_peer_is_given_back() {
    let alone = "a unix socket without a peer";
    assert_eq!(assert_wrong_kind(lone_socket(libc::SOCK_SEQPACKET)), alone);
    let listening = lone_socket(libc::SOCK_SEQPACKET);
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    // An abstract name, of which the kernel chooses the rest.
    let len = size_of::<libc::sa_family_t>() as libc::socklen_t;
    // SAFETY: an address of that length.
    unsafe {
        assert_eq!(libc::bind(listening.as_raw_fd(), (&raw mut address).cast(), len), 0);
        assert_eq!(libc::listen(listening.as_raw_fd(), 1), 0);
    }
    assert_eq!(assert_wrong_kind(listening), alone);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("listener-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(assert_wrong_kind(listener.into()), "a unix socket for a stream");
}

#[track_caller]
fn assert_works(one: &DatagramSocket, other: &DatagramSocket) {
    for (from, to) in [(one, other), (other, one)] {
        for message in [&b"hello"[..], b""] {
            from.send(message).unwrap();
            assert_eq!(to.peek_len().unwrap(), Some(message.len()));
            assert_eq!(to.recv_vec().unwrap().expect("a message"), message);
        }
    }
}

fn a_connected_socket_is_taken_over() {
    let (one, other) = sockets(libc::AF_UNIX, libc::SOCK_SEQPACKET);
    assert_eq!(descriptor_flags(&one), 0);
    let numbers = (one.as_raw_fd(), other.as_raw_fd());
    let (one, other) = (DatagramSocket::try_from(one).unwrap(), DatagramSocket::try_from(other).unwrap());
    assert_eq!((one.as_raw_fd(), other.as_raw_fd()), numbers, "it keeps its number");
    assert_eq!(open_ends(), 2);
    for socket in [&one, &other] {
        assert_eq!(descriptor_flags(socket), libc::FD_CLOEXEC);
        assert!(marks_messages(socket));
    }
    assert_works(&one, &other);
    drop(one);
    assert_eq!(other.recv(&mut [0; 8]).unwrap(), None);
}

fn a_socket_whose_peer_is_gone_can_be_taken_over() {
    let (one, other) = sockets(libc::AF_UNIX, libc::SOCK_SEQPACKET);
    drop(other);
    let socket = DatagramSocket::try_from(one).unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), None);
}

fn a_connectionless_socket_is_taken_over() {
    let (one, other) = UnixDatagram::pair().unwrap();
    let one = DatagramSocket::try_from(OwnedFd::from(one)).unwrap();
    assert_eq!(descriptor_flags(&one), libc::FD_CLOEXEC);
    other.send(b"").unwrap();
    other.send(b"hello").unwrap();
    assert_eq!(one.recv(&mut [0; 8]).unwrap(), Some(0));
    assert_eq!(one.recv(&mut [0; 8]).unwrap(), Some(5));
    one.send(b"answer").unwrap();
    let mut buf = [0; 8];
    assert_eq!(other.recv(&mut buf).unwrap(), 6);
    assert_eq!(&buf[..6], b"answer");
    // Its own shutdown is the end that it sees.
    one.shutdown(Shutdown::Read).unwrap();
    assert_eq!(one.recv(&mut [0; 8]).unwrap(), None);

    let (one, other) = UnixDatagram::pair().unwrap();
    let one = DatagramSocket::try_from(one).unwrap();
    other.send(b"").unwrap();
    assert_eq!(one.recv(&mut [0; 8]).unwrap(), Some(0));
    // One without a peer has nobody to send to.
    let alone = DatagramSocket::try_from(UnixDatagram::unbound().unwrap()).unwrap();
    assert!(matches!(alone.send(b"hello"), Err(Error::Closed)));
}

fn an_end_becomes_a_descriptor_and_an_end_again() {
    let DatagramPair { parent, child } = datagram_pair().unwrap();
    let number = parent.as_raw_fd();
    child.send(b"").unwrap();
    let fd = OwnedFd::from(parent);
    assert_eq!((fd.as_raw_fd(), descriptor_flags(&fd)), (number, libc::FD_CLOEXEC));
    assert_eq!(open_ends(), 1, "it is no end any more");
    let parent = DatagramSocket::try_from(fd).unwrap();
    assert_eq!(open_ends(), 2);
    assert_eq!(parent.recv(&mut [0; 8]).unwrap(), Some(0), "and what was there is there still");
    assert_works(&parent, &child);

    let raw: RawFd = parent.into_raw_fd();
    assert_eq!((raw, open_ends()), (number, 1));
    // SAFETY: it was just given up, and is nobody else's.
    let parent = unsafe { DatagramSocket::from_raw_fd(raw) };
    assert_works(&parent, &child);

    // A descriptor is in the child because it was given, and not severed where it was not.
    let fd = OwnedFd::from(parent);
    let severed_only_as_an_end = fork(child, |child| {
        assert_eq!(child.recv_vec().unwrap().expect("a message"), b"from a plain descriptor");
    })
    .unwrap();
    let parent = DatagramSocket::try_from(fd).unwrap();
    parent.send(b"from a plain descriptor").unwrap();
    assert_eq!(exit_code(&severed_only_as_an_end), 0);
}

fn ends_and_their_clones_are_close_on_exec() {
    let pair = datagram_pair().unwrap();
    let clone = pair.parent.try_clone().unwrap();
    for socket in [&pair.parent, &pair.child, &clone] {
        assert_eq!(descriptor_flags(socket), libc::FD_CLOEXEC);
        assert!(socket.as_raw_fd() > 2);
    }
    assert_works(&clone, &pair.child);
    drop(pair.parent);
    assert_works(&clone, &pair.child);
    clone.close().unwrap();
    assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), None);
}

fn a_number_that_is_no_socket_is_an_error_at_every_call() {
    let file = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: an open descriptor whose owner gives it up.
    let socket = unsafe { DatagramSocket::from_raw_fd(file.into_raw_fd()) };
    let second = Duration::from_secs(1);
    assert_eq!(refused(socket.send(b"x")).1, libc::ENOTSOCK);
    assert_eq!(refused(socket.send_timeout(b"x", second)).1, libc::ENOTSOCK);
    assert_eq!(refused(socket.recv(&mut [0; 8])), ("recvmsg", libc::ENOTSOCK));
    assert_eq!(refused(socket.recv_timeout(&mut [0; 8], second)), ("recvmsg", libc::ENOTSOCK));
    assert_eq!(refused(socket.peek_len()), ("recvmsg", libc::ENOTSOCK));
    assert_eq!(refused(socket.max_message()).1, libc::ENOTSOCK);
    assert_eq!(refused(socket.set_max_message(1)).1, libc::ENOTSOCK);
    assert_eq!(refused(socket.peer_credentials()).1, libc::ENOTSOCK);
    assert_eq!(refused(socket.shutdown(Shutdown::Both)), ("shutdown", libc::ENOTSOCK));
    assert!(DatagramSocket::try_from(OwnedFd::from(socket)).is_err());
}

fn the_peers_credentials_are_those_of_the_maker() {
    let pair = datagram_pair().unwrap();
    let maker = std::process::id();
    // SAFETY: no conditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let of_the_maker = move |socket: &DatagramSocket| {
        let found = socket.peer_credentials().unwrap();
        assert_eq!((found.pid, found.uid, found.gid), (maker, uid, gid));
    };
    let child = fork(pair.child, move |socket| {
        assert_ne!(std::process::id(), maker);
        of_the_maker(&socket);
        socket.send(b"ready").unwrap();
        assert_eq!(socket.recv(&mut []).unwrap(), None);
    })
    .unwrap();
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"ready");
    of_the_maker(&pair.parent);
    drop(pair.parent);
    assert_eq!(exit_code(&child), 0);
}

fn an_end_that_was_not_given_says_so_at_every_call() {
    let DatagramPair { parent, child } = datagram_pair().unwrap();
    let ours = &parent;
    let child = fork(child, |_socket| {
        let second = Duration::from_secs(1);
        let mut buf = [0; 8];
        let not_given = [
            ours.send(b"x").err(),
            ours.send(b"").err(),
            ours.send(&vec![0; 5 << 20]).err(),
            ours.try_send(b"x").err(),
            ours.send_timeout(b"x", second).err(),
            ours.send_vectored(&[]).err(),
            ours.recv(&mut buf).err(),
            ours.recv(&mut []).err(),
            ours.try_recv(&mut buf).err(),
            ours.recv_timeout(&mut buf, second).err(),
            ours.recv_vec().err(),
            ours.try_recv_vec().err(),
            ours.recv_vec_timeout(second).err(),
            ours.peek_len().err(),
            ours.max_message().err(),
            ours.set_max_message(1).err(),
            ours.peer_credentials().err(),
            ours.set_passcred(true).err(),
            ours.set_passcred(false).err(),
            ours.shutdown(Shutdown::Both).err(),
            ours.try_clone().err(),
        ];
        for (call, error) in not_given.into_iter().enumerate() {
            assert!(matches!(error, Some(Error::NotGiven)), "call {call}: {error:?}");
        }
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    // The child's shutdown and its sends did not reach ours.
    assert_eq!(parent.recv(&mut [0; 8]).unwrap(), None);
    assert_eq!(parent.try_recv(&mut [0; 8]).unwrap(), None);
}
