//! Between two processes, each on a core of its own: round trips, and streams of bytes. And what it costs to start a program,
//! from a small process, from one with 1 GiB resident, and beside other threads; and a worker, by a fork or a fork server.
//!
//! Criterion measures one contender after the other. Where the machine is not quiet, `benches/marks.rs` is the better
//! judge: it takes turns.

mod common;

use std::io::{BufRead, Read, Write};
use std::time::Duration;

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

/// A process of its own, by Python's `multiprocessing`, which has a fork server too.
const PYTHON: &str = "
import multiprocessing, sys, time
def nothing(): pass
def worker():
    process = context.Process(target=nothing)
    process.start()
    process.join()
if __name__ == '__main__':
    context = multiprocessing.get_context('forkserver')
    worker()
    for line in sys.stdin:
        start = time.perf_counter_ns()
        for _ in range(int(line)): worker()
        print(time.perf_counter_ns() - start, flush=True)
";

/// Python, as it is told how many workers to make, and says how long that took.
struct Python {
    process: std::process::Child,
    script: std::path::PathBuf,
}

impl Python {
    /// `None`: there is none here.
    fn start() -> Option<Self> {
        // It starts workers by the name of the file.
        let script = std::env::temp_dir().join(format!("ipc-forkserver-{}.py", std::process::id()));
        std::fs::write(&script, PYTHON).expect("a temporary file");
        let mut command = std::process::Command::new("python3");
        command.arg(&script).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        Some(Self { process: command.spawn().ok()?, script })
    }

    fn pass(&mut self, count: u64) -> Duration {
        let (orders, answers) =
            (self.process.stdin.as_mut().expect("piped"), self.process.stdout.as_mut().expect("piped"));
        writeln!(orders, "{count}").expect("it reads");
        let mut answer = String::new();
        std::io::BufReader::with_capacity(1, answers).read_line(&mut answer).expect("it answers");
        Duration::from_nanos(answer.trim().parse().expect("a time"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
        drop(std::fs::remove_file(&self.script));
    }
}

/// A worker that leaves at once, until it was waited for: by a fork of this process, by its fork server, and by what else
/// there is.
fn workers(criterion: &mut Criterion) {
    fn finish(child: ipc::Result<ipc::Child>) {
        assert!(child.and_then(|child| child.wait()).expect("it is waited for").success());
    }
    // Before anything that has threads.
    let server = ipc::ForkServer::start(|_, _| ()).expect("this process has one thread");
    let fork = || finish(ipc::fork((), |()| ()).map_err(ipc::Error::from));
    let order = || finish(server.fork(b"", ()).map_err(ipc::Error::from));
    for large in [false, true] {
        let resident = large.then(Resident::new);
        let size = if large { "with 1 GiB resident" } else { "a small one" };
        let mut group = criterion.benchmark_group(format!("a worker of a process, {size}"));
        group.sample_size(20);
        group.bench_function("fork", |bencher| bencher.iter(fork));
        group.bench_function("fork server", |bencher| bencher.iter(order));
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let stopped = std::sync::Arc::clone(&stopped);
                std::thread::spawn(move || assert!(stopped.lock().expect("nobody panics").recv().is_err()))
            })
            .collect();
        group.bench_function("fork server, beside 16 threads", |bencher| bencher.iter(order));
        group.bench_function("a program, beside 16 threads", |bencher| bencher.iter(ipc_start));
        drop(stop);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        if let Some(mut python) = Python::start().filter(|_| !large) {
            group.bench_function("Python's fork server", |bencher| bencher.iter_custom(|count| python.pass(count)));
        }
        group.finish();
        drop(resident);
    }
}

// The workers first, on any core.
criterion_group!(benches, workers, round_trips, streams, starting);
criterion_main!(benches);
