//! Looking again before going to sleep changes how soon a call is done, and nothing else.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support::{
    self, Gate, RWF_NOWAIT, Trial, asleep_in, assert_times_out, exit_code, fill, kinds, process_state, read_some,
    refuse_flags,
};
use ipc::{Error, PipeFlags, datagram_pair, fork, pipe, pipe_with, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        looking_again_lengthens_no_deadline,
        looking_again_lengthens_no_deadline_of_a_socket,
        an_end_that_does_not_wait_answers_at_once,
        a_call_that_looks_again_does_not_sleep,
        looking_again_finds_what_comes,
        a_vectored_read_that_looks_again_works_on_every_kind,
        a_call_that_looked_in_vain_sleeps,
    ]
}

fn looking_again_lengthens_no_deadline() {
    for spin in [Duration::from_micros(50), Duration::MAX] {
        for (kind, mut reader, mut writer) in kinds() {
            reader.set_spin(spin);
            writer.set_spin(spin);
            fill(&writer);
            assert!(matches!(writer.try_write(&[1]), Err(Error::WouldBlock)), "{kind}");
            assert_times_out(kind, Duration::ZERO, |timeout| writer.write_timeout(&[1], timeout));
            assert_times_out(kind, Duration::from_millis(5), |timeout| writer.write_timeout(&[1], timeout));
            while reader.try_read(&mut [0; 8192]).is_ok() {}
            assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)), "{kind}");
            assert_times_out(kind, Duration::ZERO, |timeout| reader.read_timeout(&mut [0; 8], timeout));
            assert_times_out(kind, Duration::from_millis(5), |timeout| reader.read_timeout(&mut [0; 8], timeout));
        }
    }
}

fn looking_again_lengthens_no_deadline_of_a_socket() {
    const TIMEOUT: Duration = Duration::from_millis(5);
    for spin in [Duration::from_micros(50), Duration::MAX] {
        let (mut messages, mut stream) = (datagram_pair().unwrap(), stream_pair().unwrap());
        messages.parent.set_spin(spin);
        stream.parent.set_spin(spin);
        for timeout in [Duration::ZERO, TIMEOUT] {
            assert_times_out("recv", timeout, |timeout| messages.parent.recv_timeout(&mut [0; 8], timeout));
            assert_times_out("read", timeout, |timeout| stream.parent.read_timeout(&mut [0; 8], timeout));
        }
        while messages.parent.try_send(b"full").is_ok() {}
        while stream.parent.try_write(&[1; 4096]).is_ok() {}
        for timeout in [Duration::ZERO, TIMEOUT] {
            assert_times_out("send", timeout, |timeout| messages.parent.send_timeout(b"x", timeout));
            assert_times_out("write", timeout, |timeout| stream.parent.write_timeout(&[1; 4096], timeout));
        }
    }
}

fn an_end_that_does_not_wait_answers_at_once() {
    // It would look again for ever.
    let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let (mut messages, mut stream) = (datagram_pair().unwrap(), stream_pair().unwrap());
    reader.set_spin(Duration::MAX);
    writer.set_spin(Duration::MAX);
    messages.parent.set_spin(Duration::MAX);
    stream.parent.set_spin(Duration::MAX);
    for socket in [messages.parent.as_raw_fd(), stream.parent.as_raw_fd()] {
        // SAFETY: an open descriptor and a flag.
        assert_eq!(unsafe { libc::fcntl(socket, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    }
    let blocked = |result: std::io::Result<usize>| result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(blocked(reader.read(&mut [0; 8])));
    assert!(blocked(stream.parent.read(&mut [0; 8])));
    assert!(matches!(messages.parent.recv(&mut [0; 8]), Err(Error::WouldBlock)));
    fill(&writer);
    while messages.parent.try_send(b"full").is_ok() {}
    while stream.parent.try_write(&[1; 4096]).is_ok() {}
    assert!(blocked(writer.write(b"x")));
    assert!(blocked(writer.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")])));
    assert!(matches!(writer.write_atomic(b"x"), Err(Error::WouldBlock)));
    assert!(blocked(stream.parent.write(&[1; 4096])));
    assert!(matches!(messages.parent.send(b"x"), Err(Error::WouldBlock)));
    // With a timeout they do wait, and look again.
    assert_times_out("write", Duration::from_millis(5), |timeout| writer.write_timeout(b"x", timeout));
}

fn a_call_that_looks_again_does_not_sleep() {
    const LONG: Duration = Duration::from_secs(600);
    let gate = Gate::new();
    let does_not_sleep = |child: ipc::Child| {
        gate.pass();
        let states: Vec<_> = (0..500).map(|_| process_state(child.id())).collect();
        assert!(states.iter().all(|state| *state == Some('R')), "{states:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let (mut reader, mut writer) = pipe().unwrap();
    let (mut messages, mut stream) = (datagram_pair().unwrap(), stream_pair().unwrap());
    reader.set_spin(LONG);
    writer.set_spin(LONG);
    messages.child.set_spin(LONG);
    stream.child.set_spin(LONG);
    does_not_sleep(
        fork(reader.try_clone().unwrap(), |mut reader| {
            gate.open();
            reader.read(&mut [0]).map(drop)
        })
        .unwrap(),
    );
    does_not_sleep(
        fork(messages.child, |socket| {
            gate.open();
            socket.recv(&mut [0]).map(drop)
        })
        .unwrap(),
    );
    does_not_sleep(
        fork(stream.child, |mut socket| {
            gate.open();
            socket.read(&mut [0]).map(drop)
        })
        .unwrap(),
    );
    fill(&writer);
    does_not_sleep(
        fork(writer.try_clone().unwrap(), |mut writer| {
            gate.open();
            writer.write(b"x").map(drop)
        })
        .unwrap(),
    );
    does_not_sleep(
        fork(writer, |mut writer| {
            gate.open();
            writer.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]).map(drop)
        })
        .unwrap(),
    );
    drop((reader, messages.parent, stream.parent));
}

fn looking_again_finds_what_comes() {
    for spin in [Duration::from_micros(50), Duration::from_secs(60)] {
        let (mut reader, writer) = pipe().unwrap();
        reader.set_spin(spin);
        let gate = Gate::new();
        let child = fork(writer, |mut writer| {
            for number in 0..100 {
                gate.pass();
                writer.write_all(&[number]).unwrap();
            }
        })
        .unwrap();
        for number in 0..100 {
            gate.open();
            assert_eq!(read_some(&reader, 1), [number]);
        }
        assert_eq!(exit_code(&child), 0);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "and the end");
    }
}

fn a_vectored_read_that_looks_again_works_on_every_kind() {
    for without in [0, RWF_NOWAIT] {
        if without != 0 {
            refuse_flags(without);
        }
        for (kind, mut reader, mut writer) in kinds() {
            reader.set_spin(Duration::from_micros(50));
            writer.write_all(b"abcdef").unwrap();
            let (mut first, mut second) = ([0; 2], [0; 8]);
            let bufs = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            assert_eq!(reader.read_vectored(bufs).unwrap(), 6, "{kind}");
            assert_eq!((&first, &second[..4]), (b"ab", &b"cdef"[..]), "{kind}");
        }
    }
}

fn a_call_that_looked_in_vain_sleeps() {
    let (mut reader, mut writer) = pipe().unwrap();
    reader.set_spin(Duration::from_micros(50));
    let child = fork(reader, |mut reader| {
        for number in 0..200 {
            let mut byte = [0];
            assert_eq!(reader.read(&mut byte).unwrap(), 1);
            assert_eq!(byte, [number]);
        }
        assert_eq!(reader.read_timeout(&mut [0], Duration::MAX).unwrap(), 0);
    })
    .unwrap();
    for number in 0..200 {
        asleep_in(child.id(), &[libc::SYS_read, libc::SYS_ppoll]);
        writer.write_all(&[number]).unwrap();
    }
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}
