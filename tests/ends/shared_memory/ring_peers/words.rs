//! What a peer writes into the words of a ring, and the bytes that it rings with: none of it does harm.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{CAPACITY, HEAD, LENGTH, READER, TAIL, WRITER, hello, memory, page, reader_with_hand, writer_with_hand};
use crate::support::{self, FAR, Gate, Trial, asleep_in, bytes, exit_code};
use ipc::{Error, RingReader, RingWriter, StreamSocket, fork, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_by_hand_is_a_peer,
        a_reader_copes_with_every_value_of_every_word within 120,
        a_writer_copes_with_every_value_of_every_word within 120,
        a_core_that_a_peer_claims_holds_up_no_call,
        holes_that_are_punched_are_zeroes_and_no_signal,
        descriptors_with_rings_are_closed,
        descriptors_are_refused_after_the_hello needs [RefusedRights],
        a_flood_of_rings_holds_up_no_call within 120,
        rings_that_have_piled_up_are_taken_before_a_wait,
        a_call_that_does_not_wait_takes_no_more_than_some_rings,
        a_peer_that_scribbles_all_the_time_does_no_harm within 120,
        a_reader_that_takes_its_end_back_makes_no_write_of_nothing within 60,
        a_write_that_waits_says_that_the_reader_took_all_and_left,
    ]
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
        while started.elapsed() < Duration::from_millis(support::rounds(50)) {
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

fn a_reader_that_takes_its_end_back_makes_no_write_of_nothing() {
    let (mut writer, socket, mapped, _memory) = writer_with_hand();
    writer.write_all(&bytes(CAPACITY)).unwrap();
    let child = fork(socket, |_socket| {
        while mapped.word(HEAD).load(SeqCst) > 0 {
            mapped.word(READER).store(2, SeqCst);
            mapped.word(READER).store(0, SeqCst);
        }
    });
    for _ in 0..support::rounds(500_000) {
        let written = writer.try_write(b"more");
        assert!(matches!(written, Err(Error::WouldBlock | Error::Closed)), "{written:?}");
    }
    let child = child.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
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

fn a_write_that_waits_says_that_the_reader_took_all_and_left() {
    let (mut writer, socket, mapped, _memory) = writer_with_hand();
    writer.write_all(&bytes(CAPACITY)).unwrap();
    let child = fork(socket, move |mut socket| {
        asleep_in(std::os::unix::process::parent_id(), &[libc::SYS_recvfrom]);
        // Both before it looks again: there is room, and nobody to read what is put there.
        mapped.word(TAIL).store(CAPACITY as u64, SeqCst);
        mapped.word(READER).store(2, SeqCst);
        socket.write_all(&[1])
    });
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(exit_code(&child.unwrap()), 0);
}
