//! Tests under the usual harness, which runs each of them on a thread, and that run a function in a process of its own
//! (docs/guide/testing.md).

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;

use serde::{Deserialize, Serialize};

use ipc::{Error, PipeReader, PipeWriter, TypedForkServer, fork_in_test, pipe};

#[test]
fn a_fork_is_refused_here() {
    assert!(matches!(ipc::fork((), |()| ()).unwrap_err().error, Error::MultiThreaded { .. }));
    assert!(matches!(TypedForkServer::start(|(): ()| ()).unwrap_err(), Error::MultiThreaded { .. }));
}

#[test]
fn a_closure_runs_in_a_process_of_its_own() -> ipc::Result<()> {
    let (reader, writer) = pipe()?;
    let child = fork_in_test(writer, |writer| writer.write_atomic(&std::process::id().to_ne_bytes()))?;
    let mut number = Vec::new();
    (&reader).read_to_end(&mut number)?;
    assert_eq!(number, child.id().to_ne_bytes());
    assert_ne!(child.id(), std::process::id());
    assert!(child.wait()?.success());
    Ok(())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Say(String),
    Leave,
}

fn worker((orders, results): (ipc::Receiver<Order>, ipc::Sender<Order>)) -> ipc::Result<u8> {
    for order in orders.iter() {
        match order? {
            Order::Say(text) => results.send(Order::Say(text.to_uppercase()))?,
            Order::Leave => return Ok(7),
        }
    }
    Ok(0)
}

#[test]
fn a_function_gets_channels() -> ipc::Result<()> {
    let (orders, worker_orders) = ipc::channel()?;
    let (worker_results, results) = ipc::channel()?;
    let child = fork_in_test((worker_orders, worker_results), worker)?;
    orders.send(Order::Say("a word".to_owned()))?;
    assert_eq!(results.recv()?, Some(Order::Say("A WORD".to_owned())));
    orders.send(Order::Leave)?;
    assert_eq!(results.recv()?, None);
    assert_eq!(child.wait()?.code(), Some(7));
    Ok(())
}

#[test]
fn two_functions_of_one_type_are_two() -> ipc::Result<()> {
    let children = [fork_in_test(5_u8, |number| number + 1)?, fork_in_test(5_u8, |number| number * 2)?];
    let statuses = children.map(|child| child.wait().map(|status| status.code()));
    assert!(matches!(statuses, [Ok(Some(6)), Ok(Some(10))]), "{statuses:?}");
    Ok(())
}

#[test]
fn a_value_of_any_size_arrives() -> ipc::Result<()> {
    for len in [0, 1, 1 << 20, 8 << 20] {
        let (reader, writer) = pipe()?;
        let child = fork_in_test((writer, vec![7_u8; len]), |(writer, bytes): (PipeWriter, Vec<u8>)| {
            assert!(bytes.iter().all(|byte| *byte == 7));
            writer.write_atomic(&bytes.len().to_ne_bytes())
        })?;
        let mut said = Vec::new();
        (&reader).read_to_end(&mut said)?;
        assert_eq!(said, len.to_ne_bytes());
        assert!(child.wait()?.success());
    }
    Ok(())
}

#[test]
fn a_worker_that_panics_is_seen() -> ipc::Result<()> {
    assert_eq!(fork_in_test((), |()| panic!("as it was told"))?.wait()?.code(), Some(101));
    Ok(())
}

#[test]
fn a_worker_is_killed_like_any_child() -> ipc::Result<()> {
    let (reader, _writer) = pipe()?;
    let child = fork_in_test(reader, |mut reader| reader.read_to_end(&mut Vec::new()).map(drop))?;
    child.kill()?;
    assert_eq!(child.wait()?.signal(), Some(libc::SIGKILL));
    Ok(())
}

#[test]
fn a_write_to_nobody_is_an_error_as_after_main() -> ipc::Result<()> {
    let child = fork_in_test((), |()| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    })?;
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn a_worker_without_standard_streams_opens_no_file_in_their_place() -> ipc::Result<()> {
    const AGAIN: &str = "IPC_TESTS_WITHOUT_STREAMS";
    if std::env::var_os(AGAIN).is_some() {
        let child = fork_in_test((), |()| {
            let file =
                std::fs::File::from(rustix::fs::memfd_create("a file", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
            eprintln!("this is for nobody");
            assert!(file.as_raw_fd() > 2 && file.metadata().unwrap().len() == 0);
        })?;
        assert!(child.wait()?.success());
        return Ok(());
    }
    again("a_worker_without_standard_streams_opens_no_file_in_their_place", AGAIN, "<&- >&- 2>&-")
}

#[test]
fn a_worker_claims_what_the_program_was_started_with() -> ipc::Result<()> {
    const AGAIN: &str = "IPC_TESTS_STARTED_WITH_A_FILE";
    if std::env::var_os(AGAIN).is_some() {
        let child = fork_in_test((), |()| ipc::claim_number::<std::fs::File>(9).map(drop))?;
        assert!(child.wait()?.success());
        return ipc::claim_number::<std::fs::File>(9).map(drop);
    }
    again("a_worker_claims_what_the_program_was_started_with", AGAIN, "9</dev/null")
}

/// Runs a test of this program again, with a variable that tells it so, and other descriptors.
fn again(name: &str, variable: &str, redirections: &str) -> ipc::Result<()> {
    let mut program = std::process::Command::new("sh");
    program.args(["-c", &format!("exec \"$0\" --exact \"$1\" {redirections}")]);
    assert!(program.arg(std::env::current_exe()?).arg(name).env(variable, "1").status()?.success());
    Ok(())
}

#[test]
fn threads_of_a_test_start_workers_at_the_same_moment() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..25 {
                    assert_eq!(
                        fork_in_test(number, |number: u8| number).unwrap().wait().unwrap().code(),
                        Some(number.into())
                    );
                }
            });
        }
    });
}

#[test]
fn a_value_that_was_not_sent_comes_back() {
    let (reader, writer) = pipe().unwrap();
    let writers: Vec<_> = (0..254).map(|_| writer.try_clone().unwrap()).collect();
    let unsent = fork_in_test(writers, |_| ()).unwrap_err();
    assert!(matches!(unsent.error, Error::TooLong { len: 254, max: 253 }), "{unsent:?}");
    unsent.value[253].write_atomic(b"mine").unwrap();
    drop((unsent, writer));
    let _: PipeReader = reader;
}
