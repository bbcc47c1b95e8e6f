//! What the kernel answers about sockets, over netlink.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::sock_diag(bytes));
