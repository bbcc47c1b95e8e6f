//! Ends that travel with messages: they arrive owned, in order, and as what they are, and none is ever left open.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use crate::support::{self, Trial, descriptor_flags, exit_code, read_all, with_interval_timer};
use ipc::{
    DatagramPair, DatagramSocket, Error, PipeReader, PipeWriter, Received, SendError, StreamPair, StreamSocket,
    datagram_pair, fork, open_ends, pipe, stream_pair,
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
        a_plain_receive_throws_ends_away,
        looking_ahead_installs_nothing,
        the_message_takes_the_place_of_what_was_there,
        an_empty_message_with_ends_is_no_end,
        a_large_message_brings_its_ends,
        what_would_wait_gives_the_ends_back,
        a_deadline_holds_under_signals,
        a_peer_that_is_gone_gives_the_ends_back,
        a_message_without_ends_is_as_any,
        a_stream_keeps_ends_with_their_byte,
        a_stream_needs_a_byte_for_its_ends,
        a_stream_says_how_much_went,
    ]
}

const NOW: Duration = Duration::ZERO;

fn receive(socket: &DatagramSocket) -> (Vec<u8>, Received) {
    let mut message = Vec::new();
    let received = socket.recv_with(&mut message).unwrap().expect("a message");
    (message, received)
}

/// The next, as this.
#[track_caller]
fn take<T>(received: &mut Received) -> T
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

fn a_plain_receive_throws_ends_away() {
    type Plain = fn(&DatagramPair, &StreamPair);
    let ways: [Plain; 7] = [
        |messages, _| assert_eq!(messages.child.recv(&mut [0; 9]).unwrap(), Some(4)),
        |messages, _| assert!(matches!(messages.child.recv(&mut [0]), Err(Error::BufferTooSmall { .. }))),
        |messages, _| assert_eq!(messages.child.try_recv(&mut [0; 9]).unwrap(), Some(4)),
        |messages, _| assert_eq!(messages.child.recv_vec().unwrap().as_deref(), Some(&b"ends"[..])),
        |_, bytes| assert_eq!((&bytes.child).read(&mut [0; 9]).unwrap(), 4),
        |_, bytes| assert_eq!(bytes.child.try_read(&mut [0; 9]).unwrap(), 4),
        |_, bytes| {
            let mut bufs = [0; 9];
            assert_eq!((&bytes.child).read_vectored(&mut [std::io::IoSliceMut::new(&mut bufs)]).unwrap(), 4);
        },
    ];
    for (i, plain) in ways.iter().enumerate() {
        let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
        let (reader, writer) = pipe().unwrap();
        match i {
            0..4 => messages.parent.send_with(b"ends", writer).unwrap(),
            _ => assert_eq!(bytes.parent.send_with(b"ends", writer).unwrap(), 4),
        }
        plain(&messages, &bytes);
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0, "way {i}: nobody has it");
    }
}

fn looking_ahead_installs_nothing() {
    let pair = datagram_pair().unwrap();
    let (_reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"ends", writer).unwrap();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..3 {
        assert_eq!(pair.child.peek_len().unwrap(), Some(4));
    }
    assert_eq!(count(), before);
    assert_eq!(receive(&pair.child).1.len(), 1, "it is still there");
}

fn the_message_takes_the_place_of_what_was_there() {
    let pair = datagram_pair().unwrap();
    let mut message = vec![7; 100_000];
    assert!(matches!(pair.child.try_recv_with(&mut message), Err(Error::WouldBlock)));
    assert!(matches!(pair.child.recv_with_timeout(&mut message, NOW), Err(Error::TimedOut)));
    assert_eq!(message, vec![7; 100_000], "as it was");
    for text in [&b"short"[..], b"", &[3; 50_000], b"again"] {
        pair.parent.send_with(text, ()).unwrap();
        assert!(pair.child.recv_with(&mut message).unwrap().unwrap().is_empty());
        assert_eq!(message, text);
    }
    drop(pair.parent);
    assert!(pair.child.recv_with(&mut message).unwrap().is_none());
}

fn an_empty_message_with_ends_is_no_end() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send(b"").unwrap();
    pair.parent.send_with(b"", (reader, writer)).unwrap();
    pair.parent.send_with(b"", ()).unwrap();
    drop(pair.parent);
    for expected in [0, 2, 0] {
        let (message, received) = receive(&pair.child);
        assert_eq!((message.len(), received.len()), (0, expected));
    }
    let mut message = b"stays".to_vec();
    for _ in 0..2 {
        assert!(pair.child.recv_with(&mut message).unwrap().is_none());
        assert!(pair.child.try_recv_with(&mut message).unwrap().is_none());
        assert!(pair.child.recv_with_timeout(&mut message, NOW).unwrap().is_none());
    }
    assert_eq!(message, b"stays");
}

fn a_large_message_brings_its_ends() {
    let pair = datagram_pair().unwrap();
    assert!(pair.parent.set_max_message(1 << 20).unwrap() >= 1 << 20);
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let (reader, writer) = pipe().unwrap();
    let child = fork((pair.parent, writer), |(socket, writer)| socket.send_with(&data, writer).unwrap()).unwrap();
    let (message, mut received) = receive(&pair.child);
    assert!(message == data);
    drop(take::<PipeWriter>(&mut received));
    assert_eq!(read_all(reader), b"");
    assert_eq!(exit_code(&child), 0);
}

fn what_would_wait_gives_the_ends_back() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    while messages.parent.try_send(b"full").is_ok() {}
    while bytes.parent.try_write(&[0; 4096]).is_ok() {}
    let (reader, writer) = pipe().unwrap();
    let open = open_ends();
    let short = Duration::from_millis(20);
    let would_wait = |error: &Error| assert!(matches!(error, Error::WouldBlock), "{error:?}");
    let timed_out = |error: &Error| assert!(matches!(error, Error::TimedOut), "{error:?}");

    let SendError { ends, error } = messages.parent.try_send_with(b"x", writer).unwrap_err();
    would_wait(&error);
    let SendError { ends, error } = messages.parent.send_with_timeout(b"x", ends, NOW).unwrap_err();
    timed_out(&error);
    let SendError { ends, error } = messages.parent.send_with_timeout(b"x", ends, short).unwrap_err();
    timed_out(&error);
    let SendError { ends, error } = bytes.parent.try_send_with(b"x", ends).unwrap_err();
    would_wait(&error);
    let SendError { ends, error } = bytes.parent.send_with_timeout(b"x", ends, short).unwrap_err();
    timed_out(&error);
    assert_eq!(open_ends(), open);
    ends.write_atomic(b"usable").unwrap();

    // As soon as there is room, it goes.
    while messages.child.try_recv(&mut [0; 9]).is_ok() {}
    messages.parent.send_with_timeout(b"x", ends, Duration::MAX).unwrap();
    drop(receive(&messages.child));
    assert_eq!(read_all(reader), b"usable");
}

fn a_deadline_holds_under_signals() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    while messages.parent.try_send(b"full").is_ok() {}
    while bytes.parent.try_write(&[0; 4096]).is_ok() {}
    let (_reader, writer) = pipe().unwrap();
    let limit = Duration::from_millis(50);
    let start = std::time::Instant::now();
    with_interval_timer(Duration::from_millis(1), || {
        let refused = messages.parent.send_with_timeout(b"x", writer, limit).unwrap_err();
        assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
        let refused = bytes.parent.send_with_timeout(b"x", refused.ends, limit).unwrap_err();
        assert!(matches!(refused.error, Error::TimedOut), "{refused:?}");
        let waited = messages.parent.recv_with_timeout(&mut Vec::new(), limit).unwrap_err();
        assert!(matches!(waited, Error::TimedOut), "{waited:?}");
        let waited = bytes.parent.recv_with_timeout(&mut [0], limit).unwrap_err();
        assert!(matches!(waited, Error::TimedOut), "{waited:?}");
    });
    assert!(start.elapsed() >= limit * 4);
    assert!(start.elapsed() < limit * 4 + support::FAR, "{:?}", start.elapsed());
}

fn a_peer_that_is_gone_gives_the_ends_back() {
    // Should it raise the signal, this test dies of it.
    support::sigpipe(support::Sigpipe::Default);
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    drop((messages.child, bytes.child));
    let (reader, writer) = pipe().unwrap();
    let mut ends = writer;
    for _ in 0..2 {
        let refused = messages.parent.send_with(b"x", ends).unwrap_err();
        assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        let refused = messages.parent.try_send_with(b"x", refused.ends).unwrap_err();
        assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        let refused = bytes.parent.send_with(b"x", refused.ends).unwrap_err();
        assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        let refused = bytes.parent.send_with_timeout(b"x", refused.ends, NOW).unwrap_err();
        assert!(matches!(refused.error, Error::Closed), "{refused:?}");
        ends = refused.ends;
    }
    ends.write_atomic(b"usable").unwrap();
    drop(ends);
    assert_eq!(read_all(reader), b"usable");
    let error: std::io::Error = bytes.parent.send_with(b"x", ()).unwrap_err().into();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

fn a_message_without_ends_is_as_any() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    messages.parent.send_with(b"none", ()).unwrap();
    messages.parent.send(b"plain").unwrap();
    messages.parent.send_with(b"empty", Vec::<PipeReader>::new()).unwrap();
    assert_eq!(messages.child.recv_vec().unwrap().as_deref(), Some(&b"none"[..]));
    assert_eq!(receive(&messages.child).0, b"plain");
    assert_eq!(receive(&messages.child).0, b"empty");
    assert_eq!(bytes.parent.send_with(b"none", ()).unwrap(), 4);
    assert_eq!((&bytes.child).read(&mut [0; 9]).unwrap(), 4);
    (&bytes.parent).write_all(b"plain").unwrap();
    let (len, mut received) = bytes.child.recv_with(&mut [0; 9]).unwrap();
    assert_eq!((len, received.len(), received.sender()), (5, 0, None));
    assert!(matches!(received.take::<OwnedFd>(), Err(Error::WrongKind { .. })));
    assert!(matches!(bytes.child.try_recv_with(&mut [0]), Err(Error::WouldBlock)));
}

fn a_stream_keeps_ends_with_their_byte() {
    let pair = stream_pair().unwrap();
    let ends = |count: usize| (0..count).map(|_| File::open("/dev/null").unwrap()).collect::<Vec<_>>();
    pair.parent.send_with(b"abc", ends(1)).unwrap();
    pair.parent.send_with(b"def", ends(2)).unwrap();
    (&pair.parent).write_all(b"ghi").unwrap();
    pair.parent.send_with(b"jkl", ends(3)).unwrap();
    (&pair.parent).write_all(b"mno").unwrap();
    let mut buf = [0; 100];
    let mut next = |len: usize| {
        let (len, received) = pair.child.recv_with(&mut buf[..len]).unwrap();
        (String::from_utf8(buf[..len].to_vec()).unwrap(), received.len())
    };
    assert_eq!(next(1), ("a".to_owned(), 1), "with the first byte");
    assert_eq!(next(100), ("bcdef".to_owned(), 2), "later bytes are not mixed up with them");
    let (mut text, mut count) = (String::new(), 0);
    while !text.contains("jkl") {
        let (more, ends) = next(100);
        text += &more;
        count += ends;
    }
    assert_eq!((&*text, count), ("ghijkl", 3));
    assert_eq!(next(100), ("mno".to_owned(), 0));
    assert_eq!(next(0), (String::new(), 0), "no room is no end");
    drop(pair.parent);
    assert_eq!(pair.child.recv_with(&mut buf).unwrap().0, 0);
}

fn a_stream_needs_a_byte_for_its_ends() {
    let pair = stream_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let refused = pair.parent.send_with(b"", writer).unwrap_err();
    assert!(
        matches!(&refused.error, Error::System { source, .. } if source.raw_os_error() == Some(libc::EINVAL)),
        "{refused:?}"
    );
    refused.ends.write_atomic(b"back").unwrap();
    drop(refused);
    assert_eq!(read_all(reader), b"back");
    assert!(matches!(pair.child.try_recv_with(&mut [0]), Err(Error::WouldBlock)), "nothing was sent");
}

fn a_stream_says_how_much_went() {
    let pair = stream_pair().unwrap();
    let data = vec![5; 8 << 20];
    let (reader, writer) = pipe().unwrap();
    let sent = pair.parent.try_send_with(&data, writer).unwrap();
    assert!(sent > 0 && sent < data.len(), "{sent}");
    drop(pair.parent);
    let mut buf = vec![0; 4096];
    let (mut arrived, mut writers) = (0, Vec::new());
    loop {
        let (len, mut received) = pair.child.recv_with(&mut buf).unwrap();
        if len == 0 {
            break;
        }
        arrived += len;
        while !received.is_empty() {
            writers.push(take::<PipeWriter>(&mut received));
        }
    }
    assert_eq!((arrived, writers.len()), (sent, 1));
    assert!(writers[0].as_raw_fd() > 2);
    drop(writers);
    assert_eq!(read_all(reader), b"");
}
