//! Messages from one process to another.

use std::io;

use crate::channel::{OneWay, Receiver, Sender};
use crate::machine::Core;
use crate::rivals::shmem_ipc::{self, Wait};
use crate::rivals::{bare, iceoryx2, ipc_channel, ours, pipes, rings, sockets, typed, unix_ipc};
use crate::turns::{Entry, Turns, USUAL};

use super::size_name;

pub const WORK: &str = "messages";

pub const SIZES: [usize; 4] = [16, 256, 4 << 10, 64 << 10];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    SIZES.iter().try_for_each(|size| turns.take(WORK, &size_name(*size), *size as u64, USUAL, contenders(*size)))
}

fn contenders(size: usize) -> Vec<Entry> {
    let ring = match size {
        16 => one_way("shmem-ipc", size, || shmem_ipc::ring::<16>(Wait::Sleeping)),
        256 => one_way("shmem-ipc", size, || shmem_ipc::ring::<256>(Wait::Sleeping)),
        4096 => one_way("shmem-ipc", size, || shmem_ipc::ring::<4096>(Wait::Sleeping)),
        _ => one_way("shmem-ipc", size, || shmem_ipc::ring::<65536>(Wait::Sleeping)),
    };
    vec![
        one_way("bare seqpacket", size, bare::seqpacket),
        one_way("UnixDatagram", size, sockets::datagrams),
        one_way("std::io::pipe, framed by hand", size, pipes::framed_by_hand),
        one_way("ipc-channel, bytes", size, ipc_channel::bytes),
        one_way("ipc-channel, typed", size, ipc_channel::typed),
        one_way("unix-ipc, raw", size, unix_ipc::raw),
        one_way("unix-ipc, typed", size, unix_ipc::typed),
        ring,
        one_way("iceoryx2", size, move || iceoryx2::channel(size)),
        one_way("ipc datagram", size, ours::datagrams),
        one_way("ipc packed datagrams", size, crate::rivals::packed::packed),
        one_way("ipc message pipe", size, crate::rivals::packed::messages),
        one_way("postcard by hand over ipc", size, typed::by_hand),
        one_way("ipc typed", size, typed::typed),
        one_way("ipc typed, packed", size, typed::packed),
        one_way("ring, by hand, spinning", size, rings::limit_records),
        one_way("ipc ring, records", size, rings::records),
        one_way("ipc ring, messages", size, rings::messages),
        one_way("ipc ring, 1 MiB capacity, messages", size, rings::large_messages),
    ]
}

fn one_way<S, R>(name: &'static str, size: usize, make: impl Fn() -> io::Result<(S, R)> + 'static) -> Entry
where
    S: Sender + 'static,
    R: Receiver + 'static,
{
    Entry::new(name, move || OneWay::new(make()?, size, Core::There))
}
