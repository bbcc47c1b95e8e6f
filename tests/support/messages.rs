//! Messages that can be told from each other.

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
