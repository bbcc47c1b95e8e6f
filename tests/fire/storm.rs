//! Every call that moves bytes, messages or ends, while a timer interrupts it every 100 µs, without `SA_RESTART`: nothing is
//! lost or doubled, and no call ends with `Interrupted` (P4, P6). Both sides are in the storm.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use crate::rounds::content::{bytes, check, check_message, message};
use crate::rounds::random::Random;
use crate::support::{self, Trial, exit_code, handled, read_all, spliced_once, with_interval_timer};
use ipc::{DatagramFlags, DatagramSocket, Error, PIPE_BUF, PipeReader, PipeWriter, StreamSocket, Watch};
use ipc::{datagram_pair_with, fork, pipe, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        pipes_lose_and_double_nothing within 60,
        pipes_that_were_spliced_lose_and_double_nothing within 60,
        streams_lose_and_double_nothing within 60,
        messages_arrive_once_and_whole within 60,
        connectionless_messages_arrive_once_and_whole within 60,
        ends_arrive_once_with_their_messages within 60,
        ends_arrive_once_with_their_bytes within 60,
    ]
}

pub const PERIOD: Duration = Duration::from_micros(100);

/// Runs something in the storm. It lasts for one signal at least.
pub fn in_the_storm<T>(body: impl FnOnce() -> T) -> T {
    with_interval_timer(PERIOD, || {
        let before = handled();
        let result = body();
        support::poll_until("a signal came", || handled() > before);
        result
    })
}

/// Moves some of the bytes, and says how many. 0: none, try again.
type Put<End> = (&'static str, fn(&End, &[u8]) -> ipc::Result<usize>);

/// Gets some bytes, and says how many. `None`: none, try again.
type Get<End> = (&'static str, fn(&End, &mut [u8]) -> ipc::Result<Option<usize>>);

/// What a call that is not to wait, or not for long, found.
fn patiently<T>(result: ipc::Result<T>, wait: Watch<'_>) -> ipc::Result<Option<T>> {
    match result {
        Err(Error::WouldBlock) => wait_any(&mut [wait], None).map(|_| None),
        Err(Error::TimedOut) => Ok(None),
        result => result.map(Some),
    }
}

const SHORT: Duration = Duration::from_micros(150);

fn halves(data: &[u8]) -> [IoSlice<'_>; 2] {
    let (first, second) = data.split_at(data.len() / 2);
    [IoSlice::new(first), IoSlice::new(second)]
}

fn halves_mut(buf: &mut [u8]) -> [IoSliceMut<'_>; 2] {
    let (first, second) = buf.split_at_mut(buf.len() / 2);
    [IoSliceMut::new(first), IoSliceMut::new(second)]
}

const PIPE_PUTS: [Put<PipeWriter>; 9] = [
    ("write", |mut writer, data| Ok(writer.write(data)?)),
    ("write_all", |mut writer, data| Ok(writer.write_all(data).map(|()| data.len())?)),
    ("write_vectored", |mut writer, data| Ok(writer.write_vectored(&halves(data))?)),
    ("try_write", |writer, data| Ok(patiently(writer.try_write(data), Watch::writable(writer))?.unwrap_or(0))),
    ("write_timeout, short", |writer, data| {
        Ok(patiently(writer.write_timeout(data, SHORT), Watch::writable(writer))?.unwrap_or(0))
    }),
    ("write_timeout, endless", |writer, data| writer.write_timeout(data, Duration::MAX)),
    ("write_atomic", |writer, data| {
        let data = &data[..data.len().min(PIPE_BUF)];
        writer.write_atomic(data).map(|()| data.len())
    }),
    ("splice_from", |writer, data| {
        let (from, mut to) = pipe()?;
        let len = to.write(data)?;
        drop(to);
        let mut moved = 0;
        while moved < len {
            moved += writer.splice_from(&from, len)?;
        }
        assert_eq!(writer.splice_from(&from, 1)?, 0, "the end of what was moved");
        Ok(moved)
    }),
    ("tee", |writer, data| {
        let (from, mut to) = pipe()?;
        let len = to.write(data)?;
        from.tee(writer, len)
    }),
];

const PIPE_GETS: [Get<PipeReader>; 7] = [
    ("read", |mut reader, buf| Ok(Some(reader.read(buf)?))),
    ("read_vectored", |mut reader, buf| Ok(Some(reader.read_vectored(&mut halves_mut(buf))?))),
    ("try_read", |reader, buf| patiently(reader.try_read(buf), Watch::readable(reader))),
    ("read_timeout, short", |reader, buf| patiently(reader.read_timeout(buf, SHORT), Watch::readable(reader))),
    ("read_timeout, endless", |reader, buf| reader.read_timeout(buf, Duration::MAX).map(Some)),
    ("splice_to", |reader, buf| {
        let (mut from, to) = pipe()?;
        let len = reader.splice_to(&to, buf.len())?;
        drop(to);
        from.read_exact(&mut buf[..len])?;
        Ok(Some(len))
    }),
    ("tee", |mut reader, buf| {
        let (from, to) = pipe()?;
        let len = reader.tee(&to, buf.len())?;
        drop(to);
        let copy = read_all(from);
        reader.read_exact(&mut buf[..len])?;
        assert_eq!(copy, buf[..len], "the copy");
        Ok(Some(len))
    }),
];

const STREAM_PUTS: [Put<StreamSocket>; 7] = [
    ("write", |mut socket, data| Ok(socket.write(data)?)),
    ("write_vectored", |mut socket, data| Ok(socket.write_vectored(&halves(data))?)),
    ("try_write", |socket, data| Ok(patiently(socket.try_write(data), Watch::writable(socket))?.unwrap_or(0))),
    ("write_timeout, short", |socket, data| {
        Ok(patiently(socket.write_timeout(data, SHORT), Watch::writable(socket))?.unwrap_or(0))
    }),
    ("write_timeout, endless", |socket, data| socket.write_timeout(data, Duration::MAX)),
    ("send_with", |socket, data| Ok(socket.send_with(data, ())?)),
    ("send_with_timeout", |socket, data| {
        let sent = socket.send_with_timeout(data, (), SHORT).map_err(Error::from);
        Ok(patiently(sent, Watch::writable(socket))?.unwrap_or(0))
    }),
];

const STREAM_GETS: [Get<StreamSocket>; 7] = [
    ("read", |mut socket, buf| Ok(Some(socket.read(buf)?))),
    ("read_vectored", |mut socket, buf| Ok(Some(socket.read_vectored(&mut halves_mut(buf))?))),
    ("try_read", |socket, buf| patiently(socket.try_read(buf), Watch::readable(socket))),
    ("read_timeout, short", |socket, buf| patiently(socket.read_timeout(buf, SHORT), Watch::readable(socket))),
    ("recv_with", |socket, buf| socket.recv_with(buf).map(|(len, _)| Some(len))),
    ("try_recv_with", |socket, buf| patiently(socket.try_recv_with(buf).map(|(len, _)| len), Watch::readable(socket))),
    ("recv_with_timeout", |socket, buf| {
        patiently(socket.recv_with_timeout(buf, SHORT).map(|(len, _)| len), Watch::readable(socket))
    }),
];

/// How much goes through each pair of calls.
fn length() -> u64 {
    support::rounds(20_000)
}

/// Moves a stream with every call that puts against every call that gets, both in the storm.
fn stream_through<Out: ipc::Ends, In>(puts: &[Put<Out>], gets: &[Get<In>], make: impl Fn() -> (In, Out)) {
    let (key, length) = (Random::fresh_seed(), length());
    for (put_name, put) in puts {
        for (get_name, get) in gets {
            let (reader, writer) = make();
            let child = fork(writer, |writer| {
                in_the_storm(|| {
                    let mut random = Random::new(key);
                    let mut sent = 0;
                    while sent < length {
                        let len = (1 + random.up_to(20_000)).min(length - sent);
                        sent += put(&writer, &bytes(key, sent, len as usize)).expect(put_name) as u64;
                    }
                });
            })
            .map_err(Error::from)
            .unwrap();
            in_the_storm(|| {
                let mut random = Random::new(!key);
                let mut buf = vec![0; 20_000];
                let mut got = 0;
                loop {
                    let room = 1 + random.up_to(19_000) as usize;
                    match get(&reader, &mut buf[..room]).expect(get_name) {
                        Some(0) => break,
                        Some(len) => {
                            check(key, got, &buf[..len]);
                            got += len as u64;
                        }
                        None => {}
                    }
                }
                assert_eq!(got, length, "{put_name} → {get_name}");
            });
            assert_eq!(exit_code(&child), 0, "{put_name} → {get_name}");
        }
    }
}

fn pipes_lose_and_double_nothing() {
    stream_through(&PIPE_PUTS, &PIPE_GETS, || {
        let (reader, writer) = pipe().unwrap();
        // Full and empty all the time, so that nearly every call waits.
        writer.set_capacity(PIPE_BUF).unwrap();
        (reader, writer)
    });
}

fn pipes_that_were_spliced_lose_and_double_nothing() {
    let is_plain = |name: &&str| !name.starts_with("splice") && !name.starts_with("tee");
    let puts: Vec<_> = PIPE_PUTS.into_iter().filter(|(name, _)| is_plain(name)).collect();
    let gets: Vec<_> = PIPE_GETS.into_iter().filter(|(name, _)| is_plain(name)).collect();
    stream_through(&puts, &gets, || {
        let (reader, writer) = pipe().unwrap();
        writer.set_capacity(PIPE_BUF).unwrap();
        spliced_once(&reader);
        spliced_once(&writer);
        (reader, writer)
    });
}

fn streams_lose_and_double_nothing() {
    stream_through(&STREAM_PUTS, &STREAM_GETS, || {
        let pair = stream_pair().unwrap();
        (pair.parent, pair.child)
    });
}

/// Sends the message, or says that it was not sent.
type Send = (&'static str, fn(&DatagramSocket, &[u8]) -> ipc::Result<Option<()>>);

/// Receives a message. The outer `None`: none, try again.
type Receive = (&'static str, fn(&DatagramSocket) -> ipc::Result<Option<Option<Vec<u8>>>>);

const SENDS: [Send; 10] = [
    ("send", |socket, message| socket.send(message).map(Some)),
    ("send_vectored", |socket, message| socket.send_vectored(&halves(message)).map(Some)),
    ("try_send_vectored", |socket, message| {
        patiently(socket.try_send_vectored(&halves(message)), Watch::writable(socket))
    }),
    ("send_vectored_timeout", |socket, message| {
        patiently(socket.send_vectored_timeout(&halves(message), SHORT), Watch::writable(socket))
    }),
    ("try_send", |socket, message| patiently(socket.try_send(message), Watch::writable(socket))),
    ("send_timeout, short", |socket, message| patiently(socket.send_timeout(message, SHORT), Watch::writable(socket))),
    ("send_timeout, endless", |socket, message| socket.send_timeout(message, Duration::MAX).map(Some)),
    ("send_with", |socket, message| Ok(Some(socket.send_with(message, ())?))),
    ("try_send_with", |socket, message| {
        patiently(socket.try_send_with(message, ()).map_err(Error::from), Watch::writable(socket))
    }),
    ("send_with_timeout", |socket, message| {
        patiently(socket.send_with_timeout(message, (), SHORT).map_err(Error::from), Watch::writable(socket))
    }),
];

const RECEIVES: [Receive; 10] = [
    ("recv", |socket| whole(|buf| socket.recv(buf)).map(Some)),
    ("try_recv", |socket| patiently(whole(|buf| socket.try_recv(buf)), Watch::readable(socket))),
    ("recv_timeout", |socket| patiently(whole(|buf| socket.recv_timeout(buf, SHORT)), Watch::readable(socket))),
    ("recv_vec", |socket| socket.recv_vec().map(Some)),
    ("try_recv_vec", |socket| patiently(socket.try_recv_vec(), Watch::readable(socket))),
    ("recv_vec_timeout", |socket| patiently(socket.recv_vec_timeout(SHORT), Watch::readable(socket))),
    ("peek_len", |socket| {
        let Some(len) = socket.peek_len()? else { return Ok(Some(None)) };
        let message = socket.recv_vec()?.expect("what was looked at");
        assert_eq!(message.len(), len, "what was looked at");
        Ok(Some(Some(message)))
    }),
    ("recv_with", |socket| with_ends(|message| socket.recv_with(message)).map(Some)),
    ("try_recv_with", |socket| patiently(with_ends(|message| socket.try_recv_with(message)), Watch::readable(socket))),
    ("recv_with_timeout", |socket| {
        patiently(with_ends(|message| socket.recv_with_timeout(message, SHORT)), Watch::readable(socket))
    }),
];

/// A message, some of which do not fit.
fn whole(recv: impl FnOnce(&mut [u8]) -> ipc::Result<Option<usize>>) -> ipc::Result<Option<Vec<u8>>> {
    let mut buf = [0; 1000];
    match recv(&mut buf) {
        Err(Error::BufferTooSmall { message }) => Ok(Some(message)),
        received => Ok(received?.map(|len| buf[..len].to_vec())),
    }
}

fn with_ends(recv: impl FnOnce(&mut Vec<u8>) -> ipc::Result<Option<ipc::Received>>) -> ipc::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    Ok(recv(&mut message)?.map(|_| message))
}

/// How many go through each pair of calls.
fn messages() -> u64 {
    support::rounds(30)
}

const LONGEST: usize = 20_000;

fn messages_through(flags: DatagramFlags) {
    let key = Random::fresh_seed();
    for (send_name, send) in SENDS {
        for (receive_name, receive) in RECEIVES {
            let pair = datagram_pair_with(flags).unwrap();
            let child = fork(pair.child, |socket| {
                in_the_storm(|| {
                    for number in 0..messages() {
                        while send(&socket, &message(key, number, LONGEST)).expect(send_name).is_none() {}
                    }
                });
            })
            .unwrap();
            in_the_storm(|| {
                for number in 0..messages() {
                    let got = loop {
                        if let Some(got) = receive(&pair.parent).expect(receive_name) {
                            break got.unwrap_or_else(|| panic!("the end after {number} messages"));
                        }
                    };
                    check_message(key, number, LONGEST, &got);
                }
                // A connectionless pair knows no end.
                if flags.is_empty() {
                    assert_eq!(pair.parent.recv_vec().unwrap(), None, "{send_name} → {receive_name}");
                }
            });
            assert_eq!(exit_code(&child), 0, "{send_name} → {receive_name}");
        }
    }
}

fn messages_arrive_once_and_whole() {
    messages_through(DatagramFlags::empty());
}

fn connectionless_messages_arrive_once_and_whole() {
    messages_through(DatagramFlags::CONNECTIONLESS);
}

/// A pipe with a number in it, and no writer any more.
fn numbered(number: u64) -> PipeReader {
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(&number.to_ne_bytes()).unwrap();
    reader
}

fn ends_arrive_once_with_their_messages() {
    let key = Random::fresh_seed();
    let pair = datagram_pair_with(DatagramFlags::empty()).unwrap();
    let child = fork(pair.child, |socket| {
        in_the_storm(|| {
            for number in 0..messages() {
                let text = message(key, number, LONGEST);
                let mut ends = [numbered(number), numbered(!number)];
                loop {
                    let sent = match number % 3 {
                        0 => socket.send_with(&text, ends),
                        1 => socket.try_send_with(&text, ends),
                        _ => socket.send_with_timeout(&text, ends, SHORT),
                    };
                    match sent {
                        Ok(()) => break,
                        Err(refused) => {
                            assert!(matches!(refused.error, Error::WouldBlock | Error::TimedOut), "{refused:?}");
                            ends = refused.ends;
                        }
                    }
                }
            }
        });
    })
    .unwrap();
    in_the_storm(|| {
        let mut text = Vec::new();
        for number in 0..messages() {
            let mut received = pair.parent.recv_with(&mut text).unwrap().expect("a message");
            check_message(key, number, LONGEST, &text);
            for expected in [number, !number] {
                assert_eq!(read_all(received.take().unwrap()), expected.to_ne_bytes());
            }
            assert!(received.is_empty());
        }
        assert!(pair.parent.recv_with(&mut text).unwrap().is_none());
    });
    assert_eq!(exit_code(&child), 0);
}

fn ends_arrive_once_with_their_bytes() {
    let key = Random::fresh_seed();
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        in_the_storm(|| {
            for number in 0..messages() {
                let text = bytes(key, number * 3000, 3000);
                let sent = socket.send_with(&text, numbered(number)).unwrap();
                (&socket).write_all(&text[sent..]).unwrap();
            }
        });
    })
    .unwrap();
    in_the_storm(|| {
        let mut buf = [0; 2000];
        let (mut got, mut ends) = (0, 0);
        loop {
            let (len, mut received) = pair.parent.recv_with(&mut buf).unwrap();
            check(key, got, &buf[..len]);
            if !received.is_empty() {
                // With their first byte, and with none that was sent after them.
                let theirs = ends * 3000..(ends + 1) * 3000;
                assert!(theirs.start >= got && theirs.end >= got + len as u64, "{theirs:?} in {got} + {len}");
                assert_eq!(read_all(received.take().unwrap()), ends.to_ne_bytes());
                ends += 1;
            }
            got += len as u64;
            if len == 0 {
                break;
            }
        }
        assert_eq!((got, ends), (messages() * 3000, messages()));
    });
    assert_eq!(exit_code(&child), 0);
}
