//! Whether giving pages away could beat copying them: vmsplice(2) of memory that the sender fills and gives up for good,
//! beside writes of a buffer that is used again, cut to 8 KiB. This crate has no such call; `docs/decisions.md` says why.
//!
//! `cargo bench --bench pages` prints medians of rounds in which the contenders take turns, and `-- --busy` what is the best
//! sight of them on a busy machine. Every sender fills every byte
//! that it sends, on the other core, and the reader here looks at every byte.
//!
//! - `write`: one buffer, filled again for each message.
//! - `fresh`: a new mapping for each message, unmapped once it was sent. `populated`: with all its pages from the start.
//! - `huge`: 2 MiB in one large page, given away piece by piece, unmapped when all of it was.
//! - `reused`: the same pages again and again, as no sender may: the reader sees what is written to them meanwhile. It is
//!   here to show what is left when nothing is allocated.

mod common;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::*;
use ipc::{PipeReader, PipeWriter};

const HUGE: usize = 2 << 20;

fn main() {
    let plan = Plan::from_arguments(64 << 20, 11);
    pin(0);
    println!("GiB/s, and milliseconds of both sides' processor time for a GiB; {plan}\n");
    print!("{:<32}", "");
    SENDERS.iter().for_each(|(name, _)| print!("{name:>14}"));
    println!("{:>12}", "best/write");
    for capacity in [64 << 10, 1 << 20] {
        for size in [64 << 10, 256 << 10, 1 << 20] {
            let mut streams: Vec<_> =
                SENDERS.iter().map(|(_, make)| Messages::new(make(size), size, capacity)).collect();
            let mut results = vec![(Vec::new(), Vec::new()); SENDERS.len()];
            let gib = plan.bytes as f64 / (1_u64 << 30) as f64;
            for round in 0..plan.rounds {
                for turn in 0..SENDERS.len() {
                    let this = (round + turn) % SENDERS.len(); // so that none has the same one before it all the time
                    let stream = &mut streams[this];
                    let before = processor_time() + stream.peer.processor_time();
                    results[this].0.push(gib / stream.pass(plan.bytes / size).as_secs_f64());
                    let cost = processor_time() + stream.peer.processor_time() - before;
                    results[this].1.push(cost * 1e3 / gib);
                }
            }
            let results: Vec<_> =
                results.into_iter().map(|(rates, costs)| (quantile(plan.quantile, rates), median(costs))).collect();
            print!("{:<32}", format!("{} KiB, in a pipe of {} KiB", size >> 10, capacity >> 10));
            results.iter().for_each(|(rate, cost)| print!("{:>14}", format!("{rate:.2} ({cost:.0})")));
            println!("{:>12.2}", results[1..=3].iter().fold(0.0_f64, |best, (rate, _)| best.max(*rate)) / results[0].0);
        }
    }
}

/// Makes one message and sends it.
type Send = Box<dyn FnMut(&mut PipeWriter)>;

/// By the length of a message.
type Sender = (&'static str, fn(usize) -> Send);

const SENDERS: [Sender; 5] =
    [("write", write), ("fresh", fresh), ("populated", populated), ("huge", huge), ("reused", reused)];

fn write(size: usize) -> Send {
    let mut message = vec![0; size];
    Box::new(move |writer| {
        use std::io::Write;
        fill(&mut message);
        writer.write_all(&message).expect("it is read");
    })
}

fn fresh(size: usize) -> Send {
    Box::new(move |writer| {
        let mut pages = Pages::new(size, 0);
        fill(pages.all());
        give(writer, pages.all());
    })
}

fn populated(size: usize) -> Send {
    Box::new(move |writer| {
        let mut pages = Pages::new(size, libc::MAP_POPULATE);
        fill(pages.all());
        give(writer, pages.all());
    })
}

fn huge(size: usize) -> Send {
    let mut pages = None;
    let mut used = 0;
    Box::new(move |writer| {
        let large = pages.get_or_insert_with(Pages::huge);
        let message = &mut large.all()[used..][..size];
        fill(message);
        give(writer, message);
        used += size;
        if used == HUGE {
            (pages, used) = (None, 0);
        }
    })
}

fn reused(size: usize) -> Send {
    let mut pages = Pages::new(size, 0);
    Box::new(move |writer| {
        fill(pages.all());
        give(writer, pages.all());
    })
}

/// What a sender does with a message: writes all of it.
fn fill(message: &mut [u8]) {
    for word in message.chunks_exact_mut(8) {
        word.copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_ne_bytes());
    }
    std::hint::black_box(message);
}

/// Has the pipe refer to the pages, without copying them.
fn give(writer: &PipeWriter, mut pages: &[u8]) {
    while !pages.is_empty() {
        let part = libc::iovec { iov_base: pages.as_ptr().cast_mut().cast(), iov_len: pages.len() };
        // SAFETY: one part of memory that is mapped. The pipe keeps the pages after they are unmapped here.
        let given = unsafe { libc::vmsplice(writer.as_raw_fd(), &part, 1, libc::SPLICE_F_GIFT) };
        pages = &pages[usize::try_from(given).expect("it is read")..];
    }
}

/// Anonymous memory, unmapped when it is dropped.
struct Pages {
    start: *mut u8,
    /// What was mapped, for a start that is at a multiple of 2 MiB.
    mapped: (*mut libc::c_void, usize),
    len: usize,
}

impl Pages {
    fn new(len: usize, flags: libc::c_int) -> Self {
        let start = map(len, flags);
        Self { start: start.cast(), mapped: (start, len), len }
    }

    fn huge() -> Self {
        let start = map(2 * HUGE, libc::MAP_NORESERVE);
        let aligned = start.wrapping_byte_add(start.addr().next_multiple_of(HUGE) - start.addr());
        // SAFETY: a part of the new mapping. The advice need not be taken.
        unsafe { libc::madvise(aligned, HUGE, libc::MADV_HUGEPAGE) };
        Self { start: aligned.cast(), mapped: (start, 2 * HUGE), len: HUGE }
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: mapped for that length, ours alone, and zeroed by the kernel.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, and nothing borrows it any more.
        unsafe { libc::munmap(self.mapped.0, self.mapped.1) };
    }
}

fn map(len: usize, flags: libc::c_int) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start
}

/// Messages from a peer on the other core.
struct Messages {
    reader: PipeReader,
    size: usize,
    buf: Vec<u8>,
    peer: Peer,
}

impl Messages {
    fn new(mut send: Send, size: usize, capacity: usize) -> Self {
        let (reader, writer) = ipc_pipe();
        writer.set_capacity(capacity).expect("a pipe may be that large");
        let peer = Peer::start(1, writer, move |writer, count| (0..count).for_each(|_| send(writer)));
        Self { reader, size, buf: vec![0; 64 << 10], peer }
    }

    fn pass(&mut self, count: usize) -> Duration {
        let mut left = count * self.size;
        let started = Instant::now();
        self.peer.order(count as u64);
        while left > 0 {
            let len = self.reader.read(&mut self.buf).expect("it can be read");
            assert!(len > 0, "the peer is there");
            look_at(&self.buf[..len]);
            left -= len;
        }
        started.elapsed()
    }
}
