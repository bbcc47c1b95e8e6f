//! Looking again before going to sleep changes how soon a call is done, and nothing else.

mod support;

use std::io::{IoSliceMut, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use ipc::{Error, fork, pipe};
use support::{Gate, RWF_NOWAIT, asleep_in, assert_times_out, exit_code, fill, kinds, read_some, refuse_flags};

fn main() -> ExitCode {
    support::run(support::trials![
        looking_again_lengthens_no_deadline,
        looking_again_finds_what_comes,
        a_vectored_read_that_looks_again_works_on_every_kind,
        a_call_that_looked_in_vain_sleeps,
    ])
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
