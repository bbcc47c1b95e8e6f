//! What tests do with pipes again and again.

use std::fmt::Debug;
use std::io::Read;

use ipc::{Error, PIPE_BUF, PipeFlags, PipeReader, PipeWriter, pipe, pipe_with};

use super::{named_fifo, spliced_once};

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

/// Reads so many bytes.
#[track_caller]
pub fn read_some(mut reader: &PipeReader, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    reader.read_exact(&mut data).unwrap();
    data
}

/// Reads to the end.
#[track_caller]
pub fn read_all(mut reader: PipeReader) -> Vec<u8> {
    let mut data = Vec::new();
    reader.read_to_end(&mut data).unwrap();
    data
}

/// The call that the kernel refused, and its errno.
#[track_caller]
pub fn refused<T: Debug>(result: ipc::Result<T>) -> (&'static str, i32) {
    match result {
        Err(Error::System { call, source }) => (call, source.raw_os_error().expect("an errno")),
        other => panic!("refused by the kernel, and not {other:?}"),
    }
}

/// Pipes of every kind that needs another way to read or write without waiting.
pub fn kinds() -> Vec<(&'static str, PipeReader, PipeWriter)> {
    let (reader, writer) = pipe().unwrap();
    let (nonblocking_reader, nonblocking_writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let (spliced_reader, spliced_writer) = pipe().unwrap();
    spliced_once(&spliced_reader);
    spliced_once(&spliced_writer);
    let (fifo_reader, fifo_writer) = named_fifo();
    let (fifo_reader, fifo_writer) =
        (PipeReader::try_from(fifo_reader).unwrap(), PipeWriter::try_from(fifo_writer).unwrap());
    vec![
        ("a pipe", reader, writer),
        ("a pipe that does not wait", nonblocking_reader, nonblocking_writer),
        ("a pipe that was spliced", spliced_reader, spliced_writer),
        ("a FIFO with a name", fifo_reader, fifo_writer),
    ]
}

pub fn is_root() -> bool {
    // SAFETY: no conditions.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up what root may, for the rest of the test. What the kernel counts for this user is then of this test alone.
pub fn become_nobody() {
    let nobody = 100_000 + std::process::id();
    // SAFETY: numbers only.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgid(nobody), 0, "{}", std::io::Error::last_os_error());
            assert_eq!(libc::setuid(nobody), 0, "{}", std::io::Error::last_os_error());
        }
    }
}

/// A limit that the administrator has set.
pub fn pipe_setting(name: &str) -> usize {
    std::fs::read_to_string(format!("/proc/sys/fs/pipe-{name}")).unwrap().trim().parse().unwrap()
}

/// Makes large pipes until this user, who is not root, has so many that new ones are of one or two pages.
pub fn exhaust_pipe_pages() -> Vec<(PipeReader, PipeWriter)> {
    let mut many = Vec::new();
    loop {
        let (reader, writer) = pipe().unwrap();
        if writer.capacity().unwrap() <= 2 * PIPE_BUF || pipe_setting("user-pages-soft") == 0 {
            return many;
        }
        // Past the limit it is refused, and the next pipe is a small one, or the one after it.
        let _ = writer.set_capacity(pipe_setting("max-size"));
        many.push((reader, writer));
    }
}
