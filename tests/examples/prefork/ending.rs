//! Signals that come twice.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use ipc::Command;

use super::client::{Client, request};
use super::server::{Folder, HUGE, Server, program};
use super::support::exit_code;

pub fn a_signal_that_comes_twice_at_once_is_one() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let server = Server::with_huge_file(&["--workers", "2", "--timeout", "60"]);
        let mut client = server.begin_huge();
        assert_eq!(server.get("/").status, 200);
        server.child.signal(signal).unwrap();
        server.await_log("finishing the requests under way");
        server.child.signal(signal).unwrap();
        assert_eq!(client.receive("GET").unwrap().body.len() as u64, HUGE);
        drop(client);
        assert_eq!(server.exit_code(), 0, "{}", server.log());
    }
    // One that comes later is meant.
    let server = Server::with_huge_file(&["--workers", "2", "--timeout", "60"]);
    let mut client = server.begin_huge();
    assert_eq!(server.get("/").status, 200);
    server.child.signal(libc::SIGTERM).unwrap();
    server.await_log("finishing the requests under way");
    ipc::wait_any(&mut [], Some(Duration::from_millis(1100))).unwrap(); // longer than it counts for the same
    server.child.signal(libc::SIGTERM).unwrap();
    assert_eq!(server.exit_code(), 1);
    assert!(server.log().ends_with("prefork: ended at once, by a second signal\n"), "{}", server.log());
    assert!(client.receive("GET").map_or(true, |response| (response.body.len() as u64) < HUGE));
}

pub fn a_stop_by_timeout_finishes_the_requests_under_way() {
    let folder = Folder::new();
    folder.huge_file();
    let (mut said, stdout) = ipc::pipe().unwrap();
    let log = File::create(folder.0.join("log")).unwrap();
    let command = Command::new("timeout").args(["--preserve-status", "600"]).arg(program());
    let command = command.args(["--listen", "127.0.0.1:0", "--timeout", "60", "--root"]).arg(folder.root());
    // In a group of its own, which it sends the signal to as well as to the server.
    let timeout = command.stdout(stdout).stderr(log).spawn().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        said.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let line = String::from_utf8(line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let mut client = Client::connect(address).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 64 << 10).unwrap();
    client.send(request("GET", "/huge")).unwrap();
    // The answer has begun, and its end does not fit in any buffer.
    client.stream().peek(&mut [0]).unwrap();
    timeout.signal(libc::SIGTERM).unwrap();
    assert_eq!(client.receive("GET").unwrap().body.len() as u64, HUGE);
    drop(client);
    assert_eq!(exit_code(&timeout), 0, "{}", std::fs::read_to_string(folder.0.join("log")).unwrap());
}
