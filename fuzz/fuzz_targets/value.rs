//! A message of any bytes, in a datagram, in memory or in a segment beside it, with ends of any kind, to a typed channel: a value or an error,
//! no end that stays, and the next value arrives. The memory may have any seals, holes, a length that was not agreed to, or be none.

#![no_main]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

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
        Ok(Some(_)) | Err(Error::Decode { .. } | Error::TooLong { .. }) => {}
        Ok(None) => panic!("the peer is there"),
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(ipc::open_ends(), before, "no end stays");
    // The next one arrives all the same.
    pair.parent.send(&[3, 2]).expect("there is room");
    assert!(matches!(receiver.try_recv(), Ok(Some(Value::Hollow(list))) if list.len() == 2));
});

fn send(peer: &DatagramSocket, kind: u8, bytes: &[u8]) {
    let (reader, writer) = ipc::pipe().expect("a pipe");
    let (stream, datagrams) = (ipc::stream_pair().expect("a pair"), ipc::datagram_pair().expect("a pair"));
    let sent = match kind % 8 {
        0 => peer.send(bytes),
        1 => peer.send_with(bytes, (reader, writer)).map_err(Error::from),
        2 => peer.send_with(bytes, (stream.child, datagrams.child, datagrams.parent)).map_err(Error::from),
        // The first byte decides what is sent in the place of sealed memory.
        3 => {
            let (how, bytes) = bytes.split_first().unwrap_or((&0, bytes));
            peer.send_with(&[], (memory(*how, bytes), reader, writer)).map_err(Error::from)
        }
        4 => peer.send_with(&[], reader).map_err(Error::from),
        // A message with bytes, which has none of them beside it.
        5 => peer.send_with(bytes, memory(0, bytes)).map_err(Error::from),
        6 => {
            let (how, bytes) = bytes.split_first().unwrap_or((&0, bytes));
            peer.send_with(&[], (segment(*how, bytes), reader, writer)).map_err(Error::from)
        }
        _ => {
            let memory = Blob::new(bytes).expect("memory");
            peer.send_with(&[], (memory, reader, writer)).map_err(Error::from)
        }
    };
    sent.expect("there is room");
}

/// A segment with these bytes. The number says how far the length that it tells is from theirs.
fn segment(how: u8, bytes: &[u8]) -> OwnedFd {
    const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    let told = match how {
        0..32 => bytes.len() as u64,
        32..64 => u64::MAX - u64::from(how),
        _ => (bytes.len() as u64 + u64::from(how)).wrapping_sub(160),
    };
    // SAFETY: a nul-terminated name; the descriptor is new.
    let file = unsafe {
        let raw = libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "memory");
        File::from_raw_fd(raw)
    };
    file.write_all_at(&told.to_le_bytes(), 0).expect("there is room");
    file.write_all_at(bytes, 4096).expect("there is room");
    file.set_len((4096 + bytes.len() as u64).next_multiple_of(4096)).expect("a length");
    // SAFETY: an open descriptor and a number.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) };
    file.into()
}

/// Memory with these bytes, and what the number says of it.
fn memory(how: u8, bytes: &[u8]) -> OwnedFd {
    const ALL: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: a nul-terminated name; the descriptor is new.
    let mut file = unsafe {
        let raw = libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "memory");
        File::from_raw_fd(raw)
    };
    file.write_all(bytes).expect("there is room");
    match how >> 6 {
        0 => {}
        1 => file.set_len(bytes.len() as u64 + 9000).expect("a hole"),
        2 => file.set_len(1 << 40).expect("a hole"),
        _ => file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("it can be read"),
    }
    let seals = if how & 32 == 0 { ALL } else { libc::c_int::from(how & 31) };
    // SAFETY: an open descriptor and a number. Of what is open for reading alone it is refused.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    file.into()
}
