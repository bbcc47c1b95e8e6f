//! Several tests at once, each judged by a process that has no other children.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed};

use super::Verdict;
use super::needs::{Missing, Need};
use super::places::memory_file;
use super::rounds::times;
use super::trial::judge_after;

/// How many run at once at most, however many processors there are: tests of one user share its limits.
const MOST: usize = 6;

/// What a test does. A pointer, for there are two thousand of them, and code that is generic over each takes long to compile.
type Body = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// A test. [`trials!`](super::trials) makes them of functions.
pub struct Trial {
    name: String,
    limit: Duration,
    needs: Vec<Need>,
    keep: fn(),
    body: Body,
}

impl Trial {
    /// One that may take so long. Its name begins with the module that it is in.
    pub fn new<V: Verdict + 'static>(module: &str, name: &str, limit: Duration, body: fn() -> V) -> Self {
        Self::of(module, name, limit, Box::new(move || body().verdict()))
    }

    /// The same of a closure.
    pub fn of(module: &str, name: &str, limit: Duration, body: Body) -> Self {
        let module = module.split_once("::").map(|(_binary, module)| format!("{module}::")).unwrap_or_default();
        Self { name: module + name, limit, needs: Vec::new(), keep: || (), body }
    }

    pub fn needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs.extend(needs);
        self
    }

    /// Opens first what stays open until the process ends.
    pub fn keeping(mut self, keep: fn()) -> Self {
        self.keep = keep;
        self
    }
}

/// The tests of an area, from those of its modules.
pub fn joined<const MODULES: usize>(modules: [Vec<Trial>; MODULES]) -> Vec<Trial> {
    modules.into_iter().flatten().collect()
}

/// Runs the tests that the command line asks for: three at once for each processor, for most of them wait for something,
/// or as many as `--test-threads` says.
pub fn run(modules: impl IntoIterator<Item = Vec<Trial>>) -> ExitCode {
    close_inherited();
    heed_signals();
    let mut arguments = Arguments::from_args();
    let processors = available_parallelism().map_or(1, |processors| (3 * processors.get()).min(MOST));
    let queue = Arc::new(Mutex::new(Queue::new(arguments.test_threads.unwrap_or(processors).max(1))));
    // On the main thread, so that there is no other and forking is allowed.
    arguments.test_threads = Some(1);
    let mut tests = Vec::new();
    for (number, trial) in modules.into_iter().flatten().enumerate() {
        let queue_of_all = Arc::clone(&queue);
        let test = libtest_mimic::Trial::ignorable_test(&trial.name, move || {
            queue_of_all.lock().expect("nobody panicked with it").outcome(number)
        });
        if !arguments.list && !arguments.is_filtered_out(&test) && !arguments.is_ignored(&test) {
            queue.lock().expect("nobody panicked with it").waiting.push_back((number, trial));
        }
        tests.push(test);
    }
    queue.lock().expect("nobody panicked with it").longest_first();
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Whoever started the tests may have left a descriptor open to them, such as a writer whose reader is gone, and a test that
/// looks at all that a process holds would find it.
fn close_inherited() {
    close_from(3);
}

/// A job in the background ignores SIGINT and SIGQUIT, and one of nohup(1) SIGHUP. What a test starts would do so too.
fn heed_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: no handler is installed, and none was.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn close_from(first: libc::c_uint) {
    // SAFETY: numbers. Whatever this process has opened so far is not used any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_int::MAX, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

type Outcome = Result<Completion, Failed>;

/// The tests. Their outcomes are asked for in the order in which they are listed; they run ahead.
struct Queue {
    at_once: usize,
    waiting: VecDeque<(usize, Trial)>,
    running: Vec<Judge>,
    done: HashMap<usize, Outcome>,
    missing: HashMap<Need, Option<Missing>>,
}

/// A process that judges one test, and prints what was wrong.
struct Judge {
    number: usize,
    pid: libc::pid_t,
    alone: bool,
    output: File,
}

impl Queue {
    fn new(at_once: usize) -> Self {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self { at_once, waiting, running, done: HashMap::new(), missing: HashMap::new() }
    }

    /// Whatever may take long begins early, so that nothing waits for it in the end. Those that run alone come last, one
    /// after another.
    fn longest_first(&mut self) {
        let is_alone = |trial: &Trial| trial.needs.contains(&Need::Alone);
        self.waiting.make_contiguous().sort_by_key(|(_, trial)| (is_alone(trial), Reverse(trial.limit)));
    }

    /// Blocks until the test is over.
    fn outcome(&mut self, number: usize) -> Outcome {
        loop {
            if let Some(outcome) = self.done.remove(&number) {
                return outcome;
            }
            self.start_next();
            if !self.done.contains_key(&number) {
                self.wait_for_one();
            }
        }
    }

    fn start_next(&mut self) {
        while self.running.len() < self.at_once && !self.running.iter().any(|judge| judge.alone) {
            let Some((_, next)) = self.waiting.front() else { return };
            let alone = next.needs.contains(&Need::Alone);
            if alone && !self.running.is_empty() {
                return;
            }
            let (number, trial) = self.waiting.pop_front().expect("there is one");
            match self.missing(&trial.needs) {
                Some(Missing { why, fails: true }) => self.done.insert(number, Err(why.into())),
                Some(Missing { why, fails: false }) => self.done.insert(number, Ok(Completion::ignored_with(why))),
                None => {
                    self.running.push(Judge::start(number, alone, trial));
                    None
                }
            };
        }
    }

    /// The first thing that is missing of what a test needs. It is looked for once.
    fn missing(&mut self, needs: &[Need]) -> Option<Missing> {
        needs.iter().find_map(|need| self.missing.entry(*need).or_insert_with(|| need.missing()).clone())
    }

    fn wait_for_one(&mut self) {
        let mut status = 0;
        // SAFETY: room for a status. There are no children but judges.
        let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
        let place = self.running.iter().position(|judge| judge.pid == pid);
        let judge = self.running.swap_remove(place.unwrap_or_else(|| panic!("{pid} is no judge")));
        self.done.insert(judge.number, judge.outcome(status));
    }
}

impl Judge {
    fn start(number: usize, alone: bool, trial: Trial) -> Self {
        let output = memory_file();
        // Or it would be printed again.
        std::io::stdout().flush().expect("stdout can be flushed");
        // SAFETY: this process has one thread, so the child may do everything. It leaves with _exit.
        match unsafe { libc::fork() } {
            -1 => panic!("a process for the test could not be forked: {}", std::io::Error::last_os_error()),
            0 => judge_and_leave(output, trial),
            pid => Self { number, pid, alone, output },
        }
    }

    fn outcome(mut self, status: libc::c_int) -> Outcome {
        let mut said = String::new();
        self.output.rewind().and_then(|()| self.output.read_to_string(&mut said)).expect("what it said can be read");
        match status {
            0 => Ok(Completion::Completed),
            _ if libc::WIFEXITED(status) => Err(said.into()),
            _ => Err(format!("the test was ended from outside, by signal {}\n{said}", libc::WTERMSIG(status)).into()),
        }
    }
}

/// The judge's process, from its start to its end. It holds nothing but the standard descriptors.
fn judge_and_leave(output: File, trial: Trial) -> ! {
    // SAFETY: numbers only; 1 is this process's stdout.
    assert_eq!(unsafe { libc::dup2(output.as_raw_fd(), 1) }, 1, "{}", std::io::Error::last_os_error());
    std::mem::forget(output);
    close_from(3);
    // Each is long enough for ten times as many rounds, as the CI runs.
    let limit = trial.limit * times().div_ceil(10).max(1) as u32;
    // A panic has been printed, to stderr.
    let wrong = match catch_unwind(AssertUnwindSafe(|| judge_after(trial.keep, limit, trial.body))) {
        Ok(verdict) => verdict.err(),
        Err(_) => Some("the harness panicked".to_owned()),
    };
    if let Some(wrong) = &wrong {
        print!("{wrong}");
    }
    let _ = std::io::stdout().flush();
    // SAFETY: no conditions.
    unsafe { libc::_exit(i32::from(wrong.is_some())) }
}
