//! Between two processes, each on a core of its own: round trips, and streams of bytes. And what it costs to start a program,
//! from a small process, from one with 1 GiB resident, and beside other threads.
//!
//! Criterion measures one contender after the other. Where the machine is not quiet, `benches/marks.rs` is the better
//! judge: it takes turns.

mod common;

use std::io::{Read, Write};

use common::*;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use ipc::Ends;

const HERE: usize = 0;
const THERE: usize = 1;

fn round_trips(criterion: &mut Criterion) {
    fn contender<R: Read + Ends, W: Write + Ends>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        make: impl Fn() -> (R, W),
    ) {
        let mut contender = RoundTrip::new(make, THERE);
        group.bench_function(name, |bencher| bencher.iter_custom(|count| contender.pass(count)));
    }
    pin(HERE);
    let mut group = criterion.benchmark_group("round trip of 16 bytes");
    contender(&mut group, "bare", bare_pipe);
    contender(&mut group, "std", std_pipe);
    contender(&mut group, "ipc", ipc_pipe);
    contender(&mut group, "ipc, looking for 50 µs", spinning_pipe);
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    fn contender<R: Read, W: Write + Ends>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        pipe: (R, W),
        size: usize,
    ) {
        let mut contender = Stream::new(pipe, size, THERE);
        group.bench_function(name, |bencher| bencher.iter_custom(|count| contender.pass(count)));
    }
    pin(HERE);
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group(format!("stream, writes of {size} bytes"));
        group.throughput(Throughput::Bytes(size as u64));
        contender(&mut group, "bare", bare_pipe(), size);
        contender(&mut group, "std", std_pipe(), size);
        contender(&mut group, "ipc", ipc_pipe(), size);
        group.finish();
    }
}

/// 1 GiB in pages of 4 KiB, each of which a fork has to make an entry for.
struct Resident(*mut libc::c_void);

const GIB: usize = 1 << 30;

impl Resident {
    fn new() -> Self {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, which is written to within its length.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), GIB, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            libc::madvise(start, GIB, libc::MADV_NOHUGEPAGE);
            (0..GIB).step_by(4096).for_each(|page| start.cast::<u8>().add(page).write(1));
            Self(start)
        }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made, and that nothing refers to.
        unsafe { libc::munmap(self.0, GIB) };
    }
}

/// fork(2) and execve(2), and nothing around them.
fn bare_start() {
    // SAFETY: the child makes one call, of which nul-terminated strings and lists that end with a null pointer are told.
    unsafe {
        match libc::fork() {
            0 => {
                let (program, end) = (c"/bin/true".as_ptr(), std::ptr::null());
                libc::execve(program, [program, end].as_ptr(), [end].as_ptr());
                libc::_exit(127);
            }
            pid => {
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                assert_eq!(status, 0);
            }
        }
    }
}

fn std_start() {
    assert!(std::process::Command::new("/bin/true").status().expect("it is there").success());
}

fn ipc_start() {
    assert!(ipc::Command::new("/bin/true").status().expect("it is there").success());
}

fn starting(criterion: &mut Criterion) {
    for large in [false, true] {
        let resident = large.then(Resident::new);
        let size = if large { "1 GiB resident" } else { "a small process" };
        let mut group = criterion.benchmark_group(format!("start a program and wait, from {size}"));
        group.sample_size(20);
        group.bench_function("bare fork and exec", |bencher| bencher.iter(bare_start));
        group.bench_function("std", |bencher| bencher.iter(std_start));
        group.bench_function("ipc", |bencher| bencher.iter(ipc_start));
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        group.bench_function("ipc, beside a thread", |bencher| bencher.iter(ipc_start));
        drop(stop);
        thread.join().expect("it does not panic").expect_err("it was told by a hang-up");
        group.finish();
        drop(resident);
    }
}

criterion_group!(benches, round_trips, streams, starting);
criterion_main!(benches);
