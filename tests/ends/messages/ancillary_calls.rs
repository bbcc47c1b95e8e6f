//! What each call does with the ends of a message: those that do not take them, those that do not wait, and those of a stream.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::ancillary::{NOW, receive, take};
use crate::support::{self, Trial, exit_code, read_all, with_interval_timer};
use ipc::{
    DatagramPair, Error, PipeReader, PipeWriter, SendError, StreamPair, datagram_pair, fork, open_ends, pipe,
    stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_plain_receive_throws_ends_away,
        looking_ahead_installs_nothing,
        the_message_takes_the_place_of_what_was_there,
        a_message_fills_slices_and_brings_its_ends,
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

fn a_message_fills_slices_and_brings_its_ends() {
    let pair = datagram_pair().unwrap();
    let (mut first, mut second, mut rest) = ([b'-'; 3], [b'-'; 4], vec![7; 100_000]);
    let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
    assert!(matches!(pair.child.try_recv_vectored_with(&mut slices, &mut rest), Err(Error::WouldBlock)));
    assert!(matches!(pair.child.recv_vectored_with_timeout(&mut slices, &mut rest, NOW), Err(Error::TimedOut)));
    assert_eq!((first, second, &rest[..]), (*b"---", *b"----", &[7; 100_000][..]), "as it was");

    let long: Vec<u8> = (0..150_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    for text in [&b""[..], b"ab", b"abc", b"abcdefg", b"abcdefghi", &long] {
        let (reader, writer) = pipe().unwrap();
        pair.parent.send_with(text, writer).unwrap();
        (first, second) = (*b"---", *b"----");
        let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
        let mut received = pair.child.recv_vectored_with(&mut slices, &mut rest).unwrap().unwrap();
        let filled = text.len().min(7);
        assert_eq!(received.message_len(), text.len());
        assert_eq!([&first[..], &second[..]].concat(), [&text[..filled], &b"-------"[filled..]].concat());
        assert_eq!(rest, text[filled..]);
        drop(take::<PipeWriter>(&mut received));
        assert_eq!(read_all(reader), b"");
    }
    drop(pair.parent);
    assert!(pair.child.recv_vectored_with(&mut [], &mut rest).unwrap().is_none());
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
