//! A stream of any bytes, in two parts, to a reader of messages. Whole messages are received, and the error has the rest.

#![no_main]

use ipc::Error;

/// What the reader allows.
const MAX: usize = 1000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (reader, writer) = ipc::pipe().expect("a pipe");
    let mut reader = ipc::MessageReader::new(reader);
    reader.set_max_message(MAX);
    let middle = bytes.first().map_or(0, |byte| usize::from(*byte) % bytes.len());
    let mut left = bytes;
    for part in [&bytes[..middle], &bytes[middle..]] {
        assert_eq!(writer.try_write(part).expect("there is room"), part.len());
        while let Ok(Some(message)) = reader.try_recv() {
            left = expect(left, message);
        }
    }
    drop(writer);
    match reader.recv() {
        Ok(Some(message)) => panic!("{} bytes come late", message.len()),
        Ok(None) => assert!(left.is_empty()),
        Err(Error::Truncated { message, expected }) => {
            let (head, len) = head(left).unzip();
            assert_eq!((message.as_slice(), expected), (left.get(head.unwrap_or(left.len())..).unwrap(), len));
            assert!(expected.is_none_or(|expected| expected > message.len() as u64));
        }
        Err(Error::TooLong { len, max: MAX }) => assert_eq!(head(left).map(|(_, len)| len), Some(len as u64)),
        Err(error) => panic!("{error:?}"),
    }
});

/// What follows the message, which is the next one.
fn expect<'bytes>(bytes: &'bytes [u8], message: &[u8]) -> &'bytes [u8] {
    let (head, len) = head(bytes).expect("a length");
    assert_eq!(len, message.len() as u64);
    let (now, later) = bytes[head..].split_at(message.len());
    assert_eq!(now, message);
    later
}

/// How long the length is in bytes, and which one it is, as `docs/packed.md` has it.
fn head(bytes: &[u8]) -> Option<(usize, u64)> {
    let (short, rest) = bytes.split_first_chunk()?;
    match u32::from_le_bytes(*short) {
        u32::MAX => Some((12, u64::from_le_bytes(*rest.first_chunk()?))),
        short => Some((4, short.into())),
    }
}
