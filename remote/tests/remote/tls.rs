//! Channels through TLS, over the code of the example: peers that say something else, stall, leave without a word, or are others.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ipc::{Child, Error, Receiver, Sender, TcpLink, TcpOptions, fork};

use crate::secure::{Identity, accept, connect, identity};
use crate::support::{self, Trial, assert_times_out, exit_code, tcp_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_that_speaks_no_tls_is_refused,
        a_peer_that_stalls_in_the_handshake_keeps_nobody_longer_than_the_deadline,
        a_connection_that_ends_without_close_notify_is_a_reset,
        a_worker_with_a_certificate_that_is_not_known_is_refused,
        a_master_with_a_certificate_that_is_not_known_is_refused,
    ]
}

/// The shortest that is allowed.
const SHORT: Duration = Duration::from_secs(3);

fn options() -> TcpOptions {
    TcpOptions::new().deadline(SHORT)
}

/// What the channel's own errors are made into by the example, back again.
fn told(link: Result<TcpLink, Box<dyn std::error::Error>>) -> ipc::Result<TcpLink> {
    link.map_err(|error| *error.downcast::<Error>().expect("an error of the channel"))
}

fn accepts(socket: TcpStream) -> ipc::Result<TcpLink> {
    let worker_is = identity("worker").unwrap().certificate;
    told(accept(&options(), socket, identity("master").unwrap(), &worker_is))
}

#[track_caller]
fn assert_refused(link: ipc::Result<TcpLink>, why: &str) {
    match link {
        Err(Error::System { source, .. }) => assert!(source.to_string().contains(why), "{source}"),
        other => panic!("{other:?} instead of {why}"),
    }
}

fn a_peer_that_speaks_no_tls_is_refused() {
    // It says no more until it is answered.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], b"\xffipc\r\n\x1a\0\x01\0\0\0\0\0\0\0"] {
        let (here, mut there) = tcp_pair();
        there.write_all(bytes).unwrap();
        assert_refused(accepts(here), "corrupt message");
    }
    // A record that is well formed, and no hello.
    let (here, mut there) = tcp_pair();
    there.write_all(b"\x17\x03\x03\x00\x04abcd").unwrap();
    assert_refused(accepts(here), "unexpected message");
    let (here, there) = tcp_pair();
    drop(there);
    let left = accepts(here);
    assert!(matches!(left, Err(Error::Reset | Error::Closed)), "{left:?}");
}

fn a_peer_that_stalls_in_the_handshake_keeps_nobody_longer_than_the_deadline() {
    // Nothing; the head of a record; a record that is said to be longer than what comes.
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let (here, mut there) = tcp_pair();
        there.write_all(bytes).unwrap();
        assert_times_out("a part of a handshake", SHORT, |_| accepts(here));
    }
}

/// A worker with that certificate, for which its master's is `master_is`, and what it does with its link.
fn worker(
    address: SocketAddr,
    own: Identity,
    master_is: &Identity,
    work: impl FnOnce(ipc::Result<TcpLink>) + 'static,
) -> Child {
    let master_is = master_is.certificate.clone();
    fork((), move |()| work(told(connect(&options(), address, own, &master_is)))).unwrap()
}

fn a_connection_that_ends_without_close_notify_is_a_reset() {
    let (master, own) = (identity("master").unwrap(), identity("worker").unwrap());
    let worker_is = own.certificate.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = worker(listener.local_addr().unwrap(), own, &master, |link| {
        let link = link.unwrap();
        let results = Sender::new(link.writer);
        results.send(7_u32).unwrap();
        results.flush().unwrap();
        let _ = Receiver::<u32, _>::new(link.reader).recv(); // until it is killed
    });
    let link = told(accept(&options(), listener.accept().unwrap().0, master, &worker_is)).unwrap();
    let results = Receiver::<u32, _>::new(link.reader);
    assert_eq!(results.recv().unwrap(), Some(7));
    child.kill().unwrap();
    child.wait().unwrap();
    // Anybody between the two could have ended the connection.
    let cut = results.recv();
    assert!(matches!(cut, Err(Error::Reset)), "{cut:?}");
}

fn a_worker_with_a_certificate_that_is_not_known_is_refused() {
    let (master, stranger) = (identity("master").unwrap(), identity("worker").unwrap());
    let worker_is = identity("worker").unwrap().certificate;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = worker(listener.local_addr().unwrap(), stranger, &master, |link| assert!(link.is_err()));
    let refused = told(accept(&options(), listener.accept().unwrap().0, master, &worker_is));
    assert_refused(refused, "invalid peer certificate");
    assert_eq!(exit_code(&child), 0);
}

fn a_master_with_a_certificate_that_is_not_known_is_refused() {
    let (stranger, own) = (identity("master").unwrap(), identity("worker").unwrap());
    let worker_is = own.certificate.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master = identity("master").unwrap();
    let child = worker(listener.local_addr().unwrap(), own, &master, |link| {
        assert_refused(link, "invalid peer certificate");
    });
    assert!(accept(&options(), listener.accept().unwrap().0, stranger, &worker_is).is_err());
    assert_eq!(exit_code(&child), 0);
}
