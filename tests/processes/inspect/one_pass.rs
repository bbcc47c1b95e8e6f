//! Looking for holders is one pass over the processes and their descriptors (P10), as strace sees it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::support::{self, TRACED, Trial, asleep_in, is_root, measured, traced_calls};
use ipc::{ProcessMap, datagram_pair, holders, pipe};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    let name = std::env::var_os(TRACED)?;
    look(name.to_str().expect("the name of a look"));
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        the_holders_of_a_pipe_are_found_in_one_pass needs [STRACE] within 60,
        the_holders_of_a_pair_are_found_in_one_pass needs [STRACE] within 60,
        a_map_is_made_in_one_pass needs [STRACE] within 60,
    ]
}

/// In the traced program: looks, among some processes with many descriptors.
fn look(name: &str) {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let (leave, stay) = pipe().unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let ends = (writer.try_clone().unwrap(), pair.child.try_clone().unwrap(), leave.try_clone().unwrap());
            let child = ipc::fork(ends, |(_writer, _socket, leave)| {
                leave.read_timeout(&mut [0], std::time::Duration::MAX).map(drop)
            });
            child.unwrap()
        })
        .collect();
    children.iter().for_each(|child| asleep_in(child.id(), &[libc::SYS_ppoll]));
    match name {
        "pipe" => assert_eq!(measured(|| holders(&reader)).unwrap().list.len(), 2 + 3),
        "pair" => assert_eq!(measured(|| holders(&pair.parent)).unwrap().list.len(), 2 + 3),
        _ => {
            let map = measured(ProcessMap::current).unwrap().to_string();
            assert_eq!(map.matches("reads pipe").count(), 2 + 3, "{map}");
        }
    }
    drop(stay);
    drop(leave);
    for child in children {
        assert!(child.wait().unwrap().success());
    }
}

/// How often each path was asked for, by the call and the path.
fn asked(name: &str) -> BTreeMap<(String, String), usize> {
    let mut asked = BTreeMap::new();
    for line in traced_calls(name).unwrap() {
        let path = line.split('"').nth(1).filter(|path| path.starts_with("/proc"));
        if let (Some((call, _)), Some(path)) = (line.split_once('('), path) {
            *asked.entry((call.to_owned(), path.to_owned())).or_insert(0) += 1;
        }
    }
    asked
}

#[track_caller]
fn assert_one_pass(name: &str) -> BTreeMap<(String, String), usize> {
    let asked = asked(name);
    for ((call, path), times) in &asked {
        // The name is looked at once more of what lets nobody look, for it may be a thread of the kernel.
        let may_be = if path.ends_with("/stat") && !is_root() { 2 } else { 1 };
        assert!(*times <= may_be, "{call} {path}: {times} times");
    }
    let tables = asked.keys().filter(|(call, path)| call == "openat" && path.ends_with("/fd")).count();
    assert!(tables >= 5, "this test, the program, and its children: {asked:?}");
    asked
}

fn the_holders_of_a_pipe_are_found_in_one_pass() {
    let asked = assert_one_pass("pipe");
    // Names are looked up of those that hold it, and of threads of the kernel where they let nobody look.
    let stats = asked.keys().filter(|(_, path)| path.ends_with("/stat")).count();
    assert!(stats == 4 || !is_root(), "{asked:?}");
}

fn the_holders_of_a_pair_are_found_in_one_pass() {
    assert_one_pass("pair");
}

fn a_map_is_made_in_one_pass() {
    let asked = assert_one_pass("map");
    let of = |end: &str| asked.keys().filter(|(call, path)| call == "openat" && path.ends_with(end)).count();
    assert!(of("/stat") >= of("/fd") - 1, "{asked:?}");
}
