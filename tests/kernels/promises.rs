//! The promises that hold on every kernel, each as a function whose error is one of the crate: whatever else is wrong panics.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::old_kernels::IS_OPEN;
use crate::support::{
    Kernel, LIMIT, Sigpipe, WithoutProc, descriptor_flags, exit_code, fill, judge, read_some, sigpipe, spliced_once,
};
use ipc::{
    Command, DatagramFlags, DatagramPair, Error, FindingKind, PackedSocket, ProcessMap, Side, datagram_pair,
    datagram_pair_with, fork, holders, pipe, stream_pair,
};

type Promise = (&'static str, fn() -> ipc::Result<()>);

/// What must hold. An error is one of the crate; whatever else is wrong panics.
const PROMISES: &[Promise] = &[
    ("read", reading),
    ("try_read", reading_without_waiting),
    ("write", writing),
    ("try_write", writing_without_waiting),
    ("splice", splicing),
    ("copy", copying),
    ("set_capacity", a_larger_pipe),
    ("messages", || messages(datagram_pair()?)),
    ("connectionless", || messages_without_an_end(datagram_pair_with(DatagramFlags::CONNECTIONLESS)?)),
    ("packed", packed_messages),
    ("ends in a message", ends_in_a_message),
    ("stream", a_stream),
    ("fork", forking),
    ("kill", killing),
    ("threads", forking_with_threads),
    ("command", starting_a_program),
    ("output", the_output_of_a_program),
    ("holders", naming_holders),
    ("map", drawing_a_map),
    ("given", asking_what_was_given),
];

/// Keeps every promise but those that are named, which say that this call failed with that errno.
#[track_caller]
pub(super) fn keeps_all_but(kernel: &Kernel, but: &[(&str, &str, i32)]) {
    keep_all_but(kernel, || None, but);
}

#[track_caller]
pub(super) fn keep_all_but(kernel: &Kernel, hide: fn() -> Option<WithoutProc>, but: &[(&str, &str, i32)]) {
    let unknown = but.iter().find(|(name, ..)| !PROMISES.iter().any(|(promise, _)| promise == name));
    assert!(unknown.is_none(), "{unknown:?} is no promise");
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        let verdict = judge(LIMIT, || {
            sigpipe(disposition);
            let _hidden = hide();
            kernel.play();
            for (name, promise) in PROMISES {
                let expected = but.iter().find(|(promise, ..)| promise == name);
                match (promise(), expected) {
                    (Ok(()), None) => {}
                    (Err(Error::System { call, source }), Some((_, expected_call, errno)))
                        if call == *expected_call && source.raw_os_error() == Some(*errno) => {}
                    (found, expected) => panic!("{name}: {found:?}, and not {expected:?}"),
                }
                assert_eq!(ipc::open_ends(), 0, "{name}");
            }
            Ok(())
        });
        if let Err(wrong) = verdict {
            panic!("{kernel:?}, {disposition:?}: {wrong}");
        }
    }
}

/// Some time, for what is to time out.
const SHORT: Duration = Duration::from_millis(2);

fn reading() -> ipc::Result<()> {
    let (mut reader, mut writer) = pipe()?;
    writer.write_all(b"abc")?;
    let mut buf = [0; 8];
    assert_eq!(reader.read(&mut buf)?, 3);
    drop(writer);
    assert_eq!(reader.read(&mut buf)?, 0);
    Ok(())
}

fn reading_without_waiting() -> ipc::Result<()> {
    for spliced in [false, true] {
        let (reader, writer) = pipe()?;
        if spliced {
            spliced_once(&writer);
        }
        let mut buf = [0; 4];
        match reader.try_read(&mut buf) {
            Err(Error::WouldBlock) => {}
            other => return other.map(|len| panic!("{len} bytes of an empty pipe")),
        }
        assert!(matches!(reader.read_timeout(&mut buf, SHORT), Err(Error::TimedOut)));
        writer.write_atomic(b"abcdef")?;
        assert_eq!((reader.try_read(&mut buf)?, &buf), (4, b"abcd"));
        assert_eq!(reader.read_timeout(&mut buf, SHORT)?, 2);
        fill(&writer);
        let queued = reader.available()?;
        let mut large = vec![0; 2 * queued];
        let mut read = 0;
        while read < queued {
            read += reader.try_read(&mut large[read..])?;
        }
        assert!(large[..queued].iter().all(|byte| *byte == 1) && large[queued..].iter().all(|byte| *byte == 0));
        drop(writer);
        assert_eq!(reader.try_read(&mut buf)?, 0);
        assert_eq!(reader.read_timeout(&mut buf, Duration::MAX)?, 0);
    }
    Ok(())
}

fn writing() -> ipc::Result<()> {
    let (reader, mut writer) = pipe()?;
    writer.write_all(&[7; 10_000])?;
    writer.write_atomic(b"abc")?;
    assert_eq!(read_some(&reader, 10_003)[9_999..], *b"\x07abc");
    drop(reader);
    for _ in 0..2 {
        let broken = writer.write(b"x").unwrap_err();
        if broken.kind() != std::io::ErrorKind::BrokenPipe {
            return Err(broken.into());
        }
        assert!(matches!(writer.write_atomic(b"x"), Err(Error::Closed)));
    }
    assert!(writer.is_closed()?);
    Ok(())
}

fn writing_without_waiting() -> ipc::Result<()> {
    for spliced in [false, true] {
        let (reader, writer) = pipe()?;
        if spliced {
            spliced_once(&reader);
        }
        assert_eq!(writer.try_write(b"abc")?, 3);
        let queued = 3 + fill(&writer);
        assert!(matches!(writer.try_write(b"x"), Err(Error::WouldBlock)));
        assert!(matches!(writer.write_timeout(b"x", SHORT), Err(Error::TimedOut)));
        assert_eq!(reader.available()?, queued);
        drop(reader);
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
        assert!(matches!(writer.write_timeout(b"x", Duration::MAX), Err(Error::Closed)));
    }
    Ok(())
}

fn splicing() -> ipc::Result<()> {
    let ((first, writer), (reader, second)) = (pipe()?, pipe()?);
    writer.write_atomic(b"abc")?;
    assert_eq!(first.splice_to(&second, 100)?, 3);
    assert_eq!(read_some(&reader, 3), b"abc");
    drop(reader);
    writer.write_atomic(b"abc")?;
    assert!(matches!(first.splice_to(&second, 100), Err(Error::Closed)));
    Ok(())
}

fn copying() -> ipc::Result<()> {
    let ((reader, mut writer), (mut copied, to)) = (pipe()?, pipe()?);
    writer.write_all(b"abc")?;
    drop(writer);
    assert_eq!(ipc::copy(&reader, &to)?, 3);
    drop(to);
    let mut text = String::new();
    copied.read_to_string(&mut text)?;
    assert_eq!(text, "abc");
    Ok(())
}

fn a_larger_pipe() -> ipc::Result<()> {
    let (_reader, writer) = pipe()?;
    assert_eq!(writer.set_capacity(5000)?, 8192);
    Ok(())
}

pub(super) fn messages(pair: DatagramPair) -> ipc::Result<()> {
    let DatagramPair { parent, child } = pair;
    let mut buf = [0; 4];
    assert!(matches!(parent.try_recv(&mut buf), Err(Error::WouldBlock)));
    assert!(matches!(parent.recv_timeout(&mut buf, SHORT), Err(Error::TimedOut)));
    for message in [&b"too long"[..], b"", b"abc", b""] {
        child.send(message)?;
    }
    assert!(matches!(parent.recv(&mut buf), Err(Error::BufferTooSmall { message }) if message == b"too long"));
    assert_eq!(parent.recv(&mut buf)?, Some(0));
    assert_eq!((parent.peek_len()?, parent.recv_vec()?), (Some(3), Some(b"abc".to_vec())));
    // Large enough for its memory to be given back, where this user may send that.
    let large = vec![7; child.set_max_message(1 << 20)?];
    child.send(&large)?;
    drop(child);
    assert_eq!(parent.recv(&mut buf)?, Some(0));
    assert!(matches!(parent.recv(&mut buf), Err(Error::BufferTooSmall { message }) if message == large));
    assert_eq!(parent.recv(&mut buf)?, None, "and now it is the end");
    assert!(matches!(parent.send(b"x"), Err(Error::Closed)));
    Ok(())
}

fn messages_without_an_end(pair: DatagramPair) -> ipc::Result<()> {
    let mut buf = [0; 4];
    assert!(matches!(pair.parent.recv_timeout(&mut buf, SHORT), Err(Error::TimedOut)));
    pair.child.send(b"")?;
    pair.child.send(b"abc")?;
    assert_eq!((pair.parent.recv(&mut buf)?, pair.parent.recv(&mut buf)?), (Some(0), Some(3)));
    drop(pair.child);
    assert!(matches!(pair.parent.send(b"x"), Err(Error::Closed)));
    Ok(())
}

fn packed_messages() -> ipc::Result<()> {
    let pair = datagram_pair()?;
    let (mut sender, mut receiver) = (PackedSocket::new(pair.child), PackedSocket::new(pair.parent));
    for message in ["abc", "", "de"] {
        sender.send(message.as_bytes())?;
    }
    sender.flush()?;
    for message in ["abc", "", "de"] {
        assert_eq!(receiver.try_recv()?, Some(message.as_bytes()));
    }
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    drop(sender);
    assert_eq!(receiver.try_recv()?, None);
    Ok(())
}

fn ends_in_a_message() -> ipc::Result<()> {
    let (reader, writer) = pipe()?;
    let pair = stream_pair()?;
    pair.child.send_with(b"with a writer", writer)?;
    let (len, mut received) = pair.parent.recv_with(&mut [0; 32])?;
    assert_eq!((len, received.len()), (13, 1));
    let writer: ipc::PipeWriter = received.take()?;
    assert_eq!(descriptor_flags(&writer), libc::FD_CLOEXEC);
    writer.write_atomic(b"abc")?;
    assert_eq!(read_some(&reader, 3), b"abc");
    Ok(())
}

fn a_stream() -> ipc::Result<()> {
    let mut pair = stream_pair()?;
    assert!(matches!(pair.parent.read_timeout(&mut [0], SHORT), Err(Error::TimedOut)));
    pair.child.write_all(b"abc")?;
    drop(pair.child);
    let mut text = String::new();
    pair.parent.read_to_string(&mut text)?;
    assert_eq!(text, "abc");
    assert!(matches!(pair.parent.try_write(b"x"), Err(Error::Closed)));
    Ok(())
}

fn forking() -> ipc::Result<()> {
    let (mut reader, writer) = pipe()?;
    let (other, held) = pipe()?;
    let forked = fork(writer, |mut writer| {
        writer.write_all(b"abc").unwrap();
        // What was not given is no way back to the pipe, nor to anything else.
        assert!(matches!(held.write_atomic(b"x"), Err(Error::NotGiven)));
        assert!(matches!(held.try_clone(), Err(Error::NotGiven)));
        let number = held.as_raw_fd();
        // SAFETY: numbers, and a nul-terminated string.
        let opened = unsafe { [libc::fchdir(number), libc::openat(number, c"..".as_ptr(), libc::O_RDONLY)] };
        assert_eq!(opened, [-1, -1]);
        assert_eq!(descriptor_flags(&held), libc::FD_CLOEXEC);
    });
    let child = match forked {
        Ok(child) => child,
        Err(refused) => {
            assert!(matches!(other.try_read(&mut [0]), Err(Error::WouldBlock | Error::System { .. })));
            refused.ends.write_atomic(b"still open")?;
            assert_eq!(read_some(&reader, 10), b"still open", "and nobody else has written");
            return Err(refused.error);
        }
    };
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    assert_eq!(text, "abc");
    assert_eq!(exit_code(&child), 0);
    assert_eq!(child.wait()?.code(), Some(0), "again");
    drop(held);
    assert_eq!(std::io::Read::read(&mut &other, &mut [0])?, 0);
    Ok(())
}

fn killing() -> ipc::Result<()> {
    let (reader, writer) = pipe()?;
    let child = fork(reader, |mut reader| reader.read(&mut [0]).map(drop))?;
    assert!(child.wait_timeout(SHORT)?.is_none());
    let killed = child.kill();
    drop(writer);
    let status = child.wait()?;
    killed?;
    assert!(status.code().is_none(), "{status}");
    Ok(())
}

fn forking_with_threads() -> ipc::Result<()> {
    let (reader, writer) = pipe()?;
    let thread = std::thread::spawn(move || (&reader).read(&mut [0]).unwrap());
    let (_, other) = pipe()?;
    let refused = fork(other, |_| ()).unwrap_err();
    drop(writer);
    thread.join().unwrap();
    match refused.error {
        Error::MultiThreaded { threads: 2 } => fork((), |()| ())?.wait().map(|status| assert!(status.success())),
        error => Err(error),
    }
}

fn starting_a_program() -> ipc::Result<()> {
    let program =
        || Command::new(std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap().into()));
    let (mut reader, writer) = pipe()?;
    let number = writer.as_raw_fd().to_string();
    let is_open = |command: Command| match command.spawn() {
        Ok(child) => Ok(exit_code(&child) == 1),
        Err(refused) => {
            assert!(!format!("{:?}", refused.command).is_empty());
            Err(refused.error)
        }
    };
    assert!(!is_open(program().args([IS_OPEN, &number]))?, "it was not given");
    assert!(is_open(program().args([IS_OPEN, &number]).give("end", writer))?, "it was given");
    assert_eq!(reader.read(&mut [0])?, 0);
    Ok(())
}

fn the_output_of_a_program() -> ipc::Result<()> {
    let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output()?;
    assert_eq!((&output.stdout[..], &output.stderr[..], output.status.code()), (&b"out\n"[..], &b"err\n"[..], Some(3)));
    Ok(())
}

fn naming_holders() -> ipc::Result<()> {
    let (reader, _writer) = pipe()?;
    let found = holders(&reader)?;
    let sides: Vec<_> = found.list.iter().map(|holder| (holder.is_self, holder.side)).collect();
    assert_eq!(sides, [(true, Side::Read), (true, Side::Write)]);
    Ok(())
}

fn drawing_a_map() -> ipc::Result<()> {
    use std::os::linux::fs::MetadataExt;
    let (reader, _writer) = pipe()?;
    let pipe = std::fs::File::from(OwnedFd::from(reader.try_clone()?)).metadata()?.st_ino();
    let map = ProcessMap::current()?;
    let found: Vec<_> = map
        .findings()
        .iter()
        .filter(|finding| !finding.pair && finding.inode == pipe)
        .map(|finding| finding.what)
        .collect();
    assert_eq!(found, [FindingKind::OnlyItself]);
    Ok(())
}

fn asking_what_was_given() -> ipc::Result<()> {
    assert!(ipc::claimable()?.is_empty());
    assert!(matches!(ipc::claim::<OwnedFd>("results"), Err(Error::NoSuchEnd { .. })));
    Ok(())
}
