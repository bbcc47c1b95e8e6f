//! What a program asks of the kernel, as strace sees it. The program is the test's own, run again with [`TRACED`] in its
//! environment.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

/// Which test the traced program is to do.
pub const TRACED: &str = "TRACED";

const MARKER: &str = "getppid(";

/// Does something between two markers.
pub fn measured<T>(body: impl FnOnce() -> T) -> T {
    let mark = || {
        // SAFETY: no conditions.
        unsafe { libc::getppid() }
    };
    mark();
    let result = body();
    mark();
    result
}

/// Runs this program under strace, and returns the system calls between the markers, a line for each.
pub fn traced_calls(name: &str) -> Result<Vec<String>, String> {
    let trace = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}-{name}", std::process::id()));
    let program = std::env::current_exe().expect("this program has a path");
    // Without -f: what a child does is not of interest.
    let output = Command::new("strace").arg("-o").arg(&trace).arg(program).env(TRACED, name).output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("this test needs strace; install it, with `apt-get install strace` or the like".to_owned());
        }
        output => output.map_err(|error| format!("strace cannot be started: {error}"))?,
    };
    let lines = std::fs::read_to_string(&trace).map_err(|error| format!("strace wrote nothing: {error}"))?;
    std::fs::remove_file(&trace).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    // Signals are lines without a call. The clock is none on most machines, and here it does not count on the others.
    let calls = lines.lines().filter(|line| line.contains('(') && !line.starts_with("---"));
    let calls: Vec<_> = calls.filter(|line| !line.starts_with("clock_gettime")).map(str::to_owned).collect();
    let parts: Vec<_> = calls.split(|line| line.starts_with(MARKER)).collect();
    match parts[..] {
        [_, between, _] => Ok(between.to_vec()),
        _ => Err(format!("{} markers in the trace, and not 2", parts.len() - 1)),
    }
}
