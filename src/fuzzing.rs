//! The entry points of the fuzzer: everything that parses what another process wrote, and what must hold of it whatever that is.
//!
//! It is there under `--cfg fuzzing` alone, which cargo-fuzz sets; `fuzz/run` runs it.

#![allow(missing_docs)]

use std::os::unix::ffi::OsStrExt;

use crate::inspect::fuzzing::{Stat, messages, numbers_in, parse_socket, printable, quoted, refused};
use crate::process;
use crate::sys::ancillary::{Part, parts, words};

/// The environment variable that [`claim`](crate::claim()) reads.
pub fn claim(value: &[u8]) {
    let given = process::parse(value);
    assert!(given.iter().all(|given| given.number >= 0));
    assert!(given.len() <= value.split(|byte| *byte == b',').count());
    assert_eq!(process::parse(process::describe(&given).as_bytes()), given, "what is described is parsed again");
    // The same bytes as the environment that a program was started with.
    let lied = [b"A=b\0", value].concat();
    let described = process::described(&lied).unwrap_or_default();
    assert!(described.len() <= value.split(|byte| *byte == b',').count());
    let variable = [b"A=b\0IPC_ENDS=", value, b"\0"].concat();
    let first = value.split(|byte| *byte == 0).next().unwrap_or_default();
    assert_eq!(process::described(&variable), Some(process::parse(first)), "the first of its name counts");
}

/// Control data, at two alignments.
pub fn control(bytes: &[u8]) {
    let moved = [&[0], bytes].concat();
    let found: Vec<_> = parts(bytes).collect();
    assert!(found.iter().eq(parts(&moved[1..]).collect::<Vec<_>>().iter()));
    let mut room = bytes.len();
    for part in found {
        let data = match part {
            Part::Descriptors(fds) => {
                assert_eq!(words(fds).count(), fds.len() / 4);
                fds.len()
            }
            Part::Pidfd(_) => 4,
            Part::Sender(..) => 12,
        };
        room = room.checked_sub(data + size_of::<usize>()).expect("no byte is of two parts");
    }
}

/// `/proc/PID/stat` and `/proc/PID/status`, and the name in it, which the process chose itself.
pub fn stat(bytes: &[u8]) {
    // `/proc/PID/status` has a line with the numbers of the process, and one with its name.
    assert!(numbers_in(bytes).len() <= bytes.len() / 2 + 1);
    let Some(stat) = Stat::parse(bytes) else { return };
    let again = Stat::parse(format!("1 ({}) S {} 1 1 0 -1 0 0\n", stat.name, stat.parent).as_bytes());
    let again = again.expect("a stat");
    assert_eq!((again.name, again.parent), (stat.name.clone(), stat.parent));
    assert!(!printable(&stat.name).contains(char::is_control));
    assert!(!quoted(&stat.name).contains(|c: char| c.is_control() || "\"\\<>&[]{}|#;`".contains(c)));
}

/// An order to a fork server, or an answer of one.
pub fn answer(bytes: &[u8]) {
    process::answer(bytes);
}

/// An answer of the kernel over netlink.
pub fn sock_diag(bytes: &[u8]) {
    let mut room = bytes.len();
    for (_, body) in messages(bytes) {
        room = room.checked_sub(16 + body.len()).expect("no byte is of two messages");
        let _ = refused(body);
        if let Some((_, peer)) = parse_socket(body) {
            assert_ne!(peer, Some(0), "0 is nobody");
        }
    }
    let _ = (refused(bytes), parse_socket(bytes));
}
