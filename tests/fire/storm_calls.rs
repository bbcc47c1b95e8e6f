//! Every other call that waits, starts something or looks at something, while a timer interrupts it every 100 µs, without
//! `SA_RESTART`: deadlines are kept to within 10 ms (P6), and no call ends with `Interrupted`.
//!
//! The worker that claims is this binary itself, with the argument [`WORKER`].

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::storm::{PERIOD, in_the_storm};
use crate::support::{
    self, FAR, Gate, Trial, exit_code, fill, handled, kinds, poll_until, read_all, with_interval_timer,
};
use ipc::{
    Child, Command, DatagramFlags, DatagramSocket, Error, Fork, Forked, Holders, MessageReader, MessageWriter,
    PackedSocket, PipeReader, PipeWriter, ProcessMap, Side, StreamSocket, Watch, claim, claimable, datagram_pair,
    datagram_pair_with, fork, fork_raw, fork_unchecked, holders, open_ends, pipe, stream_pair, wait_any,
};

/// The argument that makes this program the worker.
const WORKER: &str = "worker-in-the-storm";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::args().nth(1).as_deref() != Some(WORKER) {
        return None;
    }
    in_the_storm(worker);
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        deadlines_are_kept_to_within_ten_milliseconds needs [Alone] within 60,
        waiting_for_a_child_goes_on_until_it_has_left,
        forks_of_every_kind_happen_once,
        programs_start_once_and_say_everything within 60,
        a_program_becomes_another,
        ends_are_claimed within 60,
        whoever_holds_an_end_is_found within 120,
        ends_are_made_changed_and_closed,
        a_handler_that_waits_for_every_child_takes_no_program_away needs [Alone],
    ]
}

/// How late a call may come back.
const LATE: Duration = Duration::from_millis(10);

/// A machine that is busy with something else keeps any process waiting, once or twice. A call that counts its time anew
/// after each signal, or rounds it up, is late each time.
const ATTEMPTS: usize = 30;

/// That a call waits for its time, and that it is in time, at least once.
#[track_caller]
fn assert_in_time<T: Debug>(what: &str, is_late: fn(&T) -> bool, call: impl Fn(Duration) -> T) {
    let mut best = FAR;
    for timeout in [Duration::from_millis(4), Duration::from_micros(300)] {
        for attempt in 0.. {
            let started = Instant::now();
            let result = call(timeout);
            let took = started.elapsed();
            assert!(is_late(&result), "{what}: {result:?}");
            assert!(took >= timeout && took < FAR, "{what}: {took:?} instead of {timeout:?}");
            best = best.min(took - timeout);
            if best < LATE {
                break;
            }
            assert!(attempt < ATTEMPTS, "{what}: never less than {best:?} late in {ATTEMPTS} attempts");
        }
    }
}

fn timed_out<T: Debug>(result: &ipc::Result<T>) -> bool {
    matches!(result, Err(Error::TimedOut))
}

fn deadlines_are_kept_to_within_ten_milliseconds() {
    in_the_storm(|| {
        for (kind, mut reader, mut writer) in kinds() {
            for spin in [Duration::ZERO, Duration::from_micros(50)] {
                reader.set_spin(spin);
                writer.set_spin(spin);
                assert_in_time(kind, timed_out, |timeout| reader.read_timeout(&mut [0; 8], timeout));
                fill(&writer);
                assert_in_time(kind, timed_out, |timeout| writer.write_timeout(&[1], timeout));
                assert_in_time(kind, timed_out, |timeout| writer.write_timeout(&[1; 8192], timeout));
                while reader.try_read(&mut [0; 4096]).is_ok() {}
            }
        }
        for flags in [DatagramFlags::empty(), DatagramFlags::CONNECTIONLESS] {
            let pair = datagram_pair_with(flags).unwrap();
            let socket = &pair.parent;
            assert_in_time("recv_timeout", timed_out, |timeout| socket.recv_timeout(&mut [0; 8], timeout));
            assert_in_time("recv_vec_timeout", timed_out, |timeout| socket.recv_vec_timeout(timeout));
            assert_in_time("recv_with_timeout", timed_out, |timeout| {
                socket.recv_with_timeout(&mut Vec::new(), timeout).map(|received| received.is_some())
            });
            while socket.try_send(&[1; 100]).is_ok() {}
            assert_in_time("send_timeout", timed_out, |timeout| socket.send_timeout(&[1; 100], timeout));
            assert_in_time("send_vectored_timeout", timed_out, |timeout| {
                socket.send_vectored_timeout(&[IoSlice::new(&[1; 100])], timeout)
            });
            assert_in_time("send_with_timeout", timed_out, |timeout| {
                socket.send_with_timeout(&[1; 100], pair.child.as_fd(), timeout).map_err(Error::from)
            });
        }
        let pair = stream_pair().unwrap();
        let socket = &pair.parent;
        assert_in_time("read_timeout", timed_out, |timeout| socket.read_timeout(&mut [0; 8], timeout));
        assert_in_time("recv_with_timeout", timed_out, |timeout| {
            socket.recv_with_timeout(&mut [0; 8], timeout).map(|(len, _)| len)
        });
        while socket.try_write(&[1; 10_000]).is_ok() {}
        assert_in_time("write_timeout", timed_out, |timeout| socket.write_timeout(&[1; 100], timeout));
        assert_in_time("send_with_timeout", timed_out, |timeout| {
            socket.send_with_timeout(&[1; 100], (), timeout).map_err(Error::from)
        });
        let pair = datagram_pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        let (packed, reader) = (RefCell::new(PackedSocket::new(pair.parent)), RefCell::new(MessageReader::new(reader)));
        assert_in_time("PackedSocket::recv_timeout", timed_out, |timeout| {
            packed.borrow_mut().recv_timeout(timeout).map(|message| message.is_some())
        });
        assert_in_time("MessageReader::recv_timeout", timed_out, |timeout| {
            reader.borrow_mut().recv_timeout(timeout).map(|message| message.is_some())
        });
        let writer = RefCell::new(MessageWriter::new(writer));
        while writer.borrow_mut().try_send(&[1; 100]).is_ok() {}
        while packed.borrow_mut().try_send(&[1; 100]).is_ok() {}
        for (what, send) in [("PackedSocket::send_timeout", true), ("PackedSocket::flush_timeout", false)] {
            assert_in_time(what, timed_out, |timeout| match send {
                true => packed.borrow_mut().send_timeout(&[1; 100], timeout),
                false => packed.borrow_mut().flush_timeout(timeout),
            });
        }
        assert_in_time("MessageWriter::send_timeout", timed_out, |timeout| {
            writer.borrow_mut().send_timeout(&[1; 100], timeout)
        });
        assert_in_time("MessageWriter::flush_timeout", timed_out, |timeout| writer.borrow_mut().flush_timeout(timeout));
        drop((reader, pair.child)); // what waits goes nowhere, and nobody waits for it
        let (reader, _writer) = pipe().unwrap();
        let nothing = |result: &ipc::Result<usize>| matches!(result, Ok(0));
        assert_in_time("wait_any", nothing, |timeout| {
            wait_any(&mut [Watch::readable(&reader), Watch::writable(socket)], Some(timeout))
        });
        assert_in_time("wait_any on nothing", nothing, |timeout| wait_any(&mut [], Some(timeout)));
        let child = fork((), |()| sleep_for_ever()).unwrap();
        let it_runs = |result: &ipc::Result<Option<std::process::ExitStatus>>| matches!(result, Ok(None));
        assert_in_time("Child::wait_timeout", it_runs, |timeout| child.wait_timeout(timeout));
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Leaves with a status after so many signals have come to it.
fn leaves_after(signals: usize, status: u8) -> Child {
    fork((), |()| {
        with_interval_timer(PERIOD, || poll_until("signals came", || handled() >= signals));
        status
    })
    .unwrap()
}

fn waiting_for_a_child_goes_on_until_it_has_left() {
    let waits: [fn(&Child) -> Option<i32>; 5] = [
        |child| child.wait().unwrap().code(),
        |child| child.wait_timeout(Duration::MAX).unwrap()?.code(),
        |child| {
            loop {
                if let Some(status) = child.wait_timeout(Duration::from_micros(150)).unwrap() {
                    return status.code();
                }
            }
        },
        |child| {
            assert_eq!(wait_any(&mut [Watch::readable(child)], None).unwrap(), 1);
            child.try_wait().unwrap()?.code()
        },
        |child| {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status.code();
                }
            }
        },
    ];
    in_the_storm(|| {
        for (number, wait) in waits.iter().enumerate() {
            let before = handled();
            let child = leaves_after(before + 30, 7);
            assert_eq!(wait(&child), Some(7), "{number}");
            assert_eq!(child.wait().unwrap().code(), Some(7), "{number}: again");
            assert!(handled() > before, "{number}: signals came while it was waited for");
        }
        for _ in 0..50 {
            let child = fork((), |()| sleep_for_ever()).unwrap();
            child.signal(0).unwrap();
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
            child.kill().unwrap();
            assert!(child.signal(0).is_err(), "it was waited for");
        }
    });
}

fn forks_of_every_kind_happen_once() {
    type Start = fn(PipeWriter) -> Child;
    let starts: [Start; 4] = [
        |writer| fork(writer, |writer| writer.write_atomic(b"!")).unwrap(),
        |writer| {
            Fork::new().die_with_parent().reset_signals().spawn(writer, |writer| writer.write_atomic(b"!")).unwrap()
        },
        // SAFETY: this process has one thread.
        |writer| unsafe { fork_unchecked(writer, |writer| writer.write_atomic(b"!")) }.unwrap(),
        // SAFETY: this process has one thread, and the child leaves at once.
        |writer| match unsafe { fork_raw() }.unwrap() {
            Forked::Parent(child) => child,
            Forked::Child => std::process::exit(i32::from(writer.write_atomic(b"!").is_err())),
        },
    ];
    in_the_storm(|| {
        for start in starts {
            for _ in 0..50 {
                let (reader, writer) = pipe().unwrap();
                let child = start(writer);
                assert_eq!(read_all(reader), b"!");
                assert_eq!(exit_code(&child), 0);
                assert_eq!(open_ends(), 0);
            }
        }
    });
}

fn programs_start_once_and_say_everything() {
    in_the_storm(|| {
        for _ in 0..10 {
            let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
            let output = Command::new("sh").args(["-c", script]).output().unwrap();
            assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
            assert_eq!(output.status.code(), Some(3));
            assert_eq!(Command::new("sh").args(["-c", "exit 4"]).status().unwrap().code(), Some(4));

            let (from, mut to) = pipe().unwrap();
            let (mut reader, writer) = pipe().unwrap();
            let child = Command::new("cat").stdin(from).stdout(writer).spawn().unwrap();
            let mut text = vec![0; 5];
            to.write_all(b"there").unwrap();
            reader.read_exact(&mut text).unwrap();
            drop(to);
            assert_eq!((&text[..], read_all(reader).len()), (&b"there"[..], 0));
            assert!(child.wait().unwrap().success());

            let refused = Command::new("no such program").stdin(pipe().unwrap().0).spawn().unwrap_err();
            assert_eq!(std::io::Error::from(refused.error).raw_os_error(), Some(libc::ENOENT));
        }
    });
}

fn a_program_becomes_another() {
    for _ in 0..20 {
        let (reader, writer) = pipe().unwrap();
        let child = fork(writer, |writer| {
            in_the_storm(|| {
                let end = writer.try_clone().unwrap();
                let refused = Command::new("no such program").give("end", end).stdin(ipc::Stdio::null()).exec();
                assert_eq!(std::io::Error::from(refused.error).raw_os_error(), Some(libc::ENOENT));
            });
            // Not in the storm: the timer goes on in the program, where SIGALRM kills.
            Err::<(), _>(Command::new("echo").arg("hello").stdout(writer).exec())
        })
        .unwrap();
        assert_eq!(read_all(reader), b"hello\n");
        assert_eq!(exit_code(&child), 0);
    }
}

fn worker() {
    for _ in 0..20 {
        assert_eq!(claimable().unwrap(), ["in", "out"]);
        assert!(matches!(claim::<PipeReader>("nothing"), Err(Error::NoSuchEnd { .. })));
    }
    let from: PipeReader = claim("in").unwrap();
    let mut to: PipeWriter = claim("out").unwrap();
    assert!(claimable().unwrap().is_empty());
    to.write_all(&read_all(from)).unwrap();
}

fn ends_are_claimed() {
    in_the_storm(|| {
        for _ in 0..5 {
            let (from, mut to) = pipe().unwrap();
            let (reader, writer) = pipe().unwrap();
            let me = std::env::current_exe().unwrap();
            let child = Command::new(me).arg(WORKER).give("in", from).give("out", writer).spawn().unwrap();
            to.write_all(b"there and back").unwrap();
            drop(to);
            assert_eq!(read_all(reader), b"there and back");
            assert_eq!(exit_code(&child), 0);
        }
    });
}

fn pids(found: &Holders, side: Side) -> Vec<u32> {
    found.list.iter().filter(|holder| holder.side == side).map(|holder| holder.pid).collect()
}

fn whoever_holds_an_end_is_found() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let gate = Gate::new();
    let child = fork((writer, pair.child), |_ends| {
        gate.open();
        sleep_for_ever()
    })
    .map_err(Error::from)
    .unwrap();
    gate.pass();
    in_the_storm(|| {
        for _ in 0..2 {
            let found = holders(&reader).unwrap();
            let of = |side| pids(&found, side);
            assert!(of(Side::Write) == [child.id()] && of(Side::Read) == [std::process::id()], "{found}");
            let found = holders(&pair.parent).unwrap();
            let of = |side| pids(&found, side);
            assert!(of(Side::Peer) == [child.id()] && of(Side::Own) == [std::process::id()], "{found}");
            let map = ProcessMap::current().unwrap().to_string();
            assert!(map.contains(&child.id().to_string()), "{map}");
        }
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

fn ends_are_made_changed_and_closed() {
    in_the_storm(|| {
        for _ in 0..100 {
            let (reader, writer) = pipe().unwrap();
            assert_eq!(writer.set_capacity(8192).unwrap(), reader.capacity().unwrap());
            writer.write_atomic(b"abc").unwrap();
            assert_eq!((reader.available().unwrap(), writer.is_closed().unwrap()), (3, false));
            let reader = PipeReader::try_from(OwnedFd::from(reader.try_clone().unwrap())).unwrap();
            reader.close().unwrap();
            writer.close().unwrap();

            let pair = datagram_pair().unwrap();
            let socket = DatagramSocket::try_from(OwnedFd::from(pair.parent)).unwrap();
            assert_eq!(socket.set_max_message(10_000).unwrap(), socket.max_message().unwrap());
            socket.set_passcred(true).unwrap();
            socket.try_clone().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!(pair.child.recv_vec().unwrap(), None);
            assert_eq!(socket.peer_credentials().unwrap().pid, std::process::id());
            socket.close().unwrap();

            let pair = stream_pair().unwrap();
            let socket = StreamSocket::try_from(OwnedFd::from(pair.parent)).unwrap();
            socket.set_passcred(true).unwrap();
            socket.try_clone().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(pair.child.try_read(&mut [0; 8]).unwrap(), 0);
            socket.close().unwrap();
        }
    });
}

/// What many a program installs for `SIGCHLD`.
extern "C" fn reap_all(_: libc::c_int) {
    // SAFETY: waitpid is async-signal-safe, and no status is asked for. errno is left as it is found.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        *errno = before;
    }
}

/// The program is over and waited for, on the one core that there is, before this process comes to hold it: one of this
/// policy takes the core from nobody when it wakes up.
fn a_handler_that_waits_for_every_child_takes_no_program_away() {
    support::run_on_core(0);
    // SAFETY: a handler that may run at any time, and a policy that children do not inherit, both valid and read only.
    unsafe {
        let handler = reap_all as *const () as libc::sighandler_t;
        assert_ne!(libc::signal(libc::SIGCHLD, handler), libc::SIG_ERR);
        let priority = libc::sched_param { sched_priority: 0 };
        assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK, &priority), 0);
    }
    for _ in 0..3 {
        let (reader, writer) = pipe().unwrap();
        let child = Command::new("echo").arg("hello").stdout(writer).spawn().unwrap();
        assert_eq!(read_all(reader), b"hello\n");
        poll_until("it has left", || matches!(wait_any(&mut [Watch::readable(&child)], Some(Duration::ZERO)), Ok(1)));
        // Somebody else has waited for it, which is what the handler is for.
        assert!(matches!(child.wait(), Err(Error::StatusTaken { .. })));
    }
}
