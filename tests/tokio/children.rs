//! Children that are asked to leave, and workers that another process reports about.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::messages::polled;
use super::{on_one_thread, on_threads};
use crate::support::{self, FAR, Is, Kernel, SOON, Trial, poll_until, process_state, read_all};
use ipc::tokio::Child;
use ipc::{Command, ForkServer, PipeReader, Received, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_child_is_asked_to_leave_and_then_killed,
        a_group_is_shut_down_with_its_leader,
        a_group_has_the_grace_after_its_leader_has_left,
        a_shut_down_that_is_cancelled_has_asked_and_killed_nobody,
        a_worker_whose_server_was_killed_is_awaited,
        a_worker_whose_server_is_stopped_is_awaited,
    ]
}

fn sh(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

/// A program that ignores SIGTERM, once it does.
fn stubborn() -> Child {
    let (mut reader, writer) = pipe().unwrap();
    let child = sh("trap '' TERM; echo; exec sleep 1000").stdout(writer).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    Child::new(child).unwrap()
}

/// Without timers of its own.
fn without_timers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap()
}

fn a_child_is_asked_to_leave_and_then_killed() {
    for runtime in [without_timers(), on_threads()] {
        runtime.block_on(async {
            let child = Child::new(Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
            assert_eq!(child.shut_down(FAR).await.unwrap().signal(), Some(libc::SIGTERM));
            assert_eq!(child.shut_down(FAR).await.unwrap().signal(), Some(libc::SIGTERM), "again is the same");
            for grace in [Duration::ZERO, Duration::from_millis(50)] {
                let child = stubborn();
                assert_eq!(child.try_wait().unwrap(), None);
                let status = child.shut_down(grace).await.unwrap();
                assert_eq!(status.signal(), Some(libc::SIGKILL));
                assert_eq!(child.try_wait().unwrap(), Some(status));
                child.terminate().unwrap();
            }
        });
    }
}

fn a_group_is_shut_down_with_its_leader() {
    let stubborn = "(trap '' TERM; echo; exec sleep 1000) & wait";
    // What runs in the background has no handler of its shell's any more when it says so.
    let left = "trap 'exit 3' TERM; sh -c 'echo; exec sleep 1000' & wait";
    for (script, grace, code) in [(left, FAR, Some(3)), (stubborn, Duration::from_millis(50), None)] {
        let (mut reader, writer) = pipe().unwrap();
        let child = sh(script).process_group(0).stdout(writer).spawn().unwrap();
        reader.read_exact(&mut [0]).unwrap();
        without_timers().block_on(async {
            let status = Child::new(child).unwrap().shut_down(grace).await.unwrap();
            assert_eq!((status.code(), status.signal()), (code, code.is_none().then_some(libc::SIGTERM)), "{script}");
        });
        assert_eq!(read_all(reader), b"", "{script}: nobody is left");
        support::await_whoever_is_left();
    }
}

fn a_group_has_the_grace_after_its_leader_has_left() {
    // Its leader leaves at once, and the other one when it is told to, after it was asked.
    let slow = "(trap 'read line <&3; echo saved; exit' TERM; echo; while :; do sleep 0.01; done) & wait";
    let (mut reader, writer) = pipe().unwrap();
    let (wait, go) = pipe().unwrap();
    let child = sh(slow).process_group(0).stdout(writer).give_at(3, wait).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    on_one_thread().block_on(async {
        let child = Child::new(child).unwrap();
        let tell = async {
            while process_state(child.id()) != Some('Z') {
                tokio::task::yield_now().await;
            }
            // By now it has heard of that, and waits for the other one.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            go.write_atomic(b"go\n").unwrap();
        };
        let (status, ()) = tokio::join!(child.shut_down(SOON), tell);
        assert_eq!(status.unwrap().signal(), Some(libc::SIGTERM));
    });
    assert_eq!(read_all(reader), b"saved\n");
    support::await_whoever_is_left();
}

fn a_shut_down_that_is_cancelled_has_asked_and_killed_nobody() {
    on_one_thread().block_on(async {
        let (mut said, writer) = pipe().unwrap();
        let script = "trap 'echo asked' TERM; echo; while :; do sleep 0.01; done";
        let child = sh(script).process_group(0).stdout(writer).spawn().unwrap();
        said.read_exact(&mut [0]).unwrap();
        let child = Child::new(child).unwrap();
        for times in 1..5 {
            assert!(polled(times, child.shut_down(FAR)).await.is_none());
            let mut line = [0; 6];
            said.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"asked\n");
            assert_eq!(child.try_wait().unwrap(), None);
        }
        assert_eq!(child.shut_down(Duration::ZERO).await.unwrap().signal(), Some(libc::SIGKILL));
    });
    support::await_whoever_is_left();
}

/// Has workers be children of their server, which reports about them.
fn refuse_siblings() {
    Kernel::new()
        .with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PARENT as u32), libc::EPERM)
        .without(libc::SYS_clone3, libc::ENOSYS)
        .play();
}

fn a_worker_whose_server_was_killed_is_awaited() {
    refuse_siblings();
    let server = ForkServer::start(|_, mut ends: Received| -> ipc::Result<u8> {
        ends.take::<PipeReader>()?.read_to_end(&mut Vec::new())?;
        Ok(7)
    })
    .unwrap();
    on_one_thread().block_on(async {
        let [(first, stop_first), (second, stop_second)] = [(); 2].map(|()| {
            let (hold, stop) = pipe().unwrap();
            (Child::new(server.fork(b"", hold).unwrap()).unwrap(), stop)
        });
        let mut waiting = std::pin::pin!(first.wait());
        assert!(polled(2, waiting.as_mut()).await.is_none());
        // SAFETY: numbers; the process is this one's child, and was not waited for.
        assert_eq!(unsafe { libc::kill(server.id() as i32, libc::SIGKILL) }, 0);
        assert!(polled(2, waiting.as_mut()).await.is_none(), "it runs on");
        drop((stop_first, stop_second));
        // This process adopts orphans.
        assert_eq!(waiting.await.unwrap().code(), Some(7));
        poll_until("the second has left", || process_state(second.id()) == Some('Z'));
        let (one, other) = tokio::join!(second.wait(), second.wait());
        assert_eq!([one.unwrap().code(), other.unwrap().code()], [Some(7); 2]);
    });
}

fn a_worker_whose_server_is_stopped_is_awaited() {
    refuse_siblings();
    let server = ForkServer::start(|_, mut ends: Received| -> ipc::Result<u8> {
        ends.take::<PipeReader>()?.read_to_end(&mut Vec::new())?;
        Ok(7)
    })
    .unwrap();
    // SAFETY: numbers; the process is this one's child, and was not waited for.
    let signal = |number| assert_eq!(unsafe { libc::kill(server.id() as i32, number) }, 0);
    on_one_thread().block_on(async {
        let [(first, stop_first), (second, _stop)] = [(); 2].map(|()| {
            let (hold, stop) = pipe().unwrap();
            (Child::new(server.fork(b"", hold).unwrap()).unwrap(), stop)
        });
        signal(libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        drop(stop_first);
        assert_eq!(first.wait().await.unwrap().code(), Some(7));
        assert_eq!(second.shut_down(Duration::from_secs(60)).await.unwrap().signal(), Some(libc::SIGTERM));
        signal(libc::SIGCONT);
    });
    drop(server);
    support::await_whoever_is_left();
}
