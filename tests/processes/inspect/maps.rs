//! The picture of a process tree (P10): what stands out in it, and what does not.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::support::{
    self, Gate, Trial, asleep_in, become_nobody, closed_standard_descriptors, exit_code, own_mounts, own_pids,
    refuse_calls,
};
use ipc::{
    Command, Ends, Error, FindingKind, PipeFlags, PipeWriter, ProcessMap, Stdio, datagram_pair, fork, pipe, pipe_with,
    stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_reader_that_holds_its_own_writer_stands_out,
        a_pipe_without_a_reader_stands_out,
        no_writer_is_fetched_to_where_something_is_printed,
        who_saw_little_misses_nobody_for_sure,
        a_reader_that_is_under_way_is_not_missed,
        a_reader_outside_the_pid_namespace_is_not_missed needs [OwnPids, OwnMounts],
        a_childs_pipe_without_a_reader_stands_out,
        a_process_that_waits_for_itself_stands_out,
        a_process_that_wakes_itself_may_be_meant,
        a_fifo_that_is_open_both_ways_may_be_meant,
        what_is_between_threads_with_tables_of_their_own_does_not,
        a_lifeline_of_a_child_that_is_not_seen_may_be_meant,
        a_pair_that_a_process_holds_whole_stands_out,
        a_shared_end_may_be_meant,
        a_lifeline_may_be_meant,
        what_is_given_has_nothing_to_stand_out,
        a_childs_child_is_in_the_tree,
        what_happens_elsewhere_is_counted,
        nobody_has_no_map,
        graphviz_accepts_the_pictures needs [DOT],
        a_mermaid_picture_colours_the_right_lines,
        a_name_breaks_nothing needs [DOT],
    ]
}

fn me() -> u32 {
    std::process::id()
}

fn inode(end: &impl AsFd) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", end.as_fd().as_raw_fd())).unwrap();
    let link = link.to_str().unwrap();
    link[link.find('[').unwrap() + 1..link.len() - 1].parse().unwrap()
}

/// What was found about one channel, with the processes, and whether it is sure.
fn found(map: &ProcessMap, inode: u64) -> Vec<(FindingKind, Vec<u32>, bool)> {
    let of_channel = map.findings().iter().filter(|finding| finding.inode == inode);
    of_channel.map(|finding| (finding.what, finding.pids.clone(), finding.certain)).collect()
}

/// Whether a pipe is red in the pictures.
fn is_red(map: &ProcessMap, inode: u64) -> bool {
    let (dot, mermaid, label) = (map.to_dot(), map.to_mermaid(), format!("pipe {inode}\""));
    let in_dot = dot.lines().find(|line| line.contains(&label)).unwrap().contains("color=red");
    let mut in_mermaid = mermaid.lines().skip_while(|line| !line.contains(&label));
    let name = in_mermaid.next().unwrap().trim().split('(').next().unwrap();
    assert_eq!(in_mermaid.any(|line| line.contains(&format!("style {name} stroke:#d00"))), in_dot, "{mermaid}");
    in_dot
}

/// A process that holds what it is given, for as long as this value lives. It is told to leave by the end of a pipe.
struct Holder {
    child: ipc::Child,
    stay: Option<ipc::PipeWriter>,
}

impl Holder {
    fn of(ends: impl ipc::Ends) -> Self {
        let (leave, stay) = pipe().unwrap();
        let child =
            fork((ends, leave), |(_ends, leave)| leave.read_timeout(&mut [0], Duration::MAX).map(drop)).unwrap();
        // Before it comes there, it may still hold what it is not given.
        asleep_in(child.id(), &[libc::SYS_ppoll]);
        Self { child, stay: Some(stay) }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.stay = None;
        assert_eq!(exit_code(&self.child), 0);
    }
}

fn a_reader_that_holds_its_own_writer_stands_out() {
    let (reader, writer) = pipe().unwrap();
    let holder = Holder::of(writer.as_fd());
    let map = ProcessMap::current().unwrap();
    let pipe = inode(&reader);
    assert_eq!(found(&map, pipe), [(FindingKind::BothEnds, vec![me()], true)]);
    let text = map.to_string();
    let words = format!("! both ends of pipe {pipe} are held by {}: until one is closed, EOF never comes\n", me());
    assert!(text.contains(&words), "{text}");
    let own = format!("{:>4} writes pipe {pipe} → {} fd {}  !\n", writer.as_raw_fd(), me(), reader.as_raw_fd());
    assert!(text.contains(&own), "{text}");
    let childs = text.lines().skip_while(|line| !line.contains(&holder.pid().to_string())).skip(1);
    assert!(childs.take_while(|line| !line.starts_with('!')).all(|line| !line.ends_with('!')), "{text}");
    // It is gone with the writer here: the child's is as given.
    drop(writer);
    assert_eq!(found(&ProcessMap::current().unwrap(), pipe), []);
    drop(holder);
}

fn a_pipe_without_a_reader_stands_out() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let map = ProcessMap::current().unwrap();
    assert_eq!(found(&map, inode(&writer)), [(FindingKind::NoReader, vec![], true)]);
    let text = map.to_string();
    assert!(text.contains(&format!("! nobody reads pipe {}", inode(&writer))), "{text}");
    assert!(is_red(&map, inode(&writer)));
}

/// The writer of another process would be here for a moment, where something is printed.
fn no_writer_is_fetched_to_where_something_is_printed() {
    let (reader, writer) = pipe().unwrap();
    let holder = Holder::of(writer.as_fd());
    let pipe = inode(&writer);
    drop((reader, writer));
    let map = || ProcessMap::current().unwrap();
    assert_eq!(found(&map(), pipe), [(FindingKind::NoReader, vec![], true)]);
    assert_eq!(found(&closed_standard_descriptors(map), pipe), [(FindingKind::NoReader, vec![], false)]);
    drop(holder);
}

#[track_caller]
fn assert_nobody_for_sure(writer: &PipeWriter, is_sure: bool) {
    let map = ProcessMap::current().unwrap();
    assert_eq!(found(&map, inode(writer)), [(FindingKind::NoReader, vec![], is_sure)], "{map}");
    assert_eq!(map.to_string().contains("? nobody that could be seen reads pipe"), !is_sure, "{map}");
    assert_eq!(is_red(&map, inode(writer)), is_sure);
}

/// A reader may be held by a process that nobody else may look into.
fn who_saw_little_misses_nobody_for_sure() {
    let (reader, writer) = pipe().unwrap();
    let (gate, looked) = (Gate::new(), Gate::new());
    let child = fork(writer, |writer| {
        become_nobody();
        // SAFETY: integers. A process that changed its user may not be looked into by itself either, unless it says so.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        let map = ProcessMap::current().unwrap();
        assert!(map.unseen() > 0);
        assert!(map.to_string().contains("could not be looked into"), "{map}");
        if map.to_string().contains("elsewhere") {
            // An ordinary user sees its reader.
            assert_eq!(found(&map, inode(&writer)), []);
        } else {
            assert_nobody_for_sure(&writer, false);
        }
        looked.open();
        gate.pass();
        // The kernel has seen all of them.
        assert_nobody_for_sure(&writer, true);
    })
    .unwrap();
    looked.pass();
    drop(reader);
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn a_reader_that_is_under_way_is_not_missed() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    pair.parent.send_with(b"", reader).unwrap();
    assert_nobody_for_sure(&writer, false);
    let held = pair.child.recv_with(&mut Vec::new()).unwrap().unwrap();
    assert_eq!(found(&ProcessMap::current().unwrap(), inode(&writer)).len(), 1, "it is this process's own by now");
    drop(held);
    assert_nobody_for_sure(&writer, true);
}

fn a_reader_outside_the_pid_namespace_is_not_missed() {
    let (reader, writer) = pipe().unwrap();
    let (gate, looked) = (Gate::new(), Gate::new());
    let outer = fork(writer, |writer| {
        assert!(own_pids());
        let inner = fork(writer, |writer| {
            assert!(own_mounts());
            let (none, proc) = (c"none".as_ptr(), c"/proc".as_ptr());
            // SAFETY: nul-terminated strings.
            let result = unsafe { libc::mount(none, proc, c"proc".as_ptr(), 0, std::ptr::null()) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            assert_eq!(ProcessMap::current().unwrap().unseen(), 0);
            assert_nobody_for_sure(&writer, false);
            looked.open();
            gate.pass();
            assert_nobody_for_sure(&writer, true);
        });
        assert_eq!(exit_code(&inner.unwrap()), 0);
    })
    .unwrap();
    looked.pass();
    drop(reader);
    gate.open();
    assert_eq!(exit_code(&outer), 0);
}

fn a_childs_pipe_without_a_reader_stands_out() {
    let (reader, writer) = pipe().unwrap();
    let pipe = inode(&reader);
    let child = Holder::of(writer);
    drop(reader);
    let map = ProcessMap::of(child.pid()).unwrap();
    assert_eq!(found(&map, pipe), [(FindingKind::NoReader, vec![], true)]);
    // Also where it is not told, it is not made up.
    let looks = fork((), |()| {
        refuse_calls(&[libc::SYS_pidfd_getfd], libc::EPERM);
        let map = ProcessMap::of(child.pid()).unwrap();
        assert_eq!(found(&map, pipe), [(FindingKind::NoReader, vec![], false)]);
    });
    assert_eq!(exit_code(&looks.unwrap()), 0);
}

fn a_process_that_waits_for_itself_stands_out() {
    let (reader, _writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let map = ProcessMap::current().unwrap();
    assert_eq!(found(&map, inode(&reader)), [(FindingKind::OnlyItself, vec![me()], true)]);
    // Event loops are woken through such pairs.
    let lower = inode(&pair.parent).min(inode(&pair.child));
    assert_eq!(found(&map, lower), [(FindingKind::OnlyItself, vec![me()], false)]);
    let pairs = map.findings().iter().filter(|finding| [inode(&reader), lower].contains(&finding.inode));
    assert!(pairs.map(|finding| finding.pair).eq([false, true]));
}

fn a_process_that_wakes_itself_may_be_meant() {
    // As Node and many another event loop do, which never sleep in a read.
    let (reader, _writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let map = ProcessMap::current().unwrap();
    assert_eq!(found(&map, inode(&reader)), [(FindingKind::OnlyItself, vec![me()], false)]);
    assert!(map.to_string().contains("without blocking, as an event loop that wakes itself\n"), "{map}");
}

fn a_fifo_that_is_open_both_ways_may_be_meant() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("map-{}", me()));
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // As a service does, whose clients come and go; and as make's jobserver.
    let server = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let pipe = std::os::unix::fs::MetadataExt::ino(&server.metadata().unwrap());
    let of_the_fifo = |map: &ProcessMap, what| {
        let [(found, pids, false)] = &found(map, pipe)[..] else { panic!("{map}") };
        assert!(*found == what && pids.contains(&me()), "{map}");
        assert!(map.to_string().contains(", as a FIFO that is open both ways"), "{map}");
    };
    of_the_fifo(&ProcessMap::current().unwrap(), FindingKind::OnlyItself);
    // A fork copies what is no end of this crate. A client that writes is one more.
    let client = Holder::of(std::fs::File::options().write(true).open(&path).unwrap());
    of_the_fifo(&ProcessMap::current().unwrap(), FindingKind::BothEnds);
    drop(client);
    std::fs::remove_file(path).unwrap();
}

/// EOF comes when the one thread closes its end. Nothing closes the other's.
fn what_is_between_threads_with_tables_of_their_own_does_not() {
    let (reader, writer) = pipe().unwrap();
    let number = inode(&reader);
    assert_does_not_stand_out(reader, writer, number);
    let pair = datagram_pair().unwrap();
    let lower = inode(&pair.parent).min(inode(&pair.child));
    assert_does_not_stand_out(pair.parent, pair.child, lower);
}

/// With the one end in the table of the one thread alone, and the other one in the other's.
fn assert_does_not_stand_out(one: impl Ends + AsRawFd, other: impl Ends, inode: u64) {
    let (gate, arrived) = (Gate::new(), Gate::new());
    let child = fork((one, other), |(one, other)| {
        let (own, number) = (Gate::new(), one.as_raw_fd());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: an integer.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
                own.open();
                // SAFETY: a number, which stays open in the other thread's table.
                assert_eq!(unsafe { libc::close(number) }, 0);
                arrived.open();
                gate.pass();
                // SAFETY: no conditions.
                unsafe { libc::_exit(0) }
            });
            own.pass();
            drop(other);
            arrived.open();
        });
    })
    .unwrap();
    arrived.pass();
    arrived.pass();
    let map = ProcessMap::of(child.id()).unwrap();
    // It is seen at both sides.
    let sees = |arrow| map.to_string().contains(&format!("{inode} {arrow} {} fd", child.id()));
    assert!(sees('←') || sees('↔'), "{map}");
    assert_eq!(found(&map, inode), []);
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

/// A process that is not dumpable hides its descriptors from its own user.
fn a_lifeline_of_a_child_that_is_not_seen_may_be_meant() {
    let (lifeline, alive) = pipe().unwrap();
    let pipe = inode(&lifeline);
    let (gate, arrived) = (Gate::new(), Gate::new());
    let looks = fork((lifeline, alive), |(lifeline, _alive)| {
        become_nobody();
        // SAFETY: integers.
        let show = |shown: libc::c_ulong| assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, shown, 0, 0, 0) }, 0);
        show(1);
        let hidden = fork(&lifeline, |_lifeline| {
            show(0);
            arrived.open();
            gate.pass();
        })
        .unwrap();
        arrived.pass();
        let map = ProcessMap::current().unwrap();
        assert_eq!(found(&map, pipe), [(FindingKind::OnlyItself, vec![me()], false)], "{map}");
        let words = format!("? both ends of pipe {pipe} are held by {}, and a child that could not be seen", me());
        assert!(map.to_string().contains(&words), "{map}");
        gate.open();
        assert_eq!(exit_code(&hidden), 0);
        let map = ProcessMap::current().unwrap();
        assert_eq!(found(&map, pipe), [(FindingKind::OnlyItself, vec![me()], true)], "{map}");
    });
    assert_eq!(exit_code(&looks.unwrap()), 0);
}

fn a_pair_that_a_process_holds_whole_stands_out() {
    let (messages, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    // The master keeps the workers' sides by mistake.
    let worker = Holder::of((messages.child.as_fd(), bytes.child.as_fd()));
    let map = ProcessMap::current().unwrap();
    for (one, other) in [(messages.parent.as_fd(), messages.child.as_fd()), (bytes.parent.as_fd(), bytes.child.as_fd())]
    {
        let lower = inode(&one).min(inode(&other));
        assert_eq!(found(&map, lower), [(FindingKind::BothEnds, vec![me()], true)]);
        let text = map.to_string();
        assert!(text.contains(&format!("! both ends of pair {lower} are held by {}", me())), "{text}");
        assert_eq!(text.matches(&format!("talks over pair {lower} ↔")).count(), 3, "{text}");
    }
    let lower = inode(&messages.parent).min(inode(&messages.child));
    drop((messages.child, bytes.child));
    assert_eq!(found(&ProcessMap::current().unwrap(), lower), [], "and now there is nothing");
    drop(worker);
}

fn a_shared_end_may_be_meant() {
    let (results, results_writer) = pipe().unwrap();
    let (jobs_reader, jobs) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let ends =
        || (results_writer.try_clone().unwrap(), jobs_reader.try_clone().unwrap(), pair.child.try_clone().unwrap());
    let workers = [Holder::of(ends()), Holder::of(ends())];
    let numbers = [inode(&results), inode(&jobs), inode(&pair.parent).min(inode(&pair.child))];
    drop((results_writer, jobs_reader, pair.child));
    let map = ProcessMap::current().unwrap();
    let mut pids = workers.iter().map(Holder::pid).collect::<Vec<_>>();
    pids.sort_unstable();
    assert_eq!(found(&map, numbers[0]), [(FindingKind::ManyWriters, pids.clone(), false)]);
    assert_eq!(found(&map, numbers[1]), [(FindingKind::ManyReaders, pids.clone(), false)]);
    assert_eq!(found(&map, numbers[2]), [(FindingKind::ManyOnOneSide, pids.clone(), false)]);
    let (text, who) = (map.to_string(), format!("{}, {}", pids[0], pids[1]));
    for words in [
        format!("? a writer of pipe {} is held by {who}: EOF comes when all have let go\n", numbers[0]),
        format!("? a reader of pipe {} is held by {who}: a write fails when all have let go\n", numbers[1]),
        format!("? one side of pair {} is held by {who}: EOF comes to the other when all", numbers[2]),
    ] {
        assert!(text.contains(&words), "{text}");
    }
    // From inside one of them, the others are elsewhere, and so is who would wait.
    let inner = ProcessMap::of(workers[0].pid()).unwrap();
    assert!(numbers.iter().all(|number| found(&inner, *number).is_empty()), "{inner}");
    drop((workers, pair.parent, jobs));
}

/// A pipe that nobody writes: its readers wait for EOF, which says that the master is gone.
fn a_lifeline_may_be_meant() {
    let (lifeline, alive) = pipe().unwrap();
    let worker = Holder::of(lifeline.try_clone().unwrap());
    let pipe = inode(&lifeline);
    let map = ProcessMap::current().unwrap();
    assert_eq!(found(&map, pipe), [(FindingKind::BothEnds, vec![me()], false)]);
    let words = format!(
        "? both ends of pipe {pipe} are held by {}, and its children read it: EOF comes when it lets go\n",
        me()
    );
    assert!(map.to_string().contains(&words), "{map}");
    assert!(!is_red(&map, pipe));
    // A writer that got lost to a child keeps the lifeline from ending, and that is a bug.
    let lost = Holder::of(alive.try_clone().unwrap());
    assert_eq!(found(&ProcessMap::current().unwrap(), pipe), [(FindingKind::BothEnds, vec![me()], true)]);
    drop((lost, alive));
    // So is a child that holds both ends of a pipe that its parent reads.
    let (results, writer) = ipc::pipe().unwrap();
    let child = Holder::of((results.as_fd(), writer));
    let both = found(&ProcessMap::current().unwrap(), inode(&results));
    assert_eq!(both, [(FindingKind::BothEnds, vec![child.pid()], true)]);
    drop((worker, child));
}

fn what_is_given_has_nothing_to_stand_out() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    let child = Holder::of((writer, pair.child));
    let map = ProcessMap::of(me()).unwrap();
    for channel in [inode(&reader), inode(&pair.parent), inode(&pair.parent) + 1] {
        assert_eq!(found(&map, channel), []);
    }
    let text = map.to_string();
    assert!(text.contains(&format!("reads pipe {} ← {} fd", inode(&reader), child.pid())), "{text}");
    assert!(text.contains("talks over pair"), "{text}");
}

fn a_childs_child_is_in_the_tree() {
    let (mut reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let child = fork(writer, |writer| {
        let grandchild = fork(writer, |writer| {
            writer.write_atomic(&me().to_ne_bytes()).unwrap();
            gate.pass();
        });
        grandchild.unwrap().wait().map(drop)
    })
    .unwrap();
    let mut grandchild = [0; 4];
    reader.read_exact(&mut grandchild).unwrap();
    let map = ProcessMap::current().unwrap().to_string();
    assert!(map.contains(&u32::from_ne_bytes(grandchild).to_string()), "{map}");
    gate.open();
    assert_eq!(exit_code(&child), 0);
}

fn what_happens_elsewhere_is_counted() {
    let (reader, writer) = pipe().unwrap();
    let (own_reader, own_writer) = pipe().unwrap();
    // In the tree of the first: a writer of its own pipe, of which this process holds two more.
    let first = Holder::of((writer.as_fd(), own_reader.as_fd()));
    let copy = writer.try_clone().unwrap();
    let text = ProcessMap::of(first.pid()).unwrap().to_string();
    assert!(text.contains(&format!("writes pipe {} → 1 elsewhere\n", inode(&reader))), "{text}");
    assert!(text.contains(&format!("reads pipe {} ← 1 elsewhere\n", inode(&own_writer))), "{text}");
    let dot = ProcessMap::of(first.pid()).unwrap().to_dot();
    assert!(dot.contains("label=\"2 elsewhere\""), "{dot}");
    drop((first, copy));
}

fn nobody_has_no_map() {
    let refused = ProcessMap::of(u32::MAX - 1).unwrap_err();
    assert!(
        matches!(&refused, Error::System { source, .. } if source.raw_os_error() == Some(libc::ESRCH)),
        "{refused:?}"
    );
}

fn assert_drawn(dot: &str) {
    let (source, mut writer) = pipe().unwrap();
    let (mut complaints, stderr) = pipe().unwrap();
    let child = Command::new("dot").arg("-Tplain").stdin(source).stdout(Stdio::null()).stderr(stderr).spawn();
    let child = child.expect("Graphviz is installed (apt-get install graphviz)");
    std::io::Write::write_all(&mut writer, dot.as_bytes()).unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(&mut complaints).unwrap(), "", "{dot}");
    assert_eq!(exit_code(&child), 0, "{dot}");
}

fn graphviz_accepts_the_pictures() {
    let (reader, _writer) = pipe().unwrap();
    let (pair, bytes) = (datagram_pair().unwrap(), stream_pair().unwrap());
    let holder = Holder::of((reader.as_fd(), pair.child, bytes.child));
    assert_drawn(&ProcessMap::current().unwrap().to_dot());
    assert_drawn(&ProcessMap::of(holder.pid()).unwrap().to_dot());
    drop((pair.parent, bytes.parent));
}

/// They are coloured by their number.
fn a_mermaid_picture_colours_the_right_lines() {
    let (reader, writer) = pipe().unwrap();
    let (_elsewhere, other) = pipe().unwrap();
    let holder = Holder::of((writer.as_fd(), other));
    let picture = ProcessMap::current().unwrap().to_mermaid();
    let links: Vec<_> = picture.lines().filter(|line| line.contains("--") || line.contains("-.-")).collect();
    let red = picture.lines().find_map(|line| line.strip_prefix("  linkStyle ")).expect("something is red");
    let red = red.split(' ').next().unwrap().split(',').map(|number| links[number.parse::<usize>().unwrap()]);
    let pipe = picture.lines().find(|line| line.contains(&format!("pipe {}", inode(&reader)))).unwrap();
    let pipe = pipe.trim().split('(').next().unwrap();
    let ends = [
        format!("  p{} -->|fd {}| {pipe}", me(), writer.as_raw_fd()),
        format!("  {pipe} -->|fd {}| p{}", reader.as_raw_fd(), me()),
    ];
    assert_eq!(red.collect::<Vec<_>>(), ends, "{picture}");
    assert!(links.contains(&&*format!("  p{} -.- p{}", me(), holder.pid())), "{picture}");
}

fn a_name_breaks_nothing() {
    let gate = Gate::new();
    let arrived = Gate::new();
    for name in [c"\"] ) x\n--> \\{", c"\x1b[2Jgone\r", c"`#quot;&lt;|$$", c"%%{init: 1}%%", c""] {
        let child = fork((), |()| {
            // SAFETY: a nul-terminated name.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
            arrived.open();
            gate.pass();
        })
        .unwrap();
        arrived.pass();
        let map = ProcessMap::current().unwrap();
        for picture in [map.to_dot(), map.to_mermaid()] {
            let line = picture.lines().find(|line| line.contains(&format!("  p{}", child.id()))).unwrap();
            assert_eq!(line.matches('"').count(), 2, "{line}");
            let label = line.split('"').nth(1).unwrap().replace("\\n", " ");
            assert!(label.ends_with(&child.id().to_string()), "{line}");
            assert!(!label.contains(['[', '{', '`', '#', '&', '|', '$', '\\', '\x1b']), "{line}");
        }
        assert_drawn(&map.to_dot());
        let text = map.to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert_eq!(text.matches(&format!("─ {} ", child.id())).count(), 1, "{text:?}");
        gate.open();
        assert_eq!(exit_code(&child), 0);
    }
}
