//! Orders that are values: they arrive whole with their ends, or come back whole.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::workers::in_a_thread;
use super::{all_ways, at_rest, descriptors, signal};
use crate::support::{FAR, Is, Kernel, Trial, exit_code, poll_until, process_state, read_all, rounds};
use ipc::{Error, Fd, Fork, PipeReader, PipeWriter, TypedForkServer, Unsent, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    all_ways![
        a_value_arrives_with_its_ends,
        a_value_of_any_size_arrives,
        as_many_ends_as_a_value_carries,
        a_value_that_was_not_taken_comes_back,
        a_value_whose_memory_stays_busy_outlasts_no_deadline,
        a_value_that_cannot_be_encoded_comes_back,
        a_value_that_cannot_be_decoded_is_the_workers_error,
        typed_workers_have_the_options_of_their_server,
        a_typed_server_keeps_nothing_of_an_order,
        threads_order_values_at_the_same_moment,
    ]
}

#[derive(Serialize, Deserialize)]
enum Job {
    Copy { from: PipeReader, to: Vec<PipeWriter>, prefix: String },
    Read { file: Fd<File>, to: Option<PipeWriter> },
    Leave(u8),
}

fn server() -> TypedForkServer<Job> {
    TypedForkServer::start(work).unwrap()
}

fn work(job: Job) -> ipc::Result<u8> {
    match job {
        Job::Copy { mut from, to, prefix } => {
            let mut text = prefix.into_bytes();
            from.read_to_end(&mut text)?;
            for mut writer in to {
                writer.write_all(&text)?;
            }
            assert_eq!(open_ends(), 1);
        }
        Job::Read { mut file, to } => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            to.expect("it was sent").write_all(text.as_bytes())?;
        }
        Job::Leave(status) => return Ok(status),
    }
    Ok(0)
}

fn a_value_arrives_with_its_ends() {
    let server = server();
    in_a_thread(|| {
        let (from, mut writer) = pipe().unwrap();
        let (first, to) = pipe().unwrap();
        let (second, also_to) = pipe().unwrap();
        let prefix = "a value ".to_owned();
        let child = server.fork(Job::Copy { from, to: vec![to, also_to], prefix }).unwrap();
        writer.write_all(b"and bytes").unwrap();
        drop(writer);
        assert_eq!((read_all(first), read_all(second)), (b"a value and bytes".to_vec(), b"a value and bytes".to_vec()));
        assert_eq!(exit_code(&child), 0);

        let (reader, to) = pipe().unwrap();
        let file = Fd(File::open("/proc/self/comm").unwrap());
        let child = server.fork(Job::Read { file, to: Some(to) }).unwrap();
        assert_eq!(read_all(reader), std::fs::read("/proc/self/comm").unwrap());
        assert_eq!(exit_code(&child), 0);
        assert_eq!(exit_code(&server.fork(Job::Leave(7)).unwrap()), 7);
        assert_eq!(open_ends(), 1);
    });
}

fn a_value_of_any_size_arrives() {
    let server = TypedForkServer::start(|(mut writer, bytes): (PipeWriter, Vec<u32>)| -> ipc::Result<()> {
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        writer.write_all(&sum.to_ne_bytes())?;
        writer.write_all(&bytes.len().to_ne_bytes())?;
        Ok(())
    })
    .unwrap();
    in_a_thread(|| {
        let more = (rounds(1) > 1).then_some(5 << 20);
        for len in [0, 1, 200_000, 1 << 20].into_iter().chain(more) {
            let numbers: Vec<u32> = (0..len).map(|number| number & 0x7f).collect();
            let sum: u64 = numbers.iter().map(|number| u64::from(*number)).sum();
            let (reader, writer) = pipe().unwrap();
            let child = server.fork((writer, numbers)).unwrap();
            assert_eq!(read_all(reader), [sum.to_ne_bytes(), u64::from(len).to_ne_bytes()].concat(), "{len}");
            assert_eq!(exit_code(&child), 0);
        }
        assert_eq!(open_ends(), 1);
    });
}

fn as_many_ends_as_a_value_carries() {
    // Bytes, and no numbers one by one, which takes long.
    type Value = (Vec<PipeWriter>, ByteBuf);
    let server = TypedForkServer::start(|(writers, bytes): Value| {
        writers.iter().for_each(|writer| writer.write_atomic(&bytes[..1]).unwrap());
    })
    .unwrap();
    in_a_thread(|| {
        let (reader, writer) = pipe().unwrap();
        let value =
            |ends, bytes| ((0..ends).map(|_| writer.try_clone().unwrap()).collect(), ByteBuf::from(vec![b'x'; bytes]));
        let workers = [server.fork(value(253, 1)).unwrap(), server.fork(value(252, 5 << 20)).unwrap()];
        for (ends, bytes, most) in [(254, 1, 253), (253, 5 << 20, 252)] {
            let Unsent { value: (back, _), error } = server.fork(value(ends, bytes)).unwrap_err();
            assert!(matches!(error, Error::TooLong { len, max } if len == ends && max == most), "{error:?}");
            assert_eq!(back.len(), ends);
            back[ends - 1].write_atomic(b"m").unwrap();
        }
        drop(writer);
        let said = read_all(reader);
        assert_eq!([b'x', b'm'].map(|sign| said.iter().filter(|byte| **byte == sign).count()), [253 + 252, 2]);
        workers.iter().for_each(|child| assert_eq!(exit_code(child), 0));
    });
}

fn a_value_that_was_not_taken_comes_back() {
    let server = server();
    let order = || {
        let (reader, to) = pipe().unwrap();
        let file = Fd(File::open("/dev/null").unwrap());
        (reader, Job::Read { file, to: Some(to) })
    };
    #[track_caller]
    fn assert_back(reader: &PipeReader, value: Job) {
        let Job::Read { to: Some(writer), .. } = value else { panic!("another value") };
        writer.write_atomic(b"mine").unwrap();
        assert_eq!(reader.available().unwrap(), 4);
    }
    in_a_thread(|| {
        signal(server.id(), libc::SIGSTOP);
        poll_until("the server is stopped", || process_state(server.id()) == Some('T'));
        let (reader, job) = order();
        let late = server.fork_timeout(job, Duration::from_millis(1)).unwrap_err();
        assert!(matches!(late.error, Error::TimedOut), "{late:?}");
        assert_back(&reader, late.value);
        signal(server.id(), libc::SIGKILL);
        let (reader, job) = order();
        let closed = server.fork(job).unwrap_err();
        assert!(matches!(closed.error, Error::Closed), "{closed:?}");
        assert_back(&reader, closed.value);
        assert!(matches!(Error::from(server.fork(Job::Leave(1)).unwrap_err()), Error::Closed));
    });
}

/// Fails to encode itself after an end was attached.
#[derive(Deserialize)]
struct Stubborn(PipeWriter, bool);

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.1 {
            return self.0.serialize(serializer);
        }
        let _ = self.0.serialize(serializer);
        Err(serde::ser::Error::custom("as it was told"))
    }
}

fn a_value_whose_memory_stays_busy_outlasts_no_deadline() {
    let server = TypedForkServer::start(|_: String| ()).unwrap();
    in_a_thread(|| {
        Kernel::new().with(libc::SYS_fcntl, 1, Is::Equal(libc::F_ADD_SEALS as u32), libc::EBUSY).play();
        // No longer one goes in a message. The kernel, which does not wait here, is asked a few times.
        let large = "x".repeat(5 << 20);
        let Unsent { value, error } = server.fork_timeout(large, Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::TimedOut), "{error:?}");
        let Unsent { value, error } = server.fork(value).unwrap_err();
        assert!(matches!(&error, Error::System { call: "fcntl", .. }), "{error:?}");
        assert_eq!(value.len(), 5 << 20);
        assert_eq!(exit_code(&server.fork_timeout("short".to_owned(), FAR).unwrap()), 0);
    });
}

fn a_value_that_cannot_be_encoded_comes_back() {
    let server = TypedForkServer::start(|_: Stubborn| ()).unwrap();
    let (reader, writer) = pipe().unwrap();
    let unsent = server.fork(Stubborn(writer, false)).unwrap_err();
    assert!(matches!(unsent.error, Error::Encode { .. }), "{unsent:?}");
    unsent.value.0.write_atomic(b"mine").unwrap();
    drop(unsent);
    assert_eq!(read_all(reader), b"mine");
}

/// A field that a format that does not describe itself cannot do without.
#[derive(Serialize, Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u32>,
    text: String,
}

fn a_value_that_cannot_be_decoded_is_the_workers_error() {
    let server = TypedForkServer::start(|_: Skips| 7_u8).unwrap();
    let order = |left_out| server.fork(Skips { left_out, text: "text".to_owned() }).unwrap();
    assert_eq!(exit_code(&order(Some(1))), 7);
    assert_eq!(exit_code(&order(None)), 1);
    let printed = std::fs::read_to_string("/proc/self/fd/1").unwrap();
    assert!(printed.contains("Error: Decode"), "{printed}");
}

fn typed_workers_have_the_options_of_their_server() {
    let refused = TypedForkServer::start_with(Fork::new().keep_all_ends(), |(): ()| ()).unwrap_err();
    assert!(matches!(refused, Error::InvalidInput { .. }), "{refused:?}");
    let late = in_a_thread(|| TypedForkServer::start(|(): ()| ()).unwrap_err());
    assert!(matches!(late, Error::MultiThreaded { threads: 2.. }), "{late:?}");
    let server = TypedForkServer::start_with(Fork::new().die_with_parent(), |(): ()| {
        let mut number = 0;
        // SAFETY: room for a number.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut number) }, 0);
        number as u8
    })
    .unwrap();
    assert_eq!(exit_code(&server.fork(()).unwrap()), libc::SIGKILL);
}

fn a_typed_server_keeps_nothing_of_an_order() {
    let server = server();
    in_a_thread(|| {
        let order = |size: usize| {
            let (from, _) = pipe().unwrap();
            let (reader, to) = pipe().unwrap();
            let child = server.fork(Job::Copy { from, to: vec![to], prefix: "x".repeat(size) }).unwrap();
            assert_eq!(read_all(reader).len(), size);
            assert_eq!(exit_code(&child), 0);
        };
        order(1);
        let (here, there) = (descriptors(std::process::id()), at_rest(server.id()));
        for size in [0, 1, 1 << 20] {
            (0..10).for_each(|_| order(size));
        }
        poll_until("the server holds what it held before", || descriptors(server.id()) == there);
        assert_eq!(descriptors(std::process::id()), here);
    });
}

fn threads_order_values_at_the_same_moment() {
    let server = server();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..25 {
                    let child = server.fork(Job::Leave(thread * 25 + round)).unwrap();
                    assert_eq!(exit_code(&child), i32::from(thread * 25 + round));
                }
            });
        }
    });
}
