//! A ring whose peer does what the input says: it writes any word of the shared page, any byte of the data, punches holes, rings,
//! says hello with anything, and leaves. The side under test reads or writes in between, and while a thread scribbles. It
//! neither panics nor waits, and what is wrong once stays wrong.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ipc::{Error, RingReader, RingWriter, StreamSocket};

const PAGE: usize = 4096;
const CAPACITY: usize = 4096;
const LENGTH: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

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
}

fn memory(len: usize, seals: libc::c_int) -> File {
    // SAFETY: a nul-terminated name; the descriptor is new; numbers.
    unsafe {
        let raw = libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        let file = File::from_raw_fd(raw);
        file.set_len(len as u64).expect("memory");
        libc::fcntl(raw, libc::F_ADD_SEALS, seals);
        file
    }
}

fn hello(capacity: u64) -> Vec<u8> {
    [&b"ipc ring"[..], &1_u32.to_le_bytes(), &(PAGE as u32).to_le_bytes(), &capacity.to_le_bytes(), &[0; 8]].concat()
}

/// Both sides, and the memory as the peer has it.
fn begin(script: &mut Script<'_>) -> (Side, Option<StreamSocket>, File) {
    let pair = ipc::stream_pair().expect("a pair");
    let how = script.byte();
    if how & 1 == 0 {
        let writer = RingWriter::with_capacity(pair.parent, CAPACITY).expect("a ring");
        let (_, mut received) = pair.child.recv_with(&mut [0; 32]).expect("a hello");
        let memory: OwnedFd = received.take().expect("the memory");
        return (Side::Writer(writer), Some(pair.child), memory.into());
    }
    let reader = RingReader::new(pair.parent).expect("a reader");
    let seals = if how & 2 == 0 { LENGTH } else { script.byte().into() };
    let len = if how & 4 == 0 { PAGE + CAPACITY } else { script.counter() as usize % (1 << 40) };
    let memory = memory(len, seals);
    let mut told = hello(if how & 8 == 0 { CAPACITY as u64 } else { script.number() });
    if how & 16 != 0 {
        told[usize::from(script.byte()) % 32] ^= script.byte();
    }
    let (first, rest) = told.split_at(if how & 32 == 0 { 32 } else { 1 + usize::from(script.byte()) % 31 });
    let fds = if how & 64 == 0 { vec![&memory] } else { vec![&memory; usize::from(script.byte()) % 4] };
    pair.child.send_with(first, fds).expect("there is room");
    if how & 128 == 0 {
        (&pair.child).write_all(rest).expect("there is room");
    }
    (Side::Reader(reader), Some(pair.child), memory)
}

/// One call of the side under test. `Some`: the ring is broken.
fn call(side: &mut Side, which: u8, len: usize) -> Option<String> {
    let mut buf = vec![0; len];
    let done = match side {
        Side::Reader(ring) => match which % 4 {
            0 => ring.available(),
            1 => ring.read_timeout(&mut buf, Duration::ZERO),
            2 => {
                let _ = ring.watch();
                ring.try_read(&mut buf)
            }
            _ => ring.try_read(&mut buf),
        },
        Side::Writer(ring) => match which % 4 {
            0 => ring.is_closed().map(usize::from),
            1 => ring.write_timeout(&buf, Duration::ZERO),
            2 => {
                let _ = ring.watch();
                ring.try_write(&buf)
            }
            _ => ring.try_write(&buf),
        },
    };
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

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let races = script.byte() == 255;
    let (mut side, mut peer, memory) = begin(&mut script);
    let raced = memory.try_clone().expect("a descriptor");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let racer = races.then(|| {
            scope.spawn(|| {
                let mut random = 88_172_645_463_325_252_u64;
                while !stop.load(Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let _ = raced.write_at(&(random >> 16 & 0x1fff).to_le_bytes(), (random & 3) * 128);
                }
            })
        });
        let mut broken = None;
        while !script.0.is_empty() {
            match script.byte() % 8 {
                // Beyond the end of what was sealed, it is refused.
                0 | 1 => {
                    let (word, value) = (u64::from(script.byte() % 4) * 128, script.counter());
                    let _ = memory.write_at(&value.to_le_bytes(), word);
                }
                2 => {
                    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    // SAFETY: an open descriptor and numbers.
                    unsafe { libc::fallocate(memory.as_raw_fd(), how, 0, (PAGE + CAPACITY) as libc::off_t) };
                }
                3 => {
                    let len = usize::from(script.byte()) + 1;
                    peer.iter().for_each(|peer| drop(peer.try_write(&vec![1; len])));
                }
                4 if script.byte() == 0 => peer = None,
                which => {
                    let error = call(&mut side, which, usize::from(script.byte()) * 40);
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
});
