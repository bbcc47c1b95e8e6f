//! A datagram of any bytes, to a socket whose messages are packed: either every message in it, or all of it in the error.

#![no_main]

use ipc::Error;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let pair = ipc::datagram_pair().expect("a pair");
    let mut socket = ipc::PackedSocket::new(pair.child);
    pair.parent.send(bytes).expect("there is room");
    let mut again = Vec::new();
    loop {
        match socket.try_recv() {
            Ok(Some(message)) => {
                again.extend_from_slice(&(message.len() as u32).to_le_bytes());
                again.extend_from_slice(message);
            }
            Ok(None) => panic!("the peer is there"),
            Err(Error::WouldBlock) => {
                assert_eq!(again, bytes, "all of the messages, and nothing else");
                break;
            }
            Err(Error::Malformed { message }) => {
                assert!(again.is_empty(), "never half and half");
                assert_eq!(message, bytes);
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    // The next datagram arrives all the same.
    pair.parent.send(b"\x02\0\0\0ok").expect("there is room");
    assert_eq!(socket.try_recv().expect("a message"), Some(&b"ok"[..]));
});
