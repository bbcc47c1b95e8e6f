//! A ring whose peer does what the input says. It stores anything in the four words, and bytes anywhere in the memory. It punches
//! holes, rings, floods the socket with rings, and puts descriptors beside them. It says hello in pieces, wrongly, twice or
//! never, with memory of any kind, and leaves at any time. The side under test reads or writes in between, looks, watches and
//! sleeps for a moment. In some runs a thread scribbles meanwhile. No call panics or outlasts its time, an error stays an error,
//! and no descriptor stays open.

#![no_main]

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ipc::{Error, RingReader, RingWriter, StreamSocket};

const PAGE: usize = 4096;
const CAPACITY: usize = 4096;
const LENGTH: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// So much later than it should a call may end on a busy machine.
const LATE: Duration = Duration::from_secs(20);

enum Side {
    Reader(RingReader),
    Writer(RingWriter),
}

/// The input, piece by piece; zeroes when it is used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A counter that could be, or any.
    fn counter(&mut self) -> u64 {
        match self.byte() {
            0 => self.number(),
            1 => u64::MAX - u64::from(self.byte()),
            near => (u64::from(near) << 8 | u64::from(self.byte())) % (3 * CAPACITY as u64),
        }
    }

    /// The state of a side: bits that mean something, with a core that may be this one's; or any.
    fn state(&mut self) -> u64 {
        match self.byte() {
            255 => self.number(),
            bits => u64::from(bits & 15) | u64::from(bits >> 4) << 32,
        }
    }

    fn place(&mut self) -> u64 {
        (u64::from(self.byte()) << 8 | u64::from(self.byte())) % (PAGE + CAPACITY) as u64
    }
}

/// Memory of any length, with any seals, or a descriptor of another kind.
fn memory(kind: u8, len: usize, seals: libc::c_int) -> OwnedFd {
    match kind % 8 {
        1 => ipc::pipe().expect("a pipe").0.into(),
        2 => File::open("/dev/zero").expect("a device").into(),
        kind => {
            let huge = if kind == 3 { libc::MFD_HUGETLB } else { 0 };
            // SAFETY: a nul-terminated name; the descriptor is new; numbers.
            let file = unsafe {
                let raw = libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge);
                assert!(raw >= 0, "memory");
                File::from_raw_fd(raw)
            };
            let _ = file.set_len(len as u64); // huge pages have a length of their own
            // SAFETY: an open descriptor and numbers.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
            file.into()
        }
    }
}

fn hello(capacity: u64) -> Vec<u8> {
    [&b"ipc ring"[..], &1_u32.to_le_bytes(), &(PAGE as u32).to_le_bytes(), &capacity.to_le_bytes(), &[0; 8]].concat()
}

/// The other end of the socket, and the memory as the peer has it.
struct Peer {
    socket: Option<StreamSocket>,
    memory: File,
    /// What it has still to say of its hello.
    told: Vec<u8>,
}

impl Peer {
    /// Sends that many bytes of the hello, with that many descriptors.
    fn say(&mut self, len: usize, descriptors: usize) {
        let (Some(socket), len) = (&self.socket, len.min(self.told.len())) else { return };
        if len > 0 && socket.try_send_with(&self.told[..len], vec![&self.memory; descriptors]).is_ok() {
            self.told.drain(..len);
        }
    }

    /// One step of the input's.
    fn act(&mut self, what: u8, script: &mut Script<'_>) {
        // Writes beyond the end of sealed memory are refused, and so are bytes that the socket has no room for.
        match what {
            0 | 1 => drop(self.memory.write_at(&script.counter().to_le_bytes(), u64::from(script.byte() & 1) * 128)),
            2 => drop(self.memory.write_at(&script.state().to_le_bytes(), 256 + u64::from(script.byte() & 1) * 128)),
            3 => drop(self.memory.write_at(&vec![script.byte(); script.byte().into()], script.place())),
            4 => {
                let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let (from, len) = (script.place() as libc::off_t, script.place() as libc::off_t + 1);
                // SAFETY: an open descriptor and numbers.
                unsafe { libc::fallocate(self.memory.as_raw_fd(), how, from, len) };
            }
            5 => {
                let len = usize::from(script.byte()) + 1;
                self.socket.iter().for_each(|socket| drop(socket.try_write(&vec![1; len])));
            }
            6 => {
                let flood = [1; 8192];
                self.socket.iter().for_each(|socket| while socket.try_write(&flood).is_ok() {});
            }
            7 => {
                let ends = vec![&self.memory; usize::from(script.byte()) % 4];
                self.socket.iter().for_each(|socket| drop(socket.try_send_with(&[1], ends.clone())));
            }
            8 => {
                // Once more, or for the first time.
                self.told = hello(CAPACITY as u64);
                self.say(32, 1);
            }
            9 => match script.byte() {
                0 => self.socket = None,
                1 => self.socket.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Write))),
                2 => self.socket.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Read))),
                _ => {}
            },
            _ => self.say(script.byte().into(), usize::from(script.byte()) % 8 / 3),
        }
    }
}

/// Both sides.
fn begin(script: &mut Script<'_>) -> (Side, Peer) {
    let pair = ipc::stream_pair().expect("a pair");
    let how = script.byte();
    if how & 1 == 0 {
        let writer = RingWriter::with_capacity(pair.parent, CAPACITY).expect("a ring");
        let (_, mut received) = pair.child.recv_with(&mut [0; 32]).expect("a hello");
        let memory: OwnedFd = received.take().expect("the memory");
        return (Side::Writer(writer), Peer { socket: Some(pair.child), memory: memory.into(), told: Vec::new() });
    }
    let reader = RingReader::new(pair.parent).expect("a reader");
    let seals = if how & 2 == 0 { LENGTH } else { script.byte().into() };
    let len = if how & 4 == 0 { PAGE + CAPACITY } else { script.counter() as usize % (1 << 40) };
    let kind = if how & 128 == 0 { 0 } else { script.byte() };
    let mut told = hello(if how & 8 == 0 { CAPACITY as u64 } else { script.number() });
    if how & 16 != 0 {
        told[usize::from(script.byte()) % 32] ^= script.byte();
    }
    let mut peer = Peer { socket: Some(pair.child), memory: memory(kind, len, seals).into(), told };
    match how & 96 {
        0 => peer.say(32, 1),
        32 => peer.say(script.byte().into(), 1),
        64 => peer.say(32, usize::from(script.byte()) % 4),
        _ => {} // it comes in pieces, or never
    }
    (Side::Reader(reader), peer)
}

/// One call of the side under test. `Some`: the ring is broken.
fn call(side: &mut Side, which: u8, len: usize) -> Option<String> {
    let mut buf = vec![0; len];
    let time = if which & 16 == 0 { Duration::ZERO } else { Duration::from_micros((which >> 5).into()) };
    let started = Instant::now();
    let done = match side {
        Side::Reader(ring) => match which % 4 {
            0 => ring.available(),
            1 => ring.read_timeout(&mut buf, time),
            2 => {
                let _ = ipc::wait_any(&mut [ring.watch()], Some(time)).expect("a wait");
                ring.try_read(&mut buf)
            }
            _ => ring.try_read(&mut buf),
        },
        Side::Writer(ring) => match which % 4 {
            0 => ring.is_closed().map(usize::from),
            1 => ring.write_timeout(&buf, time),
            2 => {
                let _ = ipc::wait_any(&mut [ring.watch()], Some(time)).expect("a wait");
                ring.try_write(&buf)
            }
            _ => ring.try_write(&buf),
        },
    };
    assert!(started.elapsed() < LATE, "it has waited");
    match done {
        Ok(count) => assert!(count <= len.max(CAPACITY)),
        Err(Error::WouldBlock | Error::TimedOut | Error::Closed) => {}
        Err(error @ (Error::Malformed { .. } | Error::Truncated { .. } | Error::TooLong { .. })) => {
            return Some(error.to_string());
        }
        Err(error @ (Error::WrongKind { .. } | Error::System { .. })) => return Some(error.to_string()),
        Err(error) => panic!("{error:?}"),
    }
    None
}

/// The number that the next descriptor gets.
fn lowest_free() -> i32 {
    // SAFETY: the copy is new, and closed again.
    unsafe {
        let number = libc::dup(0);
        libc::close(number);
        number
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let before = lowest_free();
    attempt(bytes);
    assert_eq!(lowest_free(), before, "no descriptor stays open");
});

fn attempt(bytes: &[u8]) {
    let mut script = Script(bytes);
    let races = script.byte() == 255;
    let (mut side, mut peer) = begin(&mut script);
    let raced = peer.memory.try_clone().expect("a descriptor");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let racer = races.then(|| {
            scope.spawn(|| {
                let mut random = 88_172_645_463_325_252_u64;
                while !stop.load(Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    // Mostly what could be.
                    let value = if random >> 58 == 0 { random } else { random >> 16 & 0x1fff };
                    let _ = raced.write_at(&value.to_le_bytes(), (random & 3) * 128);
                }
            })
        });
        let mut broken = None;
        while !script.0.is_empty() {
            let what = script.byte();
            match what % 16 {
                step @ 0..=10 => peer.act(step, &mut script),
                _ => {
                    let error = call(&mut side, script.byte(), usize::from(script.byte()) * 40);
                    if !races && broken.is_some() {
                        assert_eq!(error, broken, "it stays as it is");
                    }
                    broken = broken.or(error);
                }
            }
        }
        stop.store(true, Relaxed);
        // A scope alone would not wait until the thread is gone, with all that it has.
        racer.into_iter().for_each(|racer| racer.join().expect("it does not panic"));
    });
}
