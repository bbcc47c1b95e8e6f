//! What becomes of the workers, and with them of the requests.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ipc::{Command, PipeReader};

use super::client::{Client, Failure, keep_asking};
use super::server::{Folder, HUGE, Server, descriptors, noise, program, send_signal};
use super::support::{await_orphans, children_of, example, exit_code, poll_until, process_state, rounds};

/// How many connections each kind of client has.
const CLIENTS: usize = 6;

/// `wrk`, for that long.
pub fn wrk(server: &Server, seconds: u64) -> (ipc::Child, PipeReader) {
    let (reader, writer) = ipc::pipe().unwrap();
    let wrk = Command::new("wrk").args(["--threads", "1", "--connections"]).arg(CLIENTS.to_string());
    let wrk = wrk.args(["--timeout", "10s", "--duration"]).arg(format!("{seconds}s")).arg(server.url("/small"));
    (wrk.stdout(writer).spawn().unwrap(), reader)
}

/// How many requests it made, and how many failed when connecting, reading, and writing.
pub fn wrk_counted((wrk, reader): (ipc::Child, PipeReader)) -> (usize, [usize; 3]) {
    let report = std::io::read_to_string(reader).unwrap();
    assert_eq!(exit_code(&wrk), 0);
    assert!(!report.contains("Non-2xx"), "{report}");
    let number = |before: &str| -> Option<usize> {
        report.split(before).nth(1)?.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok());
    let failed = ["connect", "read", "write"].map(|what| number(&format!("{what} ")).unwrap_or_default());
    (requests.unwrap_or_else(|| panic!("{report}")), failed)
}

/// The files that are asked for under load: in `wrk` the first.
pub fn load() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let large = noise(300_000);
    folder.file("small", &large[..1_000]);
    folder.file("medium", &large[..40_000]);
    folder.file("large", &large);
    (folder, large)
}

/// Clients under load while something happens. All that they were answered, and all that they were not.
pub fn under_load(server: &Server, large: &[u8], happens: impl FnOnce()) -> (usize, Vec<Failure>) {
    let files = [("/small", &large[..1_000]), ("/medium", &large[..40_000]), ("/large", large)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (address, files, stop) = (server.address, &files[..], &stop);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(move || keep_asking(address, files, stop))).collect();
        let end = Stop(stop); // also if something panics
        happens();
        drop(end);
        clients.into_iter().map(|client| client.join().unwrap()).fold((0, Vec::new()), |mut all, client| {
            all.0 += client.0;
            all.1.extend(client.1);
            all
        })
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Kill {
    worker: u32,
    sent: Instant,
    gone: Option<Instant>,
}

/// Its lifelines are what they are meant to be.
pub fn a_map_of_the_server_shows_no_bug() {
    let server = Server::start(Folder::new(), &["--workers", "3"]);
    assert_eq!(server.get("/").status, 200);
    let map = || {
        let output = Command::new(example("who_holds")).arg(server.child.id().to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut shown = String::new();
    // A child that was forked just now may still have to sever its ends.
    poll_until("every worker is there, and nothing stands out", || {
        shown = map();
        println!("{shown}");
        let workers = server.workers();
        let is_shown = |worker: &u32| shown.contains(&format!("\u{2500} {worker} "));
        workers.len() == 3 && workers.iter().all(is_shown) && !shown.contains('!')
    });
    assert!(shown.contains("and its children read it: EOF comes when it lets go"), "{shown}");
    server.stop();
}

pub fn killed_workers_lose_their_own_requests_and_no_other() {
    let (folder, large) = load();
    let server = Server::start(folder, &["--workers", "4"]);
    let master = server.child.id();
    assert_eq!(server.get("/").status, 200);
    let before = descriptors(master);

    let wrk = wrk(&server, rounds(1));
    let started = Instant::now();
    let mut kills = Vec::new();
    let (answered, failures) = under_load(&server, &large, || {
        // It is the rhythm that is wanted, and not that something is done by then.
        while started.elapsed() < Duration::from_secs(rounds(1)) {
            for tick in 0..20 {
                ipc::wait_any(&mut [], Some(Duration::from_millis(10))).unwrap();
                for kill in kills.iter_mut().filter(|kill: &&mut Kill| kill.gone.is_none()) {
                    // A zombie's connections are closed.
                    let gone = matches!(process_state(kill.worker), None | Some('Z'));
                    kill.gone = gone.then(Instant::now);
                }
                if tick == 0 {
                    let alive = |worker: &u32| kills.iter().all(|kill| kill.worker != *worker);
                    let Some(worker) = server.workers().into_iter().find(alive) else { continue };
                    kills.push(Kill { worker, sent: Instant::now(), gone: None });
                    send_signal(worker, libc::SIGKILL);
                }
            }
        }
    });
    let (wrk_answered, [connect, read, write]) = wrk_counted(wrk);

    println!(
        "{} kills, {answered} answers, {} failures; wrk: {wrk_answered}, {read} + {write}",
        kills.len(),
        failures.len()
    );
    assert!(kills.len() as u64 > rounds(2) && answered > 100 && wrk_answered > 100);
    for failure in &failures {
        let excused = match failure.worker {
            Some(worker) => kills.iter().any(|kill| kill.worker == worker),
            // Nobody knows who had accepted it: then one was killed while it was open.
            None => kills
                .iter()
                .any(|kill| kill.sent <= failure.failed && kill.gone.is_none_or(|gone| failure.opened <= gone)),
        };
        assert!(excused, "{failure:?}\n{}", server.log());
    }
    // Each worker takes at most all connections with it.
    assert!(failures.len() <= kills.len() * CLIENTS);
    assert!(connect == 0 && read + write <= kills.len() * CLIENTS, "{connect} {read} {write}");

    poll_until("every place is taken again", || {
        server.log().matches("another takes its place").count() == kills.len() && server.workers().len() == 4
    });
    assert!(!server.log().contains("given up"), "{}", server.log());
    assert_eq!(server.get("/").status, 200);
    poll_until("the master has no more descriptors than before", || descriptors(master) == before);
    server.stop();
}

pub fn a_worker_that_hangs_is_replaced() {
    let server = Server::start(Folder::new(), &["--workers", "2", "--patience", "1"]);
    let hanging = server.workers()[0];
    send_signal(hanging, libc::SIGSTOP);
    server.await_log(&format!("worker {hanging} is gone (signal: 9 (SIGKILL)): it gave no sign of life for 1s"));
    poll_until("another is in its place", || server.workers().len() == 2);
    assert!(!server.workers().contains(&hanging));
    // A master that slept does not take the silence of that time for theirs.
    let workers = server.workers();
    send_signal(server.child.id(), libc::SIGSTOP);
    ipc::wait_any(&mut [], Some(Duration::from_millis(1500))).unwrap(); // longer than its patience
    send_signal(server.child.id(), libc::SIGCONT);
    let mut client = server.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!(server.workers(), workers);
    server.stop();
}

pub fn a_worker_that_cannot_start_ends_the_server_with_the_reason() {
    let output =
        Command::new(program()).args(["--listen", "127.0.0.1:0", "--root", "/no/such/folder"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), ""); // no address
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a worker cannot start"), "{said}");
    assert!(said.contains("the folder /no/such/folder cannot be opened: No such file or directory"), "{said}");

    let server = Server::start(Folder::new(), &[]);
    let address = server.address.to_string();
    let output = Command::new(program()).args(["--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("{address} cannot be listened at: Address already in use")), "{said}");
    server.stop();
}

pub fn workers_that_leave_at_once_are_given_up() {
    let server = Server::start(Folder::new(), &["--workers", "2"]);
    let [first, second] = server.workers()[..] else { panic!("two workers") };
    std::fs::rename(server.folder.root(), server.folder.0.join("elsewhere")).unwrap();
    send_signal(first, libc::SIGKILL);
    server.await_log("given up, as 5 in a row left at once");
    assert!(server.log().contains("cannot be opened: No such file or directory"), "{}", server.log());
    // The other one has the folder open, wherever it is.
    assert_eq!(server.get("/").worker(), second);
    send_signal(second, libc::SIGKILL);
    assert_eq!(server.exit_code(), 1);
    assert!(server.log().ends_with("prefork: no worker is left\n"), "{}", server.log());
}

pub fn a_worker_that_cannot_be_forked_is_tried_again() {
    let server = Server::start(Folder::new(), &["--workers", "2"]);
    let limit = |soft: libc::rlim_t| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: 1024 };
        // SAFETY: a process of this test's, a valid limit, and the old one is not asked for.
        let result = unsafe {
            libc::prlimit(server.child.id() as libc::pid_t, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    let [lost, other] = server.workers()[..] else { panic!("two workers") };
    limit(8); // what it has open stays so, and poll takes that many
    send_signal(lost, libc::SIGKILL);
    server.await_log("a worker cannot be started");
    assert!(server.log().contains("Too many open files (os error 24); trying again"), "{}", server.log());
    assert_eq!(server.get("/").worker(), other);
    limit(1024);
    poll_until("another is in its place", || server.workers().len() == 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

pub fn workers_leave_when_the_master_is_killed() {
    let server = Server::with_huge_file(&["--workers", "3", "--timeout", "60"]);
    let workers = server.workers();
    let mut client = server.begin_huge();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    poll_until("no more is accepted", || Client::connect(server.address).is_err());
    // What is under way is finished.
    assert_eq!(client.receive("GET").unwrap().body.len() as u64, HUGE);
    assert!(idle.get("/").unwrap().closes());
    drop((client, idle));
    await_orphans(workers.len());
}

pub fn a_stop_finishes_the_requests_under_way() {
    let server = Server::with_huge_file(&["--workers", "2", "--timeout", "60"]);
    let mut busy: Vec<Client> = (0..3).map(|_| server.begin_huge()).collect();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(server.get("/").status, 200);
    server.child.signal(libc::SIGTERM).unwrap();
    idle.assert_ends();
    poll_until("no more is accepted", || Client::connect(server.address).is_err());
    assert_eq!(server.child.try_wait().unwrap(), None);
    half.send("Host: here\r\n\r\n").unwrap();
    let response = half.receive("GET").unwrap();
    assert_eq!((response.status, response.closes()), (200, true));
    for client in &mut busy {
        assert_eq!(client.receive("GET").unwrap().body.len() as u64, HUGE);
    }
    // Closed by the server, though it had said that they may stay.
    busy.into_iter().for_each(Client::assert_ends);
    drop(half);
    assert_eq!(server.exit_code(), 0, "{}", server.log());
}

pub fn a_second_signal_ends_at_once() {
    let server = Server::with_huge_file(&["--workers", "2", "--timeout", "60"]);
    let mut client = server.begin_huge();
    assert_eq!(server.get("/").status, 200);
    server.child.signal(libc::SIGTERM).unwrap();
    server.await_log("finishing the requests under way");
    server.child.signal(libc::SIGINT).unwrap();
    assert_eq!(server.exit_code(), 1);
    assert!(server.log().ends_with("prefork: ended at once, by a second signal\n"), "{}", server.log());
    assert!(client.receive("GET").map_or(true, |response| (response.body.len() as u64) < HUGE));
}

pub fn what_takes_longer_than_the_grace_is_cut() {
    let server = Server::with_huge_file(&["--workers", "2", "--grace", "0.2"]);
    let mut client = server.begin_huge();
    assert_eq!(server.get("/").status, 200);
    server.child.signal(libc::SIGTERM).unwrap();
    assert_eq!(server.exit_code(), 1);
    assert!(server.log().ends_with("prefork: 1 workers did not finish in time, and were killed\n"), "{}", server.log());
    assert!(client.receive("GET").map_or(true, |response| (response.body.len() as u64) < HUGE));
}

pub fn ctrl_c_is_counted_once_though_the_workers_get_it_too() {
    let server = Server::with_huge_file(&["--workers", "2", "--timeout", "60"]);
    let mut client = server.begin_huge();
    assert_eq!(server.get("/").status, 200);
    let workers = server.workers();
    for process in workers.iter().chain([&server.child.id()]) {
        send_signal(*process, libc::SIGINT);
    }
    server.await_log("finishing the requests under way");
    assert_eq!(client.receive("GET").unwrap().body.len() as u64, HUGE);
    drop(client);
    assert_eq!(server.exit_code(), 0, "{}", server.log());
}

pub fn a_terminal_gets_a_line_that_is_redrawn() {
    let (mut terminal, mut end) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: room for two descriptors, which are new and nobody else's.
    let (terminal, end) = unsafe {
        assert_eq!(libc::openpty(&mut terminal, &mut end, none, none.cast(), none.cast()), 0);
        (OwnedFd::from_raw_fd(terminal), OwnedFd::from_raw_fd(end))
    };
    let folder = Folder::new();
    let server =
        Command::new(program()).args(["--listen", "127.0.0.1:0", "--workers", "2", "--root"]).arg(folder.root());
    let server = server.stdout(ipc::Stdio::null()).stderr(end).spawn().unwrap();
    let mut terminal = std::fs::File::from(terminal);
    let mut seen = String::new();
    while !seen.contains("2 workers, 0 connections, 0 requests, 0 bytes\r\u{1b}[K2 workers") {
        let mut buf = [0; 256];
        let len = std::io::Read::read(&mut terminal, &mut buf).unwrap();
        seen.push_str(std::str::from_utf8(&buf[..len]).unwrap());
    }
    assert_eq!(children_of(server.id()).into_iter().collect::<BTreeSet<_>>().len(), 2);
    server.signal(libc::SIGTERM).unwrap();
    assert_eq!(exit_code(&server), 0);
}

pub fn it_says_how_it_is_used() {
    let output = Command::new(program()).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.starts_with("usage: prefork"), "{help}");
    for wrong in [
        &["--workers"][..],
        &["--workers", "0"],
        &["--listen", "here"],
        &["--timeout", "-1"],
        &["--timeout", "nan"],
        &["--root"],
        &["--banana"],
    ] {
        let output = Command::new(program()).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: prefork"));
    }
}
