//! Programs that are fed and heard: what they say is kept, and a deadline holds.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::among_threads::reaper;
use super::{errno, sh};
use crate::support::{self, FAR, SOON, Trial, await_orphans, exit_code, read_all, refused};
use ipc::{Command, Error, Stdio, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        input_and_both_outputs_go_at_once,
        no_pipe_to_a_program_is_non_blocking,
        input_goes_on_an_older_kernel,
        input_goes_where_every_write_may_wait,
        a_program_that_wants_no_input_is_no_error,
        when_the_time_is_up_what_was_said_is_in_the_error,
        when_the_time_is_up_the_group_is_killed,
        a_program_that_left_in_time_is_heard_out,
        a_grandchild_that_keeps_stdout_does_not_hold_it,
        a_grandchild_does_not_hold_it_past_the_time,
        a_program_that_says_more_than_memory_holds_is_an_error_with_what_it_said,
        a_program_that_says_no_more_is_waited_for,
        a_program_that_does_not_start_says_its_name,
        input_for_a_stdin_that_is_set_is_refused,
        a_number_that_is_given_is_what_output_leaves_alone,
        a_status_that_was_taken_loses_no_output,
        a_program_that_cannot_be_killed_does_not_hold_the_deadline,
    ]
}

fn input_and_both_outputs_go_at_once() {
    // More than three pipes hold.
    let input = vec![b'x'; 3 << 20];
    let output = sh("tee /dev/stderr").communicate(&input, None).unwrap();
    assert!(output.status.success());
    assert!(output.stdout == input && output.stderr == input);
    let output = sh("wc -c").communicate(&input, Some(FAR)).unwrap();
    assert_eq!(output.stdout.trim_ascii(), b"3145728");
    assert_eq!(sh("cat").communicate(b"", Some(FAR)).unwrap().stdout, b"");
    assert_eq!(open_ends(), 0);
}

fn no_pipe_to_a_program_is_non_blocking() {
    // More than the pipe holds, so that it is still open.
    let input = vec![0; 1 << 20];
    let output = sh(support::FLAGS_OF_PARENTS_PIPES).communicate(&input, None).unwrap();
    support::assert_none_is_nonblocking(&output.stdout, 3);
}

fn input_goes_on_an_older_kernel() {
    // Before 6.4, no flag of a read or a write makes it return from a pipe at once.
    support::refuse_flags(support::RWF_NOWAIT | support::RWF_NOSIGNAL);
    let input = support::bytes(3 << 20);
    let output = sh("tee /dev/stderr").communicate(&input, Some(FAR)).unwrap();
    assert!(output.status.success());
    assert!(output.stdout == input && output.stderr == input);
    let output = sh("exec <&-; echo enough").communicate(&input, None).unwrap();
    assert_eq!(output.stdout, b"enough\n");
}

fn input_goes_where_every_write_may_wait() {
    support::refuse_flags(support::RWF_NOWAIT | support::RWF_NOSIGNAL);
    support::refuse_calls(&[libc::SYS_splice], libc::EPERM);
    let input = support::bytes(1 << 20);
    // Both outputs are full before it has read all. A write that waited would stay for ever.
    let output = sh("tee /dev/stderr").communicate(&input, Some(FAR)).unwrap();
    assert!(output.stdout == input && output.stderr == input);
    let output = sh("exec <&-; echo enough").communicate(&input, Some(FAR)).unwrap();
    assert_eq!(output.stdout, b"enough\n");
    // It keeps its input and reads none: the deadline holds.
    let stopped = sh("echo begun; exec sleep 1000").communicate(&input, Some(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(stopped.error, Error::TimedOut), "{stopped:?}");
    assert_eq!(stopped.stdout, b"begun\n");
}

fn a_program_that_wants_no_input_is_no_error() {
    let input = vec![0; 1 << 20];
    let output = sh("exec <&-; echo enough; exit 3").communicate(&input, Some(FAR)).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"enough\n"[..]));
    // It closes its input and goes on.
    let output = sh("exec <&-; sleep 0.2; echo later").communicate(&input, None).unwrap();
    assert_eq!(output.stdout, b"later\n");
}

fn when_the_time_is_up_what_was_said_is_in_the_error() {
    let started = Instant::now();
    let command = sh("echo out; echo err >&2; exec sleep 1000");
    let stopped = command.communicate(&vec![0; 1 << 20], Some(Duration::from_millis(300))).unwrap_err();
    assert!(started.elapsed() < SOON);
    assert!(matches!(stopped.error, Error::TimedOut), "{stopped:?}");
    assert_eq!((&*stopped.stdout, &*stopped.stderr), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(stopped.to_string(), "\"sh\": the time is up");
    // Nothing is left of it: the harness would find a child, a process or an end.
}

fn when_the_time_is_up_the_group_is_killed() {
    let (reader, writer) = pipe().unwrap();
    let command = sh("sleep 1000 & echo $!; wait").give("held", writer).process_group(0);
    let stopped = command.communicate(b"", Some(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(stopped.error, Error::TimedOut));
    assert_eq!(read_all(reader), b"", "the grandchild is gone too");
    await_orphans(1);
}

fn a_program_that_left_in_time_is_heard_out() {
    const TIME: Duration = Duration::from_secs(2);
    let (reader, writer) = pipe().unwrap();
    let starter = fork(writer, |writer| {
        // Each packet takes a read of its own, and the time is up before the first of them.
        let packets = "kill -STOP $PPID; dd if=/dev/zero oflag=direct bs=100 count=10 2>/dev/null; echo said >&9";
        let output = sh(packets).give_at(9, writer).communicate(b"", Some(TIME)).unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout.len(), 1000);
    })
    .unwrap();
    assert_eq!(reader.read_timeout(&mut [0; 5], FAR).unwrap(), 5);
    assert_eq!(starter.wait_timeout(TIME).unwrap(), None, "it is stopped, and the program leaves");
    starter.signal(libc::SIGCONT).unwrap();
    assert_eq!(exit_code(&starter), 0);
}

fn a_grandchild_that_keeps_stdout_does_not_hold_it() {
    let started = Instant::now();
    let output = sh("sleep 1000 & echo $!").communicate(b"", None).unwrap();
    assert!(started.elapsed() < SOON);
    assert!(output.status.success());
    let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    // SAFETY: the number of a process that nobody has waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    await_orphans(1);
}

fn a_grandchild_does_not_hold_it_past_the_time() {
    let started = Instant::now();
    // Neither where the program has left in time, nor where it has not and leads no group.
    let command = sh("sleep 1000 & echo $!");
    let pid = command.communicate(b"", Some(Duration::from_secs(2))).map(|output| output.stdout);
    let command = sh("sleep 1000 & echo $!; exec sleep 1000");
    let stopped = command.communicate(b"", Some(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(stopped.error, Error::TimedOut), "{stopped:?}");
    assert!(started.elapsed() < SOON);
    for pid in [pid.unwrap(), stopped.stdout] {
        let pid: i32 = String::from_utf8(pid).unwrap().trim().parse().unwrap();
        // SAFETY: the number of a process that nobody has waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    }
    await_orphans(2);
}

fn a_program_that_says_more_than_memory_holds_is_an_error_with_what_it_said() {
    let child = fork((), |()| {
        support::limit(libc::RLIMIT_AS, |_| 96 << 20);
        let endless = || sh("echo err >&2; exec yes");
        let stopped = endless().communicate(b"", None).unwrap_err();
        assert_eq!(errno(&stopped.error), ("malloc", libc::ENOMEM));
        let lines = b"y\n".repeat(4096);
        assert!(stopped.stdout.len() > 1 << 20);
        assert!(stopped.stdout.chunks(lines.len()).all(|piece| *piece == lines[..piece.len()]));
        assert_eq!(stopped.stderr, b"err\n");
        drop(stopped);
        assert_eq!(refused(endless().output()), ("malloc", libc::ENOMEM));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_program_that_says_no_more_is_waited_for() {
    let silent = |then: &str| sh(&format!("echo said; exec >&- 2>&-; {then}"));
    let output = silent("sleep 0.1; exit 3").communicate(b"", Some(FAR)).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"said\n"[..]));
    let stopped = silent("exec sleep 1000").communicate(b"", Some(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(stopped.error, Error::TimedOut), "{stopped:?}");
    assert_eq!(stopped.stdout, b"said\n");
}

fn a_program_that_does_not_start_says_its_name() {
    let refused = Command::new("/no/such/program").communicate(b"x", Some(FAR)).unwrap_err();
    assert!(
        matches!(&refused.error, Error::NotStarted { program, .. } if program == "/no/such/program"),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("/no/such/program"), "{refused}");
    assert_eq!(std::io::Error::from(refused).kind(), std::io::ErrorKind::NotFound);
}

fn input_for_a_stdin_that_is_set_is_refused() {
    let refused = sh("cat").stdin(Stdio::null()).communicate(b"x", None).unwrap_err();
    assert!(matches!(refused.error, Error::InvalidInput { .. }), "{refused:?}");
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"other").unwrap();
    drop(writer);
    assert_eq!(sh("cat").stdin(reader).communicate(b"", None).unwrap().stdout, b"other");
}

fn a_number_that_is_given_is_what_output_leaves_alone() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"given").unwrap();
    drop(writer);
    assert_eq!(Command::new("cat").give_at(0, reader).output().unwrap().stdout, b"given");
    let (reader, writer) = pipe().unwrap();
    let output = sh("echo there; echo here >&2").give_at(1, writer).output().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b"here\n"[..]));
    assert_eq!(read_all(reader), b"there\n");
}

fn a_status_that_was_taken_loses_no_output() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| reaper(&stop));
        let mut taken = 0;
        while taken < 5 {
            let (stdout, stderr) = match sh("echo out; echo err >&2").output() {
                Ok(output) => (output.stdout, output.stderr),
                Err(Error::StatusTaken { stdout, stderr }) => {
                    taken += 1;
                    (stdout, stderr)
                }
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!((&*stdout, &*stderr), (&b"out\n"[..], &b"err\n"[..]));
            match sh("cat").communicate(b"input", None) {
                Ok(output) => assert_eq!(output.stdout, b"input"),
                Err(stopped) => {
                    assert!(matches!(stopped.error, Error::StatusTaken { .. }), "{stopped:?}");
                    assert_eq!(stopped.stdout, b"input");
                }
            }
        }
        stop.store(true, SeqCst);
    });
}

fn a_program_that_cannot_be_killed_does_not_hold_the_deadline() {
    let (reader, writer) = pipe().unwrap();
    // As of a program that runs as another user.
    support::refuse_calls(&[libc::SYS_pidfd_send_signal], libc::EPERM);
    let stopped = Command::new("cat").stdin(reader).communicate(b"", Some(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(stopped.error, Error::TimedOut));
    drop(writer);
    // It leaves now.
    // SAFETY: a number, and nobody who asks for a status.
    assert!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0);
}
