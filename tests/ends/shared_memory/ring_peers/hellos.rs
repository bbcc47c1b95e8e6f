//! What arrives in the place of a hello: pieces, other bytes, and memory that is not what it should be.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::{CAPACITY, HEAD, LENGTH, Mapped, hello, memory, page, reader_with_hand};
use crate::support::{self, FAR, Is, Kernel, Trial, assert_times_out, disk_file, exit_code, refuse_calls};
use ipc::{Error, RingReader, RingWriter, StreamSocket, fork, pipe, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_hello_is_taken_in_pieces,
        a_hello_that_is_cut_short_says_so,
        a_hello_that_comes_twice_changes_nothing,
        urgent_bytes_are_no_hello_no_ring_and_no_end needs [UrgentBytes],
        a_wrong_hello_is_an_error_and_stays_one,
        what_is_no_sealed_memory_is_refused,
        memory_of_huge_pages_is_refused needs [HugeMemory],
        memory_of_another_length_is_refused,
        memory_with_holes_is_filled_or_refused_before_it_is_used,
        the_same_before_the_kernel_populates_mappings,
        a_peer_that_holds_the_lock_of_the_memory_holds_up_no_call needs [Userfaults],
        and_none_before_the_kernel_populates_mappings needs [Userfaults],
        too_many_descriptors_are_closed,
        a_hello_that_is_not_whole_keeps_one_descriptor_at_most,
        memory_that_cannot_be_had_is_an_error,
    ]
}

fn a_hello_is_taken_in_pieces() {
    let pair = stream_pair().unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    let memory = memory(page() + CAPACITY, LENGTH);
    let hello = hello(CAPACITY as u64);
    for (number, byte) in hello.iter().enumerate() {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)), "{number}");
        match number {
            20 => pair.child.send_with(&[*byte], &memory).map(drop).unwrap(),
            _ => (&pair.child).write_all(&[*byte]).unwrap(),
        }
    }
    Mapped::new(&memory).word(HEAD).store(9, SeqCst);
    assert_eq!(reader.read(&mut [0; 100]).unwrap(), 9);
}

fn a_hello_that_is_cut_short_says_so() {
    for len in [1, 8, 31] {
        let pair = stream_pair().unwrap();
        let mut reader = RingReader::new(pair.parent).unwrap();
        (&pair.child).write_all(&hello(CAPACITY as u64)[..len]).unwrap();
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        drop(pair.child);
        for _ in 0..3 {
            let error = Error::from(reader.read(&mut [0; 8]).unwrap_err());
            assert!(matches!(&error, Error::Truncated { message, expected: Some(32) } if message.len() == len));
        }
    }
}

fn a_hello_that_comes_twice_changes_nothing() {
    let pair = stream_pair().unwrap();
    let (memory, other) = (memory(page() + CAPACITY, LENGTH), memory(page() + 4096, LENGTH));
    // Before the first one is heard, and after that, where the descriptors may be refused.
    pair.child.send_with(&hello(CAPACITY as u64), &memory).unwrap();
    pair.child.send_with(&hello(4096), &other).unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    for (told, memory) in [(hello(CAPACITY as u64), &memory), (hello(4096), &other)] {
        if pair.child.send_with(&told, memory).is_err() {
            pair.child.try_write(&told).unwrap();
        }
    }
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    Mapped::new(&memory).word(HEAD).store(3, SeqCst);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 3);
}

fn send_urgent(socket: &StreamSocket) {
    // SAFETY: an open socket, and one byte.
    let sent = unsafe { libc::send(socket.as_raw_fd(), [b'!'].as_ptr().cast(), 1, libc::MSG_OOB | libc::MSG_NOSIGNAL) };
    assert_eq!(sent, 1, "{}", std::io::Error::last_os_error());
}

/// `MSG_OOB` (Linux 5.15) puts a byte aside, and a mark into the stream.
fn urgent_bytes_are_no_hello_no_ring_and_no_end() {
    let pair = stream_pair().unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    let memory = memory(page() + CAPACITY, LENGTH);
    let told = hello(CAPACITY as u64);
    // One alone, in the middle of a hello, and at its end.
    for piece in [&told[..0], &told[..10], &told[10..20], &told[20..]] {
        let ends: Vec<&OwnedFd> = if piece.len() > 10 { vec![&memory] } else { Vec::new() };
        if !piece.is_empty() {
            pair.child.send_with(piece, ends).unwrap();
        }
        send_urgent(&pair.child);
        let early = reader.read_timeout(&mut [0; 8], Duration::from_millis(1));
        assert!(matches!(early, Err(Error::TimedOut)), "{early:?}");
    }
    let mapped = Mapped::new(&memory);
    for number in 1..=20 {
        (0..number).for_each(|_| send_urgent(&pair.child));
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        let waited = reader.read_timeout(&mut [0; 8], Duration::from_millis(1));
        assert!(matches!(waited, Err(Error::TimedOut)), "{waited:?}");
        let _ = wait_any(&mut [reader.watch()], Some(Duration::ZERO)).unwrap();
        mapped.word(HEAD).store(number, SeqCst);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    }
    send_urgent(&pair.child);
    drop(pair.child);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

/// What a reader says to bytes and ends that arrive in the place of a hello.
#[track_caller]
fn answer(bytes: &[u8], ends: Vec<OwnedFd>) -> Error {
    let pair = stream_pair().unwrap();
    pair.child.send_with(bytes, ends).unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    let error = reader.read_timeout(&mut [0; 8], FAR).unwrap_err();
    let again = reader.try_read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.to_string(), again.to_string());
    assert!(reader.available().is_err());
    assert_eq!(wait_any(&mut [reader.watch()], None).unwrap(), 1);
    error
}

fn a_wrong_hello_is_an_error_and_stays_one() {
    let fitting = || vec![memory(page() + CAPACITY, LENGTH)];
    let right = hello(CAPACITY as u64);
    for place in 0..right.len() {
        // Any bit of it. A capacity of another power of two does not fit the memory.
        for bit in 0..8 {
            let mut wrong = right.clone();
            wrong[place] ^= 1 << bit;
            let error = answer(&wrong, fitting());
            assert!(matches!(&error, Error::Malformed { message } if *message == wrong), "{place} {bit}: {error:?}");
        }
    }
    for capacity in [0, 1, 4095, 5000, u64::MAX] {
        assert!(matches!(answer(&hello(capacity), fitting()), Error::Malformed { .. }), "{capacity}");
    }
    for capacity in [128 << 20, 1 << 40, 1 << 63] {
        let error = answer(&hello(capacity), fitting());
        assert!(matches!(error, Error::TooLong { max, .. } if max == 64 << 20), "{error:?}");
    }
    assert!(matches!(answer(&right, Vec::new()), Error::Malformed { .. }));
    // Bytes of a peer that knows nothing of rings.
    assert!(matches!(answer(&[b'x'; 1000], Vec::new()), Error::Malformed { message } if message.len() == 32));
}

#[track_caller]
fn assert_wrong_kind(memory: impl Into<OwnedFd>, expected: &str) {
    match answer(&hello(CAPACITY as u64), vec![memory.into()]) {
        Error::WrongKind { found, .. } => assert_eq!(found, expected),
        error => panic!("{error:?}"),
    }
}

fn what_is_no_sealed_memory_is_refused() {
    let len = page() + CAPACITY;
    for seals in 0..16 {
        if seals & LENGTH != LENGTH {
            assert_wrong_kind(memory(len, seals), "memory whose length can still be changed");
        }
    }
    let file = disk_file();
    file.set_len(len as u64).unwrap();
    assert_wrong_kind(file, "a file");
    let (reader, writer) = pipe().unwrap();
    assert_wrong_kind(reader, "the reading end of a pipe");
    assert_wrong_kind(writer, "the writing end of a pipe");
    assert_wrong_kind(stream_pair().unwrap().parent, "a socket");
    let sealed = memory(len, LENGTH);
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    assert_wrong_kind(File::open(&path).unwrap(), "memory that cannot be read and written");
    // Sealed against writing too: it cannot be mapped.
    for seal in [libc::F_SEAL_WRITE, 0x10] {
        let error = answer(&hello(CAPACITY as u64), vec![memory(len, LENGTH | seal)]);
        assert!(matches!(error, Error::System { .. }), "{error:?}");
    }
}

fn memory_of_huge_pages_is_refused() {
    let huge = File::from(support::huge_memory().unwrap());
    huge.set_len(std::os::unix::fs::MetadataExt::blksize(&huge.metadata().unwrap())).unwrap(); // one page
    // SAFETY: an open descriptor and a number.
    assert_eq!(unsafe { libc::fcntl(huge.as_raw_fd(), libc::F_ADD_SEALS, LENGTH) }, 0);
    assert_wrong_kind(huge, "a file");
}

fn memory_of_another_length_is_refused() {
    let right = page() + CAPACITY;
    for len in [0, 1, page(), CAPACITY, right - 1, right + 1, right + page(), 1 << (usize::BITS - 24)] {
        let error = answer(&hello(CAPACITY as u64), vec![memory(len, LENGTH)]);
        assert!(matches!(error, Error::Malformed { .. }), "{len}: {error:?}");
    }
}

fn memory_with_holes_is_filled_or_refused_before_it_is_used() {
    let (mut reader, _socket, mapped, memory) = reader_with_hand(); // of nothing but holes
    let blocks = std::os::unix::fs::MetadataExt::blocks(&File::from(memory).metadata().unwrap());
    assert!(blocks as usize * 512 >= page() + CAPACITY);
    mapped.word(HEAD).store(CAPACITY as u64, SeqCst);
    assert_eq!(reader.read(&mut [0; 2 * CAPACITY]).unwrap(), CAPACITY);
}

/// As before Linux 5.14.
fn populate_no_mappings() {
    const MADV_POPULATE_READ: u32 = 22;
    Kernel::new().with(libc::SYS_madvise, 2, Is::Equal(MADV_POPULATE_READ), libc::EINVAL).play();
}

fn the_same_before_the_kernel_populates_mappings() {
    populate_no_mappings();
    memory_with_holes_is_filled_or_refused_before_it_is_used();
}

/// Writes to the file from a page that is never there, and holds its lock for as long as this process lives. Returns when it
/// does.
fn hold_lock(file: OwnedFd) {
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const MISSING: u64 = 1;
    let faults = support::userfaults().unwrap();
    // SAFETY: a new mapping; the structures of ioctl_userfaultfd(2), as numbers; the message of a fault has 32 bytes.
    unsafe {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let place = libc::mmap(null_mut(), page(), prot, flags, -1, 0);
        assert_ne!(place, libc::MAP_FAILED);
        assert_eq!(libc::ioctl(faults.as_raw_fd(), UFFDIO_API as _, [0xaa_u64, 0, 0].as_mut_ptr()), 0);
        let mut range = [place as u64, page() as u64, MISSING, 0];
        assert_eq!(libc::ioctl(faults.as_raw_fd(), UFFDIO_REGISTER as _, range.as_mut_ptr()), 0);
        let place = place as usize;
        std::thread::spawn(move || libc::pwrite(file.as_raw_fd(), place as *const _, 8, 0));
        let mut fault = [0_u8; 32];
        assert_eq!(libc::read(faults.as_raw_fd(), fault.as_mut_ptr().cast(), 32), 32);
    }
    std::mem::forget(faults);
}

fn a_peer_that_holds_the_lock_of_the_memory_holds_up_no_call() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        // SAFETY: a number. A reader that is held up goes on then.
        unsafe { libc::alarm(10) };
        let memory = memory(page() + CAPACITY, LENGTH);
        hold_lock(memory.try_clone().unwrap());
        socket.send_with(&hello(CAPACITY as u64), &memory).unwrap();
        let _ = (&socket).read(&mut [0; 8]); // until the reader leaves
    });
    let child = child.unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_times_out("read_timeout", Duration::from_millis(10), |timeout| reader.read_timeout(&mut [0; 8], timeout));
    assert!(child.try_wait().unwrap().is_none(), "the peer still holds it");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn and_none_before_the_kernel_populates_mappings() {
    populate_no_mappings();
    a_peer_that_holds_the_lock_of_the_memory_holds_up_no_call();
}

fn too_many_descriptors_are_closed() {
    let fitting = || memory(page() + CAPACITY, LENGTH);
    // The inventory is taken when the trial is over.
    assert!(matches!(answer(&hello(CAPACITY as u64), vec![fitting(), fitting()]), Error::Malformed { .. }));
    let many = (0..253).map(|_| File::open("/dev/null").unwrap().into()).collect();
    assert!(matches!(answer(&hello(CAPACITY as u64), many), Error::Malformed { .. }));
}

fn a_hello_that_is_not_whole_keeps_one_descriptor_at_most() {
    let pair = stream_pair().unwrap();
    let mut reader = RingReader::new(pair.child).unwrap();
    let told = hello(CAPACITY as u64);
    let null = || -> Vec<OwnedFd> { (0..2).map(|_| File::open("/dev/null").unwrap().into()).collect() };
    let open = support::Inventory::take();
    pair.parent.send_with(&told[..1], null()).unwrap();
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::Malformed { .. })));
    assert_eq!(open.compare(&support::Inventory::take()), None, "they are closed, and not kept for the rest");
    let more = pair.parent.send_with(&told[1..2], null()).unwrap_err();
    assert!(matches!(more.error, Error::Closed), "{more:?}: the peer is told");
    drop(more); // which has them
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::Malformed { .. })), "it stays so");
    assert_eq!(open.compare(&support::Inventory::take()), None);
}

fn memory_that_cannot_be_had_is_an_error() {
    for call in [libc::SYS_fallocate, libc::SYS_memfd_create] {
        let child = fork((), |()| {
            refuse_calls(&[call], libc::ENOMEM);
            let refused = RingWriter::new(stream_pair().unwrap().parent).unwrap_err();
            assert!(
                matches!(&refused.error, Error::System { source, .. }
                if source.raw_os_error() == Some(libc::ENOMEM)),
                "{refused:?}"
            );
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}
