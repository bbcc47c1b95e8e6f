//! What a fork server, or a worker of it that has not begun, answers to an order.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::answer(bytes));
