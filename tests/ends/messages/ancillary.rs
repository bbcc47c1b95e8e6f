//! Ends that travel with messages: they arrive owned, in order, and as what they are, and none is ever left open.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use crate::support::{self, Trial, descriptor_flags, exit_code, read_all};
use ipc::{
    DatagramSocket, Error, PipeReader, PipeWriter, Received, StreamSocket, datagram_pair, fork, open_ends, pipe,
    stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        ends_travel_to_another_process_in_messages,
        ends_travel_to_another_process_in_a_stream,
        ends_come_back_from_another_process,
        a_socket_travels_through_itself,
        what_was_sent_is_closed_here_and_open_under_way,
        a_borrowed_end_stays_here,
        ends_arrive_in_order,
        what_is_wrong_stays_to_be_taken_as_what_it_is,
        what_is_left_is_plain_descriptors,
        what_is_left_can_be_given_on,
        what_nobody_takes_is_closed,
        received_ends_are_close_on_exec,
        a_fork_severs_what_was_received,
        a_severed_end_is_not_sent,
    ]
}

pub(super) const NOW: Duration = Duration::ZERO;

pub(super) fn receive(socket: &DatagramSocket) -> (Vec<u8>, Received) {
    let mut message = Vec::new();
    let received = socket.recv_with(&mut message).unwrap().expect("a message");
    (message, received)
}

/// The next, as this.
#[track_caller]
pub(super) fn take<T>(received: &mut Received) -> T
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<ipc::FromFdError>,
{
    received.take().unwrap()
}

/// One of everything that owns a descriptor and can be used with what is left here.
struct Kit {
    reader: PipeReader,
    messages: DatagramSocket,
    bytes: StreamSocket,
    file: File,
    stream: UnixStream,
    datagrams: UnixDatagram,
}

type Sendable =
    (PipeReader, PipeWriter, DatagramSocket, StreamSocket, File, UnixStream, UnixDatagram, UdpSocket, TcpListener);

fn kit() -> (PipeWriter, Kit, Sendable) {
    let (from, writer) = pipe().unwrap();
    let (reader, to) = pipe().unwrap();
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let file = tempfile();
    let (stream, other_stream) = UnixStream::pair().unwrap();
    let (datagrams, other_datagrams) = UnixDatagram::pair().unwrap();
    let there = (
        from,
        to,
        messages.child,
        bytes.child,
        file.try_clone().unwrap(),
        other_stream,
        other_datagrams,
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    (writer, Kit { reader, messages: messages.parent, bytes: bytes.parent, file, stream, datagrams }, there)
}

fn tempfile() -> File {
    // SAFETY: a nul-terminated name; the descriptor is new.
    unsafe {
        let fd = libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

/// What the other side does with each of them.
fn use_there(mut received: Received) {
    assert_eq!((received.len(), received.is_empty()), (9, false));
    let mut text = String::new();
    take::<PipeReader>(&mut received).read_to_string(&mut text).unwrap();
    assert_eq!(text, "to the reader");
    take::<PipeWriter>(&mut received).write_all(b"from the writer").unwrap();
    take::<DatagramSocket>(&mut received).send(b"from the socket").unwrap();
    take::<StreamSocket>(&mut received).write_all(b"from the stream").unwrap();
    take::<File>(&mut received).write_all(b"into the file").unwrap();
    take::<UnixStream>(&mut received).write_all(b"std").unwrap();
    take::<UnixDatagram>(&mut received).send(b"std too").unwrap();
    assert!(take::<UdpSocket>(&mut received).local_addr().is_ok());
    assert!(take::<TcpListener>(&mut received).local_addr().is_ok());
    assert_eq!((received.len(), received.is_empty()), (0, true));
    assert_eq!(open_ends(), 1, "the socket that they came through");
}

fn see_here(mut kit: Kit) {
    assert_eq!(read_all(kit.reader), b"from the writer");
    assert_eq!(kit.messages.recv_vec().unwrap().as_deref(), Some(&b"from the socket"[..]));
    assert_eq!(kit.messages.recv_vec().unwrap(), None);
    assert_eq!(std::io::read_to_string(&mut kit.bytes).unwrap(), "from the stream");
    assert_eq!(std::io::read_to_string(&mut kit.stream).unwrap(), "std");
    let mut text = [0; 13];
    kit.file.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"into the file");
    assert_eq!(kit.datagrams.recv(&mut text).unwrap(), 7);
}

fn ends_travel_to_another_process_in_messages() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let (message, received) = receive(&socket);
        assert_eq!(message, b"nine ends");
        use_there(received);
        assert!(socket.recv_with(&mut Vec::new()).unwrap().is_none());
    })
    .unwrap();
    let (mut writer, here, there) = kit();
    pair.parent.send_with(b"nine ends", there).unwrap();
    writer.write_all(b"to the reader").unwrap();
    drop(writer);
    drop(pair.parent);
    see_here(here);
    assert_eq!(exit_code(&child), 0);
}

fn ends_travel_to_another_process_in_a_stream() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut buf = [0; 100];
        let (len, received) = socket.recv_with(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"nine ends");
        use_there(received);
        let (len, received) = socket.recv_with(&mut buf).unwrap();
        assert_eq!((len, received.len()), (0, 0), "the end of the stream");
    })
    .unwrap();
    let (mut writer, here, there) = kit();
    assert_eq!(pair.parent.send_with(b"nine ends", there).unwrap(), 9);
    writer.write_all(b"to the reader").unwrap();
    drop(writer);
    drop(pair.parent);
    see_here(here);
    assert_eq!(exit_code(&child), 0);
}

fn ends_come_back_from_another_process() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        while let Some(mut request) = socket.recv_with(&mut Vec::new()).unwrap() {
            let reader: PipeReader = request.take().unwrap();
            let (answer, mut to_answer) = pipe().unwrap();
            to_answer.write_all(&read_all(reader)).unwrap();
            socket.send_with(b"answer", answer).unwrap();
        }
    })
    .unwrap();
    for round in 0..100 {
        let (reader, mut writer) = pipe().unwrap();
        write!(writer, "round {round}").unwrap();
        drop(writer);
        pair.parent.send_with(b"request", reader).unwrap();
        let (message, mut received) = receive(&pair.parent);
        assert_eq!(message, b"answer");
        assert_eq!(read_all(take(&mut received)), format!("round {round}").as_bytes());
    }
    drop(pair.parent);
    assert_eq!(exit_code(&child), 0);
}

fn a_socket_travels_through_itself() {
    let pair = datagram_pair().unwrap();
    pair.parent.send_with(b"", pair.parent.try_clone().unwrap()).unwrap();
    let parent: DatagramSocket = take(&mut receive(&pair.child).1);
    drop(pair.parent);
    parent.send(b"still one side").unwrap();
    assert_eq!(receive(&pair.child).0, b"still one side");
    drop(parent);
    assert!(pair.child.recv_with(&mut Vec::new()).unwrap().is_none());
}

fn what_was_sent_is_closed_here_and_open_under_way() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let open = open_ends();
    pair.parent.send_with(b"", writer).unwrap();
    assert_eq!(open_ends(), open - 1);
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    // Nobody will receive it any more.
    drop(pair);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

fn a_borrowed_end_stays_here() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"", writer.as_fd()).unwrap();
    let other: PipeWriter = take(&mut receive(&pair.child).1);
    writer.write_atomic(b"a").unwrap();
    drop(writer);
    other.write_atomic(b"b").unwrap();
    drop(other);
    assert_eq!(read_all(reader), b"ab");
}

fn ends_arrive_in_order() {
    let pair = datagram_pair().unwrap();
    let channels: Vec<_> = (0..20).map(|_| pipe().unwrap()).collect();
    let (readers, writers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    pair.parent.send_with(b"", writers).unwrap();
    let (_, mut received) = receive(&pair.child);
    for number in 0..20 {
        take::<PipeWriter>(&mut received).write_atomic(&[number]).unwrap();
    }
    for (number, reader) in readers.into_iter().enumerate() {
        assert_eq!(read_all(reader), [number as u8]);
    }
}

fn what_is_wrong_stays_to_be_taken_as_what_it_is() {
    #[track_caller]
    fn assert_wrong<T: std::fmt::Debug>(taken: Result<T, Error>) {
        assert!(matches!(&taken, Err(Error::WrongKind { .. })), "{taken:?}");
    }
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    pair.parent
        .send_with(b"", (writer, messages.child, bytes.child, File::open("/dev/null").unwrap(), reader))
        .unwrap();
    let (_, mut received) = receive(&pair.child);
    let open = open_ends();
    for _ in 0..2 {
        assert_wrong(received.take::<PipeReader>());
        assert_wrong(received.take::<DatagramSocket>());
        assert_wrong(received.take::<StreamSocket>());
    }
    assert_eq!((received.len(), open_ends()), (5, open));
    let writer: PipeWriter = take(&mut received);
    assert_wrong(received.take::<StreamSocket>());
    let _messages: DatagramSocket = take(&mut received);
    assert_wrong(received.take::<DatagramSocket>());
    let _bytes: StreamSocket = take(&mut received);
    assert_wrong(received.take::<PipeWriter>());
    let _file: File = take(&mut received);
    assert_wrong(received.take::<PipeWriter>());
    let reader: PipeReader = take(&mut received);
    for _ in 0..2 {
        assert_wrong(received.take::<PipeReader>());
        assert_wrong(received.take::<OwnedFd>());
    }
    drop(writer);
    assert_eq!(read_all(reader), b"");
}

fn what_is_left_is_plain_descriptors() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"", (reader, writer, File::open("/dev/null").unwrap())).unwrap();
    let (_, mut received) = receive(&pair.child);
    let reader: PipeReader = take(&mut received);
    assert_eq!(open_ends(), 5, "what was received counts");
    let mut left = received.into_iter();
    assert_eq!((left.len(), open_ends()), (2, 3), "and is no end any more");
    let writer = left.next().unwrap();
    assert_eq!(descriptor_flags(&writer), libc::FD_CLOEXEC);
    File::from(writer).write_all(b"plain").unwrap();
    assert_eq!(read_all(reader), b"plain");
    drop(left); // and closes the file
}

fn what_is_left_can_be_given_on() {
    let pair = datagram_pair().unwrap();
    let ((reader, writer), (_kept, other)) = (pipe().unwrap(), pipe().unwrap());
    pair.parent.send_with(b"three", (reader, other, writer)).unwrap();
    let (_, mut received) = receive(&pair.child);
    let reader: PipeReader = take(&mut received);
    // In another message, and to a child, which has them and nothing else.
    pair.child.send_with(b"two", received).unwrap();
    let (_, received) = receive(&pair.parent);
    assert_eq!(received.len(), 2);
    let child = fork(received, |mut received| {
        assert_eq!(open_ends(), 2);
        let _other: PipeWriter = take(&mut received);
        take::<PipeWriter>(&mut received).write_all(b"arrived").unwrap();
    })
    .unwrap();
    assert_eq!(read_all(reader), b"arrived");
    assert_eq!(exit_code(&child), 0);
}

fn what_nobody_takes_is_closed() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    for taken in 0..3 {
        let (one, one_writer) = pipe().unwrap();
        let (two, two_writer) = pipe().unwrap();
        messages.parent.send_with(b"m", (one_writer, two_writer)).unwrap();
        let (_, mut received) = receive(&messages.child);
        let writers: Vec<PipeWriter> = (0..taken).map(|_| take(&mut received)).collect();
        assert!(matches!(two.try_read(&mut [0]), Err(Error::WouldBlock)), "not yet");
        drop(received);
        for (i, reader) in [one, two].iter().enumerate() {
            assert_eq!(reader.try_read(&mut [0]).is_ok(), i >= taken);
        }
        drop(writers);
    }
    let (reader, writer) = pipe().unwrap();
    bytes.parent.send_with(b"b", writer).unwrap();
    drop(bytes.child.recv_with(&mut [0; 9]).unwrap());
    assert_eq!(read_all(reader), b"");
}

fn close_on_exec_is_missing() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<i32> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // SAFETY: numbers that may be closed.
    numbers.into_iter().filter(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } == 0).collect()
}

fn received_ends_are_close_on_exec() {
    let before = close_on_exec_is_missing();
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let ends = || (pipe().unwrap(), File::open("/dev/null").unwrap());
    messages.parent.send_with(b"m", ends()).unwrap();
    bytes.parent.send_with(b"b", ends()).unwrap();
    let (_, mut one) = receive(&messages.child);
    let (_, mut two) = bytes.child.recv_with(&mut [0]).unwrap();
    assert_eq!(close_on_exec_is_missing(), before);
    let (reader, other): (PipeReader, OwnedFd) = (take(&mut one), take(&mut two));
    assert_eq!((descriptor_flags(&reader), descriptor_flags(&other)), (libc::FD_CLOEXEC, libc::FD_CLOEXEC));
    assert_eq!(close_on_exec_is_missing(), before);
}

fn a_fork_severs_what_was_received() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"", (writer.try_clone().unwrap(), writer)).unwrap();
    let (_, mut received) = receive(&pair.child);
    let taken: PipeWriter = take(&mut received);
    let gate = support::Gate::new();
    let child = fork((), |()| {
        assert_eq!(open_ends(), 0);
        assert_eq!(received.len(), 1);
        for _ in 0..2 {
            assert!(matches!(received.take::<PipeWriter>(), Err(Error::NotGiven)));
            assert!(matches!(received.take::<OwnedFd>(), Err(Error::NotGiven)));
        }
        assert!(matches!(taken.write_atomic(b"x"), Err(Error::NotGiven)));
        gate.pass();
    })
    .unwrap();
    drop((received, taken));
    assert_eq!(read_all(reader), b"", "the end arrives, while the child still runs");
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_is_not_sent() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let (_reader, writer) = pipe().unwrap();
    let severed = datagram_pair().unwrap();
    let child = fork((messages.parent, bytes.parent), |(messages, bytes)| {
        let refused = messages.send_with(b"no", writer).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        let refused = bytes.send_with(b"no", refused.ends).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        // Nor through one, nor is one received from.
        let file = File::open("/dev/null").unwrap();
        let refused = severed.parent.send_with(b"no", file).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        assert!(matches!(severed.parent.recv_with(&mut Vec::new()), Err(Error::NotGiven)));
        assert!(matches!(severed.parent.set_passcred(true), Err(Error::NotGiven)));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    assert!(messages.child.recv_with(&mut Vec::new()).unwrap().is_none(), "nothing was sent");
    assert_eq!(bytes.child.recv_with(&mut [0]).unwrap().0, 0);
}
