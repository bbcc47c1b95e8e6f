//! Four ends, two closed (P2), and the end of the stream arrives (P3): after a fork an end is open in exactly the process
//! that it was given to.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{self, Gate, Trial, descriptor_flags, exit_code, limit_descriptors};
use ipc::{
    Ends, Error, Fork, PipeReader, PipeWriter, Watch, datagram_pair, fork, open_ends, pipe, stream_pair, wait_any,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        each_process_has_the_ends_that_it_was_given,
        the_parents_copies_are_closed_when_fork_returns,
        the_end_arrives_while_later_workers_still_run,
        a_severed_end_answers_not_given_to_every_call,
        a_severed_end_is_dropped_without_hurting_a_stranger,
        an_end_on_a_severed_number_that_was_closed_by_hand_is_a_whole_one,
        a_severed_end_is_a_way_to_nowhere,
        a_severed_end_stays_severed_in_a_grandchild,
        a_severed_end_cannot_be_given_on,
        a_copy_of_a_severed_end_cannot_be_given_on,
        a_refusal_that_gives_another_one_back_makes_no_open_end_of_it,
        a_given_end_can_be_given_on,
        everything_that_holds_ends_can_be_given,
        a_borrowed_end_is_lent,
        keep_all_severs_nothing,
        what_is_no_end_stays_open,
        ends_with_high_numbers_are_severed,
        a_handler_in_the_child_never_meets_an_end_of_the_parent,
        a_full_table_refuses_the_fork_and_gives_the_ends_back,
        one_free_place_is_enough,
        an_end_over_a_lowered_limit_refuses_the_fork,
        clones_are_severed_like_any_end,
        a_thousand_forks_leave_nothing_behind within 60,
    ]
}

/// What the descriptor stands for in another process.
fn target(pid: u32, number: RawFd) -> Option<String> {
    Some(std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?.display().to_string())
}

fn each_process_has_the_ends_that_it_was_given() {
    let (mut reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let channel = target(std::process::id(), reader.as_raw_fd()).unwrap();
    let (reader_number, writer_number) = (reader.as_raw_fd(), writer.as_raw_fd());
    let gate = Gate::new();
    let child = fork((writer, pair.child), |(mut writer, socket)| {
        assert_eq!(open_ends(), 2);
        writer.write_all(b"mine").unwrap();
        socket.send(b"mine too").unwrap();
        gate.pass();
    })
    .unwrap();
    assert_eq!(open_ends(), 2);
    assert_eq!(pair.parent.recv_vec().unwrap().as_deref(), Some(&b"mine too"[..]));
    // Seen from outside: the reader is the parent's alone, the writer the child's alone.
    assert_eq!(target(child.id(), writer_number), Some(channel.clone()));
    assert_ne!(target(child.id(), reader_number), Some(channel.clone()));
    assert_eq!(target(std::process::id(), reader_number), Some(channel));
    assert_eq!(target(std::process::id(), writer_number), None);
    gate.open();
    assert_eq!(exit_code(&child), 0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
}

fn the_parents_copies_are_closed_when_fork_returns() {
    let (reader, writer) = pipe().unwrap();
    let captured = pipe().unwrap();
    let child = fork(reader, move |mut reader| {
        drop(captured);
        std::io::copy(&mut reader, &mut std::io::sink()).map(drop)
    })
    .unwrap();
    assert_eq!(open_ends(), 1, "the given end, and what the closure captured, are closed");
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn the_end_arrives_while_later_workers_still_run() {
    // The classic hang: the second worker inherits the first one's writer.
    let mut workers = Vec::new();
    let hold = Gate::new();
    for round in 0..4_u8 {
        let (reader, writer) = pipe().unwrap();
        let worker = fork(writer, |writer| {
            writer.write_atomic(&[round]).unwrap();
            drop(writer);
            hold.pass();
        });
        workers.push((worker.unwrap(), reader));
    }
    for (round, (_, reader)) in workers.iter_mut().enumerate() {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, [round as u8]);
    }
    for (worker, _) in &workers {
        assert_eq!(worker.try_wait().unwrap(), None, "it is still there");
    }
    // Each goes through for whichever worker is the first to take it.
    workers.iter().for_each(|_| hold.open());
    for (worker, _) in &workers {
        assert_eq!(exit_code(worker), 0);
    }
}

#[track_caller]
fn assert_not_given<T: std::fmt::Debug>(result: Result<T, impl Into<Error>>) {
    match result.map_err(Into::into) {
        Err(Error::NotGiven) => {}
        other => panic!("expected NotGiven, got {other:?}"),
    }
}

fn a_severed_end_answers_not_given_to_every_call() {
    let (mut reader, mut writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let mut stream = stream_pair().unwrap();
    let (soon, buf) = (Duration::from_secs(5), &mut [0; 8][..]);
    let child = fork((), |()| {
        assert_eq!(open_ends(), 0);
        reader.set_spin(Duration::from_micros(20));
        for _ in 0..2 {
            assert_not_given(reader.read(buf));
            assert_not_given(reader.read_vectored(&mut [std::io::IoSliceMut::new(buf)]));
            assert_not_given(reader.try_read(buf));
            assert_not_given(reader.read_timeout(buf, soon));
            reader.set_spin(Duration::ZERO);
        }
        assert_not_given(reader.available());
        assert_not_given(reader.capacity());
        assert_not_given(reader.set_capacity(4096));
        assert_not_given(reader.try_clone());
        assert_not_given(writer.write(b"x"));
        assert_not_given(writer.write_vectored(&[std::io::IoSlice::new(b"x"), std::io::IoSlice::new(b"y")]));
        assert_not_given(writer.try_write(b"x"));
        assert_not_given(writer.write_timeout(b"x", soon));
        assert_not_given(writer.write_atomic(b"x"));
        assert_not_given(writer.is_closed());
        assert_not_given(writer.capacity());
        assert_not_given(writer.try_clone());
        let socket = &pair.parent;
        assert_not_given(socket.send(b"x"));
        assert_not_given(socket.try_send(b"x"));
        assert_not_given(socket.send_timeout(b"x", soon));
        assert_not_given(socket.send_vectored(&[std::io::IoSlice::new(b"x")]));
        assert_not_given(socket.recv(buf));
        assert_not_given(socket.try_recv(buf));
        assert_not_given(socket.recv_timeout(buf, soon));
        assert_not_given(socket.recv_vec());
        assert_not_given(socket.peek_len());
        assert_not_given(socket.max_message());
        assert_not_given(socket.set_max_message(1000));
        assert_not_given(socket.peer_credentials());
        assert_not_given(socket.set_passcred(true));
        assert_not_given(socket.shutdown(std::net::Shutdown::Both));
        assert_not_given(socket.try_clone());
        assert_not_given(socket.recv_with(&mut Vec::new()));
        assert_not_given(socket.send_with(b"x", ()));
        assert_not_given(stream.child.read(buf));
        assert_not_given(stream.child.write(b"x"));
        assert_not_given(stream.child.try_read(buf));
        assert_not_given(stream.child.write_timeout(b"x", soon));
        assert_not_given(stream.child.recv_with(buf));
        assert_not_given(stream.child.send_with(b"x", ()));
        assert_not_given(stream.child.shutdown(std::net::Shutdown::Both));
        assert_not_given(stream.child.set_passcred(true));
        assert_not_given(stream.child.try_clone());
        assert_not_given(wait_any(&mut [Watch::readable(&reader)], None));
        assert_not_given(wait_any(&mut [Watch::writable(&writer)], Some(soon)));
        // An end of this process's own carries no severed one.
        let own = datagram_pair().unwrap();
        let refused = own.parent.send_with(b"x", reader).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let refused = ipc::Command::new("true").give("reader", refused.ends).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        assert!(format!("{writer:?}").contains("not given"));
        assert!(writer.close().is_ok(), "there is nothing wrong with letting go of it");
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_is_dropped_without_hurting_a_stranger() {
    let (reader, writer) = pipe().unwrap();
    let number = reader.as_raw_fd();
    let child = fork((), |()| {
        drop(reader);
        // The number is free now, and whoever gets it keeps it.
        let file = File::open("/dev/null").unwrap();
        assert_eq!(file.as_raw_fd(), number);
        drop(writer);
        file.metadata().unwrap();
        assert_eq!(open_ends(), 0);
        // A new end on a number that was severed is a whole one.
        drop(file);
        let (mut reader, writer) = pipe().unwrap();
        assert_eq!(reader.as_raw_fd(), number);
        writer.write_atomic(b"x").unwrap();
        reader.read_exact(&mut [0]).unwrap();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// As daemons close whatever they were started with.
fn an_end_on_a_severed_number_that_was_closed_by_hand_is_a_whole_one() {
    let (reader, _writer) = pipe().unwrap();
    let child = fork((), |()| {
        let number = reader.as_raw_fd();
        // SAFETY: the value that owns the number is forgotten.
        unsafe { libc::close(number) };
        std::mem::forget(reader);
        let (reader, writer) = pipe().unwrap();
        assert_eq!(reader.as_raw_fd(), number);
        let clone = reader.try_clone().unwrap();
        fork(clone, drop).unwrap().wait().unwrap();
        drop(writer);
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_is_a_way_to_nowhere() {
    let (reader, _writer) = pipe().unwrap();
    let child = fork((), |()| {
        let number = reader.as_raw_fd();
        let error = || std::io::Error::last_os_error().raw_os_error();
        // SAFETY: strings that end with nul, and a number that is open.
        unsafe {
            assert_eq!(libc::openat(number, c"..".as_ptr(), libc::O_RDONLY), -1);
            assert_eq!(error(), Some(libc::ENOTDIR));
            assert_eq!(libc::fchdir(number), -1);
            assert_eq!(error(), Some(libc::ENOTDIR));
        }
        for way in [File::options().read(true), File::options().write(true)] {
            let opened = way.open(format!("/proc/self/fd/{number}"));
            assert!(opened.is_err(), "the channel cannot be opened again: {opened:?}");
        }
        assert!(!target(std::process::id(), number).unwrap().contains("pipe:"));
        // And it does not pass for an end.
        let fd = OwnedFd::from(reader);
        assert!(matches!(PipeReader::try_from(fd).unwrap_err().error, Error::WrongKind { .. }));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_stays_severed_in_a_grandchild() {
    let (reader, writer) = pipe().unwrap();
    let child = fork((), |()| {
        let grandchild = fork((), |()| assert_not_given(reader.try_read(&mut [0]))).unwrap();
        assert_eq!(exit_code(&grandchild), 0);
        let grandchild = Fork::new().keep_all_ends().spawn((), |()| assert_not_given(writer.try_write(b"x"))).unwrap();
        assert_eq!(exit_code(&grandchild), 0);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_severed_end_cannot_be_given_on() {
    let (reader, writer) = pipe().unwrap();
    let child = fork((), |()| {
        let refused = fork((reader, writer), |_| ()).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        assert_not_given(refused.ends.0.try_read(&mut [0]));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_copy_of_a_severed_end_cannot_be_given_on() {
    let (_reader, writer) = pipe().unwrap();
    let child = fork((), |()| {
        let pair = datagram_pair().unwrap();
        let copy = || writer.as_fd().try_clone_to_owned().unwrap();
        let refused = pair.parent.send_with(b"", copy()).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        let refused = fork(copy(), |_| ()).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        let refused = ipc::Command::new("true").give("end", copy()).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
        // Not every descriptor with O_PATH is one.
        let path = |path| rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        pair.parent.send_with(b"", (path("/dev/null"), path("/"))).unwrap();
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_given_end_can_be_given_on() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let grandchild = fork(writer, |writer| writer.write_atomic(b"from far")).unwrap();
        assert_eq!(open_ends(), 0);
        exit_code(&grandchild) as u8
    })
    .unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from far");
    assert_eq!(exit_code(&child), 0);
}

struct Worker {
    jobs: PipeReader,
    results: PipeWriter,
}

impl Ends for Worker {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.jobs.each(visit);
        self.results.each(visit);
    }
}

fn everything_that_holds_ends_can_be_given() {
    let (jobs, jobs_writer) = pipe().unwrap();
    let (results_reader, results) = pipe().unwrap();
    let mut many: Vec<_> = (0..6).map(|_| pipe().unwrap().0).collect();
    let boxed: Box<dyn Ends> = Box::new(datagram_pair().unwrap().child);
    let file = File::open("/dev/null").unwrap();
    let array = [many.pop().unwrap(), many.pop().unwrap()];
    let fd = OwnedFd::from(many.pop().unwrap());
    let before = open_ends();
    let given = (
        Worker { jobs, results },
        many,
        array,
        Some(stream_pair().unwrap().parent),
        None::<PipeReader>,
        boxed,
        (file, fd),
    );
    let child = fork(given, |(worker, many, array, stream, _, _boxed, (file, fd))| {
        assert_eq!(open_ends(), 2 + 3 + 2 + 1 + 1);
        assert!(many.iter().chain(&array).all(|end| end.available().is_ok()));
        assert!(stream.unwrap().peer_credentials().is_ok());
        file.metadata().unwrap();
        PipeReader::try_from(fd).unwrap();
        assert_not_given(jobs_writer.is_closed());
        assert_not_given(results_reader.available());
        drop(worker);
    })
    .unwrap();
    assert_eq!(open_ends(), before - 8, "{}", open_ends());
    assert_eq!(exit_code(&child), 0);
}

fn a_borrowed_end_is_lent() {
    let (mut reader, mut writer) = pipe().unwrap();
    let child = fork(writer.as_fd(), |fd| {
        let mut writer = File::from(fd.try_clone_to_owned().unwrap());
        writer.write_all(b"child ").unwrap();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    writer.write_all(b"parent").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "child parent");
}

fn keep_all_severs_nothing() {
    let (mut reader, writer) = pipe().unwrap();
    let child = Fork::new().keep_all_ends().spawn((), |()| {
        assert_eq!(open_ends(), 2);
        writer.write_atomic(b"kept")
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    reader.read_exact(&mut [0; 4]).unwrap();
}

fn what_is_no_end_stays_open() {
    let (reader, writer) = pipe().unwrap();
    // Turned into plain descriptors, they are no ends any more.
    let (reader, writer) = (OwnedFd::from(reader), writer.into_raw_fd());
    assert_eq!(open_ends(), 0);
    let child = fork((), |()| {
        // SAFETY: the number was given up by the writer.
        let mut writer = unsafe { File::from_raw_fd(writer) };
        writer.write_all(b"still open").unwrap();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    // SAFETY: the number was given up by the writer.
    drop(unsafe { OwnedFd::from_raw_fd(writer) });
    assert_eq!(std::io::read_to_string(File::from(reader)).unwrap(), "still open");
}

/// The same descriptor at a number from there on.
fn moved(fd: OwnedFd, number: RawFd) -> OwnedFd {
    // SAFETY: an open descriptor; the copy is new.
    unsafe {
        let copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number);
        assert!(copy >= number, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(copy)
    }
}

/// Refuses whatever it is to be made of, and gives another descriptor back.
struct Swapper;

thread_local! {
    static OTHER: std::cell::Cell<Option<OwnedFd>> = const { std::cell::Cell::new(None) };
}

impl TryFrom<OwnedFd> for Swapper {
    type Error = ipc::FromFdError;

    fn try_from(_: OwnedFd) -> Result<Self, ipc::FromFdError> {
        Err(ipc::FromFdError { fd: OTHER.take().unwrap(), error: Error::WouldBlock })
    }
}

fn a_refusal_that_gives_another_one_back_makes_no_open_end_of_it() {
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"", &writer).unwrap();
    let child = fork(pair.child, |socket| {
        let mut received = socket.recv_with(&mut Vec::new()).unwrap().unwrap();
        OTHER.set(Some(OwnedFd::from(reader)));
        let before = open_ends();
        assert!(matches!(received.take::<Swapper>(), Err(Error::WouldBlock)));
        assert_eq!(open_ends(), before - 1, "the one that came is closed");
        assert!(matches!(received.take::<OwnedFd>(), Err(Error::NotGiven)));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    // One that programs would inherit is made an end like any other.
    let pair = datagram_pair().unwrap();
    pair.parent.send_with(b"", &writer).unwrap();
    // SAFETY: an open descriptor, and a new one that nobody else has.
    OTHER.set(Some(unsafe { OwnedFd::from_raw_fd(libc::dup(0)) }));
    let mut received = pair.child.recv_with(&mut Vec::new()).unwrap().unwrap();
    assert!(matches!(received.take::<Swapper>(), Err(Error::WouldBlock)));
    received.each(&mut |fd| assert_eq!(descriptor_flags(fd), libc::FD_CLOEXEC));
}

fn ends_with_high_numbers_are_severed() {
    let (reader, writer) = pipe().unwrap();
    let reader = PipeReader::try_from(moved(reader.into(), 1100)).unwrap();
    let writer = PipeWriter::try_from(moved(writer.into(), 10_000)).unwrap();
    let child = fork(reader, |mut reader| {
        assert_not_given(writer.try_write(b"x"));
        assert_eq!(open_ends(), 1);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 5);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    })
    .unwrap();
    writer.write_atomic(b"hello").unwrap();
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

static SELF_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(_: libc::c_int) {
    // SAFETY: write and getpid are async-signal-safe.
    unsafe {
        let pid = libc::getpid();
        libc::write(SELF_PIPE.load(SeqCst), (&raw const pid).cast(), size_of_val(&pid));
    }
}

fn a_handler_in_the_child_never_meets_an_end_of_the_parent() {
    // A handler must not wait for room.
    let (reader, writer) = ipc::pipe_with(ipc::PipeFlags::NONBLOCK).unwrap();
    SELF_PIPE.store(writer.as_raw_fd(), SeqCst);
    // SAFETY: a valid handler that does what is async-signal-safe.
    unsafe { libc::signal(libc::SIGUSR1, note as *const () as libc::sighandler_t) };
    // It sends a signal to the whole group, also to a child that was born this moment, all the time.
    let (stop, on) = pipe().unwrap();
    let storm = fork(stop, |stop| {
        // SAFETY: numbers only. The storm does not hit itself.
        unsafe {
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            while matches!(stop.try_read(&mut [0]), Err(Error::WouldBlock)) {
                libc::kill(0, libc::SIGUSR1);
            }
        }
    })
    .unwrap();
    let me = std::process::id();
    let mut seen = 0;
    let mut pids = vec![0; 1 << 16];
    for _ in 0..support::rounds(30) {
        let child = fork((), |()| ()).unwrap();
        assert_eq!(exit_code(&child), 0);
        while let Ok(len) = reader.try_read(&mut pids) {
            for pid in pids[..len].chunks(4) {
                assert_eq!(
                    u32::from_ne_bytes(pid.try_into().unwrap()),
                    me,
                    "the child's handler wrote into the parent's pipe"
                );
                seen += 1;
            }
        }
    }
    drop(on);
    assert_eq!(exit_code(&storm), 0);
    assert!(seen > 0, "signals were handled");
}

fn a_full_table_refuses_the_fork_and_gives_the_ends_back() {
    let (mut reader, writer) = pipe().unwrap();
    let full = limit_descriptors(0);
    let refused = fork(writer, |_| ()).unwrap_err();
    drop(full);
    match &refused.error {
        Error::System { source, .. } => assert_eq!(source.raw_os_error(), Some(libc::EMFILE)),
        other => panic!("{other:?}"),
    }
    refused.ends.write_atomic(b"still mine").unwrap();
    drop(refused.ends);
    assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "still mine");
}

fn one_free_place_is_enough() {
    let (reader, writer) = pipe().unwrap();
    for free in [1, 2, 3] {
        let table = limit_descriptors(free);
        let child = fork((), |()| assert_not_given(writer.try_write(b"x"))).unwrap();
        drop(table);
        assert_eq!(exit_code(&child), 0);
    }
    drop(writer);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

fn an_end_over_a_lowered_limit_refuses_the_fork() {
    let (reader, writer) = pipe().unwrap();
    let writer = PipeWriter::try_from(moved(writer.into(), 500)).unwrap();
    let mut before = 0;
    support::limit(libc::RLIMIT_NOFILE, |limit| {
        before = limit.rlim_cur;
        before
    });
    let mut given = reader;
    for limit in [400, 500] {
        support::limit(libc::RLIMIT_NOFILE, |_| limit);
        let refused = fork(given, |_| ()).unwrap_err();
        assert!(matches!(refused.error, Error::System { call: "dup3", .. }), "{limit}: {:?}", refused.error);
        given = refused.ends;
    }
    // Where it is given, it need not be severed.
    let child = fork(writer.as_fd(), |_| writer.write_atomic(b"x")).unwrap();
    assert_eq!(exit_code(&child), 0);
    given.try_read(&mut [0]).unwrap();
    support::limit(libc::RLIMIT_NOFILE, |_| 501);
    assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0);
    support::limit(libc::RLIMIT_NOFILE, |_| before);
}

fn clones_are_severed_like_any_end() {
    let (reader, writer) = pipe().unwrap();
    let clone = writer.try_clone().unwrap();
    let child = fork(writer, |writer| {
        assert_not_given(clone.try_write(b"x"));
        assert_eq!(open_ends(), 1);
        writer.write_atomic(b"x").unwrap();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    drop(clone);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
}

fn a_thousand_forks_leave_nothing_behind() {
    let (mut reader, writer) = pipe().unwrap();
    for round in 0..1000_u32 {
        let clone = writer.try_clone().unwrap();
        let child = fork(clone, |writer| writer.write_atomic(&round.to_ne_bytes())).unwrap();
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(u32::from_ne_bytes(bytes), round);
        assert!(child.wait().unwrap().success());
        assert_eq!(open_ends(), 2);
    }
    // Descriptors and zombies are what the harness looks for after every test.
}
