//! Rounds in which there is nothing left: no descriptors, no processes, no address space. Nobody is killed.

use std::fs::File;

use ipc::{Command, DatagramSocket, Error, Fork, datagram_pair, fork, pipe};

use super::calls::{CALLS, Call};
use super::{Fate, Round, descriptors};

pub fn of_descriptors(round: &mut Round) {
    // The first start of a process finds out how things are here, and takes more.
    assert!(Command::new("true").status().expect("it can be started").success());
    for _ in 0..5 {
        let Call { name, places, prepare } = round.random.pick(CALLS);
        if (name.starts_with("holders") || name.starts_with("ProcessMap")) && !round.random.once_in(10) {
            continue; // they look at every process of the machine, which may be many
        }
        let free = round.random.below(*places as u64 + 1) as usize;
        let mut call = prepare();
        let before = (ipc::open_ends(), descriptors());
        let starved = Limit::descriptors(free);
        let result = call();
        drop(starved);
        match result {
            Ok(()) => assert_eq!(free, *places, "{name} needs no more than {free}"),
            Err(error) => {
                assert!(free < *places, "{name} with {free} free places: {error:?}");
                assert_eq!(errno(&error), Some(libc::EMFILE), "{name} with {free} free places: {error:?}");
                assert_eq!((ipc::open_ends(), descriptors()), before, "{name} with {free} free places");
                round.board.refusals.add(1);
                call().unwrap_or_else(|error| panic!("{name}, with places again: {error:?}"));
            }
        }
    }
    lost_ends(round);
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::System { source, .. } => source.raw_os_error(),
        Error::NotStarted { error, .. } => errno(error),
        _ => None,
    }
}

/// More ends arrive than there are places: the message is whole, and the ends that have a place are there.
fn lost_ends(round: &mut Round) {
    let pair = datagram_pair().expect("there is room for a pair");
    let sent = 1 + round.random.below(10) as usize;
    let free = round.random.below(sent as u64 + 1) as usize;
    let ends: Vec<File> = (0..sent).map(|_| File::open("/dev/null").expect("/dev/null")).collect();
    pair.parent.send_with(b"with ends", ends).expect("an empty queue");
    let mut text = Vec::new();
    let starved = Limit::descriptors(free);
    let received = pair.child.recv_with(&mut text);
    drop(starved);
    let arrived = match received {
        Ok(Some(received)) if free == sent => received,
        Err(Error::EndsLost { received }) if free < sent => {
            round.board.refusals.add(1);
            received
        }
        other => panic!("{sent} ends and {free} places: {other:?}"),
    };
    assert_eq!((&text[..], arrived.len()), (&b"with ends"[..], free));
    round.board.ends.add(free as u64);
}

/// In a process of its own, which can be another user.
pub fn of_processes_and_memory(round: &mut Round) {
    let (reader, writer) = pipe().expect("there is room for a pipe");
    let pair = datagram_pair().expect("there is room for a pair");
    pair.parent.send(b"too early").expect("an empty queue");
    let poor = round.fork((writer, pair.child), |round, (writer, socket)| {
        // In a thread, which has received nothing yet.
        let received = std::thread::scope(|scope| scope.spawn(|| receive_without_memory(&socket)).join());
        received.expect("nothing is wrong");

        become_somebody();
        let starved = Limit::set(libc::RLIMIT_NPROC, 0);
        let refused = fork(writer, |_writer| ()).expect_err("no process is allowed");
        assert_eq!(errno(&refused.error), Some(libc::EAGAIN), "{refused:?}");
        let writer = refused.ends;
        let refused = Command::new("true").spawn().expect_err("no process is allowed");
        assert_eq!(errno(&refused.error), Some(libc::EAGAIN), "{refused:?}");
        drop(starved);
        round.board.refusals.add(3);
        round.board.programs.add(1);
        assert!(refused.command.status().expect("it can be started now").success());
        let child = Fork::new().die_with_parent().spawn(writer, |writer| writer.write_atomic(b"still mine"));
        let child = child.expect("it can be forked now");
        assert!(child.wait().expect("a child can be waited for").success());
        Fate::Done
    });
    assert_eq!(round.fate(&poor), Fate::Done);
    assert_eq!(reader.available().expect("a pipe"), 10);
}

fn receive_without_memory(socket: &DatagramSocket) {
    let starved = Limit::set(libc::RLIMIT_AS, address_space() + (2 << 20));
    let refused = socket.recv(&mut [0; 64]).expect_err("there is no memory for a long message");
    assert_eq!(errno(&refused), Some(libc::ENOMEM), "{refused:?}");
    drop(starved);
    assert_eq!(socket.recv(&mut [0; 64]).expect("the message waited"), Some(9));
}

/// Returns how much this process has, in bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    // SAFETY: no conditions.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// Root has no limit of processes.
fn become_somebody() {
    let somebody = 100_000 + std::process::id();
    // SAFETY: numbers only.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setresuid(somebody, somebody, somebody), 0, "{}", std::io::Error::last_os_error());
        }
    }
}

/// A lower limit, for as long as it lives.
struct Limit {
    resource: libc::__rlimit_resource_t,
    before: libc::rlimit,
}

impl Limit {
    fn set(resource: libc::__rlimit_resource_t, soft: u64) -> Self {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: room for a limit, and one that is lower.
        unsafe {
            assert_eq!(libc::getrlimit(resource, &mut before), 0);
            let lower = libc::rlimit { rlim_cur: before.rlim_max.min(soft as _), ..before };
            assert_eq!(libc::setrlimit(resource, &lower), 0, "{}", std::io::Error::last_os_error());
        }
        Self { resource, before }
    }

    /// Leaves exactly that many places. They are taken from below, and the limit stands over the last of them.
    fn descriptors(free: usize) -> Self {
        let open: Vec<i32> = descriptors().into_iter().map(|(number, _)| number).collect();
        let limit = (0..).filter(|number| !open.contains(number)).nth(free).expect("there are more numbers");
        Self::set(libc::RLIMIT_NOFILE, limit as u64)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: the limit that was there before.
        unsafe { libc::setrlimit(self.resource, &self.before) };
    }
}
