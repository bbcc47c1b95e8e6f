//! What bytes can be moved from and to: each kind of end, file and device, with somebody on the other side of it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::PathBuf;

use ipc::{Child, Ends, PipeReader, PipeWriter, StreamSocket, fork, pipe, stream_pair};

use super::named_fifo;
use super::processes::exit_code;

/// Bytes that their place in the stream gives away.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = Vec::from_iter(0..251).repeat(len.div_ceil(251));
    bytes.truncate(len);
    bytes
}

/// Something to read from, which holds some bytes, or which a child writes them to.
pub struct Source {
    pub end: Box<dyn AsFd>,
    pub feeder: Option<Child>,
}

/// The kinds of sources that [`source`] makes.
pub const SOURCES: [&str; 6] =
    ["a file", "a file in memory", "a pipe", "a FIFO with a name", "a unix stream", "a TCP connection"];

/// A source of that kind, with these bytes and then the end.
#[track_caller]
pub fn source(kind: &str, bytes: &[u8]) -> Source {
    match kind {
        "a file" => Source { end: Box::new(holding(disk_file(), bytes)), feeder: None },
        "a file in memory" => Source { end: Box::new(holding(memory_file(), bytes)), feeder: None },
        _ => {
            let (reading, writing) = channel(kind);
            let feeder = fork(writing, |mut writing| {
                // A test may not want all of it.
                let _ = writing.write_all(bytes);
                writing.finish();
            });
            Source { end: reading, feeder: Some(feeder.expect("a test has one thread")) }
        }
    }
}

impl Source {
    /// Closes it, and waits for whoever wrote to it.
    #[track_caller]
    pub fn done(self) {
        drop(self.end);
        assert!(self.feeder.iter().all(|feeder| exit_code(feeder) == 0));
    }
}

/// Something to write to.
pub struct Target {
    pub end: Box<dyn WriteSide>,
    /// Where what arrives is found: the file itself, or one that a child copies it to.
    arrived: File,
    drain: Option<Child>,
}

/// The kinds of targets that [`target`] makes.
pub const TARGETS: [&str; 9] = [
    "a file",
    "a file in memory",
    "a file that is appended to",
    "a pipe",
    "a FIFO with a name",
    "a unix stream",
    "a TCP connection",
    "a terminal",
    "/dev/null",
];

/// A target of that kind.
#[track_caller]
pub fn target(kind: &str) -> Target {
    let file = |end: File| {
        let arrived = end.try_clone().expect("a copy of a descriptor");
        Target { end: Box::new(end), arrived, drain: None }
    };
    match kind {
        "a file" => file(disk_file()),
        "a file in memory" => file(memory_file()),
        "a file that is appended to" => {
            let end = disk_file();
            // SAFETY: an open descriptor and a flag.
            assert_eq!(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) }, 0);
            file(end)
        }
        "/dev/null" => file(File::options().read(true).write(true).open("/dev/null").expect("/dev/null")),
        "a terminal" => terminal(),
        _ => {
            let (reading, writing) = channel(kind);
            drained(reading, || writing)
        }
    }
}

impl Target {
    /// Ends the stream, and says what has arrived.
    #[track_caller]
    pub fn arrived(mut self) -> Vec<u8> {
        self.end.finish();
        drop(self.end);
        assert!(self.drain.iter().all(|child| exit_code(child) == 0));
        let mut bytes = Vec::new();
        self.arrived.rewind().and_then(|()| self.arrived.read_to_end(&mut bytes)).expect("a file can be read");
        bytes
    }
}

/// What a stream of bytes is written to.
pub trait WriteSide: AsFd + Write + Ends {
    /// Says that no more comes, where closing this copy is not enough.
    fn finish(&mut self) {}
}

impl WriteSide for File {}
impl WriteSide for PipeWriter {}

impl WriteSide for StreamSocket {
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write); // the peer may be gone
    }
}

/// A child that is forked later has a copy of it, as of everything that is none of the crate's.
impl WriteSide for TcpStream {
    fn finish(&mut self) {
        let _ = TcpStream::shutdown(self, Shutdown::Write); // the peer may be gone
    }
}

/// Both sides of a pipe, a FIFO, a stream or a connection.
#[track_caller]
pub fn channel(kind: &str) -> (Box<dyn ReadSide>, Box<dyn WriteSide>) {
    match kind {
        "a pipe" => {
            let (reader, writer) = pipe().expect("a pipe");
            (Box::new(reader), Box::new(writer))
        }
        "a FIFO with a name" => {
            let (reader, writer) = named_fifo();
            let (reader, writer) = (PipeReader::try_from(reader), PipeWriter::try_from(writer));
            (Box::new(reader.expect("its reader")), Box::new(writer.expect("its writer")))
        }
        "a unix stream" => {
            let pair = stream_pair().expect("a pair");
            (Box::new(pair.child), Box::new(pair.parent))
        }
        "a TCP connection" => {
            let (reading, writing) = tcp_pair();
            (Box::new(reading), Box::new(writing))
        }
        _ => panic!("{kind} is no channel"),
    }
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on this machine");
    let writing = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    (listener.accept().expect("the other side of it").0, writing)
}

/// What a stream of bytes is read from.
pub trait ReadSide: AsFd + Read + Ends {}

impl ReadSide for PipeReader {}
impl ReadSide for StreamSocket {}
impl ReadSide for TcpStream {}
impl ReadSide for File {}

/// What is written is read by a child as it comes. `writing` is called where the child has no copy of its result.
fn drained(reading: Box<dyn ReadSide>, writing: impl FnOnce() -> Box<dyn WriteSide>) -> Target {
    let arrived = memory_file();
    let child = fork(reading, |mut reading| {
        let mut buf = [0; 16 << 10];
        loop {
            match reading.read(&mut buf) {
                // A terminal says at its end that nobody is there (EIO).
                Ok(0) | Err(_) => break,
                Ok(len) => (&arrived).write_all(&buf[..len]).expect("a file in memory can be written"),
            }
        }
    });
    Target { end: writing(), arrived, drain: Some(child.expect("a test has one thread")) }
}

/// One that changes no byte.
fn terminal() -> Target {
    // SAFETY: the descriptor is new; room for the settings and the name, which ends with a nul.
    let (master, path) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0, "{}", std::io::Error::last_os_error());
        let mut settings = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(master, &mut settings), 0);
        libc::cfmakeraw(&mut settings);
        assert_eq!(libc::tcsetattr(master, libc::TCSANOW, &settings), 0);
        assert_eq!(libc::unlockpt(master), 0);
        let mut name = [0_u8; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr().cast(), name.len()), 0);
        let len = name.iter().position(|byte| *byte == 0).expect("a nul");
        (File::from_raw_fd(master), String::from_utf8_lossy(&name[..len]).into_owned())
    };
    drained(Box::new(master), || Box::new(File::options().write(true).open(path).expect("a terminal")))
}

/// A file that is to be read from its start.
#[track_caller]
fn holding(mut file: File, bytes: &[u8]) -> File {
    file.write_all(bytes).and_then(|()| file.rewind()).expect("a file can be written");
    file
}

/// A file on a disk, without a name.
pub fn disk_file() -> File {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("file-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(path).expect("it is there");
    file
}

/// A file that has no disk under it.
pub fn memory_file() -> File {
    // SAFETY: a nul-terminated name; the descriptor is new.
    unsafe {
        let fd = libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    }
}
