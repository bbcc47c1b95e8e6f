//! Starting programs as a supervisor needs it: groups, sessions, users, limits, talking with a deadline, and a process that
//! is held from its first moment.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, Gate, Held, Is, Kernel, SOON, Trial, await_orphans, await_whoever_is_left, closed_standard_descriptors,
    exit_code, handle_signal, handled, is_root, poll_until, process_state, read_all, refused, with_interval_timer,
};
use ipc::{Command, Error, Fork, Stdio, fork, open_ends, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        input_and_both_outputs_go_at_once,
        no_pipe_to_a_program_is_non_blocking,
        input_goes_on_an_older_kernel,
        input_goes_where_every_write_may_wait,
        a_program_that_wants_no_input_is_no_error,
        when_the_time_is_up_what_was_said_is_in_the_error,
        when_the_time_is_up_the_group_is_killed,
        a_grandchild_that_keeps_stdout_does_not_hold_it,
        a_grandchild_does_not_hold_it_past_the_time,
        a_program_that_says_more_than_memory_holds_is_an_error_with_what_it_said,
        a_program_that_says_no_more_is_waited_for,
        a_program_that_does_not_start_says_its_name,
        input_for_a_stdin_that_is_set_is_refused,
        a_number_that_is_given_is_what_output_leaves_alone,
        a_group_is_signalled_and_the_caller_is_not,
        a_group_can_be_killed_after_its_leader_was_waited_for,
        a_child_without_a_group_has_none_to_signal,
        a_session_has_no_terminal,
        ctrl_c_hits_the_terminals_group_alone,
        a_program_dies_with_its_parent,
        a_starter_that_dies_before_the_kernel_is_asked_leaves_nothing,
        a_program_dies_with_the_thread_that_started_it,
        nothing_else_leaks,
        nothing_else_leaks_on_an_older_kernel,
        an_exec_that_fails_closes_nothing_on_an_older_kernel,
        an_exec_that_fails_among_threads_makes_no_signal_of_their_errors,
        an_exec_that_fails_among_threads_leaves_their_handlers_alone,
        a_descriptor_that_is_not_close_on_exec_is_open_once,
        user_groups_and_limits_are_set,
        a_change_of_user_leaves_this_process_dumpable,
        what_is_not_allowed_is_refused_by_name,
        question_mark_keeps_the_name_of_a_program_whose_options_are_refused,
        question_mark_names_no_program_where_no_descriptor_is_left,
        the_hook_runs_last_and_its_error_is_the_starts,
        a_panicking_hook_starts_nothing,
        a_missing_directory_is_told_from_a_missing_program,
        a_path_through_a_file_is_not_a_directory,
        argument_0_can_be_another,
        its_own_number_is_in_its_environment,
        permutations_come_out_right,
        a_pidfd_keeps_above_the_standard_three,
        a_failed_start_is_nobodys_child,
        whoever_waits_for_every_child_takes_no_program_away,
        a_status_that_was_taken_loses_no_output,
        a_hundred_threads_start_programs_at_once within 120,
        signals_all_the_time_do_no_harm within 120,
        no_hidden_copy_is_made_of_what_is_given,
        a_fork_with_threads_holds_its_child within 120,
        without_clone3_nothing_is_different,
        without_pidfds_by_clone_it_starts_another_way,
        without_clone_posix_spawn_starts_it_and_the_rest_is_refused,
        without_clone_a_program_is_looked_for_and_then_started_once needs [STRACE],
        a_socket_is_both_stdin_and_stdout,
        an_end_is_lent_and_shared,
        the_pipes_of_a_child_of_std_are_ends,
        this_processes_stdout_can_be_a_programs_stderr,
        an_exec_among_threads_changes_nothing,
        an_exec_of_a_failing_program_runs_no_handler_on_a_given_end,
        sigchld_is_at_its_default_in_a_program,
        terminate_asks_and_shut_down_insists,
        a_guard_kills_and_waits,
        a_group_is_shut_down_with_its_leader,
        a_group_has_the_grace_after_its_leader_has_left,
        a_process_whose_first_thread_has_left_has_the_grace_too,
        a_group_without_proc_is_killed_when_its_leader_has_left needs [HiddenProc],
        a_guard_kills_the_group_with_its_leader,
        a_program_that_cannot_be_killed_does_not_hold_the_deadline,
    ]
}

fn sh(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

fn said(command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn errno(error: &Error) -> (&'static str, i32) {
    match error {
        Error::System { call, source } => (call, source.raw_os_error().unwrap()),
        Error::NotStarted { error, .. } => errno(error),
        other => panic!("{other:?}"),
    }
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
        assert!(stopped.stdout.len() > 1 << 20 && stopped.stdout.chunks(2).all(|line| line == b"y\n"));
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

/// The process group and the session, as the program sees them.
const GROUP: &str = "set -- $(cat /proc/self/stat); echo $5 $6 $$";

fn a_group_is_signalled_and_the_caller_is_not() {
    // SAFETY: no conditions.
    let own = unsafe { libc::getpgrp() };
    let text = said(sh(GROUP).process_group(0));
    let [group, _, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(group, pid);
    assert!(said(sh(GROUP)).starts_with(&format!("{own} ")));
    assert!(said(sh(GROUP).process_group(own)).starts_with(&format!("{own} ")));

    let (mut reader, writer) = pipe().unwrap();
    // The leader waits for neither of the others.
    let family = sh("sleep 1000 & sleep 1000 & echo; exec sleep 1000").stdout(writer);
    let child = family.process_group(0).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    child.signal_group(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(read_all(reader), b"", "all of them are gone");
    await_orphans(2);
    let (call, errno) = refused(child.signal_group(10_000));
    assert_eq!((call, errno == libc::EINVAL || errno == libc::ESRCH), ("pidfd_send_signal", true));
    let invalid = Command::new("true").process_group(-1).spawn().unwrap_err();
    assert!(matches!(invalid.error, Error::InvalidInput { .. }));
}

fn a_group_can_be_killed_after_its_leader_was_waited_for() {
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("sleep 1000 & echo").stdout(writer).process_group(0).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(exit_code(&child), 0);
    // Since Linux 6.9 the group is found by the pidfd.
    match child.signal_group(libc::SIGKILL) {
        Ok(()) => {}
        Err(_) => {
            // SAFETY: the group is the test's, and has a process.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        }
    }
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
    child.kill_group().unwrap();
}

fn a_child_without_a_group_has_none_to_signal() {
    let child = sh("exec sleep 1000").spawn().unwrap();
    assert_eq!(refused(child.signal_group(libc::SIGKILL)), ("pidfd_send_signal", libc::ESRCH));
    child.kill_group().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(refused(child.signal_group(0)), ("pidfd_send_signal", libc::ESRCH));
}

fn a_session_has_no_terminal() {
    let text = said(sh(GROUP).new_session());
    let [group, session, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((group, session), (pid, pid));
    let child = sh("exec sleep 1000").new_session().spawn().unwrap();
    child.kill_group().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

fn ctrl_c_hits_the_terminals_group_alone() {
    let (mut terminal, mut end) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: room for two descriptors, which are new and nobody else's.
    let (terminal, end) = unsafe {
        assert_eq!(libc::openpty(&mut terminal, &mut end, none, none.cast(), none.cast()), 0);
        (File::from(OwnedFd::from_raw_fd(terminal)), OwnedFd::from_raw_fd(end))
    };
    let child = fork((), |()| {
        // SAFETY: a session of its own, with that terminal.
        unsafe {
            assert!(libc::setsid() > 0);
            assert_eq!(libc::ioctl(end.as_raw_fd(), libc::TIOCSCTTY, 0), 0);
        }
        let signals = ipc::Signals::new(&[libc::SIGINT]).unwrap();
        let (mut reader, writer) = pipe().unwrap();
        let start = || sh("echo; exec sleep 1000").stdout(&writer);
        let same = start().spawn().unwrap();
        let others = [start().process_group(0).spawn().unwrap(), start().new_session().spawn().unwrap()];
        reader.read_exact(&mut [0; 3]).unwrap();
        (&terminal).write_all(&[3]).unwrap();
        assert_eq!(same.wait().unwrap().signal(), Some(libc::SIGINT));
        assert_eq!(signals.next_timeout(FAR).unwrap(), libc::SIGINT);
        for other in others {
            assert_eq!(other.try_wait().unwrap(), None);
            assert_eq!(other.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
        }
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_program_dies_with_its_parent() {
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let child = fork(writer, |writer| {
        let _program = sh("exec sleep 1000").stdout(writer).die_with_parent().spawn().unwrap();
        gate.open();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
}

fn a_starter_that_dies_before_the_kernel_is_asked_leaves_nothing() {
    for is_program in [true, false] {
        let (reader, writer) = pipe().unwrap();
        let line = ipc::datagram_pair().unwrap();
        let starter = fork((writer, line.child), |(writer, line)| {
            let listener = support::hold_calls(libc::SYS_prctl, libc::PR_SET_PDEATHSIG as u32);
            line.send_with(b"held", &listener).unwrap();
            drop(listener);
            if is_program {
                sh("echo it runs").stdout(writer).die_with_parent().spawn().map(drop).unwrap();
            } else {
                Fork::new()
                    .die_with_parent()
                    .spawn(writer, |writer| writer.write_atomic(b"it runs"))
                    .map(drop)
                    .unwrap();
            }
        });
        let starter = starter.unwrap();
        let mut received = line.parent.recv_with(&mut Vec::new()).unwrap().unwrap();
        let listener: OwnedFd = received.take().unwrap();
        loop {
            let held = Held::next(&listener);
            if held.pid == starter.id() {
                held.go_on();
                continue;
            }
            starter.kill().unwrap();
            starter.wait().unwrap();
            held.go_on();
            break;
        }
        assert_eq!(read_all(reader), b"");
        await_orphans(1);
    }
}

fn a_program_dies_with_the_thread_that_started_it() {
    let (reader, writer) = pipe().unwrap();
    let start = move || sh("exec sleep 1000").stdout(writer).die_with_parent().spawn().unwrap();
    let child = std::thread::spawn(start).join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "as the documentation says");
    assert_eq!(read_all(reader), b"");
}

/// A descriptor that every program inherits.
fn inheritable() -> OwnedFd {
    let file = File::open("/dev/null").unwrap();
    // SAFETY: a number, and the copy that was just made.
    unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) }
}

/// The numbers that a program has open. (A listing of the directory would have one of its own.)
const OPEN: &str = "i=0; while [ $i -lt 200 ]; do [ -e /proc/$$/fd/$i ] && printf \"$i \"; i=$((i+1)); done; echo";

fn nothing_else_leaks() {
    let leaks: Vec<_> = (0..5).map(|_| inheritable()).collect();
    let high = leaks[4].as_raw_fd() + 100;
    // SAFETY: a number that nothing has.
    let high = unsafe { OwnedFd::from_raw_fd(libc::dup2(leaks[4].as_raw_fd(), high)) };
    assert!(said(sh(OPEN)).split_whitespace().count() >= 9, "they leak");
    assert_eq!(said(sh(OPEN).close_others()), "0 1 2 \n");
    let (reader, writer) = pipe().unwrap();
    let (one, two) = (leaks[1].as_raw_fd(), high.as_raw_fd() + 7);
    let text = said(sh(OPEN).close_others().give_at(one, reader).give_at(two, writer));
    assert_eq!(text, format!("0 1 2 {one} {two} \n"));
    // Also after an exec, and with another user, whose steps have a pipe to report on.
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh(OPEN).stdout(writer).close_others().exec())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!((&*text, exit_code(&child)), ("0 1 2 \n", 0));
    // SAFETY: an empty hook.
    assert_eq!(said(unsafe { sh(OPEN).close_others().pre_exec(|| Ok(())) }), "0 1 2 \n");
}

fn nothing_else_leaks_on_an_older_kernel() {
    // 5.10 closes, and marks nothing.
    Kernel::new().with(libc::SYS_close_range, 2, Is::AnyOf(4), libc::EINVAL).play();
    let _leaks: Vec<_> = (0..5).map(|_| inheritable()).collect();
    let (reader, _writer) = pipe().unwrap();
    assert_eq!(said(sh(OPEN).close_others().give_at(9, reader).die_with_parent()), "0 1 2 9 \n");
    // SAFETY: an empty hook.
    assert_eq!(said(unsafe { sh(OPEN).close_others().die_with_parent().pre_exec(|| Ok(())) }), "0 1 2 \n");
    let refused = Command::new("/no/such/program").close_others().spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    // SAFETY: a hook that only fails.
    let command = unsafe { sh(OPEN).close_others().pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EDOM))) };
    assert_eq!(errno(&command.spawn().unwrap_err().error), ("pre_exec", libc::EDOM), "which was told");
}

fn an_exec_that_fails_closes_nothing_on_an_older_kernel() {
    Kernel::new().with(libc::SYS_close_range, 2, Is::AnyOf(4), libc::EINVAL).play();
    let leak = inheritable();
    let (reader, mut writer) = pipe().unwrap();
    let refused = Command::new("/no/such/program").close_others().exec();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    writer.write_all(b"still here").unwrap();
    drop(writer);
    assert_eq!(read_all(reader), b"still here");
    assert_eq!(crate::support::descriptor_flags(&leak), libc::FD_CLOEXEC, "as the docs say");
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh(OPEN).stdout(writer).close_others().exec())).unwrap();
    assert_eq!((&*read_all(reader), exit_code(&child)), (&b"0 1 2 \n"[..], 0));
}

fn an_exec_that_fails_among_threads_makes_no_signal_of_their_errors() {
    support::sigpipe(support::Sigpipe::Ignore);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                assert!(matches!(writer.write_atomic(b"x"), Err(Error::Closed)));
                started.store(true, SeqCst);
            }
        });
        while !started.load(SeqCst) {
            std::thread::yield_now();
        }
        execs_that_fail_among_threads();
        stop.store(true, SeqCst);
    });
}

/// Each takes 20 ms, in which the other thread could have left.
fn execs_that_fail_among_threads() {
    for _ in 0..support::rounds(10) {
        let refused = Command::new("/no/such/program").exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    }
}

fn an_exec_that_fails_among_threads_leaves_their_handlers_alone() {
    let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut lost = 0;
            while !stop.load(SeqCst) {
                for handler in [libc::SIG_IGN, libc::SIG_DFL] {
                    // SAFETY: two dispositions that are no functions.
                    unsafe { libc::signal(libc::SIGUSR1, handler) };
                    // SAFETY: as above.
                    lost += i32::from(unsafe { libc::signal(libc::SIGUSR1, handler) } != handler);
                }
                started.store(true, SeqCst);
            }
            lost
        });
        while !started.load(SeqCst) {
            std::thread::yield_now();
        }
        execs_that_fail_among_threads();
        stop.store(true, SeqCst);
        assert_eq!(other.join().unwrap(), 0, "set by that thread, and put back by this one");
    });
}

fn a_descriptor_that_is_not_close_on_exec_is_open_once() {
    a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program();
    // An exec puts it back if it fails.
    let fd = inheritable();
    let child = fork((), |()| {
        let refused = Command::new("/no/such/program").give_at(50, fd.try_clone().unwrap()).stdin(fd).exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        drop(refused);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_descriptor_that_is_not_close_on_exec_is_open_once_in_a_program() {
    let own = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let has = |text: &str, number: &str| text.split_whitespace().any(|other| other == number);
    let fd = inheritable();
    let number = own(&fd);
    assert!(has(&said(sh(OPEN)), &number), "it is inherited");
    let text = said(sh(OPEN).give_at(50, fd));
    assert!(has(&text, "50") && !has(&text, &number), "{text}");
    let fd = inheritable();
    let number = own(&fd);
    let text = said(sh(OPEN).stdin(fd));
    assert!(!has(&text, &number), "{text}");
    // Given by its name, it keeps its number.
    let fd = inheritable();
    let number = own(&fd);
    assert!(has(&said(sh(OPEN).give("file", fd)), &number));
}

fn user_groups_and_limits_are_set() {
    let text = said(sh("umask; ulimit -n; ulimit -Hn; nice").umask(0o027).rlimit(libc::RLIMIT_NOFILE, 50, 60).nice(3));
    // SAFETY: numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    assert_eq!(text, format!("0027\n50\n60\n{}\n", (nice + 3).min(19)));
    if !is_root() {
        return;
    }
    let command = Command::new("id").uid(12_345).gid(23_456).groups([1, 2]);
    assert_eq!(said(command), "uid=12345 gid=23456 groups=23456,1(daemon),2(bin)\n");
    assert_eq!(said(Command::new("id").arg("-G").uid(12_345).gid(23_456)), "23456\n", "root's groups are given up");
    assert_eq!(said(Command::new("id").arg("-G").gid(23_456).groups([7].iter())), "23456 7\n");
    assert_eq!(said(sh("id -u; ulimit -n").uid(12_345).rlimit(libc::RLIMIT_NOFILE, 77, 77).nice(-1)), "12345\n77\n");
    // The death signal survives the change of user.
    let (reader, writer) = pipe().unwrap();
    let start = move || sh("exec sleep 1000").stdout(writer).uid(12_345).die_with_parent().spawn().unwrap();
    let child = std::thread::spawn(start).join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    drop(reader);
}

fn a_change_of_user_leaves_this_process_dumpable() {
    if !is_root() {
        return;
    }
    // SAFETY: numbers.
    let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    let before = dumpable();
    assert_eq!(said(Command::new("id").arg("-u").uid(12_345)), "12345\n");
    assert_eq!(dumpable(), before);
}

fn what_is_not_allowed_is_refused_by_name() {
    let of = |command: Command| {
        let (reader, writer) = pipe().unwrap();
        let refused = command.stdout(writer).spawn().unwrap_err();
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "the command has it");
        errno(&refused.error)
    };
    let yes = || Command::new("yes");
    assert_eq!(of(yes().process_group(i32::MAX)), ("setpgid", libc::EPERM));
    assert_eq!(of(yes().rlimit(1000, 1, 1)), ("setrlimit", libc::EINVAL));
    assert_eq!(of(yes().rlimit(libc::RLIMIT_NOFILE, 2, 1)), ("setrlimit", libc::EINVAL));
    assert_eq!(of(yes().give_at(1 << 30, File::open("/dev/null").unwrap())), ("dup2", libc::EBADF));
    for command in [yes().uid(u32::MAX), yes().gid(u32::MAX), yes().groups([1, u32::MAX]), yes().rlimit(u64::MAX, 1, 1)]
    {
        assert!(matches!(command.spawn().unwrap_err().error, Error::InvalidInput { .. }));
    }
    let child = fork((), |()| {
        if is_root() {
            support::become_nobody();
        }
        assert_eq!(of(yes().uid(12_345)), ("setuid", libc::EPERM));
        assert_eq!(of(yes().gid(12_345)), ("setgid", libc::EPERM));
        assert_eq!(of(yes().groups([1])), ("setgroups", libc::EPERM));
        assert_eq!(of(yes().nice(-5)), ("setpriority", libc::EACCES));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn question_mark_keeps_the_name_of_a_program_whose_options_are_refused() {
    let of = |command: Command| {
        let refused = Error::from(command.spawn().unwrap_err());
        let text = refused.to_string();
        assert!(text.starts_with("\"yes\" could not be started: "), "{text}");
        assert!(matches!(&refused, Error::NotStarted { program, .. } if program == "yes"), "{refused:?}");
        errno(&refused)
    };
    let yes = || Command::new("yes");
    assert_eq!(of(yes().process_group(i32::MAX)), ("setpgid", libc::EPERM));
    assert_eq!(of(yes().rlimit(libc::RLIMIT_NOFILE, 2, 1)), ("setrlimit", libc::EINVAL));
    assert_eq!(of(yes().give_at(1 << 30, File::open("/dev/null").unwrap())), ("dup2", libc::EBADF));
    let child = fork((), |()| {
        support::become_nobody();
        assert_eq!(of(yes().uid(12_345)), ("setuid", libc::EPERM));
        assert_eq!(of(yes().gid(12_345)), ("setgid", libc::EPERM));
        assert_eq!(of(yes().groups([1])), ("setgroups", libc::EPERM));
        assert_eq!(of(yes().nice(-5)), ("setpriority", libc::EACCES));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    for (call, option) in [
        (libc::SYS_setsid, Command::new_session as fn(Command) -> Command),
        (libc::SYS_close_range, Command::close_others),
        (libc::SYS_prctl, Command::die_with_parent),
    ] {
        let child = fork((), |()| {
            match call {
                libc::SYS_prctl => {
                    let asks = Is::Equal(libc::PR_SET_PDEATHSIG as u32);
                    Kernel::new().with(call, 0, asks, libc::EPERM).play();
                }
                call => support::refuse_calls(&[call], libc::EPERM),
            }
            assert_eq!(of(option(yes())).1, libc::EPERM);
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    // An io::Error has room for the errno or for the name. The straight way is std's.
    let refused = yes().rlimit(libc::RLIMIT_NOFILE, 2, 1).spawn().unwrap_err();
    assert_eq!(std::io::Error::from(refused).raw_os_error(), Some(libc::EINVAL));
    let refused = Error::from(yes().rlimit(libc::RLIMIT_NOFILE, 2, 1).spawn().unwrap_err());
    let refused = std::io::Error::from(refused);
    assert!(refused.to_string().contains("\"yes\"") && refused.raw_os_error().is_none(), "{refused:?}");
}

fn question_mark_names_no_program_where_no_descriptor_is_left() {
    for (lack, is_named) in [(libc::EMFILE, false), (libc::ENFILE, false), (libc::ELOOP, true)] {
        let child = fork((), |()| {
            support::refuse_calls(&[libc::SYS_execve], lack);
            let refused = Error::from(Command::new("/bin/true").spawn().unwrap_err());
            assert_eq!(matches!(refused, Error::NotStarted { .. }), is_named, "{refused:?}");
            assert_eq!(errno(&refused), ("execve", lack));
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn the_hook_runs_last_and_its_error_is_the_starts() {
    // SAFETY: system calls alone.
    let command = unsafe {
        sh("pwd; umask").current_dir("/usr").umask(0o011).pre_exec(|| match std::env::current_dir()?.to_str() {
            Some("/usr") => {
                libc::umask(0o077);
                Ok(())
            }
            _ => Err(std::io::Error::from_raw_os_error(libc::EDOM)),
        })
    };
    assert_eq!(said(command), "/usr\n0077\n");
    // What it writes, this process does not see; and it may be tried again.
    static RAN: AtomicBool = AtomicBool::new(false);
    // SAFETY: a store.
    let command = unsafe {
        Command::new("true").pre_exec(|| {
            RAN.store(true, SeqCst);
            Err(std::io::Error::from_raw_os_error(libc::EDOM))
        })
    };
    let refused = command.spawn().unwrap_err();
    assert_eq!((errno(&refused.error), RAN.load(SeqCst)), (("pre_exec", libc::EDOM), false));
    assert_eq!(errno(&refused.command.spawn().unwrap_err().error), ("pre_exec", libc::EDOM));
}

fn a_panicking_hook_starts_nothing() {
    // SAFETY: this process has one thread.
    let command = unsafe { Command::new("true").pre_exec(|| panic!("on purpose")) };
    assert_eq!(errno(&command.spawn().unwrap_err().error), ("pre_exec", libc::ECANCELED));
}

fn a_missing_directory_is_told_from_a_missing_program() {
    let refused = Command::new("true").current_dir("/no/such/directory").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOENT));
    let refused = Command::new("/no/such/program").current_dir("/").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    let refused = Command::new("true").current_dir("/etc/passwd").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOTDIR));
    let refused = Command::new("true").current_dir("/no/such/directory").exec();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOENT));
}

fn a_path_through_a_file_is_not_a_directory() {
    let refused = Command::new("/etc/passwd/x").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOTDIR));
    assert_eq!(errno(&Command::new("/etc/passwd/x").exec().error), ("execve", libc::ENOTDIR));
    // Along a path, it is one that is passed over.
    let refused = Command::new("no-such-program").env("PATH", "/etc/passwd:/no/such:/usr").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
}

fn argument_0_can_be_another() {
    assert_eq!(
        said(Command::new("sh").arg0("other name").args(["-c", "tr '\\0' '|' </proc/$$/cmdline"])).split('|').next(),
        Some("other name")
    );
}

fn its_own_number_is_in_its_environment() {
    let text = said(sh("echo $LISTEN_PID $OTHER $$").env_pid("LISTEN_PID").env_pid("OTHER").env("OTHER", "text"));
    let [own, other, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((own, other), (pid, "text"));
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh("echo $OWN $$").stdout(writer).env_pid("OWN").exec())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{0} {0}\n", child.id()));
    assert_eq!(exit_code(&child), 0);
}

/// Every end in the place of another, in a table that has no place more than it needs.
fn permutations_come_out_right() {
    let text = |number: i32| format!("cat <&{number};");
    let ends: Vec<_> = (0..4_u8).map(|i| (i, pipe().unwrap())).collect();
    let mut ends: Vec<_> = ends
        .into_iter()
        .map(|(i, (reader, mut writer))| {
            writer.write_all(&[b'a' + i]).unwrap();
            reader
        })
        .collect();
    let numbers: Vec<_> = ends.iter().map(AsRawFd::as_raw_fd).collect();
    let script: String = numbers.iter().map(|number| text(*number)).collect();
    let mut command = sh(&script);
    // The one of the second goes to the first, and so on, and one is given by its name, which has to make way.
    ends.rotate_left(1);
    let named = ends.pop().unwrap();
    for (end, number) in ends.into_iter().zip(&numbers) {
        command = command.give_at(*number, end);
    }
    let output = command.give("named", named).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "bcd", "{numbers:?}");
}

fn a_pidfd_keeps_above_the_standard_three() {
    closed_standard_descriptors(|| {
        let child = Command::new("true").spawn().unwrap();
        assert!(child.as_raw_fd() > 2, "{}", child.as_raw_fd());
        assert_eq!(child.as_raw_fd(), child.as_fd().as_raw_fd());
        let forked = fork((), |()| ()).unwrap();
        assert!(forked.as_raw_fd() > 2);
        assert_eq!((child.wait().unwrap().code(), forked.wait().unwrap().code()), (Some(0), Some(0)));
    });
}

fn a_failed_start_is_nobodys_child() {
    handle_signal(libc::SIGCHLD);
    for _ in 0..100 {
        let refused = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    }
    assert_eq!(handled(), 0, "no signal came of one");
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) }, -1, "and none is left");
    assert_eq!(exit_code(&Command::new("true").spawn().unwrap()), 0);
    assert_eq!(handled(), 1);
}

/// Takes every child away, all the time, until it is told to stop.
fn reaper(stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

fn whoever_waits_for_every_child_takes_no_program_away() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| reaper(&stop));
        for _ in 0..200 {
            let (reader, writer) = pipe().unwrap();
            let child = Command::new("echo").arg("hello").stdout(writer).spawn().expect("it is held");
            assert_eq!(read_all(reader), b"hello\n");
            match child.wait() {
                Ok(status) => assert!(status.success()),
                Err(Error::StatusTaken { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
            let refused = Command::new("/no/such/program").spawn().unwrap_err();
            assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        }
        stop.store(true, SeqCst);
    });
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

fn a_hundred_threads_start_programs_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..100 {
            scope.spawn(move || {
                for round in 0..5 {
                    let text = format!("{thread} {round}");
                    assert_eq!(said(Command::new("echo").arg(&text).close_others()), format!("{text}\n"));
                    let refused = Command::new("/no/such/program").spawn().unwrap_err();
                    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
                }
            });
        }
    });
    assert_eq!(open_ends(), 0);
}

fn signals_all_the_time_do_no_harm() {
    handle_signal(libc::SIGALRM);
    with_interval_timer(Duration::from_micros(100), || {
        let before = handled();
        for _ in 0..100 {
            // The timer is this process's, and a program has none. A handler that ran in it would count here.
            assert_eq!(sh("cat").communicate(b"input", Some(FAR)).unwrap().stdout, b"input");
            let refused = Command::new("no-such-program").spawn().unwrap_err();
            assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        }
        poll_until("a signal came", || handled() > before);
    });
}

/// A copy of an end that the ledger does not know would be open in a child that another thread forks meanwhile.
fn no_hidden_copy_is_made_of_what_is_given() {
    let (reader, writer) = pipe().unwrap();
    let (other, _other_writer) = pipe().unwrap();
    let (own, inode) = (writer.as_raw_fd(), inode(writer.as_raw_fd()));
    // Its own number goes to another, and that one's to it.
    let command = Command::new("true").give_at(own, other).give_at(150, writer);
    // SAFETY: system calls alone.
    let command = unsafe {
        command.pre_exec(move || {
            match (3..1000).filter(|number| *number != 150 && self::inode(*number) == inode).count() {
                // The reader, and the one that the swap takes in the new process, where it is close-on-exec.
                2 => Ok(()),
                count => Err(std::io::Error::from_raw_os_error(count as i32)),
            }
        })
    };
    assert!(command.status().unwrap().success());
    assert_eq!(read_all(reader), b"");
}

fn inode(number: i32) -> Option<libc::ino_t> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a number, and room for what is said about it, which is integers.
    unsafe { (libc::fstat(number, stat.as_mut_ptr()) == 0).then(|| stat.assume_init().st_ino) }
}

fn a_fork_with_threads_holds_its_child() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| reaper(&stop));
        for _ in 0..300 {
            // SAFETY: the child leaves at once.
            let child = unsafe { ipc::fork_unchecked((), |()| 7_u8) }.expect("it is held");
            match child.wait() {
                Ok(status) => assert_eq!(status.code(), Some(7)),
                Err(Error::StatusTaken { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, SeqCst);
    });
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

fn a_socket_is_both_stdin_and_stdout() {
    let pair = stream_pair().unwrap();
    let socket = Arc::new(pair.child);
    let child = Command::new("cat").stdin(socket.clone()).stdout(socket).spawn().unwrap();
    let mut parent = pair.parent;
    parent.write_all(b"there and back").unwrap();
    let mut text = [0; 14];
    parent.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"there and back");
    drop(parent);
    assert_eq!(exit_code(&child), 0);
}

fn an_end_is_lent_and_shared() {
    let (reader, writer) = pipe().unwrap();
    let writer = Arc::new(writer);
    for word in ["one", "two"] {
        assert!(Command::new("echo").arg(word).stdout(&*writer).status().unwrap().success());
        let number = 9;
        assert!(sh("echo again >&9").give_at(number, writer.clone()).status().unwrap().success());
    }
    let open = open_ends();
    let command = Command::new("true").stdout(&*writer);
    assert_eq!(open_ends(), open + 1, "a copy, which is an end");
    drop((command, writer));
    assert_eq!(read_all(reader), b"one\nagain\ntwo\nagain\n");
    // What could not be lent is said as often as it is tried.
    let command = Command::new("true").stdin(&Vec::<File>::new());
    let refused = command.spawn().unwrap_err();
    assert!(matches!(refused.error, Error::InvalidInput { .. }));
    assert!(matches!(refused.command.spawn().unwrap_err().error, Error::InvalidInput { .. }));
}

fn the_pipes_of_a_child_of_std_are_ends() {
    let piped = std::process::Stdio::piped;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "cat; echo err >&2"]).stdin(piped()).stdout(piped()).stderr(piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = ipc::PipeWriter::from(child.stdin.take().unwrap());
    let stdout = ipc::PipeReader::from(child.stdout.take().unwrap());
    let stderr = ipc::PipeReader::from(child.stderr.take().unwrap());
    assert!(matches!(stdout.read_timeout(&mut [0], Duration::from_millis(1)), Err(Error::TimedOut)));
    stdin.write_all(b"in").unwrap();
    drop(stdin);
    assert_eq!((read_all(stdout), read_all(stderr)), (b"in".to_vec(), b"err\n".to_vec()));
    assert!(child.wait().unwrap().success());
}

fn this_processes_stdout_can_be_a_programs_stderr() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        // SAFETY: this process's own stdout.
        assert!(unsafe { libc::dup2(writer.as_raw_fd(), 1) } == 1);
        drop(writer);
        let command = sh("echo there >&2").stdout(Stdio::null()).stderr(std::io::stdout());
        assert!(command.status().unwrap().success());
    });
    assert_eq!(read_all(reader), b"there\n");
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn an_exec_among_threads_changes_nothing() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let refused = sh("echo hello").stdout(writer).exec();
        assert!(matches!(refused.error, Error::MultiThreaded { threads: 2 }), "{refused:?}");
        let refused = sh("echo hello").current_dir("/").exec();
        assert!(matches!(refused.error, Error::MultiThreaded { .. }), "{refused:?}");
        let refused = sh("echo hello").umask(0).exec();
        assert!(matches!(refused.error, Error::MultiThreaded { .. }), "{refused:?}");
        let refused = Command::new("/no/such/program").exec();
        assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
        // What is given nothing may go.
        let refused = sh("exit 5").exec();
        drop((stop, thread));
        panic!("{refused:?}")
    });
    assert_eq!(exit_code(&child.unwrap()), 5);
    assert_eq!(read_all(reader), b"");
}

/// Where a handler writes to, as into a pipe of its own.
static SELF_PIPE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

extern "C" fn write_to_it(_: libc::c_int) {
    // SAFETY: one byte, to whatever stands at the number.
    unsafe { libc::write(SELF_PIPE.load(SeqCst), b"!".as_ptr().cast(), 1) };
}

fn an_exec_of_a_failing_program_runs_no_handler_on_a_given_end() {
    let (own, own_writer) = pipe().unwrap();
    SELF_PIPE.store(own_writer.as_raw_fd(), SeqCst);
    // SAFETY: a handler that makes one system call.
    unsafe { libc::signal(libc::SIGALRM, write_to_it as *const () as libc::sighandler_t) };
    let (reader, writer) = pipe().unwrap();
    let writer = Arc::new(writer);
    with_interval_timer(Duration::from_micros(100), || {
        for _ in 0..500 {
            let command = Command::new("no-such-program").give_at(own_writer.as_raw_fd(), writer.clone());
            assert_eq!(errno(&command.exec().error), ("execve", libc::ENOENT));
            let _ = own.try_read(&mut [0; 64]);
        }
    });
    assert_eq!(reader.available().unwrap(), 0, "no handler wrote into the end that was to be given");
}

fn sigchld_is_at_its_default_in_a_program() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        // SAFETY: no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Err::<(), _>(sh("grep SigIgn /proc/self/status").stdout(writer).exec())
    });
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let ignored = u64::from_str_radix(text.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & 1 << (libc::SIGCHLD - 1), 0);
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn terminate_asks_and_shut_down_insists() {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    child.terminate().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    child.terminate().unwrap();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM), "again is the same");
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("trap '' TERM; echo; exec sleep 1000").stdout(writer).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(child.shut_down(Duration::from_millis(50)).unwrap().signal(), Some(libc::SIGKILL));
}

fn a_guard_kills_and_waits() {
    let (reader, writer) = pipe().unwrap();
    let guard = Command::new("sleep").arg("1000").stdout(writer).spawn().unwrap().kill_on_drop();
    let id = guard.id();
    assert!(process_state(id).is_some());
    // In a child that is forked, the value is not the one that kills.
    assert_eq!(exit_code(&fork((), |()| _ = guard.as_fd()).unwrap()), 0);
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    drop(guard);
    assert_eq!(read_all(reader), b"");
    assert_eq!(process_state(id), None, "it was waited for");
    let child = Command::new("sleep").arg("1000").spawn().unwrap().kill_on_drop().release();
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_group_is_shut_down_with_its_leader() {
    let stubborn = "(trap '' TERM; echo; exec sleep 1000) & wait";
    let plain = "sleep 1000 & echo; wait";
    // What runs in the background has no handler of its shell's any more when it says so.
    let left = "trap 'exit 3' TERM; sh -c 'echo; exec sleep 1000' & wait";
    for (script, grace, code) in [(plain, FAR, None), (left, FAR, Some(3)), (stubborn, Duration::from_millis(50), None)]
    {
        for command in [sh(script).process_group(0), sh(script).new_session()] {
            let (mut reader, writer) = pipe().unwrap();
            let child = command.stdout(writer).spawn().unwrap();
            reader.read_exact(&mut [0]).unwrap();
            let status = child.shut_down(grace).unwrap();
            assert_eq!((status.code(), status.signal()), (code, code.is_none().then_some(libc::SIGTERM)), "{script}");
            assert_eq!(read_all(reader), b"", "{script}: nobody is left");
            await_whoever_is_left();
        }
    }
    // Without a group of its own, the program alone is asked.
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("sleep 1000 & echo $!; wait").stdout(writer).spawn().unwrap();
    let mut pid = [0; 20];
    let len = reader.read(&mut pid).unwrap();
    let pid: i32 = std::str::from_utf8(&pid[..len]).unwrap().trim().parse().unwrap();
    assert_eq!(child.shut_down(FAR).unwrap().signal(), Some(libc::SIGTERM));
    // SAFETY: the number of a process that nobody has waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
}

/// Its leader leaves at once, and the other one when it is told to, after it was asked.
const SLOW: &str = "(trap 'read line <&3; echo saved; exit' TERM; echo; while :; do sleep 0.01; done) & wait";

fn a_group_has_the_grace_after_its_leader_has_left() {
    let (mut reader, writer) = pipe().unwrap();
    let (wait, mut go) = pipe().unwrap();
    let child = sh(SLOW).process_group(0).stdout(writer).give_at(3, wait).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            poll_until("its leader has left", || process_state(child.id()) == Some('Z'));
            go.write_all(b"go\n").unwrap();
        });
        assert_eq!(child.shut_down(SOON).unwrap().signal(), Some(libc::SIGTERM));
    });
    assert_eq!(read_all(reader), b"saved\n");
    await_whoever_is_left();
}

/// /proc shows it as one that has left.
fn a_process_whose_first_thread_has_left_has_the_grace_too() {
    let (reader, writer) = pipe().unwrap();
    let (wait, mut go) = pipe().unwrap();
    let leader = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let group = leader.id() as libc::pid_t;
    let member = fork((wait, writer), |(wait, mut writer)| {
        // SAFETY: numbers, and a set that is initialised before it is used.
        let asked = unsafe {
            assert_eq!(libc::setpgid(0, group), 0);
            let mut asked = std::mem::zeroed();
            libc::sigemptyset(&mut asked);
            libc::sigaddset(&mut asked, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &asked, std::ptr::null_mut());
            asked
        };
        std::thread::spawn(move || {
            // SAFETY: a set, and room for a number.
            assert_eq!(unsafe { libc::sigwait(&asked, &mut 0) }, 0);
            read_all(wait);
            writer.write_all(b"saved").unwrap();
            std::process::exit(0);
        });
        // SAFETY: no conditions. It ends this thread, whose stack stays.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    })
    .unwrap();
    poll_until("the first thread has left", || process_state(member.id()) == Some('Z'));
    assert_eq!(member.try_wait().unwrap(), None);
    // SAFETY: no conditions.
    let waits = format!("/proc/self/task/{}/status", unsafe { libc::syscall(libc::SYS_gettid) });
    let waits =
        || std::fs::read_to_string(&waits).unwrap().lines().find(|line| line.starts_with("vol")).map(str::to_owned);
    let is_shut_down = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            poll_until("the leader has left", || process_state(leader.id()) == Some('Z'));
            for _ in 0..3 {
                let before = waits();
                poll_until("it is waited for", || is_shut_down.load(SeqCst) || waits() != before);
            }
            go.write_all(b"go").unwrap();
            drop(go);
        });
        assert_eq!(leader.shut_down(SOON).unwrap().signal(), Some(libc::SIGTERM));
        is_shut_down.store(true, SeqCst);
    });
    assert_eq!(read_all(reader), b"saved");
    assert_eq!(exit_code(&member), 0);
}

fn a_group_without_proc_is_killed_when_its_leader_has_left() {
    let (mut reader, writer) = pipe().unwrap();
    let (wait, _go) = pipe().unwrap();
    let child = sh(SLOW).process_group(0).stdout(writer).give_at(3, wait).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    let hidden = support::WithoutProc::new().unwrap();
    assert_eq!(child.shut_down(Duration::MAX).unwrap().signal(), Some(libc::SIGTERM));
    drop(hidden);
    assert_eq!(read_all(reader), b"");
    await_whoever_is_left();
}

fn a_guard_kills_the_group_with_its_leader() {
    let (mut reader, writer) = pipe().unwrap();
    let command = sh("sleep 1000 & echo; wait").process_group(0).stdout(writer);
    let guard = command.spawn().unwrap().kill_on_drop();
    reader.read_exact(&mut [0]).unwrap();
    drop(guard);
    assert_eq!(read_all(reader), b"");
    await_orphans(1);
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
