//! Control data, as recvmsg(2) leaves them beside a message.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::control(bytes));
