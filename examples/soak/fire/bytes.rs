//! Rounds in which bytes are passed on: through pipes, along a chain, as records of many, and both ways.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use ipc::{Error, PIPE_BUF, PipeReader, PipeWriter, StreamSocket, Watch, pipe, stream_pair, wait_any};

use super::content::{bytes, check, check_message, message, message_len};
use super::random::Random;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The most that goes through one channel in a round.
const MOST: u64 = 1 << 20;

/// A wait that seldom suffices.
const SHORT: Duration = Duration::from_micros(200);

pub fn killed_writer(round: &mut Round) {
    let (reader, writer) = some_pipe(&mut round.random);
    let (key, length) = (round.random.next(), round.random.amount(MOST));
    let child = round.fork(writer, |round, writer| write_stream(round, writer, key, length));
    let killer = round.killer(&[&child], length);
    let (fate, _) = read_stream(round, reader, key, length);
    let [child] = round.fates(&killer, [&child]);
    assert_cut_by_a_kill(&[fate, child]);
}

pub fn killed_reader(round: &mut Round) {
    let (reader, writer) = some_pipe(&mut round.random);
    let (key, length) = (round.random.next(), round.random.amount(MOST));
    let child = round.fork(reader, |round, reader| read_stream(round, reader, key, length).0);
    let killer = round.killer(&[&child], length);
    let fate = write_stream(round, writer, key, length);
    let [child] = round.fates(&killer, [&child]);
    assert_cut_by_a_kill(&[fate, child]);
}

pub fn killed_link(round: &mut Round) {
    let (first_reader, first_writer) = some_pipe(&mut round.random);
    let (second_reader, second_writer) = some_pipe(&mut round.random);
    let (key, length) = (round.random.next(), round.random.amount(MOST));
    let first = round.fork(first_writer, |round, writer| write_stream(round, writer, key, length));
    let link = round.fork((first_reader, second_writer), |round, (reader, writer)| pass_on(round, reader, writer));
    let last = round.fork(second_reader, |round, reader| read_stream(round, reader, key, length).0);
    let killer = round.killer(&[&first, &link, &last], length);
    let fates = round.fates(&killer, [&first, &link, &last]);
    assert_cut_by_a_kill(&fates);
}

/// A pipe of some size, with settings of some kind.
pub fn some_pipe(random: &mut Random) -> (PipeReader, PipeWriter) {
    let (mut reader, mut writer) = pipe().expect("there is room for a pipe");
    let capacity = *random.pick(&[PIPE_BUF, 2 * PIPE_BUF, 64 << 10, 256 << 10]);
    // A user with many pipes may get no more pages; then it stays as it is.
    let _ = writer.set_capacity(capacity);
    writer.set_max_write(*random.pick(&[1000, PIPE_BUF, 8 << 10, usize::MAX]));
    if random.once_in(2) {
        reader.set_spin(Duration::from_micros(30));
        writer.set_spin(Duration::from_micros(30));
    }
    if random.once_in(3) {
        // From here on, the kernel refuses RWF_NOWAIT on it.
        writer.write_atomic(b"x").expect("an empty pipe");
        let (through, into) = pipe().expect("there is room for a pipe");
        assert_eq!(reader.splice_to(&into, 1).expect("a byte"), 1);
        assert_eq!(writer.splice_from(&through, 1).expect("room"), 1);
        assert_eq!((&reader).read(&mut [0]).expect("a byte"), 1);
    }
    (reader, writer)
}

/// Returns what was written or read: nothing yet, where the call was not to wait, or not for long.
pub fn patiently<T>(result: ipc::Result<T>, wait: Watch<'_>) -> ipc::Result<Option<T>> {
    match result {
        Err(Error::WouldBlock) => wait_any(&mut [wait], Some(limit())).map(|ready| {
            assert!(ready > 0, "nothing happened for {:?}", limit());
            None
        }),
        Err(Error::TimedOut) => Ok(None),
        result => result.map(Some),
    }
}

/// Writes the stream by every call that there is, to its end, or until nobody reads it.
pub fn write_stream(round: &mut Round, writer: PipeWriter, key: u64, length: u64) -> Fate {
    let mut sent = 0;
    while sent < length {
        let len = (1 + round.random.up_to(100_000)).min(length - sent) as usize;
        let written = write_some(&mut round.random, &writer, &bytes(key, sent, len));
        match written {
            Ok(len) => sent += len as u64,
            Err(Error::Closed) => {
                round.parted();
                return Fate::Cut;
            }
            Err(error) => panic!("{error:?} after {sent} bytes"),
        }
    }
    Fate::Done
}

fn write_some(random: &mut Random, mut writer: &PipeWriter, data: &[u8]) -> ipc::Result<usize> {
    match random.below(7) {
        0 => Ok(writer.write(data)?),
        1 => Ok(writer.write_all(data).map(|()| data.len())?),
        2 => {
            let (first, second) = data.split_at(data.len() / 2);
            Ok(writer.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?)
        }
        3 => Ok(patiently(writer.try_write(data), Watch::writable(writer))?.unwrap_or(0)),
        4 => Ok(patiently(writer.write_timeout(data, SHORT), Watch::writable(writer))?.unwrap_or(0)),
        5 => {
            let data = &data[..data.len().min(PIPE_BUF)];
            writer.write_atomic(data).map(|()| data.len())
        }
        _ => {
            let (from, mut to) = pipe()?;
            let len = to.write(data)?;
            drop(to);
            let mut moved = 0;
            while moved < len {
                moved += writer.splice_from(&from, len)?;
            }
            Ok(moved)
        }
    }
}

/// Reads the stream by every call that there is, to its end. Says how much there was.
pub fn read_stream(round: &mut Round, reader: PipeReader, key: u64, length: u64) -> (Fate, u64) {
    let mut got = 0;
    let mut buf = vec![0; 100_000];
    loop {
        let room = 1 + round.random.up_to(buf.len() as u64 - 1) as usize;
        let read = read_some(&mut round.random, &reader, &mut buf[..room]);
        match read.unwrap_or_else(|error| panic!("{error:?} after {got} bytes")) {
            Some(0) => break,
            Some(len) => {
                check(key, got, &buf[..len]);
                got += len as u64;
                round.board.received(len as u64);
                round.board.bytes.add(len as u64);
            }
            None => {}
        }
    }
    assert_eq!(reader.try_read(&mut buf).expect("the end"), 0, "the end stays");
    assert!(got <= length, "{got} of {length}");
    if got == length {
        return (Fate::Done, got);
    }
    round.parted();
    (Fate::Cut, got)
}

fn read_some(random: &mut Random, mut reader: &PipeReader, buf: &mut [u8]) -> ipc::Result<Option<usize>> {
    match random.below(6) {
        0 => Ok(Some(reader.read(buf)?)),
        1 => {
            let (first, second) = buf.split_at_mut(buf.len() / 2);
            Ok(Some(reader.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?))
        }
        2 => patiently(reader.try_read(buf), Watch::readable(reader)),
        3 => patiently(reader.read_timeout(buf, SHORT), Watch::readable(reader)),
        4 => reader.read_timeout(buf, Duration::MAX).map(Some),
        _ => {
            let (mut from, to) = pipe()?;
            let len = reader.splice_to(&to, buf.len())?;
            drop(to);
            from.read_exact(&mut buf[..len])?;
            Ok(Some(len))
        }
    }
}

/// Passes on what comes, until it ends, or nobody reads it.
pub fn pass_on(round: &mut Round, reader: PipeReader, writer: PipeWriter) -> Fate {
    if round.random.once_in(3) {
        return match ipc::copy(&reader, &writer) {
            Ok(_) => Fate::Done,
            Err(stopped) => {
                assert!(matches!(stopped.error, Error::Closed), "{stopped:?}");
                round.parted();
                Fate::Cut
            }
        };
    }
    let mut buf = vec![0; 50_000];
    loop {
        let passed = match round.random.below(2) {
            0 => reader.splice_to(&writer, 50_000),
            _ => read_some(&mut round.random, &reader, &mut buf).and_then(|len| match len {
                Some(len) => (&writer).write_all(&buf[..len]).map(|()| len).map_err(Error::from),
                None => Ok(1), // more than nothing: it has not ended
            }),
        };
        match passed {
            Ok(0) => return Fate::Done,
            Ok(_) => {}
            Err(Error::Closed) => {
                round.parted();
                return Fate::Cut;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The longest record without its head.
const LONGEST: usize = PIPE_BUF - 16;

pub fn killed_writers_of_records(round: &mut Round) {
    let (mut reader, writer) = some_pipe(&mut round.random);
    let (key, count) = (round.random.next(), round.random.amount(300));
    let children = [0, 1, 2].map(|name: u64| {
        let writer = writer.try_clone().expect("there is room for an end");
        round.fork(writer, |round, writer| {
            for number in 0..count {
                let text = message(key ^ name, number, LONGEST);
                let record = [&name.to_ne_bytes()[..], &number.to_ne_bytes(), &text].concat();
                if let Err(error) = writer.write_atomic(&record) {
                    assert!(matches!(error, Error::Closed), "{error:?}");
                    round.parted();
                    return Fate::Cut;
                }
            }
            Fate::Done
        })
    });
    drop(writer);
    let victims = children.each_ref();
    let killer = round.killer(&victims, 3 * count);
    let mut next = [0; 3];
    let mut head = [[0; 8]; 2];
    loop {
        // A record is there as a whole, or not at all: nothing ends within one.
        let start = reader.read(&mut head[0][..1]).expect("a record, or the end");
        if start == 0 {
            break;
        }
        let [name, number] = &mut head;
        reader.read_exact(&mut name[1..]).expect("the whole record");
        reader.read_exact(number).expect("the whole record");
        let (name, number) = (u64::from_ne_bytes(*name), u64::from_ne_bytes(*number));
        let expected = next.get_mut(name as usize).unwrap_or_else(|| panic!("a writer {name}"));
        assert_eq!(number, *expected, "of writer {name}");
        let mut text = vec![0; message_len(key ^ name, number, LONGEST)];
        reader.read_exact(&mut text).expect("the whole record");
        check_message(key ^ name, number, LONGEST, &text);
        *expected += 1;
        round.board.received(1);
        round.board.messages.add(1);
    }
    let fates = round.fates(&killer, victims);
    for (fate, next) in fates.iter().zip(next) {
        assert!(*fate == Fate::Killed || (*fate, next) == (Fate::Done, count), "{fates:?}, {next} of {count}");
    }
    if fates.contains(&Fate::Killed) {
        round.parted();
    }
}

pub fn killed_stream_peer(round: &mut Round) {
    let pair = stream_pair().expect("there is room for a pair");
    let (keys, length) = ([round.random.next(), round.random.next()], round.random.amount(MOST / 2));
    let swapped = [keys[1], keys[0]];
    let child = round.fork(pair.child, |round, socket| talk(round, socket, keys, length));
    if round.random.once_in(2) {
        let other = round.fork(pair.parent, |round, socket| talk(round, socket, swapped, length));
        let killer = round.killer(&[&child, &other], 2 * length);
        let fates = round.fates(&killer, [&child, &other]);
        assert_cut_by_a_kill(&fates);
    } else {
        let killer = round.killer(&[&child], 2 * length);
        let fate = talk(round, pair.parent, swapped, length);
        let [child] = round.fates(&killer, [&child]);
        assert_cut_by_a_kill(&[fate, child]);
    }
}

/// Writes one stream and reads another, as it comes, until both are through or the peer is gone.
fn talk(round: &mut Round, socket: StreamSocket, [out, back]: [u64; 2], length: u64) -> Fate {
    let (mut sent, mut got) = (0, 0);
    let mut closed = false;
    let mut buf = vec![0; 60_000];
    while got < length || (sent < length && !closed) {
        if sent < length && !closed {
            let len = (1 + round.random.up_to(60_000)).min(length - sent) as usize;
            match put_some(&mut round.random, &socket, &bytes(out, sent, len)) {
                Ok(len) => sent += len as u64,
                // Bytes that the peer wrote before can still be read.
                Err(Error::Closed) => closed = true,
                Err(error) => panic!("{error:?} after {sent} bytes"),
            }
        }
        if got < length {
            let room = 1 + round.random.up_to(buf.len() as u64 - 1) as usize;
            match get_some(&mut round.random, &socket, &mut buf[..room], sent == length || closed) {
                Ok(Some(0)) => return gone(round, &socket, &mut buf),
                Ok(Some(len)) => {
                    check(back, got, &buf[..len]);
                    got += len as u64;
                    round.board.received(len as u64);
                    round.board.bytes.add(len as u64);
                }
                Ok(None) => {}
                Err(Error::Reset) => {
                    round.board.resets.add(1);
                    return gone(round, &socket, &mut buf);
                }
                Err(error) => panic!("{error:?} after {got} bytes"),
            }
        }
    }
    if closed {
        round.parted();
        return Fate::Cut;
    }
    Fate::Done
}

/// The peer is gone, for every call, and was so already.
fn gone(round: &Round, socket: &StreamSocket, buf: &mut [u8]) -> Fate {
    for _ in 0..2 {
        assert_eq!(socket.try_read(buf).expect("the end"), 0, "the end stays");
        let refused = socket.write_timeout(b"x", limit());
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    round.parted();
    Fate::Cut
}

/// Never waits for long: the peer may be writing too.
fn put_some(random: &mut Random, socket: &StreamSocket, data: &[u8]) -> ipc::Result<usize> {
    let put = match random.below(4) {
        0 => socket.try_write(data),
        1 => socket.write_timeout(data, SHORT),
        2 => socket.try_send_with(data, ()).map_err(Error::from),
        _ => socket.send_with_timeout(data, (), SHORT).map_err(Error::from),
    };
    match put {
        Err(Error::WouldBlock | Error::TimedOut) => Ok(0),
        put => put,
    }
}

fn get_some(random: &mut Random, socket: &StreamSocket, buf: &mut [u8], may_wait: bool) -> ipc::Result<Option<usize>> {
    let got = match random.below(if may_wait { 6 } else { 4 }) {
        0 => socket.try_read(buf),
        1 => socket.read_timeout(buf, SHORT),
        2 => socket.try_recv_with(buf).map(|(len, _)| len),
        3 => socket.recv_with_timeout(buf, SHORT).map(|(len, _)| len),
        4 => (&*socket).read(buf).map_err(Error::from),
        _ => socket.recv_with(buf).map(|(len, _)| len),
    };
    match got {
        Err(Error::WouldBlock | Error::TimedOut) => Ok(None),
        got => got.map(Some),
    }
}
