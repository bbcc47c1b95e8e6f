//! What the calls cost where nobody waits: a write and a read, a send and a receive, in one process.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::channel::{Receiver, Sender};
use crate::rivals::{bare, ours, pipes, sockets};
use crate::turns::{Entry, FINE, Turns};

use super::size_name;

pub const BYTES: &str = "write and read";
pub const MESSAGES: &str = "send and receive";

pub const SIZES: [usize; 2] = [16, 4 << 10];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    for size in SIZES {
        let contenders = vec![
            bytes("bare pipe", size, bare::pipe),
            bytes("std::io::pipe", size, pipes::std),
            bytes("os_pipe", size, pipes::os_pipe),
            bytes("interprocess", size, pipes::interprocess),
            bytes("ipc pipe", size, ours::pipe),
        ];
        turns.take(BYTES, &size_name(size), size as u64, FINE, contenders)?;
    }
    for size in SIZES {
        let contenders = vec![
            messages("bare seqpacket", size, bare::seqpacket),
            messages("UnixDatagram", size, sockets::datagrams),
            messages("ipc datagram", size, ours::datagrams),
        ];
        turns.take(MESSAGES, &size_name(size), size as u64, FINE, contenders)?;
    }
    Ok(())
}

fn bytes<R, W>(name: &'static str, size: usize, make: fn() -> io::Result<(R, W)>) -> Entry
where
    R: Read + 'static,
    W: Write + 'static,
{
    Entry::new(name, move || {
        let (mut reader, mut writer) = make()?;
        let (message, mut buf) = (vec![7; size], vec![0; size]);
        Ok(move |count| {
            timed(count, || {
                writer.write_all(&message)?;
                reader.read_exact(&mut buf)
            })
        })
    })
}

fn messages<S, R>(name: &'static str, size: usize, make: fn() -> io::Result<(S, R)>) -> Entry
where
    S: Sender + 'static,
    R: Receiver + 'static,
{
    Entry::new(name, move || {
        let (mut sender, mut receiver) = make()?;
        let (message, mut buf) = (vec![7; size], vec![0; size]);
        Ok(move |count| {
            timed(count, || {
                sender.send(&message)?;
                receiver.receive(&mut buf, 1, |_| ()).map(drop)
            })
        })
    })
}

/// Returns how long it takes to do that so many times.
pub fn timed(count: u64, mut call: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let started = Instant::now();
    (0..count).try_for_each(|_| call())?;
    Ok(started.elapsed())
}
