//! Programs that are talked to, and what is left of one when its future is dropped.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::messages::polled;
use super::{on_one_thread, on_threads};
use crate::support::{self, SOON, Trial, bytes, poll_until, processor_time};
use ipc::tokio::communicate;
use ipc::{Command, CommunicateError, Error, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_program_is_fed_and_heard_at_once_on_both_runtimes,
        no_pipe_to_a_program_is_non_blocking,
        a_program_that_reads_nothing_is_no_error,
        when_the_time_is_up_the_program_is_killed_and_what_it_said_is_kept,
        a_program_that_says_no_more_is_waited_for,
        a_program_that_has_closed_an_output_takes_no_processor_time needs [Alone],
        a_helper_that_keeps_the_outputs_is_not_waited_for,
        a_dropped_future_leaves_no_program,
        a_runtime_that_ends_leaves_no_program,
        outside_of_a_runtime_nothing_is_started,
        a_program_inherits_nothing_that_is_waited_with,
        many_programs_are_talked_to_at_once within 120,
        a_command_of_tokio_gives_an_end_at_a_number_and_no_other,
        a_command_of_tokio_says_that_a_start_failed_whatever_it_gives,
    ]
}

fn shell(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

fn a_program_is_fed_and_heard_at_once_on_both_runtimes() {
    for runtime in [on_one_thread(), on_threads()] {
        let data = bytes(3_000_000);
        let expected = data.clone();
        // Both outputs are far more than a pipe holds.
        let talk = async move { communicate(shell("tee /dev/stderr; exit 3"), &data, Some(SOON)).await };
        let output = runtime.block_on(async { tokio::spawn(talk).await.unwrap().unwrap() });
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout == expected && output.stderr == expected);
    }
}

fn no_pipe_to_a_program_is_non_blocking() {
    for runtime in [on_one_thread(), on_threads()] {
        // More than the pipe holds, so that it is still open.
        let input = bytes(1_000_000);
        let output = runtime.block_on(communicate(shell(support::FLAGS_OF_PARENTS_PIPES), &input, None)).unwrap();
        support::assert_none_is_nonblocking(&output.stdout, 3);
    }
}

fn a_program_that_reads_nothing_is_no_error() {
    on_one_thread().block_on(async {
        let output = communicate(Command::new("true"), &bytes(1_000_000), None).await.unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
    });
}

fn when_the_time_is_up_the_program_is_killed_and_what_it_said_is_kept() {
    // A runtime without timers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let (reader, writer) = pipe().unwrap();
        let program = shell("echo said; echo complained >&2; exec sleep 1000").give_at(9, writer);
        let late = communicate(program, b"", Some(Duration::from_millis(300))).await.unwrap_err();
        assert_eq!(late.to_string(), "\"sh\": the time is up");
        let CommunicateError { stdout, stderr, error, .. } = late;
        assert!(matches!(error, Error::TimedOut), "{error:?}");
        assert_eq!((&stdout[..], &stderr[..]), (&b"said\n"[..], &b"complained\n"[..]));
        assert_eq!((&reader).read(&mut [0]).unwrap(), 0, "it is gone");
    });
}

fn a_program_that_says_no_more_is_waited_for() {
    let silent = |then: &str| shell(&format!("echo said; exec >&- 2>&-; {then}"));
    on_one_thread().block_on(async {
        let (hold, release) = pipe().unwrap();
        let mut talk = std::pin::pin!(communicate(silent("read line <&9; exit 7").give_at(9, hold), b"", None));
        assert!(tokio::time::timeout(Duration::from_millis(100), talk.as_mut()).await.is_err());
        drop(release);
        let output = talk.await.unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"said\n"[..]));
        let time = Some(Duration::from_millis(200));
        let late = communicate(silent("exec sleep 1000"), b"", time).await.unwrap_err();
        assert!(matches!(late.error, Error::TimedOut), "{late:?}");
        assert_eq!(late.stdout, b"said\n");
    });
}

fn a_program_that_has_closed_an_output_takes_no_processor_time() {
    on_one_thread().block_on(async {
        let mut talk = std::pin::pin!(communicate(shell("exec >&-; exec sleep 1000"), b"", None));
        assert!(tokio::time::timeout(Duration::from_millis(200), talk.as_mut()).await.is_err());
        let before = processor_time();
        assert!(tokio::time::timeout(Duration::from_secs(1), talk.as_mut()).await.is_err());
        let busy = processor_time() - before;
        assert!(busy < Duration::from_millis(20), "{busy:?} of a second");
    });
    support::await_whoever_is_left();
}

fn a_helper_that_keeps_the_outputs_is_not_waited_for() {
    on_one_thread().block_on(async {
        // That it has left is all that is to be seen of the second.
        for (script, said) in [("cat <&9 & echo started", &b"started\n"[..]), ("cat <&9 &", b"")] {
            let (hold, release) = pipe().unwrap();
            let output = communicate(shell(script).give_at(9, hold), b"", None).await.unwrap();
            assert_eq!(output.stdout, said);
            drop(release);
        }
    });
    support::await_whoever_is_left();
}

fn a_dropped_future_leaves_no_program() {
    on_one_thread().block_on(async {
        let input = bytes(1_000_000);
        for times in 1..10 {
            assert!(polled(times, communicate(shell("exec sleep 1000"), &input, None)).await.is_none());
        }
        assert!(!support::children().is_empty());
        while !support::children().is_empty() {
            tokio::task::yield_now().await;
        }
    });
}

fn a_runtime_that_ends_leaves_no_program() {
    for runtime in [on_one_thread(), on_threads()] {
        let (started, said) = pipe().unwrap();
        let program = shell("echo >&9; exec sleep 1000").give_at(9, said);
        let task = runtime.spawn(async move { communicate(program, b"", None).await.map(drop) });
        runtime.block_on(async {
            let mut started = ipc::tokio::PipeReader::new(started).unwrap();
            tokio::io::AsyncReadExt::read_u8(&mut started).await.unwrap();
        });
        drop(runtime);
        drop(task);
        poll_until("the program is gone", || support::children().is_empty());
    }
}

fn outside_of_a_runtime_nothing_is_started() {
    // Whoever starts the second one gets another error.
    for program in ["true", "/no/such/program"] {
        let mut talk = std::pin::pin!(communicate(Command::new(program), b"", None));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match talk.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(Err(refused)) => {
                assert!(matches!(refused.error, Error::System { .. }), "{refused:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(support::children().is_empty());
}

fn a_program_inherits_nothing_that_is_waited_with() {
    on_one_thread().block_on(async {
        let mut talk = std::pin::pin!(communicate(shell("cat; exec sleep 1000"), b"x", Some(SOON)));
        std::future::poll_fn(|cx| match talk.as_mut().poll(cx) {
            std::task::Poll::Pending => std::task::Poll::Ready(()),
            done => panic!("{done:?}"),
        })
        .await;
        // Pipes, a pidfd, and a timer are open.
        let other = std::process::Command::new("sh").arg("-c").arg(LOOK).output().unwrap();
        assert_eq!(String::from_utf8(other.stdout).unwrap(), "0 1 2 ");
    });
    support::await_whoever_is_left();
}

fn many_programs_are_talked_to_at_once() {
    on_threads().block_on(async {
        let tasks: Vec<_> = (0..40)
            .map(|number: usize| {
                tokio::spawn(async move {
                    let data = bytes(number * 10_000);
                    let output = communicate(Command::new("cat"), &data, Some(SOON)).await.unwrap();
                    assert!(output.status.success() && output.stdout == data);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let killed = communicate(shell("kill -9 $$"), b"", None).await.unwrap();
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL));
    });
}

/// Prints the numbers that are open in it.
const LOOK: &str = "cd /proc/self/fd; for fd in *; do test -e $fd && echo -n \"$fd \"; done";

fn a_command_of_tokio_gives_an_end_at_a_number_and_no_other() {
    for runtime in [on_one_thread(), on_threads()] {
        runtime.block_on(async {
            let (reader, writer) = pipe().unwrap();
            writer.write_atomic(b"given").unwrap();
            drop(writer);
            let (kept, _kept_writer) = pipe().unwrap();
            let mut command = tokio::process::Command::new("sh");
            let look = format!("{LOOK}; cat /dev/fd/50");
            ipc::give_at(command.args(["-c", &look]).as_std_mut(), 50, reader).unwrap();
            let output = command.output().await.unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), "0 1 2 50 given");
            drop(kept);
            // EOF comes when the command is gone.
            let (reader, writer) = pipe().unwrap();
            let mut command = tokio::process::Command::new("true");
            ipc::give_at(command.as_std_mut(), 50, writer).unwrap();
            assert!(command.status().await.unwrap().success());
            assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
            drop(command);
            assert_eq!(support::read_all(reader), b"");
        });
    }
}

fn a_command_of_tokio_says_that_a_start_failed_whatever_it_gives() {
    on_one_thread().block_on(async {
        let (reader, _writer) = pipe().unwrap();
        let taken = reader.as_raw_fd();
        // Among them is whatever tokio and std open themselves.
        for number in 3..taken + 8 {
            let mut command = tokio::process::Command::new("/no/such/program");
            ipc::give_at(command.as_std_mut(), number, &reader).unwrap();
            assert_eq!(command.status().await.unwrap_err().raw_os_error(), Some(libc::ENOENT), "{number}");
        }
    });
}
