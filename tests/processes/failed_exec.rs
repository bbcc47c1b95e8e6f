//! A process that could not become another program goes on as it was: nothing of its own was closed, and nobody was hit.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::{self, Is, Kernel, Sigpipe, Trial, exit_code, read_all, refused, sigpipe};
use ipc::{Command, Error, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        no_thread_that_writes_to_nobody_is_ended,
        what_stands_over_a_limit_stays_there,
        nothing_is_closed_on_an_older_kernel,
        nothing_is_left_open_in_a_program_on_an_older_kernel,
        a_sandbox_that_refuses_to_look_for_the_program_does_not_keep_it_away,
    ]
}

fn errno(error: Error) -> (&'static str, i32) {
    refused(Err::<(), _>(error))
}

fn no_thread_that_writes_to_nobody_is_ended() {
    let child = fork((), |()| {
        sigpipe(Sigpipe::Ignore);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (reader, mut writer) = std::io::pipe().unwrap();
                drop(reader);
                while !done.load(SeqCst) {
                    assert_eq!(writer.write(b"!").unwrap_err().kind(), ErrorKind::BrokenPipe);
                }
            });
            // Looking for it takes a while.
            let path = vec!["/no/such/directory"; 5000].join(":");
            for _ in 0..support::rounds(1) {
                let command = Command::new("no-such-program").env("PATH", &path);
                assert_eq!(errno(command.exec().error), ("execve", libc::ENOENT));
            }
            done.store(true, SeqCst);
        });
        // SAFETY: a null new action only asks.
        let now = unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut now);
            now.sa_sigaction
        };
        assert_eq!(now, libc::SIG_IGN);
    });
    let child = child.unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// Of what a number stands for.
fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_ino
}

fn what_stands_over_a_limit_stays_there() {
    let file = File::open("/dev/null").unwrap();
    // SAFETY: a number that nothing has.
    let high = unsafe { OwnedFd::from_raw_fd(libc::dup2(file.as_raw_fd(), 200)) };
    let child = fork((), |()| {
        let (_reader, writer) = pipe().unwrap();
        let before = inode(&high);
        let command = Command::new("/no/such/program").give_at(200, writer);
        let refused = command.rlimit(libc::RLIMIT_NOFILE, 100, 100).exec();
        assert_eq!(errno(refused.error), ("dup2", libc::EBADF));
        assert_eq!(inode(&high), before, "what it stood for before");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// 5.10 closes, and marks nothing.
fn older_kernel() {
    Kernel::new().with(libc::SYS_close_range, 2, Is::AnyOf(4), libc::EINVAL).play();
}

fn nothing_is_closed_on_an_older_kernel() {
    older_kernel();
    let child = fork((), |()| {
        let file = File::open("/dev/null").unwrap();
        let (reader, writer) = pipe().unwrap();
        let before = inode(&file);
        let refused = Command::new("/no/such/program").give_at(file.as_raw_fd(), writer).close_others().exec();
        assert_eq!(errno(refused.error), ("execve", libc::ENOENT));
        assert_eq!((inode(&file), reader.available().unwrap()), (before, 0));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn nothing_is_left_open_in_a_program_on_an_older_kernel() {
    older_kernel();
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let leak = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let look = "cd /proc/self/fd; for fd in *; do test -e $fd && echo -n \"$fd \"; done; echo";
        Err::<(), _>(Command::new("sh").args(["-c", look]).stdout(writer).close_others().exec())
    });
    assert_eq!(read_all(reader), b"0 1 2 \n");
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_sandbox_that_refuses_to_look_for_the_program_does_not_keep_it_away() {
    Kernel::new().without(libc::SYS_faccessat2, libc::EPERM).play();
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        assert_eq!(errno(Command::new("/no/such/program").exec().error), ("execve", libc::ENOENT));
        Err::<(), _>(Command::new("echo").arg("there").stdout(writer).exec())
    });
    assert_eq!(read_all(reader), b"there\n");
    assert_eq!(exit_code(&child.unwrap()), 0);
}
