//! A message to another process and an answer: of those that sleep while they wait, of those that look again and again, and
//! on one core that both share.

use std::io::{self, Read, Write};

use crate::channel::{Receiver, Records, RoundTrip, Sender, both_ways};
use crate::machine::Core;
use crate::rivals::shmem_ipc::{self, Wait};
use crate::rivals::{bare, iceoryx2, ipc_channel, ours, pipes, rings, sockets, unix_ipc};
use crate::turns::{Entry, Turns, USUAL};

use super::size_name;

pub const SLEEPING: &str = "round trips, sleeping";
pub const SPINNING: &str = "round trips, spinning";
pub const ONE_CORE: &str = "round trips, one core";

pub const SIZES: [usize; 3] = [16, 4 << 10, 64 << 10];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    for size in SIZES {
        let case = size_name(size);
        turns.take(SLEEPING, &case, size as u64, USUAL, sleeping(size))?;
        turns.take(SPINNING, &case, size as u64, USUAL, spinning(size))?;
    }
    turns.take(ONE_CORE, &size_name(16), 16, USUAL, one_core(16))
}

fn sleeping(size: usize) -> Vec<Entry> {
    let there = Core::There;
    vec![
        pipes("bare pipe", size, there, bare::pipe),
        link("bare seqpacket", size, bare::seqpacket),
        pipes("std::io::pipe", size, there, pipes::std),
        pipes("os_pipe", size, there, pipes::os_pipe),
        pipes("interprocess", size, there, pipes::interprocess),
        link("UnixStream", size, sockets::records),
        link("UnixDatagram", size, sockets::datagrams),
        link("ipc-channel, bytes", size, || both_ways(ipc_channel::bytes)),
        link("ipc-channel, typed", size, || both_ways(ipc_channel::typed)),
        link("unix-ipc, raw", size, || both_ways(unix_ipc::raw)),
        ring("shmem-ipc", size, Wait::Sleeping),
        pipes("ipc pipe", size, there, ours::pipe),
        link("ipc datagram", size, ours::datagrams),
        link("ipc stream pair", size, ours::records),
        link("ipc packed datagrams", size, crate::rivals::packed::packed),
        link("ipc message pipe", size, || both_ways(crate::rivals::packed::messages)),
        pipes("ipc ring, no spin", size, there, rings::sleeping),
    ]
}

fn spinning(size: usize) -> Vec<Entry> {
    vec![
        pipes("bare pipe, spinning", size, Core::There, bare::spinning_pipe),
        ring("shmem-ipc, spinning", size, Wait::Spinning),
        link("iceoryx2", size, move || both_ways(|| iceoryx2::channel(size))),
        pipes("ipc pipe, spin 50 µs", size, Core::There, ours::spinning_pipe),
        link("ipc datagram, spin 50 µs", size, ours::spinning_datagrams),
        pipes("ring, by hand, spinning", size, Core::There, rings::limit),
        pipes("ipc ring", size, Core::There, rings::ring),
        pipes("ipc ring, spin 50 µs", size, Core::There, rings::spinning),
        link("ipc ring, messages", size, || both_ways(rings::messages)),
    ]
}

fn one_core(size: usize) -> Vec<Entry> {
    vec![
        pipes("bare pipe", size, Core::Here, bare::pipe),
        pipes("std::io::pipe", size, Core::Here, pipes::std),
        pipes("ipc pipe", size, Core::Here, ours::pipe),
        pipes("ipc pipe, spin 50 µs", size, Core::Here, ours::spinning_pipe),
        pipes("ipc ring", size, Core::Here, rings::ring),
        pipes("ipc ring, spin 50 µs", size, Core::Here, rings::spinning),
    ]
}

/// There and back over two pipes.
fn pipes<R, W>(name: &'static str, size: usize, core: Core, make: fn() -> io::Result<(R, W)>) -> Entry
where
    R: Read + 'static,
    W: Write + 'static,
{
    let records = move || make().map(|(reader, writer)| (Records(writer), Records(reader)));
    Entry::new(name, move || RoundTrip::new(both_ways(records)?, size, core))
}

fn link<L>(name: &'static str, size: usize, make: impl Fn() -> io::Result<(L, L)> + 'static) -> Entry
where
    L: Sender + Receiver + 'static,
{
    Entry::new(name, move || RoundTrip::new(make()?, size, Core::There))
}

fn ring(name: &'static str, size: usize, wait: Wait) -> Entry {
    match size {
        16 => link(name, size, move || both_ways(|| shmem_ipc::ring::<16>(wait))),
        4096 => link(name, size, move || both_ways(|| shmem_ipc::ring::<4096>(wait))),
        _ => link(name, size, move || both_ways(|| shmem_ipc::ring::<65536>(wait))),
    }
}
