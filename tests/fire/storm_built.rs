//! What is built of several system calls, while a timer interrupts it every 100 µs, without `SA_RESTART`: packed messages,
//! messages through pipes, buffered writers and copies lose and double nothing, and no call ends with `Interrupted` (P4, P6).

use std::io::Write;
use std::time::Duration;

use crate::rounds::content::{bytes, check, check_message, message};
use crate::rounds::random::Random;
use crate::storm::in_the_storm;
use crate::support::{self, Trial, exit_code, read_all};
use ipc::{
    BufferedWriter, Error, MessageReader, MessageWriter, PIPE_BUF, PackedSocket, copy, datagram_pair, fork, pipe,
    stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        packed_messages_arrive_once_and_whole within 60,
        messages_through_pipes_arrive_once_and_whole within 60,
        buffered_writers_lose_and_double_nothing,
        copies_lose_and_double_nothing within 60,
    ]
}

/// How many go through each pair of calls.
fn messages() -> u64 {
    support::rounds(250)
}

const LONGEST: usize = 5000;
const SHORT: Duration = Duration::from_micros(150);

/// Whether it was done; if not, it is tried again.
fn done<T>(result: ipc::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(Error::WouldBlock | Error::TimedOut) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Sends the messages in the storm.
fn send_all<W>(
    key: u64,
    writer: &mut W,
    send: impl Fn(&mut W, &[u8]) -> ipc::Result<()>,
    flush: impl FnOnce(&mut W) -> ipc::Result<()>,
) {
    in_the_storm(|| {
        for number in 0..messages() {
            while !done(send(writer, &message(key, number, LONGEST))) {}
        }
        flush(writer).unwrap();
    });
}

/// Receives them in the storm, until EOF.
fn receive_all(key: u64, mut receive: impl FnMut() -> ipc::Result<Option<Vec<u8>>>) {
    in_the_storm(|| {
        let mut number = 0;
        loop {
            match receive() {
                Ok(Some(got)) => check_message(key, number, LONGEST, &got),
                Ok(None) => break,
                Err(Error::WouldBlock | Error::TimedOut) => continue,
                Err(error) => panic!("{error:?}"),
            }
            number += 1;
        }
        assert_eq!(number, messages());
    });
}

type SendPacked = fn(&mut PackedSocket, &[u8]) -> ipc::Result<()>;
type ReceivePacked = fn(&mut PackedSocket) -> ipc::Result<Option<Vec<u8>>>;

const SEND_PACKED: [SendPacked; 4] = [
    |socket, text| socket.send(text),
    |socket, text| socket.try_send(text),
    |socket, text| socket.send_timeout(text, SHORT),
    |socket, text| {
        socket.send(text)?;
        while !done(socket.try_flush()) && !done(socket.flush_timeout(SHORT)) {}
        Ok(())
    },
];

const RECEIVE_PACKED: [ReceivePacked; 3] = [
    |socket| Ok(socket.recv()?.map(<[u8]>::to_vec)),
    |socket| Ok(socket.try_recv()?.map(<[u8]>::to_vec)),
    |socket| Ok(socket.recv_timeout(SHORT)?.map(<[u8]>::to_vec)),
];

fn packed_messages_arrive_once_and_whole() {
    let key = Random::fresh_seed();
    for send in SEND_PACKED {
        for receive in RECEIVE_PACKED {
            let pair = datagram_pair().unwrap();
            let child = fork(pair.child, |socket| {
                let mut socket = PackedSocket::new(socket);
                send_all(key, &mut socket, send, |socket| socket.flush());
                socket.close().unwrap();
            })
            .unwrap();
            let mut socket = PackedSocket::new(pair.parent);
            receive_all(key, || receive(&mut socket));
            assert_eq!(exit_code(&child), 0);
        }
    }
}

type SendThrough = fn(&mut MessageWriter, &[u8]) -> ipc::Result<()>;
type ReceiveThrough = fn(&mut MessageReader) -> ipc::Result<Option<Vec<u8>>>;

const SEND_THROUGH: [SendThrough; 4] = [
    |writer, text| writer.send(text),
    |writer, text| writer.try_send(text),
    |writer, text| writer.send_timeout(text, SHORT),
    |writer, text| {
        writer.send(text)?;
        while !done(writer.try_flush()) && !done(writer.flush_timeout(SHORT)) {}
        Ok(())
    },
];

const RECEIVE_THROUGH: [ReceiveThrough; 3] = [
    |reader| Ok(reader.recv()?.map(<[u8]>::to_vec)),
    |reader| Ok(reader.try_recv()?.map(<[u8]>::to_vec)),
    |reader| Ok(reader.recv_timeout(SHORT)?.map(<[u8]>::to_vec)),
];

fn messages_through_pipes_arrive_once_and_whole() {
    let key = Random::fresh_seed();
    for send in SEND_THROUGH {
        for receive in RECEIVE_THROUGH {
            let (reader, writer) = pipe().unwrap();
            writer.set_capacity(2 * PIPE_BUF).unwrap();
            let child = fork(writer, |writer| {
                let mut writer = MessageWriter::new(writer);
                send_all(key, &mut writer, send, |writer| writer.flush());
                writer.close().unwrap();
            })
            .unwrap();
            let mut reader = MessageReader::new(reader);
            receive_all(key, || receive(&mut reader));
            assert_eq!(exit_code(&child), 0);
        }
    }
}

fn buffered_writers_lose_and_double_nothing() {
    let (key, length) = (Random::fresh_seed(), support::rounds(100_000));
    let (reader, writer) = pipe().unwrap();
    writer.set_capacity(PIPE_BUF).unwrap();
    let child = fork(writer, |writer| {
        let mut writer = BufferedWriter::new(writer);
        in_the_storm(|| {
            let mut random = Random::new(key);
            let mut sent = 0;
            while sent < length {
                let len = (1 + random.up_to(10_000)).min(length - sent);
                sent += writer.write(&bytes(key, sent, len as usize)).unwrap() as u64;
                if random.once_in(10) {
                    writer.flush().unwrap();
                }
            }
            writer.flush().unwrap();
        });
        writer.close().unwrap();
    })
    .unwrap();
    let all = in_the_storm(|| read_all(reader));
    assert_eq!(all.len() as u64, length);
    check(key, 0, &all);
    assert_eq!(exit_code(&child), 0);
}

/// Along a chain of copies: pipe to pipe, to a socket, and to a pipe again.
fn copies_lose_and_double_nothing() {
    let (key, length) = (Random::fresh_seed(), support::rounds(150_000));
    for capacity in [PIPE_BUF, 64 << 10] {
        let (first, writer) = pipe().unwrap();
        let (second, between) = pipe().unwrap();
        let pair = stream_pair().unwrap();
        let (last, after) = pipe().unwrap();
        for end in [&writer, &between, &after] {
            end.set_capacity(capacity).unwrap();
        }
        let children = [
            fork(writer, |mut writer| {
                in_the_storm(|| {
                    for at in (0..length).step_by(10_000) {
                        writer.write_all(&bytes(key, at, 10_000)).unwrap();
                    }
                });
            })
            .unwrap(),
            fork((first, between), |(first, between)| {
                in_the_storm(|| assert_eq!(copy(first, between).unwrap(), length))
            })
            .map_err(Error::from)
            .unwrap(),
            fork((second, pair.child), |(second, socket)| {
                in_the_storm(|| assert_eq!(copy(second, socket).unwrap(), length));
            })
            .map_err(Error::from)
            .unwrap(),
            fork((pair.parent, after), |(socket, after)| {
                in_the_storm(|| assert_eq!(copy(socket, after).unwrap(), length));
            })
            .map_err(Error::from)
            .unwrap(),
        ];
        let all = in_the_storm(|| read_all(last));
        assert_eq!(all.len() as u64, length);
        check(key, 0, &all);
        for child in &children {
            assert_eq!(exit_code(child), 0);
        }
    }
}
