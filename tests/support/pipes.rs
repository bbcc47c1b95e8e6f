//! What tests do with pipes again and again.

use std::io::Read;

use ipc::{Error, PipeReader, PipeWriter};

/// Writes until not a single byte more goes in, and says how many did.
#[track_caller]
pub fn fill(writer: &PipeWriter) -> usize {
    let mut written = 0;
    for len in [4096, 1] {
        loop {
            match writer.try_write(&[1; 4096][..len]) {
                Ok(more) => written += more,
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("a pipe with a reader is written to: {error:?}"),
            }
        }
    }
    written
}

/// Reads to the end.
#[track_caller]
pub fn read_all(mut reader: PipeReader) -> Vec<u8> {
    let mut data = Vec::new();
    reader.read_to_end(&mut data).unwrap();
    data
}
