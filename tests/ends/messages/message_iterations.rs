//! Iterating over messages, and the wrapper around them: an error that would come again ends an iteration, and nothing that waits is lost.

use std::io::{Read, Write};

use super::message_streams::LONG;
use crate::support::{self, Trial, exit_code};
use ipc::{Error, MessageReader, MessageWriter, PackedSocket, datagram_pair, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_can_be_iterated_over,
        an_error_that_would_come_again_ends_an_iteration,
        what_waits_to_be_received_is_not_lost_with_the_wrapper,
    ]
}

fn messages_can_be_iterated_over() {
    let words = || [&b"one"[..], b"", b"three"].into_iter();
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    words().for_each(|word| writer.send(word).unwrap());
    writer.close().unwrap();
    let mut reader = MessageReader::new(reader);
    assert_eq!(reader.iter().next().unwrap().unwrap(), b"one");
    let mut rest = Vec::new();
    for message in &mut reader {
        rest.push(message.unwrap());
    }
    assert!(rest.iter().eq(words().skip(1).collect::<Vec<_>>()));
    assert!(reader.iter().next().is_none());

    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut socket = PackedSocket::new(socket);
        words().for_each(|word| socket.send(word).unwrap());
        socket.close().unwrap();
    })
    .unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    let all = socket.iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(all.iter().eq(words().collect::<Vec<_>>()));
    assert!((&mut socket).into_iter().next().is_none());
    assert_eq!((socket.recv_vec().unwrap(), socket.try_recv_vec().unwrap()), (None, None));
    assert_eq!(exit_code(&child), 0);
}

fn an_error_that_would_come_again_ends_an_iteration() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&[7; 2000]).unwrap();
    writer.flush().unwrap();
    let mut reader = MessageReader::new(reader);
    reader.set_max_message(1000);
    // The writer is there: an iteration that went on would never end.
    assert!(matches!(&reader.iter().collect::<Vec<_>>()[..], [Err(Error::TooLong { len: 2000, max: 1000 })]));
    assert_eq!(reader.iter().filter_map(Result::ok).count(), 0);
    reader.set_max_message(2000);
    writer.close().unwrap();
    assert!(matches!(&reader.iter().collect::<Vec<_>>()[..], [Ok(message)] if message.len() == 2000));

    // One after which the next message can be received ends nothing.
    let pair = datagram_pair().unwrap();
    pair.child.send(b"no pack").unwrap();
    pair.child.send(b"\x02\0\0\0ok").unwrap();
    drop(pair.child);
    let mut socket = PackedSocket::new(pair.parent);
    match &socket.iter().collect::<Vec<_>>()[..] {
        [Err(Error::Malformed { message }), Ok(next)] => {
            assert_eq!((&message[..], &next[..]), (&b"no pack"[..], &b"ok"[..]))
        }
        other => panic!("{other:?}"),
    }
}

fn what_waits_to_be_received_is_not_lost_with_the_wrapper() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"\x03\0\0\0one\x03\0\0\0tw").unwrap();
    let mut reader = MessageReader::new(reader);
    assert_eq!(reader.recv_vec().unwrap().unwrap(), b"one");
    let refused = reader.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Unread));
    let mut reader = refused.unflushed;
    writer.write_all(b"o").unwrap();
    assert_eq!(reader.recv_vec_timeout(LONG).unwrap().unwrap(), b"two");
    let mut bare = reader.into_inner().unwrap();
    writer.write_all(b"plain").unwrap();
    let mut plain = [0; 5];
    bare.read_exact(&mut plain).unwrap();
    assert_eq!(&plain, b"plain");
}
