//! Processes as seen from outside, and how they meet.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::SOON;

/// Waits for the child, and says with which status it left. Anything else than that is a failure.
#[track_caller]
pub fn exit_code(child: &ipc::Child) -> i32 {
    let status = child.wait_timeout(SOON).expect("a child can be waited for").expect("the child leaves");
    status.code().unwrap_or_else(|| panic!("the child was ended: {status}"))
}

/// Looks again and again until something holds. It is to hold soon.
#[track_caller]
pub fn poll_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        // Leaves the processor to whoever is to bring it about. The time decides nothing.
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// Runs this thread, and what it forks, on one of the cores that it may use: the first is number 0.
pub fn run_on_core(number: usize) {
    // SAFETY: a zeroed set of cores is a set of none; the calls read and write sets of that size.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&cores), &mut cores), 0);
        let mut usable = (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &cores));
        // Where there are not so many, it runs where it can.
        let Some(core) = usable.nth(number) else { return };
        libc::CPU_ZERO(&mut cores);
        libc::CPU_SET(core, &mut cores);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&cores), &cores), 0);
    }
}

/// A child that has left, and its tracer, which goes on to do something and then leaves too.
pub fn traced_zombie(tracer_then: impl FnOnce()) -> (ipc::Child, ipc::Child) {
    let (ready, seized) = (Gate::new(), Gate::new());
    let (reader, writer) = ipc::pipe().unwrap();
    let child = ipc::fork(reader, |mut reader| {
        // SAFETY: numbers. It is refused where everybody of the same user may trace anyway.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        ready.open();
        reader.read(&mut [0]).map(|_| 7_u8)
    })
    .unwrap();
    ready.pass();
    let tracer = ipc::fork((), |()| {
        // SAFETY: numbers.
        let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.id() as libc::pid_t, 0, 0) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        seized.open();
        tracer_then();
    })
    .unwrap();
    seized.pass();
    drop(writer);
    poll_until("the child has left", || process_state(child.id()) == Some('Z'));
    (child, tracer)
}

/// How long this process has run.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a time.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs something that panics, and prints nothing of it: a backtrace takes seconds on a machine that is busy.
#[track_caller]
pub fn panics(body: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "it panics");
}

/// The letter of proc_pid_stat.5: `R` runs, `S` sleeps, `Z` is a zombie, and so on. `None`: there is no such process.
pub fn process_state(pid: u32) -> Option<char> {
    Some(stat(pid)?.1)
}

/// Name, state and parent.
fn stat(pid: u32) -> Option<(String, char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may have some of its own.
    let (before, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((before.split_once('(')?.1.to_owned(), state, fields.next()?.parse().ok()?))
}

/// Blocks until the process sleeps in one of these system calls, as in `asleep_in(pid, &[libc::SYS_ppoll])`.
#[track_caller]
pub fn asleep_in(pid: u32, calls: &[libc::c_long]) {
    let deadline = Instant::now() + SOON;
    loop {
        let state = process_state(pid);
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        let in_call = match &call {
            Ok(call) => {
                // Where a kernel of 64 bits runs a program of 32, the calls of sockets go through socketcall(2), 102.
                let is_one = |call| calls.contains(&call) || (cfg!(target_arch = "x86") && call == 102);
                call.split(' ').next().and_then(|call| call.parse().ok()).is_some_and(is_one)
            }
            Err(_) => true, // not every kernel shows it
        };
        if in_call && state == Some('S') {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} never slept in {calls:?}; it is {state:?} in {call:?}");
        std::thread::yield_now();
    }
}

/// The children of a process's first thread.
pub fn children_of(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().expect("a process")).collect()
}

/// The children of this process, and how to name them.
pub fn children() -> Vec<(libc::pid_t, String)> {
    let me = std::process::id();
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mine = pids.filter_map(|pid| {
        let (name, state, parent) = stat(pid)?;
        (parent == me).then(|| (pid as libc::pid_t, format!("{pid} ({name}, {state})")))
    });
    mine.collect()
}

/// Where processes wait for each other. It is a pipe, but none of the crate's: a fork leaves it open on both sides.
pub struct Gate {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Gate {
    #[allow(clippy::new_without_default)] // it makes something, and can fail
    pub fn new() -> Self {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors, which are new and nobody else's.
        unsafe {
            assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0, "{}", std::io::Error::last_os_error());
            Self { reader: OwnedFd::from_raw_fd(fds[0]), writer: OwnedFd::from_raw_fd(fds[1]) }
        }
    }

    /// Lets one through, now or when it comes. Never blocks, up to some thousands.
    pub fn open(&self) {
        // SAFETY: one byte that lives as long as the call.
        let written = unsafe { libc::write(self.writer.as_raw_fd(), [0_u8].as_ptr().cast(), 1) };
        assert_eq!(written, 1, "{}", std::io::Error::last_os_error());
    }

    /// Blocks until somebody lets this one through. It is to happen soon.
    #[track_caller]
    pub fn pass(&self) {
        let mut byte = 0_u8;
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
            let mut fd = libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd; one byte of room.
            let passed = unsafe {
                libc::poll(&mut fd, 1, left) == 1 && libc::read(self.reader.as_raw_fd(), (&raw mut byte).cast(), 1) == 1
            };
            if passed {
                return;
            }
            // A signal may have come.
            assert!(Instant::now() < deadline, "the gate was never opened");
        }
    }

    /// Whether one could pass now.
    pub fn is_open(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&mut fd, 1, 0) == 1 }
    }
}

/// Sets the soft limit on something, to what becomes of the limit that there is.
pub fn limit(resource: impl TryInto<i32>, soft: impl FnOnce(&libc::rlimit) -> libc::rlim_t) {
    // Its type is another in each C library.
    let resource = resource.try_into().ok().expect("the number of a resource");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit, and a valid one.
    unsafe {
        assert_eq!(libc::getrlimit(resource as _, &mut limit), 0);
        limit.rlim_cur = soft(&limit);
        assert_eq!(libc::setrlimit(resource as _, &limit), 0, "{}", std::io::Error::last_os_error());
    }
}

/// This process's address space, in bytes.
pub fn own_size() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}
