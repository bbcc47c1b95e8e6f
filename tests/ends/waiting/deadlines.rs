//! A deadline is kept (P6): across signals, rival readers and writers, and killed peers; on every kind of pipe; and without
//! touching `O_NONBLOCK`, which every holder of the end shares. No deadline is longer than a few seconds because of it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, Trial, asleep_in, assert_times_out, exit_code, fill, handled, kinds, poll_until, read_all, read_some,
    status_flags, with_interval_timer,
};
use ipc::{Child, Deadline, Error, PIPE_BUF, RingReader, RingWriter, Watch, fork, pipe, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_zero_timeout_looks_once,
        deadlines_are_kept,
        deadlines_are_kept_under_a_storm_of_signals,
        a_signal_ends_no_blocking_call,
        data_ends_the_wait,
        room_ends_the_wait,
        the_end_ends_the_wait,
        the_last_readers_leaving_ends_the_wait,
        a_killed_writer_ends_the_wait,
        a_killed_reader_ends_the_wait,
        rival_readers_keep_their_deadlines,
        rival_writers_keep_their_deadlines,
        a_very_long_timeout_waits_until_there_is_something,
        nonblock_is_the_same_before_during_and_after,
        a_blocking_read_elsewhere_still_blocks,
        many_reads_share_one_deadline,
        many_writes_share_one_deadline_and_none_is_lost,
        a_new_deadline_goes_on_where_the_last_one_stopped,
        an_exact_read_says_how_far_it_came,
        a_peer_that_always_has_a_byte_more_keeps_nobody_past_a_deadline,
        a_deadline_over_a_borrowed_ring_ends_and_the_ring_goes_on,
    ]
}

const TIMEOUTS: [Duration; 4] =
    [Duration::from_nanos(1), Duration::from_micros(700), Duration::from_millis(3), Duration::from_millis(30)];

fn assert_deadlines_are_kept() {
    for (kind, reader, writer) in kinds() {
        for timeout in TIMEOUTS {
            assert_times_out(kind, timeout, |timeout| reader.read_timeout(&mut [0; 8], timeout));
        }
        let queued = fill(&writer);
        for timeout in TIMEOUTS {
            assert_times_out(kind, timeout, |timeout| writer.write_timeout(&[1], timeout));
            assert_times_out(kind, timeout, |timeout| writer.write_timeout(&[1; 8192], timeout));
        }
        assert_eq!(reader.available().unwrap(), queued, "{kind}: nothing went in");
    }
}

fn many_reads_share_one_deadline() {
    let (reader, writer) = pipe().unwrap();
    // It writes all the time and never a whole line: each read would have time enough.
    let drip = fork(writer, |writer| while writer.write_atomic(b"x").is_ok() {}).unwrap();
    with_interval_timer(Duration::from_millis(1), || {
        let started = Instant::now();
        let timeout = Duration::from_millis(50);
        let mut lines = BufReader::new(Deadline::after(&reader, timeout));
        let mut line = String::new();
        let late = lines.read_line(&mut line).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() >= timeout && started.elapsed() < FAR);
        assert!(!line.is_empty(), "what arrived is there");
        assert!(matches!(Error::from(late), Error::TimedOut));
    });
    drop(reader);
    assert_eq!(exit_code(&drip), 0);
}

fn many_writes_share_one_deadline_and_none_is_lost() {
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let pair = stream_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    // Each reads some, and then no more until it is told to.
    let (told, go_on) = pipe().unwrap();
    let child = fork((reader, pair.child, told), |(mut reader, mut socket, mut told)| {
        let mut read = [vec![0; 100_000], vec![0; 100_000]];
        reader.read_exact(&mut read[0]).unwrap();
        socket.read_exact(&mut read[1]).unwrap();
        assert_eq!(told.read(&mut [0]).unwrap(), 0);
        reader.read_to_end(&mut read[0]).unwrap();
        socket.read_to_end(&mut read[1]).unwrap();
        u8::from(read != [&data[..], &data])
    })
    .unwrap();
    let timeout = Duration::from_millis(50);
    let mut pipe = Deadline::after(writer, timeout);
    assert_eq!(pipe.write_all(&data).unwrap_err().kind(), ErrorKind::TimedOut);
    let mut socket = Deadline::after(pair.parent, timeout);
    assert_eq!(socket.write_all(&data).unwrap_err().kind(), ErrorKind::TimedOut);
    drop(go_on);
    pipe.set_after(Duration::MAX);
    socket.set_after(Duration::MAX);
    let rest = pipe.written() as usize;
    assert!(rest < data.len());
    pipe.write_all(&data[rest..]).unwrap();
    drop(pipe.into_inner());
    let rest = socket.written() as usize;
    socket.write_all(&data[rest..]).unwrap();
    drop(socket);
    assert_eq!(exit_code(&child), 0);
}

/// Reads ten bytes of which three come in time.
fn assert_goes_on_after_three<R: Read>(
    mut reader: R,
    mut write: impl Write,
    set: fn(&mut R, Duration),
    count: fn(&R) -> usize,
) {
    let mut buf = [0; 10];
    write.write_all(b"012").unwrap();
    set(&mut reader, Duration::from_millis(5));
    assert_eq!(reader.read_exact(&mut buf).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!((count(&reader), &buf[..3]), (3, &b"012"[..]));
    write.write_all(b"3456789abcd").unwrap();
    set(&mut reader, FAR);
    reader.read_exact(&mut buf[3..]).unwrap();
    assert_eq!((count(&reader), &buf), (10, b"0123456789"));
    drop(write);
    assert_eq!(reader.read_exact(&mut buf).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!((count(&reader), &buf[..4]), (14, &b"abcd"[..]));
}

fn an_exact_read_says_how_far_it_came() {
    let counted = |timed: &Deadline<_>| timed.bytes_read() as usize;
    let (reader, writer) = pipe().unwrap();
    assert_goes_on_after_three(Deadline::after(reader, FAR), writer, Deadline::set_after, counted);
    let pair = stream_pair().unwrap();
    let timed = Deadline::after(pair.child, FAR);
    assert_goes_on_after_three(timed, pair.parent, Deadline::set_after, |timed| timed.bytes_read() as usize);
    // A buffer takes more than it gives.
    let (reader, writer) = pipe().unwrap();
    let buffered = BufReader::new(Deadline::after(reader, FAR));
    let set = |buffered: &mut BufReader<Deadline<_>>, timeout| buffered.get_mut().set_after(timeout);
    let given = |buffered: &BufReader<Deadline<_>>| buffered.get_ref().bytes_read() as usize - buffered.buffer().len();
    assert_goes_on_after_three(buffered, writer, set, given);
}

fn a_deadline_over_a_borrowed_ring_ends_and_the_ring_goes_on() {
    let pair = stream_pair().unwrap();
    let mut writer = RingWriter::new(pair.parent).unwrap();
    let mut reader = RingReader::new(pair.child).unwrap();
    let late = vec![1; 2 * writer.capacity()];
    let mut timed = Deadline::after(&mut writer, Duration::from_millis(5));
    assert_eq!(timed.write_all(&late).unwrap_err().kind(), ErrorKind::TimedOut);
    let written = timed.written() as usize;
    assert!(written < late.len());

    let mut arrived = vec![0; late.len()];
    let mut timed = Deadline::after(&mut reader, Duration::from_millis(5));
    assert_eq!(timed.read_exact(&mut arrived).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(timed.bytes_read() as usize, written);
    writer.write_all(b"no deadline").unwrap();
    assert_eq!(reader.read(&mut arrived).unwrap(), 11);
    assert_eq!(&arrived[..11], b"no deadline");
}

fn a_new_deadline_goes_on_where_the_last_one_stopped() {
    let (reader, mut writer) = pipe().unwrap();
    let mut lines = BufReader::new(Deadline::at(reader, Instant::now()));
    let mut line = String::new();
    for part in ["o", "n", "e"] {
        writer.write_all(part.as_bytes()).unwrap();
        assert_eq!(lines.read_line(&mut line).unwrap_err().kind(), ErrorKind::TimedOut, "a zero timeout looks once");
    }
    writer.write_all(b"\ntwo").unwrap();
    drop(writer);
    lines.get_mut().set_at(Instant::now() + FAR);
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    assert_eq!(lines.lines().collect::<Result<Vec<_>, _>>().unwrap(), ["two"], "and EOF");
}

fn a_peer_that_always_has_a_byte_more_keeps_nobody_past_a_deadline() {
    let (reader, writer) = pipe().unwrap();
    let mut to = Deadline::after(&writer, Duration::ZERO);
    let wrote = (0..4000).take_while(|_| to.write_all(b"x").is_ok()).count();
    assert!((1..1000).contains(&wrote), "{wrote} writes after the time was up, with room for more");
    to.set_after(FAR);
    to.write_all(&[b'x'; 4000]).unwrap();
    let mut from = Deadline::after(&reader, Duration::ZERO);
    let read = (0..4000).take_while(|_| from.read_exact(&mut [0]).is_ok()).count();
    assert!((1..1000).contains(&read), "{read} reads after the time was up, with something left");
    from.set_after(Duration::ZERO);
    from.read_exact(&mut [0]).unwrap();
    // However much a reader takes at once.
    let drip = fork(writer, |mut writer| while writer.write_all(&[b'x'; 100_000]).is_ok() {}).unwrap();
    from.set_after(Duration::from_millis(50));
    let started = Instant::now();
    assert_eq!(from.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() < FAR);
    drop(reader);
    assert_eq!(exit_code(&drip), 0);
}

fn a_zero_timeout_looks_once() {
    for (kind, reader, writer) in kinds() {
        let read = || reader.read_timeout(&mut [0; 8], Duration::ZERO);
        assert!(matches!(read(), Err(Error::TimedOut)), "{kind}");
        assert_eq!(writer.write_timeout(b"abc", Duration::ZERO).unwrap(), 3, "{kind}");
        assert_eq!(read().unwrap(), 3, "{kind}");
        fill(&writer);
        assert!(matches!(writer.write_timeout(b"abc", Duration::ZERO), Err(Error::TimedOut)), "{kind}");
        drop(writer);
        while read().unwrap() > 0 {}
        assert_eq!(read().unwrap(), 0, "{kind}: the end");
    }
}

fn deadlines_are_kept() {
    assert_deadlines_are_kept();
}

fn deadlines_are_kept_under_a_storm_of_signals() {
    with_interval_timer(Duration::from_millis(1), || {
        let before = handled();
        assert_deadlines_are_kept();
        // The other calls that have a deadline.
        let (reader, _writer) = pipe().unwrap();
        let timeout = Duration::from_millis(30);
        let started = Instant::now();
        assert_eq!(wait_any(&mut [Watch::readable(&reader)], Some(timeout)).unwrap(), 0);
        assert!(started.elapsed() >= timeout && started.elapsed() < FAR);
        let pair = ipc::datagram_pair().unwrap();
        assert_times_out("a message", timeout, |timeout| pair.parent.recv_timeout(&mut [0; 8], timeout));
        assert_times_out("a message", timeout, |timeout| pair.parent.recv_vec_timeout(timeout));
        while pair.parent.try_send(b"x").is_ok() {}
        assert_times_out("a message", timeout, |timeout| pair.parent.send_timeout(b"x", timeout));
        assert!(handled() >= before + 50, "there was a storm");
    });
}

fn a_signal_ends_no_blocking_call() {
    // Both sides of a pipe that is always empty or always full.
    let (mut reader, writer) = pipe().unwrap();
    writer.set_capacity(PIPE_BUF).unwrap();
    let child = fork(writer, |mut writer| {
        with_interval_timer(Duration::from_micros(500), || {
            for number in 0..100_u8 {
                let before = handled();
                poll_until("a signal came", || handled() > before);
                match number % 3 {
                    0 => writer.write_all(&[number; 5000]).unwrap(),
                    1 => writer.write_atomic(&[number; 4000]).unwrap(),
                    _ => assert_eq!(writer.write_timeout(&[number], Duration::MAX).unwrap(), 1),
                }
            }
        });
    })
    .unwrap();
    let mut count = 0;
    let mut buf = [0; 3000];
    with_interval_timer(Duration::from_micros(500), || {
        loop {
            let before = handled();
            match reader.read(&mut buf).unwrap() {
                0 => break,
                len => count += len,
            }
            poll_until("a signal came", || handled() > before);
        }
    });
    assert_eq!(count, 34 * 5000 + 33 * 4000 + 33);
    assert_eq!(exit_code(&child), 0);
}

fn data_ends_the_wait() {
    for (kind, reader, mut writer) in kinds() {
        let child = fork(reader, |reader| {
            let mut buf = [0; 8];
            assert_eq!(reader.read_timeout(&mut buf, Duration::from_secs(60)).unwrap(), 3);
            assert_eq!(&buf[..3], b"abc");
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        writer.write_all(b"abc").unwrap();
        assert_eq!(exit_code(&child), 0, "{kind}");
    }
}

fn room_ends_the_wait() {
    for (kind, reader, writer) in kinds() {
        fill(&writer);
        let child = fork(writer, |writer| {
            // At the first progress, with how much went in.
            assert_eq!(writer.write_timeout(&[2; 8192], Duration::from_secs(60)).unwrap(), PIPE_BUF);
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        read_some(&reader, PIPE_BUF);
        assert_eq!(exit_code(&child), 0, "{kind}");
        assert!(read_all(reader).ends_with(&[2; PIPE_BUF]), "{kind}");
    }
}

fn the_end_ends_the_wait() {
    for (kind, reader, writer) in kinds() {
        let child = fork(reader, |reader| {
            assert_eq!(reader.read_timeout(&mut [0; 8], Duration::from_secs(60)).unwrap(), 0);
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        drop(writer);
        assert_eq!(exit_code(&child), 0, "{kind}");
    }
}

fn the_last_readers_leaving_ends_the_wait() {
    for (kind, reader, writer) in kinds() {
        fill(&writer);
        let child = fork(writer, |writer| {
            let result = writer.write_timeout(b"more", Duration::from_secs(60));
            assert!(matches!(result, Err(Error::Closed)), "{result:?}");
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        drop(reader);
        assert_eq!(exit_code(&child), 0, "{kind}");
    }
}

/// A process that holds the end, and is killed as soon as this process sleeps in one of these calls.
fn killed_when_we_sleep<End: ipc::Ends>(end: End, calls: &'static [libc::c_long]) -> [ipc::Child; 2] {
    let me = std::process::id();
    let victim = fork(end, |_end| {
        loop {
            std::thread::park();
        }
    })
    .map_err(Error::from)
    .unwrap();
    let id = victim.id();
    let killer = fork((), |()| {
        asleep_in(me, calls);
        // SAFETY: a process that was not waited for, so the number is its own.
        assert_eq!(unsafe { libc::kill(id as libc::pid_t, libc::SIGKILL) }, 0);
    })
    .unwrap();
    [victim, killer]
}

fn assert_killed([victim, killer]: [ipc::Child; 2]) {
    assert_eq!(exit_code(&killer), 0);
    assert!(!victim.wait().unwrap().success());
}

fn a_killed_writer_ends_the_wait() {
    for (kind, reader, writer) in kinds() {
        let processes = killed_when_we_sleep(writer, &[libc::SYS_ppoll]);
        assert_eq!(reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 0, "{kind}");
        assert_killed(processes);
    }
    let (mut reader, writer) = pipe().unwrap();
    let processes = killed_when_we_sleep(writer, &[libc::SYS_read]);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    assert_killed(processes);
}

fn a_killed_reader_ends_the_wait() {
    for (kind, reader, writer) in kinds() {
        fill(&writer);
        let processes = killed_when_we_sleep(reader, &[libc::SYS_ppoll]);
        let result = writer.write_timeout(b"more", Duration::MAX);
        assert!(matches!(result, Err(Error::Closed)), "{kind}: {result:?}");
        assert_killed(processes);
    }
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let processes = killed_when_we_sleep(reader, &[libc::SYS_write, libc::SYS_pwritev2]);
    let result = writer.write_atomic(b"more");
    assert!(matches!(result, Err(Error::Closed)), "{result:?}");
    assert_killed(processes);
}

/// Two processes that wait for what only one of them can have, once it is there.
fn rivals(race: impl Fn() -> ipc::Result<usize> + Copy, give: impl FnOnce()) -> [Child; 2] {
    let rivals = [(); 2].map(|()| {
        let child = ipc::Fork::new().keep_all_ends().spawn((), |()| {
            let started = Instant::now();
            match race() {
                Ok(1) => 1_u8,
                Err(Error::TimedOut) if started.elapsed() >= RACE && started.elapsed() < FAR => 2,
                _ => 3,
            }
        });
        child.unwrap()
    });
    for rival in &rivals {
        asleep_in(rival.id(), &[libc::SYS_ppoll]);
    }
    give();
    rivals
}

/// One has it, and the other one's time was up, when it was due.
#[track_caller]
fn assert_one_won(rivals: [Child; 2]) {
    let mut codes = rivals.map(|rival| exit_code(&rival));
    codes.sort_unstable();
    assert_eq!(codes, [1, 2]);
}

/// Long enough for both to be asleep by then, on a busy machine too.
const RACE: Duration = Duration::from_millis(300);

fn rival_readers_keep_their_deadlines() {
    let mut kinds = kinds();
    let all = kinds.iter_mut().map(|(_, reader, writer)| {
        rivals(|| reader.read_timeout(&mut [0; 8], RACE), || writer.write_all(b"x").unwrap())
    });
    Vec::from_iter(all).into_iter().for_each(assert_one_won);
}

fn rival_writers_keep_their_deadlines() {
    let kinds = kinds();
    let all = kinds.iter().map(|(_, reader, writer)| {
        writer.set_capacity(PIPE_BUF).unwrap();
        fill(writer);
        // The page that is read has room for one of two.
        let race = || writer.write_timeout(&[2; PIPE_BUF], RACE).map(|len| len / PIPE_BUF);
        rivals(race, || drop(read_some(reader, PIPE_BUF)))
    });
    Vec::from_iter(all).into_iter().for_each(assert_one_won);
}

fn a_very_long_timeout_waits_until_there_is_something() {
    let years = 365 * 24 * 3600;
    for timeout in [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(100_000_000_000 * years)] {
        let (reader, mut writer) = pipe().unwrap();
        let child = fork(reader, |reader| reader.read_timeout(&mut [0; 8], timeout).unwrap() as u8).unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        writer.write_all(b"at last").unwrap();
        assert_eq!(exit_code(&child), 7, "{timeout:?}");

        let (reader, writer) = pipe().unwrap();
        fill(&writer);
        let child = fork(writer, |writer| writer.write_timeout(b"at last", timeout).unwrap() as u8).unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        read_some(&reader, PIPE_BUF);
        assert_eq!(exit_code(&child), 7, "{timeout:?}");
    }
}

fn nonblocking(end: impl AsFd) -> bool {
    status_flags(end) & libc::O_NONBLOCK != 0
}

fn nonblock_is_the_same_before_during_and_after() {
    for (kind, reader, writer) in kinds() {
        let before = (status_flags(&reader), status_flags(&writer));
        let _ = reader.try_read(&mut [0; 8]);
        let _ = reader.read_timeout(&mut [0; 8], Duration::from_millis(1));
        let _ = writer.try_write(&[1; 8]);
        let _ = reader.try_read(&mut [0; 8]);
        // The open file is the same in the child.
        let child = ipc::Fork::new()
            .keep_all_ends()
            .spawn((), |()| reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap() as u8)
            .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        assert_eq!((status_flags(&reader), status_flags(&writer)), before, "{kind}, during a read");
        writer.write_timeout(&[1], Duration::from_secs(1)).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1)); // the number of bytes

        fill(&writer);
        let child = ipc::Fork::new()
            .keep_all_ends()
            .spawn((), |()| writer.write_timeout(&[1], Duration::MAX).unwrap() as u8)
            .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        assert_eq!((status_flags(&reader), status_flags(&writer)), before, "{kind}, during a write");
        read_some(&reader, PIPE_BUF);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!((status_flags(&reader), status_flags(&writer)), before, "{kind}, afterwards");
        assert_eq!(nonblocking(&reader), kind == "a pipe that does not wait");
    }
}

fn a_blocking_read_elsewhere_still_blocks() {
    let (reader, mut writer) = pipe().unwrap();
    let other = reader.try_clone().unwrap();
    let child = fork(other, |mut other| other.read(&mut [0; 8]).unwrap() as u8).unwrap();
    asleep_in(child.id(), &[libc::SYS_read]);
    for _ in 0..1000 {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        let _ = reader.read_timeout(&mut [0; 8], Duration::from_micros(1));
    }
    asleep_in(child.id(), &[libc::SYS_read]);
    writer.write_all(b"abc").unwrap();
    assert_eq!(exit_code(&child), 3);
}
