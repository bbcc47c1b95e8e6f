//! No end leaks into a program that is started (P7), and what is given arrives at its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use crate::support::{
    self, Trial, closed_standard_descriptors, descriptor_flags, exit_code, limit_descriptors, read_all,
};
use ipc::{Command, Error, PipeReader, PipeWriter, datagram_pair, fork, open_ends, pipe, stream_pair};

/// The argument that makes this program list its descriptors, and do nothing else.
const LIST: &str = "list-my-descriptors";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::args().nth(1).as_deref() != Some(LIST) {
        return None;
    }
    list();
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_program_started_by_std_inherits_no_end,
        a_program_started_by_std_inherits_no_severed_end,
        no_end_leaks_while_another_thread_starts_programs within 60,
        a_program_gets_what_it_is_given_and_nothing_else,
        a_named_end_keeps_its_number,
        two_numbers_are_swapped,
        three_numbers_change_round,
        a_named_end_makes_room_for_a_number,
        a_number_that_is_open_here_for_something_else_is_free_there,
        the_standard_numbers_can_be_given_at,
        any_permutation_comes_right within 60,
        the_same_end_can_be_given_twice,
        a_high_number_comes_right,
        closed_standard_descriptors_do_no_harm,
        a_full_table_gives_everything_back,
        an_end_that_was_not_given_here_is_not_given_on,
        programs_that_start_at_the_same_moment_keep_to_their_own within 120,
        a_large_process_starts_programs_too,
        what_was_given_is_closed_here,
    ]
}

/// Number, access mode and target of each descriptor, as a program has them.
type Table = BTreeMap<RawFd, String>;

fn list() {
    println!("{}", std::env::var("IPC_ENDS").unwrap_or_default());
    for (number, what) in own_table() {
        println!("{number} {what}");
    }
}

/// The numbers above 2.
fn own_table() -> Table {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<RawFd> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.into_iter().filter(|number| *number > 2).filter_map(|number| Some((number, what(number)?))).collect()
}

/// `None`: it is not open.
fn what(number: RawFd) -> Option<String> {
    // SAFETY: an integer that may be closed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    if flags < 0 {
        return None;
    }
    let mode = ["r", "w", "rw", "?"][(flags & libc::O_ACCMODE) as usize];
    Some(format!("{mode} {}", std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?.display()))
}

fn what_is(fd: &impl AsRawFd) -> String {
    what(fd.as_raw_fd()).unwrap()
}

fn me() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

fn parse(output: &[u8]) -> (Table, String) {
    let text = std::str::from_utf8(output).unwrap();
    let (described, table) = text.split_once('\n').unwrap();
    let parts = table.lines().map(|line| line.split_once(' ').unwrap());
    (parts.map(|(number, what)| (number.parse().unwrap(), what.to_owned())).collect(), described.to_owned())
}

/// What a program has that std starts.
fn started_by_std() -> Table {
    let output = std::process::Command::new(me()).arg(LIST).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    parse(&output.stdout).0
}

/// What a program has that is given these, and how they are described to it.
fn started_with(give: impl FnOnce(Command) -> Command) -> (Table, String) {
    let output = give(Command::new(me()).arg(LIST)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    parse(&output.stdout)
}

#[track_caller]
fn assert_same(found: &Table, before: &Table, and: &[(RawFd, String)]) {
    let mut expected = before.clone();
    expected.extend(and.iter().cloned());
    assert_eq!(*found, expected);
}

/// Ends that came about in every way that there is.
fn every_kind_of_end() -> Vec<OwnedEnd> {
    let mut ends: Vec<OwnedEnd> = Vec::new();
    let (reader, writer) = pipe().unwrap();
    let (datagrams, streams) = (datagram_pair().unwrap(), stream_pair().unwrap());
    ends.push(Box::new(reader.try_clone().unwrap()));
    ends.push(Box::new(datagrams.child.try_clone().unwrap()));
    // Received on both kinds of socket, taken and not.
    datagrams.parent.send_with(b"ends", [reader.try_clone().unwrap(), reader.try_clone().unwrap()]).unwrap();
    let mut received = datagrams.child.recv_with(&mut Vec::new()).unwrap().unwrap();
    ends.push(Box::new(received.take::<PipeReader>().unwrap()));
    ends.push(Box::new(received));
    streams.parent.send_with(b"e", writer.try_clone().unwrap()).unwrap();
    ends.push(Box::new(streams.child.recv_with(&mut [0]).unwrap().1));
    // Adopted, from descriptors that a program would inherit.
    ends.push(Box::new(PipeReader::try_from(inheritable(reader.try_clone().unwrap())).unwrap()));
    ends.push(Box::new(PipeWriter::from(std::io::PipeWriter::from(inheritable(writer.try_clone().unwrap())))));
    let (one, other) = UnixStream::pair().unwrap();
    ends.push(Box::new(ipc::StreamSocket::from(UnixStream::from(inheritable(one)))));
    ends.push(Box::new(ipc::StreamSocket::try_from(inheritable(other)).unwrap()));
    let number = inheritable(reader.try_clone().unwrap()).into_raw_fd();
    // SAFETY: the number was just given up.
    ends.push(Box::new(unsafe { PipeReader::from_raw_fd(number) }));
    ends.push(Box::new((reader, writer)));
    ends.push(Box::new((datagrams.parent, datagrams.child, streams.parent, streams.child)));
    ends
}

type OwnedEnd = Box<dyn std::any::Any>;

fn inheritable(fd: impl Into<OwnedFd>) -> OwnedFd {
    let fd = fd.into();
    // SAFETY: an open descriptor.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    fd
}

fn a_program_started_by_std_inherits_no_end() {
    let before = started_by_std();
    let ends = every_kind_of_end();
    assert!(open_ends() >= 15, "{}", open_ends());
    assert_eq!(started_by_std(), before);
    drop(ends);
}

fn a_program_started_by_std_inherits_no_severed_end() {
    let before = started_by_std();
    let ends = every_kind_of_end();
    let child = fork((), |()| assert_eq!(started_by_std(), before)).unwrap();
    assert_eq!(exit_code(&child), 0);
    drop(ends);
}

fn no_end_leaks_while_another_thread_starts_programs() {
    let before = started_by_std();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let (reader, writer) = pipe().unwrap();
                let (datagrams, streams) = (datagram_pair().unwrap(), stream_pair().unwrap());
                datagrams.parent.send_with(b"ends", (reader, writer)).unwrap();
                let received = datagrams.child.recv_with(&mut Vec::new()).unwrap().unwrap();
                streams.parent.send_with(b"e", datagrams.child).unwrap();
                drop((streams.child.recv_with(&mut [0]).unwrap().1, received));
            }
        });
        for _ in 0..support::rounds(10) {
            let outcome = std::panic::catch_unwind(|| assert_eq!(started_by_std(), before));
            if outcome.is_err() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            outcome.unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn a_program_gets_what_it_is_given_and_nothing_else() {
    let before = started_by_std();
    let others = every_kind_of_end();
    let (reader, writer) = pipe().unwrap();
    let (number, given) = (writer.as_raw_fd(), what_is(&writer));
    let (found, described) = started_with(|command| command.give("results", writer));
    assert_same(&found, &before, &[(number, given)]);
    assert!(described.starts_with(&format!("results:{number}:")), "{described}");
    drop((reader, others));

    let nothing = started_with(|command| command);
    assert_eq!(nothing, (before, String::new()));
}

fn a_named_end_keeps_its_number() {
    let before = started_by_std();
    let pair = stream_pair().unwrap();
    let (reader, _writer) = pipe().unwrap();
    let expected = [(pair.child.as_raw_fd(), what_is(&pair.child)), (reader.as_raw_fd(), what_is(&reader))];
    let (found, _) = started_with(|command| command.give("socket", pair.child).give("reader", reader));
    assert_same(&found, &before, &expected);
}

fn two_numbers_are_swapped() {
    let before = started_by_std();
    let (reader, writer) = pipe().unwrap();
    let (one, two) = (reader.as_raw_fd(), writer.as_raw_fd());
    let expected = [(one, what_is(&writer)), (two, what_is(&reader))];
    let (found, described) = started_with(|command| command.give_at(two, reader).give_at(one, writer));
    assert_same(&found, &before, &expected);
    assert_eq!(described, "", "a number is no name");
}

fn three_numbers_change_round() {
    let before = started_by_std();
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let numbers = [reader.as_raw_fd(), writer.as_raw_fd(), pair.child.as_raw_fd()];
    let expected = [(numbers[1], what_is(&reader)), (numbers[2], what_is(&writer)), (numbers[0], what_is(&pair.child))];
    let (found, _) = started_with(|command| {
        command.give_at(numbers[1], reader).give_at(numbers[2], writer).give_at(numbers[0], pair.child)
    });
    assert_same(&found, &before, &expected);
}

fn a_named_end_makes_room_for_a_number() {
    let before = started_by_std();
    for named_first in [true, false] {
        let (reader, writer) = pipe().unwrap();
        let wanted = reader.as_raw_fd();
        let (named, placed) = (what_is(&reader), what_is(&writer));
        let (mut found, described) = started_with(|command| match named_first {
            true => command.give("named", reader).give_at(wanted, writer),
            false => command.give_at(wanted, writer).give("named", reader),
        });
        assert_eq!(found.remove(&wanted), Some(placed));
        let number: RawFd = described.split(':').nth(1).unwrap().parse().unwrap();
        assert_ne!(number, wanted);
        assert_eq!(found.remove(&number), Some(named), "where it is described");
        assert_eq!(found, before);
    }
}

fn a_number_that_is_open_here_for_something_else_is_free_there() {
    let before = started_by_std();
    let (reader, other) = pipe().unwrap();
    let file = File::open("/dev/null").unwrap();
    for number in [file.as_raw_fd(), other.as_raw_fd()] {
        let given = reader.try_clone().unwrap();
        let (here, expected) = (what(number), what_is(&given));
        let (found, _) = started_with(|command| command.give_at(number, given));
        assert_same(&found, &before, &[(number, expected)]);
        assert_eq!(what(number), here, "and is untouched here");
    }
    assert_eq!(descriptor_flags(&file), libc::FD_CLOEXEC);
    assert_eq!(descriptor_flags(&other), libc::FD_CLOEXEC);
}

fn the_standard_numbers_can_be_given_at() {
    let (from, mut to) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let (errors, error_writer) = pipe().unwrap();
    to.write_all(b"through the numbers").unwrap();
    drop(to);
    let script = "cat; echo complaint >&2";
    let child = Command::new("sh")
        .args(["-c", script])
        .give_at(0, from)
        .give_at(1, writer)
        .give_at(2, error_writer)
        .spawn()
        .unwrap();
    assert_eq!(read_all(reader), b"through the numbers");
    assert_eq!(read_all(errors), b"complaint\n");
    assert_eq!(exit_code(&child), 0);
}

fn any_permutation_comes_right() {
    let before = started_by_std();
    let mut random = 1_u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    for _ in 0..support::rounds(20) {
        let channels: Vec<_> = (0..5).map(|_| pipe().unwrap()).collect();
        let mut numbers: Vec<RawFd> =
            channels.iter().flat_map(|(reader, writer)| [reader.as_raw_fd(), writer.as_raw_fd()]).collect();
        // Some of those that are wanted are free here, and the first that a copy would get.
        let last = *numbers.iter().max().unwrap();
        numbers.extend(last + 1..last + 10);
        for i in (1..numbers.len()).rev() {
            numbers.swap(i, below(i + 1));
        }
        let mut command = Command::new(me()).arg(LIST);
        let (mut placed, mut named) = (Vec::new(), BTreeMap::new());
        for (i, (reader, writer)) in channels.into_iter().enumerate() {
            for (end, what) in [(OwnedFd::from(reader), "r"), (writer.into(), "w")] {
                let target = what_is(&end);
                if below(3) == 0 {
                    let name = format!("{what}{i}");
                    command = command.give(name.clone(), end);
                    named.insert(name, target);
                } else {
                    let number = numbers.pop().unwrap();
                    command = command.give_at(number, end);
                    placed.push((number, target));
                }
            }
        }
        let output = command.output().unwrap();
        let (mut found, described) = parse(&output.stdout);
        for given in described.split(',').filter(|given| !given.is_empty()) {
            let mut fields = given.split(':');
            let (name, number) = (fields.next().unwrap(), fields.next().unwrap().parse().unwrap());
            assert_eq!(found.remove(&number), named.remove(name), "{name}");
        }
        assert!(named.is_empty(), "{named:?} were not described");
        assert_same(&found, &before, &placed);
    }
}

fn the_same_end_can_be_given_twice() {
    let before = started_by_std();
    let (reader, _writer) = pipe().unwrap();
    // SAFETY: it stays open for the length of the test.
    let lent = unsafe { BorrowedFd::borrow_raw(reader.as_raw_fd()) };
    let (found, described) = started_with(|command| command.give("one", lent).give("two", lent).give_at(99, lent));
    let mut numbers: Vec<RawFd> =
        described.split(',').map(|given| given.split(':').nth(1).unwrap().parse().unwrap()).collect();
    numbers.push(99);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "each has a number of its own: {described}");
    assert_same(&found, &before, &numbers.iter().map(|number| (*number, what_is(&reader))).collect::<Vec<_>>());
}

fn a_high_number_comes_right() {
    let before = started_by_std();
    let (reader, _writer) = pipe().unwrap();
    let expected = what_is(&reader);
    let (found, _) = started_with(|command| command.give_at(1000, reader));
    assert_same(&found, &before, &[(1000, expected)]);
}

fn closed_standard_descriptors_do_no_harm() {
    let before = started_by_std();
    closed_standard_descriptors(|| {
        let (from, mut to) = pipe().unwrap();
        let (reader, writer) = pipe().unwrap();
        to.write_all(b"hello").unwrap();
        drop(to);
        let child = Command::new("cat").stdin(from).stdout(writer).spawn().unwrap();
        assert_eq!(read_all(reader), b"hello");
        assert_eq!(exit_code(&child), 0);

        // An adopted one has such a number itself.
        let null = File::open("/dev/null").unwrap();
        assert!(null.as_raw_fd() <= 2);
        let (reader, writer) = pipe().unwrap();
        let (number, given) = (writer.as_raw_fd(), what_is(&writer));
        let (mut found, described) = started_with(|command| command.give("null", null).give("writer", writer));
        assert_eq!(found.remove(&number), Some(given));
        let aside: RawFd = described.split(':').nth(1).unwrap().parse().unwrap();
        assert!(aside > 2);
        assert_eq!(found.remove(&aside).as_deref(), Some("r /dev/null"));
        assert_eq!(found, before);
        drop(reader);

        // Also where nothing else is to stand at that number.
        let null = File::open("/dev/null").unwrap();
        assert!(null.as_raw_fd() <= 2);
        let (reader, writer) = pipe().unwrap();
        let tell = Command::new("sh").args(["-c", "echo $IPC_ENDS >&9"]).give_at(9, writer).give("null", null);
        let child = tell.spawn().unwrap();
        let described = String::from_utf8(read_all(reader)).unwrap();
        assert!(described.split(':').nth(1).unwrap().parse::<RawFd>().unwrap() > 2, "{described}");
        assert_eq!(exit_code(&child), 0);

        let (errors, error_writer) = pipe().unwrap();
        let child = Command::new("sh").args(["-c", "echo oh >&2"]).give_at(2, error_writer).spawn().unwrap();
        assert_eq!(read_all(errors), b"oh\n");
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_full_table_gives_everything_back() {
    let mut refused_for = 0;
    for free in 0..16 {
        let (from, to) = pipe().unwrap();
        let (reader, writer) = pipe().unwrap();
        let (extra, given) = pipe().unwrap();
        let number = from.as_raw_fd();
        let command = Command::new("true").stdin(from).stdout(writer).stderr(ipc::Stdio::null());
        let command = command.give_at(number, extra).give("given", given);
        let full = limit_descriptors(free);
        let open = open_ends();
        let child = match command.spawn() {
            Ok(child) => child,
            Err(refused) => {
                refused_for += 1;
                assert!(
                    matches!(&refused.error, Error::System { source, .. } if source.raw_os_error() == Some(libc::EMFILE)),
                    "{refused:?}"
                );
                assert_eq!(open_ends(), open, "everything was given back");
                assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
                drop(full);
                refused.command.spawn().unwrap()
            }
        };
        assert_eq!(exit_code(&child), 0);
        assert_eq!(read_all(reader), b"");
        assert!(to.is_closed().unwrap());
    }
    // One for the null device, and one for the child.
    assert_eq!(refused_for, 2, "with {refused_for} free places it was still refused");
}

fn an_end_that_was_not_given_here_is_not_given_on() {
    type Give = fn(Command, PipeWriter) -> Command;
    let ways: [Give; 6] = [
        |command, writer| command.give("writer", writer),
        |command, writer| command.give_at(7, writer),
        |command, writer| command.give_path(writer),
        |command, writer| command.stdin(writer),
        |command, writer| command.stdout(writer),
        |command, writer| command.stderr(writer),
    ];
    for give in ways {
        for exec in [false, true] {
            let (reader, writer) = pipe().unwrap();
            let command = give(Command::new("true"), writer);
            let child = fork((), move |()| {
                let refused = if exec { command.exec() } else { command.spawn().unwrap_err() };
                assert!(matches!(refused.error, Error::NotGiven), "{refused:?}");
                assert!(matches!(refused.command.status(), Err(Error::NotGiven)), "still");
            })
            .unwrap();
            assert_eq!(exit_code(&child), 0);
            drop(reader);
        }
    }
}

fn programs_that_start_at_the_same_moment_keep_to_their_own() {
    let before = started_by_std();
    std::thread::scope(|scope| {
        for by_number in [false, true] {
            let before = &before;
            scope.spawn(move || {
                for _ in 0..support::rounds(40) {
                    let (reader, writer) = pipe().unwrap();
                    let number = if by_number { 200 } else { writer.as_raw_fd() };
                    let expected = what_is(&writer);
                    let (found, _) = started_with(|command| match by_number {
                        true => command.give_at(number, writer),
                        false => command.give("mine", writer),
                    });
                    assert_same(&found, before, &[(number, expected)]);
                    // Nobody else's program holds a copy, however long that runs.
                    assert_eq!(read_all(reader), b"");
                }
            });
        }
        // And std starts its own meanwhile.
        scope.spawn(|| (0..support::rounds(40)).for_each(|_| assert_eq!(started_by_std(), before)));
    });
}

fn a_large_process_starts_programs_too() {
    let mut memory = vec![0_u8; 256 << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let output = Command::new("echo").arg("small").output().unwrap();
    assert_eq!(output.stdout, b"small\n");
    assert_eq!(memory.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(), (256 << 20) / 4096);
}

fn what_was_given_is_closed_here() {
    let (from, to) = pipe().unwrap();
    let (mut reader, writer) = pipe().unwrap();
    let open = open_ends();
    let child = Command::new("cat").stdin(from).stdout(writer).spawn().unwrap();
    assert_eq!(open_ends(), open - 2);
    drop(to);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end arrives");
    assert_eq!(exit_code(&child), 0);
}
