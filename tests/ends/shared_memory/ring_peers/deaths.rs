//! Peers that die: at any of their calls, in any state, at any moment.

use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{CAPACITY, HEAD, READER, TAIL, WRITER, reader_with_hand, writer_with_hand};
use crate::support::{self, FAR, Trial, bytes, exit_code};
use ipc::{Child, Error, RingReader, RingWriter, StreamSocket, fork, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_that_dies_in_any_state_is_seen,
        a_reader_that_died_asleep_is_seen_at_the_ring_for_it,
        a_side_that_is_killed_at_any_of_its_calls_is_seen,
        a_side_that_is_killed_after_any_of_its_instructions_is_seen within 120,
        sides_are_killed_at_any_moment within 120,
    ]
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

/// One side: it sleeps for want of bytes or of room, and is woken. Calls `made` when it is made.
fn live(socket: StreamSocket, writes: bool, data: &[u8], made: fn()) {
    if writes {
        let Ok(mut ring) = RingWriter::with_capacity(socket, 4096) else { return };
        ring.set_spin(Duration::ZERO);
        made();
        if let Err(error) = data.chunks(700).try_for_each(|piece| ring.write_all(piece)) {
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        }
    } else {
        let mut ring = RingReader::new(socket).unwrap();
        ring.set_spin(Duration::ZERO);
        let (mut read, mut buf) = (1, [0; 900]);
        if ring.read(&mut [0]).unwrap() == 0 {
            return;
        }
        made();
        loop {
            let len = ring.read(&mut buf).unwrap();
            if len == 0 {
                return;
            }
            assert!(buf[..len] == data[read..][..len], "no byte out of its place");
            read += len;
        }
    }
}

fn stop() {
    // SAFETY: no conditions.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
}

/// Lets a traced child go on, if it is asked to, and returns the signal of its next stop. `None`: it is gone.
fn next_stop(child: &Child, how: Option<libc::c_uint>) -> Option<i32> {
    let (pid, mut status) = (child.id() as libc::pid_t, 0);
    // SAFETY: numbers, and room for the status. The child is traced by this thread.
    unsafe {
        if let Some(how) = how {
            assert_eq!(libc::ptrace(how, pid, 0_usize, 0_usize), 0, "{}", std::io::Error::last_os_error());
        }
        assert_eq!(libc::waitpid(pid, &mut status, libc::__WALL), pid);
    }
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
}

/// Between two calls a side stores to its words, and is killed between any two stores too. It is traced, and goes on by single
/// instructions once it is made.
fn a_side_that_is_killed_after_any_of_its_instructions_is_seen() {
    if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        return; // elsewhere an atomic operation may be a loop that never ends when it is traced
    }
    let data = bytes(5000); // few at a time: a copy of many is an instruction for each byte
    let mut random = u64::from(std::process::id()) | 1;
    for writes in [false, true] {
        let mut all = 0;
        // A step takes some microseconds, and several times as long in some virtual machines.
        let (rounds, enough) = (support::rounds(12), Instant::now() + Duration::from_secs(20));
        for round in 0..rounds {
            if round > 3 && Instant::now() > enough {
                break;
            }
            let pair = stream_pair().unwrap();
            let other = fork(pair.parent, |socket| live(socket, !writes, &data, || ())).unwrap();
            let victim = fork(pair.child, |socket| {
                // SAFETY: numbers.
                assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
                live(socket, writes, &data, stop);
                stop();
            })
            .unwrap();
            assert_eq!(next_stop(&victim, None), Some(libc::SIGSTOP));
            // The first one lives to its end, and is counted.
            let steps = if round == 0 { u64::MAX } else { (next(&mut random) >> 33) % all };
            let mut step = 0;
            while step < steps && next_stop(&victim, Some(libc::PTRACE_SINGLESTEP)) == Some(libc::SIGTRAP) {
                step += 1;
            }
            all = all.max(step);
            victim.kill().unwrap();
            while next_stop(&victim, None).is_some() {}
            assert_eq!(exit_code(&other), 0, "after {step} instructions of {all}");
        }
        assert!(all > 1000, "{all} instructions");
    }
}

/// The next of the random numbers.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *random
}

fn sides_are_killed_at_any_moment() {
    let started = Instant::now();
    let mut random = u64::from(std::process::id()) | 1;
    let mut rounds = 0;
    while rounds < 20 || started.elapsed() < Duration::from_millis(support::rounds(500)) {
        next(&mut random);
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
