//! A dead peer is seen (P5): receiving from a peer that is gone ends, and an empty message is not mistaken for that.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::receivers::{LONG, RECEIVERS, Receiver, with_buffer};
use crate::support::{self, Gate, Sigpipe, Trial, asleep_in, exit_code, sigpipe};
use ipc::{
    Child, DatagramFlags, DatagramPair, DatagramSocket, Error, Ready, Watch, datagram_pair, datagram_pair_with, fork,
    wait_any,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_that_is_gone_is_none_again_and_again,
        what_a_peer_sent_before_it_left_arrives_first,
        an_empty_message_is_not_the_end,
        an_empty_message_of_a_foreign_sender_is_not_the_end,
        an_empty_message_from_before_the_conversion_is_not_the_end,
        a_receiver_that_waits_sees_its_peer_being_killed,
        a_sender_that_waits_sees_its_peer_being_killed,
        sending_to_a_dead_peer_is_closed_and_no_signal,
        the_peer_is_there_until_all_of_its_holders_are_gone,
        shutting_down_writing_ends_the_peers_receiving,
        shutting_down_reading_ends_the_peers_sending,
        shutting_down_both_ends_everything,
        a_dead_peer_is_ready,
        a_connectionless_peer_that_is_gone_is_seen_by_senders_only,
        a_connectionless_sender_that_waits_sees_its_peer_being_killed,
        a_connectionless_empty_message_is_a_message,
        a_connectionless_socket_that_was_shut_down_is_at_its_end,
        a_stranger_cannot_send_to_a_connectionless_socket,
        a_connectionless_sender_is_named_when_asked_for,
    ]
}

/// Every way to receive says that the peer is gone, each more than once.
#[track_caller]
fn assert_gone(socket: &DatagramSocket) {
    for _ in 0..3 {
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), None);
        assert_eq!(socket.recv(&mut []).unwrap(), None, "with no room at all");
        assert_eq!(socket.try_recv(&mut [0; 8]).unwrap(), None);
        assert_eq!(socket.recv_timeout(&mut [0; 8], LONG).unwrap(), None);
        assert_eq!(socket.recv_timeout(&mut [0; 8], Duration::ZERO).unwrap(), None);
        assert_eq!(socket.recv_vec().unwrap(), None);
        assert_eq!(socket.try_recv_vec().unwrap(), None);
        assert_eq!(socket.recv_vec_timeout(LONG).unwrap(), None);
        assert_eq!(socket.peek_len().unwrap(), None);
    }
}

/// Every way to send says that nobody is left to receive.
#[track_caller]
fn assert_closed(socket: &DatagramSocket) {
    for _ in 0..2 {
        for result in [
            socket.send(b"x"),
            socket.send(b""),
            socket.try_send(b"x"),
            socket.send_timeout(b"x", LONG),
            socket.send_vectored(&[]),
        ] {
            assert!(matches!(result, Err(Error::Closed)), "{result:?}");
        }
    }
}

/// A process that has the end and does nothing with it.
fn holder(socket: DatagramSocket) -> Child {
    let gate = Gate::new();
    let child = fork(socket, |_socket| {
        gate.open();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    child
}

fn kill(child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_peer_that_is_gone_is_none_again_and_again() {
    // Closed here, closed by its process, gone with its process, killed.
    let pair = datagram_pair().unwrap();
    drop(pair.child);
    assert_gone(&pair.parent);
    for leave in [|socket: DatagramSocket| socket.close().unwrap(), std::mem::forget] {
        let pair = datagram_pair().unwrap();
        let child = fork(pair.child, leave).unwrap();
        assert_gone(&pair.parent);
        assert_eq!(exit_code(&child), 0);
    }
    let pair = datagram_pair().unwrap();
    kill(holder(pair.child));
    assert_gone(&pair.parent);
    assert_closed(&pair.parent);
    assert_gone(&pair.parent);
}

fn what_a_peer_sent_before_it_left_arrives_first() {
    for (call, recv) in RECEIVERS {
        let pair = datagram_pair().unwrap();
        let child = fork(pair.child, |socket| {
            for message in [&b"first"[..], b"", b"third"] {
                socket.send(message).unwrap();
            }
        })
        .unwrap();
        assert_eq!(exit_code(&child), 0);
        assert_closed(&pair.parent);
        for message in [&b"first"[..], b"", b"third"] {
            assert_eq!(pair.parent.peek_len().unwrap(), Some(message.len()), "{call}");
            assert_eq!(recv(&pair.parent).unwrap().as_deref(), Some(message), "{call}");
        }
        assert_gone(&pair.parent);
    }
}

fn an_empty_message_is_not_the_end() {
    for (call, recv) in RECEIVERS {
        let pair = datagram_pair().unwrap();
        let child = fork(pair.child, |socket| {
            socket.send(b"").unwrap();
            socket.send_vectored(&[]).unwrap();
            socket.send(b"x").unwrap();
            socket.try_send(b"").unwrap();
            // And the last one before the end.
            socket.send_timeout(b"", LONG).unwrap();
        })
        .unwrap();
        assert_eq!(exit_code(&child), 0);
        for message in [&b""[..], b"", b"x", b"", b""] {
            assert_eq!(pair.parent.peek_len().unwrap(), Some(message.len()), "{call}");
            assert_eq!(recv(&pair.parent).unwrap().as_deref(), Some(message), "{call}");
        }
        assert_gone(&pair.parent);
    }
}

/// A pair that nobody has set anything on.
fn foreign_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are new and nobody else's.
    unsafe {
        let result = libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr());
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

fn foreign_send(fd: &OwnedFd, message: &[u8]) {
    // SAFETY: the bytes live as long as the call.
    let sent = unsafe { libc::send(fd.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(sent, message.len() as isize, "{}", std::io::Error::last_os_error());
}

fn an_empty_message_of_a_foreign_sender_is_not_the_end() {
    for (call, recv) in RECEIVERS {
        // An end of this crate that is none any more, and one that never was.
        let pair = datagram_pair().unwrap();
        let (ours, foreign) = foreign_pair();
        let ours = DatagramSocket::try_from(ours).unwrap();
        for (ours, foreign) in [(pair.parent, OwnedFd::from(pair.child)), (ours, foreign)] {
            let child = fork(foreign, |foreign| {
                foreign_send(&foreign, b"");
                foreign_send(&foreign, b"x");
                foreign_send(&foreign, b"");
            })
            .unwrap();
            assert_eq!(exit_code(&child), 0);
            for message in [&b""[..], b"x", b""] {
                assert_eq!(ours.peek_len().unwrap(), Some(message.len()), "{call}");
                assert_eq!(recv(&ours).unwrap().as_deref(), Some(message), "{call}");
            }
            assert_gone(&ours);
        }
    }
}

fn an_empty_message_from_before_the_conversion_is_not_the_end() {
    for (call, recv) in RECEIVERS {
        let (ours, foreign) = foreign_pair();
        foreign_send(&foreign, b"");
        foreign_send(&foreign, b"");
        let ours = DatagramSocket::try_from(ours).unwrap();
        drop(foreign);
        for _ in 0..2 {
            assert_eq!(ours.peek_len().unwrap(), Some(0), "{call}");
            assert_eq!(recv(&ours).unwrap().as_deref(), Some(&b""[..]), "{call}");
        }
        assert_gone(&ours);
    }
}

fn a_receiver_that_waits_sees_its_peer_being_killed() {
    let waits = [
        ("recv", (|socket| with_buffer(|buf| socket.recv(buf))) as Receiver),
        ("recv_timeout", |socket| with_buffer(|buf| socket.recv_timeout(buf, LONG))),
        ("recv_timeout for ever", |socket| with_buffer(|buf| socket.recv_timeout(buf, Duration::MAX))),
        ("recv_vec", |socket| socket.recv_vec()),
        ("recv_vec_timeout", |socket| socket.recv_vec_timeout(LONG)),
        ("peek_len", |socket| socket.peek_len().map(|len| len.map(|_| Vec::new()))),
    ];
    for (call, wait) in waits {
        let DatagramPair { parent, child } = datagram_pair().unwrap();
        let holder = holder(child);
        let receiver = fork(parent, |socket| {
            assert_eq!(wait(&socket).unwrap(), None, "{call}");
            assert_gone(&socket);
        })
        .unwrap();
        asleep_in(receiver.id(), &[libc::SYS_recvmsg, libc::SYS_ppoll]);
        kill(holder);
        assert_eq!(exit_code(&receiver), 0, "{call}");
    }
}

fn a_sender_that_waits_sees_its_peer_being_killed() {
    let waits = [
        ("send", (|socket| socket.send(b"x")) as fn(&DatagramSocket) -> ipc::Result<()>),
        ("send_vectored", |socket| socket.send_vectored(&[])),
        ("send_timeout", |socket| socket.send_timeout(b"x", LONG)),
        ("send_timeout for ever", |socket| socket.send_timeout(b"x", Duration::MAX)),
    ];
    for (call, wait) in waits {
        let DatagramPair { parent, child } = datagram_pair().unwrap();
        let holder = holder(child);
        let sender = fork(parent, |socket| {
            while socket.try_send(b"x").is_ok() {}
            let result = wait(&socket);
            assert!(matches!(result, Err(Error::Closed)), "{call}: {result:?}");
            assert_closed(&socket);
        })
        .unwrap();
        asleep_in(sender.id(), &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_ppoll]);
        kill(holder);
        assert_eq!(exit_code(&sender), 0, "{call}");
    }
}

fn sending_to_a_dead_peer_is_closed_and_no_signal() {
    sigpipe(Sigpipe::Default);
    for flags in [DatagramFlags::empty(), DatagramFlags::CONNECTIONLESS] {
        let pair = datagram_pair_with(flags).unwrap();
        drop(pair.child);
        assert_closed(&pair.parent);
    }
}

fn the_peer_is_there_until_all_of_its_holders_are_gone() {
    let pair = datagram_pair().unwrap();
    let clone = pair.child.try_clone().unwrap();
    let holders = [holder(pair.child.try_clone().unwrap()), holder(pair.child)];
    for holder in holders {
        let nothing = pair.parent.try_recv(&mut [0; 8]);
        assert!(matches!(nothing, Err(Error::WouldBlock)), "{nothing:?}");
        kill(holder);
    }
    clone.send(b"still here").unwrap();
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"still here");
    pair.parent.send(b"and heard").unwrap();
    assert_eq!(clone.recv_vec().unwrap().expect("a message"), b"and heard");
    drop(clone);
    assert_gone(&pair.parent);
}

fn shutting_down_writing_ends_the_peers_receiving() {
    let DatagramPair { parent, child } = datagram_pair().unwrap();
    let waiting = fork(parent.try_clone().unwrap(), |socket| {
        assert_eq!(socket.recv_vec().unwrap().expect("a message"), b"the last");
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), None);
    })
    .unwrap();
    asleep_in(waiting.id(), &[libc::SYS_recvmsg]);
    child.send(b"the last").unwrap();
    asleep_in(waiting.id(), &[libc::SYS_recvmsg]);
    child.shutdown(Shutdown::Write).unwrap();
    assert_eq!(exit_code(&waiting), 0);
    assert_gone(&parent);
    assert_closed(&child);
    // The other direction goes on.
    parent.send(b"answer").unwrap();
    assert_eq!(child.recv_vec().unwrap().expect("a message"), b"answer");
    drop(parent);
    assert_gone(&child);
}

fn shutting_down_reading_ends_the_peers_sending() {
    let pair = datagram_pair().unwrap();
    pair.parent.send(b"before").unwrap();
    pair.child.shutdown(Shutdown::Read).unwrap();
    assert_closed(&pair.parent);
    assert_eq!(pair.child.recv_vec().unwrap().expect("what was sent before"), b"before");
    assert_gone(&pair.child);
    pair.child.send(b"other way").unwrap();
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"other way");
}

fn shutting_down_both_ends_everything() {
    let pair = datagram_pair().unwrap();
    pair.child.shutdown(Shutdown::Both).unwrap();
    for socket in [&pair.parent, &pair.child] {
        assert_gone(socket);
        assert_closed(socket);
    }
    drop(pair.child);
    assert_gone(&pair.parent);
    // Twice is no error; nor is it with the peer gone, where the kernel may say so.
    pair.parent.shutdown(Shutdown::Both).unwrap();
}

fn a_dead_peer_is_ready() {
    let pair = datagram_pair().unwrap();
    let holder = holder(pair.child);
    let mut on = [Watch::readable(&pair.parent), Watch::readable(&holder)];
    assert_eq!(wait_any(&mut on, Some(Duration::ZERO)).unwrap(), 0);
    holder.kill().unwrap();
    assert!(wait_any(&mut on[..1], Some(LONG)).unwrap() == 1);
    assert_eq!(on[0].ready(), Ready::READ | Ready::HANGUP);
    holder.wait().unwrap();
    assert_gone(&pair.parent);
}

fn connectionless() -> DatagramPair {
    datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()
}

fn a_connectionless_peer_that_is_gone_is_seen_by_senders_only() {
    let pair = connectionless();
    pair.child.send(b"last words").unwrap();
    pair.parent.send(b"never read").unwrap();
    kill(holder(pair.child));
    assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"last words");
    // What this kind gives up: nobody says that the peer is gone.
    let waited = pair.parent.recv_timeout(&mut [0; 8], Duration::from_millis(20));
    assert!(matches!(waited, Err(Error::TimedOut)), "{waited:?}");
    assert!(matches!(pair.parent.try_recv_vec(), Err(Error::WouldBlock)));
    assert_eq!(wait_any(&mut [Watch::readable(&pair.parent)], Some(Duration::ZERO)).unwrap(), 0);
    assert_closed(&pair.parent);
    assert!(matches!(pair.parent.try_recv_vec(), Err(Error::WouldBlock)));
}

fn a_connectionless_sender_that_waits_sees_its_peer_being_killed() {
    for timeout in [None, Some(LONG)] {
        let DatagramPair { parent, child } = connectionless();
        let holder = holder(child);
        let sender = fork(parent, |socket| {
            while socket.try_send(b"x").is_ok() {}
            let result = match timeout {
                None => socket.send(b"x"),
                Some(timeout) => socket.send_timeout(b"x", timeout),
            };
            assert!(matches!(result, Err(Error::Closed)), "{result:?}");
            assert_closed(&socket);
        })
        .unwrap();
        asleep_in(sender.id(), &[libc::SYS_sendto, libc::SYS_ppoll]);
        kill(holder);
        assert_eq!(exit_code(&sender), 0);
    }
}

fn a_connectionless_empty_message_is_a_message() {
    for (call, recv) in RECEIVERS {
        let pair = connectionless();
        pair.child.send(b"").unwrap();
        pair.child.send(b"x").unwrap();
        pair.child.send(b"").unwrap();
        drop(pair.child);
        for message in [&b""[..], b"x", b""] {
            assert_eq!(pair.parent.peek_len().unwrap(), Some(message.len()), "{call}");
            assert_eq!(recv(&pair.parent).unwrap().as_deref(), Some(message), "{call}");
        }
        assert!(matches!(pair.parent.try_recv(&mut [0; 8]), Err(Error::WouldBlock)), "{call}");
    }
}

fn a_connectionless_socket_that_was_shut_down_is_at_its_end() {
    for how in [Shutdown::Read, Shutdown::Both] {
        let pair = connectionless();
        pair.child.send(b"").unwrap();
        pair.child.send(b"before").unwrap();
        pair.parent.try_clone().unwrap().shutdown(how).unwrap();
        for message in [&b""[..], b"before"] {
            assert_eq!(pair.parent.try_recv_vec().unwrap().as_deref(), Some(message));
        }
        // For every call alike, and none waits for its time to be up.
        assert_gone(&pair.parent);
        assert!(pair.parent.try_recv_with(&mut Vec::new()).unwrap().is_none());
        assert_closed(&pair.child);
        // Also where somebody has set O_NONBLOCK, and whether a call looks again or not.
        rustix::fs::fcntl_setfl(&pair.parent, rustix::fs::OFlags::NONBLOCK).unwrap();
        for spin in [Duration::ZERO, Duration::from_micros(20)] {
            let mut socket = pair.parent.try_clone().unwrap();
            socket.set_spin(spin);
            assert_gone(&socket);
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), None);
        }
        // A receiver that waits is told too.
        let pair = connectionless();
        let child = fork(pair.parent.try_clone().unwrap(), |socket| {
            assert_eq!(socket.recv_timeout(&mut [0; 8], Duration::MAX).unwrap(), None);
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        pair.parent.shutdown(how).unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

/// The name that the kernel gave the socket, in the form of an address.
fn name(socket: &DatagramSocket) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: zeroed bytes are a valid address, and the length says how much room there is.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        let mut len = size_of_val(&address) as libc::socklen_t;
        assert_eq!(libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut len), 0);
        (address, len)
    }
}

fn a_stranger_cannot_send_to_a_connectionless_socket() {
    let pair = connectionless();
    pair.parent.send(b"of the family").unwrap();
    let descriptor = OwnedFd::from(pair.parent);
    let parent = DatagramSocket::try_from(descriptor).unwrap();
    drop(pair.child);
    assert_closed(&parent);
    // Without a name nobody can say to whom.
    let (address, len) = name(&parent);
    assert_eq!((address.sun_family as i32, len), (libc::AF_UNIX, 2));

    // One that names its senders has a name itself, and then says who it was.
    let pair = connectionless();
    pair.parent.set_passcred(true).unwrap();
    pair.parent.send(b"of the family").unwrap();
    let (address, len) = name(&pair.parent);
    assert!(len > 2, "an abstract name");
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let send = || {
        // SAFETY: three bytes, and an address of that length.
        let sent = unsafe {
            let address = (&raw const address).cast();
            libc::sendto(stranger.as_raw_fd(), b"evil".as_ptr().cast(), 4, libc::MSG_NOSIGNAL, address, len)
        };
        (sent, std::io::Error::last_os_error().raw_os_error())
    };
    assert_eq!(send(), (-1, Some(libc::EPERM)), "while it has a peer");
    drop(pair.child);
    assert_closed(&pair.parent);
    let child = fork((), |()| assert_eq!(send().0, 4)).unwrap();
    assert_eq!(exit_code(&child), 0);
    let received = pair.parent.recv_with(&mut Vec::new()).unwrap().expect("a message");
    assert_eq!(received.sender().map(|sender| sender.pid), Some(child.id()));
}

fn a_connectionless_sender_is_named_when_asked_for() {
    let pair = connectionless();
    let mut message = Vec::new();
    pair.child.send(b"too early").unwrap();
    pair.parent.set_passcred(true).unwrap();
    assert_eq!(pair.parent.recv_with(&mut message).unwrap().expect("a message").sender(), None);
    for text in [&b"in time"[..], b""] {
        pair.child.send(text).unwrap();
        let received = pair.parent.recv_with(&mut message).unwrap().expect("a message");
        assert_eq!(message, text);
        assert_eq!(received.sender().map(|sender| sender.pid), Some(std::process::id()));
    }
    pair.parent.set_passcred(false).unwrap();
    pair.child.send(b"").unwrap();
    assert_eq!(pair.parent.recv_with(&mut message).unwrap().expect("a message").sender(), None);
    assert!(message.is_empty());
    // Nothing but a message with ends needs more room than there is.
    pair.child.send_with(b"", [std::io::stdin().as_fd(); 253]).unwrap();
    assert_eq!(pair.parent.recv_with(&mut message).unwrap().expect("a message").len(), 253);
}
