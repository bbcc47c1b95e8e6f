//! Taking the ends that a program was given: once, by name, and only what it is.
//!
//! The worker is this binary itself: with the argument `worker` and a name it runs one of [`ROLES`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::claim_hostile::{
    worker_closed, worker_forging, worker_hostile, worker_own, worker_retitled, worker_stale, worker_stale_parent,
    worker_standard, worker_undumpable,
};
use crate::support::{self, Trial, descriptor_flags, exit_code, read_all};
use ipc::{
    Command, DatagramSocket, Error, PipeReader, PipeWriter, StreamSocket, claim, claimable, datagram_pair, fork,
    open_ends, pipe, stream_pair,
};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("worker") {
        return None;
    }
    let role = args.next().expect("the name of a role");
    ROLES.iter().find(|(name, _)| *name == role).expect("a role").1();
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        both_ends_of_pipes_are_claimed,
        sockets_and_files_are_claimed,
        what_is_wrong_can_be_claimed_as_what_it_is,
        an_end_is_claimed_once,
        a_descriptor_with_two_names_is_claimed_once,
        threads_that_claim_at_once_get_one,
        what_was_not_given_is_not_there,
        what_is_given_is_listed_until_it_is_claimed,
        a_claimed_end_goes_into_no_other_program,
        a_program_that_is_given_nothing_has_no_description,
        odd_names_come_right,
        a_name_that_is_too_long_is_refused,
        a_conversion_that_keeps_the_descriptor_has_claimed_it,
        a_conversion_may_claim,
        the_readers_of_the_documentation_work needs [PYTHON, CC] within 120,
    ]
}

type Role = (&'static str, fn());

const ROLES: &[Role] = &[
    ("pipes", worker_pipes),
    ("sockets", worker_sockets),
    ("wrong", worker_wrong),
    ("once", worker_once),
    ("two-names", worker_two_names),
    ("threads", worker_threads),
    ("unknown", worker_unknown),
    ("listing", worker_listing),
    ("starts", worker_starts),
    ("nothing", worker_nothing),
    ("odd", worker_odd),
    ("stale-parent", worker_stale_parent),
    ("stale", worker_stale),
    ("closed", worker_closed),
    ("forging", worker_forging),
    ("keeping", worker_keeping),
    ("nesting", worker_nesting),
    ("undumpable", worker_undumpable),
    ("retitled", worker_retitled),
    ("hostile", worker_hostile),
    ("own", worker_own),
    ("standard", worker_standard),
];

pub(super) fn me() -> PathBuf {
    std::env::current_exe().unwrap()
}

pub(super) fn worker(role: &str) -> Command {
    Command::new(me()).args(["worker", role])
}

/// The worker as somebody starts it who knows nothing of this crate.
pub(super) fn foreign_worker(role: &str) -> std::process::Command {
    let mut command = std::process::Command::new(me());
    command.args(["worker", role]);
    command
}

#[track_caller]
pub(super) fn assert_succeeds(command: Command) {
    assert!(command.status().unwrap().success());
}

#[track_caller]
pub(super) fn assert_missing<T: std::fmt::Debug>(claimed: Result<T, Error>, expected: &str) {
    assert!(matches!(&claimed, Err(Error::NoSuchEnd { name }) if name == expected), "{claimed:?}");
}

fn both_ends_of_pipes_are_claimed() {
    let (from, mut to) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let child = worker("pipes").give("in", from).give("out", writer).spawn().unwrap();
    to.write_all(b"there and back").unwrap();
    drop(to);
    assert_eq!(read_all(reader), b"THERE AND BACK");
    assert_eq!(exit_code(&child), 0);
}

fn worker_pipes() {
    let (mut reader, mut writer): (PipeReader, PipeWriter) = (claim("in").unwrap(), claim("out").unwrap());
    assert_eq!(open_ends(), 2);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    writer.write_all(text.to_uppercase().as_bytes()).unwrap();
}

fn sockets_and_files_are_claimed() {
    let messages = datagram_pair().unwrap();
    let bytes = stream_pair().unwrap();
    let std_bytes = stream_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let (std_reader, mut to_std) = pipe().unwrap();
    to_std.write_all(b"std").unwrap();
    drop(to_std);
    messages.parent.send(b"").unwrap();
    messages.parent.send(b"message").unwrap();
    let child = worker("sockets")
        .give("messages", messages.child)
        .give("bytes", bytes.child)
        .give("std bytes", std_bytes.child)
        .give("null", File::open("/dev/null").unwrap())
        .give("any", writer)
        .give("std reader", std_reader)
        .spawn()
        .unwrap();
    (&bytes.parent).write_all(b"bytes").unwrap();
    drop(bytes.parent);
    assert_eq!(messages.parent.recv_vec().unwrap().as_deref(), Some(&b"bytes"[..]));
    let mut text = String::new();
    (&std_bytes.parent).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through std");
    assert_eq!(read_all(reader), b"any");
    assert_eq!(exit_code(&child), 0);
    assert_eq!(messages.parent.recv_vec().unwrap(), None);
}

fn worker_sockets() {
    let messages: DatagramSocket = claim("messages").unwrap();
    assert_eq!(messages.recv_vec().unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(messages.recv_vec().unwrap().as_deref(), Some(&b"message"[..]));
    let mut bytes = Vec::new();
    claim::<StreamSocket>("bytes").unwrap().read_to_end(&mut bytes).unwrap();
    messages.send(&bytes).unwrap();
    let mut stream: UnixStream = claim("std bytes").unwrap();
    stream.write_all(b"through std").unwrap();
    let null: File = claim("null").unwrap();
    let any: OwnedFd = claim("any").unwrap();
    let reader: std::io::PipeReader = claim("std reader").unwrap();
    for fd in [stream.as_fd(), null.as_fd(), any.as_fd(), reader.as_fd(), messages.as_fd()] {
        assert_eq!(descriptor_flags(fd), libc::FD_CLOEXEC);
    }
    assert_eq!(null.metadata().unwrap().rdev(), std::fs::metadata("/dev/null").unwrap().rdev());
    assert_eq!(std::io::read_to_string(reader).unwrap(), "std");
    File::from(any).write_all(b"any").unwrap();
}

fn what_is_wrong_can_be_claimed_as_what_it_is() {
    let (_reader, writer) = pipe().unwrap();
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let command = worker("wrong").give("writer", writer).give("messages", messages.child).give("bytes", bytes.child);
    assert_succeeds(command.give("file", File::open("/dev/null").unwrap()));
}

fn worker_wrong() {
    #[track_caller]
    fn assert_wrong<T: std::fmt::Debug>(claimed: Result<T, Error>) {
        assert!(matches!(&claimed, Err(Error::WrongKind { .. })), "{claimed:?}");
    }
    let names = ["writer", "messages", "bytes", "file"];
    for _ in 0..2 {
        assert_wrong(claim::<PipeReader>("writer"));
        assert_wrong(claim::<DatagramSocket>("writer"));
        assert_wrong(claim::<StreamSocket>("messages"));
        assert_wrong(claim::<PipeWriter>("messages"));
        assert_wrong(claim::<DatagramSocket>("bytes"));
        assert_wrong(claim::<PipeReader>("file"));
        assert_eq!(claimable().unwrap(), names);
        assert_eq!(open_ends(), 0);
    }
    let writer: PipeWriter = claim("writer").unwrap();
    let messages: DatagramSocket = claim("messages").unwrap();
    let bytes: StreamSocket = claim("bytes").unwrap();
    let file: File = claim("file").unwrap();
    for fd in [writer.as_fd(), messages.as_fd(), bytes.as_fd(), file.as_fd()] {
        assert_eq!(descriptor_flags(fd), libc::FD_CLOEXEC);
    }
}

fn an_end_is_claimed_once() {
    let (reader, writer) = pipe().unwrap();
    assert_succeeds(worker("once").give("one", reader).give("other", writer));
}

fn worker_once() {
    let reader: PipeReader = claim("one").unwrap();
    let again =
        |name: &str| assert!(matches!(claim::<OwnedFd>(name), Err(Error::AlreadyClaimed { name: n }) if n == name));
    again("one");
    // Whoever got the number meanwhile is left alone.
    let number = reader.as_raw_fd();
    drop(reader);
    again("one");
    let files: Vec<File> = (0..=number).map(|_| File::open("/dev/null").unwrap()).collect();
    assert!(files.iter().any(|file| file.as_raw_fd() == number));
    again("one");
    let _writer: PipeWriter = claim("other").unwrap();
    let child = fork((), move |()| again("other")).unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_descriptor_with_two_names_is_claimed_once() {
    let null = std::fs::metadata("/dev/null").unwrap();
    let (dev, ino) = (null.dev(), null.ino());
    let value = format!("one:9:{dev}:{ino},other:9:{dev}:{ino}");
    let script = "exec \"$0\" worker two-names 9</dev/null";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(me()).env("IPC_ENDS", value).status();
    assert!(status.unwrap().success());
}

fn worker_two_names() {
    assert_eq!(claimable().unwrap(), ["one", "other"]);
    let owner: OwnedFd = claim("other").unwrap();
    for inheritable in [false, true] {
        if inheritable {
            // SAFETY: an open descriptor and an integer.
            assert_eq!(unsafe { libc::fcntl(owner.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        }
        let again = claim::<OwnedFd>("one");
        assert!(matches!(&again, Err(Error::AlreadyClaimed { name }) if name == "one"), "{again:?}");
        assert!(claimable().unwrap().is_empty());
    }
}

fn threads_that_claim_at_once_get_one() {
    for _ in 0..20 {
        let (reader, _writer) = pipe().unwrap();
        assert_succeeds(worker("threads").give("reader", reader));
    }
}

fn worker_threads() {
    let barrier = std::sync::Barrier::new(4);
    let claimed = std::thread::scope(|scope| {
        let threads: Vec<_> = std::iter::repeat_with(|| {
            scope.spawn(|| {
                barrier.wait();
                claim::<PipeReader>("reader")
            })
        })
        .take(4)
        .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(claimed.iter().filter(|claimed| claimed.is_ok()).count(), 1);
    assert_eq!(claimed.iter().filter(|claimed| matches!(claimed, Err(Error::AlreadyClaimed { .. }))).count(), 3);
}

fn what_was_not_given_is_not_there() {
    let (reader, _writer) = pipe().unwrap();
    assert_succeeds(worker("unknown").give("reader", reader));
    assert!(claimable().unwrap().is_empty(), "the test itself");
    assert_missing(claim::<OwnedFd>("reader"), "reader");
}

fn worker_unknown() {
    for name in ["", "Reader", "reader ", "reade", "readers", "IPC_ENDS", "reader:3", "\0", "%72eader"] {
        assert_missing(claim::<OwnedFd>(name), name);
    }
    claim::<PipeReader>("reader").unwrap();
}

fn what_is_given_is_listed_until_it_is_claimed() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    assert_succeeds(worker("listing").give("z", reader).give("a", writer).give("m", pair.child));
}

fn worker_listing() {
    assert_eq!(claimable().unwrap(), ["z", "a", "m"]);
    let _writer: PipeWriter = claim("a").unwrap();
    assert_eq!(claimable().unwrap(), ["z", "m"]);
    let _socket: OwnedFd = claim("m").unwrap();
    let _reader: PipeReader = claim("z").unwrap();
    assert!(claimable().unwrap().is_empty());
}

fn a_claimed_end_goes_into_no_other_program() {
    let (reader, writer) = pipe().unwrap();
    let child = worker("starts").give("writer", writer).spawn().unwrap();
    // The grandchild runs until its stdin ends, which is the worker's; it must not have the writer.
    assert_eq!(read_all(reader), b"");
    assert_eq!(exit_code(&child), 0);
}

fn worker_starts() {
    let writer: PipeWriter = claim("writer").unwrap();
    let number = writer.as_raw_fd();
    let closed = format!("! test -e /proc/self/fd/{number}");
    let shell = |script: &str| std::process::Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(shell(&closed).success());
    assert!(Command::new("sh").args(["-c", &closed]).status().unwrap().success());
    assert!(shell(&format!("{closed} && test -n \"$IPC_ENDS\"")).success(), "std passes the description on");
    let (own, _held) = pipe().unwrap();
    let waiting = Command::new("cat").stdin(own).spawn().unwrap();
    drop(writer);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

fn a_program_that_is_given_nothing_has_no_description() {
    let (reader, _writer) = pipe().unwrap();
    assert_succeeds(worker("nothing").give_at(9, reader));
    assert!(foreign_worker("nothing").status().unwrap().success());
}

fn worker_nothing() {
    assert!(claimable().unwrap().is_empty());
    assert_missing(claim::<OwnedFd>("9"), "9");
    assert!(std::env::var_os("IPC_ENDS").is_none());
}

fn odd_names() -> Vec<String> {
    let odd =
        ["", " ", "a,b", "a:b:c:d", "100%", "%41", "grüße 🚰", "new\nline", "nul\0", "=", "-", "../x", "\u{7f}\u{80}"];
    odd.into_iter().map(str::to_owned).chain(["x".repeat(10_000), "ü".repeat(5_000)]).collect()
}

fn odd_names_come_right() {
    let (reader, writer) = pipe().unwrap();
    let command =
        odd_names().into_iter().fold(worker("odd"), |command, name| command.give(name, writer.try_clone().unwrap()));
    drop(writer);
    let child = command.spawn().unwrap();
    let mut expected = Vec::new();
    odd_names().iter().for_each(|name| expected.extend_from_slice(name.as_bytes()));
    assert_eq!(read_all(reader), expected);
    assert_eq!(exit_code(&child), 0);
}

fn worker_odd() {
    assert_eq!(claimable().unwrap(), odd_names());
    for name in odd_names() {
        claim::<PipeWriter>(&name).unwrap().write_all(name.as_bytes()).unwrap();
    }
}

fn a_name_that_is_too_long_is_refused() {
    let (reader, writer) = pipe().unwrap();
    let refused = worker("nothing").give("x".repeat(1 << 20), writer).spawn().unwrap_err();
    assert!(
        matches!(&refused.error, Error::System { source, .. } if source.raw_os_error() == Some(libc::E2BIG)),
        "{refused:?}"
    );
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "given back");
}

fn a_conversion_that_keeps_the_descriptor_has_claimed_it() {
    let (reader, writer) = pipe().unwrap();
    let (other, _writer) = pipe().unwrap();
    let child = worker("keeping").give("writer", writer).give("other", other).spawn().unwrap();
    assert_eq!(read_all(reader), b"kept");
    assert_eq!(exit_code(&child), 0);
}

/// What a [`Keeper`] was made of.
static KEPT: std::sync::Mutex<Option<OwnedFd>> = std::sync::Mutex::new(None);

/// Keeps what it is made of, and gives another descriptor back: one of the same file, if it is to.
#[derive(Debug)]
struct Keeper<const SAME_FILE: bool>;

impl<const SAME_FILE: bool> TryFrom<OwnedFd> for Keeper<SAME_FILE> {
    type Error = ipc::FromFdError;

    fn try_from(fd: OwnedFd) -> Result<Self, Self::Error> {
        let other = if SAME_FILE { fd.try_clone().unwrap() } else { File::open("/dev/null").unwrap().into() };
        let mut refused = PipeReader::try_from(OwnedFd::from(File::open("/dev/null").unwrap())).unwrap_err();
        refused.fd = other;
        *KEPT.lock().unwrap() = Some(fd);
        Err(refused)
    }
}

fn worker_keeping() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    assert!(matches!(claim::<Keeper<false>>("other"), Err(Error::WrongKind { .. })));
    drop(KEPT.lock().unwrap().take());
    assert!(matches!(claim::<Keeper<true>>("writer"), Err(Error::WrongKind { .. })));
    let kept = KEPT.lock().unwrap().take().unwrap();
    assert_eq!(open(), before - 1, "what was given back is closed");
    assert_eq!(descriptor_flags(&kept), libc::FD_CLOEXEC, "it belongs to whoever kept it");
    // Whatever is done with it now, nobody else has it.
    // SAFETY: an open descriptor and an integer.
    assert_eq!(unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    assert!(claimable().unwrap().is_empty());
    for name in ["writer", "other"] {
        assert!(matches!(claim::<OwnedFd>(name), Err(Error::AlreadyClaimed { name: n }) if n == name));
    }
    File::from(kept).write_all(b"kept").unwrap();
}

fn a_conversion_may_claim() {
    let ((reader, _writer), (_reader, writer)) = (pipe().unwrap(), pipe().unwrap());
    assert_succeeds(worker("nesting").give("reader", reader).give("writer", writer));
}

/// A reader, and the writer that was given beside it.
#[derive(Debug)]
struct Nested(PipeReader, PipeWriter);

impl TryFrom<OwnedFd> for Nested {
    type Error = ipc::FromFdError;

    fn try_from(fd: OwnedFd) -> Result<Self, Self::Error> {
        assert_eq!(claimable().unwrap(), ["writer"], "what is being converted is claimed");
        assert!(matches!(claim::<PipeReader>("reader"), Err(Error::AlreadyClaimed { .. })));
        Ok(Self(PipeReader::try_from(fd)?, claim("writer").unwrap()))
    }
}

fn worker_nesting() {
    let nested: Nested = claim("reader").unwrap();
    assert!(matches!(nested.0.try_read(&mut [0]), Err(Error::WouldBlock)));
    nested.1.write_atomic(b"x").unwrap();
    assert!(claimable().unwrap().is_empty());
}

pub(super) fn in_tmp(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("claim-{}-{name}", std::process::id()))
}

fn the_readers_of_the_documentation_work() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/given-ends.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let script = in_tmp("reader.py");
    std::fs::write(&script, block("python")).unwrap();
    assert_reads("hello from Python\n", &[support::python().as_os_str(), script.as_os_str()]);
    std::fs::remove_file(script).unwrap();

    let (source, program) = (in_tmp("reader.c"), in_tmp("reader"));
    std::fs::write(&source, block("c")).unwrap();
    let compile = Command::new("cc").args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(&program).arg(&source);
    assert_succeeds(compile);
    assert_reads("hello from C\n", &[program.as_os_str()]);
    [source, program].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

fn assert_reads(says: &str, program: &[&OsStr]) {
    let started = |name: &str| Command::new(program[0]).args(&program[1..]).arg(name);
    for name in ["results", "a:b, ü%41", ""] {
        let (reader, writer) = pipe().unwrap();
        let (_other, other_writer) = pipe().unwrap();
        assert_succeeds(started(name).give("other", other_writer).give(name, writer));
        assert_eq!(String::from_utf8(read_all(reader)).unwrap(), says);
    }
    // What is not there, and what is not what was given.
    let (_reader, writer) = pipe().unwrap();
    assert_eq!(started("results").give("result", writer).stderr(ipc::Stdio::null()).status().unwrap().code(), Some(1));
    let null = std::fs::metadata("/dev/null").unwrap();
    let (dev, ino) = (null.dev(), null.ino());
    let descriptions = [
        format!("x:9:{dev}:{}", ino + 1),
        format!("x:9:{}:{ino}", dev + 1),
        format!("x:8:{dev}:{ino}"),
        format!("x:0:{dev}:{ino}"),
        "x".to_owned(),
        "x:9".to_owned(),
        "%7".to_owned(),
        "x:99999999999999999999:1:1".to_owned(),
        String::new(),
    ];
    for (described, there) in descriptions.iter().map(|d| (d, false)).chain([(&format!("%78:9:{dev}:{ino}"), true)]) {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$@\" 9>/dev/null 8>&- </dev/null 2>/dev/null", "sh"]).args(program).arg("x");
        let status = command.env("IPC_ENDS", described).status().unwrap();
        assert_eq!(status.code(), Some(if there { 0 } else { 1 }), "{described}");
    }
}
