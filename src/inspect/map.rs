//! The picture of a process tree: processes, and the pipes and socket pairs between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::RawFd;

use super::diag;
use super::processes::{self, Channel, Held, Seen};
use crate::error::{Error, Result};
use crate::sys::Errno;

/// A process tree, with the pipes and socket pairs that its processes hold: a picture of a moment.
///
/// It is for any processes, whether they use this crate or not. [`Display`](std::fmt::Display) draws it for a terminal,
/// [`to_dot`](Self::to_dot) for Graphviz, and [`to_mermaid`](Self::to_mermaid) for Mermaid. What looks like a forgotten end
/// stands out in each, and is said in words by [`findings`](Self::findings).
///
/// # Examples
///
/// ```
/// let (_reader, _writer) = ipc::pipe()?;
/// let map = ipc::ProcessMap::current()?;
/// let said: Vec<_> = map.findings().iter().map(|finding| finding.to_string()).collect();
/// assert!(said.iter().any(|words| words.contains("its end never comes")), "{said:?}");
/// println!("{map}");
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProcessMap {
    pub(super) root: u32,
    /// By their numbers.
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) links: Vec<Link>,
    pub(super) findings: Vec<Finding>,
    /// Processes that could not be looked into.
    pub(super) unseen: BTreeSet<u32>,
    pub(super) peers_unknown: bool,
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
    pub(super) inode: u64,
    /// Writers; one side of a pair.
    pub(super) from: Vec<Port>,
    /// Readers; the other side.
    pub(super) to: Vec<Port>,
    /// Descriptors outside of the tree, of each.
    pub(super) from_outside: usize,
    pub(super) to_outside: usize,
}

/// Something in a [`ProcessMap`] that keeps a stream from ending, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The inode of the pipe, as in `pipe:[…]`; of a pair, the lower of its two, as in `socket:[…]`.
    pub inode: u64,
    /// Whether it is a pair of sockets and no pipe.
    pub pair: bool,
    /// The processes that hold what should perhaps not be held; none, if it is somebody who is missing.
    pub pids: Vec<u32>,
    /// How many descriptors outside of the tree are of the same side.
    pub elsewhere: usize,
    /// What it is.
    pub what: FindingKind,
    /// Whether it can hardly be meant, nor be otherwise than it looks: a `!` in the text, red in the pictures.
    pub certain: bool,
}

/// What a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Nobody holds a reader of the pipe: a write fails. Not sure where some processes could not be looked into.
    NoReader,
    /// One process alone holds both ends: it waits for itself. That may be meant of a pair.
    OnlyItself,
    /// A process holds both ends, besides others: while it does, the end comes to nobody.
    BothEnds,
    /// More than one process holds a writer. That may be meant: the end comes when the last of them lets go.
    ManyWriters,
    /// More than one process holds a reader. That may be meant: a writer is told when the last of them lets go.
    ManyReaders,
    /// More than one process holds the same side of a pair. That may be meant: the end comes to the other side when the last
    /// of them lets go.
    ManyOnOneSide,
}

impl ProcessMap {
    /// The tree of this process and all that descend from it. Never blocks, but looks through the descriptors of every
    /// process that this user may look into, once.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: `/proc` is not mounted; no descriptor is left to look with (`EMFILE`).
    pub fn current() -> Result<Self> {
        Self::rooted_at(None)
    }

    /// The tree of that process and all that descend from it; else as [`current`](Self::current).
    ///
    /// # Errors
    ///
    /// As [`current`](Self::current); with `ESRCH`: there is no such process.
    pub fn of(root: u32) -> Result<Self> {
        Self::rooted_at(Some(root))
    }

    fn rooted_at(root: Option<u32>) -> Result<Self> {
        let (me, pids) = processes::pids()?;
        let root = root.unwrap_or(me);
        let mut all: HashMap<u32, Process> = HashMap::new();
        for pid in pids {
            if let Some((name, parent)) = processes::name_and_parent(pid)? {
                all.insert(pid, Process { name, parent });
            }
        }
        if !all.contains_key(&root) {
            return Err(Error::system("open", Errno::SRCH));
        }
        let peers = match diag::peers() {
            // Then it is not the kernel that refuses to say.
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Error::system("socket", errno)),
            peers => peers,
        };
        let mut sides = Sides { peers: peers.as_ref().ok(), links: BTreeMap::new() };
        let mut unseen = BTreeSet::new();
        let inside = |pid: u32| descends(&all, pid, root);
        for &pid in all.keys() {
            match processes::channels(pid)? {
                Seen::Channels(held) => held.iter().for_each(|held| sides.add(pid, held, inside(pid))),
                Seen::Nothing => {
                    unseen.insert(pid);
                }
                Seen::Gone => {}
            }
        }
        let mut links: Vec<_> =
            sides.links.into_values().filter(|link| !(link.from.is_empty() && link.to.is_empty())).collect();
        links.iter_mut().for_each(|link| {
            link.from.sort_unstable();
            link.to.sort_unstable();
        });
        let mut findings: Vec<_> = links.iter().flat_map(|link| link.findings(unseen.is_empty())).collect();
        findings.sort_by_key(|finding| !finding.certain);
        let peers_unknown = peers.is_err();
        let processes =
            all.iter().filter(|(pid, _)| inside(**pid)).map(|(pid, process)| (*pid, process.clone())).collect();
        Ok(Self { root, processes, links, findings, unseen, peers_unknown })
    }

    /// What keeps a stream from ending, or may, the surest first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many processes of the machine could not be looked into. One of them may hold an end too.
    pub fn unseen(&self) -> usize {
        self.unseen.len()
    }
}

/// Whether a process is the root or descends from it.
fn descends(all: &HashMap<u32, Process>, mut pid: u32, root: u32) -> bool {
    // While it is looked at, the tree changes: a number may be used again. So no more steps than processes.
    for _ in 0..all.len() {
        match all.get(&pid) {
            _ if pid == root => return true,
            Some(process) => pid = process.parent,
            None => return false,
        }
    }
    false
}

/// Puts descriptors together to links.
struct Sides<'a> {
    peers: Option<&'a HashMap<u32, Option<u32>>>,
    links: BTreeMap<Channel, Link>,
}

impl Sides<'_> {
    fn add(&mut self, pid: u32, held: &Held, inside: bool) {
        let port = Port { pid, fd: held.number };
        if !held.channel.socket {
            let link = self.link(held.channel);
            if held.writes {
                link.add_from(port, inside);
            }
            if held.reads {
                link.add_to(port, inside);
            }
            return;
        }
        // A pair goes under the lower of its two inodes. Other sockets, and those whose peer is gone, are left out.
        let inode = held.channel.inode;
        let peer = self.peers.and_then(|peers| peers.get(&u32::try_from(inode).ok()?).copied().flatten());
        let Some(peer) = peer.map(u64::from) else { return };
        let link = self.link(Channel { inode: inode.min(peer), ..held.channel });
        if inode < peer { link.add_from(port, inside) } else { link.add_to(port, inside) }
    }

    fn link(&mut self, channel: Channel) -> &mut Link {
        self.links.entry(channel).or_insert_with(|| Link {
            pipe: !channel.socket,
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

    /// What may be wrong with it. Where not everything was seen, nobody is missed for sure.
    fn findings(&self, all_seen: bool) -> Vec<Finding> {
        let pids = |ports: &[Port]| ports.iter().map(|port| port.pid).collect::<BTreeSet<_>>();
        let (writers, readers) = (pids(&self.from), pids(&self.to));
        let finding = |what, pids: &BTreeSet<u32>, elsewhere, certain| {
            let pids = pids.iter().copied().collect();
            Finding { inode: self.inode, pair: !self.pipe, pids, elsewhere, what, certain }
        };
        if self.pipe && readers.is_empty() && self.to_outside == 0 {
            return vec![finding(FindingKind::NoReader, &readers, 0, all_seen)];
        }
        let both: BTreeSet<u32> = writers.intersection(&readers).copied().collect();
        if both.len() == 1 && writers == readers && self.from_outside + self.to_outside == 0 {
            // A pair of its own is what many an event loop is woken through.
            return vec![finding(FindingKind::OnlyItself, &both, 0, self.pipe)];
        }
        if !both.is_empty() {
            return vec![finding(FindingKind::BothEnds, &both, 0, true)];
        }
        // Where nobody of the tree is at the other side, as with an inherited standard output, it is nobody's trouble here.
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
}
