//! Rounds in which bytes are passed on through a ring in shared memory, and storms of sleeps.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::time::{Duration, Instant};

use ipc::{Error, RingReader, RingWriter, StreamSocket, fork, stream_pair, wait_any};

use super::content::{bytes, check};
use super::random::Random;
use super::storm::Storm;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The most that goes through one ring in a round.
const MOST: u64 = 1 << 20;

/// A wait that seldom suffices.
const SHORT: Duration = Duration::from_micros(200);

pub fn killed_side(round: &mut Round) {
    let pair = stream_pair().expect("there is room for a pair");
    let (key, length) = (round.random.next(), round.random.amount(MOST));
    let writer = round.fork(pair.child, |round, socket| write_all(round, socket, key, length));
    let reader = round.fork(pair.parent, |round, socket| read_all(round, socket, key, length));
    let killer = round.killer(&[&writer, &reader], length);
    let fates = round.fates(&killer, [&writer, &reader]);
    assert_cut_by_a_kill(&fates);
}

fn some_spin(random: &mut Random) -> Duration {
    *random.pick(&[Duration::ZERO, Duration::from_micros(2), Duration::from_micros(20), Duration::from_millis(1)])
}

/// Writes the stream by every call that there is, to its end, or until nobody reads it.
fn write_all(round: &mut Round, socket: StreamSocket, key: u64, length: u64) -> Fate {
    let mut sent = 0;
    let capacity = *round.random.pick(&[4096, 64 << 10, 256 << 10]);
    let mut ring = match RingWriter::with_capacity(socket, capacity).map_err(Error::from) {
        Ok(ring) => ring,
        Err(Error::Closed) => {
            round.parted();
            return Fate::Cut;
        }
        Err(error) => panic!("{error:?}"),
    };
    ring.set_spin(some_spin(&mut round.random));
    while sent < length {
        let len = (1 + round.random.up_to(50_000)).min(length - sent) as usize;
        match write_some(&mut round.random, &mut ring, &bytes(key, sent, len)) {
            Ok(len) => sent += len as u64,
            Err(Error::WouldBlock | Error::TimedOut) => {}
            Err(Error::Closed) => {
                assert!(ring.is_closed().expect("it can be asked"));
                round.parted();
                return Fate::Cut;
            }
            Err(error) => panic!("{error:?} after {sent} bytes"),
        }
    }
    ring.close().expect("it closes");
    Fate::Done
}

fn write_some(random: &mut Random, ring: &mut RingWriter, data: &[u8]) -> ipc::Result<usize> {
    match random.below(5) {
        0 => Ok(ring.write(data)?),
        1 => Ok(ring.write_all(data).map(|()| data.len())?),
        2 => {
            let (first, second) = data.split_at(data.len() / 2);
            Ok(ring.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?)
        }
        3 => ring.write_timeout(data, SHORT),
        _ => {
            assert!(wait_any(&mut [ring.watch()], Some(limit()))? > 0, "nothing happened for {:?}", limit());
            ring.try_write(data)
        }
    }
}

/// Reads the stream by every call that there is, to its end.
fn read_all(round: &mut Round, socket: StreamSocket, key: u64, length: u64) -> Fate {
    let mut got = 0;
    let mut buf = vec![0; 70_000];
    let mut ring = RingReader::new(socket).expect("there is room for a reader");
    ring.set_spin(some_spin(&mut round.random));
    loop {
        let room = 1 + round.random.up_to(buf.len() as u64 - 1) as usize;
        match read_some(&mut round.random, &mut ring, &mut buf[..room]) {
            Ok(0) => break,
            Ok(len) => {
                check(key, got, &buf[..len]);
                got += len as u64;
                round.board.received(len as u64);
                round.board.bytes.add(len as u64);
            }
            Err(Error::WouldBlock | Error::TimedOut) => {}
            Err(error) => panic!("{error:?} after {got} bytes"),
        }
    }
    assert_eq!(ring.read_timeout(&mut buf, limit()).expect("EOF"), 0, "EOF stays");
    assert!(got <= length, "{got} bytes of {length}");
    if got == length {
        return Fate::Done;
    }
    round.parted();
    Fate::Cut
}

fn read_some(random: &mut Random, ring: &mut RingReader, buf: &mut [u8]) -> ipc::Result<usize> {
    match random.below(5) {
        0 | 1 => Ok(ring.read(buf)?),
        2 => {
            let half = buf.len() / 2;
            let (first, second) = buf.split_at_mut(half);
            Ok(ring.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?)
        }
        3 => ring.read_timeout(buf, SHORT),
        _ => {
            assert!(wait_any(&mut [ring.watch()], Some(limit()))? > 0, "nothing happened for {:?}", limit());
            ring.try_read(buf)
        }
    }
}

/// The outcome of a storm of sleeps.
pub struct Sleeps {
    pub slept: u64,
    pub signals: u64,
    pub time: Duration,
}

/// Two processes, each on its core, pass something back and forth through two rings, and sleep each time, until `most` sleeps
/// were counted. A lost wake-up is a wait that takes longer than anything may, and a panic.
pub fn sleeps(cores: [usize; 2], most: u64, signals: bool) -> ipc::Result<Sleeps> {
    let (there, back) = (stream_pair()?, stream_pair()?);
    let period = Duration::from_micros(500);
    let child = fork((there.child, back.child), move |(there, back)| -> ipc::Result<()> {
        pin(cores[1]);
        let _storm = signals.then(|| Storm::begin(period));
        let (mut there, mut back) = (RingReader::new(there)?, RingWriter::with_capacity(back, 4096)?);
        there.set_spin(Duration::ZERO);
        back.set_spin(Duration::ZERO);
        let mut buf = [0; 3000];
        loop {
            match there.read(&mut buf)? {
                0 => return Ok(()),
                len => back.write_all(&buf[..len])?,
            }
        }
    })?;
    pin(cores[0]);
    let (mut there, mut back) = (RingWriter::with_capacity(there.parent, 4096)?, RingReader::new(back.parent)?);
    there.set_spin(Duration::ZERO);
    back.set_spin(Duration::ZERO);
    let storm = signals.then(|| Storm::begin(period));
    let (started, before) = (Instant::now(), own_sleeps());
    let (data, mut buf) = (bytes(1, 0, 7000), vec![0; 7000]);
    let mut round = 0;
    // The other process sleeps as often as this one.
    while 2 * (own_sleeps() - before) < most {
        for _ in 0..1000 {
            // Mostly few bytes; and now and then more than a ring holds, so that writers sleep too.
            let len = [1, 4096, 7, 5000][round % 4];
            round += 1;
            let mut written = 0;
            while written < len {
                written += there.write_timeout(&data[written..len], limit())?;
            }
            let mut read = 0;
            while read < len {
                match back.read_timeout(&mut buf[read..len], limit())? {
                    0 => panic!("the other process has left"),
                    count => read += count,
                }
            }
            assert!(buf[..len] == data[..len], "no byte out of its place");
        }
    }
    let slept = 2 * (own_sleeps() - before);
    let signals = storm.map_or(0, |storm| storm.came());
    drop(there);
    assert_eq!(back.read(&mut buf)?, 0);
    assert!(child.wait()?.success());
    Ok(Sleeps { slept, signals, time: started.elapsed() })
}

/// Returns how often this process gave its core away to wait for something.
fn own_sleeps() -> u64 {
    // SAFETY: zeroed bytes are a valid rusage, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_nvcsw as u64
    }
}

/// Where there is no such core, it runs where it can.
fn pin(core: usize) {
    // SAFETY: a set of cores, zeroed and then filled.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}
