//! Messages that can be told from each other, and what is said of them over any stream.

use ipc::{ByteReader, Error, MessageReader};

/// A message that no other is like.
pub fn message(number: usize, len: usize) -> Vec<u8> {
    let mut state = number as u64;
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        piece.copy_from_slice(&state.swap_bytes().to_ne_bytes()[..piece.len()]);
    }
    bytes
}

/// Whether one is the other. A difference is not printed in full.
#[track_caller]
pub fn assert_same(received: &[u8], sent: &[u8]) {
    assert!(received == sent, "{} bytes came, and not the {} that were sent", received.len(), sent.len());
}

/// That the next message is that one.
#[track_caller]
pub fn assert_next(received: ipc::Result<Option<&[u8]>>, sent: &[u8]) {
    assert_same(received.expect("it can be received").expect("there is one more message"), sent);
}

/// That messages of these lengths come, numbered from 0, and then EOF.
#[track_caller]
pub fn assert_all_arrive<R: ByteReader>(reader: &mut MessageReader<R>, lengths: &[usize]) {
    for (number, len) in lengths.iter().enumerate() {
        assert_next(reader.recv(), &message(number, *len));
    }
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(reader.try_recv().unwrap(), None);
}

/// That a stream that ends inside a message says so, wherever it ends. `make` makes one of these bytes.
pub fn assert_ends_are_told<R: ByteReader>(make: impl Fn(&[u8]) -> R) {
    let whole = [&b"\x02\0\0\0ok\x64\0\0\0"[..], &[7; 100]].concat();
    for len in 0..=whole.len() {
        let mut reader = MessageReader::new(make(&whole[..len]));
        if len >= 6 {
            assert_eq!(reader.recv().unwrap(), Some(&b"ok"[..]));
        }
        let got = reader.recv_vec();
        match len {
            0 | 6 => assert_eq!(got.unwrap(), None),
            110 => assert_eq!(got.unwrap(), Some(vec![7; 100])),
            10.. => match got {
                Err(Error::Truncated { message, expected: Some(100) }) => assert_eq!(message, vec![7; len - 10]),
                other => panic!("{len}: {other:?}"),
            },
            4..6 => assert!(matches!(got, Err(Error::Truncated { expected: Some(2), .. })), "{len}: {got:?}"),
            _ => assert!(matches!(got, Err(Error::Truncated { expected: None, .. })), "{len}: {got:?}"),
        }
        assert_eq!(reader.recv().unwrap(), None);
    }
}
