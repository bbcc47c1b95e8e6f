//! `ipc::copy` beside `std::io::copy` and a loop of reads and writes, with the contenders taking turns in one run.
//!
//! `cargo bench --bench copy` prints, for each route and contender, the median rate and the processor time that everybody
//! together took for a GiB; `-- --busy` is for a machine that has other work. The contender "moved" never has the bytes in
//! this process, also where `copy` has a reason to read and write them: where readers would see a file change, and where
//! it is slower. This process copies on one core. The processes that feed it and read from it are on the other.

mod common;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use common::*;
use ipc::{Child, Ends, PipeReader, PipeWriter, StreamSocket};

fn main() {
    let plan = Plan::from_arguments(64 << 20, 9);
    pin(0);
    println!("GiB/s, and milliseconds of everybody's processor time for a GiB; {plan}\n");
    print!("{:<18}", "");
    CONTENDERS.iter().for_each(|(name, _)| print!("{name:>20}"));
    println!("{:>11}{:>11}", "ipc/std", "ipc/loop");
    for from in [Kind::Pipe, Kind::Memory, Kind::Disk, Kind::Stream] {
        for to in [Kind::Pipe, Kind::Memory, Kind::Disk, Kind::Stream, Kind::Null] {
            route(from, to, &plan);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pipe,
    Stream,
    /// A file that has no disk under it, as on tmpfs.
    Memory,
    /// A file on a disk, all of which is in memory.
    Disk,
    Null,
}

/// An end or a file.
enum Any {
    Reader(PipeReader),
    Writer(PipeWriter),
    Stream(StreamSocket),
    File(File),
}

impl AsFd for Any {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Any::Reader(end) => end.as_fd(),
            Any::Writer(end) => end.as_fd(),
            Any::Stream(end) => end.as_fd(),
            Any::File(file) => file.as_fd(),
        }
    }
}

/// Copies everything, closes both, and says how much it was.
type Contender = (&'static str, fn(Any, Any) -> u64);

const CONTENDERS: [Contender; 5] = [
    ("ipc::copy", |from, to| ipc::copy(from, to).expect("it goes to the end")),
    ("std::io::copy", std_copy),
    ("loop, 8 KiB", |from, to| read_and_write(&from, &to, 8 << 10)),
    ("loop, 64 KiB", |from, to| read_and_write(&from, &to, 64 << 10)),
    ("moved", moved),
];

/// Of the standard library's own types, as it knows what to do with these.
fn std_copy(from: Any, to: Any) -> u64 {
    fn from_one(mut from: impl Read, to: Any) -> io::Result<u64> {
        match to {
            Any::Writer(end) => io::copy(&mut from, &mut io::PipeWriter::from(end)),
            Any::Stream(end) => io::copy(&mut from, &mut UnixStream::from(end)),
            Any::File(mut file) => io::copy(&mut from, &mut file),
            Any::Reader(_) => unreachable!("nothing is written to a reader"),
        }
    }
    let copied = match from {
        Any::Reader(end) => from_one(io::PipeReader::from(end), to),
        Any::Stream(end) => from_one(UnixStream::from(end), to),
        Any::File(file) => from_one(file, to),
        Any::Writer(_) => unreachable!("nothing is read from a writer"),
    };
    copied.expect("it goes to the end")
}

fn read_and_write(from: &Any, to: &Any, size: usize) -> u64 {
    let mut buf = vec![0; size];
    let mut copied = 0;
    loop {
        // SAFETY: open descriptors, and buffers of that length.
        let len = unsafe { libc::read(from.as_fd().as_raw_fd(), buf.as_mut_ptr().cast(), size) };
        let mut rest = &buf[..usize::try_from(len).expect("it can be read")];
        if rest.is_empty() {
            return copied;
        }
        copied += len as u64;
        while !rest.is_empty() {
            // SAFETY: as above.
            let len = unsafe { libc::write(to.as_fd().as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
            rest = &rest[usize::try_from(len).expect("it can be written")..];
        }
    }
}

fn moved(from: Any, to: Any) -> u64 {
    let nowhere = std::ptr::null_mut;
    let (from_fd, to_fd) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: descriptors that are open while this is called, and no offsets.
    let splice = |from, to, len| unsafe { libc::splice(from, nowhere(), to, nowhere(), len, 0) };
    let stage = bare_pipe();
    let (stage_reader, stage_writer) = (stage.0.0.as_raw_fd(), stage.1.0.as_raw_fd());
    let mut copied = 0;
    loop {
        let len = match (&from, &to) {
            (Any::Reader(_), _) | (_, Any::Writer(_)) => splice(from_fd, to_fd, 1 << 20),
            // SAFETY: open descriptors, and no offset.
            (Any::File(_), _) => unsafe { libc::sendfile(to_fd, from_fd, std::ptr::null_mut(), 1 << 20) },
            _ => {
                let staged = splice(from_fd, stage_writer, 1 << 20);
                let mut left = staged;
                while left > 0 {
                    let len = splice(stage_reader, to_fd, left as usize);
                    assert!(len > 0, "{}", io::Error::last_os_error());
                    left -= len;
                }
                staged
            }
        };
        match len {
            0 => return copied,
            len => copied += u64::try_from(len).expect("it can be moved"),
        }
    }
}

/// One line: every contender on the way from the one to the other.
fn route(from: Kind, to: Kind, plan: &Plan) {
    let len = plan.bytes;
    let source = file(from).map(|mut file| {
        let part = vec![7; 1 << 20];
        (0..len / part.len()).for_each(|_| file.write_all(&part).expect("there is room"));
        file
    });
    let mut results = vec![(Vec::new(), Vec::new()); CONTENDERS.len()];
    for round in 0..plan.rounds {
        for turn in 0..CONTENDERS.len() {
            let this = (round + turn) % CONTENDERS.len(); // so that none has the same one before it all the time
            let gate = ipc_pipe();
            let (from, feeder) = match &source {
                Some(file) => {
                    let mut file = file.try_clone().expect("a descriptor");
                    file.rewind().expect("a file has a start");
                    (Any::File(file), None)
                }
                None => feed(from, &gate.0, len),
            };
            let (to, drain) = match file(to) {
                Some(file) => (Any::File(file), None),
                None => drained(to),
            };
            let before = processor_time();
            let started = Instant::now();
            gate.1.write_atomic(b"!").expect("there is room");
            assert_eq!(CONTENDERS[this].1(from, to), len as u64);
            drain.iter().for_each(done);
            let took = started.elapsed();
            feeder.iter().for_each(done);
            let gib = len as f64 / (1_u64 << 30) as f64;
            results[this].0.push(gib / took.as_secs_f64());
            results[this].1.push((processor_time() - before) * 1e3 / gib);
        }
    }
    let results: Vec<_> =
        results.into_iter().map(|(rates, costs)| (quantile(plan.quantile, rates), median(costs))).collect();
    print!("{:<18}", format!("{from:?} to {to:?}").to_lowercase());
    results.iter().for_each(|(rate, cost)| print!("{:>20}", format!("{rate:.2} ({cost:.0})")));
    let ratio = |beside: usize| results[0].0 / results[beside].0;
    println!("{:>11.2}{:>11.2}", ratio(1), ratio(2).min(ratio(3)));
}

fn file(kind: Kind) -> Option<File> {
    match kind {
        // SAFETY: a nul-terminated name; the descriptor is new.
        Kind::Memory => Some(unsafe { File::from_raw_fd(libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC)) }),
        Kind::Disk => {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("file-{}", std::process::id()));
            let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
            std::fs::remove_file(path).expect("it is there");
            Some(file)
        }
        Kind::Null => Some(File::create("/dev/null").expect("/dev/null")),
        Kind::Pipe | Kind::Stream => None,
    }
}

/// A source that a child writes to once the gate is open.
fn feed(kind: Kind, gate: &PipeReader, len: usize) -> (Any, Option<Child>) {
    fn start(writing: impl Write + Ends, gate: &PipeReader, len: usize) -> Option<Child> {
        let gate = gate.try_clone().expect("a descriptor");
        let child = ipc::fork((writing, gate), |(mut writing, mut gate)| {
            pin(1);
            let part = vec![7; 64 << 10];
            gate.read_exact(&mut [0]).expect("it is opened");
            (0..len / part.len()).for_each(|_| writing.write_all(&part).expect("it is read"));
        });
        Some(child.expect("a benchmark has one thread"))
    }
    if let Kind::Pipe = kind {
        let (reader, writer) = ipc_pipe();
        return (Any::Reader(reader), start(writer, gate, len));
    }
    let pair = ipc::stream_pair().expect("a pair");
    (Any::Stream(pair.parent), start(pair.child, gate, len))
}

/// A target that a child reads from, looking at every byte.
fn drained(kind: Kind) -> (Any, Option<Child>) {
    fn start(reading: impl Read + Ends) -> Option<Child> {
        let child = ipc::fork(reading, |mut reading| {
            pin(1);
            let mut buf = vec![0; 64 << 10];
            loop {
                match reading.read(&mut buf).expect("it can be read") {
                    0 => break,
                    len => look_at(&buf[..len]),
                }
            }
        });
        Some(child.expect("a benchmark has one thread"))
    }
    if let Kind::Pipe = kind {
        let (reader, writer) = ipc_pipe();
        return (Any::Writer(writer), start(reader));
    }
    let pair = ipc::stream_pair().expect("a pair");
    (Any::Stream(pair.parent), start(pair.child))
}

fn done(child: &Child) {
    assert!(child.wait().expect("it can be waited for").success());
}
