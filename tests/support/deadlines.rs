//! Deadlines, and how late is too late.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::panics;
use ipc::Error;

/// Far more than any deadline of a test. A call that takes longer forgot its deadline.
pub const FAR: Duration = Duration::from_secs(5);

/// That the call waits for this long, and says that the time is up.
#[track_caller]
pub fn assert_times_out<T: Debug>(what: &str, timeout: Duration, call: impl FnOnce(Duration) -> ipc::Result<T>) {
    let started = Instant::now();
    let result = call(timeout);
    assert_timed_out(what, timeout, started.elapsed(), result);
}

/// The same of a call that was made.
#[track_caller]
pub fn assert_timed_out<T: Debug>(what: &str, timeout: Duration, took: Duration, result: ipc::Result<T>) {
    assert!(matches!(result, Err(Error::TimedOut)), "{what}: {result:?}");
    assert!(took >= timeout && took < timeout + FAR, "{what}: {took:?} instead of {timeout:?}");
}

/// That none of them waits for its peer when it is dropped while a panic unwinds. All of them would take far longer, if each
/// waited for a second.
#[track_caller]
pub fn assert_unwinding_does_not_wait<T>(held: [T; 8]) {
    let started = Instant::now();
    panics(|| {
        let _held = held;
        panic!("on purpose");
    });
    assert!(started.elapsed() < FAR);
}
