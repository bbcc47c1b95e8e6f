//! Sending and receiving when there is nothing to receive or no room, until a deadline, and from many processes at once.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::support::{self, Trial, asleep_in, exit_code, handle_signal, handled, status_flags, with_interval_timer};
use ipc::{Child, DatagramFlags, DatagramPair, DatagramSocket, Error, datagram_pair, datagram_pair_with, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_full_queue_is_would_block_or_timed_out,
        a_blocked_sender_goes_on_when_the_peer_receives,
        room_that_poll_does_not_report_is_found_when_the_time_is_up,
        deadlines_hold_under_signals,
        a_message_that_waited_ends_the_wait,
        nonblock_is_not_touched_and_respected,
        each_message_goes_to_one_of_many_processes,
        each_message_goes_to_one_of_many_threads,
    ]
}

fn every_pair() -> [DatagramPair; 2] {
    [datagram_pair().unwrap(), datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()]
}

fn assert_nothing_there(socket: &DatagramSocket) {
    let result = socket.try_recv(&mut [0; 16]);
    assert!(matches!(result, Err(Error::WouldBlock)), "{result:?}");
}

fn a_full_queue_is_would_block_or_timed_out() {
    for pair in every_pair() {
        let mut count: u32 = 0;
        let last = loop {
            match pair.parent.try_send(&count.to_ne_bytes()) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(last, Error::WouldBlock) && count > 0, "{last:?} after {count}");
        for timeout in [Duration::ZERO, Duration::from_millis(20)] {
            let started = Instant::now();
            let result = pair.parent.send_timeout(b"late", timeout);
            assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
            assert!(started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(5));
        }
        // What was refused was not sent, and nothing of the others is lost.
        for number in 0..count {
            assert_eq!(pair.child.recv_vec().unwrap().expect("a message"), number.to_ne_bytes());
        }
        assert_nothing_there(&pair.child);
    }
}

fn a_blocked_sender_goes_on_when_the_peer_receives() {
    type Send = fn(&DatagramSocket, &[u8]) -> ipc::Result<()>;
    let sends: [Send; 3] = [
        |socket, message| socket.send(message),
        |socket, message| socket.send_vectored(&[IoSlice::new(message)]),
        |socket, message| socket.send_timeout(message, Duration::MAX),
    ];
    handle_signal(libc::SIGUSR1);
    for send in sends {
        for pair in every_pair() {
            let child = fork(pair.child, move |socket| {
                while socket.try_send(b"one of many").is_ok() {}
                send(&socket, b"the last").unwrap();
            })
            .unwrap();
            asleep_through_signals(&child);
            while pair.parent.recv_vec().unwrap().expect("a message") != b"the last" {}
            assert_eq!(exit_code(&child), 0);
        }
    }
}

fn room_that_poll_does_not_report_is_found_when_the_time_is_up() {
    for pair in every_pair() {
        let child = fork(pair.child, |socket| {
            while socket.try_send(b"one of many").is_ok() {}
            socket.send_timeout(b"the last", Duration::from_millis(500))
        })
        .unwrap();
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        // One place, where poll says that there is room when most of the queue is free.
        assert!(pair.parent.recv_vec().unwrap().is_some());
        assert_eq!(exit_code(&child), 0, "the message had a place");
        while pair.parent.recv_vec().unwrap().expect("the last message") != b"the last" {}
    }
}

fn deadlines_hold_under_signals() {
    with_interval_timer(Duration::from_millis(1), || {
        for pair in every_pair() {
            let timeout = Duration::from_millis(50);
            let before = handled();
            let timed = |what: &str, call: &dyn Fn() -> ipc::Result<()>| {
                let started = Instant::now();
                let result = call();
                let took = started.elapsed();
                assert!(matches!(result, Err(Error::TimedOut)), "{what}: {result:?}");
                assert!(took >= timeout && took < support::FAR, "{what}: {took:?}");
            };
            timed("recv_timeout", &|| pair.parent.recv_timeout(&mut [0; 8], timeout).map(drop));
            timed("recv_vec_timeout", &|| pair.parent.recv_vec_timeout(timeout).map(drop));
            while pair.parent.try_send(&[0; 1000]).is_ok() {}
            timed("send_timeout", &|| pair.parent.send_timeout(&[0; 1000], timeout));
            assert!(handled() > before, "signals came");
        }
    });
}

fn a_message_that_waited_ends_the_wait() {
    for timeout in [Duration::from_secs(10), Duration::MAX] {
        let pair = datagram_pair().unwrap();
        handle_signal(libc::SIGUSR1);
        let receiver = fork(pair.child, move |socket| {
            assert_eq!(socket.recv_timeout(&mut [0; 8], timeout).unwrap(), Some(5));
            assert_eq!(socket.recv_vec_timeout(timeout).unwrap().expect("a message"), b"again");
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), Some(0));
            assert_eq!(socket.recv_vec().unwrap().expect("a message"), b"last");
            assert_eq!(socket.peek_len().unwrap(), None);
        })
        .unwrap();
        for message in [&b"hello"[..], b"again", b"", b"last"] {
            asleep_through_signals(&receiver);
            pair.parent.send(message).unwrap();
        }
        asleep_through_signals(&receiver);
        drop(pair.parent);
        assert_eq!(exit_code(&receiver), 0);
    }
}

/// Blocks until the process sleeps, sends it a signal that it handles, and waits until it sleeps again; and again. It has
/// handled a signal by the time that it sleeps.
#[track_caller]
fn asleep_through_signals(child: &Child) {
    let calls = [libc::SYS_ppoll, libc::SYS_recvmsg, libc::SYS_sendto, libc::SYS_sendmsg];
    asleep_in(child.id(), &calls);
    for _ in 0..3 {
        child.signal(libc::SIGUSR1).unwrap();
        asleep_in(child.id(), &calls);
    }
}

fn nonblock_is_not_touched_and_respected() {
    let pair = datagram_pair().unwrap();
    let blocking = status_flags(&pair.parent);
    assert_eq!(blocking & libc::O_NONBLOCK, 0);
    let use_all = |socket: &DatagramSocket| {
        let _ = socket.try_recv(&mut [0; 8]);
        let _ = socket.recv_timeout(&mut [0; 8], Duration::from_millis(1));
        let _ = socket.recv_vec_timeout(Duration::from_millis(1));
        while socket.try_send(b"x").is_ok() {}
        let _ = socket.send_timeout(b"x", Duration::from_millis(1));
    };
    use_all(&pair.parent);
    assert_eq!(status_flags(&pair.parent), blocking);

    // SAFETY: an open descriptor and a flag.
    let result = unsafe { libc::fcntl(pair.child.as_raw_fd(), libc::F_SETFL, blocking | libc::O_NONBLOCK) };
    assert_eq!(result, 0);
    while pair.child.try_recv(&mut [0; 8]).is_ok() {}
    assert!(matches!(pair.child.recv(&mut [0; 8]), Err(Error::WouldBlock)), "as an event loop wants it");
    assert!(matches!(pair.child.recv_vec(), Err(Error::WouldBlock)));
    assert!(matches!(pair.child.peek_len(), Err(Error::WouldBlock)));
    let timeout = Duration::from_millis(20);
    let started = Instant::now();
    assert!(matches!(pair.child.recv_timeout(&mut [0; 8], timeout), Err(Error::TimedOut)));
    assert!(started.elapsed() >= timeout, "a deadline is waited for all the same");
    use_all(&pair.child);
    assert!(matches!(pair.child.send(b"x"), Err(Error::WouldBlock)));
    assert_eq!(status_flags(&pair.child), blocking | libc::O_NONBLOCK);
}

fn each_message_goes_to_one_of_many_processes() {
    const MESSAGES: u32 = 2000;
    let (requests, results) = (datagram_pair().unwrap(), datagram_pair().unwrap());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let ends = (requests.child.try_clone().unwrap(), results.child.try_clone().unwrap());
            fork(ends, |(requests, results)| {
                let mut buf = [0; 3000];
                while let Some(len) = requests.recv_timeout(&mut buf, Duration::from_secs(10)).unwrap() {
                    let number = u32::from_ne_bytes(buf[..4].try_into().unwrap());
                    assert!(len == 4 + number as usize % 2990 && buf[4..len].iter().all(|byte| *byte == number as u8));
                    results.send(&number.to_ne_bytes()).unwrap();
                }
            })
            .unwrap()
        })
        .collect();
    drop((requests.child, results.child));
    let sender = fork(requests.parent, |requests| {
        for number in 0..MESSAGES {
            let rest = vec![number as u8; number as usize % 2990];
            requests.send_vectored(&[IoSlice::new(&number.to_ne_bytes()), IoSlice::new(&rest)]).unwrap();
        }
    })
    .unwrap();
    let mut seen = Vec::new();
    while let Some(result) = results.parent.recv_vec().unwrap() {
        seen.push(u32::from_ne_bytes(result.try_into().expect("a number")));
    }
    seen.sort();
    assert!(seen.iter().copied().eq(0..MESSAGES), "{} came", seen.len());
    assert_eq!(exit_code(&sender), 0);
    assert!(workers.iter().all(|worker| exit_code(worker) == 0));
}

fn each_message_goes_to_one_of_many_threads() {
    const MESSAGES: usize = 2000;
    let pair = datagram_pair().unwrap();
    // Forked first: later there are threads.
    let sender = fork(pair.child, |socket| {
        for number in 0..MESSAGES {
            let rest = vec![number as u8; number % 5000];
            socket.send_vectored(&[IoSlice::new(&number.to_ne_bytes()), IoSlice::new(&rest)]).unwrap();
        }
    })
    .unwrap();
    let receivers = [pair.parent.try_clone().unwrap(), pair.parent];
    let threads = receivers.map(|socket| {
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut buf = [0; 1000];
            loop {
                // Most of them do not fit, so that both use what the overflow goes to.
                let message = match socket.recv(&mut buf) {
                    Ok(Some(len)) => buf[..len].to_vec(),
                    Err(Error::BufferTooSmall { message }) => message,
                    Ok(None) => return seen,
                    Err(error) => panic!("{error}"),
                };
                let number = usize::from_ne_bytes(message[..size_of::<usize>()].try_into().unwrap());
                let rest = &message[size_of::<usize>()..];
                assert!(rest.len() == number % 5000 && rest.iter().all(|byte| *byte == number as u8));
                seen.push(number);
            }
        })
    });
    let mut seen: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    seen.sort();
    assert!(seen.iter().copied().eq(0..MESSAGES), "{} came", seen.len());
    assert_eq!(exit_code(&sender), 0);
}
