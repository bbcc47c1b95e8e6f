//! Older kernels, and sandboxes that refuse calls: what the crate promises holds there too, or the error names the call that
//! is missing; what a call took is given back, and nothing stays behind.
//!
//! Each kernel is played by a filter in front of this one (see `support::Kernel`), in a process of its own, once with
//! `SIGPIPE` ignored and once with it at its default.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use super::promises::{keep_all_but, keeps_all_but};
use crate::support::{
    self, Is, Kernel, LIMIT, RWF_NOSIGNAL, RWF_NOWAIT, Trial, WithoutProc, exit_code, handle_signal, handled, judge,
    read_some, refused,
};
use ipc::{Command, DatagramSocket, Error, Fork, ProcessMap, Side, datagram_pair, fork, holders, pipe};
use libc::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM};

/// The argument that makes this program say whether a descriptor is open, and do nothing else.
pub(super) const IS_OPEN: &str = "is-open";

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
            |socket| {
                let mut message = b"before".to_vec();
                let received = socket.recv_with(&mut message);
                assert!(received.is_ok() || message == b"before", "{} bytes", message.len());
                Ok(received?.map(|received| received.message_len()))
            },
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
