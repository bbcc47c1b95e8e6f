//! The hand-over to a successor.

use ipc::Command;

use super::client::request;
use super::server::{Folder, Server, await_end, program, send_signal};
use super::support::{children_of, poll_until, process_state};
use super::workers::{load, under_load, wrk, wrk_counted};

pub fn hand_overs_under_load_fail_no_request() {
    let (folder, large) = load();
    let server = Server::start(folder, &["--workers", "2", "--timeout", "60"]);
    let wrk = wrk(&server, 1);
    let mut idle = server.connect();
    assert_eq!(idle.get("/small").unwrap().status, 200);
    let mut masters = vec![server.child.id()];
    let (answered, failures) = under_load(&server, &large, || {
        for _ in 0..3 {
            send_signal(masters[masters.len() - 1], libc::SIGHUP);
            masters.push(server.successor());
        }
        // A connection that was idle all the time gets one more answer, once its worker has been told that it is to go.
        loop {
            let response = idle.get("/small").unwrap();
            assert_eq!(response.status, 200);
            if response.closes() {
                break;
            }
        }
        let (answered, failed) = wrk_counted(wrk);
        assert_eq!(failed, [0; 3], "{}", server.log());
        assert!(answered > 100);
    });
    drop(idle);
    assert!(failures.is_empty(), "{failures:?}\n{}", server.log());
    assert!(answered > 100);
    // All but the last have left in good order.
    assert_eq!(server.exit_code(), 0, "{}", server.log());
    let [_, second, third, last] = masters[..] else { panic!("four masters") };
    await_end(second);
    await_end(third);
    assert_eq!(server.log().matches("has taken over").count(), 3, "{}", server.log());
    let page = String::from_utf8(server.get("/.status").body).unwrap();
    assert!(page.contains(&format!("process {last}\n")), "{page}");
    send_signal(last, libc::SIGTERM);
    await_end(last);
}

pub fn a_successor_that_cannot_start_leaves_the_old_one_serving() {
    // No program.
    let folder = Folder::new();
    let copy = folder.0.join("prefork");
    std::fs::copy(program(), &copy).unwrap();
    let server = Server::start_with(Command::new(&copy), folder, &["--workers", "2"]);
    let (mut client, workers) = (server.connect(), server.workers());
    assert_eq!(client.get("/").unwrap().status, 200);
    std::fs::remove_file(&copy).unwrap();
    send_signal(server.child.id(), libc::SIGHUP);
    server.await_log("the successor cannot be started");
    assert!(server.log().contains("No such file or directory (os error 2); going on"), "{}", server.log());
    // A program that is something else.
    std::fs::copy("/bin/true", &copy).unwrap();
    send_signal(server.child.id(), libc::SIGHUP);
    server.await_log("cannot take over: it left without a word; going on");
    // One that cannot serve.
    std::fs::copy(program(), copy.with_extension("new")).unwrap();
    std::fs::rename(copy.with_extension("new"), &copy).unwrap();
    std::fs::rename(server.folder.root(), server.folder.0.join("elsewhere")).unwrap();
    poll_until("the other one is gone", || children_of(server.child.id()).len() == 2);
    send_signal(server.child.id(), libc::SIGHUP);
    server.await_log("cannot take over: a worker cannot start");
    poll_until("it is gone", || children_of(server.child.id()).len() == 2);

    let response = client.get("/").unwrap();
    assert_eq!((response.status, response.closes()), (200, false));
    drop(client);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers(), workers);
    // And once it is possible, it is done.
    std::fs::rename(server.folder.0.join("elsewhere"), server.folder.root()).unwrap();
    send_signal(server.child.id(), libc::SIGHUP);
    let successor = server.successor();
    assert_eq!(server.exit_code(), 0, "{}", server.log());
    send_signal(successor, libc::SIGTERM);
    await_end(successor);
}

pub fn a_stop_while_handing_over_stops_both() {
    let folder = Folder::new();
    let copy = folder.0.join("prefork");
    std::fs::copy(program(), &copy).unwrap();
    let server = Server::start_with(Command::new(&copy), folder, &["--workers", "1", "--patience", "60"]);
    // One that is never ready, and does not end by itself.
    std::fs::write(copy.with_extension("new"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(copy.with_extension("new"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(copy.with_extension("new"), &copy).unwrap();
    send_signal(server.child.id(), libc::SIGHUP);
    server.await_log("is started to take over");
    let successor = *children_of(server.child.id()).last().unwrap();
    // Meanwhile all is as it was, and one hand-over at a time is enough.
    send_signal(server.child.id(), libc::SIGHUP);
    server.await_log("SIGHUP comes at a bad time, and is ignored");
    let mut client = server.connect();
    client.send(request("GET", "/")).unwrap();
    assert!(!client.receive("GET").unwrap().closes());
    drop(client);
    send_signal(server.child.id(), libc::SIGTERM);
    assert_eq!(server.exit_code(), 0, "{}", server.log());
    assert_eq!(process_state(successor), None);
}
