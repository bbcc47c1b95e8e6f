//! Rounds in which tasks of a runtime pass on messages and bytes, and give up at every moment.

use std::time::Duration;

use ipc::{Error, datagram_pair, pipe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::content::{check, check_message, fill, message};
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The longest message, the most of them, and the most bytes.
const LONGEST: usize = 5000;
const MOST: u64 = 300;
const MOST_BYTES: u64 = 1 << 20;

pub fn killed_peer(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let (reader, writer) = pipe().expect("there is room for a pipe");
    let key = round.random.next();
    let (count, len) = (round.random.amount(MOST), round.random.amount(MOST_BYTES));
    let theirs = round.fork((pair.child, writer), |round, (socket, writer)| {
        run(round, async |round| {
            let socket = ipc::tokio::DatagramSocket::new(socket).expect("a runtime");
            let mut writer = ipc::tokio::PipeWriter::new(writer).expect("a runtime");
            let fates = [send(round, &socket, key, count).await, write(&mut writer, !key, len).await];
            worst(fates)
        })
    });
    let ours = round.fork((pair.parent, reader), |round, (socket, reader)| {
        run(round, async |round| {
            let socket = ipc::tokio::DatagramSocket::new(socket).expect("a runtime");
            let mut reader = ipc::tokio::PipeReader::new(reader).expect("a runtime");
            let fates = [receive(round, &socket, key, count).await, read(round, &mut reader, !key, len).await];
            worst(fates)
        })
    });
    let killer = round.killer(&[&theirs, &ours], count);
    let fates = round.fates(&killer, [&theirs, &ours]);
    assert_cut_by_a_kill(&fates);
}

/// Runs a task on a runtime of its own, and sees that nobody was cut off for long.
fn run(round: &mut Round, task: impl AsyncFnOnce(&mut Round) -> Fate) -> Fate {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().expect("there is room for a runtime");
    let fate = runtime.block_on(async { timeout(limit(), task(round)).await.expect("nobody waits for ever") });
    if fate == Fate::Cut {
        round.parted();
    }
    fate
}

fn worst(fates: [Fate; 2]) -> Fate {
    if fates.contains(&Fate::Cut) { Fate::Cut } else { Fate::Done }
}

/// A time after which a call is given up: often at once.
fn moment(round: &mut Round) -> Duration {
    Duration::from_micros(round.random.up_to(300))
}

async fn send(round: &mut Round, socket: &ipc::tokio::DatagramSocket, key: u64, count: u64) -> Fate {
    for number in 0..count {
        let text = message(key, number, LONGEST);
        // One that was given up has sent nothing.
        let sent = loop {
            let time = if round.random.once_in(2) { limit() } else { moment(round) };
            if let Ok(sent) = timeout(time, socket.send(&text)).await {
                break sent;
            }
        };
        match sent {
            Ok(()) => {}
            Err(Error::Closed) => return Fate::Cut,
            Err(error) => panic!("{error:?} after {number} messages"),
        }
    }
    Fate::Done
}

async fn receive(round: &mut Round, socket: &ipc::tokio::DatagramSocket, key: u64, count: u64) -> Fate {
    for number in 0..count {
        // One that was given up has taken nothing.
        let received = loop {
            let time = if round.random.once_in(2) { limit() } else { moment(round) };
            if let Ok(received) = timeout(time, socket.recv_vec()).await {
                break received;
            }
        };
        match received {
            Ok(Some(text)) => {
                check_message(key, number, LONGEST, &text);
                round.board.messages.add(1);
                round.board.received(1);
            }
            Ok(None) => return Fate::Cut,
            // It sends nothing here that could be lost.
            Err(error) => panic!("{error:?} after {number} messages"),
        }
    }
    Fate::Done
}

async fn write(writer: &mut ipc::tokio::PipeWriter, key: u64, len: u64) -> Fate {
    let mut at = 0;
    let mut chunk = vec![0; 30_000];
    while at < len {
        let now = chunk.len().min((len - at) as usize);
        fill(key, at, &mut chunk[..now]);
        match writer.write_all(&chunk[..now]).await {
            Ok(()) => at += now as u64,
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Fate::Cut,
            Err(error) => panic!("{error:?} after {at} bytes"),
        }
    }
    Fate::Done
}

async fn read(round: &mut Round, reader: &mut ipc::tokio::PipeReader, key: u64, len: u64) -> Fate {
    let mut at = 0;
    let mut buf = vec![0; 20_000];
    loop {
        let time = if round.random.once_in(2) { limit() } else { moment(round) };
        // One that was given up has taken nothing.
        let Ok(got) = timeout(time, reader.read(&mut buf)).await else { continue };
        match got.unwrap_or_else(|error| panic!("{error:?} after {at} bytes")) {
            0 => return if at == len { Fate::Done } else { Fate::Cut },
            count => {
                check(key, at, &buf[..count]);
                at += count as u64;
                round.board.bytes.add(count as u64);
            }
        }
    }
}
