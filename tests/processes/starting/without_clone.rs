//! The ways of starting that are left where a kernel or a sandbox refuses a call.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use super::descriptors::a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program;
use super::{errno, said, sh};
use crate::support::{self, FAR, Is, Kernel, Trial, exit_code, read_all};
use ipc::{Command, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        without_clone3_nothing_is_different,
        without_pidfds_by_clone_it_starts_another_way,
        without_clone_posix_spawn_starts_it_and_the_rest_is_refused,
        without_clone_a_program_is_looked_for_and_then_started_once needs [STRACE],
    ]
}

/// What every way of starting can do.
fn the_plain_ways_work() {
    assert_eq!(said(Command::new("echo").arg("hello")), "hello\n");
    let (reader, writer) = pipe().unwrap();
    let number = reader.as_raw_fd();
    let child =
        sh(&format!("cat <&{number}; pwd")).give_at(number, File::open("/dev/null").unwrap()).current_dir("/usr");
    let child = child.stdout(writer).spawn().unwrap();
    assert_eq!(read_all(reader), b"/usr\n");
    assert_eq!(exit_code(&child), 0);
    let refused = Command::new("/no/such/program").spawn().unwrap_err();
    assert_eq!(errno(&refused.error).1, libc::ENOENT);
    assert_eq!(said(Command::new("true").env("PATH", "/no/such:/bin:/usr/bin")), "");
    assert_eq!(sh("cat").communicate(b"input", Some(FAR)).unwrap().stdout, b"input");
}

/// What only a start of this crate's own can do.
fn the_options_work() {
    assert_eq!(said(sh("umask").umask(0o022).process_group(0).die_with_parent().close_others()), "0022\n");
    let text = said(sh("echo $OWN $$").new_session().env_pid("OWN").rlimit(libc::RLIMIT_NOFILE, 50, 60));
    let (own, pid) = text.trim().split_once(' ').unwrap();
    assert_eq!(own, pid);
    assert_eq!(
        errno(&Command::new("true").current_dir("/no/such").spawn().unwrap_err().error),
        ("chdir", libc::ENOENT)
    );
}

/// As many sandboxes do.
fn without_clone3_nothing_is_different() {
    for refusal in [libc::ENOSYS, libc::EPERM] {
        let child = fork((), |()| {
            support::refuse_calls(&[libc::SYS_clone3], refusal);
            the_plain_ways_work();
            the_options_work();
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn without_pidfds_by_clone_it_starts_another_way() {
    // As an emulator answers that does not know the flag, and as sandboxes do.
    for refusal in [libc::EINVAL, libc::EPERM, libc::ENOSYS] {
        let child = fork((), |()| {
            Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PIDFD as u32), refusal).play();
            the_plain_ways_work();
            the_options_work();
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn without_clone_posix_spawn_starts_it_and_the_rest_is_refused() {
    // Whatever shares memory and waits for its child; glibc's posix_spawn does so by clone3, or not at all here.
    let flags = libc::CLONE_PIDFD as u32 | libc::CLONE_VFORK as u32;
    let verdict = support::judge(support::LIMIT, || {
        Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(flags), libc::EPERM).play();
        match Command::new("true").spawn() {
            Ok(child) => {
                assert_eq!(exit_code(&child), 0);
                the_plain_ways_work();
                a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program();
                the_first_program_that_may_be_run_is_started();
            }
            // Its posix_spawn makes the same call.
            Err(refused) => assert_eq!(errno(&refused.error), ("posix_spawn", libc::EPERM)),
        }
        for command in [
            Command::new("true").process_group(0),
            Command::new("true").new_session(),
            Command::new("true").close_others(),
            Command::new("true").umask(0),
            Command::new("true").die_with_parent(),
            Command::new("true").env_pid("PID"),
            Command::new("true").uid(0),
        ] {
            let refused = command.spawn().unwrap_err();
            assert_eq!(errno(&refused.error), ("clone", libc::EPERM));
        }
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

/// Whatever else has that name is passed over, as a shell does.
fn the_first_program_that_may_be_run_is_started() {
    let folder = support::Folder::new();
    let set = |name: &str, mode| {
        std::fs::set_permissions(folder.0.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for part in ["text", "folder/tool", "none", "interpreter", "tool"] {
        std::fs::create_dir_all(folder.0.join(part)).unwrap();
    }
    folder.file("text/tool", b"#!/bin/sh\necho text\n");
    set("text/tool", 0o644);
    folder.file("interpreter/tool", b"#!/no/such/interpreter\n");
    set("interpreter/tool", 0o755);
    folder.file("tool/tool", b"#!/bin/sh\necho it\n");
    set("tool/tool", 0o755);
    let path = |parts: &[&str]| {
        let parts = parts.iter().map(|part| folder.0.join(part).into_os_string().into_string().unwrap());
        parts.collect::<Vec<_>>().join(":")
    };
    let tool = |parts: &[&str]| Command::new("tool").env("PATH", path(parts));
    assert_eq!(said(tool(&["none", "text/tool", "text", "folder", "interpreter", "tool"])), "it\n");
    assert_eq!(errno(&tool(&["none", "folder"]).spawn().unwrap_err().error).1, libc::EACCES);
    assert_eq!(errno(&tool(&["text", "none"]).spawn().unwrap_err().error).1, libc::EACCES);
    assert_eq!(errno(&tool(&["none", "text/tool"]).spawn().unwrap_err().error).1, libc::ENOENT);
    // From the directory that it is started in.
    assert_eq!(said(Command::new("./tool").current_dir(folder.0.join("tool"))), "it\n");
    assert_eq!(said(Command::new("tool").env("PATH", "none:tool").current_dir(&folder.0)), "it\n");
    let refused = Command::new("true").current_dir("/no/such/directory").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOENT));
}

/// What this program does where a test of this module has started it under strace.
pub fn started() -> Option<std::process::ExitCode> {
    std::env::var_os(support::TRACED).filter(|name| *name == *LOOKED_FOR)?;
    let flags = libc::CLONE_PIDFD as u32 | libc::CLONE_VFORK as u32;
    Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(flags), libc::EPERM).play();
    let command = Command::new("true").env("PATH", "/no/such:/etc:/etc/passwd:/bin:/usr/bin");
    let spawn = || {
        command.spawn().inspect(|_| {
            // For the trace.
            // SAFETY: a number.
            unsafe { libc::getpgid(0) };
        })
    };
    match support::measured(spawn) {
        Ok(child) => assert_eq!(exit_code(&child), 0),
        // Its posix_spawn makes the same call.
        Err(refused) => assert_eq!(errno(&refused.error), ("posix_spawn", libc::EPERM)),
    }
    Some(std::process::ExitCode::SUCCESS)
}

const LOOKED_FOR: &str = "looked for";

/// An emulator makes a plain fork of posix_spawn: one that finds no program leaves with 127, and no error is told.
fn without_clone_a_program_is_looked_for_and_then_started_once() {
    let calls = support::traced_calls(LOOKED_FOR).unwrap();
    let is_ok = calls.iter().any(|line| line.starts_with("getpgid("));
    let mut clones = calls.iter().filter(|line| line.starts_with("clone")).peekable();
    assert!(clones.peek().is_some(), "{calls:#?}");
    let started = clones.skip_while(|line| line.contains(" = -1 ")).count();
    assert_eq!(started, usize::from(is_ok), "{calls:#?}");
}
