//! The environment variable that says which ends a program was given, and the environment that it is in.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::claim(bytes));
