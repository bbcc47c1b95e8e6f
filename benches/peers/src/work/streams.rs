//! A stream of bytes from one process to another.

use std::io::{self, Read, Write};

use crate::channel::{OneWay, Records, Stream};
use crate::machine::Core;
use crate::rivals::{bare, iceoryx2, ours, pipes, rings, shmem_ipc, sockets};
use crate::turns::{Entry, Turns, USUAL};

use super::size_name;

pub const WORK: &str = "streams";

pub const ONE_CORE: &str = "streams, one core";

pub const SIZES: [usize; 5] = [64, 1 << 10, 4 << 10, 64 << 10, 1 << 20];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    SIZES.iter().try_for_each(|size| turns.take(WORK, &size_name(*size), *size as u64, USUAL, contenders(*size)))?;
    let size = 64 << 10;
    turns.take(ONE_CORE, &size_name(size), size as u64, USUAL, one_core(size))
}

fn one_core(size: usize) -> Vec<Entry> {
    vec![
        on("bare pipe", size, Core::Here, bare::pipe),
        on("ipc pipe", size, Core::Here, ours::pipe),
        on("ipc ring", size, Core::Here, rings::ring),
    ]
}

fn contenders(size: usize) -> Vec<Entry> {
    vec![
        plain("bare pipe", size, bare::pipe),
        plain("bare pipe, 1 MiB capacity", size, bare::large_pipe),
        plain("bare pipe, cut to 8 KiB", size, bare::cut_pipe),
        plain("bare pipe, 256 KiB capacity, cut to 64 KiB", size, bare::large_cut_pipe),
        plain("std::io::pipe", size, pipes::std),
        buffered("std::io::pipe + BufWriter", size, pipes::std_buffered),
        plain("os_pipe", size, pipes::os_pipe),
        plain("interprocess", size, pipes::interprocess),
        plain("UnixStream", size, sockets::streams),
        plain("shmem-ipc", size, shmem_ipc::stream),
        Entry::new("iceoryx2", move || OneWay::new(iceoryx2::channel(size)?, size, Core::There)),
        plain("ring, by hand, spinning", size, rings::limit),
        plain("ipc pipe", size, ours::pipe),
        plain("ipc pipe, spin 50 µs", size, ours::spinning_pipe),
        buffered("ipc pipe, buffered", size, crate::rivals::packed::buffered),
        plain("ipc stream pair", size, ours::streams),
        plain("ipc ring", size, rings::ring),
        plain("ipc ring, 1 MiB capacity", size, rings::large),
    ]
}

/// What there is is read, up to 64 KiB at a time.
fn plain<R, W>(name: &'static str, size: usize, make: fn() -> io::Result<(R, W)>) -> Entry
where
    R: Read + 'static,
    W: Write + 'static,
{
    on(name, size, Core::There, make)
}

fn on<R, W>(name: &'static str, size: usize, core: Core, make: fn() -> io::Result<(R, W)>) -> Entry
where
    R: Read + 'static,
    W: Write + 'static,
{
    Entry::new(name, move || Stream::new(make()?, size, core))
}

/// What is read is as long as what was written: for that one has a buffer.
fn buffered<R, W>(name: &'static str, size: usize, make: fn() -> io::Result<(R, W)>) -> Entry
where
    R: Read + 'static,
    W: Write + 'static,
{
    Entry::new(name, move || {
        let (reader, writer) = make()?;
        OneWay::new((Records(writer), Records(reader)), size, Core::There)
    })
}
