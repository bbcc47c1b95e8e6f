//! A descriptor of another process's that is to be a blob: memory with any seals, any length, any parts of it written, fallocated
//! beyond its end or punched, opened for anything. What becomes a blob does not change, and what does not is given back as it was.

#![no_main]

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ipc::{Blob, Error};

/// Small enough that a run of many stays within the machine.
const LARGEST: u64 = 1 << 20;

const ALL: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;

/// The input, piece by piece; zeroes when it is used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn place(&mut self) -> u64 {
        let number = u64::from(self.byte()) << 12 | u64::from(self.byte());
        number % LARGEST
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    // SAFETY: a nul-terminated name; the descriptor is new.
    let mut file = unsafe {
        let raw = libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "memory");
        File::from_raw_fd(raw)
    };
    let raw = file.as_raw_fd();
    let (seals, how) = (script.byte(), script.byte());
    while !script.0.is_empty() {
        let (what, at, len) = (script.byte(), script.place(), script.place());
        // Some of it is refused, which is as well.
        match what % 5 {
            0 => drop(file.set_len(at)),
            1 | 2 => drop(file.write_at(&vec![what; len as usize % 9000], at)),
            // SAFETY: an open descriptor and numbers.
            3 => unsafe {
                let mode = libc::FALLOC_FL_KEEP_SIZE | if what & 128 == 0 { libc::FALLOC_FL_PUNCH_HOLE } else { 0 };
                libc::fallocate(raw, mode, at as libc::off_t, (len + 1) as libc::off_t);
            },
            _ => drop(file.seek(SeekFrom::Start(at))),
        }
    }
    let seals = if seals & 128 == 0 { ALL } else { libc::c_int::from(seals & 31) };
    // SAFETY: an open descriptor and a number.
    unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) };
    let position = file.stream_position().expect("a position");
    let given: OwnedFd = match how % 4 {
        0 => File::open(format!("/proc/self/fd/{raw}")).expect("it can be read").into(),
        1 => {
            File::options().write(true).open(format!("/proc/self/fd/{raw}")).map_or_else(|_| own(&file), OwnedFd::from)
        }
        _ => own(&file),
    };
    let number = given.as_raw_fd();
    match Blob::try_from(given) {
        Ok(blob) => {
            assert_eq!(seals & ALL, ALL, "it can still be changed");
            assert_eq!(blob.len() as u64, file.metadata().expect("a length").len());
            let before = blob.to_vec();
            assert!(file.write_at(b"changed", 0).is_err());
            assert!(file.set_len(blob.len() as u64 + 1).is_err());
            assert_eq!(*blob, *before);
            let mut read = vec![0; blob.len()];
            file.read_exact_at(&mut read, 0).expect("it can be read as a file");
            assert_eq!(*blob, *read);
        }
        Err(refused) => {
            assert_eq!(refused.fd.as_raw_fd(), number);
            assert!(matches!(refused.error, Error::WrongKind { .. }), "{:?}", refused.error);
        }
    }
    assert_eq!(file.stream_position().expect("a position"), position, "nobody has moved it");
});

fn own(file: &File) -> OwnedFd {
    file.try_clone().expect("a descriptor").into()
}
