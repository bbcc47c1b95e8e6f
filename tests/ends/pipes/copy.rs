//! `copy` moves every byte from any end or file to any other, once and in order, whichever way the kernel lets it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support::{
    self, SOURCES, TARGETS, Trial, asleep_in, assert_times_out, bytes, disk_file, exit_code, fill, handled,
    memory_file, read_all, read_some, refuse_calls, source, target, tcp_pair, with_interval_timer,
};
use ipc::{Error, PipeFlags, fork, pipe, pipe_with, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_copy_that_waits_for_a_socket_holds_up_nobody,
        a_copy_that_waits_for_room_in_a_socket_holds_up_nobody,
        everything_arrives_from_every_kind_at_every_kind within 60,
        everything_arrives_where_the_fast_ways_are_refused within 120,
        nothing_is_lost_under_a_storm_of_signals within 60,
        files_that_do_not_say_their_size_are_copied_whole,
        a_file_is_not_at_its_end_because_a_fast_way_says_so,
        a_file_that_grows_is_copied_as_far_as_it_goes,
        files_are_copied_from_where_they_are_to_where_they_are,
        more_than_four_gigabytes_are_counted within 60,
        what_arrives_is_what_the_file_held,
        an_end_that_does_not_wait_is_waited_for needs [NoWait],
        a_copy_with_nothing_to_do_sleeps,
        a_way_that_is_refused_in_the_middle_loses_nothing,
        deadlines_are_kept_on_pipes_that_were_copied,
        a_copy_leaves_both_ends_open,
        a_copy_up_to_a_length_takes_no_byte_more,
    ]
}

const LARGE: usize = (1 << 20) + 3;

/// The ways that `copy` has besides reading and writing.
const FAST_WAYS: [libc::c_long; 3] = [libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_splice];

#[track_caller]
fn assert_arrives(from: &[&str], to: &[&str], sizes: &[usize]) {
    for from in from {
        for to in to {
            for size in sizes {
                let what = format!("{size} bytes from {from} to {to}");
                let sent = bytes(*size);
                let (source, target) = (source(from, &sent), target(to));
                assert_eq!(ipc::copy(&source.end, &target.end).unwrap(), *size as u64, "{what}");
                source.done();
                let arrived = target.arrived();
                assert!(arrived == sent || *to == "/dev/null", "{what}: {} arrived", arrived.len());
            }
        }
    }
}

fn everything_arrives_from_every_kind_at_every_kind() {
    assert_arrives(&SOURCES, &TARGETS, &[0, 1, 4096, LARGE]);
}

fn a_copy_up_to_a_length_takes_no_byte_more() {
    let sent = bytes(10_000);
    for refused in [&[][..], &FAST_WAYS] {
        let child = fork((), |()| {
            refuse_calls(refused, libc::ENOSYS);
            for from in SOURCES {
                for len in [0, 1, 4096, 9_999, 10_000, 10_001, u64::MAX] {
                    let what = format!("{len} bytes of {from}");
                    let (mut source, target) = (source(from, &sent), target("a pipe"));
                    let taken = sent.len().min(len as usize);
                    assert_eq!(ipc::copy_up_to(&source.end, &target.end, len).unwrap(), taken as u64, "{what}");
                    assert!(target.arrived() == sent[..taken], "{what}");
                    // The rest can be read from where the copy stopped.
                    if taken < sent.len() {
                        let (rest, writer) = pipe().unwrap();
                        assert_eq!(ipc::copy(&mut source.end, &writer).unwrap(), (sent.len() - taken) as u64, "{what}");
                        drop(writer);
                        assert!(read_all(rest) == sent[taken..], "{what}: the rest");
                    }
                    source.done();
                }
            }
        });
        assert_eq!(child.unwrap().wait().unwrap().code(), Some(0), "without {refused:?}");
    }
}

fn everything_arrives_where_the_fast_ways_are_refused() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
        let child = fork((), |()| {
            refuse_calls(&FAST_WAYS, errno);
            match errno {
                libc::ENOSYS => assert_arrives(&SOURCES, &TARGETS, &[1, LARGE]),
                _ => assert_arrives(&["a file", "a pipe"], &["a file", "a pipe", "/dev/null"], &[LARGE]),
            }
        });
        assert_eq!(child.unwrap().wait().unwrap().code(), Some(0), "refused with {errno}");
    }
}

fn nothing_is_lost_under_a_storm_of_signals() {
    let before = handled();
    with_interval_timer(Duration::from_micros(100), || assert_arrives(&SOURCES, &TARGETS, &[LARGE]));
    assert!(handled() > before + 100);
}

fn files_that_do_not_say_their_size_are_copied_whole() {
    for path in ["/proc/filesystems", "/proc/self/auxv", "/proc/self/limits", "/proc/self/cmdline"] {
        let expected = std::fs::read(path).unwrap();
        assert!(!expected.is_empty());
        for to in TARGETS {
            let target = target(to);
            let copied = ipc::copy(File::open(path).unwrap(), &target.end).unwrap();
            assert_eq!(copied, expected.len() as u64, "{path} to {to}");
            let arrived = target.arrived();
            assert!(arrived == expected || to == "/dev/null", "{path} to {to}");
        }
    }
}

fn a_file_is_not_at_its_end_because_a_fast_way_says_so() {
    // Kernels before 5.19 say that there is nothing in a file of /proc, and any kernel of a file that grows a moment later.
    let child = fork((), |()| {
        refuse_calls(&FAST_WAYS, 0);
        assert_arrives(&["a file", "a file in memory"], &TARGETS, &[0, LARGE]);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_file_that_grows_is_copied_as_far_as_it_goes() {
    for from in [disk_file(), memory_file()] {
        let growing = File::options().append(true).open(format!("/proc/self/fd/{}", from.as_raw_fd())).unwrap();
        let writer = fork(growing, |mut growing| (0..2000).for_each(|_| growing.write_all(&[7; 1000]).unwrap()));
        let mut to = memory_file();
        let mut copied = 0;
        while copied < 2_000_000 {
            copied += ipc::copy(&from, &to).unwrap();
        }
        assert_eq!(exit_code(&writer.unwrap()), 0);
        assert_eq!((copied, ipc::copy(&from, &to).unwrap()), (2_000_000, 0));
        let mut arrived = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut arrived).unwrap();
        assert!(arrived == vec![7; 2_000_000]);
    }
}

fn files_are_copied_from_where_they_are_to_where_they_are() {
    for refused in [false, true] {
        let child = fork((), |()| {
            if refused {
                refuse_calls(&FAST_WAYS, libc::ENOSYS);
            }
            for make in [disk_file, memory_file] {
                let (mut from, mut to) = (make(), make());
                from.write_all(b"not this but this").unwrap();
                from.seek(SeekFrom::Start(9)).unwrap();
                to.write_all(b"before ").unwrap();
                assert_eq!(ipc::copy(&from, &to).unwrap(), 8);
                assert_eq!(from.stream_position().unwrap(), 17);
                to.write_all(b" after").unwrap(); // where the copy stopped
                to.rewind().unwrap();
                assert_eq!(std::io::read_to_string(&to).unwrap(), "before but this after");
            }
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn more_than_four_gigabytes_are_counted() {
    const LEN: u64 = (5 << 30) + 1;
    let from = memory_file();
    from.set_len(LEN).unwrap(); // no memory, as nothing is written to it
    let to = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(ipc::copy(from, to).unwrap(), LEN);
}

fn what_arrives_is_what_the_file_held() {
    for mut from in [disk_file(), memory_file()] {
        let (reader, writer) = pipe().unwrap();
        let mut pair = stream_pair().unwrap();
        let (mut reading, writing) = tcp_pair();
        for to in [&writer as &dyn std::os::fd::AsFd, &pair.child, &writing] {
            from.rewind().unwrap();
            from.write_all(&[b'a'; 10_000]).unwrap();
            from.rewind().unwrap();
            assert_eq!(ipc::copy(&from, to).unwrap(), 10_000);
            // Nobody has read it yet.
            from.rewind().unwrap();
            from.write_all(&[b'b'; 10_000]).unwrap();
        }
        drop((writer, pair.child, writing));
        for reading in [&mut &reader as &mut dyn Read, &mut pair.parent, &mut reading] {
            let mut arrived = Vec::new();
            reading.read_to_end(&mut arrived).unwrap();
            assert!(arrived == [b'a'; 10_000]);
        }
    }
}

fn an_end_that_does_not_wait_is_waited_for() {
    for refused in [false, true] {
        let child = fork((), |()| {
            if refused {
                refuse_calls(&FAST_WAYS, libc::ENOSYS);
            }
            // Each of the two waits, or does not.
            for (from, to) in [(true, true), (true, false), (false, true)] {
                let flags = |nonblock| if nonblock { PipeFlags::NONBLOCK } else { PipeFlags::empty() };
                assert_pipes_are_waited_for(flags(from), flags(to));
                assert_sockets_are_waited_for(from, to);
            }
        });
        assert_eq!(exit_code(&child.unwrap()), 0, "refused: {refused}");
    }
}

fn assert_pipes_are_waited_for(from: PipeFlags, to: PipeFlags) {
    let ((from, feed), (drain, to)) = (pipe_with(from).unwrap(), pipe_with(to).unwrap());
    to.set_capacity(4096).unwrap();
    let sent = bytes(300_000);
    let me = std::process::id();
    let feeder = fork(feed, |feed| {
        for part in sent.chunks(50_000) {
            asleep_in(me, &[libc::SYS_ppoll, libc::SYS_splice, libc::SYS_read]);
            let mut part = part;
            while !part.is_empty() {
                let written = feed.write_timeout(part, Duration::MAX).unwrap();
                part = &part[written..];
            }
        }
    });
    let drainer = fork(drain, |drain| {
        let mut arrived = Vec::<u8>::new();
        let mut buf = [0; 7000];
        loop {
            match drain.read_timeout(&mut buf, Duration::MAX).unwrap() {
                0 => return assert!(arrived == sent),
                len => arrived.extend(&buf[..len]),
            }
        }
    });
    assert_eq!(ipc::copy(from, to).unwrap(), sent.len() as u64);
    assert_eq!((exit_code(&feeder.unwrap()), exit_code(&drainer.unwrap())), (0, 0));
}

fn assert_sockets_are_waited_for(from_nonblocking: bool, to_nonblocking: bool) {
    for kind in ["a unix stream", "a TCP connection"] {
        let sent = bytes(LARGE);
        let (source, target) = (source(kind, &sent), target(kind));
        for (fd, nonblocking) in [(source.end.as_fd(), from_nonblocking), (target.end.as_fd(), to_nonblocking)] {
            let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
            // SAFETY: an open descriptor and a flag.
            assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }, 0);
        }
        assert_eq!(ipc::copy(&source.end, &target.end).unwrap(), sent.len() as u64, "{kind}");
        source.done();
        assert!(target.arrived() == sent, "{kind}");
    }
}

fn a_copy_with_nothing_to_do_sleeps() {
    for flags in [PipeFlags::empty(), PipeFlags::NONBLOCK] {
        let ((from, mut feed), (drain, to)) = (pipe_with(flags).unwrap(), pipe_with(flags).unwrap());
        let copier = fork((from, to), |(from, to)| assert_eq!(ipc::copy(from, to).unwrap(), 80_001)).unwrap();
        let sleeps = || asleep_in(copier.id(), &[libc::SYS_splice, libc::SYS_ppoll]);
        sleeps(); // nothing to read
        feed.write_all(b"x").unwrap();
        assert_eq!(drain.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 1);
        sleeps();
        for _ in 0..20 {
            assert_eq!(feed.write_timeout(&[1; 4000], Duration::MAX).unwrap(), 4000);
        }
        sleeps(); // no room
        drop(feed);
        let mut left = 80_000;
        while left > 0 {
            left -= drain.read_timeout(&mut [0; 8192], Duration::MAX).unwrap();
        }
        assert_eq!(drain.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 0);
        assert_eq!(exit_code(&copier), 0);
    }
}

fn a_way_that_is_refused_in_the_middle_loses_nothing() {
    // As soon as the file is one that is appended to, the kernel does not splice to it any more.
    let ((from, mut feed), mut to) = (pipe().unwrap(), disk_file());
    let shared = to.try_clone().unwrap();
    let copier = fork((from, shared), |(from, to)| assert_eq!(ipc::copy(from, to).unwrap(), 200_000)).unwrap();
    let sent = bytes(200_000);
    for part in sent.chunks(20_000) {
        feed.write_all(part).unwrap();
        asleep_in(copier.id(), &[libc::SYS_splice, libc::SYS_read]);
        // SAFETY: an open descriptor and a flag.
        assert_eq!(unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) }, 0);
    }
    drop(feed);
    assert_eq!(exit_code(&copier), 0);
    let mut arrived = Vec::new();
    to.rewind().unwrap();
    to.read_to_end(&mut arrived).unwrap();
    assert!(arrived == sent);
}

fn deadlines_are_kept_on_pipes_that_were_copied() {
    let (from, mut feed) = pipe().unwrap();
    let (drain, to) = pipe().unwrap();
    let clone = from.try_clone().unwrap();
    feed.write_all(b"passed on").unwrap();
    let second_feed = feed.try_clone().unwrap();
    let copier = fork((from, to.try_clone().unwrap()), |(from, to)| {
        assert_eq!(ipc::copy(from, to).unwrap(), 9);
    });
    assert_eq!(read_some(&drain, 9), b"passed on");
    drop((feed, second_feed));
    assert_eq!(exit_code(&copier.unwrap()), 0);
    assert_eq!(clone.try_read(&mut [0; 8]).unwrap(), 0);
    assert!(matches!(drain.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
    let timeout = Duration::from_millis(5);
    assert_times_out("to read", timeout, |timeout| drain.read_timeout(&mut [0; 8], timeout));
    let queued = fill(&to);
    assert_times_out("to write", timeout, |timeout| to.write_timeout(&[1; 8], timeout));
    assert_eq!(drain.available().unwrap(), queued);
}

fn a_copy_leaves_both_ends_open() {
    let ((from, feed), (drain, mut to)) = (pipe().unwrap(), pipe().unwrap());
    drop(feed);
    assert_eq!(ipc::copy(&from, &to).unwrap(), 0);
    to.write_all(b"and more").unwrap();
    drop(to);
    assert_eq!(read_all(drain), b"and more");
    assert_eq!(ipc::copy(&from, File::options().write(true).open("/dev/null").unwrap()).unwrap(), 0);
}

/// splice(2) would wait with the pipe's lock held.
fn a_copy_that_waits_for_a_socket_holds_up_nobody() {
    let mut pair = ipc::stream_pair().unwrap();
    let (mut reader, writer) = ipc::pipe().unwrap();
    let child = ipc::fork((pair.child, writer), |(from, to)| ipc::copy(from, to).map(drop)).unwrap();
    pair.parent.write_all(b"hello").unwrap();
    let mut buf = [0; 5];
    reader.read_exact(&mut buf).unwrap();
    support::asleep_in(child.id(), &[libc::SYS_read, libc::SYS_recvfrom, libc::SYS_ppoll, libc::SYS_splice]);
    assert!(matches!(reader.try_read(&mut buf), Err(ipc::Error::WouldBlock)));
    drop(pair.parent);
    assert_eq!(reader.read(&mut buf).unwrap(), 0);
    assert_eq!(support::exit_code(&child), 0);
}

/// The same the other way round: the lock would be that of the pipe which is copied from.
fn a_copy_that_waits_for_room_in_a_socket_holds_up_nobody() {
    let pair = ipc::stream_pair().unwrap();
    let mut sent = 0;
    while let Ok(count) = pair.child.try_write(&[0; 4096]) {
        sent += count;
    }
    let (reader, mut writer) = ipc::pipe().unwrap();
    let child = ipc::fork((reader, pair.child), |(from, to)| ipc::copy(from, to).map(drop)).unwrap();
    writer.write_all(b"hello").unwrap();
    support::asleep_in(child.id(), &[libc::SYS_write, libc::SYS_sendto, libc::SYS_ppoll, libc::SYS_splice]);
    assert_eq!(writer.try_write(b", world").unwrap(), 7);
    drop(writer);
    let arrived = std::io::read_to_string(&pair.parent).unwrap();
    assert_eq!((arrived.len(), &arrived[sent..]), (sent + 12, "hello, world"));
    assert_eq!(support::exit_code(&child), 0);
}
