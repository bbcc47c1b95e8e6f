//! What clients send, and what they get.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::Duration;

use ipc::Command;

use super::client::{Client, request};
use super::server::{Folder, HUGE, Server, has_open, noise, program};
use super::support::{SOON, poll_until};

/// One worker, so that it is the one that lives or does not.
const ALONE: [&str; 2] = ["--workers", "1"];

pub fn served_bytes_equal_the_files() {
    let folder = Folder::new();
    let large = noise(3_000_000);
    let files: [(&str, &[u8], &str); 7] = [
        ("plain.txt", b"a few words\n", "text/plain; charset=utf-8"),
        ("empty.css", b"", "text/css; charset=utf-8"),
        ("large", &large, "application/octet-stream"),
        ("with blank and ü.JSON", b"{}", "application/json"),
        ("100%", b"a percent", "application/octet-stream"),
        ("deeper/still/page.html", b"<p>", "text/html; charset=utf-8"),
        (".hidden", b"not hidden", "application/octet-stream"),
    ];
    for (name, content, _) in files {
        folder.file(name, content);
    }
    folder.file("deeper/index.html", b"<h1>deeper</h1>");
    let server = Server::start(folder, &[]);
    let encoded = |name: &str| name.replace('%', "%25").replace(' ', "%20").replace('ü', "%C3%BC");
    for (name, content, kind) in files {
        let curl = Command::new("curl").args(["-sS", "-w", "%{stderr}%{http_code} %{content_type}"]);
        let output = curl.arg(server.url(&format!("/{}?a=query", encoded(name)))).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("200 {kind}"));
        assert!(output.stdout == content, "{name}: {} bytes", output.stdout.len());
    }
    for (path, content) in [
        ("/", "<h1>home</h1>"),
        ("/deeper/", "<h1>deeper</h1>"),
        ("/deeper", "<h1>deeper</h1>"),
        ("//plain.txt", "a few words\n"),
    ] {
        let output = Command::new("curl").args(["-sSL", "--path-as-is"]).arg(server.url(path)).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), content, "{path}");
    }
    let mut client = server.connect();
    client.send(request("HEAD", "/large")).unwrap();
    let head = client.receive("HEAD").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, "3000000"));
    assert_eq!(client.get("/plain.txt").unwrap().body, b"a few words\n"); // no body of the other came in between
    server.stop();
}

pub fn a_connection_is_kept_and_requests_may_be_sent_ahead() {
    let folder = Folder::new();
    let files: Vec<_> = (0..20).map(|i| (format!("/{i}"), noise(i * 9_000))).collect();
    for (path, content) in &files {
        folder.file(&path[1..], content);
    }
    let server = Server::start(folder, &ALONE);
    let mut client = server.connect();
    client.send(files.iter().map(|(path, _)| request("GET", path)).collect::<String>()).unwrap();
    for (path, content) in &files {
        assert!(client.receive("GET").unwrap().body == *content, "{path}");
    }
    // More at once than is looked at in one turn.
    client.send(request("GET", "/0").repeat(3000)).unwrap();
    for _ in 0..3000 {
        assert_eq!(client.receive("GET").unwrap().status, 200);
    }
    client.send("GET /1 HTTP/1.1\r\nHost: here\r\nConnection: Keep-Alive, Close\r\n\r\n").unwrap();
    assert!(client.receive("GET").unwrap().closes());
    client.assert_ends();
    let mut old = server.connect();
    old.send("GET /1 HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.receive("GET").unwrap().closes());
    old.assert_ends();
    server.stop();
}

pub fn what_is_no_request_is_refused_and_the_worker_lives() {
    let server = Server::start(Folder::new(), &ALONE);
    let worker = server.get("/").worker();
    let headers = |count: usize| (0..count).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    let hostile: Vec<(u16, Vec<u8>)> = vec![
        (400, noise(100_000)),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()), // TLS
        (400, b"\0".to_vec()),
        (400, b"banana\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/2.0\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\n\r\n".to_vec()), // no Host
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_vec()),
        (400, b"GET index.html HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (405, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGET".to_vec()),
        (405, request("DELETE", "/").into_bytes()),
        (405, request("get", "/").into_bytes()),
        (413, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (413, b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        (431, format!("GET /{} HTTP/1.1\r\n", "a".repeat(9_000)).into_bytes()),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(1_000_000)).into_bytes()),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", headers(100)).into_bytes()),
        (431, b"\r\n".repeat(10_000)),
    ];
    for (status, bytes) in hostile {
        let mut client = server.connect();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        client.send(bytes).unwrap();
        let response = client.receive("GET").unwrap();
        assert_eq!((response.status, response.closes()), (status, true), "{shown:?}");
        // One that goes on sending is listened to for a while, so that it does not miss its answer.
        (0..100).for_each(|_| client.send("x").unwrap());
        client.assert_ends();
        assert_eq!(server.get("/").worker(), worker);
    }
    // And those who leave in the middle of it.
    for bytes in ["", "GET / HT", "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = server.connect();
        client.send(bytes).unwrap();
    }
    assert_eq!(server.get("/").worker(), worker);
    server.stop();
}

pub fn no_way_leads_out_of_the_folder() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("secret"), "secret").unwrap();
    folder.file("sub/page", b"page");
    for (target, link) in [
        ("/etc/passwd", "absolute"),
        ("../secret", "relative"),
        ("..", "above"),
        ("sub/../../secret", "sub-out"),
        ("/proc/self/root", "proc"),
        ("self", "self"),
        ("sub/page", "inside"),
    ] {
        std::os::unix::fs::symlink(target, folder.root().join(link)).unwrap();
    }
    assert!(Command::new("mkfifo").arg(folder.root().join("fifo")).status().unwrap().success());
    let server = Server::start(folder, &ALONE);
    let worker = server.get("/").worker();
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/%2E%2e%2fsecret",
        "/sub/../../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "//../secret",
        "/absolute",
        "/relative",
        "/above/secret",
        "/sub-out",
        "/proc/etc/passwd",
        "/self",
        "/fifo", // and nobody waits for its writer
    ] {
        let mut client = server.connect();
        let response = client.get(path).unwrap();
        assert_eq!((response.status, response.body), (403, b"403 Forbidden".to_vec()), "{path}");
    }
    for (path, status) in [
        ("/..\\secret", 404),
        ("/....//secret", 404),
        ("/%252e%252e/secret", 404),
        ("/secret", 404),
        ("/sub", 301),
        ("/sub/", 200), // a list of what is there
        ("/index.html/", 404),
        ("/a%00b", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%zz", 400),
        ("/inside", 200),
        ("/sub/../sub/page", 200),
        (&format!("/{}", "a".repeat(5000)), 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    assert_eq!(server.get("/").worker(), worker);
    server.stop();
}

pub fn slow_clients_are_sent_away_and_hold_nobody_up() {
    let server = Server::start(Folder::new(), &["--workers", "1", "--timeout", "1"]);
    let silent = server.connect();
    let mut slow: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHo").unwrap();
    }
    // A byte now and then keeps no head alive.
    let mut trickling = server.connect();
    trickling.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut bytes = "GET /".bytes().chain(std::iter::repeat(b'a'));
    assert_eq!(server.get("/").status, 200);
    let answer = loop {
        trickling.send([bytes.next().unwrap()]).unwrap();
        match trickling.receive("GET") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            answer => break answer.unwrap(),
        }
    };
    assert_eq!(answer.status, 408);
    drop(trickling);
    for mut client in slow {
        assert_eq!(client.receive("GET").unwrap().status, 408);
        client.assert_ends();
    }
    silent.assert_ends(); // it asked for nothing, and gets no answer
    server.stop();
}

pub fn a_client_that_reads_nothing_is_sent_away() {
    let server = Server::with_huge_file(&["--workers", "1", "--timeout", "1"]);
    let worker = server.workers()[0];
    let client = server.begin_huge();
    poll_until("the answer has begun", || has_open(worker, &server.folder.root().join("huge")));
    assert_eq!(server.get("/").status, 200);
    poll_until("the answer is given up", || !has_open(worker, &server.folder.root().join("huge")));
    let mut received = 0;
    let mut buf = vec![0; 1 << 20];
    loop {
        match client.stream().read(&mut buf) {
            Ok(0) | Err(_) => break,
            Ok(more) => received += more as u64,
        }
    }
    assert!(received < HUGE);
    server.stop();
}

/// Open, connections, requests, bytes.
fn row(table: &str, name: &str) -> [u64; 4] {
    let row = table.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{table}"));
    let numbers: Vec<u64> = row.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

pub fn half_closed_clients_get_their_answers() {
    let folder = Folder::new();
    let large = noise(3_000_000);
    folder.file("large", &large);
    let server = Server::start(folder, &["--workers", "1", "--timeout", "60"]);
    let mut client = server.connect();
    client.send(format!("{}{}GET /half", request("GET", "/large"), request("GET", "/"))).unwrap();
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert!(client.receive("GET").unwrap().body == large);
    assert_eq!(client.receive("GET").unwrap().body, b"<h1>home</h1>");
    client.assert_ends();
    server.stop();
}

pub fn a_worker_without_descriptors_goes_on_when_it_has_some() {
    let command = Command::new("sh").args(["-c", "ulimit -n 32; exec \"$@\"", "sh"]).arg(program());
    let server = Server::start_with(command, Folder::new(), &ALONE);
    let mut first = server.connect();
    let worker = first.get("/").unwrap().worker();
    let mut others: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    for client in &mut others {
        client.send(request("GET", "/")).unwrap();
    }
    // Those that were accepted get an answer, also where there was no descriptor left for the file.
    let mut accepted = 0;
    for client in &mut others {
        client.stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        match client.receive("GET") {
            Ok(response) => assert!([200, 503].contains(&response.status), "{}", response.status),
            Err(_) => break,
        }
        accepted += 1;
    }
    assert!((10..60).contains(&accepted), "{accepted}");
    let refused = others.split_off(accepted);
    drop(others);
    for mut client in refused {
        client.stream().set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(client.receive("GET").unwrap().worker(), worker);
    }
    assert_eq!(first.get("/").unwrap().status, 200);
    server.stop();
}

pub fn the_status_page_shows_what_each_worker_did() {
    let folder = Folder::new();
    folder.file("file", &[b'x'; 10_000]);
    let server = Server::start(folder, &["--workers", "3"]);
    let mut done = std::collections::BTreeMap::<u32, u64>::new();
    for _ in 0..30 {
        *done.entry(server.get("/file").worker()).or_default() += 1;
    }
    // Each worker has a copy of the page, and another one may have an older copy.
    let mut page = String::new();
    poll_until("the page has all of it", || {
        page = String::from_utf8(server.get("/.status").body).unwrap();
        row(&page, "total")[2] >= 30
    });
    let [open, connections, requests, bytes] = row(&page, "total");
    assert!(open <= 2 && connections >= 30 && requests >= 30 && bytes >= 30 * 10_000, "{page}");
    for (worker, requests) in done {
        assert!(row(&page, &worker.to_string())[2] >= requests, "{page}");
    }
    assert!(page.contains(&format!("process {}\n", server.child.id())), "{page}");
    server.stop();
}
