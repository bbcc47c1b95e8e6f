//! Between two processes, each on a core of its own: round trips, and streams of bytes. And what it costs to start a program,
//! from a small process, from one with 1 GiB resident, and beside other threads; and a worker, by a fork or a fork server.
//!
//! `cargo bench --bench processes` prints medians over several rounds; `-- --test` looks whether it runs.

mod common;

use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::time::Duration;

use common::*;

const HERE: usize = 0;
const THERE: usize = 1;

fn main() {
    workers(); // on any core
    pin(HERE);
    round_trips();
    streams();
    starting();
}

fn round_trips() {
    let (mut bare, mut std) = (RoundTrip::new(bare_pipe, THERE), RoundTrip::new(std_pipe, THERE));
    let (mut ipc, mut spinning) = (RoundTrip::new(ipc_pipe, THERE), RoundTrip::new(spinning_pipe, THERE));
    let mut contenders: [Contender<'_>; 4] = [
        ("bare", Box::new(|count| bare.pass(count))),
        ("std", Box::new(|count| std.pass(count))),
        ("ipc", Box::new(|count| ipc.pass(count))),
        ("ipc, looking for 50 µs", Box::new(|count| spinning.pass(count))),
    ];
    compare("round trip of 16 bytes", &mut contenders, 2_000);
}

fn streams() {
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let (mut bare, mut std) = (Stream::new(bare_pipe(), size, THERE), Stream::new(std_pipe(), size, THERE));
        let mut ipc = Stream::new(ipc_pipe(), size, THERE);
        let mut contenders: [Contender<'_>; 3] = [
            ("bare", Box::new(|count| bare.pass(count))),
            ("std", Box::new(|count| std.pass(count))),
            ("ipc", Box::new(|count| ipc.pass(count))),
        ];
        compare(&format!("stream, a write of {size} bytes"), &mut contenders, (256 << 20) / size as u64);
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

fn starting() {
    for large in [false, true] {
        let resident = large.then(Resident::new);
        let size = if large { "1 GiB resident" } else { "a small process" };
        let mut contenders: [Contender<'_>; 3] =
            [("bare fork and exec", repeated(bare_start)), ("std", repeated(std_start)), ("ipc", repeated(ipc_start))];
        compare(&format!("start a program and wait, from {size}"), &mut contenders, 20);
        beside_threads(1, || {
            let mut contenders: [Contender<'_>; 2] = [("std", repeated(std_start)), ("ipc", repeated(ipc_start))];
            compare(&format!("start a program and wait, from {size}, beside a thread"), &mut contenders, 20);
        });
        drop(resident);
    }
}

/// Runs it while `count` threads wait for something.
fn beside_threads(count: usize, body: impl FnOnce()) {
    let hold = Mutex::new(());
    std::thread::scope(|scope| {
        let held = hold.lock().expect("nobody panics");
        let wait = || drop(hold.lock().expect("nobody panics"));
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(wait)).collect();
        body();
        drop(held);
        // A scope does not wait for them to be gone, and a fork would find them.
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    });
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
fn workers() {
    fn finish(child: ipc::Result<ipc::Child>) {
        assert!(child.and_then(|child| child.wait()).expect("it is waited for").success());
    }
    // Before anything that has threads.
    let server = ipc::ForkServer::start(|_, _| ()).expect("this process has one thread");
    let fork = || finish(ipc::fork((), |()| ()).map_err(ipc::Error::from));
    let order = || finish(server.fork(b"", ()).map_err(ipc::Error::from));
    let mut python = Python::start();
    for large in [false, true] {
        let resident = large.then(Resident::new);
        let size = if large { "with 1 GiB resident" } else { "a small one" };
        let mut contenders: Vec<Contender<'_>> = vec![("fork", repeated(fork)), ("fork server", repeated(order))];
        if let Some(python) = python.as_mut().filter(|_| !large) {
            contenders.push(("Python's fork server", Box::new(|count| python.pass(count))));
        }
        compare(&format!("a worker of a process, {size}"), &mut contenders, 20);
        beside_threads(16, || {
            let mut contenders: [Contender<'_>; 2] =
                [("a program", repeated(ipc_start)), ("fork server", repeated(order))];
            compare(&format!("a worker of a process, {size}, beside 16 threads"), &mut contenders, 20);
        });
        drop(resident);
    }
}
