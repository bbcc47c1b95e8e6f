//! Bytes both ways, and time: deadlines, signals, calls that do not wait, and readiness.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::streams::{NOW, SHORT, fill};
use crate::support::{self, Trial, asleep_in, exit_code, handle_signal, handled, status_flags, with_interval_timer};
use ipc::{Error, StreamSocket, Watch, fork, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        reading_has_deadlines,
        writing_has_deadlines,
        deadlines_hold_under_signals,
        a_blocked_call_goes_on_after_signals,
        waiting_for_ever_ends_when_something_comes,
        nothing_waits_when_told_not_to,
        readiness_says_what_a_call_would_do,
        o_nonblock_is_never_touched,
    ]
}

fn reading_has_deadlines() {
    let pair = stream_pair().unwrap();
    let mut buf = [0; 9];
    for timeout in [NOW, Duration::from_nanos(1), SHORT] {
        let start = Instant::now();
        assert!(matches!(pair.parent.read_timeout(&mut buf, timeout), Err(Error::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < timeout + support::FAR);
    }
    pair.child.try_write(b"here").unwrap();
    assert_eq!(pair.parent.read_timeout(&mut buf, NOW).unwrap(), 4, "what is there is read, however late it is");
}

fn writing_has_deadlines() {
    let pair = stream_pair().unwrap();
    fill(&pair.parent);
    for timeout in [NOW, Duration::from_nanos(1), SHORT] {
        let start = Instant::now();
        assert!(matches!(pair.parent.write_timeout(b"x", timeout), Err(Error::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < timeout + support::FAR);
    }
    while pair.child.try_read(&mut [0; 4096]).is_ok() {}
    assert_eq!(pair.parent.write_timeout(b"room", NOW).unwrap(), 4);
    let much = vec![0; 8 << 20];
    let went = pair.parent.write_timeout(&much, SHORT).unwrap();
    assert!(went > 0 && went < much.len(), "it returns at the first progress: {went}");
}

fn deadlines_hold_under_signals() {
    let pair = stream_pair().unwrap();
    fill(&pair.parent);
    let limit = Duration::from_millis(100);
    with_interval_timer(Duration::from_millis(1), || {
        for write in [false, true] {
            let (start, signals) = (Instant::now(), handled());
            let result = match write {
                true => pair.parent.write_timeout(b"x", limit),
                false => pair.parent.read_timeout(&mut [0], limit),
            };
            assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
            assert!(start.elapsed() >= limit, "not early");
            assert!(start.elapsed() < limit + support::FAR, "nor late: {:?}", start.elapsed());
            assert!(handled() > signals + 5);
        }
    });
}

fn a_blocked_call_goes_on_after_signals() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |mut socket| {
        handle_signal(libc::SIGUSR1);
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        byte[0]
    })
    .unwrap();
    for _ in 0..20 {
        asleep_in(child.id(), &[libc::SYS_recvfrom]);
        child.signal(libc::SIGUSR1).unwrap();
    }
    (&pair.parent).write_all(&[7]).unwrap();
    assert_eq!(exit_code(&child), 7);
}

fn waiting_for_ever_ends_when_something_comes() {
    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        assert_eq!(socket.read_timeout(&mut [0; 9], Duration::MAX).unwrap(), 4);
        fill(&socket);
        socket.try_clone().unwrap().write_timeout(b"x", Duration::MAX).unwrap();
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll, libc::SYS_recvfrom]);
    (&pair.parent).write_all(b"here").unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll, libc::SYS_sendto]);
    let mut rest = Vec::new();
    (&pair.parent).read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'x'));
    assert_eq!(exit_code(&child), 0);
}

fn nothing_waits_when_told_not_to() {
    let pair = stream_pair().unwrap();
    assert!(matches!(pair.parent.try_read(&mut [0]), Err(Error::WouldBlock)));
    let written = fill(&pair.parent);
    assert!(written >= 4096);
    let mut read = 0;
    let mut buf = [0; 10_000];
    loop {
        match pair.child.try_read(&mut buf) {
            Ok(more) => read += more,
            Err(Error::WouldBlock) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(read, written);
    assert!(pair.parent.try_write(b"x").is_ok());
}

fn readiness_says_what_a_call_would_do() {
    use ipc::Ready;
    let pair = stream_pair().unwrap();
    let look = |socket: &StreamSocket| {
        let mut on = [Watch::readable(socket), Watch::writable(socket)];
        wait_any(&mut on, Some(NOW)).unwrap();
        (on[0].ready().contains(Ready::READ), on[1].ready().contains(Ready::WRITE))
    };
    assert_eq!(look(&pair.parent), (false, true));
    fill(&pair.parent);
    (&pair.child).write_all(b"x").unwrap();
    assert_eq!(look(&pair.parent), (true, false));
    pair.parent.try_read(&mut [0]).unwrap();
    assert_eq!(look(&pair.parent), (false, false));
    drop(pair.child);
    assert_eq!(look(&pair.parent), (true, true), "neither call would wait");
}

fn o_nonblock_is_never_touched() {
    let pair = stream_pair().unwrap();
    let before = status_flags(&pair.parent);
    assert_eq!(before & libc::O_NONBLOCK, 0);
    fill(&pair.parent);
    let _ = pair.parent.try_read(&mut [0]);
    let _ = pair.parent.write_timeout(b"x", SHORT);
    let _ = pair.parent.read_timeout(&mut [0], SHORT);
    assert_eq!(status_flags(&pair.parent), before);

    // One that somebody else set: a plain call says so, and a deadline waits all the same.
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let socket = StreamSocket::from(one);
    assert_eq!((&socket).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    assert!(matches!(socket.read_timeout(&mut [0], SHORT), Err(Error::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    drop(other);
}
