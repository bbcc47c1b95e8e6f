//! Bytes that say where they belong: one that is lost, doubled or out of its place is seen at once.

use super::random::mix;

/// Puts the bytes of the stream `key` from the place `at` on into `buf`.
pub fn fill(key: u64, at: u64, buf: &mut [u8]) {
    let mut at = at;
    let mut rest = buf;
    while !rest.is_empty() {
        let word = mix(key.wrapping_add(at / 8)).to_ne_bytes();
        let word = &word[(at % 8) as usize..];
        let len = word.len().min(rest.len());
        rest[..len].copy_from_slice(&word[..len]);
        rest = &mut rest[len..];
        at += len as u64;
    }
}

/// The bytes of the stream `key` from the place `at` on.
pub fn bytes(key: u64, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(key, at, &mut bytes);
    bytes
}

/// Asserts that these are the bytes of the stream `key` from the place `at` on.
#[track_caller]
pub fn check(key: u64, at: u64, got: &[u8]) {
    let expected = bytes(key, at, got.len());
    // Byte by byte takes long where nothing is optimised.
    if got == expected {
        return;
    }
    if let Some(wrong) = (0..got.len()).find(|&i| got[i] != expected[i]) {
        let place = (0..1 << 24).find(|&at| bytes(key, at, 8).iter().eq(got[wrong..].iter().take(8)));
        panic!(
            "byte {} of the stream {key:x} is {:#x} instead of {:#x} (byte {wrong} of {} that were read from {at} on); \
             what is there belongs to {place:?}",
            at + wrong as u64,
            got[wrong],
            expected[wrong],
            got.len(),
        );
    }
}

/// Returns how long message `number` of the channel `key` is. Some are empty.
pub fn message_len(key: u64, number: u64, most: usize) -> usize {
    let mut random = super::random::Random::new(mix(key) ^ number);
    if random.once_in(8) { 0 } else { random.up_to(most as u64) as usize }
}

/// Message `number` of the channel `key`: its number and its length, as far as they fit, and bytes of its own.
pub fn message(key: u64, number: u64, most: usize) -> Vec<u8> {
    let len = message_len(key, number, most);
    let mut message = bytes(mix(key ^ number), 0, len);
    let head = [number.to_ne_bytes(), (len as u64).to_ne_bytes()].concat();
    let fits = head.len().min(len);
    message[..fits].copy_from_slice(&head[..fits]);
    message
}

/// Asserts that this is message `number` of the channel `key`, whole.
#[track_caller]
pub fn check_message(key: u64, number: u64, most: usize, got: &[u8]) {
    let expected = message(key, number, most);
    if got != expected {
        let head = |at: usize| got.get(at..at + 8).map(|head| u64::from_ne_bytes(head.try_into().expect("8 bytes")));
        panic!(
            "message {number} of the channel {key:x} has {} bytes instead of {}; it says that it is number {:?} and has {:?} bytes; \
             it differs from byte {:?} on",
            got.len(),
            expected.len(),
            head(0),
            head(8),
            got.iter().zip(&expected).position(|(got, expected)| got != expected),
        );
    }
}
