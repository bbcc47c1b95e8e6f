//! `/proc/PID/stat`, and the name in it that a process gave itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::stat(bytes));
