//! How often a test does what has to hold every time.

/// So many rounds, or `IPC_TESTS_ROUNDS` times as many.
pub fn rounds(everyday: u64) -> u64 {
    everyday * times()
}

/// How many times as many rounds are run as on every day.
pub fn times() -> u64 {
    match std::env::var("IPC_TESTS_ROUNDS") {
        Err(_) => 1,
        Ok(times) => times.parse().unwrap_or_else(|_| panic!("IPC_TESTS_ROUNDS={times} is no number")),
    }
}
