//! Messages with any control data that the kernel takes from a sender, to sockets with any options set. The message arrives
//! whole. Descriptors that came with it are owned, close-on-exec, and closed again.

#![no_main]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use ipc::{DatagramSocket, Error, PipeReader, PipeWriter, Received, StreamSocket};

/// What may be asked for beside a message, and a socket that came from elsewhere may ask for.
const OPTIONS: [i32; 6] =
    [libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, SO_PASSPIDFD, libc::SO_RXQ_OVFL];
const SO_PASSPIDFD: i32 = 76;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let before = lowest_free();
    attempt(input);
    assert_eq!(lowest_free(), before, "no descriptor stays open");
});

/// The number that the next descriptor gets.
fn lowest_free() -> i32 {
    // SAFETY: the copy is new, and closed again.
    unsafe {
        let number = libc::dup(0);
        libc::close(number);
        number
    }
}

fn attempt(mut input: &[u8]) {
    let mut byte = || input.split_off_first().copied().unwrap_or(0);
    let (kind, options, room) = (byte(), byte(), usize::from(byte()));
    let message = vec![7; usize::from(byte())];
    let (sender, receiver) = pair([libc::SOCK_SEQPACKET, libc::SOCK_DGRAM, libc::SOCK_STREAM][usize::from(kind) % 3]);
    for (i, option) in OPTIONS.iter().enumerate() {
        set_option(receiver.as_fd(), *option, options >> i & 1);
    }
    let (pipe_reader, pipe_writer) = ipc::pipe().expect("a pipe");
    let lent = [sender.as_raw_fd(), receiver.as_raw_fd(), pipe_reader.as_raw_fd(), pipe_writer.as_raw_fd()];
    // Headers of three bytes each: the kind, the length that it claims, and the byte that fills it.
    let mut control = Vec::new();
    while let [kind, len, fill, rest @ ..] = input {
        input = rest;
        header(&mut control, *kind, *len, *fill, &lent);
    }
    if !send(sender.as_fd(), &message, &control) {
        return; // The kernel does not take it.
    }
    drop(sender);
    if kind % 3 == 2 {
        let socket = StreamSocket::try_from(receiver).expect("a stream");
        let mut buf = vec![0; room + 1];
        let (len, received) = match socket.try_recv_with(&mut buf) {
            Ok(arrived) => arrived,
            Err(Error::EndsLost { received }) => return take(received),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(buf[..len], message[..len]);
        take(received);
    } else {
        let socket = DatagramSocket::try_from(receiver).expect("a socket for messages");
        match options & 0x40 {
            0 => {
                let mut arrived = vec![1; room];
                match socket.try_recv_with(&mut arrived) {
                    Ok(Some(received)) => take(received),
                    Err(Error::EndsLost { received }) => take(received),
                    other => panic!("{other:?}"),
                }
                assert_eq!(arrived, message);
            }
            _ => {
                let mut buf = vec![0; room];
                match socket.try_recv(&mut buf) {
                    Ok(len) => assert_eq!(buf[..len.expect("a message")], message),
                    Err(Error::BufferTooSmall { message: whole }) => assert_eq!(whole, message),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        if kind % 3 == 0 {
            assert!(matches!(socket.try_recv(&mut [0]), Ok(None)), "and the end");
        }
    }
}

fn take(mut received: Received) {
    let count = received.len();
    let _ = (received.take::<PipeReader>(), received.take::<PipeWriter>(), received.take::<DatagramSocket>());
    assert!(received.len() <= count);
    for fd in received {
        // SAFETY: an open descriptor.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    }
}

fn pair(kind: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are new and nobody else's.
    unsafe {
        assert_eq!(libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// Where the kernel knows it.
fn set_option(fd: BorrowedFd<'_>, option: i32, on: u8) {
    let on = i32::from(on);
    // SAFETY: the value is one int.
    unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const on).cast(), 4) };
}

fn header(control: &mut Vec<u8>, kind: u8, len: u8, fill: u8, lent: &[i32]) {
    let level = if kind & 0x80 == 0 { libc::SOL_SOCKET } else { i32::from(fill) };
    let kind = i32::from(kind & 0x7f) % 6;
    let data: Vec<u8> = match kind {
        // Descriptors: real ones, and now and then a number that is not open.
        libc::SCM_RIGHTS => (0..usize::from(len) % 40)
            .flat_map(|i| if fill == 0xff { [0xff; 4] } else { lent[(i + usize::from(fill)) % 4].to_ne_bytes() })
            .collect(),
        // SAFETY: no conditions.
        libc::SCM_CREDENTIALS => unsafe { [libc::getpid() as u32, libc::getuid(), libc::getgid()] }
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect(),
        _ => vec![fill; usize::from(len)],
    };
    let says = if fill == 0xfe { usize::from(len) } else { 16 + data.len() };
    control.extend(says.to_ne_bytes());
    control.extend(level.to_ne_bytes());
    control.extend(kind.to_ne_bytes());
    control.extend(data);
    control.resize(control.len().next_multiple_of(8), 0);
}

fn send(fd: BorrowedFd<'_>, message: &[u8], control: &[u8]) -> bool {
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: zeroed bytes are a valid msghdr; it points to one part and to the control data, which are only read.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
        libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    sent >= 0
}
