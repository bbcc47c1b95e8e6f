//! Making a channel and closing both of its ends, in one process.

use std::hint::black_box;
use std::io;

use crate::rivals::iceoryx2::Topic;
use crate::rivals::shmem_ipc::{self, Wait};
use crate::rivals::{bare, ipc_channel, ours, pipes, sockets, unix_ipc};
use crate::turns::{Entry, Turns, USUAL};

use super::calls::timed;

pub const WORK: &str = "making and closing";
pub const CASE: &str = "a channel";

pub fn run(turns: &mut Turns) -> io::Result<()> {
    let contenders = vec![
        channel("bare pipe", bare::pipe),
        channel("std::io::pipe", pipes::std),
        channel("os_pipe", pipes::os_pipe),
        channel("interprocess", pipes::interprocess),
        channel("ipc pipe", ours::pipe),
        channel("bare seqpacket", bare::seqpacket),
        channel("UnixDatagram", sockets::datagrams),
        channel("UnixStream", sockets::streams),
        channel("ipc datagram", ours::datagrams),
        channel("ipc stream pair", ours::streams),
        channel("ipc-channel, bytes", ipc_channel::bytes),
        channel("unix-ipc, raw", unix_ipc::raw),
        channel("shmem-ipc", || shmem_ipc::ring::<256>(Wait::Sleeping)),
        publish_subscribe("iceoryx2"),
    ];
    turns.take(WORK, CASE, 0, USUAL, contenders)
}

fn channel<T: 'static>(name: &'static str, make: fn() -> io::Result<T>) -> Entry {
    Entry::new(name, move || Ok(move |count| timed(count, || make().map(black_box).map(drop))))
}

/// A service with a publisher and a subscriber. The node, of which a process has one, is there already.
fn publish_subscribe(name: &'static str) -> Entry {
    Entry::new(name, move || {
        let node = Topic::node()?;
        Ok(move |count| {
            timed(count, || {
                let topic = Topic::new(256);
                let service = topic.open(&node)?;
                let subscriber = service.subscriber_builder().create().map_err(crate::rivals::other)?;
                let publisher = topic.publisher(&service)?;
                drop(black_box((publisher, subscriber)));
                Ok(())
            })
        })
    })
}
