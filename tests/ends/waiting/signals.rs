//! Writing to a dead reader is an error, never a signal (P8): whatever the process does about `SIGPIPE`, on every kind of
//! pipe and socket, and on older kernels. And no call leaves a trace in the signal mask.

use std::io::{IoSlice, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::{
    self, RWF_NOSIGNAL, RWF_NOWAIT, Sigpipe, Trial, asleep_in, block_signal, exit_code, fill, handle_signal, handled,
    is_pending, named_fifo, read_some, refuse_flags, signal_mask, sigpipe, spliced_once, take_pending,
};
use ipc::{DatagramFlags, DatagramSocket, Error, Fork, PipeFlags, PipeReader, PipeWriter, StreamSocket};
use ipc::{datagram_pair_with, fork, pipe, pipe_with, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_write_to_nobody_is_closed_where_sigpipe_is_ignored,
        a_write_to_nobody_is_closed_where_sigpipe_kills,
        a_write_to_nobody_calls_no_handler,
        a_write_to_nobody_leaves_nothing_pending_where_sigpipe_is_blocked,
        a_sigpipe_that_was_pending_stays_pending,
        a_sigpipe_that_was_pending_for_the_process_stays_pending,
        a_writer_made_where_sigpipe_is_ignored_is_safe_after_a_reset,
        a_writer_made_after_a_reset_is_safe,
        a_writer_that_waits_gets_no_signal_when_the_last_reader_goes,
        a_sigpipe_from_somebody_else_is_not_taken,
        a_write_that_the_last_reader_leaves_half_way_raises_nothing,
        a_message_to_nobody_is_closed_where_sigpipe_is_ignored,
        a_message_to_nobody_is_closed_where_sigpipe_kills,
        a_message_to_nobody_calls_no_handler,
        a_message_to_nobody_leaves_a_pending_sigpipe_alone,
        the_mask_is_the_same_after_calls_that_work,
        the_mask_is_the_same_after_calls_that_find_no_room,
    ]
}

/// Runs the body in a child on this kernel, and on such that do not know this flag and that.
#[track_caller]
fn on_every_kernel(body: fn()) {
    for flags in [0, RWF_NOSIGNAL, RWF_NOWAIT, RWF_NOSIGNAL | RWF_NOWAIT] {
        let child = fork((), |()| {
            if flags != 0 {
                refuse_flags(flags);
            }
            body();
        })
        .unwrap();
        assert_eq!(exit_code(&child), 0, "without the flags {flags:#x}");
    }
}

type Call<End> = (&'static str, fn(&End) -> ipc::Result<()>);

/// Every call that writes to a pipe.
const WRITES: [Call<PipeWriter>; 14] = [
    ("write", |mut writer| Ok(writer.write(b"x").map(drop)?)),
    ("write, cut", |mut writer| Ok(writer.write(&[1; 20_000]).map(drop)?)),
    ("write_all", |mut writer| Ok(writer.write_all(&[1; 20_000])?)),
    ("write_vectored, one", |mut writer| Ok(writer.write_vectored(&[IoSlice::new(b"x")]).map(drop)?)),
    ("write_vectored, two", |mut writer| {
        Ok(writer.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]).map(drop)?)
    }),
    ("try_write", |writer| writer.try_write(b"x").map(drop)),
    ("try_write, cut", |writer| writer.try_write(&[1; 20_000]).map(drop)),
    ("write_timeout, zero", |writer| writer.write_timeout(b"x", Duration::ZERO).map(drop)),
    ("write_timeout, some", |writer| writer.write_timeout(b"x", Duration::from_secs(5)).map(drop)),
    ("write_timeout, endless", |writer| writer.write_timeout(b"x", Duration::MAX).map(drop)),
    ("write_atomic", |writer| writer.write_atomic(b"x")),
    ("splice_from", |writer| writer.splice_from(source()?, 100).map(drop)),
    ("splice_to", |writer| source()?.splice_to(writer, 100).map(drop)),
    ("tee", |writer| source()?.tee(writer, 100).map(drop)),
];

/// Something to splice from.
fn source() -> ipc::Result<PipeReader> {
    let (reader, writer) = pipe()?;
    writer.write_atomic(b"x")?;
    Ok(reader)
}

/// Writers of every kind, and no reader of any.
fn writers_to_nobody() -> Vec<(&'static str, PipeWriter)> {
    let spliced = pipe().unwrap();
    spliced_once(&spliced.1);
    let mut spinning = pipe().unwrap().1;
    spinning.set_spin(Duration::from_micros(20));
    let mut whole = pipe().unwrap().1;
    whole.set_max_write(usize::MAX);
    vec![
        ("a pipe", pipe().unwrap().1),
        ("a clone", pipe().unwrap().1.try_clone().unwrap()),
        ("a pipe that does not wait", pipe_with(PipeFlags::NONBLOCK).unwrap().1),
        ("a pipe that was spliced to", spliced.1),
        ("a pipe that looks again", spinning),
        ("a pipe whose writes are whole", whole),
        ("a FIFO with a name", PipeWriter::try_from(named_fifo().1).unwrap()),
    ]
}

/// That every call says `Closed`, and neither the mask nor what is pending changes.
#[track_caller]
fn assert_closed<End>(what: &str, end: &End, calls: &[Call<End>]) {
    for (call, run) in calls {
        let before = (signal_mask(), is_pending(libc::SIGPIPE), handled());
        let result = run(end);
        assert!(matches!(result, Err(Error::Closed)), "{what}, {call}: {result:?}");
        let after = (signal_mask(), is_pending(libc::SIGPIPE), handled());
        assert_eq!(after, before, "{what}, {call}: mask, pending, handled");
    }
}

#[track_caller]
fn assert_every_write_closed(writers: &[(&str, PipeWriter)]) {
    for (what, writer) in writers {
        assert_closed(what, writer, &WRITES);
    }
}

fn a_write_to_nobody_is_closed_where_sigpipe_is_ignored() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Ignore);
        assert_every_write_closed(&writers_to_nobody());
    });
}

fn a_write_to_nobody_is_closed_where_sigpipe_kills() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Default);
        assert_every_write_closed(&writers_to_nobody());
    });
}

fn a_write_to_nobody_calls_no_handler() {
    on_every_kernel(|| {
        handle_signal(libc::SIGPIPE);
        assert_every_write_closed(&writers_to_nobody());
        assert_eq!(handled(), 0);
    });
}

fn a_write_to_nobody_leaves_nothing_pending_where_sigpipe_is_blocked() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Default);
        block_signal(libc::SIGPIPE);
        assert_every_write_closed(&writers_to_nobody());
        assert!(!is_pending(libc::SIGPIPE));
    });
}

fn a_sigpipe_that_was_pending_stays_pending() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Default);
        block_signal(libc::SIGPIPE);
        // SAFETY: a signal that is blocked.
        assert_eq!(unsafe { libc::raise(libc::SIGPIPE) }, 0);
        assert_every_write_closed(&writers_to_nobody());
        take_pending(libc::SIGPIPE);
        assert!(!is_pending(libc::SIGPIPE));
    });
}

fn a_sigpipe_that_was_pending_for_the_process_stays_pending() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Default);
        block_signal(libc::SIGPIPE);
        // SAFETY: a signal that is blocked, to this process.
        assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGPIPE) }, 0);
        assert_every_write_closed(&writers_to_nobody());
        take_pending(libc::SIGPIPE);
    });
}

fn a_writer_made_where_sigpipe_is_ignored_is_safe_after_a_reset() {
    on_every_kernel(|| {
        sigpipe(Sigpipe::Ignore);
        let writers: Vec<_> = writers_to_nobody();
        let (names, writers): (Vec<_>, Vec<_>) = writers.into_iter().unzip();
        let child = Fork::new()
            .reset_signals()
            .spawn(writers, move |writers| {
                let writers: Vec<_> = names.into_iter().zip(writers).collect();
                assert_every_write_closed(&writers);
                // In a child of that one it is the same.
                let child = Fork::new().keep_all_ends().spawn((), |()| assert_every_write_closed(&writers)).unwrap();
                assert_eq!(exit_code(&child), 0);
            })
            .unwrap();
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_writer_made_after_a_reset_is_safe() {
    on_every_kernel(|| {
        let child =
            Fork::new().reset_signals().spawn((), |()| assert_every_write_closed(&writers_to_nobody())).unwrap();
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_sigpipe_from_somebody_else_is_not_taken() {
    on_every_kernel(|| {
        handle_signal(libc::SIGPIPE);
        for (name, write) in WRITES.iter().filter(|(name, _)| !name.starts_with("try_") && !name.ends_with("zero")) {
            let (reader, writer) = pipe().unwrap();
            fill(&writer);
            let child = fork(writer, |writer| {
                write(&writer).unwrap();
                assert_eq!(handled(), 1);
            })
            .unwrap();
            asleep_in(child.id(), &WAITING);
            child.signal(libc::SIGPIPE).unwrap();
            while matches!(reader.try_read(&mut [0; 8192]), Ok(1..)) {}
            assert_eq!(exit_code(&child), 0, "{name}");
        }
    });
}

/// Where a call that writes can be asleep.
const WAITING: [libc::c_long; 6] =
    [libc::SYS_write, libc::SYS_writev, libc::SYS_pwritev2, libc::SYS_ppoll, libc::SYS_splice, libc::SYS_tee];

fn a_writer_that_waits_gets_no_signal_when_the_last_reader_goes() {
    on_every_kernel(|| {
        handle_signal(libc::SIGPIPE);
        let waits = WRITES.iter().filter(|(name, _)| !name.starts_with("try_") && !name.ends_with("zero"));
        for (name, write) in waits {
            for spliced in [false, true] {
                let (reader, writer) = pipe().unwrap();
                fill(&writer);
                if spliced {
                    spliced_once(&writer);
                }
                let child = fork(writer, |writer| {
                    assert!(matches!(write(&writer), Err(Error::Closed)), "{name}");
                    assert_eq!(handled(), 0, "{name}");
                    assert!(!signal_mask().contains(&libc::SIGPIPE), "{name}");
                })
                .unwrap();
                asleep_in(child.id(), &WAITING);
                drop(reader);
                assert_eq!(exit_code(&child), 0, "{name}");
            }
        }
    });
}

fn a_write_that_the_last_reader_leaves_half_way_raises_nothing() {
    on_every_kernel(|| {
        handle_signal(libc::SIGPIPE);
        let data = vec![1; 1 << 20];
        let halves = [IoSlice::new(&data[..1 << 19]), IoSlice::new(&data[1 << 19..])];
        for vectored in [false, true] {
            let (reader, mut writer) = pipe().unwrap();
            writer.set_max_write(usize::MAX);
            let parent = std::process::id();
            let child = fork(reader, |reader| {
                asleep_in(parent, &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwritev2]);
                read_some(&reader, 4096);
            })
            .unwrap();
            let written = if vectored { writer.write_vectored(&halves) } else { writer.write(&data) }.unwrap();
            assert!(written > 0 && written < data.len(), "{written} bytes");
            assert_eq!(handled(), 0);
            assert!(!signal_mask().contains(&libc::SIGPIPE) && !is_pending(libc::SIGPIPE));
            assert_eq!(exit_code(&child), 0);
        }
    });
}

/// Every call that sends a message.
const SENDS: [Call<DatagramSocket>; 9] = [
    ("send", |socket| socket.send(b"x")),
    ("send, empty", |socket| socket.send(b"")),
    ("try_send", |socket| socket.try_send(b"x")),
    ("send_timeout, zero", |socket| socket.send_timeout(b"x", Duration::ZERO)),
    ("send_timeout, endless", |socket| socket.send_timeout(b"x", Duration::MAX)),
    ("send_vectored", |socket| socket.send_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")])),
    ("send_vectored, many", |socket| socket.send_vectored(&[IoSlice::new(b"x"); 2000])),
    ("send_with", |socket| Ok(socket.send_with(b"x", ())?)),
    ("try_send_with", |socket| Ok(socket.try_send_with(b"x", pipe()?)?)),
];

/// Every call that writes to a stream.
const STREAM_WRITES: [Call<StreamSocket>; 8] = [
    ("write", |mut socket| Ok(socket.write(b"x").map(drop)?)),
    ("write_all", |mut socket| Ok(socket.write_all(&[1; 20_000])?)),
    ("write_vectored", |mut socket| Ok(socket.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]).map(drop)?)),
    ("try_write", |socket| socket.try_write(b"x").map(drop)),
    ("write_timeout, zero", |socket| socket.write_timeout(b"x", Duration::ZERO).map(drop)),
    ("write_timeout, endless", |socket| socket.write_timeout(b"x", Duration::MAX).map(drop)),
    ("send_with", |socket| socket.send_with(b"x", ()).map(drop).map_err(Error::from)),
    ("try_send_with", |socket| socket.try_send_with(b"x", pipe()?).map(drop).map_err(Error::from)),
];

fn assert_every_send_closed() {
    for flags in [DatagramFlags::empty(), DatagramFlags::CONNECTIONLESS] {
        // From the first of them on, which the kernel tells in other words than the later ones.
        for skip in 0..SENDS.len() {
            let pair = datagram_pair_with(flags).unwrap();
            drop(pair.child);
            assert_closed("a peer that is gone", &pair.parent, &SENDS[skip..]);
        }
        let pair = datagram_pair_with(flags).unwrap();
        pair.parent.shutdown(Shutdown::Write).unwrap();
        assert_closed("a socket that was shut down", &pair.parent, &SENDS);
    }
    let pair = stream_pair().unwrap();
    drop(pair.child);
    assert_closed("a stream's peer that is gone", &pair.parent, &STREAM_WRITES);
    let pair = stream_pair().unwrap();
    pair.child.shutdown(Shutdown::Read).unwrap();
    assert_closed("a stream's peer that reads no more", &pair.parent, &STREAM_WRITES);
}

fn a_message_to_nobody_is_closed_where_sigpipe_is_ignored() {
    sigpipe(Sigpipe::Ignore);
    assert_every_send_closed();
}

fn a_message_to_nobody_is_closed_where_sigpipe_kills() {
    sigpipe(Sigpipe::Default);
    assert_every_send_closed();
}

fn a_message_to_nobody_calls_no_handler() {
    handle_signal(libc::SIGPIPE);
    assert_every_send_closed();
    assert_eq!(handled(), 0);
}

fn a_message_to_nobody_leaves_a_pending_sigpipe_alone() {
    sigpipe(Sigpipe::Default);
    block_signal(libc::SIGPIPE);
    // SAFETY: a signal that is blocked.
    assert_eq!(unsafe { libc::raise(libc::SIGPIPE) }, 0);
    assert_every_send_closed();
    take_pending(libc::SIGPIPE);
    assert!(!is_pending(libc::SIGPIPE));
}

/// Runs the calls on pipes that have a reader, with one signal blocked that has nothing to do with it.
#[track_caller]
fn assert_mask_stays(calls: &[Call<PipeWriter>], full: bool, expected: fn(&ipc::Result<()>) -> bool) {
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        sigpipe(disposition);
        block_signal(libc::SIGUSR1);
        for (name, call) in calls {
            for spliced in [false, true] {
                let (_reader, writer) = pipe().unwrap();
                if full {
                    fill(&writer);
                }
                if spliced {
                    spliced_once(&writer);
                }
                let result = call(&writer);
                assert!(expected(&result), "{name}: {result:?}");
                assert_eq!(signal_mask(), [libc::SIGUSR1], "{name}");
                assert!(!is_pending(libc::SIGPIPE), "{name}");
            }
        }
    }
}

fn the_mask_is_the_same_after_calls_that_work() {
    on_every_kernel(|| assert_mask_stays(&WRITES, false, Result::is_ok));
}

fn the_mask_is_the_same_after_calls_that_find_no_room() {
    on_every_kernel(|| {
        let calls: [Call<PipeWriter>; 3] = [
            ("try_write", |writer| writer.try_write(b"x").map(drop)),
            ("write_timeout, zero", |writer| writer.write_timeout(b"x", Duration::ZERO).map(drop)),
            ("write_timeout", |writer| writer.write_timeout(b"x", Duration::from_millis(1)).map(drop)),
        ];
        assert_mask_stays(&calls, true, |result| matches!(result, Err(Error::WouldBlock | Error::TimedOut)));
    });
}
