//! Rounds under fire: each starts processes that pass something on, kills some of them at a random moment, and checks what
//! everybody else sees. Any fault is a panic.
//!
//! A round is made of its seed: what is passed on, by which calls, who is killed and after how much. The machine
//! decides when exactly the signal arrives.

pub mod board;
pub mod bytes;
pub mod calls;
pub mod content;
pub mod deadlines;
pub mod ends;
pub mod family;
pub mod messages;
pub mod orders;
pub mod packed;
pub mod random;
pub mod rings;
pub mod starved;
pub mod storm;
#[cfg(feature = "tokio")]
pub mod tasks;
#[cfg(feature = "channel")]
pub mod values;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use ipc::{Child, Ends, Error, Fork};

use board::Board;
use random::{Random, mix};
use storm::Storm;

/// A kind of round, with a name that says what must hold.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub run: fn(&mut Round),
}

/// Every kind in which somebody is killed.
pub const KINDS: &[Kind] = &[
    Kind { name: "a_killed_writer_leaves_a_prefix_and_then_the_end", run: bytes::killed_writer },
    Kind { name: "a_killed_reader_is_closed_to_its_writer", run: bytes::killed_reader },
    Kind { name: "a_killed_link_breaks_the_chain_on_both_sides", run: bytes::killed_link },
    Kind { name: "records_of_killed_writers_are_whole", run: bytes::killed_writers_of_records },
    Kind { name: "a_killed_peer_of_a_stream_leaves_a_prefix_and_then_the_end", run: bytes::killed_stream_peer },
    Kind { name: "a_killed_peer_leaves_whole_messages_and_then_the_end", run: messages::killed_peer },
    Kind { name: "a_killed_connectionless_peer_leaves_whole_messages", run: messages::killed_connectionless_peer },
    Kind { name: "a_killed_peer_leaves_whole_packed_messages", run: packed::killed_peer },
    Kind { name: "a_killed_writer_leaves_whole_messages_in_a_pipe", run: packed::killed_writer },
    Kind { name: "a_killed_side_of_a_ring_leaves_a_prefix_and_then_the_end", run: rings::killed_side },
    Kind { name: "messages_of_a_killed_peer_bring_all_their_ends", run: ends::killed_peer },
    Kind { name: "ends_under_way_to_a_killed_peer_are_closed", run: ends::killed_receiver },
    Kind { name: "what_a_killed_process_has_forked_goes_on_or_goes_along", run: family::killed_parent },
    Kind { name: "a_killed_program_breaks_the_chain_on_both_sides", run: family::killed_program },
    Kind { name: "a_killed_fork_server_has_run_what_it_said_it_had", run: orders::killed_server },
    Kind { name: "a_killed_caller_of_a_fork_server_leaves_nobody", run: orders::killed_caller },
    #[cfg(feature = "channel")]
    Kind { name: "a_killed_peer_of_a_channel_leaves_whole_values_with_their_ends", run: values::killed_peer },
    #[cfg(feature = "tokio")]
    Kind { name: "a_killed_peer_of_a_task_leaves_whole_messages_and_bytes", run: tasks::killed_peer },
];

/// Every kind in which nobody is, but the calls have a hard time.
pub const OTHERS: &[Kind] = &[
    Kind { name: "without_descriptors_everything_is_given_back", run: starved::of_descriptors },
    Kind { name: "without_processes_and_memory_everything_is_given_back", run: starved::of_processes_and_memory },
    Kind { name: "deadlines_are_kept", run: deadlines::kept },
];

/// Returns how long anything in a round may take, far more than it does on a busy machine. `IPC_TESTS_SLOW=10` says that this
/// one needs ten times as long.
pub fn limit() -> Duration {
    let slow = std::env::var("IPC_TESTS_SLOW").map_or(1, |times| times.parse().expect("IPC_TESTS_SLOW is a number"));
    Duration::from_secs(20) * slow
}

/// One round, as one of its processes sees it.
pub struct Round {
    pub random: Random,
    pub board: &'static Board,
}

/// How a process of a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed on, or got, all that there was to be.
    Done,
    /// It saw the other side go before that.
    Cut,
    Killed,
}

impl Fate {
    pub fn code(self) -> u8 {
        match self {
            Fate::Done => 0,
            Fate::Cut => 3,
            Fate::Killed => unreachable!("who is killed leaves no code"),
        }
    }
}

/// Runs one round, and checks that it leaves nothing behind: no descriptor, no end, no process.
pub fn run(kind: &Kind, seed: u64, board: &'static Board) {
    board.begin(seed);
    let before = (ipc::open_ends(), descriptors());
    let mut round = Round { random: Random::new(seed), board };
    // Now and then, this process is in the storm itself.
    let storm = round.storm();
    (kind.run)(&mut round);
    board.signals.add(storm.map_or(0, |storm| storm.came()));
    reap_orphans();
    assert_eq!((ipc::open_ends(), descriptors()), before, "what is open after the round");
    board.rounds.add(1);
}

impl Round {
    /// Once in a while, a storm of signals for the process that calls.
    fn storm(&mut self) -> Option<Storm> {
        let period = Duration::from_micros(100 + self.random.below(400));
        self.random.once_in(4).then(|| Storm::begin(period))
    }

    /// Forks a process of this round, which leaves with its fate. It does not outlive this one.
    pub fn fork<E: Ends>(&mut self, ends: E, body: impl FnOnce(&mut Round, E) -> Fate) -> Child {
        self.fork_with(Fork::new().die_with_parent(), ends, body)
    }

    pub fn fork_with<E: Ends>(&mut self, how: Fork, ends: E, body: impl FnOnce(&mut Round, E) -> Fate) -> Child {
        self.board.forks.add(1);
        // Half of them live with SIGPIPE at its default.
        let how = if self.random.once_in(2) { how.reset_signals() } else { how };
        let mut round = Round { random: Random::new(mix(self.random.next())), board: self.board };
        let forked = how.spawn(ends, |ends| {
            let storm = round.storm();
            let fate = body(&mut round, ends);
            round.board.signals.add(storm.map_or(0, |storm| storm.came()));
            fate.code()
        });
        forked.map_err(Error::from).expect("there is room for a process")
    }

    /// Kills some of the victims, at a moment between now and when `most` bytes or messages were received. A process of its
    /// own does it: wait for it before the victims.
    pub fn killer(&mut self, victims: &[&Child], most: u64) -> Child {
        // Seldom all, and seldom none.
        let chosen: Vec<&Child> = victims.iter().copied().filter(|_| !self.random.once_in(4)).collect();
        let is_any_left = || !victims.iter().all(|victim| has_left(victim));
        let kill = || chosen.iter().try_for_each(|victim| victim.kill());
        self.killer_with(most, !chosen.is_empty(), is_any_left, kill)
    }

    /// The same for a process that this one alone waits for, and does not before it has waited for the killer.
    pub fn killer_of(&mut self, victim: u32, most: u64) -> Child {
        let kill = || {
            // SAFETY: numbers.
            let result = unsafe { libc::kill(victim as libc::pid_t, libc::SIGKILL) };
            if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
        };
        let started = Instant::now();
        // Nobody tells when the last order was given.
        self.killer_with(most, true, || started.elapsed() < Duration::from_millis(20), kill)
    }

    fn killer_with(
        &mut self,
        most: u64,
        kills: bool,
        is_any_left: impl Fn() -> bool,
        kill: impl Fn() -> ipc::Result<()>,
    ) -> Child {
        let moment = self.random.below(3);
        let (progress, spins) = (self.random.amount(most), self.random.up_to(1 << 17));
        self.board.forks.add(1);
        let board = self.board;
        let started = Instant::now();
        let killer = Fork::new().die_with_parent().spawn((), move |()| -> ipc::Result<()> {
            if moment > 0 {
                while board.progress() < progress && is_any_left() {
                    assert!(started.elapsed() < limit(), "no more than {} is received of {progress}", board.progress());
                    std::thread::yield_now();
                }
            }
            if moment < 2 {
                (0..spins).for_each(|_| std::hint::spin_loop());
            }
            if kills {
                board.kill();
            }
            kill()
        });
        killer.expect("there is room for a process")
    }

    /// This process has seen that another one is gone.
    pub fn parted(&self) {
        if let Some(since) = self.board.since_the_kill() {
            assert!(since < limit(), "it took {since:?} to see that somebody was killed");
            self.board.slowest.at_least(since.as_micros() as u64);
            self.board.partings.add(1);
        }
    }

    /// Waits for a process of the round, which is to end soon, in one of three ways.
    #[track_caller]
    pub fn fate(&self, child: &Child) -> Fate {
        let status = child.wait_timeout(limit()).expect("a child can be waited for");
        let status = status.unwrap_or_else(|| panic!("process {} is not done after {:?}", child.id(), limit()));
        match (status.code(), status.signal()) {
            (Some(0), _) => Fate::Done,
            (Some(3), _) => Fate::Cut,
            (_, Some(libc::SIGKILL)) => {
                self.board.kills.add(1);
                Fate::Killed
            }
            _ => panic!("process {} ended with {status}", child.id()),
        }
    }

    /// Waits for the killer, which is to have done its work, and then for the others.
    #[track_caller]
    pub fn fates<const N: usize>(&self, killer: &Child, children: [&Child; N]) -> [Fate; N] {
        assert_eq!(self.fate(killer), Fate::Done, "the killer");
        children.map(|child| self.fate(child))
    }
}

/// Asserts that nothing but a kill cuts a side off.
#[track_caller]
pub fn assert_cut_by_a_kill(fates: &[Fate]) {
    assert!(
        !fates.contains(&Fate::Cut) || fates.contains(&Fate::Killed),
        "somebody was cut off, and nobody killed: {fates:?}"
    );
}

fn has_left(child: &Child) -> bool {
    let ready = ipc::wait_any(&mut [ipc::Watch::readable(child)], Some(Duration::ZERO));
    ready.expect("a child can be waited for") > 0
}

/// The descriptors of this process, and what each stands for.
fn descriptors() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let numbers: Vec<i32> = entries
        .map(|entry| {
            entry.expect("an entry").file_name().to_str().and_then(|name| name.parse().ok()).expect("a number")
        })
        .collect();
    // The one that the directory was read through is closed by now.
    let target = |number| Some((number, std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?));
    let mut all: Vec<_> =
        numbers.into_iter().filter_map(target).map(|(number, target)| (number, target.display().to_string())).collect();
    all.sort_unstable();
    all
}

/// Lets this process be the parent of those whose parent was killed, to wait for them.
pub fn adopt_orphans() {
    // SAFETY: integers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert_eq!(result, 0, "prctl: {}", std::io::Error::last_os_error());
}

/// Waits for those whose parent was killed. Nobody else is left by now.
fn reap_orphans() {
    let started = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: room for a status.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            -1 => return, // ECHILD
            0 => {
                assert!(started.elapsed() < limit(), "a process is left behind");
                std::thread::yield_now();
            }
            _ => {
                let fine = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
                    || libc::WIFEXITED(status) && [0, 3].contains(&libc::WEXITSTATUS(status));
                assert!(fine, "an orphan ended with the status {status:#x}");
            }
        }
    }
}
