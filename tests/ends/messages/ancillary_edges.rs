//! What goes wrong with ends in messages: too many, no room, strange senders, peers that die. And who sent a message.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::support::{self, Gate, Trial, exit_code, limit_descriptors, read_all};
use ipc::{
    Credentials, DatagramSocket, Error, PipeReader, PipeWriter, Received, StreamSocket, datagram_pair, fork, open_ends,
    pipe, stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        as_many_ends_go_as_the_kernel_takes_and_no_more,
        ends_without_a_place_are_lost_and_said,
        ends_without_a_place_are_lost_and_said_on_streams,
        received_ends_leave_the_standard_numbers_free,
        too_many_ends_under_way_come_back needs [Alone],
        the_sender_is_named_when_asked_for,
        the_sender_of_bytes_is_named_when_asked_for,
        the_sender_and_ends_come_together,
        a_foreign_sender_is_understood,
        a_foreign_sender_names_itself,
        a_lying_sender_is_refused_by_the_kernel,
        hostile_control_data_never_arrives,
        options_of_an_adopted_socket_leak_nothing,
        a_peer_that_dies_before_it_looks_loses_the_ends,
        a_peer_that_dies_half_way_loses_the_ends,
        a_loss_is_said_once_after_all_that_was_sent,
        a_loss_is_said_once_on_streams,
    ]
}

fn receive(socket: &DatagramSocket) -> (Vec<u8>, Received) {
    let mut message = Vec::new();
    let received = socket.recv_with(&mut message).unwrap().expect("a message");
    (message, received)
}

fn nulls(count: usize) -> Vec<File> {
    (0..count).map(|_| File::open("/dev/null").unwrap()).collect()
}

fn as_many_ends_go_as_the_kernel_takes_and_no_more() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let (reader, writer) = pipe().unwrap();
    let writers = |count: usize| (0..count).map(|_| writer.try_clone().unwrap()).collect::<Vec<_>>();
    messages.parent.send_with(b"all", writers(253)).unwrap();
    bytes.parent.send_with(b"all", writers(253)).unwrap();
    for count in [254, 300] {
        let refused = messages.parent.send_with(b"too many", writers(count)).unwrap_err();
        assert!(matches!(refused.error, Error::TooLong { len, max: 253 } if len == count), "{refused:?}");
        assert_eq!(
            refused.error.to_string(),
            format!("{count} ends (or bytes) are more than the 253 that are allowed")
        );
        assert_eq!(refused.ends.len(), count);
        let refused = bytes.parent.send_with(b"too many", refused.ends).unwrap_err();
        assert!(matches!(refused.error, Error::TooLong { len, max: 253 } if len == count), "{refused:?}");
        refused.ends[count - 1].write_atomic(b"x").unwrap();
    }
    let (message, received) = receive(&messages.child);
    assert_eq!((&*message, received.len()), (&b"all"[..], 253));
    let (len, mut also) = bytes.child.recv_with(&mut [0; 9]).unwrap();
    assert_eq!((len, also.len()), (3, 253));
    while !also.is_empty() {
        also.take::<PipeWriter>().unwrap();
    }
    assert!(matches!(messages.child.try_recv_with(&mut Vec::new()), Err(Error::WouldBlock)), "nothing more was sent");
    assert!(matches!(bytes.child.try_recv_with(&mut [0]), Err(Error::WouldBlock)));
    drop((received, writer));
    assert_eq!(read_all(reader), b"xx");
}

fn ends_without_a_place_are_lost_and_said() {
    for free in 0..4 {
        for credentials in [false, true] {
            let pair = datagram_pair().unwrap();
            pair.child.set_passcred(credentials).unwrap();
            let (reader, writer) = pipe().unwrap();
            let three = (writer.try_clone().unwrap(), writer.try_clone().unwrap(), writer);
            pair.parent.send_with(b"the message", three).unwrap();
            pair.parent.send_with(b"the next", ()).unwrap();
            let mut message = b"before".to_vec();
            let full = limit_descriptors(free);
            let result = pair.child.recv_with(&mut message);
            drop(full);
            assert_eq!(message, b"the message");
            let mut received = match result {
                Ok(received) if free == 3 => received.unwrap(),
                Err(Error::EndsLost { received }) if free < 3 => received,
                other => panic!("with {free} free places: {other:?}"),
            };
            assert_eq!((received.len(), received.message_len()), (free, message.len()));
            assert_eq!(received.sender().is_some(), credentials);
            if free > 0 {
                received.take::<PipeWriter>().unwrap().write_atomic(b"arrived").unwrap();
            }
            drop(received);
            assert_eq!(read_all(reader), if free > 0 { &b"arrived"[..] } else { b"" }, "nobody holds the others");
            assert_eq!(receive(&pair.child).0, b"the next");
        }
    }
}

fn ends_without_a_place_are_lost_and_said_on_streams() {
    for free in 0..4 {
        let pair = stream_pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        let three = (writer.try_clone().unwrap(), writer.try_clone().unwrap(), writer);
        pair.parent.send_with(b"the bytes", three).unwrap();
        // With ends of its own, so that the first read stops before it.
        pair.parent.send_with(b"next", nulls(1)).unwrap();
        let mut buf = [0; 99];
        let full = limit_descriptors(free);
        let result = pair.child.recv_with(&mut buf);
        drop(full);
        let mut received = match result {
            Ok((9, received)) if free == 3 => received,
            Err(Error::EndsLost { received }) if free < 3 => received,
            other => panic!("with {free} free places: {other:?}"),
        };
        assert_eq!(&buf[..received.message_len()], b"the bytes", "how many there are is known all the same");
        assert_eq!(received.len(), free);
        if free > 0 {
            received.take::<PipeWriter>().unwrap().write_atomic(b"arrived").unwrap();
        }
        drop(received);
        assert_eq!(read_all(reader), if free > 0 { &b"arrived"[..] } else { b"" });
        let (len, received) = pair.child.recv_with(&mut buf).unwrap();
        assert_eq!((&buf[..len], received.message_len(), received.len()), (&b"next"[..], 4, 1), "nothing was skipped");
    }
}

fn received_ends_leave_the_standard_numbers_free() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"", (writer.try_clone().unwrap(), writer)).unwrap();
    let numbers = support::closed_standard_descriptors(|| {
        let (_, received) = receive(&pair.child);
        // SAFETY: numbers that may be closed.
        let free = (0..3).all(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0);
        (free, received.into_iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>())
    });
    assert!(numbers.0 && numbers.1.len() == 2 && numbers.1.iter().all(|number| *number > 2), "{numbers:?}");
    assert_eq!(read_all(reader), b"");
}

/// For a user who may not exceed limits.
fn too_many_ends_under_way_come_back() {
    let pair = datagram_pair().unwrap();
    let child = fork((pair.parent, pair.child), |(parent, child)| {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: a valid limit and integers. Where this is nobody special, the calls are refused, and need not be made.
        unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            libc::setresgid(65_432, 65_432, 65_432);
            libc::setresuid(65_432, 65_432, 65_432);
        }
        let (reader, writer) = pipe().unwrap();
        let mut sent = 0;
        let refused = loop {
            let ends: Vec<PipeWriter> = (0..20).map(|_| writer.try_clone().unwrap()).collect();
            match parent.try_send_with(b"", ends) {
                Ok(()) => sent += 20,
                Err(refused) => break refused,
            }
            assert!(sent < 1000, "it never ends");
        };
        let Error::System { call, source } = &refused.error else { panic!("{refused:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::ETOOMANYREFS), "{call}");
        assert_eq!(refused.ends.len(), 20);
        refused.ends[19].write_atomic(b"usable").unwrap();
        drop((refused, writer));
        for _ in 0..sent / 20 {
            assert_eq!(receive(&child).1.len(), 20);
        }
        assert_eq!(read_all(reader), b"usable");
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// A process of this user.
fn credentials_of(pid: u32) -> Credentials {
    // SAFETY: no conditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Credentials { pid, uid, gid }
}

fn the_sender_is_named_when_asked_for() {
    let pair = datagram_pair().unwrap();
    let gate = Gate::new();
    let child = fork(pair.child, |socket| {
        for number in 0..3 {
            socket.send(&[number]).unwrap();
            gate.pass();
        }
        let grandchild = fork(socket, |socket| socket.send(&std::process::id().to_ne_bytes()).unwrap()).unwrap();
        exit_code(&grandchild) as u8
    })
    .unwrap();
    for asked in [false, true, false] {
        let (_, received) = receive(&pair.parent);
        assert_eq!(received.sender(), asked.then(|| credentials_of(child.id())));
        pair.parent.set_passcred(!asked).unwrap();
        gate.open();
    }
    let (grandchild, received) = receive(&pair.parent);
    let grandchild = u32::from_ne_bytes(grandchild.try_into().unwrap());
    assert_eq!(received.sender(), Some(credentials_of(grandchild)), "who sent it, not who made the pair");
    assert_eq!(pair.parent.peer_credentials().unwrap().pid, std::process::id());
    assert!(pair.parent.recv_with(&mut Vec::new()).unwrap().is_none());
    assert_eq!(exit_code(&child), 0);

    // What was sent before it was asked for is nobody's; and it goes for all that hold the end.
    let pair = datagram_pair().unwrap();
    let clone = pair.parent.try_clone().unwrap();
    pair.child.send(b"too early").unwrap();
    clone.set_passcred(true).unwrap();
    assert_eq!(receive(&pair.parent).1.sender(), None);
    pair.child.send(b"in time").unwrap();
    assert_eq!(receive(&pair.parent).1.sender(), Some(credentials_of(std::process::id())));
}

fn the_sender_of_bytes_is_named_when_asked_for() {
    let pair = stream_pair().unwrap();
    (&pair.child).write_all(b"a").unwrap();
    let (len, received) = pair.parent.recv_with(&mut [0]).unwrap();
    assert_eq!((len, received.sender()), (1, None), "not asked for");
    (&pair.child).write_all(b"b").unwrap();
    pair.parent.set_passcred(true).unwrap();
    let (len, received) = pair.parent.recv_with(&mut [0; 9]).unwrap();
    assert_eq!((len, received.sender()), (1, None), "not asked for in time");
    let child = fork(pair.child, |socket| (&socket).write_all(b"b").unwrap()).unwrap();
    let (len, received) = pair.parent.recv_with(&mut [0]).unwrap();
    assert_eq!((len, received.sender()), (1, Some(credentials_of(child.id()))));
    assert_eq!(exit_code(&child), 0);
    for (len, received) in [pair.parent.recv_with(&mut [0]).unwrap(), pair.parent.try_recv_with(&mut [0]).unwrap()] {
        assert_eq!((len, received.len(), received.sender()), (0, 0, None), "the end is nobody's");
    }
    let pair = stream_pair().unwrap();
    pair.parent.set_passcred(true).unwrap();
    pair.parent.set_passcred(false).unwrap();
    (&pair.child).write_all(b"c").unwrap();
    assert_eq!(pair.parent.recv_with(&mut [0]).unwrap().1.sender(), None, "not any more");
}

fn the_sender_and_ends_come_together() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    messages.parent.set_passcred(true).unwrap();
    bytes.parent.set_passcred(true).unwrap();
    let child = fork((messages.child, bytes.child), |(messages, bytes)| {
        messages.send_with(b"", nulls(253)).unwrap();
        bytes.send_with(b"b", nulls(253)).unwrap();
    })
    .unwrap();
    let expected = Some(credentials_of(child.id()));
    let (_, received) = receive(&messages.parent);
    assert_eq!((received.len(), received.sender()), (253, expected));
    let (_, received) = bytes.parent.recv_with(&mut [0]).unwrap();
    assert_eq!((received.len(), received.sender()), (253, expected));
    assert_eq!(exit_code(&child), 0);
    assert!(messages.parent.recv_with(&mut Vec::new()).unwrap().is_none());
}

/// A message as any program can send it: with control data of any kind.
fn send_raw(fd: impl AsFd, bytes: &[u8], control: &[(i32, i32, Vec<u8>)]) -> std::io::Result<usize> {
    let mut buffer = vec![0_u64; 512];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: zeroed bytes are a valid msghdr; the headers and their data lie inside the buffer, which is aligned.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        if !control.is_empty() {
            message.msg_control = buffer.as_mut_ptr().cast();
        }
        let mut at = 0;
        for (level, kind, data) in control {
            let header = buffer.as_mut_ptr().cast::<u8>().add(at).cast::<libc::cmsghdr>();
            (*header).cmsg_level = *level;
            (*header).cmsg_type = *kind;
            (*header).cmsg_len = libc::CMSG_LEN(data.len() as u32) as _;
            std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(header), data.len());
            at += libc::CMSG_SPACE(data.len() as u32) as usize;
        }
        message.msg_controllen = at as _;
        match libc::sendmsg(fd.as_fd().as_raw_fd(), &message, libc::MSG_NOSIGNAL) {
            -1 => Err(std::io::Error::last_os_error()),
            len => Ok(len as usize),
        }
    }
}

fn rights(fds: &[RawFd]) -> (i32, i32, Vec<u8>) {
    (libc::SOL_SOCKET, libc::SCM_RIGHTS, fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect())
}

fn names(pid: u32) -> (i32, i32, Vec<u8>) {
    let Credentials { pid, uid, gid } = credentials_of(pid);
    let data = [pid, uid, gid].iter().flat_map(|number| number.to_ne_bytes()).collect();
    (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, data)
}

fn a_foreign_sender_is_understood() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let bytes = StreamSocket::from(ours);
    let messages = datagram_pair().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let (file, reader_fd, writer_fd) = (File::open("/dev/null").unwrap(), reader.as_raw_fd(), writer.as_raw_fd());
    // Descriptors in two parts of the control data.
    let control = [rights(&[reader_fd, file.as_raw_fd()]), rights(&[writer_fd])];
    send_raw(&messages.parent, b"foreign", &control).unwrap();
    send_raw(&theirs, b"foreign", &control).unwrap();
    // The same one twice, and none at all.
    send_raw(&messages.parent, b"", &[rights(&[reader_fd, reader_fd])]).unwrap();
    send_raw(&messages.parent, b"", &[rights(&[])]).unwrap();
    drop((reader, writer, file));

    let check = |mut received: Received| {
        assert_eq!(received.len(), 3);
        let reader: PipeReader = received.take().unwrap();
        let _file: File = received.take().unwrap();
        let writer: PipeWriter = received.take().unwrap();
        writer.write_atomic(b"y").unwrap();
        let mut text = [0; 9];
        let len = reader.try_read(&mut text).unwrap();
        assert_eq!(text[len - 1], b'y');
    };
    let (message, received) = receive(&messages.child);
    assert_eq!(message, b"foreign");
    check(received);
    let (len, received) = bytes.recv_with(&mut [0; 99]).unwrap();
    assert_eq!(len, 7);
    check(received);
    assert_eq!(receive(&messages.child).1.len(), 2);
    let (message, received) = receive(&messages.child);
    assert_eq!((message.len(), received.len()), (0, 0));
}

fn a_foreign_sender_names_itself() {
    let pair = datagram_pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let me = std::process::id();
    for asked in [false, true] {
        pair.child.set_passcred(asked).unwrap();
        let expected = asked.then(|| credentials_of(me));
        for control in [vec![names(me)], vec![names(me), rights(&[file.as_raw_fd()])]] {
            send_raw(&pair.parent, b"me", &control).unwrap();
            let (_, received) = receive(&pair.child);
            assert_eq!((received.sender(), received.len()), (expected, control.len() - 1));
        }
        // What was not asked for does not disturb a plain receive either.
        send_raw(&pair.parent, b"", &[names(me)]).unwrap();
        assert_eq!(pair.child.recv(&mut [0]).unwrap(), Some(0));
    }
}

fn a_lying_sender_is_refused_by_the_kernel() {
    let pair = datagram_pair().unwrap();
    pair.parent.set_passcred(true).unwrap();
    let child = fork(pair.child, |socket| {
        // SAFETY: integers. Root may name anybody who exists.
        unsafe {
            libc::setresgid(65_432, 65_432, 65_432);
            libc::setresuid(65_432, 65_432, 65_432);
        }
        let parent = std::os::unix::process::parent_id();
        let refused = send_raw(&socket, b"lie", &[names(parent)]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        socket.send(b"truth").unwrap();
    })
    .unwrap();
    let (message, received) = receive(&pair.parent);
    assert_eq!(message, b"truth");
    assert_eq!(received.sender().unwrap().pid, child.id());
    assert_eq!(exit_code(&child), 0);
}

fn hostile_control_data_never_arrives() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let credentials_cut_short = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, vec![0; 4]);
    let unknown = (libc::SOL_SOCKET, 77, vec![0; 4]);
    let hostile = [
        vec![rights(&[-1])],
        vec![rights(&[RawFd::MAX])],
        vec![rights(&[1_000_000])],
        vec![rights(&[libc::AT_FDCWD])],
        vec![rights(&vec![1; 254])],
        vec![rights(&vec![1; 200]), rights(&vec![1; 54])],
        vec![credentials_cut_short],
        vec![unknown],
    ];
    for control in hostile {
        assert!(send_raw(&messages.parent, b"hostile", &control).is_err(), "{:?}", control[0].1);
        assert!(send_raw(&bytes.parent, b"hostile", &control).is_err(), "{:?}", control[0].1);
        assert!(matches!(messages.child.try_recv_with(&mut Vec::new()), Err(Error::WouldBlock)));
        assert!(matches!(bytes.child.try_recv_with(&mut [0]), Err(Error::WouldBlock)));
    }
    // Half a descriptor is cut off, and of another protocol is passed over.
    let (level, kind, mut data) = rights(&[1]);
    data.extend([1, 2]);
    if send_raw(&messages.parent, b"half", &[(level, kind, data)]).is_ok() {
        let (message, received) = receive(&messages.child);
        assert_eq!((&*message, received.len()), (&b"half"[..], 1));
    }
    let _ = send_raw(&messages.parent, b"other", &[(libc::IPPROTO_IP, libc::IP_TTL, vec![1; 4])]);
    messages.parent.send(b"last").unwrap();
    while receive(&messages.child).0 != b"last" {}
}

fn options_of_an_adopted_socket_leak_nothing() {
    const SO_PASSPIDFD: i32 = 76; // Linux 6.5
    let (ours, theirs) = UnixStream::pair().unwrap();
    let one = 1_i32;
    // SAFETY: an integer and its length. Where the kernel does not know the option, there is nothing to see.
    unsafe {
        for option in [SO_PASSPIDFD, libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP] {
            let len = size_of::<i32>() as libc::socklen_t;
            libc::setsockopt(ours.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const one).cast(), len);
        }
    }
    let ours = StreamSocket::from(ours);
    let theirs = StreamSocket::from(theirs);
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..3 {
        theirs.send_with(b"x", ()).unwrap();
        let (len, received) = ours.recv_with(&mut [0]).unwrap();
        assert_eq!((len, received.len()), (1, 0));
    }
    assert_eq!(count(), before, "nothing came that nobody owns");
    theirs.send_with(b"x", nulls(253)).unwrap();
    assert_eq!(ours.recv_with(&mut [0]).unwrap().1.len(), 253);
    assert_eq!(count(), before);
}

fn a_peer_that_dies_before_it_looks_loses_the_ends() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let child = fork(pair.child, |_socket| gate.pass()).unwrap();
    pair.parent.send_with(b"request", writer).unwrap();
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    child.kill().unwrap();
    assert!(matches!(pair.parent.recv_with(&mut Vec::new()), Err(Error::Reset)));
    assert!(pair.parent.recv_with(&mut Vec::new()).unwrap().is_none());
    assert_eq!(read_all(reader), b"");
    child.wait().unwrap();
}

fn a_peer_that_dies_half_way_loses_the_ends() {
    for with_answer in [false, true] {
        let pair = datagram_pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        let gate = Gate::new();
        let child = fork(pair.child, |socket| {
            let mut writer: PipeWriter = receive(&socket).1.take().unwrap();
            if with_answer {
                let (answer, mut to_answer) = pipe().unwrap();
                to_answer.write_all(b"answer").unwrap();
                socket.send_with(b"answer", answer).unwrap();
            }
            writer.write_all(b"half").unwrap();
            gate.pass();
        })
        .unwrap();
        pair.parent.send_with(b"request", writer).unwrap();
        let mut half = [0; 4];
        (&reader).read_exact(&mut half).unwrap();
        child.kill().unwrap();
        assert_eq!((half, &*read_all(reader)), (*b"half", &b""[..]), "its end is gone with it");
        if with_answer {
            let answer: PipeReader = receive(&pair.parent).1.take().unwrap();
            assert_eq!(read_all(answer), b"answer", "what it had sent is there");
        }
        assert!(pair.parent.recv_with(&mut Vec::new()).unwrap().is_none());
        child.wait().unwrap();
    }
}

fn a_loss_is_said_once_after_all_that_was_sent() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.child.send_with(b"their last", reader).unwrap();
    pair.parent.send_with(b"unread", File::open("/dev/null").unwrap()).unwrap();
    drop(pair.child);
    // The kernel tells a sender first.
    let refused = pair.parent.send_with(b"x", File::open("/dev/null").unwrap()).unwrap_err();
    assert!(matches!(refused.error, Error::Closed), "{refused:?}");
    let (message, mut received) = receive(&pair.parent);
    assert_eq!(message, b"their last");
    writer.write_atomic(b"y").unwrap();
    drop(writer);
    assert_eq!(read_all(received.take().unwrap()), b"y");
    let mut message = b"stays".to_vec();
    assert!(matches!(pair.parent.recv_with(&mut message), Err(Error::Reset)));
    for _ in 0..2 {
        assert!(pair.parent.recv_with(&mut message).unwrap().is_none());
        assert!(pair.parent.try_recv_with(&mut message).unwrap().is_none());
    }
    assert_eq!(message, b"stays");
}

fn a_loss_is_said_once_on_streams() {
    let pair = stream_pair().unwrap();
    let (reader, _writer) = pipe().unwrap();
    pair.child.send_with(b"their last", reader).unwrap();
    pair.parent.send_with(b"unread", File::open("/dev/null").unwrap()).unwrap();
    drop(pair.child);
    let mut buf = [0; 99];
    let (len, mut received) = pair.parent.recv_with(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"their last");
    assert!(received.take::<PipeReader>().is_ok());
    assert!(matches!(pair.parent.recv_with(&mut buf), Err(Error::Reset)));
    for _ in 0..2 {
        assert_eq!(pair.parent.recv_with(&mut buf).unwrap().0, 0);
        assert_eq!((&pair.parent).read(&mut buf).unwrap(), 0);
    }
    let refused = pair.parent.send_with(b"x", ()).unwrap_err();
    assert!(matches!(refused.error, Error::Closed), "{refused:?}");
    assert_eq!(open_ends(), 2);
}
