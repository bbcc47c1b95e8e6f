//! Rounds in which a fork server gets orders from many threads, and is killed, or its caller is.

use std::io::Read;
use std::thread;

use ipc::{Child, Error, ForkServer, PIPE_BUF, PipeReader, PipeWriter, Received, pipe};

use super::content::{bytes, check};
use super::random::Random;
use super::{Fate, Round, assert_cut_by_a_kill, limit};

/// The most threads, and the most orders that each gives.
const THREADS: u64 = 6;
const MOST: u64 = 12;

/// The status that a worker leaves with, and nobody else.
const DONE: u8 = 0;

/// A worker writes what its message says.
fn worker(message: Vec<u8>, mut ends: Received) -> u8 {
    let key = u64::from_ne_bytes(message.try_into().expect("a key of 8 bytes"));
    let writer: PipeWriter = ends.take().expect("a writer");
    match writer.write_atomic(&bytes(key, 0, PIPE_BUF)) {
        Ok(()) | Err(Error::Closed) => DONE, // who ordered may be gone
        Err(error) => panic!("{error:?}"),
    }
}

/// The server is killed, at any moment. An order that failed has run nothing, and every worker that came does its work.
pub fn killed_server(round: &mut Round) {
    let server = ForkServer::start(worker).expect("there is room for a process");
    round.board.forks.add(1);
    let threads = 1 + round.random.below(THREADS);
    let seeds: Vec<u64> = (0..threads).map(|_| round.random.next()).collect();
    let killer = round.killer_of(server.id(), threads * MOST / 2);
    let board = round.board;
    let fates: Vec<Fate> = thread::scope(|scope| {
        let server = &server;
        let threads: Vec<_> = seeds.iter().map(|&seed| scope.spawn(move || order(server, seed, board))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread checks what it sees")).collect()
    });
    assert_eq!(round.fate(&killer), Fate::Done, "the killer");
    if fates.contains(&Fate::Cut) {
        assert!(board.since_the_kill().is_some(), "an order failed, and nobody was killed");
        round.parted();
        board.kills.add(1);
    }
}

/// The caller is killed, with its server or without. The server leaves, and so do the workers.
pub fn killed_caller(round: &mut Round) {
    let (reader, writer) = pipe().expect("there is room for a pipe");
    let caller = round.fork(writer, |round, writer| {
        let server = ForkServer::start(worker).expect("there is room for a process");
        let fate = order(&server, round.random.next(), round.board);
        drop(writer);
        fate
    });
    let killer = round.killer(&[&caller], MOST);
    // Everybody who could have had the writer is gone, or was never given it.
    let mut nothing = [0];
    assert_eq!(reader.read_timeout(&mut nothing, limit()).expect("the end"), 0);
    let [fate] = round.fates(&killer, [&caller]);
    if fate == Fate::Killed {
        round.parted();
    }
    assert_cut_by_a_kill(&[fate]);
}

/// Orders one worker after the other, and now and then several at once.
fn order(server: &ForkServer, seed: u64, board: &super::board::Board) -> Fate {
    let mut random = Random::new(seed);
    let mut running: Vec<(Child, PipeReader, u64)> = Vec::new();
    let mut fate = Fate::Done;
    for _ in 0..random.amount(MOST) {
        let (key, (reader, writer)) = (random.next(), pipe().expect("there is room for a pipe"));
        let ordered = match random.below(2) {
            0 => server.fork(&key.to_ne_bytes(), writer),
            _ => server.fork_timeout(&key.to_ne_bytes(), writer, limit()),
        };
        match ordered {
            Ok(child) => running.push((child, reader, key)),
            Err(refused) => {
                assert!(matches!(refused.error, Error::Closed), "{:?}", refused.error);
                drop(refused);
                nobody_ran(reader);
                fate = Fate::Cut;
                break;
            }
        }
        if random.once_in(2) {
            running.drain(..).for_each(|worker| finish(worker, board));
        }
    }
    running.into_iter().for_each(|worker| finish(worker, board));
    fate
}

fn nobody_ran(mut reader: PipeReader) {
    let mut said = Vec::new();
    reader.read_to_end(&mut said).expect("a pipe can be read");
    assert_eq!(said, b"", "the order failed, and its worker ran");
}

fn finish((child, mut reader, key): (Child, PipeReader, u64), board: &super::board::Board) {
    let mut said = Vec::new();
    reader.read_to_end(&mut said).expect("a pipe can be read");
    assert_eq!(said.len(), PIPE_BUF, "a worker does all of its work");
    check(key, 0, &said);
    let status = child.wait_timeout(limit()).expect("a worker can be waited for").expect("it is done");
    assert_eq!(status.code(), Some(i32::from(DONE)));
    board.orders.add(1);
    board.received(1);
}
