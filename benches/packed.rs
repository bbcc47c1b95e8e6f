//! Many small messages and many small writes, with the contenders taking turns in one run.
//!
//! `cargo bench --bench packed` prints medians over several rounds; `-- --test` looks whether it runs.

mod common;

use std::io::{BufWriter, Write};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::*;

const ROUNDS: usize = 11;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let (rounds, scale) = if quick { (1, 1000) } else { (ROUNDS, 1) };
    pin(0);
    let before = probe();
    println!("a cache line to the other core and back: {before:.0} ns; medians of {rounds} rounds, in turns\n");

    println!("{:<44} {:>12} {:>12} {:>8} {:>6}", "messages one way, M/s", "beside", "ipc", "ratio", "mark");
    for size in [16, 256, 4 << 10, 64 << 10] {
        messages(size, rounds, scale);
    }
    println!("\n{:<44} {:>12} {:>12} {:>8} {:>6}", "buffered writes, GiB/s", "beside", "ipc", "ratio", "mark");
    for size in [16, 64, 256, 1 << 10] {
        buffered_writes(size, rounds, scale);
    }

    let after = probe();
    println!("\na cache line to the other core and back: {after:.0} ns");
    if before.max(after) > 2.0 * before.min(after) {
        println!("the machine moved its cores meanwhile: run it again");
    }
}

fn messages(size: usize, rounds: usize, scale: u64) {
    let (mut datagrams, mut seqpackets) = (unix_datagrams(size), seqpackets(size));
    let (mut packed, mut piped) = (packed_messages(size), piped_messages(size));
    // Those that pack are so much faster with small messages that they need more of them to be measured.
    let more = (4096 / size as u64).clamp(1, 50);
    let mut contenders: Vec<Contender<'_>> = vec![
        ("UnixDatagram", Box::new(|count| datagrams.pass(count))),
        ("seqpacket", Box::new(|count| seqpackets.pass(count))),
        ("PackedSocket", Box::new(|count| packed.pass(count * more) / more as u32)),
        ("MessageWriter", Box::new(|count| piped.pass(count * more) / more as u32)),
    ];
    let count = ((8 << 30) / (size as u64).max(16 << 10) / 4 / scale).max(100);
    let rates: Vec<f64> = take_turns(&mut contenders, count, rounds).iter().map(|ns| 1e3 / ns).collect();
    let [datagram, seqpacket, packed, piped] = rates[..] else { unreachable!("four contenders") };
    let mark = if size == 16 { "60" } else { "" };
    report(&format!("{size} bytes, packed, UnixDatagram"), datagram, packed, packed / datagram, mark);
    report(&format!("{size} bytes, packed, seqpacket"), seqpacket, packed, packed / seqpacket, "");
    report(&format!("{size} bytes, message pipe, UnixDatagram"), datagram, piped, piped / datagram, "");
    report(&format!("{size} bytes, message pipe, seqpacket"), seqpacket, piped, piped / seqpacket, "");
}

/// Messages from a peer on the other core to here.
struct OneWay<F> {
    peer: Peer,
    /// Receives one message, and looks at all of it.
    receive: F,
}

impl<F: FnMut()> OneWay<F> {
    fn pass(&mut self, count: u64) -> Duration {
        let started = Instant::now();
        self.peer.order(count);
        for _ in 0..count {
            (self.receive)();
        }
        started.elapsed()
    }
}

fn unix_datagrams(size: usize) -> OneWay<impl FnMut()> {
    let (to, from) = UnixDatagram::pair().expect("a pair");
    let message = vec![7; size];
    let peer = Peer::start(1, from, move |from, count| {
        (0..count).for_each(|_| assert_eq!(from.send(&message).expect("the receiver is there"), message.len()));
    });
    let mut buf = vec![0; size];
    let receive = move || {
        let len = to.recv(&mut buf).expect("a message");
        look_at(&buf[..len]);
    };
    OneWay { peer, receive }
}

fn seqpackets(size: usize) -> OneWay<impl FnMut()> {
    let (to, from) = bare_pair();
    let message = vec![7; size];
    let peer = Peer::start(1, from, move |from, count| (0..count).for_each(|_| bare_send(from, &message)));
    let mut buf = vec![0; size];
    let receive = move || {
        let len = bare_recv(&to, &mut buf);
        look_at(&buf[..len]);
    };
    OneWay { peer, receive }
}

fn packed_messages(size: usize) -> OneWay<impl FnMut()> {
    let pair = ipc::datagram_pair().expect("a pair");
    let message = vec![7; size];
    let mut from = None;
    let peer = Peer::start(1, Some(pair.child), move |bare, count| {
        let from = from.get_or_insert_with(|| ipc::PackedSocket::new(bare.take().expect("it was given")));
        (0..count).for_each(|_| from.send(&message).expect("the receiver is there"));
        from.flush().expect("the receiver is there");
    });
    let mut to = ipc::PackedSocket::new(pair.parent);
    OneWay { peer, receive: move || look_at(to.recv().expect("it can be received").expect("a message")) }
}

fn piped_messages(size: usize) -> OneWay<impl FnMut()> {
    let (reader, writer) = ipc_pipe();
    let message = vec![7; size];
    let mut from = None;
    let peer = Peer::start(1, Some(writer), move |bare, count| {
        let from = from.get_or_insert_with(|| ipc::MessageWriter::new(bare.take().expect("it was given")));
        (0..count).for_each(|_| from.send(&message).expect("the reader is there"));
        from.flush().expect("the reader is there");
    });
    let mut to = ipc::MessageReader::new(reader);
    OneWay { peer, receive: move || look_at(to.recv().expect("it can be received").expect("a message")) }
}

fn buffered_writes(size: usize, rounds: usize, scale: u64) {
    let (reader, writer) = std_pipe();
    let mut beside = buffered_stream(reader, writer, size, |bare| BufWriter::with_capacity(8 << 10, bare));
    let (reader, writer) = ipc_pipe();
    let mut ours = buffered_stream(reader, writer, size, ipc::BufferedWriter::new);
    let mut contenders: Vec<Contender<'_>> =
        vec![("std", Box::new(|count| beside.pass(count))), ("ipc", Box::new(|count| ours.pass(count)))];
    let count = ((1 << 30) / (size as u64).max(64) / scale).max(100);
    let times = take_turns(&mut contenders, count, rounds);
    let rate = |ns: f64| size as f64 / ns * 1e9 / (1_u64 << 30) as f64;
    let name = format!("{size} bytes, BufWriter over std::io::pipe");
    report(&name, rate(times[0]), rate(times[1]), times[0] / times[1], "1");
}

fn buffered_stream<R: std::io::Read, W: ipc::Ends, B: Write>(
    reader: R,
    writer: W,
    size: usize,
    buffer: impl Fn(W) -> B,
) -> Stream<R> {
    let message = vec![7; size];
    let mut to = None;
    let peer = Peer::start(1, Some(writer), move |bare, count| {
        let to = to.get_or_insert_with(|| buffer(bare.take().expect("it was given")));
        (0..count).for_each(|_| to.write_all(&message).expect("the reader is there"));
        to.flush().expect("the reader is there");
    });
    Stream::from_peer(reader, size, peer)
}
