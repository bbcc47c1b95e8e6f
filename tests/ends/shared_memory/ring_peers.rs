//! What a ring's peer can do wrong, by accident or on purpose: this side answers with an error, and neither panics, hangs past
//! a deadline, nor takes memory that was not agreed to.
//!
//! The hostile peer speaks the format of `docs/ring.md` by hand.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, Gate, Is, Kernel, Trial, assert_times_out, bytes, disk_file, exit_code, refuse_calls,
    with_interval_timer,
};
use ipc::{Error, RingReader, RingWriter, StreamSocket, fork, pipe, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_by_hand_is_a_peer,
        a_reader_copes_with_every_value_of_every_word within 120,
        a_writer_copes_with_every_value_of_every_word within 120,
        a_hello_is_taken_in_pieces,
        a_hello_that_is_cut_short_says_so,
        a_hello_that_comes_twice_changes_nothing,
        urgent_bytes_are_no_hello_no_ring_and_no_end,
        sides_that_share_a_core_hardly_sleep within 120,
        a_core_that_a_peer_claims_holds_up_no_call,
        a_peer_that_dies_in_any_state_is_seen,
        a_reader_that_died_asleep_is_seen_at_the_ring_for_it,
        a_side_that_is_killed_at_any_of_its_calls_is_seen,
        a_wrong_hello_is_an_error_and_stays_one,
        what_is_no_sealed_memory_is_refused,
        memory_of_huge_pages_is_refused needs [HugeMemory],
        memory_of_another_length_is_refused,
        memory_with_holes_is_filled_or_refused_before_it_is_used,
        the_same_before_the_kernel_populates_mappings,
        a_peer_that_holds_the_lock_of_the_memory_holds_up_no_call needs [Userfaults],
        and_none_before_the_kernel_populates_mappings needs [Userfaults],
        holes_that_are_punched_are_zeroes_and_no_signal,
        too_many_descriptors_are_closed,
        a_hello_that_is_not_whole_keeps_one_descriptor_at_most,
        descriptors_with_rings_are_closed,
        descriptors_are_refused_after_the_hello needs [RefusedRights],
        a_flood_of_rings_holds_up_no_call within 120,
        rings_that_have_piled_up_are_taken_before_a_wait,
        a_call_that_does_not_wait_takes_no_more_than_some_rings,
        a_peer_that_scribbles_all_the_time_does_no_harm within 120,
        sides_are_killed_at_any_moment within 120,
        no_wake_up_is_lost_on_two_cores within 240,
        no_wake_up_is_lost_on_one_core within 240,
        no_wake_up_is_lost_while_signals_arrive within 240,
        no_wake_up_is_lost_without_membarrier within 240,
        the_same_where_membarrier_is_refused_later within 120,
        the_same_without_noexec_seals,
        memory_that_cannot_be_had_is_an_error,
    ]
}

const CAPACITY: usize = 8192;
const HEAD: usize = 0;
const TAIL: usize = 128;
const WRITER: usize = 256;
const READER: usize = 384;

fn page() -> usize {
    // SAFETY: no conditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn hello(capacity: u64) -> Vec<u8> {
    let page = page() as u32;
    [&b"ipc ring"[..], &1_u32.to_le_bytes(), &page.to_le_bytes(), &capacity.to_le_bytes(), &[0; 8]].concat()
}

const LENGTH: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Memory that can be sealed.
fn memory(len: usize, seals: i32) -> OwnedFd {
    // SAFETY: a nul-terminated name; the descriptor is new; numbers.
    unsafe {
        let raw = libc::memfd_create(c"by hand".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        let file = File::from_raw_fd(raw);
        file.set_len(len as u64).unwrap();
        assert_eq!(libc::fcntl(raw, libc::F_ADD_SEALS, seals), 0);
        file.into()
    }
}

/// The memory of a ring, mapped by hand.
struct Mapped {
    start: *mut u8,
    len: usize,
}

impl Mapped {
    fn new(fd: impl AsFd) -> Self {
        let len = page() + CAPACITY;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open descriptor.
        let start = unsafe { libc::mmap(null_mut(), len, prot, libc::MAP_SHARED, fd.as_fd().as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), len }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, and mapped as long as `self`.
        unsafe { AtomicU64::from_ptr(self.start.add(offset).cast()) }
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the mapping, whole; what it holds may be anything.
        unsafe { self.start.write_bytes(byte, self.len) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A reader of the crate, and its writer by hand: the socket, the memory.
fn reader_with_hand() -> (RingReader, StreamSocket, Mapped, OwnedFd) {
    let pair = stream_pair().unwrap();
    let memory = memory(page() + CAPACITY, LENGTH);
    let mapped = Mapped::new(&memory);
    pair.child.send_with(&hello(CAPACITY as u64), &memory).unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_eq!(reader.available().unwrap(), 0);
    (reader, pair.child, mapped, memory)
}

/// A writer of the crate, and its reader by hand.
fn writer_with_hand() -> (RingWriter, StreamSocket, Mapped, OwnedFd) {
    let pair = stream_pair().unwrap();
    let writer = RingWriter::with_capacity(pair.parent, CAPACITY).unwrap();
    let mut told = [0; 100];
    let (len, mut received) = pair.child.recv_with(&mut told).unwrap();
    assert_eq!(told[..len], hello(CAPACITY as u64));
    assert_eq!(received.len(), 1);
    let memory: OwnedFd = received.take().unwrap();
    (writer, pair.child, Mapped::new(&memory), memory)
}

fn a_peer_by_hand_is_a_peer() {
    let (mut reader, _socket, mapped, _) = reader_with_hand();
    // SAFETY: the first bytes of the data, which nobody reads before the head says so.
    unsafe { mapped.start.add(page()).copy_from(b"by hand".as_ptr(), 7) };
    mapped.word(HEAD).store(7, SeqCst);
    let mut buf = [0; 16];
    assert_eq!(reader.read(&mut buf).unwrap(), 7);
    assert_eq!(&buf[..7], b"by hand");
    assert_eq!(mapped.word(TAIL).load(SeqCst), 7);
    drop(reader);
    assert_eq!(mapped.word(READER).load(SeqCst) & 2, 2, "it said that it is done");

    let (mut writer, _socket, mapped, memory) = writer_with_hand();
    // SAFETY: an open descriptor.
    assert_eq!(unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) } & 15, LENGTH);
    writer.write_all(b"hello").unwrap();
    assert_eq!(mapped.word(HEAD).load(SeqCst), 5);
    drop(writer);
    assert_eq!(mapped.word(WRITER).load(SeqCst) & 2, 2);
}

fn extreme_values() -> Vec<u64> {
    let capacity = CAPACITY as u64;
    let near = |value: u64| [value.wrapping_sub(1), value, value.wrapping_add(1)];
    let mut values = Vec::from_iter([0, 100, capacity, 1 << 31, 1 << 32, 1 << 63, u64::MAX].into_iter().flat_map(near));
    values.extend((0..64).map(|bit| 1 << bit));
    values
}

fn a_reader_copes_with_every_value_of_every_word() {
    for word in [HEAD, TAIL, WRITER, READER] {
        for done in [0, 100] {
            for value in extreme_values() {
                let (mut reader, socket, mapped, _memory) = reader_with_hand();
                mapped.word(HEAD).store(done, SeqCst);
                let _ = reader.try_read(&mut [0; 100]);
                mapped.word(word).store(value, SeqCst);
                let mut buf = [0; 3 * CAPACITY];
                let result = reader.read_timeout(&mut buf, Duration::from_millis(1));
                match (word, value.wrapping_sub(done)) {
                    (HEAD, 0) => assert!(matches!(result, Err(Error::TimedOut)), "{value}: {result:?}"),
                    (HEAD, new) if new <= CAPACITY as u64 => assert_eq!(result.unwrap() as u64, new),
                    (HEAD, _) => {
                        assert!(matches!(result, Err(Error::Malformed { .. })), "{value}: {result:?}");
                        // And so it stays, whatever the word is then.
                        mapped.word(HEAD).store(done + 1, SeqCst);
                        assert!(matches!(reader.try_read(&mut buf), Err(Error::Malformed { .. })));
                        assert!(matches!(reader.available(), Err(Error::Malformed { .. })));
                        assert_eq!(wait_any(&mut [reader.watch()], None).unwrap(), 1);
                    }
                    (WRITER, _) if value & 2 != 0 => assert_eq!(result.unwrap(), 0),
                    _ => assert!(matches!(result, Err(Error::TimedOut)), "{word} {value}: {result:?}"),
                }
                drop(socket);
            }
        }
    }
}

fn a_writer_copes_with_every_value_of_every_word() {
    for word in [HEAD, TAIL, WRITER, READER] {
        for done in [0, 100, CAPACITY] {
            for value in extreme_values() {
                let (mut writer, socket, mapped, _memory) = writer_with_hand();
                writer.write_all(&bytes(done)).unwrap();
                mapped.word(word).store(value, SeqCst);
                let result = writer.write_timeout(&[7; 3 * CAPACITY], Duration::from_millis(1));
                let queued = (done as u64).wrapping_sub(value);
                let room = CAPACITY - done;
                match word {
                    READER if value & 2 != 0 => assert!(matches!(result, Err(Error::Closed)), "{value}: {result:?}"),
                    TAIL if queued > CAPACITY as u64 => {
                        assert!(matches!(result, Err(Error::Malformed { .. })), "{value}: {result:?}");
                        mapped.word(TAIL).store(done as u64, SeqCst);
                        assert!(matches!(writer.try_write(&[0]), Err(Error::Malformed { .. })));
                        assert!(matches!(writer.is_closed(), Err(Error::Malformed { .. })));
                        assert_eq!(wait_any(&mut [writer.watch()], None).unwrap(), 1);
                    }
                    TAIL if queued < CAPACITY as u64 => assert_eq!(result.unwrap(), CAPACITY - queued as usize),
                    _ if room > 0 && word != TAIL => assert_eq!(result.unwrap(), room, "{word} {value}"),
                    _ => assert!(matches!(result, Err(Error::TimedOut)), "{word} {value}: {result:?}"),
                }
                drop(socket);
            }
        }
    }
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

/// How often this process gave its core away to wait for something.
fn own_sleeps() -> i64 {
    // SAFETY: zeroed bytes are a valid rusage, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage.ru_nvcsw as i64
    }
}

/// They give the core to one another, and nobody has to wake anybody.
fn sides_that_share_a_core_hardly_sleep() {
    // A turn that a third process takes counts as some in vain, and then they sleep. So one good one of many is enough.
    let mut tries = (0..100).map(|_| {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            support::run_on_core(0);
            let (mut there, mut back) = (RingReader::new(there).unwrap(), RingWriter::new(back).unwrap());
            std::io::copy(&mut there, &mut back).unwrap();
        });
        support::run_on_core(0);
        let (mut there, mut back) = (RingWriter::new(there.parent).unwrap(), RingReader::new(back.parent).unwrap());
        let trip = |there: &mut RingWriter, back: &mut RingReader| {
            there.write_all(&[7; 16]).unwrap();
            back.read_exact(&mut [0; 16]).unwrap();
        };
        let before = own_sleeps();
        (0..1000).for_each(|_| trip(&mut there, &mut back));
        let slept = own_sleeps() - before;
        drop(there);
        assert_eq!(exit_code(&child.unwrap()), 0);
        slept
    });
    assert!(tries.any(|slept| slept < 900), "each trip has slept");
}

fn a_core_that_a_peer_claims_holds_up_no_call() {
    for core in [0, 1, 2, 3, u32::MAX - 1, u32::MAX] {
        let (mut reader, _socket, mapped, _memory) = reader_with_hand();
        mapped.word(WRITER).store(u64::from(core) << 32, SeqCst);
        for _ in 0..100 {
            let read = reader.read_timeout(&mut [0; 8], Duration::from_micros(100));
            assert!(matches!(read, Err(Error::TimedOut)), "{read:?}");
        }
        support::assert_times_out("read", Duration::from_millis(30), |time| reader.read_timeout(&mut [0; 8], time));
    }
}

/// Whatever it has said, and done, and not said any more.
fn a_peer_that_dies_in_any_state_is_seen() {
    for says in 0..16 {
        for done in [0, 5, CAPACITY as u64] {
            for asks in [false, true] {
                let (mut reader, socket, mapped, _memory) = reader_with_hand();
                mapped.word(WRITER).store(says, SeqCst);
                mapped.word(HEAD).store(done, SeqCst);
                if asks {
                    let _ = reader.watch();
                }
                drop((socket, mapped));
                let mut data = Vec::new();
                reader.read_to_end(&mut data).unwrap();
                assert_eq!(data.len() as u64, done, "{says} {asks}");

                let (mut writer, socket, mapped, _memory) = writer_with_hand();
                writer.write_all(&bytes(CAPACITY)).unwrap();
                mapped.word(READER).store(says, SeqCst);
                mapped.word(TAIL).store(done, SeqCst);
                if asks {
                    let _ = writer.watch();
                }
                drop((socket, mapped));
                assert!(writer.is_closed().unwrap());
                let error = writer.write_all(&bytes(3 * CAPACITY)).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{says} {done} {asks}");
            }
        }
    }
}

/// Otherwise a writer learns of it when the ring is full, or when it asks.
fn a_reader_that_died_asleep_is_seen_at_the_ring_for_it() {
    let (mut writer, socket, mapped, _memory) = writer_with_hand();
    mapped.word(READER).store(1, SeqCst); // it waits
    drop(socket);
    writer.write_all(b"to nobody").unwrap();
    assert_eq!(writer.write(b"again").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

/// From here on, that call is the last thing that this thread's process does.
fn die_at(call: libc::c_long) {
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the number of the call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers, and a program that lives through the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// Everything that a side asks of the kernel, from its making to its end.
fn a_side_that_is_killed_at_any_of_its_calls_is_seen() {
    let calls = [
        libc::SYS_memfd_create,
        libc::SYS_fallocate,
        libc::SYS_fcntl,
        libc::SYS_mmap,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_fstat,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_ppoll,
        libc::SYS_munmap,
        libc::SYS_close,
    ];
    let mut killed = 0;
    for call in calls {
        for (writer_dies, early) in [(true, true), (true, false), (false, true), (false, false)] {
            let pair = stream_pair().unwrap();
            let dies = |whether: bool, at: bool| {
                if whether && at == early {
                    die_at(call);
                }
            };
            let writer = fork(pair.child, |socket| {
                dies(writer_dies, true);
                let Ok(mut ring) = RingWriter::with_capacity(socket, CAPACITY) else { return };
                ring.set_spin(Duration::ZERO);
                dies(writer_dies, false);
                for piece in bytes(100_000).chunks(3000) {
                    // With a deadline every other time.
                    let sent = ring.write_timeout(&piece[..1], FAR).and_then(|_| Ok(ring.write_all(&piece[1..])?));
                    match sent {
                        Ok(()) => {}
                        Err(Error::Closed) => return,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
            .unwrap();
            let reader = fork(pair.parent, |socket| {
                dies(!writer_dies, true);
                let mut ring = RingReader::new(socket).unwrap();
                ring.set_spin(Duration::ZERO);
                dies(!writer_dies, false);
                let (data, mut read, mut buf) = (bytes(100_000), 0, [0; 2000]);
                loop {
                    let len = if read % 2 == 0 {
                        ring.read(&mut buf).unwrap()
                    } else {
                        ring.read_timeout(&mut buf, FAR).unwrap()
                    };
                    if len == 0 {
                        return;
                    }
                    assert!(buf[..len] == data[read..][..len], "no byte out of its place");
                    read += len;
                }
            })
            .unwrap();
            let (victim, other) = if writer_dies { (writer, reader) } else { (reader, writer) };
            use std::os::unix::process::ExitStatusExt;
            let status = victim.wait().unwrap();
            assert!(status.success() || status.signal() == Some(libc::SIGSYS), "{call}: {status}");
            killed += u32::from(!status.success());
            assert_eq!(exit_code(&other), 0, "{call}: the other one sees it");
        }
    }
    assert!(killed > 20, "{killed} were killed");
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

fn punch(memory: &OwnedFd) {
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: an open descriptor and numbers.
    assert_eq!(unsafe { libc::fallocate(memory.as_raw_fd(), how, 0, (page() + CAPACITY) as libc::off_t) }, 0);
}

fn holes_that_are_punched_are_zeroes_and_no_signal() {
    let (mut reader, _socket, mapped, memory) = reader_with_hand();
    mapped.word(HEAD).store(1000, SeqCst);
    assert_eq!(reader.read(&mut [0; 500]).unwrap(), 500);
    punch(&memory);
    assert!(reader.read_timeout(&mut [0; 500], FAR).is_ok(), "what was seen before is read");
    let error = reader.read_timeout(&mut [0; 500], FAR).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    let (mut writer, _socket, mapped, memory) = writer_with_hand();
    writer.write_all(&bytes(CAPACITY)).unwrap();
    mapped.word(TAIL).store(CAPACITY as u64, SeqCst);
    writer.write_all(&bytes(10)).unwrap();
    punch(&memory);
    let error = writer.write_timeout(&[1; CAPACITY], Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
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

fn descriptors_with_rings_are_closed() {
    let (mut reader, socket, mapped, memory) = reader_with_hand();
    for number in 1..=10 {
        let _ = reader.watch();
        // From Linux 6.16 on they are refused, and what rings then has none.
        if socket.send_with(&[1], &memory).is_err() {
            socket.try_write(&[1]).unwrap();
        }
        mapped.word(HEAD).store(number, SeqCst);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    }
    let open = support::Inventory::take();
    let _ = reader.watch();
    assert_eq!(open.compare(&support::Inventory::take()), None);
}

fn descriptors_are_refused_after_the_hello() {
    fn assert_refused(socket: StreamSocket, memory: &OwnedFd) {
        let refused = Error::from(socket.send_with(&[1], memory).unwrap_err());
        let Error::System { source, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        socket.try_write(&[1]).unwrap(); // the rings come
    }
    let (_reader, socket, _, memory) = reader_with_hand();
    assert_refused(socket, &memory);
    let (_writer, socket, _, memory) = writer_with_hand();
    assert_refused(socket, &memory);
}

fn a_flood_of_rings_holds_up_no_call() {
    for writes in [false, true] {
        let pair = stream_pair().unwrap();
        let memory = memory(page() + CAPACITY, LENGTH);
        let (mut reader, mut writer) = (None, None);
        if writes {
            writer = Some(RingWriter::with_capacity(pair.parent, CAPACITY).unwrap());
            writer.as_mut().unwrap().write_all(&bytes(CAPACITY)).unwrap();
        } else {
            pair.child.send_with(&hello(CAPACITY as u64), &memory).unwrap();
            reader = Some(RingReader::new(pair.parent).unwrap());
            reader.as_mut().unwrap().available().unwrap();
        }
        let flooding = Gate::new();
        let child = fork(pair.child, |mut socket| {
            flooding.open();
            while socket.write(&[1; 32 << 10]).is_ok() {}
        });
        flooding.pass();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(200) {
            let (tried, timed, on) = match (&mut reader, &mut writer) {
                (Some(ring), _) => {
                    let tried = ring.try_read(&mut [0; 8]);
                    (tried, ring.read_timeout(&mut [0; 8], Duration::from_millis(3)), ring.watch())
                }
                (_, Some(ring)) => {
                    let tried = ring.try_write(&[0; 8]);
                    (tried, ring.write_timeout(&[0; 8], Duration::from_millis(3)), ring.watch())
                }
                _ => unreachable!(),
            };
            assert!(matches!(tried, Err(Error::WouldBlock)), "{tried:?}");
            assert!(matches!(timed, Err(Error::TimedOut)), "{timed:?}");
            wait_any(&mut [on], Some(Duration::ZERO)).unwrap();
        }
        drop((reader, writer));
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

/// How much of what a socket sent waits at the other side.
fn unheard(socket: &StreamSocket) -> i32 {
    let mut bytes = 0;
    // SAFETY: an open socket, and room for the answer.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) }, 0);
    bytes
}

fn rings_that_have_piled_up_are_taken_before_a_wait() {
    let (mut reader, socket, _mapped, _memory) = reader_with_hand();
    socket.try_write(&[1; 1000]).unwrap();
    assert_eq!(wait_any(&mut [reader.watch()], Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(unheard(&socket), 0);
}

fn a_call_that_does_not_wait_takes_no_more_than_some_rings() {
    let (mut reader, socket, _mapped, _memory) = reader_with_hand();
    while socket.try_write(&[1; 10_000]).is_ok() {}
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    assert!(unheard(&socket) > 0, "a peer that rings for ever would hold it up");
    let (mut writer, socket, _mapped, _memory) = writer_with_hand();
    writer.write_all(&bytes(CAPACITY)).unwrap();
    while socket.try_write(&[1; 10_000]).is_ok() {}
    assert!(matches!(writer.try_write(&[0; 8]), Err(Error::WouldBlock)));
    assert!(unheard(&socket) > 0);
}

fn a_peer_that_scribbles_all_the_time_does_no_harm() {
    let started = Instant::now();
    let mut faults = 0;
    while faults == 0 || started.elapsed() < Duration::from_millis(support::rounds(500)) {
        let (mut reader, socket, mapped, memory) = reader_with_hand();
        let (mut writer, other, other_mapped, _) = writer_with_hand();
        let child = fork((socket, other), |(mut socket, mut other)| {
            // SAFETY: no conditions.
            let mut random = u64::from(std::process::id()) | 1;
            loop {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let mapped = if random & 1 == 0 { &mapped } else { &other_mapped };
                let word = [HEAD, TAIL, WRITER, READER][(random >> 1) as usize % 4];
                // Mostly what could be.
                let value = if random >> 60 == 0 { random } else { (random >> 20) % 20_000 };
                match (random >> 8) % 64 {
                    0 => punch(&memory),
                    1 => mapped.fill(random as u8),
                    2..8 => {
                        if socket.write(&[1]).is_err() && other.write(&[1]).is_err() {
                            return;
                        }
                    }
                    _ => mapped.word(word).store(value & !2, SeqCst),
                }
            }
        });
        for _ in 0..1000 {
            let read = reader.read_timeout(&mut [0; 5000], Duration::from_micros(100));
            let written = writer.write_timeout(&[7; 5000], Duration::from_micros(100));
            let _ = (wait_any(&mut [reader.watch(), writer.watch()], Some(Duration::ZERO)), reader.available());
            if matches!((&read, &written), (Err(Error::Malformed { .. }), Err(Error::Malformed { .. }))) {
                faults += 1;
                break;
            }
        }
        drop((reader, writer));
        let child = child.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn sides_are_killed_at_any_moment() {
    let started = Instant::now();
    let mut random = u64::from(std::process::id()) | 1;
    let mut rounds = 0;
    while rounds < 20 || started.elapsed() < Duration::from_millis(support::rounds(500)) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (capacity, piece) =
            ([4096, 256 << 10][random as usize >> 8 & 1], [1, 100, 20_000][(random >> 20) as usize % 3]);
        let kills_writer = random >> 30 & 1 == 0;
        let pair = stream_pair().unwrap();
        let (counted, count) = ipc::pipe().unwrap();
        let writer = fork(pair.child, |socket| {
            // The reader may be gone by then.
            let Ok(mut ring) = RingWriter::with_capacity(socket, capacity) else { return };
            let data = bytes(251 * 400);
            let mut at = 0;
            loop {
                match ring.write(&data[at % 251..][..piece]) {
                    Ok(count) => at += count,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                        return;
                    }
                }
            }
        })
        .unwrap();
        let reader = fork((pair.parent, count), |(socket, count)| {
            let mut ring = RingReader::new(socket).unwrap();
            let (mut buf, mut at) = (vec![0; 30_000], 0);
            loop {
                let len = ring.read(&mut buf).unwrap();
                if len == 0 {
                    return;
                }
                assert!(buf[..len] == bytes(251 * 130)[at % 251..][..len], "no byte out of its place");
                at += len;
                let _ = count.try_write(&[1]);
            }
        })
        .unwrap();
        // Until it is well under way, or not quite.
        if random >> 40 & 1 == 0 {
            (&counted).read_exact(&mut [0]).unwrap();
        }
        (0..(random >> 33) % 2000).for_each(|_| std::hint::spin_loop());
        let (killed, left) = if kills_writer { (writer, reader) } else { (reader, writer) };
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert_eq!(exit_code(&left), 0, "the other one sees it");
        rounds += 1;
    }
}

/// A storm of sleeps: bytes go back and forth, in pieces and through rings so small that both sides sleep all the time. A
/// wake-up that is lost is a hang.
fn storm(cores: (usize, usize), everyday: u64) {
    let rounds = support::rounds(everyday);
    for spin in [Duration::ZERO, Duration::from_nanos(300), Duration::from_micros(5)] {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            support::run_on_core(cores.1);
            let (mut there, mut back) =
                (RingReader::new(there).unwrap(), RingWriter::with_capacity(back, 4096).unwrap());
            there.set_spin(spin);
            back.set_spin(spin);
            let mut buf = [0; 3000];
            loop {
                let len = there.read(&mut buf).unwrap();
                if len == 0 {
                    return;
                }
                back.write_all(&buf[..len]).unwrap();
            }
        });
        support::run_on_core(cores.0);
        let (mut there, mut back) =
            (RingWriter::with_capacity(there.parent, 4096).unwrap(), RingReader::new(back.parent).unwrap());
        there.set_spin(spin);
        back.set_spin(spin);
        let data = bytes(9000);
        let mut buf = vec![0; 9000];
        for round in 0..rounds {
            let len = [1, 4096, 7, 5000][round as usize % 4];
            // More than the two rings and the buffer hold would never come back.
            there.write_all(&data[..len]).unwrap();
            back.read_exact(&mut buf[..len]).unwrap();
            assert!(buf[..len] == data[..len]);
        }
        drop(there);
        assert_eq!(back.read(&mut buf).unwrap(), 0);
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn no_wake_up_is_lost_on_two_cores() {
    storm((0, 1), 2000);
}

fn no_wake_up_is_lost_on_one_core() {
    storm((0, 0), 2000);
}

fn no_wake_up_is_lost_while_signals_arrive() {
    with_interval_timer(Duration::from_micros(100), || {
        storm((0, 1), 1000);
        storm((0, 0), 1000);
    });
}

fn no_wake_up_is_lost_without_membarrier() {
    refuse_calls(&[libc::SYS_membarrier], libc::EPERM);
    storm((0, 1), 1000);
    storm((0, 0), 1000);
}

/// One side may say that it makes the barriers, and then be locked up in a sandbox where it cannot.
fn the_same_where_membarrier_is_refused_later() {
    const GLOBAL_EXPEDITED: u32 = 2;
    let (pair, go) = (stream_pair().unwrap(), Gate::new());
    let child = fork(pair.child, |socket| {
        let mut ring = RingReader::new(socket).unwrap();
        ring.set_spin(Duration::ZERO);
        ring.read_exact(&mut [0; 10]).unwrap();
        Kernel::new().with(libc::SYS_membarrier, 0, Is::Equal(GLOBAL_EXPEDITED), libc::EPERM).play();
        support::assert_times_out("read", Duration::from_millis(20), |time| ring.read_timeout(&mut [0; 8], time));
        go.open();
        ring.read_exact(&mut [0; 2000]).unwrap();
        assert_eq!(ring.read(&mut [0; 8]).unwrap(), 0);
    })
    .unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&[1; 10]).unwrap();
    go.pass();
    for _ in 0..2000 {
        ring.write_all(&[1]).unwrap();
    }
    drop(ring);
    assert_eq!(exit_code(&child), 0);
}

fn the_same_without_noexec_seals() {
    const MFD_NOEXEC_SEAL: u32 = 8;
    Kernel::new().with(libc::SYS_memfd_create, 1, Is::AnyOf(MFD_NOEXEC_SEAL), libc::EINVAL).play();
    storm((0, 1), 20);
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
