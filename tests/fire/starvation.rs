//! No descriptors are left, or no processes: each call says so by name, gives back what it took, leaves nothing behind, and
//! works again when there are some.
//!
//! The worker that claims is this binary itself, with the argument [`WORKER`].

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::rounds::calls::{CALLS, Call};
use crate::support::{
    self, Inventory, Trial, become_nobody, exit_code, has_nowait, limit, limit_descriptors, read_all, read_some,
    refused, spliced_once,
};
use ipc::{
    Command, DatagramSocket, Error, PIPE_BUF, PipeReader, PipeWriter, ProcessMap, StreamSocket, Watch, claim,
    claimable, datagram_pair, fork, holders, open_ends, pipe, stream_pair, wait_any,
};

/// The argument that makes this program the worker.
const WORKER: &str = "starved-worker";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::args().nth(1).as_deref() != Some(WORKER) {
        return None;
    }
    worker();
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        without_descriptors_each_call_says_so_and_gives_everything_back within 120,
        a_limit_of_no_more_than_the_standard_three_is_a_full_table,
        // How many descriptors one user may have under way is limited with them.
        what_needs_no_descriptor_works_without_any needs [Alone],
        without_descriptors_ends_are_claimed_later,
        for_want_of_a_descriptor_no_holder_is_left_out within 120,
        without_processes_nothing_is_started,
    ]
}

#[track_caller]
fn assert_no_place<T: std::fmt::Debug>(what: &str, result: ipc::Result<T>) {
    let (call, errno) = refused(result);
    assert_eq!(errno, libc::EMFILE, "{what}: {call}");
}

fn without_descriptors_each_call_says_so_and_gives_everything_back() {
    // The first start finds out how things are here, and takes more.
    assert!(ipc::Command::new("true").status().unwrap().success());
    for Call { name, places, prepare } in CALLS {
        for free in 0..=*places {
            let mut call = prepare();
            let (ends, open) = (open_ends(), Inventory::take());
            let full = limit_descriptors(free);
            let result = call();
            drop(full);
            if free < *places {
                assert_no_place(&format!("{name} with {free} free places"), result);
                assert_eq!(open_ends(), ends, "{name} with {free} free places");
                assert_eq!(open.compare(&Inventory::take()), None, "{name} with {free} free places");
                call().unwrap_or_else(|error| panic!("{name}, with places again: {error:?}"));
            } else {
                result.unwrap_or_else(|error| panic!("{name} with {free} free places: {error:?}"));
            }
            drop(call);
            assert_eq!(open_ends(), 0, "{name}");
        }
    }
}

fn a_limit_of_no_more_than_the_standard_three_is_a_full_table() {
    for soft in [0, 3] {
        // Those that look around make no copies.
        let calls =
            CALLS.iter().filter(|call| !call.name.starts_with("holders") && !call.name.starts_with("ProcessMap"));
        for Call { name, prepare, .. } in calls {
            let mut call = prepare();
            let mut before = 0;
            limit(libc::RLIMIT_NOFILE, |limit| {
                before = limit.rlim_cur;
                soft
            });
            let result = call();
            limit(libc::RLIMIT_NOFILE, |_| before);
            assert_no_place(&format!("{name} with a limit of {soft}"), result);
            call().unwrap_or_else(|error| panic!("{name}, with places again: {error:?}"));
        }
    }
}

fn what_needs_no_descriptor_works_without_any() {
    let (reader, mut writer) = pipe().unwrap();
    let (spliced_reader, spliced_writer) = pipe().unwrap();
    spliced_once(&spliced_reader);
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let passed_on = [(); 2].map(|()| File::open("/dev/null").unwrap());
    let [with_message, with_bytes] = passed_on;
    let child = fork((), |()| ()).unwrap();
    let owned = [(); 3].map(|()| pipe().unwrap());
    let nowait = has_nowait();
    let full = limit_descriptors(0);

    writer.write_all(b"abcdef").unwrap();
    assert_eq!(read_some(&reader, 2), b"ab");
    assert_eq!(reader.try_read(&mut [0; 2]).unwrap(), 2);
    assert_eq!(reader.read_timeout(&mut [0; 2], Duration::from_secs(1)).unwrap(), 2);
    // On an older kernel it takes two.
    let written = if nowait { writer.write_timeout(b"x", Duration::ZERO) } else { Ok(writer.write(b"x").unwrap()) };
    assert_eq!(written.unwrap(), 1);
    assert_eq!(reader.splice_to(&spliced_writer, 9).unwrap(), 1);
    assert_eq!(spliced_reader.tee(&writer, 9).unwrap(), 1);
    assert_eq!(spliced_reader.try_read(&mut [0; 9]).unwrap(), 1);
    assert_eq!(spliced_writer.splice_from(&reader, 9).unwrap(), 1);
    assert_eq!(writer.set_capacity(PIPE_BUF).unwrap(), PIPE_BUF);

    messages.parent.send(b"abc").unwrap();
    assert!(matches!(messages.child.recv(&mut [0]), Err(Error::BufferTooSmall { message }) if message == b"abc"));
    messages.parent.send_with(b"abc", with_message).unwrap();
    // What was sent made room for itself.
    assert_eq!(messages.child.recv_with(&mut Vec::new()).unwrap().expect("a message").len(), 1);
    (&bytes.parent).write_all(b"a").unwrap();
    assert_eq!(bytes.parent.send_with(b"b", with_bytes).unwrap(), 1);
    assert_eq!(bytes.child.recv_with(&mut [0; 9]).unwrap().1.len(), 1);

    assert_eq!(wait_any(&mut [Watch::readable(&child)], None).unwrap(), 1);
    assert_eq!(wait_any(&mut [Watch::writable(&writer), Watch::readable(&child)], None).unwrap(), 2);
    child.kill().unwrap();
    assert_eq!(exit_code(&child), 0);
    for (reader, writer) in owned {
        let reader = PipeReader::try_from(OwnedFd::from(reader)).unwrap();
        let reader = std::io::PipeReader::from(reader);
        drop((PipeReader::from(reader).close().unwrap(), std::process::Stdio::from(writer)));
    }
    let socket = DatagramSocket::try_from(OwnedFd::from(messages.parent)).unwrap();
    let stream = StreamSocket::try_from(OwnedFd::from(bytes.parent)).unwrap();
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    drop((socket, stream, full));
    assert_eq!(messages.child.recv_vec().unwrap(), None);
}

fn worker() {
    let full = limit_descriptors(0);
    for _ in 0..2 {
        assert_no_place("given", claimable());
        assert_no_place("claim", claim::<PipeWriter>("end"));
    }
    drop(full);
    assert_eq!(claimable().unwrap(), ["end"]);
    let full = limit_descriptors(1);
    let writer: PipeWriter = claim("end").unwrap();
    drop(full);
    writer.write_atomic(b"claimed").unwrap();
}

fn without_descriptors_ends_are_claimed_later() {
    let (reader, writer) = pipe().unwrap();
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me).arg(WORKER).give("end", writer).spawn().unwrap();
    assert_eq!(read_all(reader), b"claimed");
    assert_eq!(exit_code(&child), 0);
}

/// What [`fill_now_and_then`] has opened.
static FILLERS: [AtomicI32; 8] = [const { AtomicI32::new(-1) }; 8];
/// For how many signals more it leaves the table as it is.
static REST: AtomicUsize = AtomicUsize::new(0);

/// Takes every place that is left in the table, for a while, and leaves them free again for a while.
extern "C" fn fill_now_and_then(_: libc::c_int) {
    match REST.load(SeqCst) {
        0 => REST.store(some_magnitude(), SeqCst),
        rest => return REST.store(rest - 1, SeqCst),
    }
    let is_full = FILLERS[0].load(SeqCst) >= 0;
    // SAFETY: calls that are async-signal-safe, on descriptors that only this handler knows. errno is left as it is found.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        for filler in &FILLERS {
            match filler.swap(-1, SeqCst) {
                -1 if !is_full => {
                    filler.store(libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC), SeqCst);
                }
                -1 => {}
                fd => drop(libc::close(fd)),
            }
        }
        *errno = before;
    }
}

/// A number up to 512, of every magnitude: a look takes as long as it takes, and is to be disturbed at times.
fn some_magnitude() -> usize {
    static STATE: AtomicU64 = AtomicU64::new(1);
    let next = STATE.load(SeqCst).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    STATE.store(next, SeqCst);
    1 << ((next >> 33) % 10)
}

fn for_want_of_a_descriptor_no_holder_is_left_out() {
    let pair = datagram_pair().unwrap();
    let looks: [fn(&DatagramSocket) -> ipc::Result<usize>; 2] = [
        |socket| Ok(holders(socket)?.list.len()),
        |_| Ok(ProcessMap::current()?.to_string().matches(&format!("{} fd", std::process::id())).count()),
    ];
    let full = limit_descriptors(3);
    for (number, look) in looks.iter().enumerate() {
        // A look takes the longer the more processes there are, and is to be disturbed somewhere within.
        let started = Instant::now();
        assert_eq!(look(&pair.parent).unwrap(), 2);
        let period = (started.elapsed() / 64).clamp(Duration::from_micros(100), Duration::from_millis(50));
        support::with_interval_timer(period, || {
            // SAFETY: zeroed bytes are a valid action, and the handler may run at any time.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = fill_now_and_then as *const () as libc::sighandler_t;
                assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
            }
            let (mut found, mut failed) = (0, 0);
            while found < 1 || failed < 3 {
                match look(&pair.parent) {
                    Ok(count) => {
                        assert_eq!(count, 2, "look {number}: all that there are");
                        found += 1;
                    }
                    result => {
                        assert_no_place("a look", result);
                        failed += 1;
                    }
                }
            }
        });
        while FILLERS[0].load(SeqCst) >= 0 {
            REST.store(0, SeqCst);
            fill_now_and_then(libc::SIGALRM);
        }
    }
    drop(full);
}

fn without_processes_nothing_is_started() {
    become_nobody();
    let starts = CALLS.iter().filter(|call| ["fork", "Fork", "spaw", "stat", "outp"].contains(&&call.name[..4]));
    let mut count = 0;
    for Call { name, prepare, .. } in starts {
        let mut call = prepare();
        let (ends, open) = (open_ends(), Inventory::take());
        limit(libc::RLIMIT_NPROC, |_| 0);
        for _ in 0..2 {
            let (call, errno) = refused(call());
            assert_eq!(errno, libc::EAGAIN, "{name}: {call}");
            assert!(["fork", "clone"].contains(&call), "{name}: {call}");
        }
        assert_eq!(open_ends(), ends, "{name}");
        assert_eq!(open.compare(&Inventory::take()), None, "{name}");
        limit(libc::RLIMIT_NPROC, |limit| limit.rlim_max);
        call().unwrap_or_else(|error| panic!("{name}, with processes again: {error:?}"));
        count += 1;
    }
    assert_eq!(count, 12);
}
