//! Ends as fields: they arrive as what they are, come back with a value that was not sent, and none is ever left open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::support::{self, Trial, descriptor_flags, exit_code, limit_descriptors, memory_file, read_all};
use ipc::{
    Blob, Command, DatagramSocket, Duplex, Error, Fd, PipeReader, PipeWriter, Receiver, Sender, StreamSocket, channel,
    claim, datagram_pair, duplex, fork, open_ends, pipe, stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        every_kind_of_end_arrives_in_another_process,
        ends_arrive_in_collections_and_enums,
        what_was_sent_is_closed_here,
        what_is_lent_stays_here,
        as_many_ends_as_a_message_takes_arrive,
        too_many_ends_come_back_with_their_value,
        every_failed_send_gives_usable_ends_back,
        a_socket_that_was_not_sent_tells_an_empty_message_from_eof,
        a_severed_end_is_not_sent,
        no_room_for_a_copy_is_an_error_and_gives_the_value_back,
        ends_that_find_no_place_are_lost_and_the_next_value_comes,
        what_arrives_is_close_on_exec_and_severed_by_a_fork,
        nothing_is_left_after_thousands_of_values within 300,
        a_channel_travels_through_itself,
        a_channel_goes_to_another_program,
        a_channel_goes_in_a_message,
        an_end_that_nobody_receives_is_closed,
    ]
}

#[derive(Serialize, Deserialize)]
struct All {
    reader: PipeReader,
    writer: PipeWriter,
    stream: StreamSocket,
    socket: DatagramSocket,
    sender: Sender<String>,
    receiver: Receiver<String>,
    calls: Duplex<u8, String>,
    blob: Blob,
    file: Fd<File>,
    listener: Fd<TcpListener>,
    fd: Fd<OwnedFd>,
}

fn every_kind_of_end_arrives_in_another_process() {
    for padding in [0, 300_000] {
        let (jobs, there) = channel::<(All, Vec<u8>)>().unwrap();
        let child = fork(there, |there| {
            let (mut all, padding) = there.recv().unwrap().unwrap();
            assert!(padding == support::bytes(padding.len()));
            let mut text = String::new();
            all.reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "to the reader");
            all.writer.write_all(b"from the writer").unwrap();
            all.stream.write_all(b"from the stream").unwrap();
            all.socket.send(b"from the socket").unwrap();
            all.sender.send("from the sender".to_owned()).unwrap();
            assert_eq!(all.receiver.recv().unwrap().unwrap(), "to the receiver");
            assert_eq!(all.calls.call(7).unwrap().unwrap(), "to the caller");
            assert_eq!(&all.blob[..], b"in a blob");
            all.file.write_all(b"into the file").unwrap();
            assert_eq!(all.listener.local_addr().unwrap().ip().to_string(), "127.0.0.1");
            File::from(all.fd.into_inner()).write_all(b", twice").unwrap();
        })
        .unwrap();

        let ((reader, mut to), (from, writer)) = (pipe().unwrap(), pipe().unwrap());
        let (stream, socket) = (stream_pair().unwrap(), datagram_pair().unwrap());
        let ((sender, sent), (to_receiver, receiver)) = (channel().unwrap(), channel().unwrap());
        let (calls, file) = (duplex().unwrap(), memory_file());
        let all = All {
            reader,
            writer,
            stream: stream.child,
            socket: socket.child,
            sender,
            receiver,
            calls: calls.child,
            blob: Blob::new(b"in a blob").unwrap(),
            file: Fd(file.try_clone().unwrap()),
            listener: Fd(TcpListener::bind("127.0.0.1:0").unwrap()),
            fd: Fd(file.try_clone().unwrap().into()),
        };
        jobs.send((all, support::bytes(padding))).unwrap();
        to.write_all(b"to the reader").unwrap();
        drop(to);
        to_receiver.send("to the receiver".to_owned()).unwrap();
        calls.parent.send("to the caller".to_owned()).unwrap();
        assert_eq!(read_all(from), b"from the writer");
        assert_eq!(std::io::read_to_string(stream.parent).unwrap(), "from the stream");
        assert_eq!(socket.parent.recv_vec().unwrap().unwrap(), b"from the socket");
        assert_eq!(sent.recv().unwrap().unwrap(), "from the sender");
        assert_eq!(sent.recv().unwrap(), None);
        assert_eq!(calls.parent.recv().unwrap(), Some(7));
        assert_eq!(exit_code(&child), 0);
        let mut file = file;
        file.rewind().unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "into the file, twice");
    }
    assert_eq!(open_ends(), 0);
}

fn ends_arrive_in_collections_and_enums() {
    #[derive(Serialize, Deserialize)]
    enum Order {
        Read(PipeReader),
        Copy { from: Option<PipeReader>, to: BTreeMap<String, Vec<PipeWriter>> },
    }
    let (sender, receiver) = channel::<Vec<Order>>().unwrap();
    let (reader, mut first) = pipe().unwrap();
    let (from, mut second) = pipe().unwrap();
    let (mut result, to) = pipe().unwrap();
    let to = BTreeMap::from([("a".to_owned(), vec![]), ("b".to_owned(), vec![to])]);
    sender.send(vec![Order::Read(reader), Order::Copy { from: Some(from), to }]).unwrap();
    first.write_all(b"one").unwrap();
    second.write_all(b"two").unwrap();
    drop((first, second));
    let mut orders = receiver.recv().unwrap().unwrap().into_iter();
    let Some(Order::Read(reader)) = orders.next() else { panic!() };
    assert_eq!(read_all(reader), b"one");
    let Some(Order::Copy { from: Some(from), mut to }) = orders.next() else { panic!() };
    let mut to = to.remove("b").unwrap().pop().unwrap();
    to.write_all(&read_all(from)).unwrap();
    drop(to);
    let mut text = String::new();
    result.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two");
}

fn what_was_sent_is_closed_here() {
    let (sender, receiver) = channel::<PipeWriter>().unwrap();
    let (reader, writer) = pipe().unwrap();
    let before = open_ends();
    sender.send(writer).unwrap();
    assert_eq!(open_ends(), before - 1);
    // Under way it is open.
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    drop(receiver);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

fn what_is_lent_stays_here() {
    let pair = datagram_pair().unwrap();
    let sender: Sender<&DatagramSocket> = Sender::new(pair.parent);
    let receiver: Receiver<DatagramSocket> = Receiver::new(pair.child);
    let lent = datagram_pair().unwrap();
    sender.send(&lent.parent).unwrap();
    let arrived = receiver.recv().unwrap().unwrap();
    // An empty message is told from EOF by both.
    for socket in [&arrived, &lent.parent] {
        lent.child.send(b"").unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap(), Some(0));
    }
    drop(lent.child);
    assert_eq!(lent.parent.recv(&mut [0]).unwrap(), None);
    assert_eq!(arrived.recv(&mut [0]).unwrap(), None);
}

fn blobs(count: usize) -> Vec<Fd<File>> {
    (0..count).map(|_| Fd(File::open("/dev/null").unwrap())).collect()
}

fn as_many_ends_as_a_message_takes_arrive() {
    let (sender, receiver) = channel::<(Vec<Fd<File>>, Vec<u8>)>().unwrap();
    sender.send((blobs(253), vec![])).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().0.len(), 253);
    sender.send((blobs(252), vec![7; 300_000])).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().0.len(), 252);
}

fn too_many_ends_come_back_with_their_value() {
    let (sender, receiver) = channel::<(Vec<Fd<File>>, Vec<u8>)>().unwrap();
    for (count, padding, most) in [(254, 0, 253), (300, 0, 253), (300, 300_000, 253), (253, 300_000, 252)] {
        let unsent = sender.send((blobs(count), vec![7; padding])).unwrap_err();
        assert!(matches!(unsent.error, Error::TooLong { len, max } if len == count && max == most), "{unsent:?}");
        assert_eq!(unsent.value.0.len(), count);
        assert!(unsent.value.0.iter().all(|file| file.metadata().is_ok()));
    }
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    // No more copies are made than go with a message.
    let files = blobs(300);
    let full = limit_descriptors(253);
    let unsent = sender.send((files, vec![])).unwrap_err();
    drop(full);
    assert!(matches!(unsent.error, Error::TooLong { len: 300, max: 253 }), "{unsent:?}");
}

fn every_failed_send_gives_usable_ends_back() {
    /// Encodes its end, and then does not want to.
    struct Moody(PipeWriter, DatagramSocket, bool);
    impl Serialize for Moody {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.2 {
                true => (&self.0, &self.1).serialize(serializer),
                false => {
                    use serde::ser::SerializeTuple;
                    let mut tuple = serializer.serialize_tuple(2)?;
                    tuple.serialize_element(&self.0)?;
                    Err(serde::ser::Error::custom("not today"))
                }
            }
        }
    }
    let pair = datagram_pair().unwrap();
    let (sender, mut raw) = (Sender::new(pair.parent), Some(pair.child));
    let (mut reader, writer) = pipe().unwrap();
    let peer = datagram_pair().unwrap();
    let mut value = Moody(writer, peer.parent, false);
    for (number, ends) in [1, 2, 3].into_iter().enumerate() {
        let before = open_ends();
        let unsent = match ends {
            1 => sender.send(value).unwrap_err(),
            2 => {
                value.2 = true;
                while sender.raw_socket().try_send(b"fill").is_ok() {}
                sender.try_send(value).unwrap_err()
            }
            _ => {
                raw.take();
                sender.send(value).unwrap_err()
            }
        };
        value = unsent.value;
        assert_eq!(open_ends(), before - usize::from(ends == 3), "{number}");
        let expected = match ends {
            1 => matches!(unsent.error, Error::Encode { .. }),
            2 => matches!(unsent.error, Error::WouldBlock),
            _ => matches!(unsent.error, Error::Closed),
        };
        assert!(expected, "{:?}", unsent.error);
        value.0.write_all(&[ends]).unwrap();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [ends]);
        // Its socket still tells an empty message from EOF.
        peer.child.send(b"").unwrap();
        assert_eq!(value.1.recv(&mut [0]).unwrap(), Some(0));
    }
    drop((value, sender));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "EOF arrives");
}

fn a_socket_that_was_not_sent_tells_an_empty_message_from_eof() {
    /// Encodes its end, and then does not want to.
    struct Moody(DatagramSocket);
    impl Serialize for Moody {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(serializer)?;
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let (sender, _receiver) = channel().unwrap();
    let pair = datagram_pair().unwrap();
    let Moody(socket) = sender.send(Moody(pair.parent)).unwrap_err().value;
    // Also one that its sender left behind.
    pair.child.send(b"").unwrap();
    drop(pair.child);
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), Some(0));
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), None);
}

/// The socket of a sender, to send something else through it.
trait RawSocket {
    fn raw_socket(&self) -> DatagramSocket;
}

impl<T> RawSocket for Sender<T> {
    fn raw_socket(&self) -> DatagramSocket {
        self.try_clone().unwrap().into_inner()
    }
}

fn a_severed_end_is_not_sent() {
    let (sender, receiver) = channel::<PipeWriter>().unwrap();
    let (_reader, writer) = pipe().unwrap();
    let child = fork(sender, move |sender| {
        let unsent = sender.send(writer).unwrap_err();
        assert!(matches!(unsent.error, Error::NotGiven), "{unsent:?}");
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    assert!(receiver.recv().unwrap().is_none());
}

fn no_room_for_a_copy_is_an_error_and_gives_the_value_back() {
    let (sender, receiver) = channel::<(PipeWriter, Vec<u8>)>().unwrap();
    let (_reader, writer) = pipe().unwrap();
    let mut value = (writer, vec![7; 300_000]);
    for free in [0, 1] {
        let full = limit_descriptors(free);
        let unsent = sender.send(value).unwrap_err();
        drop(full);
        let is_full = |error: &Error| matches!(error, Error::System { source, .. } if source.raw_os_error() == Some(libc::EMFILE));
        assert!(is_full(&unsent.error), "{free}: {unsent:?}");
        value = unsent.value;
    }
    sender.send(value).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().1.len(), 300_000);
}

fn ends_that_find_no_place_are_lost_and_the_next_value_comes() {
    let (sender, receiver) = channel::<(u8, Vec<Fd<File>>)>().unwrap();
    sender.send((1, blobs(3))).unwrap();
    sender.send((2, vec![])).unwrap();
    let full = limit_descriptors(1);
    let error = receiver.recv().unwrap_err();
    drop(full);
    let Error::EndsLost { received } = error else { panic!("{error:?}") };
    assert_eq!(received.len(), 1);
    assert_eq!(receiver.recv().unwrap().unwrap().0, 2);
    // The memory of a large value is such a one.
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    sender.send(vec![7; 300_000]).unwrap();
    sender.send(vec![8]).unwrap();
    let full = limit_descriptors(0);
    let error = receiver.recv().unwrap_err();
    drop(full);
    assert!(matches!(error, Error::EndsLost { .. }), "{error:?}");
    assert_eq!(receiver.recv().unwrap(), Some(vec![8]));
    // An iterator goes on too.
    sender.send(vec![7; 300_000]).unwrap();
    sender.send(vec![9]).unwrap();
    let full = limit_descriptors(0);
    let mut values = receiver.iter();
    let error = values.next().unwrap().unwrap_err();
    drop(full);
    assert!(matches!(error, Error::EndsLost { .. }), "{error:?}");
    assert_eq!(values.next().unwrap().unwrap(), [9]);
}

fn what_arrives_is_close_on_exec_and_severed_by_a_fork() {
    let (sender, receiver) = channel::<(PipeWriter, Fd<File>)>().unwrap();
    let (mut reader, writer) = pipe().unwrap();
    sender.send((writer, Fd(memory_file()))).unwrap();
    let (mut writer, file) = receiver.recv().unwrap().unwrap();
    for fd in [writer.as_fd(), file.as_fd()] {
        assert_eq!(descriptor_flags(fd) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
    let severed = writer.try_clone().unwrap();
    let child = fork((), move |()| assert!(matches!(severed.try_write(b"x"), Err(Error::NotGiven)))).unwrap();
    assert_eq!(exit_code(&child), 0);
    writer.write_all(b"ours").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ours");
}

fn nothing_is_left_after_thousands_of_values() {
    let (sender, receiver) = channel::<(PipeReader, Option<DatagramSocket>)>().unwrap();
    let child = fork(receiver, |receiver| {
        let before = open_ends();
        for value in receiver.iter() {
            drop(value.unwrap());
            assert_eq!(open_ends(), before);
        }
    })
    .unwrap();
    let before = open_ends();
    let (reader, writer) = pipe().unwrap();
    for number in 0..support::rounds(10_000) {
        let socket = (number % 10 == 0).then(|| datagram_pair().unwrap().child);
        sender.send((reader.try_clone().unwrap(), socket)).unwrap();
    }
    drop((reader, writer));
    assert_eq!(open_ends(), before);
    drop(sender);
    assert_eq!(exit_code(&child), 0);
}

fn a_channel_travels_through_itself() {
    #[derive(Serialize, Deserialize)]
    struct Again(Option<Box<Receiver<Again>>>);
    let (sender, receiver) = channel::<Again>().unwrap();
    let copy = receiver.try_clone().unwrap();
    sender.send(Again(Some(Box::new(copy)))).unwrap();
    let Again(Some(copy)) = receiver.recv().unwrap().unwrap() else { panic!() };
    sender.send(Again(None)).unwrap();
    assert!(copy.recv().unwrap().unwrap().0.is_none());
    drop(sender);
    assert!(copy.recv().unwrap().is_none());
}

fn a_channel_goes_to_another_program() {
    let (sender, receiver) = channel::<(String, PipeWriter)>().unwrap();
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program).env(WORKER, "1").give("jobs", receiver).spawn().unwrap();
    let (reader, writer) = pipe().unwrap();
    sender.send(("to a program".to_owned(), writer)).unwrap();
    assert_eq!(read_all(reader), b"to a program");
    drop(sender);
    assert_eq!(exit_code(&child), 0);
}

/// The variable that makes this program a worker.
pub const WORKER: &str = "CHANNEL_TEST_WORKER";

/// What the program does that is given a receiver.
pub fn work() {
    let jobs: Receiver<(String, PipeWriter)> = claim("jobs").unwrap();
    for job in jobs.iter() {
        let (text, mut output) = job.unwrap();
        output.write_all(text.as_bytes()).unwrap();
    }
}

fn a_channel_goes_in_a_message() {
    let pair = datagram_pair().unwrap();
    let (sender, receiver) = channel::<u8>().unwrap();
    pair.parent.send_with(b"a sender", sender).unwrap();
    let mut received = pair.child.recv_with(&mut Vec::new()).unwrap().unwrap();
    let sender: Sender<u8> = received.take().unwrap();
    sender.send(7).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(7));
}

fn an_end_that_nobody_receives_is_closed() {
    let (sender, receiver) = channel::<(u8, PipeWriter)>().unwrap();
    let (reader, writer) = pipe().unwrap();
    sender.send((1, writer)).unwrap();
    // As another type, which has no end.
    let receiver: Receiver<(u8, u8)> = Receiver::new(receiver.into_inner());
    assert_eq!(receiver.recv().unwrap(), Some((1, 0)));
    assert_eq!(read_all(reader), b"");
}
