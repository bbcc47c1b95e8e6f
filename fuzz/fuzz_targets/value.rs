//! A message of any bytes, in a datagram or in memory beside it, with ends of any kind, to a typed channel: a value or an error,
//! no end that stays, and the next value arrives.

#![no_main]

use std::collections::BTreeMap;
use std::fs::File;

use ipc::{Blob, DatagramSocket, Error, Fd, PipeReader, PipeWriter, Receiver, Sender, StreamSocket};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Value {
    Numbers(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128),
    Texts { char: char, text: String, bytes: Vec<u8>, floats: (f32, f64) },
    Nested(Vec<Value>, Option<Box<Value>>, BTreeMap<u16, ()>),
    Hollow(Vec<()>),
    Pipes(Vec<Option<PipeReader>>, BTreeMap<bool, PipeWriter>),
    Sockets(StreamSocket, DatagramSocket, Sender<()>, Receiver<()>),
    Other(Blob, Fd<File>),
}

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    let pair = ipc::datagram_pair().expect("a pair");
    let receiver: Receiver<Value> = Receiver::new(pair.child);
    receiver.set_max_message(1 << 20);
    let before = ipc::open_ends();
    send(&pair.parent, kind, bytes);
    match receiver.try_recv() {
        Ok(Some(_)) | Err(Error::Decode { .. }) => {}
        Ok(None) => panic!("the peer is there"),
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(ipc::open_ends(), before, "no end stays");
    // The next one is none the worse for it.
    pair.parent.send(&[3, 2]).expect("there is room");
    assert!(matches!(receiver.try_recv(), Ok(Some(Value::Hollow(list))) if list.len() == 2));
});

fn send(peer: &DatagramSocket, kind: u8, bytes: &[u8]) {
    let (reader, writer) = ipc::pipe().expect("a pipe");
    let (stream, datagrams) = (ipc::stream_pair().expect("a pair"), ipc::datagram_pair().expect("a pair"));
    let sent = match kind % 4 {
        0 => peer.send(bytes),
        1 => peer.send_with(bytes, (reader, writer)).map_err(Error::from),
        2 => peer.send_with(bytes, (stream.child, datagrams.child, datagrams.parent)).map_err(Error::from),
        _ => {
            let memory = Blob::new(bytes).expect("memory");
            peer.send_with(&[], (memory, reader, writer)).map_err(Error::from)
        }
    };
    sent.expect("there is room");
}
