//! Workers that a process with threads starts through its fork server: they are children like any, and an order that fails has
//! run nothing (P2, P3, P9).

mod callers;
mod fire;
mod full;
mod killed;
mod lost;
#[cfg(feature = "channel")]
mod typed;
mod workers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support::{self, Is, Kernel, Trial};

pub fn trials() -> Vec<Trial> {
    support::joined([
        workers::trials(),
        #[cfg(feature = "channel")]
        typed::trials(),
        full::trials(),
        killed::trials(),
        lost::trials(),
        callers::trials(),
        fire::trials(),
    ])
}

/// Each test three times: with workers that are children of the caller's; with a sandbox that refuses that; and with one on a
/// kernel that does not say either how a process has left that is another one's child.
macro_rules! all_ways {
    ($($name:ident $(within $seconds:literal)?),* $(,)?) => {
        [$($crate::server::in_all_ways(
            module_path!(),
            stringify!($name),
            [$(std::time::Duration::from_secs($seconds),)? $crate::support::LIMIT][0],
            $name,
        )),*].into_iter().flatten().collect()
    };
}
pub(crate) use all_ways;

fn in_all_ways(module: &str, name: &str, limit: Duration, test: fn()) -> Vec<Trial> {
    let with = |way: &str, kernel: Option<Kernel>| {
        let body = move || {
            MAKES_SIBLINGS.store(kernel.is_none(), Relaxed);
            kernel.iter().for_each(Kernel::play);
            test();
            Ok(())
        };
        Trial::of(module, &format!("{name}{way}"), limit, Box::new(body))
    };
    let without_siblings = || {
        let refused = Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PARENT as u32), libc::EPERM);
        refused.without(libc::SYS_clone3, libc::ENOSYS)
    };
    // PIDFD_GET_INFO.
    let untold = without_siblings().with(libc::SYS_ioctl, 1, Is::Equal(0xc040_ff0b), libc::ENOTTY);
    vec![
        with("", None),
        with("_in_a_sandbox", Some(without_siblings())),
        with("_in_a_sandbox_of_an_older_kernel", Some(untold)),
    ]
}

/// What a process has open, by its numbers.
fn descriptors(pid: u32) -> BTreeMap<i32, String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there");
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let target = |number: i32| Some((number, std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?));
    numbers.filter_map(target).map(|(number, target)| (number, target.display().to_string())).collect()
}

/// What a server has open between two orders. It may be about to close the line of the one before, and to wait for the worker.
fn at_rest(server: u32) -> BTreeMap<i32, String> {
    let mut open = descriptors(server);
    support::poll_until("the server rests", || {
        open = descriptors(server);
        let of_orders = |target: &&String| target.starts_with("socket:") || target.contains("pidfd");
        open.values().filter(of_orders).count() == 1
    });
    open
}

/// Whether workers can be children of the caller's.
static MAKES_SIBLINGS: AtomicBool = AtomicBool::new(true);

fn signal(pid: u32, signal: i32) {
    // SAFETY: numbers; the process is this one's child, and was not waited for.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0, "{}", std::io::Error::last_os_error());
}
