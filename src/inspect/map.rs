//! The picture of a process tree: processes, and the pipes and socket pairs between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::RawFd;

use super::diag;
use super::processes::{self, Channel, Held, Shown};
use crate::error::{Error, Result};
use crate::sys::{self, Errno};

/// A process tree, with the pipes and socket pairs that its processes hold: a snapshot.
///
/// It is for any processes, whether they use this crate or not. [`Display`](std::fmt::Display) draws it for a terminal,
/// [`to_dot`](Self::to_dot) for Graphviz, and [`to_mermaid`](Self::to_mermaid) for Mermaid. Each marks a forgotten
/// end, and [`findings`](Self::findings) returns the marks as values.
///
/// In the guide: [when it hangs](crate::guide::when_it_hangs).
///
/// # Examples
///
/// ```
/// let (_reader, _writer) = ipc::pipe()?;
/// let map = ipc::ProcessMap::current()?;
/// let said: Vec<_> = map.findings().iter().map(|finding| finding.to_string()).collect();
/// assert!(said.iter().any(|words| words.contains("EOF never comes")), "{said:?}");
/// println!("{map}");
/// println!("{} processes unseen, {} seen in part", map.unseen(), map.seen_in_part());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProcessMap {
    pub(super) root: u32,
    /// By their numbers.
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) links: Vec<Link>,
    pub(super) findings: Vec<Finding>,
    /// Processes that could not be inspected.
    pub(super) unseen: BTreeSet<u32>,
    /// How many could be inspected in part.
    pub(super) seen_in_part: usize,
    pub(super) peers_unknown: bool,
    pub(super) other_namespace: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) parent: u32,
}

/// One descriptor of a process of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) pid: u32,
    pub(super) fd: RawFd,
}

/// A pipe, or a pair of sockets. Of a pair, the two sides are in no order.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) pipe: bool,
    /// A FIFO with a name may have the inode of a pipe, on another device.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Writers; one side of a pair.
    pub(super) from: Vec<Port>,
    /// Readers; the other side.
    pub(super) to: Vec<Port>,
    /// Descriptors outside of the tree, of each.
    pub(super) from_outside: usize,
    pub(super) to_outside: usize,
}

/// Something in a [`ProcessMap`] that keeps EOF from coming, or may. See [`ProcessMap::findings`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    pub(super) device: u64,
    /// The inode of the pipe, as in `pipe:[…]`; of a pair, the lower of its two, as in `socket:[…]`.
    pub inode: u64,
    /// It is a pair of sockets and no pipe.
    pub pair: bool,
    /// The processes that hold an end which they should perhaps not hold. None, if a holder is missing.
    pub pids: Vec<u32>,
    /// The number of descriptors outside the tree that are of the same side.
    pub elsewhere: usize,
    /// The kind.
    pub what: FindingKind,
    /// It is almost certainly a bug: a `!` in the text, red in the pictures.
    pub certain: bool,
    /// The reason why both ends in one process may be intended, if there is one.
    pub(super) intended: Option<&'static str>,
}

/// The kinds of a [`Finding`]. See [`ProcessMap::findings`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// No process holds a reader of the pipe: a write fails. Certain if the kernel says so of a writer. A reader may also be
    /// under way in a message, or in a process that was not seen.
    NoReader,
    /// One process alone holds both ends: it waits for itself. Of a pair it may be intended. Certain of a pipe if it and its
    /// descendants could be seen whole. Not certain of a FIFO that is open both ways, nor of a process that never waits in a
    /// read, such as an event loop that wakes itself. Two ends in different threads' tables are no finding.
    OnlyItself,
    /// A process holds both ends, besides others: no reader gets EOF while it does. Not certain of a lifeline, a pipe that
    /// one process alone writes and its descendants read, nor of a FIFO that is open both ways. A jobserver's pipe, which all
    /// its processes are meant to hold so, is not told apart.
    BothEnds,
    /// More than one process holds a writer, which may be intended. EOF comes when the last of them lets go.
    ManyWriters,
    /// More than one process holds a reader, which may be intended. A write fails when the last of them lets go.
    ManyReaders,
    /// More than one process holds the same side of a pair, which may be intended. EOF comes to the other side when the last
    /// of them lets go.
    ManyOnOneSide,
}

impl ProcessMap {
    /// Looks at this process and its descendants. Never blocks, but looks once through the descriptors of every process that
    /// this user may inspect. See [`ProcessMap`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: `/proc` is not mounted; no descriptor is left to look with (`EMFILE`).
    ///
    /// # Platform
    ///
    /// As [`holders`](crate::holders()).
    pub fn current() -> Result<Self> {
        Self::rooted_at(None)
    }

    /// Looks at that process and its descendants. Otherwise the same as [`current`](Self::current).
    ///
    /// The number is one of this process's pid namespace, such as [`Child::id`](crate::Child::id). The numbers in the map are
    /// those of `/proc`. If `/proc` shows another namespace, the map has a line for it.
    ///
    /// # Errors
    ///
    /// - As [`current`](Self::current).
    /// - [`Error::System`] with `ESRCH`: there is no such process.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(&writer, |_| ())?;
    /// let tree = ipc::ProcessMap::of(child.id())?.to_string();
    /// assert!(tree.starts_with(&child.id().to_string()));
    /// # child.wait()?;
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn of(root: u32) -> Result<Self> {
        Self::rooted_at(Some(root))
    }

    fn rooted_at(root: Option<u32>) -> Result<Self> {
        let shown = processes::shown()?;
        let mut all: BTreeMap<u32, Process> = BTreeMap::new();
        for &pid in &shown.pids {
            if let Some((name, parent)) = processes::name_and_parent(pid)? {
                all.insert(pid, Process { name, parent });
            }
        }
        let root = match root {
            None => Some(shown.me),
            Some(root) => shown.translate(root)?,
        };
        let root = root.filter(|root| all.contains_key(root)).ok_or_else(|| Error::system("open", Errno::SRCH))?;
        let peers = match diag::peers() {
            // Then it is not the kernel that refuses to say.
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Error::system("socket", errno)),
            peers => peers,
        };
        let mut sides = Sides { peers: peers.as_ref().ok(), links: BTreeMap::new() };
        let (mut unseen, mut in_part, mut apart) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let tree = descendants(&all, root);
        for &pid in all.keys() {
            let seen = shown.channels(pid)?;
            seen.channels.iter().for_each(|held| sides.add(pid, held, tree.contains(&pid)));
            if seen.tables.len() > 1 {
                let together = seen.tables.iter().flat_map(|table| sides.whole(table)).collect();
                apart.extend(sides.whole(&seen.channels).difference(&together).map(|channel| (pid, *channel)));
            }
            if seen.unseen {
                unseen.insert(pid);
            }
            if seen.in_part {
                in_part.insert(pid);
            }
        }
        let mut links: Vec<_> =
            sides.links.into_values().filter(|link| !(link.from.is_empty() && link.to.is_empty())).collect();
        links.iter_mut().for_each(|link| {
            link.from.sort_unstable();
            link.to.sort_unstable();
        });
        let seen = Whole { all: &all, apart, hidden: &unseen | &in_part };
        let mut findings: Vec<_> = links.iter().flat_map(|link| link.findings(&shown, &seen)).collect();
        findings.sort_by_key(|finding| !finding.certain);
        let seen_in_part = in_part.len();
        let peers_unknown = peers.is_err();
        let mut processes = all;
        processes.retain(|pid, _| tree.contains(pid));
        let other_namespace = shown.depth > 0;
        Ok(Self { root, processes, links, findings, unseen, seen_in_part, peers_unknown, other_namespace })
    }

    /// Returns the ends that keep EOF from coming, or may. The certain ones come first.
    ///
    /// # Examples
    ///
    /// ```
    /// use ipc::FindingKind;
    ///
    /// let (_reader, _writer) = ipc::pipe()?;
    /// let map = ipc::ProcessMap::current()?;
    /// let own = map.findings().iter().find(|finding| finding.what == FindingKind::OnlyItself).unwrap();
    /// assert!(own.certain && own.pids == [std::process::id()]);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns how many processes of the machine could not be inspected. One of them may hold an end too. See
    /// [`ProcessMap`] for an example.
    #[must_use]
    pub fn unseen(&self) -> usize {
        self.unseen.len()
    }

    /// Returns how many processes of the machine could be inspected in part. They show that descriptors are open, but not the
    /// kind of all of them. One of them may hold an end too. See [`ProcessMap`] for an example.
    #[must_use]
    pub fn seen_in_part(&self) -> usize {
        self.seen_in_part
    }
}

/// The process and its descendants.
fn descendants(all: &BTreeMap<u32, Process>, root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (&pid, process) in all {
        children.entry(process.parent).or_default().push(pid);
    }
    let (mut found, mut waiting) = (BTreeSet::new(), vec![root]);
    while let Some(pid) = waiting.pop() {
        // While it is looked at, the tree changes, and a number may be used again: no process counts twice.
        if found.insert(pid) {
            waiting.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// All processes, and how far they could be seen.
struct Whole<'a> {
    all: &'a BTreeMap<u32, Process>,
    /// Pipes and pairs whose ends a process has in different tables.
    apart: BTreeSet<(u32, Channel)>,
    /// Processes that were not seen, or in part.
    hidden: BTreeSet<u32>,
}

/// Puts descriptors together to links.
struct Sides<'a> {
    peers: Option<&'a HashMap<u32, Option<u32>>>,
    links: BTreeMap<Channel, Link>,
}

impl Sides<'_> {
    fn add(&mut self, pid: u32, held: &Held, inside: bool) {
        let port = Port { pid, fd: held.number };
        let Some((channel, from, to)) = self.place(held) else { return };
        let link = self.link(channel);
        if from {
            link.add_from(port, inside);
        }
        if to {
            link.add_to(port, inside);
        }
    }

    /// The link that a descriptor belongs to, and whether it is on its one side, and on its other.
    fn place(&self, held: &Held) -> Option<(Channel, bool, bool)> {
        if !held.channel.socket {
            return Some((held.channel, held.writes, held.reads));
        }
        // A pair goes under the lower of its two inodes. Other sockets, and those whose peer is gone, are left out.
        let inode = held.channel.inode;
        let peer = u64::from(self.peers?.get(&u32::try_from(inode).ok()?).copied().flatten()?);
        Some((Channel { inode: inode.min(peer), ..held.channel }, inode < peer, inode > peer))
    }

    /// The links of which both sides are among these.
    fn whole(&self, table: &[Held]) -> BTreeSet<Channel> {
        let places: Vec<_> = table.iter().filter_map(|held| self.place(held)).collect();
        let of = |is_there: fn(&(Channel, bool, bool)) -> bool| -> BTreeSet<Channel> {
            places.iter().filter(|place| is_there(place)).map(|place| place.0).collect()
        };
        &of(|place| place.1) & &of(|place| place.2)
    }

    fn link(&mut self, channel: Channel) -> &mut Link {
        self.links.entry(channel).or_insert_with(|| Link {
            pipe: !channel.socket,
            device: channel.device,
            inode: channel.inode,
            from: Vec::new(),
            to: Vec::new(),
            from_outside: 0,
            to_outside: 0,
        })
    }
}

impl Link {
    fn add_from(&mut self, port: Port, inside: bool) {
        if inside { self.from.push(port) } else { self.from_outside += 1 }
    }

    fn add_to(&mut self, port: Port, inside: bool) {
        if inside { self.to.push(port) } else { self.to_outside += 1 }
    }

    /// Returns whether the kernel says of a writer that it has no reader. The processes that were seen do not decide
    /// it.
    fn has_no_reader(&self, shown: &Shown) -> bool {
        let pipe = (self.device, self.inode);
        let ask = |port: &Port| match port.pid == shown.me {
            true => sys::poll::is_without_reader(None, port.fd, pipe),
            false => sys::poll::is_without_reader(Some(shown.process(port.pid)?), port.fd, pipe),
        };
        self.pipe && self.from.iter().find_map(ask) == Some(true)
    }

    /// The findings about it.
    fn findings(&self, shown: &Shown, seen: &Whole<'_>) -> Vec<Finding> {
        let pids = |ports: &[Port]| ports.iter().map(|port| port.pid).collect::<BTreeSet<_>>();
        let (writers, readers) = (pids(&self.from), pids(&self.to));
        let finding = |what, pids: &BTreeSet<u32>, elsewhere, certain| {
            let (pids, pair) = (pids.iter().copied().collect(), !self.pipe);
            Finding { device: self.device, inode: self.inode, pair, pids, elsewhere, what, certain, intended: None }
        };
        let in_one = |what, pids, intended| Finding { intended, ..finding(what, pids, 0, intended.is_none()) };
        if self.pipe && readers.is_empty() && self.to_outside == 0 {
            return vec![finding(FindingKind::NoReader, &readers, 0, self.has_no_reader(shown))];
        }
        let channel = Channel { device: self.device, inode: self.inode, socket: !self.pipe };
        let in_one_table = |pid: &&u32| !seen.apart.contains(&(**pid, channel));
        let both: BTreeSet<u32> = writers.intersection(&readers).filter(in_one_table).copied().collect();
        if both.len() == 1 && writers == readers && self.from_outside + self.to_outside == 0 {
            let family = both.first().map(|pid| descendants(seen.all, *pid)).unwrap_or_default();
            // A pair of its own is what many an event loop is woken through.
            if !self.pipe {
                return vec![finding(FindingKind::OnlyItself, &both, 0, false)];
            }
            return vec![in_one(FindingKind::OnlyItself, &both, self.alone(!seen.hidden.is_disjoint(&family)))];
        }
        if !both.is_empty() {
            let lifeline = self.may_be_lifeline(&writers, &readers, seen.all);
            let lifeline = lifeline.then_some("and its children read it: EOF comes when it lets go");
            return vec![in_one(FindingKind::BothEnds, &both, self.open_both_ways().or(lifeline))];
        }
        // Where no process of the tree is at the other side, as with an inherited standard output, it is no finding here.
        if writers.is_empty() || readers.is_empty() {
            return Vec::new();
        }
        let (many_from, many_to) = match self.pipe {
            true => (FindingKind::ManyWriters, FindingKind::ManyReaders),
            false => (FindingKind::ManyOnOneSide, FindingKind::ManyOnOneSide),
        };
        let sides = [(many_from, &writers, self.from_outside), (many_to, &readers, self.to_outside)];
        let shared = sides.into_iter().filter(|(_, pids, elsewhere)| pids.len() + elsewhere > 1);
        shared.map(|(what, pids, elsewhere)| finding(what, pids, elsewhere, false)).collect()
    }

    fn alone(&self, is_hidden: bool) -> Option<&'static str> {
        let never_waits = || self.to.iter().all(|port| processes::is_nonblocking(port.pid, port.fd));
        let hidden = is_hidden.then_some("and a child that could not be seen may read it");
        let wakes = || never_waits().then_some("which reads without blocking, as an event loop that wakes itself");
        self.open_both_ways().or(hidden).or_else(wakes)
    }

    /// No process opens a FIFO so by mistake. It keeps EOF away between one client and the next.
    fn open_both_ways(&self) -> Option<&'static str> {
        let is_fifo = self.from.iter().any(|port| self.to.contains(port));
        is_fifo.then_some("as a FIFO that is open both ways: EOF never comes meanwhile")
    }

    /// Returns whether one process alone writes the pipe, and all its other readers descend from that one. It keeps a reader to
    /// give to the next child, and EOF tells the children that it is gone.
    fn may_be_lifeline(&self, writers: &BTreeSet<u32>, readers: &BTreeSet<u32>, all: &BTreeMap<u32, Process>) -> bool {
        let Some(writer) = writers.first().filter(|_| self.pipe && writers.len() == 1) else { return false };
        self.from_outside + self.to_outside == 0 && readers.is_subset(&descendants(all, *writer))
    }
}
