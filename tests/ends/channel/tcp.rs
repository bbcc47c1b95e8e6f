//! Channels to another machine: hellos, limits, and peers that leave, stall, lie or vanish.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, Machine, Trial, asleep_in, assert_timed_out, assert_times_out, exit_code, poll_until, tcp_pair,
    with_interval_timer,
};
use ipc::{Error, Link, PipeReader, Receiver, Sender, TcpLink, TcpOptions, TcpReader, TcpWriter, fork, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        one_worker_runs_on_another_machine,
        each_side_says_what_it_takes,
        a_receiver_takes_as_much_as_was_agreed,
        a_receivers_own_limit_holds_too,
        a_value_with_ends_does_not_travel,
        a_peer_that_speaks_something_else_is_refused_at_once,
        a_hello_that_is_cut_says_so,
        two_stamps_refuse_each_other,
        a_peer_without_a_hello_keeps_nobody_longer_than_the_deadline,
        a_deadline_that_the_kernel_cannot_keep_is_refused,
        the_kernel_is_told_when_to_ask_an_idle_peer,
        a_stream_that_does_not_wait_waits_as_a_connection,
        nobody_at_the_address_is_an_error,
        an_address_that_does_not_answer_is_late,
        an_address_that_does_not_answer_leaves_time_for_the_next,
        a_connection_to_itself_is_nobody,
        values_arrive_however_they_are_cut,
        a_length_that_is_a_lie_takes_no_memory,
        a_receiver_looks_again_before_it_sleeps,
        a_peer_that_trickles_keeps_no_deadline_waiting,
        a_full_connection_keeps_no_deadline_waiting,
        what_a_killed_worker_sent_arrives_and_then_eof,
        a_worker_that_is_gone_is_closed,
        a_worker_that_left_values_unread_is_a_reset,
        what_a_worker_sent_arrives_although_it_left_values_unread,
        closing_the_sender_is_eof_while_results_come_back,
        a_copy_in_a_child_tells_the_peer_nothing,
        a_connection_can_be_waited_for,
        both_ways_at_once_fill_no_dead_end,
        a_stream_around_the_connection_carries_the_same,
        a_stream_that_ends_without_its_last_word_is_a_reset,
        a_worker_that_is_stopped_is_not_gone within 90,
        a_machine_that_vanishes_is_an_error needs [OwnNetwork, IP] within 90,
        a_machine_without_a_way_to_it_is_an_error needs [OwnNetwork, IP] within 90,
        a_machine_that_vanishes_is_an_error_under_signals_too needs [OwnNetwork, IP] within 90,
        what_arrived_before_a_machine_vanished_is_received needs [OwnNetwork, IP] within 90,
    ]
}

/// The shortest that is allowed.
const SHORT: Duration = Duration::from_secs(3);

pub fn short() -> TcpOptions {
    TcpOptions::new().deadline(SHORT)
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A worker that connects, and the master's side of the connection.
fn with_worker(options: &TcpOptions, work: impl FnOnce(TcpLink) + 'static) -> (ipc::Child, TcpLink) {
    let (listener, address) = listen();
    let theirs = options.clone();
    let child = fork((), move |()| work(theirs.connect(address).unwrap())).unwrap();
    let link = options.greet(listener.accept().unwrap().0).unwrap();
    (child, link)
}

/// A hello, as `docs/channel.md` has it.
pub fn hello(longest: u64, stamp: u64) -> Vec<u8> {
    [&b"\xffipc\r\n\x1a\0\x01\0\0\0\0\0\0\0"[..], &longest.to_le_bytes(), &stamp.to_le_bytes()].concat()
}

/// The side that is tested, and a bare stream that has said `bytes`.
fn with_bare(options: &TcpOptions, bytes: &[u8]) -> (ipc::Result<TcpLink>, TcpStream) {
    let (here, mut there) = tcp_pair();
    there.write_all(bytes).unwrap();
    (options.greet(here), there)
}

pub fn greeted(options: &TcpOptions) -> (TcpLink, TcpStream) {
    let (link, mut there) = with_bare(options, &hello(u64::MAX, 0));
    let link = link.unwrap();
    there.read_exact(&mut [0; 32]).unwrap();
    (link, there)
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes(), message].concat()
}

/// Runs over any link.
fn lengths(jobs: Receiver<String, impl Link>, results: Sender<u64, impl Link>) {
    for job in jobs.iter() {
        results.send(job.unwrap().len() as u64).unwrap();
    }
    results.close().unwrap();
}

fn one_worker_runs_on_another_machine() {
    let options = TcpOptions::new().stamp_of::<(String, u64)>();
    let (child, link) = with_worker(&options, |link| lengths(Receiver::new(link.reader), Sender::new(link.writer)));
    let (jobs, results) = (Sender::new(link.writer), Receiver::<u64, _>::new(link.reader));
    for len in (0..1000).chain([5 << 20]) {
        jobs.send("x".repeat(len)).unwrap();
    }
    jobs.close().unwrap();
    let lens: Vec<_> = results.iter().map(Result::unwrap).collect();
    assert!(lens.into_iter().eq((0..1000).chain([5 << 20])));
    assert_eq!(exit_code(&child), 0);
}

fn each_side_says_what_it_takes() {
    let (link, mut there) = with_bare(&TcpOptions::new().max_message(77).stamp(5), &hello(100, 0));
    let mut said = [0; 32];
    there.read_exact(&mut said).unwrap();
    assert_eq!(said[..], hello(77, 5));
    let jobs = Sender::<String, _>::new(link.unwrap().writer);
    let unsent = jobs.send("x".repeat(100)).unwrap_err(); // a byte for the length
    assert!(matches!(unsent.error, Error::TooLong { len: 101, max: 100 }), "{unsent:?}");
    assert_eq!(unsent.value.len(), 100);
    jobs.send("x".repeat(99)).unwrap();
    jobs.close().unwrap();
    let mut rest = Vec::new();
    there.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 4 + 100);
}

fn a_receiver_takes_as_much_as_was_agreed() {
    let options = TcpOptions::new().max_message(100 << 20);
    let (child, link) = with_worker(&options, |link| lengths(Receiver::new(link.reader), Sender::new(link.writer)));
    let (jobs, results) = (Sender::new(link.writer), Receiver::<u64, _>::new(link.reader));
    assert_eq!(results.max_message(), 100 << 20);
    jobs.send("x".repeat(70 << 20)).unwrap(); // more than a receiver takes at first
    jobs.close().unwrap();
    assert_eq!(results.recv().unwrap(), Some(70 << 20));
    assert_eq!(exit_code(&child), 0);
}

fn a_receivers_own_limit_holds_too() {
    let (link, mut there) = greeted(&TcpOptions::new().max_message(100));
    let values = Receiver::<Vec<u8>, _>::new(link.reader);
    for (len, max, next) in [(101, 100, 50), (51, 50, 1000), (101, 100, 1000)] {
        there.write_all(&framed(&vec![9; len])).unwrap();
        there.write_all(&framed(&[1, 7])).unwrap();
        let too_long = values.recv().unwrap_err();
        assert!(matches!(too_long, Error::TooLong { len: is, max: most } if (is, most) == (len, max)), "{too_long:?}");
        assert_eq!(values.recv().unwrap().unwrap(), [7]);
        values.set_max_message(next);
    }
}

fn a_value_with_ends_does_not_travel() {
    let (link, there) = greeted(&TcpOptions::new());
    let (reader, mut writer) = pipe().unwrap();
    let sender = Sender::<(u8, PipeReader), _>::new(link.writer);
    let unsent = sender.send((1, reader)).unwrap_err();
    assert!(matches!(unsent.error, Error::CannotCarry), "{unsent:?}");
    writer.write_all(b"still open").unwrap();
    drop(writer);
    assert_eq!(io::read_to_string(unsent.value.1).unwrap(), "still open");
    sender.close().unwrap();
    assert_eq!(io::read_to_string(there).unwrap(), "", "nothing was sent");
}

fn a_peer_that_speaks_something_else_is_refused_at_once() {
    // It says no more until it is answered.
    for bytes in [&b"GET"[..], b"\xffipc\n\n", &hello(0, 0).iter().map(|byte| byte ^ 1).collect::<Vec<_>>()] {
        let (link, _there) = with_bare(&TcpOptions::new(), bytes);
        assert!(matches!(link, Err(Error::Malformed { message }) if message == bytes));
    }
    for at in 8..16 {
        let mut other = hello(1 << 20, 0);
        other[at] = 9;
        let (link, _there) = with_bare(&TcpOptions::new(), &other);
        assert!(matches!(link, Err(Error::Malformed { message }) if message == other));
    }
}

fn a_hello_that_is_cut_says_so() {
    let whole = hello(1 << 20, 0);
    for len in 0..whole.len() {
        let (here, mut there) = tcp_pair();
        there.write_all(&whole[..len]).unwrap();
        there.shutdown(std::net::Shutdown::Write).unwrap();
        let cut = TcpOptions::new().greet(here).unwrap_err();
        assert!(
            matches!(&cut, Error::Truncated { message, expected: Some(32) } if *message == whole[..len]),
            "{len}: {cut:?}"
        );
    }
}

fn two_stamps_refuse_each_other() {
    let (link, _there) = with_bare(&TcpOptions::new().stamp(1), &hello(1 << 20, 2));
    assert!(matches!(link, Err(Error::WrongKind { .. })));
    for (ours, theirs) in [(0, 2), (2, 0), (2, 2), (0, 0)] {
        let (link, _there) = with_bare(&TcpOptions::new().stamp(ours), &hello(1 << 20, theirs));
        assert!(link.is_ok());
    }
    let (link, _there) = with_bare(&TcpOptions::new().stamp_of::<(u8, String)>(), &hello(1 << 20, 2));
    assert!(matches!(link, Err(Error::WrongKind { .. })));
}

fn a_peer_without_a_hello_keeps_nobody_longer_than_the_deadline() {
    let (silent, _there) = tcp_pair();
    // A byte each second, that is in time for the kernel.
    let (here, mut there) = tcp_pair();
    let (until, leave) = pipe().unwrap();
    let child = fork(until, move |until| {
        for byte in hello(1 << 20, 0) {
            let _ = there.write_all(&[byte]); // it may have left
            if !matches!(until.read_timeout(&mut [0], Duration::from_secs(1)), Err(Error::TimedOut)) {
                return;
            }
        }
    })
    .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| assert_times_out("silence", SHORT, |_| short().greet(silent)));
        assert_times_out("a byte each second", SHORT, |_| short().greet(here));
    });
    drop(leave);
    assert_eq!(exit_code(&child), 0);
}

const DAY: Duration = Duration::from_secs(86_400);

fn a_deadline_that_the_kernel_cannot_keep_is_refused() {
    let longer = DAY + Duration::from_nanos(1);
    for deadline in [Duration::ZERO, Duration::from_millis(2999), longer, Duration::MAX] {
        let (here, _there) = tcp_pair();
        assert!(matches!(TcpOptions::new().deadline(deadline).greet(here), Err(Error::InvalidInput { .. })));
    }
}

/// An option of a TCP connection that is a number, as the kernel has it. `None`: it does not know the option.
fn option(socket: &TcpStream, number: libc::c_int) -> Option<libc::c_int> {
    let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes no more than `len` bytes into an int.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, number, (&raw mut value).cast(), &raw mut len)
    };
    (got == 0).then_some(value)
}

/// Whatever is not set shows only when a machine vanishes, and then takes hours.
fn the_kernel_is_told_when_to_ask_an_idle_peer() {
    /// New in Linux 6.15.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    for (deadline, question, longest_pause) in [(SHORT, 1, 1000), (30 * SHORT, 30, 30_000), (DAY, 28_800, 120_000)] {
        let (here, mut there) = tcp_pair();
        there.write_all(&hello(1 << 20, 0)).unwrap();
        let socket = here.try_clone().unwrap();
        let _link = TcpOptions::new().deadline(deadline).greet(here).unwrap();
        assert!(socket.nodelay().unwrap(), "small values go at once");
        assert!(rustix::net::sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(option(&socket, libc::TCP_KEEPIDLE), Some(question));
        assert_eq!(option(&socket, libc::TCP_KEEPINTVL), Some(question));
        assert_eq!(option(&socket, libc::TCP_KEEPCNT), Some(2));
        assert_eq!(option(&socket, TCP_RTO_MAX_MS).unwrap_or(longest_pause), longest_pause);
        // A call that waits looks at its peer four times in that time.
        for turn in [socket.read_timeout(), socket.write_timeout()] {
            let longer = turn.unwrap().expect("a timeout").checked_sub(deadline / 4).expect("it is not shorter");
            assert!(longer <= Duration::from_millis(20), "the kernel rounds it up to its ticks, by {longer:?}");
        }
    }
}

fn a_stream_that_does_not_wait_waits_as_a_connection() {
    let (here, mut there) = tcp_pair();
    here.set_nonblocking(true).unwrap();
    let child = fork((), move |()| {
        asleep_in(std::os::unix::process::parent_id(), &[libc::SYS_ppoll]);
        there.write_all(&hello(1 << 20, 0)).unwrap();
        asleep_in(std::os::unix::process::parent_id(), &[libc::SYS_recvfrom]);
        there.write_all(&framed(&[7])).unwrap();
    })
    .unwrap();
    let link = short().greet(here).unwrap();
    assert_eq!(Receiver::<u8, _>::new(link.reader).recv().unwrap(), Some(7));
    assert_eq!(exit_code(&child), 0);
}

fn nobody_at_the_address_is_an_error() {
    let (listener, address) = listen();
    drop(listener);
    let refused = TcpOptions::new().connect(address).unwrap_err();
    assert!(
        matches!(&refused, Error::System { call: "connect", source } if source.kind() == ErrorKind::ConnectionRefused)
    );
    assert!(matches!(TcpOptions::new().connect(&[] as &[SocketAddr]), Err(Error::InvalidInput { .. })));
}

/// What a peer says, in two parts, and then EOF.
struct Said {
    bytes: Vec<u8>,
    cut: usize,
    at: usize,
}

impl Read for Said {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let end = if self.at < self.cut { self.cut } else { self.bytes.len() };
        let count = (end - self.at).min(buf.len());
        buf[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Said {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An address where nobody answers: one waits to be accepted, and the kernel passes over whoever comes after it.
fn silence() -> (TcpListener, TcpStream, SocketAddr) {
    let (silent, address) = listen();
    rustix::net::listen(&silent, 0).unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    (silent, waiting, address)
}

fn an_address_that_does_not_answer_is_late() {
    let (_silent, _waiting, address) = silence();
    assert_times_out("silence", SHORT, |_| short().connect(address));
}

fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let (_silent, _waiting, silent_address) = silence();
    let (listener, address) = listen();
    let child = fork((), move |()| {
        let link = short().connect(&[silent_address, address][..]).unwrap();
        Sender::new(link.writer).send(7_u32).unwrap();
    })
    .unwrap();
    let link = short().greet(listener.accept().unwrap().0).unwrap();
    assert_eq!(Receiver::<u32, _>::new(link.reader).recv().unwrap(), Some(7));
    assert_eq!(exit_code(&child), 0);
}

fn a_connection_to_itself_is_nobody() {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let here: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    rustix::net::connect(&socket, &here).unwrap();
    let refused = short().greet(TcpStream::from(socket)).unwrap_err();
    assert!(
        matches!(&refused, Error::System { source, .. } if source.kind() == ErrorKind::ConnectionRefused),
        "{refused}"
    );
}

fn values_arrive_however_they_are_cut() {
    let all = [hello(1 << 20, 0), framed(b"\x03one"), framed(b"\x00"), framed(b"\x05three")].concat();
    let (here, _there) = tcp_pair();
    let receive = |said: Said| {
        let link = TcpOptions::new().greet_over(said, here.try_clone().unwrap(), |_| Ok(()))?;
        let values: Vec<ipc::Result<String>> = Receiver::new(link.reader).iter().collect();
        Ok::<_, Error>(values)
    };
    for cut in 0..=all.len() {
        let values = receive(Said { bytes: all.clone(), cut, at: 0 }).unwrap();
        let values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
        assert_eq!(values, ["one", "", "three"], "cut at {cut}");
    }
    let ends = [32, 40, 45, 55];
    for len in 32..all.len() {
        let values = receive(Said { bytes: all[..len].to_vec(), cut: 0, at: 0 }).unwrap();
        let whole = values.iter().filter(|value| value.is_ok()).count();
        assert_eq!(whole, ends[1..].iter().filter(|end| len >= **end).count(), "{len}");
        let cut = values.iter().any(|value| matches!(value, Err(Error::Truncated { .. })));
        assert_eq!(cut, !ends.contains(&len), "{len}");
    }
}

fn a_length_that_is_a_lie_takes_no_memory() {
    let (link, mut there) = greeted(&TcpOptions::new().max_message(usize::MAX));
    let values = Receiver::<Vec<u8>, _>::new(link.reader);
    values.set_max_message(usize::MAX);
    there.write_all(&[&[0xff; 4][..], &(1_u64 << 62).to_le_bytes(), b"little"].concat()).unwrap();
    drop(there);
    assert!(matches!(values.recv(), Err(Error::Truncated { message, expected: Some(_) }) if message == b"little"));
    assert!(values.recv().unwrap().is_none());
}

fn a_receiver_looks_again_before_it_sleeps() {
    let (link, there) = greeted(&short().spin(FAR));
    let values = Receiver::<u8, _>::new(link.reader);
    let peer = fork(there, |mut there| {
        let receiver = std::os::unix::process::parent_id();
        let before = ticks(receiver);
        poll_until("the receiver is looking", || ticks(receiver) > before + 2);
        there.write_all(&framed(&[7]))
    });
    assert_eq!(values.recv().unwrap(), Some(7));
    assert!(peer.unwrap().wait().unwrap().success());
}

/// How long a process has run, in the kernel's ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn a_peer_that_trickles_keeps_no_deadline_waiting() {
    let (link, mut there) = greeted(&short());
    let values = Receiver::<String, _>::new(link.reader);
    assert_times_out("nothing", Duration::from_millis(30), |timeout| values.recv_timeout(timeout));
    there.write_all(&framed(b"\x03one")[..5]).unwrap();
    assert_times_out("a part", Duration::from_millis(30), |timeout| values.recv_timeout(timeout));
    assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
    there.write_all(b"one").unwrap();
    assert_eq!(values.recv_timeout(FAR).unwrap().unwrap(), "one");
}

fn fill(sender: &Sender<Vec<u8>, TcpWriter>) {
    // The kernel takes some more once it has moved what it had, and looks for room again now and then.
    while sender.send_timeout(vec![0; 100_000], Duration::from_millis(300)).is_ok() {}
}

/// Fills it until a flush waits for all of that time.
fn assert_flush_times_out(sender: &Sender<Vec<u8>, TcpWriter>, timeout: Duration) {
    loop {
        fill(sender);
        let started = Instant::now();
        match sender.flush_timeout(timeout) {
            Ok(()) => {} // there was room after all
            flushed => return assert_timed_out("it is full", timeout, started.elapsed(), flushed),
        }
    }
}

fn a_full_connection_keeps_no_deadline_waiting() {
    let (link, _there) = greeted(&short());
    let sender = Sender::new(link.writer);
    assert_flush_times_out(&sender, Duration::from_millis(30));
    let unsent = sender.try_send(vec![7; 100_000]).unwrap_err();
    assert!(matches!(unsent.error, Error::WouldBlock), "{unsent:?}");
    assert_eq!(unsent.value.len(), 100_000);
}

fn what_a_killed_worker_sent_arrives_and_then_eof() {
    let (child, link) = with_worker(&short(), |link| {
        let results = Sender::new(link.writer);
        results.send(vec![1_u8; 70_000]).unwrap();
        results.send(vec![2; 3]).unwrap();
        results.flush().unwrap();
        // The next one is cut by its death.
        results.send(vec![3; 5]).unwrap();
        let _ = Receiver::<(), _>::new(link.reader).recv();
    });
    let results = Receiver::<Vec<u8>, _>::new(link.reader);
    assert_eq!(results.recv().unwrap().unwrap().len(), 70_000);
    assert_eq!(results.recv().unwrap().unwrap(), [2; 3]);
    child.kill().unwrap();
    assert!(results.recv().unwrap().is_none());
    assert!(results.recv().unwrap().is_none());
    child.wait().unwrap();
    drop(link.writer);
}

fn a_worker_that_is_gone_is_closed() {
    let (child, link) = with_worker(&short(), drop);
    assert_eq!(exit_code(&child), 0);
    let sender = Sender::new(link.writer);
    let error = loop {
        if let Err(unsent) = sender.send(vec![0_u8; 100_000]) {
            assert_eq!(unsent.value.len(), 100_000);
            break unsent.error;
        }
    };
    assert!(matches!(error, Error::Closed), "{error:?}");
    assert!(matches!(sender.send(vec![1]).unwrap_err().error, Error::Closed));
    assert!(matches!(sender.close(), Err(Error::Closed)));
}

fn a_worker_that_left_values_unread_is_a_reset() {
    let (link, mut there) = greeted(&short());
    let (jobs, results) = (Sender::new(link.writer), Receiver::<String, _>::new(link.reader));
    there.write_all(&framed(b"\x03one")).unwrap();
    jobs.send(5_u8).unwrap();
    jobs.flush().unwrap();
    there.read_exact(&mut [0]).unwrap();
    assert_eq!(results.recv().unwrap().unwrap(), "one");
    drop(there);
    assert!(matches!(results.recv(), Err(Error::Reset)));
    assert!(results.recv().unwrap().is_none());
    assert!(
        matches!(jobs.send(6).and_then(|()| jobs.flush().map_err(|error| ipc::Unsent { value: 6, error })), Err(unsent) if matches!(unsent.error, Error::Closed))
    );
}

fn what_a_worker_sent_arrives_although_it_left_values_unread() {
    for closes_first in [true, false] {
        let (child, link) = with_worker(&short(), move |link| {
            let mut jobs = Receiver::<u8, _>::new(link.reader);
            assert_eq!(wait_any(&mut [jobs.watch().unwrap()], Some(FAR)).unwrap(), 1);
            let results = Sender::new(link.writer);
            // More than the master's kernel has room for.
            (0..3000_u32).for_each(|number| results.send((number, "x".repeat(100))).unwrap());
            if closes_first {
                results.close().unwrap();
                drop(jobs);
            } else {
                drop(jobs);
                results.close().unwrap();
            }
        });
        let jobs = Sender::new(link.writer);
        jobs.send(1_u8).unwrap();
        jobs.flush().unwrap();
        assert_eq!(exit_code(&child), 0);
        let results = Receiver::<(u32, String), _>::new(link.reader);
        let numbers: Vec<_> = results.iter().map(|result| result.unwrap().0).collect();
        assert!(numbers.iter().copied().eq(0..3000), "{} values", numbers.len());
    }
}

fn closing_the_sender_is_eof_while_results_come_back() {
    let (child, link) = with_worker(&short(), |link| {
        let jobs = Receiver::<u32, _>::new(link.reader);
        assert_eq!(jobs.iter().map(Result::unwrap).sum::<u32>(), 3);
        let results = Sender::new(link.writer);
        results.send(jobs.recv().unwrap().is_none()).unwrap();
        results.close().unwrap();
    });
    let jobs = Sender::new(link.writer);
    jobs.send(1_u32).unwrap();
    jobs.send(2).unwrap();
    drop(jobs);
    let results = Receiver::<bool, _>::new(link.reader);
    assert_eq!(results.recv().unwrap(), Some(true));
    assert_eq!(results.recv().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn a_copy_in_a_child_tells_the_peer_nothing() {
    let (link, mut there) = greeted(&short());
    let (jobs, values) = (Sender::new(link.writer), Receiver::<u8, _>::new(link.reader));
    let copied = (jobs, values);
    // SAFETY: this process has one thread.
    match unsafe { ipc::fork_raw() }.unwrap() {
        ipc::Forked::Child => {
            let (jobs, values) = copied;
            assert!(matches!(values.recv(), Err(Error::NotGiven)));
            jobs.send(1).unwrap(); // into the buffer
            assert!(matches!(jobs.flush(), Err(Error::NotGiven)));
            drop((jobs, values));
            std::process::exit(0);
        }
        ipc::Forked::Parent(child) => assert_eq!(exit_code(&child), 0),
    }
    copied.0.send(7_u8).unwrap();
    copied.0.close().unwrap();
    let mut rest = Vec::new();
    there.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, framed(&[7]));
}

fn a_connection_can_be_waited_for() {
    let (link, mut there) = greeted(&short());
    let mut values = Receiver::<u8, TcpReader>::new(link.reader);
    assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
    there.write_all(&[framed(&[1]), framed(&[2])].concat()).unwrap();
    for number in [1, 2] {
        assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
        assert_eq!(values.try_recv().unwrap(), Some(number));
    }
    drop(there);
    assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
    assert_eq!(values.try_recv().unwrap(), None);
}

/// Echoes, on two threads so that neither way waits for the other.
fn both_ways(link: TcpLink) {
    const VALUES: u8 = 100;
    let (sender, receiver) = (Sender::new(link.writer), Receiver::<serde_bytes::ByteBuf, _>::new(link.reader));
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..VALUES {
                sender.send(serde_bytes::ByteBuf::from(vec![number; 100_000])).unwrap();
            }
            sender.close().unwrap();
        });
        let values =
            receiver.iter().enumerate().map(|(number, value)| assert!(*value.unwrap() == [number as u8; 100_000]));
        assert_eq!(values.count(), usize::from(VALUES));
    });
}

fn both_ways_at_once_fill_no_dead_end() {
    let (child, link) = with_worker(&short(), both_ways);
    both_ways(link);
    assert_eq!(exit_code(&child), 0);
}

/// Turns every bit, and counts how often its end is told.
struct Turned(TcpStream);

impl Read for Turned {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buf)?;
        buf[..count].iter_mut().for_each(|byte| *byte = !*byte);
        Ok(count)
    }
}

impl Write for Turned {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let turned: Vec<_> = buf.iter().take(5000).map(|byte| !byte).collect();
        self.0.write(&turned)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn turned(socket: TcpStream, finished: &Arc<AtomicU32>) -> TcpLink {
    let finished = Arc::clone(finished);
    let stream = Turned(socket.try_clone().unwrap());
    let finish = move |_: &mut Turned| {
        finished.fetch_add(1, Relaxed);
        Ok(())
    };
    short().greet_over(stream, socket, finish).unwrap()
}

fn a_stream_around_the_connection_carries_the_same() {
    let (listener, address) = listen();
    let child = fork((), move |()| {
        let finished = Arc::default();
        both_ways(turned(TcpStream::connect(address).unwrap(), &finished));
        assert_eq!(finished.load(Relaxed), 1);
    })
    .unwrap();
    let finished = Arc::default();
    both_ways(turned(listener.accept().unwrap().0, &finished));
    assert_eq!(finished.load(Relaxed), 1);
    assert_eq!(exit_code(&child), 0);
    // Deadlines, and looks that do not wait.
    let (here, mut there) = tcp_pair();
    there.write_all(&hello(1 << 20, 0).iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
    let link = turned(here, &finished);
    let (mut values, sender) = (Receiver::<u8, _>::new(link.reader), Sender::new(link.writer));
    assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
    assert_times_out("nothing", Duration::from_millis(30), |timeout| values.recv_timeout(timeout));
    there.write_all(&framed(&[1]).iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
    assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
    assert_eq!(values.recv().unwrap(), Some(1));
    assert_flush_times_out(&sender, Duration::from_millis(30));
}

/// Ends as TLS does whose peer was cut off.
struct Cut(Said);

impl Read for Cut {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

impl Write for Cut {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn a_stream_that_ends_without_its_last_word_is_a_reset() {
    let (here, _there) = tcp_pair();
    let said = Said { bytes: [hello(9, 0), framed(&[7])].concat(), cut: 0, at: 0 };
    let link = short().greet_over(Cut(said), here, |_| Ok(())).unwrap();
    let values = Receiver::<u8, _>::new(link.reader);
    assert_eq!(values.recv().unwrap(), Some(7));
    assert!(matches!(values.recv(), Err(Error::Reset)));
}

fn a_worker_that_is_stopped_is_not_gone() {
    let (child, link) = with_worker(&short(), |link| {
        lengths_of_bytes(Receiver::new(link.reader), Sender::new(link.writer));
    });
    let (jobs, results) = (Sender::new(link.writer), Receiver::<u64, _>::new(link.reader));
    // It has read the hello, too, which has a deadline of its own.
    jobs.send(vec![0; 1]).unwrap();
    jobs.flush().unwrap();
    assert_eq!(results.recv().unwrap(), Some(1));
    child.signal(libc::SIGSTOP).unwrap();
    // Its kernel answers all that time, with no room for more. One that is gone is noticed before that.
    let wait = 2 * SHORT + Duration::from_secs(support::rounds(1).clamp(1, 9));
    thread::scope(|scope| {
        scope.spawn(|| assert_flush_times_out(&jobs, wait));
        let received = results.recv_timeout(wait);
        assert!(matches!(received, Err(Error::TimedOut)), "{received:?}");
    });
    child.signal(libc::SIGCONT).unwrap();
    jobs.send(vec![0; 3]).unwrap();
    jobs.close().unwrap();
    let last = results.iter().map(Result::unwrap).last();
    assert_eq!(last, Some(3));
    assert_eq!(exit_code(&child), 0);
}

fn lengths_of_bytes(jobs: Receiver<Vec<u8>, impl Link>, results: Sender<u64, impl Link>) {
    for job in jobs.iter() {
        results.send(job.unwrap().len() as u64).unwrap();
        results.flush().unwrap();
    }
    results.close().unwrap();
}

fn is_vanished(error: &Error) -> bool {
    matches!(error, Error::System { source, .. } if source.raw_os_error() == Some(libc::ETIMEDOUT))
}

fn a_machine_that_vanishes_is_an_error() {
    assert_noticed(Machine::cut_there);
}

fn a_machine_without_a_way_to_it_is_an_error() {
    assert_noticed(Machine::cut);
}

/// A connection to the master that has said one value: the hello arrived here, and nothing is under way.
fn connected() -> (Sender<u8, TcpWriter>, TcpReader) {
    let link = short().connect(Machine::MASTER).unwrap();
    let writer = Sender::new(link.writer);
    writer.send(1_u8).unwrap();
    writer.flush().unwrap();
    (writer, link.reader)
}

fn assert_noticed(cut: impl FnOnce(&Machine)) {
    let machine = Machine::start(|mut until| {
        let links: Vec<_> = (0..6).map(|_| connected()).collect();
        if until.read(&mut [0]).unwrap() == 1 {
            Machine::take_down();
            let _ = until.read(&mut [0]);
        }
        drop(links);
    });
    let mut links: Vec<_> = (0..6).map(|_| short().greet(machine.listener.accept().unwrap().0).unwrap()).collect();

    let idle = |link: TcpLink| {
        let values = Receiver::<u8, _>::new(link.reader);
        assert_eq!(values.recv().unwrap(), Some(1));
        (values, link.writer)
    };
    let (first, second) = (idle(links.pop().unwrap()), idle(links.pop().unwrap()));
    let sending = idle(links.pop().unwrap());
    let (clock, _tick) = pipe().unwrap();
    let (mut beside_full, writer) = idle(links.pop().unwrap());
    let full = Sender::new(writer);
    fill(&full);
    cut(&machine);
    let noticed = |what: &str, call: &dyn Fn() -> Error| {
        let started = Instant::now();
        let error = call();
        let took = started.elapsed();
        assert!(is_vanished(&error), "{what}: {error:?}");
        assert!(took <= SHORT * 3 / 2 + Duration::from_secs(1), "{what}: {took:?}");
        assert!(is_vanished(&call()), "{what}: and each later call says so");
    };
    let (mut watched, _writer) = second;
    thread::scope(|scope| {
        scope.spawn(move || noticed("idle", &|| first.0.recv().unwrap_err()));
        for has_time in [false, true] {
            let (results, writer) = idle(links.pop().unwrap());
            scope.spawn(move || {
                let jobs = Sender::new(writer);
                jobs.send(1_u8).unwrap();
                jobs.flush().unwrap(); // it went into the kernel's buffer, and no error tells that it did not arrive
                // The time of a call is longer than that of the connection.
                let receive = || if has_time { results.recv_timeout(FAR) } else { results.recv() };
                noticed("with a job under way", &|| receive().unwrap_err());
            });
        }
        scope.spawn(move || {
            assert_eq!(wait_any(&mut [watched.watch().unwrap()], Some(4 * SHORT)).unwrap(), 1);
            let error = watched.try_recv().unwrap_err();
            assert!(is_vanished(&error), "watched: {error:?}");
        });
        scope.spawn(move || {
            noticed("full", &|| full.flush().unwrap_err());
            // The kernel goes on for some minutes. The other half knows, and does not wait for it.
            assert_eq!(wait_any(&mut [beside_full.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 1);
            let error = beside_full.try_recv().unwrap_err();
            assert!(is_vanished(&error), "beside a full one: {error:?}");
        });
        scope.spawn(move || {
            let (_values, writer) = sending;
            let jobs = Sender::new(writer);
            // There is room for all of it here, and nothing is received.
            noticed("with a job now and then", &|| {
                loop {
                    if let Err(error) = jobs.send(1_u8).map_err(Error::from).and_then(|()| jobs.flush()) {
                        return error;
                    }
                    let _ = clock.read_timeout(&mut [0], Duration::from_millis(200));
                }
            });
        });
    });
    machine.child.kill().unwrap();
    machine.child.wait().unwrap();
}

/// Another machine that says one value on each of its connections, and then keeps them; and the connections here.
fn far<const N: usize>() -> (Machine, [TcpLink; N]) {
    let machine = Machine::start(|mut until| {
        let links: Vec<_> = (0..N).map(|_| connected()).collect();
        let _ = until.read(&mut [0]);
        drop(links);
    });
    let links = std::array::from_fn(|_| short().greet(machine.listener.accept().unwrap().0).unwrap());
    (machine, links)
}

fn a_machine_that_vanishes_is_an_error_under_signals_too() {
    let (machine, [link, full]) = far();
    let (results, jobs) = (Receiver::<u8, _>::new(link.reader), Sender::new(link.writer));
    assert_eq!(results.recv().unwrap(), Some(1));
    let full = Sender::new(full.writer);
    fill(&full);
    machine.cut();
    jobs.send(1_u8).unwrap();
    jobs.flush().unwrap(); // it is under way, so the kernel does not ask for the peer
    // A clock that ticks more often than a call looks.
    with_interval_timer(Duration::from_millis(100), || {
        let calls: [(&str, &dyn Fn() -> ipc::Result<()>); 2] =
            [("receiving", &|| results.recv().map(drop)), ("sending", &|| full.flush())];
        for (what, call) in calls {
            let started = Instant::now();
            let error = call().unwrap_err();
            let took = started.elapsed();
            assert!(is_vanished(&error), "{what}: {error:?}");
            assert!(took <= SHORT * 3 / 2 + Duration::from_secs(1), "{what}: {took:?}");
        }
    });
    machine.child.kill().unwrap();
    machine.child.wait().unwrap();
}

fn what_arrived_before_a_machine_vanished_is_received() {
    let (machine, [link]) = far();
    let (mut results, jobs) = (Receiver::<u8, _>::new(link.reader), Sender::new(link.writer));
    assert_eq!(wait_any(&mut [results.watch().unwrap()], Some(FAR)).unwrap(), 1); // it is there
    machine.cut();
    let (clock, _tick) = pipe().unwrap();
    let error = loop {
        if let Err(error) = jobs.send(1_u8).map_err(Error::from).and_then(|()| jobs.flush()) {
            break error;
        }
        let _ = clock.read_timeout(&mut [0], Duration::from_millis(200));
    };
    assert!(is_vanished(&error), "{error:?}");
    // It had come long before, and no call had taken it.
    assert_eq!(results.recv().unwrap(), Some(1));
    assert!(is_vanished(&results.recv().unwrap_err()));
    assert!(is_vanished(&results.try_recv().unwrap_err()));
    machine.child.kill().unwrap();
    machine.child.wait().unwrap();
}
