//! `/proc/PID/stat` and `/proc/PID/status`, and the name in them that a process gave itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipc::fuzzing::stat(bytes));
