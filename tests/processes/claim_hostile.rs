//! Descriptions of given ends that are stale, forged, hostile, or cannot be read: no descriptor is taken that is not meant.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::claim::{assert_missing, assert_succeeds, foreign_worker, in_tmp, me, worker};
use crate::support::{self, Trial, descriptor_flags, exit_code, read_all};
use ipc::{Error, PipeReader, PipeWriter, claim, claimable, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_stale_description_names_nobodys_descriptor,
        an_end_that_was_closed_is_not_there,
        the_environment_cannot_be_forged_from_inside,
        a_process_that_may_not_read_its_environment_claims,
        a_process_that_wrote_its_title_over_the_environment_claims,
        hostile_descriptions_name_nothing within 60,
        a_descriptor_of_the_programs_own_is_never_taken,
        standard_descriptors_are_never_taken,
    ]
}

fn a_stale_description_names_nobodys_descriptor() {
    let (reader, _writer) = pipe().unwrap();
    assert_succeeds(worker("stale-parent").give("reader", reader));
}

pub(super) fn worker_stale_parent() {
    let reader: PipeReader = claim("reader").unwrap();
    let number = reader.as_raw_fd();
    let grandchild = || assert!(foreign_worker("stale").arg(number.to_string()).status().unwrap().success());
    grandchild(); // nothing is open there
    let other = File::open("/dev/null").unwrap();
    let (another, _writer) = std::io::pipe().unwrap();
    for there in [other.as_raw_fd(), another.as_raw_fd()] {
        // SAFETY: two open numbers. The reader is dropped at the end, and closes what is there then.
        assert_eq!(unsafe { libc::dup2(there, number) }, number);
        grandchild(); // something else is
    }
    drop(reader);
}

pub(super) fn worker_stale() {
    let number: RawFd = std::env::args().nth(3).unwrap().parse().unwrap();
    assert!(std::env::var("IPC_ENDS").unwrap().starts_with("reader:"), "it has the variable");
    let there = || std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let before = there();
    assert!(claimable().unwrap().is_empty());
    assert_missing(claim::<OwnedFd>("reader"), "reader");
    assert_missing(claim::<PipeReader>("reader"), "reader");
    assert_eq!(there(), before, "it is untouched");
}

fn an_end_that_was_closed_is_not_there() {
    let (reader, writer) = pipe().unwrap();
    assert_succeeds(worker("closed").give("reader", reader).give("writer", writer));
}

pub(super) fn worker_closed() {
    let number_of = |index: usize| -> RawFd {
        let described = std::env::var("IPC_ENDS").unwrap();
        described.split(',').nth(index).unwrap().split(':').nth(1).unwrap().parse().unwrap()
    };
    let (reader, writer) = (number_of(0), number_of(1));
    // SAFETY: nothing in Rust owns it yet.
    assert_eq!(unsafe { libc::close(reader) }, 0);
    assert_missing(claim::<PipeReader>("reader"), "reader");
    assert_eq!(claimable().unwrap(), ["writer"]);
    // Taken by hand, as a program may that knows the form.
    // SAFETY: it is open, and nobody claims it.
    let by_hand = unsafe { OwnedFd::from_raw_fd(writer) };
    // SAFETY: an open descriptor.
    assert_eq!(unsafe { libc::fcntl(by_hand.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
    assert_missing(claim::<PipeWriter>("writer"), "writer");
    assert_eq!(by_hand.into_raw_fd(), writer);
}

fn the_environment_cannot_be_forged_from_inside() {
    let (reader, _writer) = pipe().unwrap();
    assert_succeeds(worker("forging").give("reader", reader));
}

pub(super) fn worker_forging() {
    let (own, _writer) = std::io::pipe().unwrap();
    // SAFETY: an open descriptor.
    assert_eq!(unsafe { libc::fcntl(own.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let (number, status) = (own.as_raw_fd(), File::from(OwnedFd::from(own.try_clone().unwrap())).metadata().unwrap());
    let forged = format!("forged:{number}:{}:{}", status.dev(), status.ino());
    // SAFETY: there is no other thread.
    unsafe { std::env::set_var("IPC_ENDS", &forged) };
    assert_missing(claim::<OwnedFd>("forged"), "forged");
    assert_eq!(claimable().unwrap(), ["reader"]);
    // SAFETY: there is no other thread.
    unsafe { std::env::remove_var("IPC_ENDS") };
    claim::<PipeReader>("reader").unwrap();
    // The same is true in a program that is started with it: that is how it is known to be well formed.
    let started = foreign_worker("hostile").env("IPC_ENDS", forged.replace("forged", "other")).status().unwrap();
    assert_eq!(started.code(), Some(3), "there it counts");
}

fn a_process_that_may_not_read_its_environment_claims() {
    let (reader, writer) = pipe().unwrap();
    let child = worker("undumpable").give("writer", writer).spawn().unwrap();
    assert_eq!(read_all(reader), b"claimed");
    assert_eq!(exit_code(&child), 0);
}

pub(super) fn worker_undumpable() {
    support::become_nobody();
    // SAFETY: integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, 0);
    let refused = std::fs::read("/proc/self/environ").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    claims_by_the_environment_of_the_moment();
}

fn a_process_that_wrote_its_title_over_the_environment_claims() {
    for title in ["worker: idle", "", "a=b", "fills"] {
        let (reader, writer) = pipe().unwrap();
        let child = worker("retitled").arg(title).give("writer", writer).spawn().unwrap();
        assert_eq!(read_all(reader), b"claimed", "{title:?}");
        assert_eq!(exit_code(&child), 0);
    }
}

/// As setproctitle(3) does: the environment moves elsewhere, and the title is written where it was.
pub(super) fn worker_retitled() {
    let title = std::env::args().nth(3).unwrap();
    let variables: Vec<_> = std::env::vars_os().collect();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(47);
    let mut field = || fields.next().unwrap().parse::<usize>().unwrap();
    let (start, end) = (field(), field());
    // SAFETY: this is the only thread, and nobody has a reference to the environment that it was started with. The kernel
    // says where that is, on the stack, and nothing else is there.
    unsafe {
        libc::clearenv();
        variables.iter().for_each(|(name, value)| std::env::set_var(name, value));
        let title = if title == "fills" { "x".repeat(end - start - 1) } else { title };
        std::ptr::write_bytes(start as *mut u8, 0, end - start);
        std::ptr::copy_nonoverlapping(title.as_ptr(), start as *mut u8, title.len());
    }
    let there = std::fs::read("/proc/self/environ").unwrap();
    assert!(!String::from_utf8_lossy(&there).contains("IPC_ENDS"));
    claims_by_the_environment_of_the_moment();
}

fn claims_by_the_environment_of_the_moment() {
    assert_eq!(claimable().unwrap(), ["writer"]);
    assert_missing(claim::<OwnedFd>("other"), "other");
    claim::<PipeWriter>("writer").unwrap().write_all(b"claimed").unwrap();
    assert!(matches!(claim::<OwnedFd>("writer"), Err(Error::AlreadyClaimed { .. })));
}

fn hostile_descriptions_name_nothing() {
    let mut values: Vec<OsString> = [
        "",
        ",",
        ",,,,",
        ":",
        ":::",
        "::::",
        "x",
        "x:",
        "x:3",
        "x:3:4",
        "x:3:4:",
        "x:3:4:5:6",
        "x:-1:4:5",
        "x:+3:4:5",
        "x: 3:4:5",
        "x:3.0:4:5",
        "x:0x3:4:5",
        "x:99999999999999999999:4:5",
        "x:2147483648:4:5",
        "x:2147483647:4:5",
        "x:1000000:4:5",
        "x:4294967299:4:5",
        "x:3:18446744073709551616:5",
        "x:3:-4:5",
        "x:::",
        "%:3:4:5",
        "%7:3:4:5",
        "%zz:3:4:5",
        "%-1:3:4:5",
        "x;3;4;5",
        "x=3:4:5",
        "x:3:4:5,",
        "x:3:0:0",
        "\n",
        "x:3:4:5\n",
        "١:٣:4:5",
    ]
    .into_iter()
    .map(OsString::from)
    .collect();
    values.push(OsString::from_vec(b"\xff\xfe:3:4:5".to_vec()));
    values.push(OsString::from_vec(b"%FF:3:4:5".to_vec()));
    values.push(OsString::from_vec(b"x:\xff:4:5".to_vec()));
    values.push("x".repeat(120_000).into());
    values.push(",".repeat(120_000).into());
    values.push("x:".repeat(60_000).into());
    values.push("%41".repeat(40_000).into());
    values.push("x:3:4:5,".repeat(15_000).into());
    values.push(format!("x:{}:4:5", "9".repeat(100_000)).into());
    for value in values {
        let output = foreign_worker("hostile").env("IPC_ENDS", &value).output().unwrap();
        assert!(output.status.success(), "{:.100?}: {output:?}", value);
    }
    // Only entries that are not of the form are passed over.
    let null = std::fs::metadata("/dev/null").unwrap();
    let (dev, ino) = (null.dev(), null.ino());
    let value = format!("bad,x:y:z,,good:9:{dev}:{ino},:");
    let script = "exec \"$0\" worker hostile 9</dev/null";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(me()).env("IPC_ENDS", value).status();
    assert_eq!(status.unwrap().code(), Some(3));
}

/// Leaves with 3 if something is there after all.
pub(super) fn worker_hostile() {
    let names = ["", "x", "X", "9", "A", "bad", "\u{fffd}", "other"];
    let claimed = names.map(claim::<OwnedFd>);
    let listed = claimable().unwrap();
    for (name, claimed) in names.iter().zip(claimed) {
        match claimed {
            Ok(_) => std::process::exit(3),
            missing => assert_missing(missing, name),
        }
    }
    if listed == ["good"] {
        std::process::exit(3);
    }
    assert!(listed.is_empty(), "{listed:?}");
}

/// A description of a file at each of these numbers.
fn described_at(path: &Path, numbers: Range<RawFd>) -> String {
    let file = std::fs::metadata(path).unwrap();
    numbers.map(|number| format!("at{number}:{number}:{}:{}", file.dev(), file.ino())).collect::<Vec<_>>().join(",")
}

fn a_descriptor_of_the_programs_own_is_never_taken() {
    let path = in_tmp("own");
    File::create_new(&path).unwrap();
    let mut command = foreign_worker("own");
    assert!(command.arg(&path).env("IPC_ENDS", described_at(&path, 3..100)).status().unwrap().success());
    std::fs::remove_file(path).unwrap();
}

pub(super) fn worker_own() {
    let path = std::env::args_os().nth(3).unwrap();
    let files: Vec<File> = (0..10).map(|_| File::open(&path).unwrap()).collect();
    for file in &files {
        let name = format!("at{}", file.as_raw_fd());
        assert!((3..100).contains(&file.as_raw_fd()));
        assert_missing(claim::<OwnedFd>(&name), &name);
    }
    assert!(claimable().unwrap().is_empty());
    assert!(files.iter().all(|file| descriptor_flags(file) == libc::FD_CLOEXEC));
}

fn standard_descriptors_are_never_taken() {
    let mut command = foreign_worker("standard");
    command.env("IPC_ENDS", described_at(Path::new("/dev/null"), 0..3)).stdin(std::process::Stdio::null());
    assert!(command.status().unwrap().success());
}

pub(super) fn worker_standard() {
    assert!(claimable().unwrap().is_empty());
    for number in 0..3 {
        let name = format!("at{number}");
        assert_missing(claim::<OwnedFd>(&name), &name);
    }
    // SAFETY: an integer.
    assert_eq!(unsafe { libc::fcntl(0, libc::F_GETFD) }, 0, "it is as it was");
}
