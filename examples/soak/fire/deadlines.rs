//! Rounds in which calls wait for what does not come, until their time is up. Nobody is killed.

use std::time::{Duration, Instant};

use ipc::{Error, Watch, datagram_pair, stream_pair, wait_any};

use super::bytes::some_pipe;
use super::{Fate, Round, limit};

pub fn kept(round: &mut Round) {
    let (reader, writer) = some_pipe(&mut round.random);
    let (_keep, full) = some_pipe(&mut round.random);
    while full.try_write(&[0; 4096]).is_ok() {}
    while full.try_write(&[0]).is_ok() {}
    let (messages, bytes) = (datagram_pair().expect("a pair"), stream_pair().expect("a pair"));
    while messages.child.try_send(b"x").is_ok() {}
    while bytes.child.try_write(&[0; 4096]).is_ok() {}
    let child = round.fork((), |_, ()| {
        loop {
            std::thread::park(); // until it is killed
        }
    });
    for _ in 0..6 {
        let timeout = Duration::from_micros(round.random.up_to(5000));
        let started = Instant::now();
        let late = match round.random.below(9) {
            0 => timed_out(reader.read_timeout(&mut [0; 8], timeout)),
            1 => timed_out(full.write_timeout(b"x", timeout)),
            2 => timed_out(messages.child.send_timeout(b"x", timeout)),
            3 => timed_out(messages.child.send_with_timeout(b"x", (), timeout).map_err(Error::from)),
            4 => timed_out(messages.child.recv_timeout(&mut [0; 8], timeout)),
            5 => timed_out(bytes.child.write_timeout(b"x", timeout)),
            6 => timed_out(bytes.child.read_timeout(&mut [0; 8], timeout)),
            7 => matches!(wait_any(&mut [Watch::readable(&reader), Watch::writable(&full)], Some(timeout)), Ok(0)),
            _ => matches!(child.wait_timeout(timeout), Ok(None)),
        };
        let took = started.elapsed();
        assert!(late && took >= timeout && took < limit(), "{late} after {took:?} instead of {timeout:?}");
        round.board.latest.at_least((took - timeout).as_micros() as u64);
        round.board.deadlines.add(1);
    }
    child.kill().expect("a child can be killed");
    assert_eq!(round.fate(&child), Fate::Killed);
    drop((writer, messages, bytes));
    assert_eq!(reader.read_timeout(&mut [0; 8], limit()).expect("the end"), 0);
}

fn timed_out<T>(result: ipc::Result<T>) -> bool {
    matches!(result, Err(Error::TimedOut))
}
