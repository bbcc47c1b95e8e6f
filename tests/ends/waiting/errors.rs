//! Errors: what they say, what they turn into and back, and what those that give something back are good for.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::support::{self, Trial, refused};
use ipc::{
    Command, CopyError, Error, FlushError, ForkError, FromFdError, PackedSocket, PipeFlags, PipeReader, SendError,
};
use ipc::{SpawnError, pipe, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        every_variant_is_among_those_that_are_looked_at,
        display_is_one_plain_line,
        display_says_all_of_it_once,
        question_mark_keeps_the_name_of_the_program,
        a_directory_that_is_missing_is_named_and_one_that_is_not_is_left_out,
        debug_does_not_print_what_a_peer_sent_whole,
        debug_of_a_mistake_says_what_to_do,
        display_names_what_matters,
        errors_go_anywhere,
        every_variant_survives_the_way_through_io_error,
        every_variant_has_its_natural_kind,
        a_system_error_keeps_its_errno,
        a_foreign_io_error_becomes_a_system_error,
        what_read_and_write_answer_becomes_the_variant_again,
        question_mark_turns_each_into_any_other,
        what_was_given_back_need_not_be_debug_nor_static,
        what_gives_something_back_is_an_error_and_names_its_cause,
    ]
}

/// One of each, with the kind that it has as an `io::Error`.
fn one_of_each() -> Vec<(Error, ErrorKind)> {
    let pair = ipc::datagram_pair().unwrap();
    pair.child.send(b"").unwrap();
    let received = pair.parent.recv_with(&mut Vec::new()).unwrap().unwrap();
    let name = || "results".to_owned();
    vec![
        (
            Error::System { call: "fcntl", source: io::Error::from_raw_os_error(libc::EPERM) },
            ErrorKind::PermissionDenied,
        ),
        (Error::WouldBlock, ErrorKind::WouldBlock),
        (Error::TimedOut, ErrorKind::TimedOut),
        (Error::Closed, ErrorKind::BrokenPipe),
        (Error::Reset, ErrorKind::ConnectionReset),
        (Error::BufferTooSmall { message: vec![7; 100] }, ErrorKind::InvalidInput),
        (Error::Malformed { message: vec![7; 200] }, ErrorKind::InvalidData),
        (Error::Truncated { message: vec![7; 300], expected: Some(400) }, ErrorKind::UnexpectedEof),
        (Error::Unread, ErrorKind::ResourceBusy),
        (Error::TooLong { len: 5000, max: 4096 }, ErrorKind::InvalidInput),
        (Error::InvalidInput { what: "two ends are given the same number" }, ErrorKind::InvalidInput),
        (
            Error::NotStarted {
                program: "worker".into(),
                directory: None,
                error: Box::new(Error::System { call: "execve", source: io::Error::from_raw_os_error(libc::EACCES) }),
            },
            ErrorKind::PermissionDenied,
        ),
        (Error::NotGiven, ErrorKind::PermissionDenied),
        (Error::MultiThreaded { threads: 3 }, ErrorKind::Unsupported),
        (Error::InsideRuntime, ErrorKind::Unsupported),
        (Error::SigchldIgnored, ErrorKind::Unsupported),
        (Error::NoSuchEnd { name: name() }, ErrorKind::NotFound),
        (Error::AlreadyClaimed { name: name() }, ErrorKind::AlreadyExists),
        (Error::WrongKind { expected: "the reading end of a pipe", found: "a file" }, ErrorKind::InvalidInput),
        (Error::Encode { source: "a map has no length".into() }, ErrorKind::InvalidInput),
        (Error::Decode { message: vec![7; 500], source: "a bool is neither 0 nor 1".into() }, ErrorKind::InvalidData),
        (Error::CannotCarry, ErrorKind::Unsupported),
        (Error::StatusTaken { stdout: vec![7; 10], stderr: Vec::new() }, ErrorKind::Other),
        (Error::EndsLost { received }, ErrorKind::Other),
    ]
}

fn every_variant_is_among_those_that_are_looked_at() {
    // The enum is not exhaustive, so the compiler cannot say it.
    let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/error/mod.rs"));
    let (_, rest) = source.split_once("pub enum Error {").unwrap();
    let (body, _) = rest.split_once("\n}\n").unwrap();
    let begins = |line: &str| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase);
    let variants = body.lines().filter(|line| begins(line)).count();
    assert_eq!(one_of_each().len(), variants);
    let mut kinds: Vec<_> = one_of_each().iter().map(|(error, _)| std::mem::discriminant(error)).collect();
    kinds.dedup();
    assert_eq!(kinds.len(), variants, "each is another one");
}

/// One line, in lower case but for names like `SIGCHLD`, and no full stop.
#[track_caller]
fn assert_plain(text: &str) {
    assert!(!text.is_empty() && text.trim() == text && !text.contains(['\n', '\r']), "{text:?} is one line");
    assert!(!text.ends_with(['.', '!', ':']), "{text:?} has no full stop");
    for word in text.split(|letter: char| !letter.is_alphanumeric()) {
        let capital = word.chars().any(char::is_uppercase);
        assert!(!capital || word == word.to_uppercase(), "{text:?} is in lower case");
    }
}

/// The kernel's own words begin with a capital.
fn without_errnos(text: &str) -> String {
    text.replace("Operation not permitted", "no").replace("Permission denied", "no")
}

fn display_is_one_plain_line() {
    for (error, _) in one_of_each() {
        assert_plain(&without_errnos(&error.to_string()));
    }
    let hostile = "Two\nlines.".to_owned();
    for error in [Error::NoSuchEnd { name: hostile.clone() }, Error::AlreadyClaimed { name: hostile.clone() }] {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let error = SpawnError { command: Command::new(hostile), error: Error::Closed };
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// The whole of it stands in the one line, and a report of the chain says nothing twice.
#[track_caller]
fn assert_says_all(error: &dyn std::error::Error, cause: &Error) {
    let (text, cause) = (error.to_string(), cause.to_string());
    assert!(text.ends_with(&cause) && text != cause, "{text:?} says {cause:?} and what it was that failed");
    assert!(error.source().is_none(), "{text:?} would be reported twice");
    assert_plain(&without_errnos(&text));
}

fn display_says_all_of_it_once() {
    for (error, _) in one_of_each() {
        assert!(error.source().is_none(), "{error:?} says all of it");
        if let Error::System { source, .. } = &error {
            assert!(error.to_string().contains(&source.to_string()), "{error} has the errno's text");
        }
    }
    let again = || one_of_each().into_iter().zip(one_of_each());
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&ForkError { ends: (), error }, &cause);
    }
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&SendError { ends: (), error }, &cause);
    }
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&FlushError { unflushed: (), error }, &cause);
    }
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&SpawnError { command: Command::new("worker"), error }, &cause);
    }
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&FromFdError { fd: null(), error }, &cause);
    }
    // One that was not started has its name in the cause.
    for ((error, _), (cause, _)) in again().filter(|((error, _), _)| !matches!(error, Error::NotStarted { .. })) {
        let mut failed = Command::new("/no/such/worker").communicate(b"", None).unwrap_err();
        failed.error = error;
        assert_says_all(&failed, &cause);
    }
    for ((error, _), (cause, _)) in again() {
        assert_says_all(&CopyError { copied: 7, unwritten: vec![], error }, &cause);
    }
}

fn debug_does_not_print_what_a_peer_sent_whole() {
    let long = || vec![b'x'; 1 << 20];
    for error in [
        Error::BufferTooSmall { message: long() },
        Error::Malformed { message: long() },
        Error::Truncated { message: long(), expected: None },
        Error::StatusTaken { stdout: long(), stderr: long() },
        Error::Decode { message: long(), source: "no value".into() },
    ] {
        let text = format!("{error:?}");
        assert!(text.len() < 400 && text.contains("1048576 bytes: b\"xxx"), "{text}");
    }
    let text = format!("{:?}", Error::BufferTooSmall { message: b"a\0\n".to_vec() });
    assert_eq!(text, r#"BufferTooSmall { message: 3 bytes: b"a\x00\n" }"#);
    assert_eq!(format!("{:?}", Error::TooLong { len: 2, max: 1 }), "TooLong { len: 2, max: 1 }");
    assert_eq!(format!("{:?}", Error::Closed), "Closed");
    let text = format!("{:?}", CopyError { copied: 1, unwritten: long(), error: Error::Closed });
    assert!(text.len() < 400, "{text}");
}

fn debug_of_a_mistake_says_what_to_do() {
    for (mistake, remedy) in [
        (Error::MultiThreaded { threads: 2 }, "fork server"),
        (Error::InsideRuntime, "fork before"),
        (Error::SigchldIgnored, "reset it first"),
        (Error::NotGiven, "`fork(end, …)`"),
    ] {
        let text = format!("{mistake:?}");
        assert!(text.contains(remedy), "{text:?} has {remedy:?}");
        assert_eq!(text.lines().count(), 1, "{text:?}");
    }
}

fn question_mark_keeps_the_name_of_the_program() {
    let start = || -> ipc::Result<()> { Command::new("/no/such/program").spawn().map(drop).map_err(Error::from) };
    let error = start().unwrap_err();
    let text = error.to_string();
    for part in ["/no/such/program", "No such file or directory"] {
        assert!(text.contains(part), "{text:?} has {part:?}");
    }
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(matches!(&error, Error::NotStarted { program, .. } if program == "/no/such/program"));
    assert_eq!(io::Error::from(error).to_string(), text, "also as an io::Error");
}

fn a_directory_that_is_missing_is_named_and_one_that_is_not_is_left_out() {
    let start = |program: &str, directory: &str| Command::new(program).current_dir(directory).spawn().unwrap_err();
    let missing =
        r#""true" could not be started in "/no/such/directory": chdir: No such file or directory (os error 2)"#;
    assert_eq!(start("true", "/no/such/directory").to_string(), missing);
    let error = Error::from(start("true", "/no/such/directory"));
    assert_eq!(error.to_string(), missing);
    assert!(
        matches!(&error, Error::NotStarted { directory: Some(directory), .. } if directory.as_os_str() == "/no/such/directory")
    );
    assert_eq!(Command::new("true").current_dir("/no/such/directory").status().unwrap_err().to_string(), missing);

    let error = Error::from(start("/no/such/program", "/"));
    assert!(matches!(&error, Error::NotStarted { directory: None, .. }), "{error:?}");
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn display_names_what_matters() {
    for (error, _) in one_of_each() {
        let words: &[&str] = match &error {
            Error::System { .. } => &["fcntl"],
            Error::BufferTooSmall { .. } => &["100"],
            Error::Malformed { .. } => &["200"],
            Error::Truncated { .. } => &["300"],
            Error::TooLong { .. } => &["5000 bytes are more than the 4096"],
            Error::MultiThreaded { .. } => &["3"],
            Error::NoSuchEnd { .. } | Error::AlreadyClaimed { .. } => &["results"],
            Error::WrongKind { .. } => &["the reading end of a pipe", "a file"],
            _ => &[],
        };
        for word in words {
            assert!(error.to_string().contains(word), "{error} names {word}");
        }
    }
}

fn errors_go_anywhere() {
    fn check<T: std::error::Error + Send + Sync + 'static>() {}
    check::<Error>();
    check::<FromFdError>();
    check::<ForkError<(PipeReader, OwnedFd)>>();
    check::<SendError<Vec<PipeReader>>>();
    check::<FlushError<PackedSocket>>();
}

fn every_variant_survives_the_way_through_io_error() {
    for (error, _) in one_of_each() {
        let before = format!("{error:?}");
        let system = matches!(error, Error::System { .. });
        let back = Error::from(io::Error::from(error));
        let back = Error::from(io::Error::from(back));
        match back {
            // The errno is what an io::Error has room for, and not the name of the call.
            Error::System { call, source } if system => {
                assert_eq!((call, source.raw_os_error()), ("io", Some(libc::EPERM)));
            }
            back => assert_eq!(format!("{back:?}"), before),
        }
    }
}

fn every_variant_has_its_natural_kind() {
    for (error, kind) in one_of_each() {
        let text = error.to_string();
        let system = matches!(error, Error::System { .. });
        let io = io::Error::from(error);
        assert_eq!(io.kind(), kind, "{text}");
        if !system {
            assert_eq!(io.to_string(), text);
            assert!(io.get_ref().is_some_and(|inner| inner.is::<Error>()), "{text} is inside");
        }
    }
}

fn a_system_error_keeps_its_errno() {
    for errno in [libc::EMFILE, libc::EAGAIN, libc::EPIPE, libc::EINTR] {
        let error = Error::System { call: "fork", source: io::Error::from_raw_os_error(errno) };
        let io = io::Error::from(error);
        assert_eq!(io.raw_os_error(), Some(errno));
        assert_eq!(refused::<()>(Err(io.into())), ("io", errno), "and is no other variant");
    }
}

fn a_foreign_io_error_becomes_a_system_error() {
    let text = |error: io::Error| match Error::from(error) {
        Error::System { call: "io", source } => source.to_string(),
        other => panic!("a foreign error, and not {other:?}"),
    };
    assert_eq!(text(io::Error::other("from elsewhere")), "from elsewhere");
    assert_eq!(text(io::Error::new(ErrorKind::BrokenPipe, "not ours")), "not ours");
    assert_eq!(text(ErrorKind::UnexpectedEof.into()), io::Error::from(ErrorKind::UnexpectedEof).to_string());
}

fn what_read_and_write_answer_becomes_the_variant_again() {
    let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let error = Error::from(reader.read(&mut [0]).unwrap_err());
    assert!(matches!(error, Error::WouldBlock), "{error:?}");
    drop(reader);
    let error = Error::from(writer.write(b"x").unwrap_err());
    assert!(matches!(error, Error::Closed), "{error:?}");
    let error = Error::from(writer.write_all(b"x").unwrap_err());
    assert!(matches!(error, Error::Closed), "{error:?}");
}

/// Neither `Debug` nor an error, and it borrows.
struct Opaque<'a>(#[allow(dead_code)] BorrowedFd<'a>);

fn question_mark_turns_each_into_any_other() {
    fn to_error<T: Into<Error>>(from: T) -> ipc::Result<()> {
        Err(from.into())
    }
    fn to_io<T: Into<io::Error>>(from: T) -> io::Result<()> {
        Err(from.into())
    }
    fn to_box<T: std::error::Error + 'static>(from: T) -> Result<(), Box<dyn std::error::Error>> {
        Err(from)?
    }

    fn fork_error() -> ForkError<PipeReader> {
        ForkError { ends: pipe().unwrap().0, error: Error::TimedOut }
    }
    fn send_error() -> SendError<PipeReader> {
        SendError { ends: pipe().unwrap().0, error: Error::TimedOut }
    }
    fn flush_error() -> FlushError<PipeReader> {
        FlushError { unflushed: pipe().unwrap().0, error: Error::TimedOut }
    }
    fn spawn_error() -> SpawnError {
        SpawnError { command: Command::new("worker"), error: Error::TimedOut }
    }
    fn from_fd_error() -> FromFdError {
        FromFdError { fd: null(), error: Error::TimedOut }
    }
    for result in [
        to_error(fork_error()),
        to_error(send_error()),
        to_error(flush_error()),
        to_error(spawn_error()),
        to_error(from_fd_error()),
    ] {
        assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
    }
    for result in
        [to_io(fork_error()), to_io(send_error()), to_io(flush_error()), to_io(spawn_error()), to_io(from_fd_error())]
    {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(matches!(Error::from(error), Error::TimedOut));
    }
    for result in [
        to_box(fork_error()),
        to_box(send_error()),
        to_box(flush_error()),
        to_box(spawn_error()),
        to_box(from_fd_error()),
    ] {
        let error = result.unwrap_err();
        assert!(error.to_string().ends_with("the time is up"), "{error}");
    }
    to_box(Error::TimedOut).unwrap_err();
}

fn what_was_given_back_need_not_be_debug_nor_static() {
    let file = File::open("/dev/null").unwrap();
    let opaque = || Opaque(file.as_fd());
    let fork_error = || ForkError { ends: opaque(), error: Error::SigchldIgnored };
    let send_error = || SendError { ends: opaque(), error: Error::Closed };
    let flush_error = || FlushError { unflushed: opaque(), error: Error::TimedOut };
    let texts = [
        format!("{:?}, {}", fork_error(), fork_error()),
        format!("{:?}, {}", send_error(), send_error()),
        format!("{:?}, {}", flush_error(), flush_error()),
    ];
    assert!(texts[2].contains("FlushError") && texts[2].contains("TimedOut"), "{texts:?}");
    assert!(texts[0].contains("ForkError") && texts[0].contains("SigchldIgnored"), "{texts:?}");
    assert!(texts[1].contains("SendError") && texts[1].contains("Closed"), "{texts:?}");

    let through = || -> ipc::Result<()> { Err(fork_error())? };
    assert!(matches!(through(), Err(Error::SigchldIgnored)));
    let through = || -> io::Result<()> { Err(fork_error())? };
    assert_eq!(through().unwrap_err().kind(), ErrorKind::Unsupported);
    let through = || -> ipc::Result<()> { Err(send_error())? };
    assert!(matches!(through(), Err(Error::Closed)));
    let through = || -> io::Result<()> { Err(send_error())? };
    assert_eq!(through().unwrap_err().kind(), ErrorKind::BrokenPipe);
    let through = || -> ipc::Result<()> { Err(flush_error())? };
    assert!(matches!(through(), Err(Error::TimedOut)));
    let through = || -> io::Result<()> { Err(flush_error())? };
    assert_eq!(through().unwrap_err().kind(), ErrorKind::TimedOut);
    let _still_there = fork_error().ends;
}

fn what_gives_something_back_is_an_error_and_names_its_cause() {
    fn names_its_cause(error: impl std::error::Error) -> bool {
        error.to_string().ends_with(": the time is up")
    }
    let file = File::open("/dev/null").unwrap();
    assert!(names_its_cause(ForkError { ends: Opaque(file.as_fd()), error: Error::TimedOut }));
    assert!(names_its_cause(SendError { ends: Opaque(file.as_fd()), error: Error::TimedOut }));
    assert!(names_its_cause(FlushError { unflushed: Opaque(file.as_fd()), error: Error::TimedOut }));
    assert!(names_its_cause(SpawnError { command: Command::new("worker"), error: Error::TimedOut }));
    assert!(names_its_cause(FromFdError { fd: null(), error: Error::TimedOut }));
}
