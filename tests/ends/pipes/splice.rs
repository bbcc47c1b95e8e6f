//! `splice_to`, `splice_from` and `tee` move bytes between a pipe and whatever else, and lose none.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::support::{
    self, RWF_NOWAIT, SOURCES, TARGETS, Trial, asleep_in, assert_times_out, bytes, disk_file, exit_code, fill,
    handle_signal, handled, memory_file, poll_until, read_all, read_some, refused, source, target, tcp_pair,
    with_interval_timer,
};
use ipc::{Error, Fork, PipeFlags, PipeReader, PipeWriter, fork, pipe, pipe_with, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_go_from_every_kind_into_a_pipe,
        bytes_go_from_a_pipe_to_every_kind,
        no_signal_loses_a_byte within 60,
        files_are_spliced_from_where_they_are_to_where_they_are,
        tee_leaves_the_bytes_and_says_how_many,
        a_splice_waits_for_bytes_and_for_room,
        the_end_ends_the_wait,
        a_killed_writer_is_the_end_and_a_killed_reader_an_error,
        nothing_and_everything_are_lengths,
        a_target_that_nobody_reads_is_closed_and_raises_nothing,
        a_splice_to_nobody_raises_nothing_after_a_reset,
        an_end_that_was_not_given_is_refused_on_either_side,
        an_end_that_does_not_wait_would_block,
        a_file_that_is_appended_to_is_refused,
        the_same_pipe_on_both_sides_is_refused,
        deadlines_are_kept_on_both_pipes_afterwards,
        what_is_spliced_from_a_file_is_the_file_itself,
        bytes_go_from_a_place_in_a_file_and_its_position_stays,
    ]
}

fn bytes_go_from_a_place_in_a_file_and_its_position_stays() {
    let mut file = memory_file();
    file.write_all(b"0123456789").unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(writer.splice_from_at(&file, 7, 100).unwrap(), 3);
    assert_eq!(writer.splice_from_at(&file, 0, 2).unwrap(), 2);
    assert_eq!(writer.splice_from_at(&file, 10, 100).unwrap(), 0, "EOF of the file");
    assert_eq!(file.stream_position().unwrap(), 4);
    let (other, _keep) = pipe().unwrap();
    assert_eq!(refused(writer.splice_from_at(&other, 1, 100)), ("splice", libc::ESPIPE));
    assert_eq!(refused(writer.splice_from_at(&file, u64::MAX, 100)), ("splice", libc::EINVAL));
    drop(writer);
    assert_eq!(read_all(reader), b"78901");
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert!(matches!(writer.splice_from_at(&file, 0, 1), Err(Error::Closed)));
}

/// The length of a long stream.
const LONG: usize = 300_003;

/// Splices until the end, each time at most so much.
#[track_caller]
fn splice_all(mut splice: impl FnMut(usize) -> ipc::Result<usize>, most: usize) -> usize {
    let mut total = 0;
    loop {
        match splice(most).unwrap() {
            0 => return total,
            len => {
                assert!(len <= most);
                total += len;
            }
        }
    }
}

#[track_caller]
fn assert_spliced_from(kind: &str, most: usize) {
    let sent = bytes(LONG);
    let (source, target) = (source(kind, &sent), target("a pipe"));
    let writer = PipeWriter::try_from(target.end.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(splice_all(|most| writer.splice_from(&source.end, most), most), LONG, "{kind}, {most} at a time");
    assert_eq!(writer.splice_from(&source.end, most).unwrap(), 0, "{kind}: the end stays the end");
    drop(writer);
    source.done();
    assert!(target.arrived() == sent, "{kind}, {most} at a time");
}

#[track_caller]
fn assert_spliced_to(kind: &str, most: usize) {
    let sent = bytes(LONG);
    let (source, target) = (source("a pipe", &sent), target(kind));
    let reader = PipeReader::try_from(source.end.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(splice_all(|most| reader.splice_to(&target.end, most), most), LONG, "{kind}, {most} at a time");
    assert_eq!(reader.splice_to(&target.end, most).unwrap(), 0, "{kind}: the end stays the end");
    drop(reader);
    source.done();
    let arrived = target.arrived();
    assert!(arrived == sent || kind == "/dev/null", "{kind}, {most} at a time: {} arrived", arrived.len());
}

fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.into_iter().filter(|kind| *kind != "a file that is appended to")
}

fn bytes_go_from_every_kind_into_a_pipe() {
    for kind in SOURCES {
        for most in [1000, 8192, usize::MAX] {
            assert_spliced_from(kind, most);
        }
    }
}

fn bytes_go_from_a_pipe_to_every_kind() {
    for kind in targets() {
        for most in [1000, 8192, usize::MAX] {
            assert_spliced_to(kind, most);
        }
    }
}

fn no_signal_loses_a_byte() {
    let before = handled();
    with_interval_timer(Duration::from_micros(100), || {
        SOURCES.into_iter().for_each(|kind| assert_spliced_from(kind, usize::MAX));
        targets().for_each(|kind| assert_spliced_to(kind, usize::MAX));
        // Waiting, on both sides, for longer than the timer's period.
        for _ in 0..20 {
            assert_a_splice_waits();
        }
    });
    assert!(handled() > before + 100);
}

fn files_are_spliced_from_where_they_are_to_where_they_are() {
    for (mut from, mut to) in [(disk_file(), disk_file()), (memory_file(), memory_file())] {
        from.write_all(b"not this but this").unwrap();
        from.seek(SeekFrom::Start(9)).unwrap();
        to.write_all(b"before ").unwrap();
        let (reader, writer) = pipe().unwrap();
        assert_eq!(writer.splice_from(&from, 3).unwrap(), 3);
        assert_eq!(from.stream_position().unwrap(), 12);
        assert_eq!(writer.splice_from(&from, usize::MAX).unwrap(), 5);
        assert_eq!(writer.splice_from(&from, usize::MAX).unwrap(), 0);
        assert_eq!(reader.splice_to(&to, usize::MAX).unwrap(), 8);
        assert_eq!(to.stream_position().unwrap(), 15);
        to.write_all(b" after").unwrap();
        to.rewind().unwrap();
        assert_eq!(std::io::read_to_string(to).unwrap(), "before but this after");
    }
}

fn tee_leaves_the_bytes_and_says_how_many() {
    let ((reader, mut writer), (copies, copy)) = (pipe().unwrap(), pipe().unwrap());
    writer.write_all(b"twice").unwrap();
    assert_eq!(reader.tee(&copy, 3).unwrap(), 3);
    assert_eq!(reader.tee(&copy, usize::MAX).unwrap(), 5);
    assert_eq!(reader.tee(&copy, 0).unwrap(), 0);
    assert_eq!(read_some(&copies, 8), b"twitwice");
    assert_eq!(read_some(&reader, 5), b"twice");
    // As much as there is room for.
    let queued = fill(&writer);
    copy.set_capacity(4096).unwrap();
    assert_eq!(reader.tee(&copy, usize::MAX).unwrap(), 4096);
    assert_eq!(reader.available().unwrap(), queued);
    drop(writer);
    read_some(&reader, queued);
    read_some(&copies, 4096);
    assert_eq!(reader.tee(&copy, usize::MAX).unwrap(), 0, "the end");
}

/// That a splice waits until a child writes, then until it reads.
fn assert_a_splice_waits() {
    let ((from, mut feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
    let queued = fill(&to);
    let me = std::process::id();
    let asleep = move || asleep_in(me, &[libc::SYS_splice]);
    let child = fork((feed.try_clone().unwrap(), drain), |(mut feed, drain)| {
        asleep();
        feed.write_all(b"hello").unwrap();
        asleep();
        assert_eq!(read_some(&drain, queued + 5)[queued..], *b"hello");
    });
    assert_eq!(from.splice_to(&to, usize::MAX).unwrap(), 5);
    assert_eq!(exit_code(&child.unwrap()), 0);
    feed.write_all(b"nobody reads this").unwrap();
}

fn a_splice_waits_for_bytes_and_for_room() {
    assert_a_splice_waits();
    let ((from, mut feed), (_drain, to)) = (pipe().unwrap(), pipe().unwrap());
    let me = std::process::id();
    let child = fork(feed.try_clone().unwrap(), |mut feed| {
        asleep_in(me, &[libc::SYS_tee]);
        feed.write_all(b"hello").unwrap();
    });
    assert_eq!(from.tee(&to, usize::MAX).unwrap(), 5);
    assert_eq!(exit_code(&child.unwrap()), 0);
    feed.write_all(b"more").unwrap();
}

fn the_end_ends_the_wait() {
    type Call = fn(&PipeReader, &PipeWriter) -> ipc::Result<usize>;
    let calls: [(Call, libc::c_long); 3] = [
        (|from, to| from.splice_to(to, 100), libc::SYS_splice),
        (|from, to| to.splice_from(from, 100), libc::SYS_splice),
        (|from, to| from.tee(to, 100), libc::SYS_tee),
    ];
    let me = std::process::id();
    for (call, number) in calls {
        // The last writer goes while we wait for bytes.
        let ((from, feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
        let child = fork(feed, |_feed| asleep_in(me, &[number]));
        assert_eq!(call(&from, &to).unwrap(), 0);
        assert_eq!(exit_code(&child.unwrap()), 0);
        drop(drain);
        // The last reader goes while we wait for room.
        let ((from, mut feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
        feed.write_all(b"hello").unwrap();
        fill(&to);
        let child = fork(drain, |_drain| asleep_in(me, &[number]));
        assert!(matches!(call(&from, &to), Err(Error::Closed)));
        assert_eq!(exit_code(&child.unwrap()), 0);
        assert_eq!(read_some(&from, 5), b"hello");
    }
}

fn a_killed_writer_is_the_end_and_a_killed_reader_an_error() {
    let ((from, feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
    let writer = fork(feed, |mut feed| {
        feed.write_all(b"last words").unwrap();
        std::process::abort()
    });
    assert_eq!(from.splice_to(&to, usize::MAX).unwrap(), 10);
    assert_eq!(from.splice_to(&to, usize::MAX).unwrap(), 0);
    writer.unwrap().wait().unwrap();
    let reader = fork(drain, |drain| {
        read_some(&drain, 10);
        std::process::abort()
    });
    let (from, mut feed) = pipe().unwrap();
    feed.write_all(b"hello").unwrap();
    reader.unwrap().wait().unwrap();
    assert!(matches!(from.splice_to(&to, usize::MAX), Err(Error::Closed)));
    assert_eq!(from.available().unwrap(), 5);
}

fn nothing_and_everything_are_lengths() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"hello").unwrap();
    let mut file = disk_file();
    file.write_all(b"at the end: ").unwrap();
    assert_eq!(reader.splice_to(&file, 0).unwrap(), 0);
    assert_eq!(writer.splice_from(&file, 0).unwrap(), 0);
    assert_eq!(reader.available().unwrap(), 5);
    // Its position and the length are more than a file can have.
    assert_eq!(reader.splice_to(&file, usize::MAX).unwrap(), 5);
    file.rewind().unwrap();
    assert_eq!(writer.splice_from(&file, usize::MAX).unwrap(), 17);
    drop(writer);
    assert_eq!(read_all(reader), b"at the end: hello");
}

/// Pipes and sockets that nobody reads from.
fn to_nobody() -> Vec<(&'static str, Box<dyn AsFd>)> {
    let (tcp_peer, mut tcp) = tcp_pair();
    drop(tcp_peer);
    // The first write tells the other machine, which answers with a reset.
    poll_until("the connection is reset", || {
        tcp.write(b"x").is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    });
    let (_, writer) = pipe().unwrap();
    let pair = stream_pair().unwrap();
    drop(pair.child);
    vec![("a pipe", Box::new(writer)), ("a unix stream", Box::new(pair.parent)), ("TCP", Box::new(tcp))]
}

#[track_caller]
fn assert_closed(from: &PipeReader) {
    for (kind, to) in to_nobody() {
        let result = from.splice_to(to, 100);
        assert!(matches!(result, Err(Error::Closed)), "{kind}: {result:?}");
    }
    let (_, writer) = pipe().unwrap();
    assert!(matches!(writer.splice_from(File::open("/proc/self/exe").unwrap(), 100), Err(Error::Closed)));
    assert!(matches!(from.tee(&writer, 100), Err(Error::Closed)));
    assert_eq!(from.available().unwrap(), 5, "nothing was taken");
}

fn holding_five() -> PipeReader {
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"hello").unwrap();
    reader
}

fn a_target_that_nobody_reads_is_closed_and_raises_nothing() {
    assert_closed(&holding_five()); // SIGPIPE is ignored
    let child = Fork::new().reset_signals().spawn((), |()| {
        assert_closed(&holding_five()); // it kills
        handle_signal(libc::SIGPIPE);
        assert_closed(&holding_five()); // it is handled
        assert_eq!(handled(), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_splice_to_nobody_raises_nothing_after_a_reset() {
    let from = holding_five(); // made while SIGPIPE was ignored
    let child = Fork::new().reset_signals().spawn(from, |from| {
        assert_closed(&from);
        assert_closed(&from.try_clone().unwrap());
        let from = PipeReader::try_from(std::os::fd::OwnedFd::from(from)).unwrap();
        assert_closed(&from);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn an_end_that_was_not_given_is_refused_on_either_side() {
    let (captured_reader, captured_writer) = pipe().unwrap();
    let captured_pair = stream_pair().unwrap();
    captured_writer.write_atomic(b"hello").unwrap();
    let child = fork((), |()| {
        let (from, (_drain, to)) = (holding_five(), pipe().unwrap());
        for result in [
            from.splice_to(&captured_writer, 100),
            from.splice_to(&captured_pair.child, 100),
            from.tee(&captured_writer, 100),
            captured_writer.splice_from(&from, 100),
            to.splice_from(&captured_reader, 100),
            to.splice_from(&captured_pair.child, 100),
            captured_reader.splice_to(&to, 100),
            captured_reader.tee(&to, 100),
        ] {
            assert!(matches!(result, Err(Error::NotGiven)), "{result:?}");
        }
        assert_eq!(from.available().unwrap(), 5);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert_eq!(captured_reader.available().unwrap(), 5);
}

fn an_end_that_does_not_wait_would_block() {
    for (from_flags, to_flags) in [(PipeFlags::NONBLOCK, PipeFlags::empty()), (PipeFlags::empty(), PipeFlags::NONBLOCK)]
    {
        let ((from, mut feed), (_drain, to)) = (pipe_with(from_flags).unwrap(), pipe_with(to_flags).unwrap());
        for result in [from.splice_to(&to, 100), to.splice_from(&from, 100), from.tee(&to, 100)] {
            assert!(matches!(result, Err(Error::WouldBlock)), "no bytes: {result:?}");
        }
        feed.write_all(b"hello").unwrap();
        fill(&to);
        for result in [from.splice_to(&to, 100), to.splice_from(&from, 100), from.tee(&to, 100)] {
            assert!(matches!(result, Err(Error::WouldBlock)), "no room: {result:?}");
        }
        assert_eq!(from.available().unwrap(), 5);
    }
}

fn a_file_that_is_appended_to_is_refused() {
    let target = target("a file that is appended to");
    let from = holding_five();
    assert_eq!(refused(from.splice_to(&target.end, 100)), ("splice", libc::EINVAL));
    assert_eq!(from.available().unwrap(), 5);
    assert_eq!(target.arrived(), b"");
}

fn the_same_pipe_on_both_sides_is_refused() {
    let (reader, writer) = pipe().unwrap();
    writer.write_atomic(b"hello").unwrap();
    assert_eq!(refused(reader.splice_to(&writer, 100)), ("splice", libc::EINVAL));
    assert_eq!(refused(writer.splice_from(&reader, 100)), ("splice", libc::EINVAL));
    assert_eq!(refused(reader.tee(&writer, 100)), ("tee", libc::EINVAL));
    assert_eq!(reader.available().unwrap(), 5);
}

fn deadlines_are_kept_on_both_pipes_afterwards() {
    let ((from, mut feed), (drain, to)) = (pipe().unwrap(), pipe().unwrap());
    feed.write_all(b"hello").unwrap();
    assert_eq!(from.splice_to(&to, 100).unwrap(), 5);
    assert_eq!(to.splice_from(File::open("/proc/self/exe").unwrap(), 100).unwrap(), 100);
    // The kernel has nothing better to offer.
    let mut byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: one part with room for one byte, and one byte.
    let refused = unsafe {
        [
            libc::preadv2(from.as_raw_fd(), &part, 1, -1, RWF_NOWAIT as i32),
            libc::pwritev2(to.as_raw_fd(), &part, 1, -1, RWF_NOWAIT as i32),
        ]
    };
    assert_eq!(refused, [-1, -1]);

    let timeout = Duration::from_millis(5);
    assert!(matches!(from.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    assert_times_out("to read", timeout, |timeout| from.read_timeout(&mut [0; 8], timeout));
    feed.write_all(b"again").unwrap();
    assert_eq!(from.read_timeout(&mut [0; 8], timeout).unwrap(), 5);
    let queued = fill(&to);
    assert!(matches!(to.try_write(b"x"), Err(Error::WouldBlock)));
    assert_times_out("to write", timeout, |timeout| to.write_timeout(b"x", timeout));
    assert_eq!(drain.available().unwrap(), queued + 105);
}

fn what_is_spliced_from_a_file_is_the_file_itself() {
    let mut file = memory_file();
    file.write_all(&[b'a'; 4096]).unwrap();
    file.rewind().unwrap();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(writer.splice_from(&file, usize::MAX).unwrap(), 4096);
    file.rewind().unwrap();
    file.write_all(&[b'b'; 4096]).unwrap();
    drop(writer);
    assert!(read_all(reader) == [b'b'; 4096], "as the documentation warns");
}
