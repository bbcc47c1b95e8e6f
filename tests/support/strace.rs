//! What a call costs in system calls, as strace sees it. A binary of such tests runs itself again under strace, once for each
//! test, and counts the calls between two markers.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ipc::{fork, pipe};

use super::needs::{Need, STRACE};
use super::{LIMIT, Trial, asleep_in};

/// Which test the traced program is to do.
pub const TRACED: &str = "TRACED";

/// Does the test that the environment names, if it is one of these: this is the traced program.
pub fn run_traced(tests: Vec<Traced>) -> Option<ExitCode> {
    let name = std::env::var_os(TRACED)?;
    let test = tests.iter().find(|test| name == test.name)?;
    (test.body)();
    Some(ExitCode::SUCCESS)
}

/// The tests, which run this program again.
pub fn traced_trials(module: &str, tests: Vec<Traced>) -> Vec<Trial> {
    tests.into_iter().map(|test| trial(module, test)).collect()
}

/// A test, and the system calls that it is to make.
pub struct Traced {
    pub name: &'static str,
    pub calls: &'static [&'static str],
    pub body: fn(),
}

fn trial(module: &str, test: Traced) -> Trial {
    // These take the flag of Linux 6.4, and so does a writer that looks again before it sleeps.
    let flagged = test.calls.iter().any(|call| ["preadv2", "pwritev2"].contains(call))
        || test.name.contains("a_writer_that_looked");
    let kernel = match test.name.contains("sigpipe_at_its_default") {
        true => Some(Need::NoSignal),
        false => flagged.then_some(Need::NoWait),
    };
    let check = move || {
        let lines = traced_calls(test.name)?;
        let calls = lines.iter().filter_map(|line| Some(line.split_once('(')?.0)).collect::<Vec<_>>();
        if calls == test.calls { Ok(()) } else { Err(format!("the calls were {calls:?}, and not {:?}", test.calls)) }
    };
    Trial::of(module, test.name, LIMIT, Box::new(check)).needs([STRACE]).needs(kernel)
}

/// Runs this program under strace, and returns the system calls between the markers, a line for each.
pub fn traced_calls(name: &str) -> Result<Vec<String>, String> {
    let trace = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}-{name}", std::process::id()));
    let program = std::env::current_exe().expect("this program has a path");
    // Without -f: what a child does is not of interest.
    let output = Command::new("strace").arg("-o").arg(&trace).arg(program).env(TRACED, name).output();
    let output = output.map_err(|error| format!("strace cannot be started: {error}"))?;
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

/// Runs this program under strace, with a variable set that says what it does, and returns the calls of `fcntl` by the threads
/// that seal memory. The expression may have the kernel refuse some.
pub fn sealing_under_strace(variable: &str, value: &str, expression: &str) -> Vec<String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fcntl,sendmsg", "-e", "signal=none", "-e", expression]);
    let output = strace.arg(std::env::current_exe().unwrap()).env(variable, value).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{lines}");
    // Of a process with one thread it shows no number.
    let calls = lines.lines().filter_map(|line| Some((line.split_once("fcntl(")?, line)));
    let sealing = calls.clone().filter(|(_, line)| line.contains("F_ADD_SEALS")).map(|((thread, _), _)| thread);
    let sealing: Vec<_> = sealing.chain([""]).collect();
    calls.filter(|((thread, _), _)| sealing.contains(thread)).map(|(_, line)| line.to_owned()).collect()
}

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

/// A function `traced` with tests in the form `name => [calls] body`, the body being what runs under strace.
macro_rules! traced {
    ($($name:ident => [$($call:literal),*] $body:block)*) => {
        fn traced() -> Vec<$crate::support::Traced> {
            $(fn $name() $body)*
            vec![$($crate::support::Traced { name: stringify!($name), calls: &[$($call),*], body: $name }),*]
        }
    };
}
pub(crate) use traced;

/// A process that does something when this one is asleep, and then stays until it is done with.
pub struct Later {
    child: ipc::Child,
    stay: ipc::PipeWriter,
}

impl Later {
    pub fn new<E: ipc::Ends>(end: E, act: fn(&mut E)) -> Self {
        let parent = std::process::id();
        let (leave, stay) = pipe().unwrap();
        let child = fork((end, leave), |(mut end, mut leave)| {
            let calls = [libc::SYS_ppoll, libc::SYS_read, libc::SYS_write, libc::SYS_recvmsg, libc::SYS_recvfrom];
            asleep_in(parent, &calls);
            act(&mut end);
            // Its leaving would be a signal to the parent in the middle of the measurement.
            let _ = leave.read(&mut [0; 1]);
        });
        Self { child: child.unwrap(), stay }
    }

    pub fn done(self) {
        drop(self.stay);
        assert!(self.child.wait().unwrap().success());
    }
}
