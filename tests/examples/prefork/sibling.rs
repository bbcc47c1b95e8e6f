//! The sibling of the server, whose workers serve with tokio and hyper.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipc::{Child, Command, PipeReader};

use super::client::Client;
use super::server::{await_end, descriptors, line, send_signal};
use super::support::{await_orphans, children_of, example, exit_code, poll_until, process_state, rounds};
use super::workers::wrk_counted;

const CLIENTS: usize = 8;

struct Sibling {
    child: Child,
    address: SocketAddr,
    stderr: PipeReader,
}

impl Sibling {
    fn start(workers: usize) -> Self {
        let ((stdout, out), (stderr, err)) = (ipc::pipe().unwrap(), ipc::pipe().unwrap());
        let command =
            Command::new(example("prefork_tokio")).args(["--listen", "127.0.0.1:0", "--workers", &workers.to_string()]);
        let child = command.stdout(out).stderr(err).spawn().unwrap();
        let line = line(&stdout).expect("its address");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
        let sibling = Self { child, address: address.expect("an address"), stderr };
        poll_until("all of them are there", || sibling.workers().len() == workers);
        let mut seen = BTreeSet::new();
        poll_until("each has answered", || {
            seen.extend(sibling.ask());
            seen.len() == workers
        });
        assert!(seen.into_iter().eq(sibling.workers().into_iter().collect::<BTreeSet<_>>()));
        sibling
    }

    /// Not the fork server, which is the first child.
    fn workers(&self) -> Vec<u32> {
        let process = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
        let all = tasks.flat_map(|task| {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.split_whitespace().map(|child| child.parse().expect("a process")).collect::<Vec<u32>>()
        });
        let server = children_of(process)[0];
        let lives = |worker: &u32| *worker != server && !matches!(process_state(*worker), None | Some('Z'));
        all.filter(lives).collect()
    }

    /// Asks on a connection of its own, and says which worker has answered.
    fn ask(&self) -> Option<u32> {
        let answer = Client::connect(self.address).ok()?.get("/asked").ok()?;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body).unwrap();
        let worker = text.strip_prefix("/asked, by process ").unwrap_or_else(|| panic!("{text:?}"));
        Some(worker.trim_end().parse().unwrap())
    }

    fn stop(self) {
        self.child.signal(libc::SIGTERM).unwrap();
        assert_eq!(exit_code(&self.child), 0, "{:?}", std::io::read_to_string(&self.stderr));
    }
}

pub fn every_worker_of_the_sibling_serves() {
    let sibling = Sibling::start(3);
    assert_eq!(sibling.workers().len(), 3);
    sibling.stop();
}

pub fn killed_workers_of_the_sibling_are_replaced_under_load() {
    let sibling = Sibling::start(4);
    let before = descriptors(sibling.child.id());
    let (report, writer) = ipc::pipe().unwrap();
    let wrk = Command::new("wrk").args(["--threads", "1", "--connections"]).arg(CLIENTS.to_string());
    let wrk = wrk
        .args(["--timeout", "10s", "--duration"])
        .arg(format!("{}s", rounds(1)))
        .arg(format!("http://{}/", sibling.address));
    let wrk = wrk.stdout(writer).spawn().unwrap();
    let (started, mut killed) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(rounds(1)) {
        // It is the rhythm that is wanted, and not that something is done by then.
        ipc::wait_any(&mut [], Some(Duration::from_millis(200))).unwrap();
        let Some(worker) = sibling.workers().first().copied() else { continue };
        send_signal(worker, libc::SIGKILL);
        killed += 1;
    }
    let (answered, [connect, read, write]) = wrk_counted((wrk, report));
    println!("{killed} kills, {answered} answers, {read} + {write} failures");
    assert!(killed as u64 > rounds(2) && answered > 100, "{killed} {answered}");
    // Each worker takes at most all connections with it.
    assert!(connect == 0 && read + write <= killed * CLIENTS, "{connect} {read} {write}");
    poll_until("every place is taken again", || sibling.workers().len() == 4);
    assert!(sibling.ask().is_some());
    poll_until("the master has no more descriptors than before", || descriptors(sibling.child.id()) <= before);
    sibling.stop();
}

pub fn workers_of_the_sibling_leave_when_the_master_is_killed() {
    let sibling = Sibling::start(3);
    let mut idle = Client::connect(sibling.address).unwrap();
    assert_eq!(idle.get("/").unwrap().status, 200);
    sibling.child.kill().unwrap();
    sibling.child.wait().unwrap();
    idle.assert_ends();
    poll_until("no more is accepted", || Client::connect(sibling.address).is_err());
    // And the fork server.
    await_orphans(4);
}

pub fn a_stop_of_the_sibling_finishes_the_request_under_way() {
    let sibling = Sibling::start(1);
    let mut client = Client::connect(sibling.address).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    client.send("POST /late HTTP/1.1\r\nHost: here\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
    // It is under way once the only worker has answered another after it.
    assert!(sibling.ask().is_some());
    sibling.child.signal(libc::SIGTERM).unwrap();
    assert_eq!(line(&sibling.stderr).unwrap(), "prefork: signal 15: finishing the requests under way\n");
    poll_until("no more is accepted", || Client::connect(sibling.address).is_err());
    client.send("late").unwrap();
    assert_eq!(client.receive("POST").unwrap().body, b"halflate");
    client.assert_ends();
    assert_eq!(exit_code(&sibling.child), 0);
}

pub fn without_its_fork_server_the_sibling_says_so_and_ends() {
    let sibling = Sibling::start(1);
    let server = children_of(sibling.child.id())[0];
    send_signal(server, libc::SIGKILL);
    let worker = sibling.workers()[0];
    send_signal(worker, libc::SIGKILL);
    assert_eq!(exit_code(&sibling.child), 1);
    await_end(worker);
    let log = std::io::read_to_string(&sibling.stderr).unwrap();
    assert!(log.contains("another takes its place") && log.lines().count() == 2, "{log}");
}

pub fn the_sibling_says_how_it_is_used() {
    let output = Command::new(example("prefork_tokio")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.starts_with("usage: prefork_tokio"), "{help}");
    for wrong in
        [&["--workers"][..], &["--workers", "0"], &["--listen", "here"], &["--grace", "-1"], &["--banana"], &["x"]]
    {
        let output = Command::new(example("prefork_tokio")).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: prefork_tokio"));
    }
}
