//! A timeout that explains itself: its error also names the processes that hold the other end.
//!
//! A master waits for two workers, one over a pipe and one over a pair. Both are stuck, and the errors name them.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use ipc::{Error, Holders, holders};

/// For what is going to come.
const PATIENT: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The error of a call that waited in vain.
#[derive(Debug)]
struct Overdue {
    waited: Duration,
    held_by: ipc::Result<Holders>,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing for {:?}; ", self.waited)?;
        match &self.held_by {
            Ok(holders) => write!(f, "the channel is held by\n{}", holders.to_string().trim_end()),
            Err(error) => write!(f, "who holds the channel is unknown: {error}"),
        }
    }
}

impl std::error::Error for Overdue {}

/// Makes the call with the timeout. If the time is up, the error names the holders of the end.
fn explained<E: AsFd, T>(end: &E, timeout: Duration, call: impl FnOnce(&E, Duration) -> ipc::Result<T>) -> Result<T> {
    match call(end, timeout) {
        Err(Error::TimedOut) => Err(Overdue { waited: timeout, held_by: holders(end) }.into()),
        result => Ok(result?),
    }
}

fn main() -> Result<()> {
    let timeout = Duration::from_millis(100);
    be_called("master")?;

    let (results, writer) = ipc::pipe()?;
    let sleepy = ipc::fork(writer, |writer| -> ipc::Result<()> {
        be_called("sleepy")?;
        writer.write_atomic(b"42")?;
        loop {
            std::thread::park(); // it neither goes on nor leaves
        }
    })?;
    let mut answer = [0; 64];
    let len = results.read_timeout(&mut answer, PATIENT)?;
    println!("the result is {}", String::from_utf8_lossy(&answer[..len]));
    match explained(&results, timeout, |reader, timeout| reader.read_timeout(&mut answer, timeout)) {
        Ok(len) => println!("{len} bytes more?"),
        Err(error) => println!("{error}\n"),
    }

    let pair = ipc::datagram_pair()?;
    let deaf = ipc::fork(pair.child, |orders| -> ipc::Result<()> {
        be_called("deaf")?;
        orders.recv_vec()?;
        orders.send(b"yes")?;
        loop {
            std::thread::park(); // it never looks again
        }
    })?;
    pair.parent.send(b"are you there?")?;
    let len = pair.parent.recv_timeout(&mut answer, PATIENT)?.unwrap_or(0);
    println!("the answer is {}", String::from_utf8_lossy(&answer[..len]));
    pair.parent.send(b"and now?")?;
    match explained(&pair.parent, timeout, |socket, timeout| socket.recv_timeout(&mut answer, timeout)) {
        Ok(_) => println!("another answer?"),
        Err(error) => println!("{error}"),
    }

    for worker in [sleepy, deaf] {
        worker.kill()?;
        worker.wait()?;
    }
    Ok(())
}

/// Names this process, so that it can be told from others.
fn be_called(name: &str) -> io::Result<()> {
    std::fs::write("/proc/self/comm", name)
}
