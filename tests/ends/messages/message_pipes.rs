//! Messages through a pipe: each arrives whole and in order, of whatever length; when they go; and what a stream that is
//! hostile, or ends inside a message, does.

use std::io::Write;
use std::time::Duration;

use crate::support::{self, Trial, assert_next, assert_same, exit_code, fill, message, read_all, read_some};
use ipc::{Error, MessageReader, MessageWriter, PipeReader, PipeWriter, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_of_every_length_arrive_whole_and_in_order within 60,
        very_long_messages_arrive_whole within 60,
        empty_messages_are_messages,
        what_came_of_a_long_message_takes_no_more_memory,
        a_message_that_there_is_no_memory_to_copy_stays,
        what_goes_into_the_pipe_is_lengths_and_bytes,
        whole_buffers_are_written,
        nothing_goes_before_it_is_flushed,
        room_in_front_of_what_waits_is_used,
        after_a_long_message_no_more_waits_than_before,
        a_stream_that_ends_inside_a_message_says_so,
        a_writer_that_is_killed_inside_a_message_is_told_of,
        a_length_that_is_over_the_limit_is_refused_until_the_limit_is_raised,
        a_length_that_never_arrives_takes_no_memory within 60,
        the_long_form_of_a_length_is_understood,
        bytes_that_come_one_by_one_become_messages,
        random_streams_do_no_harm within 60,
        what_is_buffered_can_be_seen,
    ]
}

const LONG: Duration = Duration::from_secs(10);

/// So many bytes share a write.
const BUFFER: usize = 8 << 10;
const HEAD: usize = 4;

fn message_pipe() -> (MessageReader, MessageWriter) {
    let (reader, writer) = pipe().unwrap();
    (MessageReader::new(reader), MessageWriter::new(writer))
}

/// These messages, as they are in a stream.
fn stream(messages: &[&[u8]]) -> Vec<u8> {
    let stream = messages.iter().flat_map(|message| [&(message.len() as u32).to_le_bytes()[..], message].concat());
    stream.collect()
}

/// A reader of just these bytes, which are not more than a pipe holds, and then the end.
fn reader_of(bytes: &[u8]) -> MessageReader {
    let (reader, mut writer) = pipe().unwrap();
    writer.set_capacity(1 << 20).unwrap();
    writer.write_all(bytes).unwrap();
    MessageReader::new(reader)
}

fn send_all(lengths: impl IntoIterator<Item = usize>) -> impl FnOnce(PipeWriter) {
    let lengths: Vec<_> = lengths.into_iter().collect();
    move |writer| {
        let mut writer = MessageWriter::new(writer);
        for (number, len) in lengths.into_iter().enumerate() {
            writer.send(&message(number, len)).unwrap();
        }
        writer.close().unwrap();
    }
}

#[track_caller]
fn assert_all_arrive(lengths: Vec<usize>) {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, send_all(lengths.clone())).unwrap();
    let mut reader = MessageReader::new(reader);
    for (number, len) in lengths.into_iter().enumerate() {
        assert_next(reader.recv(), &message(number, len));
    }
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn messages_of_every_length_arrive_whole_and_in_order() {
    let mut lengths = vec![0, 1, 2, 3, 4, 5, 0, 0, 4095, 4096, 0];
    lengths.extend((0..30).map(|less| BUFFER + 10 - less));
    lengths.extend((0..30).map(|less| 2 * BUFFER + 10 - less));
    lengths.extend((0..30).map(|less| (64 << 10) + 10 - less));
    lengths.extend([1 << 20, 0, 70_000, (1 << 20) + 1, 3]);
    lengths.extend((0..support::rounds(3000) as usize).map(|number| number * number % 611));
    lengths.extend((0..500).map(|number| number * number % 30_011));
    assert_all_arrive(lengths);
    // Every place that a head can have at the end of a buffer.
    for first in (0..30).map(|less| BUFFER - less - HEAD) {
        assert_all_arrive(vec![first, 0, 1, 0, 5, first, 2 * BUFFER, 7]);
    }
}

fn very_long_messages_arrive_whole() {
    let mut lengths = vec![1, 64 << 20, 0, 9_000_001, 2];
    // Where more is repeated, others up to 30 MB and more, each between short ones.
    let more = 1..support::rounds(1).min(20) as usize;
    lengths.extend(more.flat_map(|round| [round * 3_333_334, round % 3]));
    assert_all_arrive(lengths);
}

fn what_came_of_a_long_message_takes_no_more_memory() {
    let (reader, mut writer) = pipe().unwrap();
    let child = fork(reader, |reader| {
        let mut messages = MessageReader::new(reader);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: libc::rlim_t = pages.split(' ').next().unwrap().parse().unwrap();
        support::limit(libc::RLIMIT_AS, |_| pages * 4096 + (60 << 20));
        let lost = messages.recv().unwrap_err();
        assert!(matches!(lost, Error::Truncated { message, .. } if message.len() == 30 << 20 && message.chunks(8192).all(|piece| *piece == [7; 8192][..])));
    })
    .unwrap();
    writer.write_all(&(40_u32 << 20).to_le_bytes()).unwrap();
    for _ in 0..30 {
        writer.write_all(&[7; 1 << 20]).unwrap();
    }
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn a_message_that_there_is_no_memory_to_copy_stays() {
    const MANY: usize = 24 << 20;
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| -> ipc::Result<()> {
        let mut writer = MessageWriter::new(writer);
        writer.send(&vec![7; MANY])?;
        writer.send(b"next")?;
        writer.close()
    })
    .unwrap();
    let mut reader = MessageReader::new(reader);
    // Room for the buffer, and not for a copy beside it.
    support::limit(libc::RLIMIT_AS, |_| (support::own_size() + (36 << 20)) as libc::rlim_t);
    for _ in 0..2 {
        assert_eq!(support::refused(reader.recv_vec()), ("malloc", libc::ENOMEM));
        assert!(reader.has_message());
    }
    assert!(
        reader.recv().unwrap().is_some_and(|message| message.len() == MANY && message.iter().all(|byte| *byte == 7))
    );
    assert_eq!(reader.recv_vec().unwrap().as_deref(), Some(&b"next"[..]));
    assert_eq!(reader.recv_vec().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn empty_messages_are_messages() {
    let (mut reader, mut writer) = message_pipe();
    for message in [&b""[..], b"", b"x", b""] {
        writer.send(message).unwrap();
    }
    writer.flush().unwrap();
    writer.send(b"").unwrap();
    writer.close().unwrap();
    for message in [&b""[..], b"", b"x", b"", b""] {
        assert_eq!(reader.recv().unwrap(), Some(message));
    }
    for _ in 0..3 {
        assert_eq!(reader.recv().unwrap(), None);
        assert_eq!(reader.try_recv().unwrap(), None);
        assert_eq!(reader.recv_timeout(LONG).unwrap(), None);
        assert_eq!(reader.recv_timeout(Duration::ZERO).unwrap(), None);
    }
}

fn what_goes_into_the_pipe_is_lengths_and_bytes() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(b"one").unwrap();
    writer.try_send(b"").unwrap();
    writer.send_timeout(b"three", LONG).unwrap();
    writer.send(&message(1, 20_000)).unwrap();
    writer.close().unwrap();
    let mut expected = b"\x03\0\0\0one\0\0\0\0\x05\0\0\0three\x20\x4e\0\0".to_vec();
    expected.extend(message(1, 20_000));
    assert_same(&read_all(reader), &expected);
}

/// What is in the pipe now.
fn there(reader: &PipeReader) -> Vec<u8> {
    read_some(reader, reader.available().unwrap())
}

fn whole_buffers_are_written() {
    for len in [0, 1, 10, 100, 1000, BUFFER - HEAD] {
        let (reader, writer) = pipe().unwrap();
        let mut writer = MessageWriter::new(writer);
        let (mut sent, mut expected) = (0, Vec::new());
        while expected.len() <= 2 * BUFFER {
            assert_eq!(reader.available().unwrap(), expected.len().saturating_sub(1) / BUFFER * BUFFER);
            writer.send(&message(sent, len)).unwrap();
            expected.extend(stream(&[&message(sent, len)]));
            sent += 1;
        }
        assert_same(&there(&reader), &expected[..2 * BUFFER]);
        writer.flush().unwrap();
        assert_same(&there(&reader), &expected[2 * BUFFER..]);
    }
    // What is longer goes past the buffer, but for the rest of it.
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&message(0, 30_000)).unwrap();
    let expected = stream(&[&message(0, 30_000)]);
    let passed = there(&reader);
    assert!(passed.len() > 30_000 - BUFFER, "{} bytes went", passed.len());
    assert_same(&passed, &expected[..passed.len()]);
    writer.close().unwrap();
    assert_same(&read_all(reader), &expected[passed.len()..]);
}

fn nothing_goes_before_it_is_flushed() {
    let flushes: [fn(&mut MessageWriter) -> ipc::Result<()>; 4] = [
        MessageWriter::flush,
        MessageWriter::try_flush,
        |writer| writer.flush_timeout(LONG),
        |writer| writer.flush_timeout(Duration::ZERO),
    ];
    for flush in flushes {
        let (reader, writer) = pipe().unwrap();
        let mut writer = MessageWriter::new(writer);
        flush(&mut writer).unwrap();
        for round in 0..3 {
            writer.send(&message(round, 100)).unwrap();
            assert_eq!(reader.available().unwrap(), 0);
            flush(&mut writer).unwrap();
            assert_same(&there(&reader), &stream(&[&message(round, 100)]));
        }
    }
}

fn room_in_front_of_what_waits_is_used() {
    const LEN: usize = 1000;
    let (reader, writer) = pipe().unwrap();
    let filled = fill(&writer);
    let mut writer = MessageWriter::new(writer);
    let mut sent = 0;
    let mut send_until_refused = |writer: &mut MessageWriter| {
        let before = sent;
        while writer.try_send(&message(sent, LEN)).is_ok() {
            sent += 1;
        }
        sent - before
    };
    assert_eq!(send_until_refused(&mut writer), BUFFER / (HEAD + LEN));
    // Room for a page, which is half of what waits.
    read_some(&reader, 4096);
    assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
    assert_eq!(send_until_refused(&mut writer), 4);
    // And what a message that has no room makes for itself.
    read_some(&reader, 4096);
    assert_eq!(send_until_refused(&mut writer), 4);
    read_some(&reader, 4096);
    writer.send_timeout(&message(sent, LEN), Duration::ZERO).unwrap();

    read_some(&reader, filled - 3 * 4096);
    writer.close().unwrap();
    let mut reader = MessageReader::new(reader);
    for number in 0..=sent {
        assert_next(reader.recv(), &message(number, LEN));
    }
    assert_eq!(reader.recv().unwrap(), None);
}

fn after_a_long_message_no_more_waits_than_before() {
    const LEN: usize = 1000;
    let (reader, writer) = pipe().unwrap();
    let room = reader.capacity().unwrap();
    let mut writer = MessageWriter::new(writer);
    // All of it but four bytes goes, and then the pipe is full.
    let long = message(0, 8 * room);
    writer.try_send(&long).unwrap();
    let mut received = Vec::new();
    while received.len() < 7 * room {
        received.extend(read_some(&reader, room));
        assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
    }
    let sent = (1..).take_while(|number| writer.try_send(&message(*number, LEN)).is_ok()).count();
    assert_eq!(sent, (BUFFER - HEAD) / (HEAD + LEN));
    let child = fork(reader, |reader| {
        received.extend(read_all(reader));
        assert_same(&received[HEAD..][..long.len()], &long);
        let each = received[HEAD + long.len()..].chunks_exact(HEAD + LEN);
        assert_eq!((each.len(), each.remainder().len()), (sent, 0));
        each.zip(1..).for_each(|(bytes, number)| assert_same(&bytes[HEAD..], &message(number, LEN)));
    });
    writer.close().unwrap();
    assert_eq!(exit_code(&child.unwrap()), 0);
}

#[track_caller]
fn assert_truncated(reader: &mut MessageReader, arrived: &[u8], len: Option<u64>) {
    match reader.recv() {
        Err(Error::Truncated { message, expected }) => {
            assert_same(&message, arrived);
            assert_eq!(expected, len);
        }
        other => panic!("the stream ended inside a message: {other:?}"),
    }
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(reader.try_recv().unwrap(), None);
}

fn a_stream_that_ends_inside_a_message_says_so() {
    let long = message(7, 200_000);
    let whole = stream(&[b"before", &long]);
    let start = HEAD + b"before".len();
    for arrived in [0, 1, 2, 100, BUFFER, (64 << 10) - HEAD, 64 << 10, 150_000, 199_999] {
        let mut reader = reader_of(&whole[..start + HEAD + arrived]);
        assert_next(reader.recv(), b"before");
        assert_truncated(&mut reader, &long[..arrived], Some(200_000));
    }
    // Inside the head: nobody knows how long it was going to be.
    for arrived in 1..HEAD {
        let mut reader = reader_of(&whole[..start + arrived]);
        assert_next(reader.recv(), b"before");
        assert_truncated(&mut reader, b"", None);
    }
    for arrived in HEAD..12 {
        let mut reader = reader_of(&[[0xff; HEAD].as_slice(), &[0; 8][..arrived - HEAD]].concat());
        assert_truncated(&mut reader, b"", None);
    }
    // At the end of a message, or of nothing, it is the end.
    let mut reader = reader_of(&whole[..start]);
    assert_next(reader.recv(), b"before");
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(reader_of(b"").recv().unwrap(), None);
}

fn a_writer_that_is_killed_inside_a_message_is_told_of() {
    let (reader, writer) = pipe().unwrap();
    let long = message(3, 1 << 20);
    let child = fork(writer, |writer| {
        let mut writer = MessageWriter::new(writer);
        writer.send(b"before").unwrap();
        writer.send(&long).unwrap(); // more than the pipe holds
    })
    .unwrap();
    let mut reader = MessageReader::new(reader);
    assert_next(reader.recv(), b"before");
    support::asleep_in(child.id(), &[libc::SYS_write]);
    child.kill().unwrap();
    child.wait().unwrap();
    match reader.recv_timeout(LONG) {
        Err(Error::Truncated { message, expected: Some(expected) }) => {
            assert_eq!(expected, 1 << 20);
            assert!(!message.is_empty() && message.len() < long.len());
            assert_same(&message, &long[..message.len()]);
        }
        other => panic!("the writer was killed: {other:?}"),
    }
    assert_eq!(reader.recv().unwrap(), None);
}

#[track_caller]
fn assert_too_long(result: ipc::Result<Option<&[u8]>>, expected: (usize, usize)) {
    match result {
        Err(Error::TooLong { len, max }) => assert_eq!((len, max), expected),
        other => panic!("the message is too long: {other:?}"),
    }
}

fn a_length_that_is_over_the_limit_is_refused_until_the_limit_is_raised() {
    // One that is in the buffer, and one that is not.
    for len in [5000, 300_000] {
        let (reader, writer) = pipe().unwrap();
        let child = fork(writer, send_all([10, len, 10])).unwrap();
        let mut reader = MessageReader::new(reader);
        assert_eq!(reader.max_message(), 64 << 20);
        reader.set_max_message(len - 1);
        assert_next(reader.recv(), &message(0, 10));
        for _ in 0..2 {
            assert_too_long(reader.recv(), (len, len - 1));
            assert_too_long(reader.try_recv(), (len, len - 1));
            assert_too_long(reader.recv_timeout(LONG), (len, len - 1));
            assert!(reader.has_message());
        }
        reader.set_max_message(len);
        assert_eq!(reader.max_message(), len);
        assert_next(reader.recv(), &message(1, len));
        assert_next(reader.recv(), &message(2, 10));
        assert_eq!(reader.recv().unwrap(), None);
        assert_eq!(exit_code(&child), 0);
    }
    // No message but an empty one is shorter.
    let mut reader = reader_of(&stream(&[b"", b"x"]));
    reader.set_max_message(0);
    assert_next(reader.recv(), b"");
    assert_too_long(reader.recv(), (1, 0));
    // The longest that is received at first.
    let head = |len: u32| len.to_le_bytes();
    assert_too_long(reader_of(&head((64 << 20) + 1)).recv(), ((64 << 20) + 1, 64 << 20));
    assert_truncated(&mut reader_of(&head(64 << 20)), b"", Some(64 << 20));
    assert_too_long(reader_of(&head(u32::MAX - 1)).recv(), (u32::MAX as usize - 1, 64 << 20));
    for len in [0, u32::MAX.into(), u64::MAX] {
        let stream = [[0xff; HEAD].as_slice(), &u64::to_le_bytes(len)].concat();
        match len {
            0 => assert_next(reader_of(&stream).recv(), b""),
            len => assert_too_long(reader_of(&stream).recv(), (len as usize, 64 << 20)),
        }
    }
}

fn a_length_that_never_arrives_takes_no_memory() {
    let address_space = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
    };
    let hostile = [
        (64_u32 << 20).to_le_bytes().to_vec(),
        (u32::MAX - 1).to_le_bytes().to_vec(),
        [[0xff; HEAD].as_slice(), &(u64::MAX / 2).to_le_bytes()].concat(),
        [[0xff; HEAD].as_slice(), &u64::MAX.to_le_bytes()].concat(),
    ];
    for head in hostile {
        for arrived in [0, 100, 200_000, 5_000_000] {
            let (reader, mut writer) = pipe().unwrap();
            let before = address_space();
            let head = head.clone();
            let child = fork(writer.try_clone().unwrap(), |mut writer| {
                writer.write_all(&head).unwrap();
                writer.write_all(&vec![7; arrived]).unwrap();
                writer.close().unwrap();
            })
            .unwrap();
            let mut reader = MessageReader::new(reader);
            reader.set_max_message(usize::MAX);
            assert_eq!(
                exit_code_while(&child, || {
                    assert!(matches!(reader.recv_timeout(Duration::from_millis(1)), Err(Error::TimedOut)));
                }),
                0
            );
            assert!(matches!(reader.recv_timeout(Duration::ZERO), Err(Error::TimedOut)));
            // Twice what has arrived, and the old place beside the new one, and what the allocator keeps.
            let grown = address_space() - before;
            assert!(grown <= 4 * arrived + (4 << 20), "{grown} bytes for {arrived}");
            writer.flush().unwrap();
            drop(writer);
            match reader.recv() {
                Err(Error::Truncated { message, expected: Some(_) }) => assert_same(&message, &vec![7; arrived]),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The child's status; until it has left, does something again and again.
fn exit_code_while(child: &ipc::Child, mut act: impl FnMut()) -> i32 {
    while child.try_wait().unwrap().is_none() {
        act();
    }
    act();
    exit_code(child)
}

fn the_long_form_of_a_length_is_understood() {
    let long = |message: &[u8]| [&[0xff; HEAD], &(message.len() as u64).to_le_bytes()[..], message].concat();
    let messages = [message(0, 100), vec![], message(2, 70_000), message(3, 1)];
    let bytes: Vec<_> = messages.iter().flat_map(|message| [long(message), stream(&[b"short"])].concat()).collect();
    let mut reader = reader_of(&bytes);
    for message in &messages {
        assert_next(reader.recv(), message);
        assert_next(reader.recv(), b"short");
    }
    assert_eq!(reader.recv().unwrap(), None);
}

fn bytes_that_come_one_by_one_become_messages() {
    let (reader, mut writer) = pipe().unwrap();
    let mut reader = MessageReader::new(reader);
    let long = [[0xff; HEAD].as_slice(), &3_u64.to_le_bytes(), b"abc"].concat();
    let messages: [(&[u8], Vec<u8>); 4] =
        [(b"hello", stream(&[b"hello"])), (b"", stream(&[b""])), (b"abc", long), (b"x", stream(&[b"x"]))];
    for (message, bytes) in &messages {
        for (count, byte) in bytes.iter().enumerate() {
            assert!(!reader.has_message());
            assert!(matches!(reader.try_recv(), Err(Error::WouldBlock)), "{count} of {}", bytes.len());
            assert!(matches!(reader.recv_timeout(Duration::from_nanos(1)), Err(Error::TimedOut)));
            writer.write_all(&[*byte]).unwrap();
        }
        assert_next(reader.try_recv(), message);
    }
}

fn random_streams_do_no_harm() {
    for number in 0..3000 {
        let mut bytes = message(number, number % 601);
        for (index, byte) in bytes.iter_mut().enumerate() {
            // Mostly small lengths, as random ones are all too long, and some long forms.
            match (index / 4 + number) % 7 {
                0 => *byte = 0xff,
                1..=4 if index % 4 > 0 => *byte = 0,
                _ => *byte %= 40,
            }
        }
        let (mut reader, mut rest) = (reader_of(&bytes), bytes.as_slice());
        reader.set_max_message(1 << 30);
        loop {
            match (reader.recv(), model(rest, 1 << 30)) {
                (Ok(received), Model::Message(message, left)) => {
                    assert_eq!(received, Some(message));
                    rest = left;
                }
                (Ok(None), Model::End) => break,
                (Err(Error::Truncated { message, expected }), Model::Truncated(part, len)) => {
                    assert_eq!((message.as_slice(), expected), (part, len));
                    break;
                }
                (Err(Error::TooLong { len, max: 1_073_741_824 }), Model::TooLong(expected)) => {
                    assert_eq!(len as u64, expected);
                    break;
                }
                (received, model) => panic!("{received:?}, and not {model:?}"),
            }
        }
    }
}

/// What the reader is to find at the beginning of these bytes, after which the stream ends.
#[derive(Debug)]
enum Model<'a> {
    Message(&'a [u8], &'a [u8]),
    Truncated(&'a [u8], Option<u64>),
    TooLong(u64),
    End,
}

fn model(bytes: &[u8], max: u64) -> Model<'_> {
    let (len, rest) = match bytes {
        [] => return Model::End,
        [0xff, 0xff, 0xff, 0xff, a, b, c, d, e, f, g, h, rest @ ..] => {
            (u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
        }
        [0xff, 0xff, 0xff, 0xff, ..] => return Model::Truncated(&[], None),
        [a, b, c, d, rest @ ..] => (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), rest),
        _ => return Model::Truncated(&[], None),
    };
    if len > max {
        Model::TooLong(len)
    } else if len > rest.len() as u64 {
        Model::Truncated(rest, Some(len))
    } else {
        let (message, rest) = rest.split_at(len as usize);
        Model::Message(message, rest)
    }
}

fn what_is_buffered_can_be_seen() {
    let (reader, writer) = pipe().unwrap();
    let (reader_text, writer_text) = (format!("{reader:?}"), format!("{writer:?}"));
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    writer.send(b"one").unwrap();
    writer.send(b"two").unwrap();
    assert_eq!(format!("{writer:?}"), format!("MessageWriter {{ writer: {writer_text}, unflushed: 14 }}"));
    writer.flush().unwrap();
    assert_eq!(format!("{writer:?}"), format!("MessageWriter {{ writer: {writer_text}, unflushed: 0 }}"));
    assert!(!reader.has_message(), "nobody looked at the pipe");
    assert_next(reader.recv(), b"one");
    assert!(reader.has_message());
    assert_eq!(format!("{reader:?}"), format!("MessageReader {{ reader: {reader_text}, arrived: 7 }}"));
    assert_next(reader.recv(), b"two");
    assert!(!reader.has_message());
    // Settings can be made through it, and it closes like any end.
    assert_eq!(reader.get_ref().set_capacity(5000).unwrap(), 8192);
    assert_eq!(writer.get_ref().capacity().unwrap(), 8192);
    assert!(fill(writer.get_ref()) > 0);
    reader.close().unwrap();
    assert!(writer.get_ref().is_closed().unwrap());
}
