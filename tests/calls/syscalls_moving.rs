//! Looking again, splicing and copying cost no more system calls than they must (P11), as strace sees it.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::support::{self, Later, Sigpipe, Trial, asleep_in, disk_file, fill, measured, sigpipe, spliced_once};
use ipc::{Error, PipeFlags, PipeReader, PipeWriter, datagram_pair, pipe, pipe_with, stream_pair};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    support::run_traced(traced())
}

pub fn trials() -> Vec<Trial> {
    support::traced_trials(module_path!(), traced())
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// A pipe both of whose ends look again for so long.
fn spinning_pipe(spin: Duration) -> (PipeReader, PipeWriter) {
    let (mut reader, mut writer) = pipe().unwrap();
    reader.set_spin(spin);
    writer.set_spin(spin);
    (reader, writer)
}

support::traced! {
    looking_again_finds_what_is_there_with_one_call => ["preadv2", "preadv2", "pwritev2", "pwritev2"] {
        let (reader, mut writer) = spinning_pipe(SECOND);
        writer.write_all(b"hello").unwrap();
        let (mut one, mut two) = ([0; 2], [0; 1]);
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
        let lengths = measured(|| {
            [
                (&reader).read_vectored(&mut bufs),
                (&reader).read(&mut [0; 8]),
                writer.write_vectored(&parts),
                writer.write(b"hello"),
            ]
        });
        assert_eq!(lengths.map(Result::unwrap), [3, 2, 5, 5]);
    }

    looking_again_finds_a_message_with_one_call => ["sendto", "recvmsg", "sendto", "recvfrom"] {
        let (mut pair, mut stream) = (datagram_pair().unwrap(), stream_pair().unwrap());
        pair.parent.set_spin(SECOND);
        pair.child.set_spin(SECOND);
        stream.parent.set_spin(SECOND);
        stream.child.set_spin(SECOND);
        assert!(pair.child.try_recv(&mut [0; 8]).is_err()); // the first one maps memory
        measured(|| {
            pair.parent.send(b"hello").unwrap();
            assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(5));
            assert_eq!(stream.parent.write(b"hello").unwrap(), 5);
            assert_eq!(stream.child.read(&mut [0; 8]).unwrap(), 5);
        });
    }

    an_end_that_never_waits_looks_again_for_a_moment_only => [
        "preadv2", "preadv2", "preadv2", "preadv2",
        "preadv2", "preadv2", "preadv2", "preadv2", "fcntl",
        "pwritev2", "pwritev2", "pwritev2", "pwritev2",
        "pwritev2", "pwritev2", "pwritev2", "pwritev2", "fcntl"
    ] {
        let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let (mut full_reader, mut full) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        fill(&full);
        reader.set_spin(LONG);
        full.set_spin(LONG);
        let (read, written) = measured(|| (reader.read(&mut [0; 8]), full.write(b"hello")));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.write_all(b"kept open").unwrap();
        assert!(full_reader.read(&mut [0; 8]).is_ok());
    }

    no_time_is_no_time_to_look_again => ["preadv2", "pwritev2", "preadv2"] {
        let (reader, writer) = spinning_pipe(LONG);
        assert!(matches!(measured(|| {
            let read = reader.read_timeout(&mut [0; 8], Duration::ZERO);
            assert!(matches!(read, Err(Error::TimedOut)));
            writer.try_write(b"hello").unwrap();
            reader.try_read(&mut [0; 8])
        }), Ok(5)));
    }

    a_reader_that_looked_in_vain_sleeps_at_once => ["read"] {
        let (mut reader, writer) = spinning_pipe(Duration::from_micros(50));
        let later = Later::new(writer, |writer| {
            let reader = std::os::unix::process::parent_id();
            for number in 0..5 {
                if number > 0 {
                    asleep_in(reader, &[libc::SYS_read]);
                }
                writer.write_all(&[number]).unwrap();
            }
        });
        for _ in 0..4 {
            assert_eq!(reader.read(&mut [0]).unwrap(), 1);
        }
        assert_eq!(measured(|| reader.read(&mut [0])).unwrap(), 1);
        later.done();
    }

    a_writer_that_looked_in_vain_sleeps_at_once => ["write"] {
        let (reader, mut writer) = spinning_pipe(Duration::from_micros(50));
        fill(&writer);
        let later = Later::new(reader, |reader| {
            let writer = std::os::unix::process::parent_id();
            for number in 0..5 {
                if number > 0 {
                    asleep_in(writer, &[libc::SYS_write]);
                }
                reader.read_exact(&mut [0; 4096]).unwrap();
            }
        });
        for _ in 0..4 {
            assert_eq!(writer.write(&[1; 4096]).unwrap(), 4096);
        }
        assert_eq!(measured(|| writer.write(&[1; 4096])).unwrap(), 4096);
        later.done();
    }

    looking_where_the_kernel_cannot_costs_one_call_more => ["pwritev2", "write"] {
        let (_reader, mut writer) = spinning_pipe(SECOND);
        spliced_once(&writer);
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
    }

    splicing_is_one_call => ["splice", "splice", "tee"] {
        let ((reader, mut writer), (_copies, copy)) = (pipe().unwrap(), pipe().unwrap());
        let (file, null) = (File::open("/proc/self/exe").unwrap(), File::create("/dev/null").unwrap());
        writer.write_all(b"hello").unwrap();
        let lengths = measured(|| [reader.splice_to(&null, 5), writer.splice_from(&file, 10), reader.tee(&copy, 20)]);
        assert_eq!(lengths.map(Result::unwrap), [5, 10, 10]);
    }

    copying_between_files_is_one_call_for_much =>
        ["fstat", "fstat", "fcntl", "rt_sigaction", "copy_file_range", "copy_file_range", "read"] {
        let (from, to) = (disk_file(), disk_file());
        (&from).write_all(&vec![7; 1 << 20]).unwrap();
        (&from).rewind().unwrap();
        assert_eq!(measured(|| ipc::copy(&from, &to)).unwrap(), 1 << 20);
    }

    copying_from_a_pipe_splices => ["fstat", "fstat", "fcntl", "rt_sigaction", "splice", "splice"] {
        let ((reader, mut writer), (_drain, to)) = (pipe().unwrap(), pipe().unwrap());
        writer.write_all(&[7; 50_000]).unwrap();
        drop(writer);
        assert_eq!(measured(|| ipc::copy(&reader, &to)).unwrap(), 50_000);
    }

    copying_to_a_device_sends_the_file => ["fstat", "fstat", "fcntl", "rt_sigaction", "sendfile", "sendfile", "read"] {
        let (from, to) = (disk_file(), File::create("/dev/null").unwrap());
        (&from).write_all(&[7; 50_000]).unwrap();
        (&from).rewind().unwrap();
        assert_eq!(measured(|| ipc::copy(&from, &to)).unwrap(), 50_000);
    }

    copying_a_file_to_a_pipe_cuts_the_writes => ["fstat", "fstat", "fcntl", "rt_sigaction", "read", "write", "write", "read"] {
        let (from, (_drain, to)) = (disk_file(), pipe().unwrap());
        (&from).write_all(&[7; 10_000]).unwrap();
        (&from).rewind().unwrap();
        assert_eq!(measured(|| ipc::copy(&from, &to)).unwrap(), 10_000);
    }

    keeping_the_signal_away_from_a_splice_is_four_calls_more =>
        ["rt_sigpending", "rt_sigprocmask", "splice", "rt_sigtimedwait", "rt_sigprocmask"] {
        sigpipe(Sigpipe::Default);
        let ((reader, mut writer), (_drain, to)) = (pipe().unwrap(), pipe().unwrap());
        writer.write_all(b"hello").unwrap();
        assert_eq!(measured(|| reader.splice_to(&to, 100)).unwrap(), 5);
    }
}
