//! The environment variable that says which ends a program was given.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::claim(bytes));
