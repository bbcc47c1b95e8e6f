//! Older kernels, and sandboxes that refuse calls: what the crate promises holds there too, or the error names the call that
//! is missing; what a call took is given back, and nothing stays behind.
//!
//! Each kernel is played by a filter in front of this one (see `support::Kernel`), in a process of its own, once with
//! `SIGPIPE` ignored and once with it at its default.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use crate::support::{
    self, Is, Kernel, LIMIT, RWF_NOSIGNAL, RWF_NOWAIT, Sigpipe, Trial, WithoutProc, descriptor_flags, exit_code, fill,
    handle_signal, handled, judge, read_some, refused, sigpipe, spliced_once,
};
use ipc::{
    Command, DatagramFlags, DatagramPair, DatagramSocket, Error, FindingKind, Fork, PackedSocket, ProcessMap, Side,
    datagram_pair, datagram_pair_with, fork, holders, pipe, stream_pair,
};
use libc::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM};

/// The argument that makes this program say whether a descriptor is open, and do nothing else.
const IS_OPEN: &str = "is-open";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != IS_OPEN {
        return None;
    }
    let number = args.next().expect("a number").parse().expect("a number");
    // SAFETY: numbers; nothing is written to memory. It leaves at once, for a sanitizer would look into /proc first.
    unsafe {
        let flags = libc::fcntl(number, libc::F_GETFD);
        libc::_exit(i32::from(flags >= 0));
    }
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        this_kernel_keeps_every_promise,
        without_nosignal_nothing_is_different,
        without_nowait_nothing_is_different,
        without_either_nothing_is_different,
        without_reads_and_writes_with_flags_nothing_is_different,
        without_vmsplice_reading_goes_another_way,
        without_vmsplice_no_packet_is_lost,
        without_any_way_to_not_wait_only_calls_that_wait_work,
        without_pidfds_no_child_is_forked,
        without_waiting_by_pidfd_no_child_is_started,
        without_signals_by_pidfd_a_child_is_waited_for_all_the_same,
        without_seqpacket_the_error_says_so,
        without_its_option_no_socket_passes_for_one_that_tells_the_end,
        without_the_option_that_costs_nothing_another_one_marks_messages,
        a_sandbox_without_options_does_not_keep_ends_from_arriving,
        without_o_path_nothing_is_different,
        without_open_tree_nothing_is_different,
        without_an_inert_descriptor_nothing_is_forked,
        without_dup3_nothing_is_forked,
        without_unshare_nothing_is_different,
        without_a_death_signal_nothing_is_forked,
        without_newer_calls_nothing_is_different,
        without_netlink_the_other_side_is_unknown_and_the_rest_is_known,
        without_a_larger_pipe_the_error_says_so,
        without_madvise_nothing_is_different,
        without_memory_a_message_stays_where_it_is,
        without_memory_for_its_copy_a_message_is_an_error,
        without_proc_what_needs_it_says_so needs [HiddenProc],
        without_proc_and_unshare_nobody_knows_whether_a_fork_is_safe needs [HiddenProc],
    ]
}

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
fn keeps_all_but(kernel: &Kernel, but: &[(&str, &str, i32)]) {
    keep_all_but(kernel, || None, but);
}

#[track_caller]
fn keep_all_but(kernel: &Kernel, hide: fn() -> Option<WithoutProc>, but: &[(&str, &str, i32)]) {
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

fn messages(pair: DatagramPair) -> ipc::Result<()> {
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

fn this_kernel_keeps_every_promise() {
    keeps_all_but(&Kernel::new(), &[]);
}

/// Without a flag of `preadv2` and `pwritev2`.
fn without_flags(flags: u32, errno: i32) -> Kernel {
    let kernel = Kernel::new().with(libc::SYS_preadv2, 5, Is::AnyOf(flags), errno);
    kernel.with(libc::SYS_pwritev2, 5, Is::AnyOf(flags), errno)
}

fn without_nosignal_nothing_is_different() {
    for errno in [EOPNOTSUPP, EPERM] {
        keeps_all_but(&without_flags(RWF_NOSIGNAL, errno), &[]);
    }
}

fn without_nowait_nothing_is_different() {
    for errno in [EOPNOTSUPP, EPERM] {
        keeps_all_but(&without_flags(RWF_NOWAIT, errno), &[]);
    }
}

fn without_either_nothing_is_different() {
    keeps_all_but(&without_flags(RWF_NOSIGNAL | RWF_NOWAIT, EOPNOTSUPP), &[]);
}

/// What a kernel or a sandbox says that does not have a call.
const MISSING: [i32; 2] = [ENOSYS, EPERM];

fn without_reads_and_writes_with_flags_nothing_is_different() {
    for errno in MISSING {
        keeps_all_but(&Kernel::new().without(libc::SYS_preadv2, errno).without(libc::SYS_pwritev2, errno), &[]);
    }
}

fn without_vmsplice_reading_goes_another_way() {
    for errno in MISSING {
        keeps_all_but(&without_flags(RWF_NOWAIT, EOPNOTSUPP).without(libc::SYS_vmsplice, errno), &[]);
    }
}

/// Of a pipe of packets, as a writer makes one with `O_DIRECT`, the kernel gives one packet to each read.
fn without_vmsplice_no_packet_is_lost() {
    let verdict = judge(LIMIT, || {
        without_flags(RWF_NOWAIT, EOPNOTSUPP).without(libc::SYS_vmsplice, EPERM).play();
        let (reader, mut writer) = pipe().unwrap();
        // SAFETY: a descriptor that is open, and flags.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) }, 0);
        for packet in [&b"one"[..], &[b'-'; 4000], b"three"] {
            writer.write_all(packet).unwrap();
        }
        drop(writer);
        let mut read = Vec::new();
        let mut buf = [0; 8192];
        loop {
            match reader.try_read(&mut buf).unwrap() {
                0 => break,
                len => read.extend_from_slice(&buf[..len]),
            }
        }
        assert!(read == [b"one", &[b'-'; 4000][..], b"three"].concat(), "{} of 4008 bytes", read.len());
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

fn without_any_way_to_not_wait_only_calls_that_wait_work() {
    for errno in MISSING {
        let kernel = without_flags(RWF_NOWAIT, EOPNOTSUPP).without(libc::SYS_vmsplice, errno);
        keeps_all_but(
            &kernel.without(libc::SYS_splice, errno),
            &[
                ("try_read", "read", EOPNOTSUPP),
                ("try_write", "write", EOPNOTSUPP),
                ("output", "read", EOPNOTSUPP),
                ("splice", "splice", errno),
            ],
        );
        let verdict = judge(LIMIT, || {
            without_flags(RWF_NOWAIT, EOPNOTSUPP)
                .without(libc::SYS_vmsplice, errno)
                .without(libc::SYS_splice, errno)
                .play();
            let endless = Command::new("sh").args(["-c", "echo out; exec sleep 1000"]);
            assert_eq!(refused(endless.output()), ("read", EOPNOTSUPP));
            Ok(())
        });
        assert_eq!(verdict, Ok(()), "a program that cannot be listened to is not waited for either");
    }
}

/// All that fork, and how each is refused.
fn for_forks(call: &'static str, errno: i32) -> [(&'static str, &'static str, i32); 3] {
    ["fork", "kill", "threads"].map(|promise| (promise, call, errno))
}

/// All that start a process, and how each is refused.
fn starting(call: &'static str, errno: i32) -> [(&'static str, &'static str, i32); 5] {
    ["fork", "kill", "threads", "command", "output"].map(|promise| (promise, call, errno))
}

fn without_pidfds_no_child_is_forked() {
    for errno in MISSING {
        let kernel = Kernel::new().without(libc::SYS_pidfd_open, errno);
        keeps_all_but(&kernel, &for_forks("pidfd_open", errno));
        let verdict = judge(LIMIT, || {
            kernel.play();
            // Whatever is started ends, and is heard of.
            handle_signal(libc::SIGCHLD);
            assert_eq!(refused(fork((), |()| ()).map_err(Error::from)), ("pidfd_open", errno));
            assert_eq!(handled(), 0);
            // A program's comes with it.
            assert_eq!(exit_code(&Command::new("true").spawn().unwrap()), 0);
            Ok(())
        });
        assert_eq!(verdict, Ok(()));
    }
}

fn without_waiting_by_pidfd_no_child_is_started() {
    let by_pidfd = Is::Equal(libc::P_PIDFD);
    keeps_all_but(&Kernel::new().with(libc::SYS_waitid, 0, by_pidfd, EINVAL), &starting("waitid", EINVAL));
    keeps_all_but(&Kernel::new().without(libc::SYS_waitid, EPERM), &starting("waitid", EPERM));
}

fn without_signals_by_pidfd_a_child_is_waited_for_all_the_same() {
    for errno in MISSING {
        let kernel = Kernel::new().without(libc::SYS_pidfd_send_signal, errno);
        keeps_all_but(&kernel, &[("kill", "pidfd_send_signal", errno)]);
    }
}

fn without_seqpacket_the_error_says_so() {
    let seqpacket = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u32;
    for errno in [libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT] {
        let kernel = Kernel::new().with(libc::SYS_socketpair, 1, Is::Equal(seqpacket), errno);
        keeps_all_but(&kernel, &[("messages", "socketpair", errno), ("packed", "socketpair", errno)]);
    }
}

fn without_its_option_no_socket_passes_for_one_that_tells_the_end() {
    let option = |option: i32| [(1, Is::Equal(libc::SOL_SOCKET as u32)), (2, Is::Equal(option as u32))];
    for errno in [libc::ENOPROTOOPT, EPERM] {
        let kernel = [libc::SO_PASSCRED, libc::SO_TIMESTAMP, libc::SO_PASSSEC]
            .into_iter()
            .fold(Kernel::new(), |kernel, name| kernel.with_all(libc::SYS_setsockopt, &option(name), errno));
        let refuses = |promise| (promise, "setsockopt", errno);
        keeps_all_but(&kernel, &[refuses("messages"), refuses("connectionless"), refuses("packed")]);
        let verdict = judge(LIMIT, || {
            let pair = datagram_pair().unwrap();
            let (ours, theirs) = (OwnedFd::from(pair.parent), pair.child);
            kernel.play();
            let given_back = DatagramSocket::try_from(ours).unwrap_err();
            assert_eq!(refused(Err::<(), _>(given_back.error)), ("setsockopt", errno));
            assert!(matches!(theirs.try_recv(&mut [0]), Err(Error::WouldBlock)), "it is still open");
            Ok(())
        });
        assert_eq!(verdict, Ok(()));
    }
}

fn without_the_option_that_costs_nothing_another_one_marks_messages() {
    for errno in [libc::ENOPROTOOPT, libc::EOPNOTSUPP, EPERM] {
        let option = [(1, Is::Equal(libc::SOL_SOCKET as u32)), (2, Is::Equal(libc::SO_PASSSEC as u32))];
        keeps_all_but(&Kernel::new().with_all(libc::SYS_setsockopt, &option, errno), &[]);
    }
}

fn a_sandbox_without_options_does_not_keep_ends_from_arriving() {
    let kernel = Kernel::new().without(libc::SYS_setsockopt, EPERM);
    let verdict = judge(LIMIT, || {
        let pair = datagram_pair().unwrap();
        let (reader, _writer) = ipc::pipe().unwrap();
        kernel.play();
        let mut message = Vec::new();
        pair.parent.send_with(b"an end", reader).unwrap();
        assert_eq!(pair.child.recv_with(&mut message).unwrap().unwrap().len(), 1);
        pair.parent.send(b"").unwrap();
        assert_eq!(pair.child.recv_with(&mut message).unwrap().unwrap().len(), 0);
        pair.parent.send(b"the last").unwrap();
        drop(pair.parent);
        assert!(pair.child.recv_with(&mut message).unwrap().is_some());
        assert_eq!(message, b"the last");
        assert!(pair.child.recv_with(&mut message).unwrap().is_none());
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

/// Without descriptors that stand for a file and are not open for anything.
fn without_path_descriptors(kernel: Kernel, errno: i32) -> Kernel {
    kernel.with(libc::SYS_openat, 2, Is::AnyOf(libc::O_PATH as u32), errno)
}

fn without_o_path_nothing_is_different() {
    for errno in [EINVAL, EPERM] {
        keeps_all_but(&without_path_descriptors(Kernel::new(), errno), &[]);
    }
}

fn without_open_tree_nothing_is_different() {
    for errno in MISSING {
        keeps_all_but(&Kernel::new().without(libc::SYS_open_tree, errno), &[]);
        keeps_all_but(&Kernel::new().without(libc::SYS_eventfd2, errno), &[]);
    }
}

/// All that fork, and how each is refused.
fn forking_refused(call: &'static str, errno: i32) -> [(&'static str, &'static str, i32); 3] {
    ["fork", "kill", "threads"].map(|promise| (promise, call, errno))
}

fn without_an_inert_descriptor_nothing_is_forked() {
    for errno in MISSING {
        let kernel = without_path_descriptors(Kernel::new().without(libc::SYS_open_tree, errno), errno);
        keeps_all_but(&kernel, &forking_refused("open", errno));
    }
}

fn without_dup3_nothing_is_forked() {
    for errno in MISSING {
        keeps_all_but(&Kernel::new().without(libc::SYS_dup3, errno), &forking_refused("dup3", errno));
    }
}

fn without_unshare_nothing_is_different() {
    for errno in MISSING {
        keeps_all_but(&Kernel::new().without(libc::SYS_unshare, errno), &[]);
    }
}

fn without_a_death_signal_nothing_is_forked() {
    let verdict = judge(LIMIT, || {
        Kernel::new().with(libc::SYS_prctl, 0, Is::Equal(libc::PR_SET_PDEATHSIG as u32), EPERM).play();
        let (reader, writer) = pipe().unwrap();
        let given_back = Fork::new().die_with_parent().spawn(writer, |_| ()).unwrap_err();
        assert_eq!(refused(Err::<(), _>(given_back.error)), ("prctl", EPERM));
        given_back.ends.write_atomic(b"abc").unwrap();
        assert_eq!(read_some(&reader, 3), b"abc");
        assert_eq!(exit_code(&fork((), |()| ()).unwrap()), 0, "which needs none");
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

fn without_newer_calls_nothing_is_different() {
    let newer = [libc::SYS_clone3, libc::SYS_openat2, libc::SYS_close_range, libc::SYS_faccessat2];
    keeps_all_but(&newer.iter().fold(Kernel::new(), |kernel, call| kernel.without(*call, ENOSYS)), &[]);
    let by_a_sandbox = [libc::SYS_openat2, libc::SYS_close_range, libc::SYS_faccessat2];
    keeps_all_but(&by_a_sandbox.iter().fold(Kernel::new(), |kernel, call| kernel.without(*call, EPERM)), &[]);
}

fn without_netlink_the_other_side_is_unknown_and_the_rest_is_known() {
    for errno in [libc::EAFNOSUPPORT, EPERM] {
        let kernel = Kernel::new().with(libc::SYS_socket, 0, Is::Equal(libc::AF_NETLINK as u32), errno);
        keeps_all_but(&kernel, &[]);
        let verdict = judge(LIMIT, || {
            kernel.play();
            let pair = datagram_pair().unwrap();
            let found = holders(&pair.parent).unwrap();
            assert!(found.peer_unknown && found.to_string().contains("could not be found out"), "{found}");
            assert_eq!(found.list.iter().map(|holder| holder.side).collect::<Vec<_>>(), [Side::Own]);
            assert!(ProcessMap::current().unwrap().to_string().contains("sockets are left out"));
            Ok(())
        });
        assert_eq!(verdict, Ok(()));
    }
}

fn without_a_larger_pipe_the_error_says_so() {
    let kernel = Kernel::new().with(libc::SYS_fcntl, 1, Is::Equal(libc::F_SETPIPE_SZ as u32), EPERM);
    keeps_all_but(&kernel, &[("set_capacity", "fcntl", EPERM)]);
}

fn without_madvise_nothing_is_different() {
    for errno in [EINVAL, EPERM] {
        keeps_all_but(&Kernel::new().without(libc::SYS_madvise, errno), &[]);
    }
}

fn without_memory_a_message_stays_where_it_is() {
    let verdict = judge(LIMIT, || {
        let pair = datagram_pair().unwrap();
        pair.child.send(b"abc").unwrap();
        let reserved = Is::AnyOf(libc::MAP_NORESERVE as u32);
        Kernel::new().with(libc::SYS_mmap, 3, reserved, libc::ENOMEM).play();
        assert_eq!(refused(pair.parent.recv(&mut [0; 8])), ("mmap", libc::ENOMEM));
        assert_eq!(refused(pair.parent.recv_vec()), ("mmap", libc::ENOMEM));
        assert_eq!(pair.parent.peek_len().unwrap(), Some(3));
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

fn without_memory_for_its_copy_a_message_is_an_error() {
    let verdict = judge(LIMIT, || {
        let pair = datagram_pair().unwrap();
        let long = vec![1; 200_000];
        pair.child.send(b"abc").unwrap();
        assert_eq!(pair.parent.recv_vec().unwrap().unwrap(), b"abc");
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        // SAFETY: no conditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        type Receive = fn(&DatagramSocket) -> ipc::Result<Option<usize>>;
        let receives: [Receive; 3] = [
            |socket| Ok(socket.recv_vec()?.map(|message| message.len())),
            |socket| Ok(socket.recv_with(&mut Vec::new())?.map(|received| received.message_len())),
            |socket| socket.recv(&mut [0; 64]),
        ];
        for receive in receives {
            pair.child.send(&long).unwrap();
            pair.child.send(b"abc").unwrap();
            support::limit(libc::RLIMIT_AS, |_| (pages * page) as _);
            let received = receive(&pair.parent);
            support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
            assert_eq!(refused(received), ("malloc", libc::ENOMEM));
            assert_eq!(pair.parent.recv_vec().unwrap().unwrap(), b"abc");
        }
        Ok(())
    });
    assert_eq!(verdict, Ok(()));
}

/// What was given is told by the environment of the moment then.
const WITHOUT_PROC: [(&str, &str, i32); 2] = [("holders", "readlink", libc::ENOENT), ("map", "readlink", libc::ENOENT)];

fn hidden_proc() -> Option<WithoutProc> {
    Some(WithoutProc::new().expect("/proc can be hidden"))
}

fn without_proc_what_needs_it_says_so() {
    keep_all_but(&Kernel::new(), hidden_proc, &WITHOUT_PROC);
}

fn without_proc_and_unshare_nobody_knows_whether_a_fork_is_safe() {
    for errno in MISSING {
        let but = [&WITHOUT_PROC[..], &forking_refused("unshare", errno)].concat();
        keep_all_but(&Kernel::new().without(libc::SYS_unshare, errno), hidden_proc, &but);
    }
}
