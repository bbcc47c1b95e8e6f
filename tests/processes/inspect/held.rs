//! When it hangs all the same, you can see why (P10): who holds an end, against what `lsof` says of the same processes.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::support::{
    self, Gate, Is, Kernel, Trial, asleep_in, exit_code, is_root, poll_until, process_state, refuse_calls, refused,
};
use ipc::{Command, Error, Fork, ProcessMap, Side, Stdio, datagram_pair, fork, holders, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        both_ends_of_a_pipe_are_found_in_each_process,
        a_forgotten_writer_is_named,
        both_sides_of_a_pair_are_found,
        a_peer_that_is_gone_is_nobody,
        a_side_that_is_under_way_is_out_of_sight,
        a_fifo_that_is_open_both_ways_is_both,
        what_is_open_for_nothing_holds_nothing,
        what_is_no_channel_is_refused,
        a_severed_end_is_refused,
        processes_that_may_not_be_looked_into_are_counted,
        processes_that_show_their_number_alone_are_counted needs [OwnMounts],
        what_holds_nothing_is_not_counted needs [Alone],
        a_process_whose_first_thread_has_gone_holds_what_it_holds,
        a_thread_with_a_table_of_its_own_is_seen,
        in_another_pid_namespace_the_numbers_say_so needs [OwnPids],
        a_full_table_is_not_taken_for_a_side_that_is_unknown,
        the_kernel_is_not_asked_over_a_standard_descriptor,
        processes_that_come_and_go_are_no_error,
        a_pipeline_of_programs_is_seen_as_lsof_sees_it needs [LSOF] within 60,
        a_tree_of_workers_is_seen_as_lsof_sees_it needs [LSOF] within 60,
        a_name_commands_no_terminal,
    ]
}

fn me() -> u32 {
    std::process::id()
}

/// Process, number and side of each.
fn seen(end: &impl AsFd) -> BTreeSet<(u32, i32, String)> {
    let found = holders(end).unwrap();
    assert!(found.unseen == 0 || !is_root(), "root sees everything");
    found.list.iter().map(|holder| (holder.pid, holder.fd, format!("{:?}", holder.side))).collect()
}

fn both_ends_of_a_pipe_are_found_in_each_process() {
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let arrived = Gate::new();
    let (me, number) = (std::process::id(), writer.as_raw_fd());
    let child = fork(writer, |_writer| {
        arrived.open();
        gate.pass();
    })
    .unwrap();
    // Before it comes there, it may still hold what it is not given.
    arrived.pass();
    let expected = [(me, reader.as_raw_fd(), "Read".to_owned()), (child.id(), number, "Write".to_owned())];
    assert_eq!(seen(&reader), BTreeSet::from(expected));
    let found = holders(&reader).unwrap();
    assert!(found.list.iter().all(|holder| holder.is_self == (holder.pid == me)));
    assert!(found.list.iter().all(|holder| holder.command.starts_with("processes")), "{found}");
    assert!(found.to_string().contains("(this process)"));
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_forgotten_writer_is_named() {
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let culprit = Fork::new().keep_all_ends().spawn((), |()| gate.pass()).unwrap();
    drop(writer);
    let found = holders(&reader).unwrap();
    let writers: Vec<_> = found.list.iter().filter(|holder| holder.side == Side::Write).collect();
    assert_eq!(writers.len(), 1);
    assert_eq!(writers[0].pid, culprit.id());
    gate.open();
    assert_eq!(exit_code(&culprit), 0);
    assert_eq!(seen(&reader).len(), 1);
}

fn both_sides_of_a_pair_are_found() {
    let pair = datagram_pair().unwrap();
    let stream = stream_pair().unwrap();
    let gate = Gate::new();
    let me = std::process::id();
    let numbers = (pair.child.as_raw_fd(), stream.child.as_raw_fd());
    let arrived = Gate::new();
    let child = fork((pair.child, stream.child), |_ends| {
        arrived.open();
        gate.pass();
    })
    .unwrap();
    arrived.pass();
    for (parent, number) in [(pair.parent.as_fd(), numbers.0), (stream.parent.as_fd(), numbers.1)] {
        let expected = [(me, parent.as_raw_fd(), "Own".to_owned()), (child.id(), number, "Peer".to_owned())];
        assert_eq!(seen(&parent), BTreeSet::from(expected));
        assert!(!holders(&parent).unwrap().peer_unknown);
    }
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_peer_that_is_gone_is_nobody() {
    let pair = datagram_pair().unwrap();
    drop(pair.child);
    assert_eq!(seen(&pair.parent).len(), 1);
    assert!(!holders(&pair.parent).unwrap().peer_unknown);
    // The kernel does not know sockets of other families as unix sockets.
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let found = holders(&udp).unwrap();
    assert!(found.peer_unknown);
    assert_eq!(found.list.len(), 1);
    assert!(found.to_string().contains("the other side could not be found out"));
}

fn a_side_that_is_under_way_is_out_of_sight() {
    let carrier = datagram_pair().unwrap();
    let ((reader, writer), (kept, sent), pair) = (pipe().unwrap(), pipe().unwrap(), datagram_pair().unwrap());
    let out_of_sight = || {
        let of = |end: &dyn AsFd| holders(&end.as_fd()).unwrap();
        let all = [of(&reader), of(&sent), of(&pair.parent)];
        for found in &all {
            let said = found.to_string().contains("under way in a message");
            assert_eq!(said, found.out_of_sight, "{found}");
        }
        all.map(|found| found.out_of_sight)
    };
    assert_eq!(out_of_sight(), [false; 3]);
    carrier.parent.send_with(b"", (writer, kept, pair.child)).unwrap();
    assert_eq!(out_of_sight(), [true; 3]);
    let received = carrier.child.recv_with(&mut Vec::new()).unwrap().expect("a message");
    assert_eq!(out_of_sight(), [false; 3]);
    // What is closed is in no one's sight either.
    drop(received);
    assert_eq!(out_of_sight(), [false; 3]);
}

fn a_fifo_that_is_open_both_ways_is_both() {
    let (reader, _writer) = support::named_fifo();
    let both = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
    let found = seen(&reader);
    assert_eq!(found.len(), 3);
    assert!(found.contains(&(std::process::id(), both.as_raw_fd(), "Both".to_owned())));
}

/// A descriptor of the pipe that keeps no stream open (`O_PATH`).
fn what_is_open_for_nothing_holds_nothing() {
    let (reader, writer) = pipe().unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let nothing = File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap();
    drop(writer);
    for found in [holders(&reader).unwrap(), holders(&nothing).unwrap()] {
        assert_eq!((found.list.len(), found.out_of_sight), (1, false), "{found}");
    }
}

fn what_is_no_channel_is_refused() {
    let file = File::open("/dev/null").unwrap();
    assert!(matches!(holders(&file), Err(Error::WrongKind { found: "a character device", .. })));
}

fn a_severed_end_is_refused() {
    let (reader, _writer) = pipe().unwrap();
    let child = fork((), |()| assert!(matches!(holders(&reader), Err(Error::NotGiven)))).unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn processes_that_may_not_be_looked_into_are_counted() {
    let (reader, writer) = pipe().unwrap();
    let severed = Gate::new();
    let child = fork((reader, writer), |(reader, _writer)| {
        if is_root() {
            // SAFETY: numbers only. This process is nobody from here on, and this test's own process is root's.
            unsafe {
                libc::setgid(65_534);
                assert_eq!(libc::setuid(65_534), 0);
                // A process that changed its user may not be looked into by itself either, unless it says so.
                libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            }
        }
        // Until then the parent holds them too, and where nobody is root it may be looked into.
        severed.pass();
        let found = holders(&reader).unwrap();
        assert!(found.unseen > 0);
        assert_eq!(found.list.len(), 2);
        assert!(found.to_string().contains("could not be looked into"));
    })
    .unwrap();
    severed.open();
    assert_eq!(exit_code(&child), 0);
}

/// As `/proc` is for an ordinary user where it is mounted with `hidepid=1`.
fn processes_that_show_their_number_alone_are_counted() {
    let (reader, writer) = pipe().unwrap();
    assert!(support::own_mounts());
    let (proc, hidden) = (c"proc".as_ptr(), c"hidepid=1".as_ptr().cast());
    // SAFETY: nul-terminated strings.
    assert_eq!(unsafe { libc::mount(proc, c"/proc".as_ptr(), proc, 0, hidden) }, 0);
    let child = fork((reader, writer), |(reader, _writer)| {
        support::become_nobody();
        // SAFETY: integers. A process that changed its user may not be looked into by itself either, unless it says so.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        assert_eq!(std::fs::read("/proc/1/stat").unwrap_err().kind(), ErrorKind::PermissionDenied);
        let found = holders(&reader).unwrap();
        assert!(found.unseen > 0 && found.list.iter().all(|holder| holder.is_self), "{found}");
        let map = ProcessMap::current().unwrap();
        assert!(map.unseen() > 0 && map.to_string().contains("EOF never comes"), "{map}");
        let other = ProcessMap::of(1).unwrap().to_string();
        assert!(other.starts_with("1 ?  (could not be looked into)\n"), "{other}");
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// Threads of the kernel, and processes that nobody has waited for yet, let nobody look.
fn what_holds_nothing_is_not_counted() {
    let (reader, writer) = pipe().unwrap();
    let ended = fork((), |()| ()).unwrap();
    poll_until("it has ended", || process_state(ended.id()) == Some('Z'));
    let child = fork((reader, writer), |(reader, _writer)| {
        if is_root() {
            support::become_nobody();
        }
        let refused = |pid: &u32| {
            let looked = std::fs::read_dir(format!("/proc/{pid}/fd"));
            looked.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        // Number 2 and its children, where they are to be seen.
        let kernels = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n")
                && (*pid == 2 || parent == Some("2"))
        };
        assert!(refused(&ended.id()));
        let count = || {
            let names =
                std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names
                .filter_map(|name| name.parse().ok())
                .filter(|pid| refused(pid) && !kernels(pid) && process_state(*pid) != Some('Z'))
                .count()
        };
        // Other processes come and go meanwhile.
        poll_until("as many as there are", || holders(&reader).unwrap().unseen == count());
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// A process holds what it holds until its last thread has gone.
fn a_process_whose_first_thread_has_gone_holds_what_it_holds() {
    let (reader, writer) = pipe().unwrap();
    let number = writer.as_raw_fd();
    let gate = Gate::new();
    let child = fork(writer, |_writer| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.pass();
                // SAFETY: no conditions.
                unsafe { libc::_exit(0) }
            });
            // SAFETY: the thread ends here, and everything stays as it is.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
    })
    .unwrap();
    poll_until("its first thread has gone", || process_state(child.id()) == Some('Z'));
    let expected = [(me(), reader.as_raw_fd(), "Read".to_owned()), (child.id(), number, "Write".to_owned())];
    assert_eq!(seen(&reader), BTreeSet::from(expected));
    let map = ProcessMap::current().unwrap().to_string();
    assert!(map.contains(&format!("← {} fd {number}\n", child.id())), "{map}");
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_thread_with_a_table_of_its_own_is_seen() {
    let (reader, writer) = pipe().unwrap();
    let (gate, arrived) = (Gate::new(), Gate::new());
    let number = reader.as_raw_fd();
    let child = fork(reader, |reader| {
        let own = Gate::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: an integer.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
                own.open();
                gate.pass();
                // SAFETY: no conditions.
                unsafe { libc::_exit(0) }
            });
            own.pass();
            // Here it is closed, and in the table of the other thread it is not.
            drop(reader);
            arrived.open();
        });
    })
    .unwrap();
    arrived.pass();
    let expected =
        BTreeSet::from([(me(), writer.as_raw_fd(), "Write".to_owned()), (child.id(), number, "Read".to_owned())]);
    assert_eq!(seen(&writer), expected);
    let found = |map: ProcessMap| map.findings().iter().filter(|found| found.inode == inode(&writer)).count();
    assert_eq!(found(ProcessMap::current().unwrap()), 0, "somebody reads it");
    // Also where the kernel does not say which threads have one table.
    let looks = fork(writer.as_fd(), |writer| {
        refuse_calls(&[libc::SYS_kcmp], libc::EPERM);
        assert!(holders(&writer).unwrap().list.iter().any(|holder| (holder.fd, holder.side) == (number, Side::Read)));
    });
    assert_eq!(exit_code(&looks.unwrap()), 0);
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn in_another_pid_namespace_the_numbers_say_so() {
    let (reader, writer) = pipe().unwrap();
    assert!(!holders(&reader).unwrap().other_namespace);
    let child = fork((reader, writer), |(reader, _writer)| {
        assert!(support::own_pids());
        let first = fork(reader, |reader| {
            assert_eq!(me(), 1);
            let (gate, arrived) = (Gate::new(), Gate::new());
            let second = fork(reader.as_fd(), |_reader| {
                // SAFETY: a nul-terminated name.
                unsafe { libc::prctl(libc::PR_SET_NAME, c"second".as_ptr(), 0, 0, 0) };
                arrived.open();
                gate.pass();
            })
            .unwrap();
            arrived.pass();
            let found = holders(&reader).unwrap();
            assert!(found.other_namespace && found.to_string().contains("another pid namespace"), "{found}");
            assert_eq!(found.list.iter().filter(|holder| holder.is_self).count(), 1, "{found}");
            let map = ProcessMap::of(second.id()).unwrap().to_string();
            assert!(map.lines().next().unwrap().ends_with(" second"), "{map}");
            assert!(map.contains("another pid namespace"), "{map}");
            let map = ProcessMap::of(me()).unwrap().to_string();
            assert!(map.contains(" second\n"), "{map}");
            let missing = ProcessMap::of(77).unwrap_err();
            assert_eq!(refused(Err::<(), _>(missing)), ("open", libc::ESRCH));
            gate.open();
            assert_eq!(exit_code(&second), 0);
        });
        assert_eq!(exit_code(&first.unwrap()), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_full_table_is_not_taken_for_a_side_that_is_unknown() {
    let pair = datagram_pair().unwrap();
    for errno in [libc::EMFILE, libc::ENFILE] {
        let child = fork(pair.parent.as_fd(), |socket| {
            // There is room again a moment later.
            refuse_calls(&[libc::SYS_socket], errno);
            assert_eq!(refused(holders(&socket)), ("socket", errno));
            assert_eq!(refused(ProcessMap::current()), ("socket", errno));
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

/// Or what another thread prints meanwhile would be a question too.
fn the_kernel_is_not_asked_over_a_standard_descriptor() {
    let pair = datagram_pair().unwrap();
    support::closed_standard_descriptors(|| {
        let sends = |kernel: Kernel, number| kernel.with(libc::SYS_sendto, 0, Is::Equal(number), libc::EIO);
        (0..=2).fold(Kernel::new(), sends).play();
        assert!(!holders(&pair.parent).unwrap().peer_unknown);
    });
}

fn processes_that_come_and_go_are_no_error() {
    let (reader, writer) = pipe().unwrap();
    let (me, numbers) = (std::process::id(), [reader.as_raw_fd(), writer.as_raw_fd()]);
    let gate = Gate::new();
    let busy = fork((), |()| -> ipc::Result<()> {
        while !gate.is_open() {
            // With ends of their own, and gone at any moment.
            let (ours, theirs) = pipe()?;
            let child = Fork::new().keep_all_ends().spawn(theirs, drop)?;
            drop(ours);
            child.wait()?;
        }
        Ok(())
    })
    .unwrap();
    poll_until("it starts processes", || ProcessMap::of(busy.id()).unwrap().to_string().contains("└─"));
    for _ in 0..support::rounds(5) {
        assert!(
            holders(&reader).unwrap().list.iter().filter(|holder| holder.pid == me).map(|holder| holder.fd).eq(numbers)
        );
        ProcessMap::of(busy.id()).unwrap();
    }
    gate.open();
    assert_eq!(exit_code(&busy), 0);
}

/// What `lsof` says of the pipes and unix sockets of these processes: process, number, and how it is open.
fn lsof(pids: &[u32], inode: u64) -> BTreeSet<(u32, i32, String)> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let output = Command::new("lsof").args(["-n", "-P", "-w", "-F", "pfai", "-a", "-p", &list]).output().unwrap();
    let mut found = BTreeSet::new();
    let (mut pid, mut fd, mut access) = (0, String::new(), String::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (field, value) = line.split_at(1);
        match field {
            "p" => pid = value.parse().unwrap(),
            "f" => fd = value.to_owned(),
            "a" => access = value.to_owned(),
            "i" if value.parse() == Ok(inode) => {
                let side = if access == "r" { "Read" } else { "Write" };
                found.insert((pid, fd.parse().unwrap(), side.to_owned()));
            }
            _ => {}
        }
    }
    found
}

fn inode(end: &impl AsFd) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", end.as_fd().as_raw_fd())).unwrap();
    let link = link.to_str().unwrap();
    link[link.find('[').unwrap() + 1..link.len() - 1].parse().unwrap()
}

fn a_pipeline_of_programs_is_seen_as_lsof_sees_it() {
    // cat | sort | cat, where the first cat waits for this test.
    let (input, keep) = pipe().unwrap();
    let (first_out, second_in) = (pipe().unwrap(), pipe().unwrap());
    // Looks stay here: copies, which a fork or a start does not pass on.
    let looks = [OwnedFd::from(first_out.0.try_clone().unwrap()), second_in.0.try_clone().unwrap().into()];
    let cat = Command::new("cat").stdin(input).stdout(first_out.1).spawn().unwrap();
    let sort = Command::new("sort").stdin(first_out.0).stdout(second_in.1).spawn().unwrap();
    let last = Command::new("cat").stdin(second_in.0).stdout(Stdio::null()).spawn().unwrap();
    let pids = [std::process::id(), cat.id(), sort.id(), last.id()];
    for pid in &pids[1..] {
        asleep_in(*pid, &[libc::SYS_read]);
    }
    for look in &looks {
        let ours = seen(look);
        assert_eq!(ours, lsof(&pids, inode(look)));
        assert_eq!(ours.len(), 3, "the program that writes, the one that reads, and this test");
    }
    drop(keep);
    for child in [cat, sort, last] {
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_tree_of_workers_is_seen_as_lsof_sees_it() {
    let (results, writer) = pipe().unwrap();
    let gate = Gate::new();
    let arrived = Gate::new();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let writer = writer.try_clone().unwrap();
            fork(writer, |writer| {
                let grandchild = fork(writer.as_fd(), |_writer| {
                    arrived.open();
                    gate.pass();
                })
                .unwrap();
                gate.pass();
                exit_code(&grandchild) as u8
            })
            .unwrap()
        })
        .collect();
    (0..4).for_each(|_| arrived.pass());
    let ours = seen(&results);
    let pids: Vec<u32> = ours.iter().map(|(pid, ..)| *pid).collect();
    assert_eq!(ours.len(), 2 + 4 + 4, "reader and writer here, one writer in each worker, one in its child");
    assert_eq!(ours, lsof(&pids, inode(&results)));
    (0..8).for_each(|_| gate.open());
    for worker in workers {
        assert_eq!(exit_code(&worker), 0);
    }
}

fn a_name_commands_no_terminal() {
    for (name, shown) in [(c"\x1b[2J) S 1 \x9b\xff", "?[2J) S 1 "), (c"a\u{202e}b\u{2066}c\u{2028}", "a?b?c?")] {
        is_shown_as(name, shown);
    }
}

fn is_shown_as(name: &CStr, shown: &str) {
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let arrived = Gate::new();
    let child = fork(writer, |_writer| {
        // SAFETY: a nul-terminated name.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
        arrived.open();
        gate.pass();
    })
    .unwrap();
    arrived.pass();
    let found = holders(&reader).unwrap();
    let holder = found.list.iter().find(|holder| holder.pid == child.id()).unwrap();
    assert!(holder.command.starts_with(shown), "{:?}", holder.command);
    for text in [found.to_string(), ProcessMap::current().unwrap().to_string()] {
        assert!(text.contains(shown), "{text}");
        let turns = |c| ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
        assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || turns(c))), "{text:?}");
    }
    gate.open();
    assert_eq!(exit_code(&child), 0);
}
