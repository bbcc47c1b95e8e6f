//! What a process holds: its descriptors and its children.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::SOON;
use super::processes::children;

/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_millis(500);

/// The descriptors of this process, and what each stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory(BTreeMap<i32, String>);

impl Inventory {
    pub fn take() -> Self {
        let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
        let numbers: Vec<i32> = entries.map(|entry| number(&entry.expect("a descriptor's entry"))).collect();
        // The one that the directory was read through is closed by now, and has no link any more.
        let target = |number: i32| Some((number, std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?));
        Self(
            numbers
                .into_iter()
                .filter_map(target)
                .map(|(number, target)| (number, target.display().to_string()))
                .collect(),
        )
    }

    pub fn numbers(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    /// What is different afterwards.
    pub fn compare(&self, after: &Self) -> Option<String> {
        let show = |(number, target): (&i32, &String)| format!("{number} → {target}");
        let missing = |from: &Self, of: &Self| {
            let missing = of.0.iter().filter(|(number, target)| from.0.get(number) != Some(target));
            missing.map(show).collect::<Vec<_>>().join(", ")
        };
        let (leaked, lost) = (missing(self, after), missing(after, self));
        match (leaked.as_str(), lost.as_str()) {
            ("", "") => None,
            (leaked, "") => Some(format!("descriptors leaked: {leaked}")),
            ("", lost) => Some(format!("descriptors were closed that are not the test's: {lost}")),
            (leaked, lost) => Some(format!("descriptors changed: {lost}; now they are {leaked}")),
        }
    }
}

fn number(entry: &std::fs::DirEntry) -> i32 {
    entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("descriptors are numbers")
}

/// What is wrong if this process has a child, dead or alive.
///
/// One that dies of `SIGKILL` is let go: it may have come here as an orphan when its parent was killed, with nobody to
/// wait for it, and is given a moment to be gone.
pub fn no_child_is_left() -> Option<String> {
    let deadline = Instant::now() + DYING;
    loop {
        let mut status = 0;
        // SAFETY: room for a status.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            -1 => return None, // ECHILD
            0 if Instant::now() > deadline => {
                let names: Vec<_> = children().into_iter().map(|(_, name)| name).collect();
                return Some(format!("left a process behind: {}", names.join(", ")));
            }
            0 => std::thread::yield_now(),
            _ if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL => {}
            pid => return Some(format!("nobody waited for the child {pid}, which left with the status {status:#x}")),
        }
    }
}

/// Waits for so many orphans, children of this process's children that outlived them, to leave; for tests that mean to
/// make some. No other child may be there that the test still wants to wait for.
pub fn await_orphans(count: usize) {
    let deadline = Instant::now() + SOON;
    let mut reaped = 0;
    while reaped < count {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => {
                assert!(Instant::now() < deadline, "{reaped} of {count} orphans have left");
                std::thread::yield_now();
            }
            -1 => panic!("only {reaped} of {count} orphans came here: {}", std::io::Error::last_os_error()),
            _ => reaped += 1,
        }
    }
}

/// Waits until every process has left that others have left behind, however many these are.
pub fn await_whoever_is_left() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));
}
