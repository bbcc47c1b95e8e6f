//! An order to a fork server, and what it, or a worker of it that has not begun, answers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::answer(bytes));
