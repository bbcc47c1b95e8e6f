//! `holders` and `ProcessMap`, with 10, 100 and 1000 processes more on the machine. `lsof` beside them, which answers the
//! same question.
//!
//! `cargo bench --bench inspect` prints medians over several rounds; `-- --test` looks whether it runs.

mod common;

use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use common::{Contender, compare, repeated};
use ipc::{DatagramSocket, PipeReader, ProcessMap, holders};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Processes that hold a writer of one pipe, one side of one pair, and some pipes of their own, and wait to be killed.
struct Crowd {
    results: PipeReader,
    orders: DatagramSocket,
    pids: Vec<Pid>,
}

/// Pipes that each has for itself: as many channels as a worker may have.
const OWN: usize = 5;

impl Crowd {
    fn of(count: usize) -> Self {
        let (results, writer) = ipc::pipe().expect("a pipe");
        let pair = ipc::datagram_pair().expect("a pair");
        let child = || -> ipc::Result<u32> {
            let child = ipc::fork((writer.try_clone()?, pair.child.try_clone()?), |_ends| -> ipc::Result<()> {
                let _own = (0..OWN).map(|_| ipc::pipe()).collect::<ipc::Result<Vec<_>>>()?;
                loop {
                    std::thread::park();
                }
            })?;
            // Its pidfd is let go, or the next ones would have a copy of it each, half a million in all.
            Ok(child.id())
        };
        let pids = (0..count).map(|_| child().expect("a process more"));
        let pids = pids.map(|pid| Pid::from_raw(pid as i32).expect("not 0")).collect();
        Self { results, orders: pair.parent, pids }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for pid in &self.pids {
            // Children that nobody has waited for: the numbers are their own.
            kill_process(*pid, Signal::KILL).expect("a child");
            waitpid(Some(*pid), WaitOptions::empty()).expect("a child");
        }
    }
}

fn main() {
    // Every descriptor of every process, without names of hosts and ports.
    let mut lsof = Command::new("lsof");
    lsof.args(["-n", "-P", "-w"]).stdout(Stdio::null());
    let has_lsof = Command::new("lsof").arg("-v").output().is_ok();
    for count in [10, 100, 1000] {
        let crowd = Crowd::of(count);
        let holders = |end: BorrowedFd<'_>| assert!(holders(&end).expect("/proc").list.len() > count);
        let mut contenders: Vec<Contender<'_>> = vec![
            ("map", repeated(|| drop(ProcessMap::current().expect("/proc")))),
            ("holders of a pipe", repeated(|| holders(crowd.results.as_fd()))),
            ("holders of a pair", repeated(|| holders(crowd.orders.as_fd()))),
        ];
        if has_lsof {
            contenders.push(("lsof", repeated(|| assert!(lsof.status().is_ok()))));
        }
        compare(&format!("who holds what, {count} processes more"), &mut contenders, 1);
    }
}
