//! A [`ProcessMap`] as text, and as the source of pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::map::{Finding, FindingKind, Link, Port, ProcessMap};
use super::processes::{is_obeyed, printable};

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut who: Vec<_> = self.pids.iter().map(u32::to_string).collect();
        if self.elsewhere > 0 {
            who.push(format!("{} elsewhere", self.elsewhere));
        }
        let who = who.join(", ");
        let channel = format!("{} {}", if self.pair { "pair" } else { "pipe" }, self.inode);
        if let Some(intended) = self.intended {
            return write!(f, "both ends of {channel} are held by {who}, {intended}");
        }
        match self.what {
            FindingKind::NoReader if self.certain => write!(f, "nobody reads {channel}: a write to it fails"),
            FindingKind::NoReader => {
                write!(f, "nobody that could be seen reads {channel}: if nobody does, a write to it fails")
            }
            FindingKind::OnlyItself => write!(f, "both ends of {channel} are held by {who} alone: EOF never comes"),
            FindingKind::BothEnds => {
                write!(f, "both ends of {channel} are held by {who}: until one is closed, EOF never comes")
            }
            FindingKind::ManyWriters => {
                write!(f, "a writer of {channel} is held by {who}: EOF comes when all have let go")
            }
            FindingKind::ManyReaders => {
                write!(f, "a reader of {channel} is held by {who}: a write fails when all have let go")
            }
            FindingKind::ManyOnOneSide => {
                write!(f, "one side of {channel} is held by {who}: EOF comes to the other when all have let go")
            }
        }
    }
}

/// How deep the tree is indented. Deeper processes have their depth in their line.
const INDENTED: usize = 24;

/// How many holders of the other side are named beside each end.
const NAMED: usize = 8;

/// The tree of processes, with the channels of each, and the findings below it.
impl fmt::Display for ProcessMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw(f)?;
        for finding in &self.findings {
            writeln!(f, "{} {finding}", if finding.certain { "!" } else { "?" })?;
        }
        if self.other_namespace {
            writeln!(f, "? the numbers are those of /proc, which shows another pid namespace")?;
        }
        if self.peers_unknown {
            writeln!(f, "? sockets are left out: the kernel did not say which are connected")?;
        }
        match self.unseen.len() {
            0 => {}
            1 => writeln!(f, "? 1 process could not be looked into: it may hold an end too")?,
            unseen => writeln!(f, "? {unseen} processes could not be looked into: one of them may hold an end too")?,
        }
        match self.seen_in_part {
            0 => Ok(()),
            1 => writeln!(f, "? 1 process could be looked into in part alone: it may hold an end too"),
            in_part => writeln!(f, "? {in_part} processes could be looked into in part alone: one may hold an end too"),
        }
    }
}

/// A process that is to be drawn.
struct Node {
    pid: u32,
    depth: usize,
    /// Before its name, and before its channels.
    head: String,
    body: String,
}

impl ProcessMap {
    /// Draws the tree without recursion: it may be deeper than a stack.
    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &pid in self.processes.keys() {
            if let Some(parent) = self.parent_of(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut held: BTreeMap<u32, Vec<(&Link, &Port, bool)>> = BTreeMap::new();
        for link in &self.links {
            for (port, first) in link.ports() {
                held.entry(port.pid).or_default().push((link, port, first));
            }
        }
        let marks = Marks::of(self);
        let mut waiting = vec![Node { pid: self.root, depth: 0, head: String::new(), body: String::new() }];
        while let Some(Node { pid, depth, head, body }) = waiting.pop() {
            let Some(process) = self.processes.get(&pid) else { continue };
            let unseen = if self.unseen.contains(&pid) { "  (could not be looked into)" } else { "" };
            let deep = if depth > INDENTED { format!("[{depth} deep] ") } else { String::new() };
            writeln!(f, "{head}{deep}{pid} {}{unseen}", printable(&process.name))?;
            // A process that is drawn is not drawn again, also if its parent changes meanwhile.
            let children = children.remove(&pid).unwrap_or_default();
            let bar = if children.is_empty() { "   " } else { "│  " };
            for &(link, port, first) in held.get(&pid).into_iter().flatten() {
                let mark = if marks.has(link, Some(port)) { "  !" } else { "" };
                writeln!(f, "{body}{bar}{:>4} {}{mark}", port.fd, link.seen_from(first))?;
            }
            let last = children.len().saturating_sub(1);
            waiting.extend(children.into_iter().enumerate().rev().map(|(i, pid)| {
                let (head, below) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let below = if depth < INDENTED { below } else { "" };
                Node { pid, depth: depth + 1, head: format!("{body}{head}"), body: format!("{body}{below}") }
            }));
        }
        Ok(())
    }

    /// Returns the source of a picture for Graphviz (`dot -Tsvg`).
    ///
    /// Boxes are processes, with dotted lines to their parents. Arrows go from writers to readers, with the numbers of the
    /// descriptors. Red is almost certainly a bug.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_reader, _writer) = ipc::pipe()?;
    /// let map = ipc::ProcessMap::current()?;
    /// assert!(map.to_dot().starts_with("digraph") && map.to_mermaid().starts_with("flowchart"));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut dot = String::from(
            "digraph ipc {\n  rankdir=LR; ranksep=0.8; nodesep=0.4;\n  node [fontname=\"sans-serif\", fontsize=11];\n  \
             edge [fontname=\"sans-serif\", fontsize=9];\n",
        );
        let red = |marked| if marked { ", color=red, fontcolor=red" } else { "" };
        let marks = Marks::of(self);
        for (pid, process) in &self.processes {
            let style = if self.unseen.contains(pid) { "\"rounded,dashed\"" } else { "rounded" };
            let (name, color) = (quoted(&process.name), red(marks.suspects.contains(pid)));
            line(&mut dot, format_args!("  p{pid} [shape=box, style={style}, label=\"{name}\\n{pid}\"{color}];"));
            if let Some(parent) = self.parent_of(*pid) {
                line(&mut dot, format_args!("  p{parent} -> p{pid} [style=dotted, arrowhead=none, color=gray50];"));
            }
        }
        for (i, link) in self.links.iter().enumerate() {
            let (name, color) = (link.name(), red(marks.has(link, None)));
            line(&mut dot, format_args!("  l{i} [shape=ellipse, label=\"{name}\"{color}];"));
            let both = if link.pipe { "" } else { ", dir=both" };
            for (port, from) in link.ports() {
                let (Port { pid, fd }, color) = (port, red(marks.has(link, Some(port))));
                let ends = if from { format!("p{pid} -> l{i}") } else { format!("l{i} -> p{pid}") };
                // An empty line below the number keeps it off the arrow.
                line(&mut dot, format_args!("  {ends} [label=\"fd {fd}\\n \"{both}{color}];"));
            }
            for (side, outside, ends) in
                [("f", link.from_outside, format!("f{i} -> l{i}")), ("t", link.to_outside, format!("l{i} -> t{i}"))]
            {
                if outside > 0 {
                    line(&mut dot, format_args!("  {side}{i} [shape=plaintext, label=\"{outside} elsewhere\"];"));
                    line(&mut dot, format_args!("  {ends} [style=dashed{both}];"));
                }
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// Returns the source of a picture for Mermaid, which GitHub draws in a `mermaid` code block. It shows the same as
    /// [`to_dot`](Self::to_dot), which has an example. Mermaid refuses pictures of more than 500 edges (its `maxEdges`).
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        // Lines have no names in Mermaid: they are coloured by their number, in the order in which they come.
        let (mut lines, mut red) = (0, Vec::new());
        let marks = Marks::of(self);
        for (pid, process) in &self.processes {
            line(&mut text, format_args!("  p{pid}[\"{} {pid}\"]", quoted(&process.name)));
            if marks.suspects.contains(pid) {
                line(&mut text, format_args!("  style p{pid} stroke:#d00,color:#d00"));
            }
        }
        for pid in self.processes.keys() {
            if let Some(parent) = self.parent_of(*pid) {
                line(&mut text, format_args!("  p{parent} -.- p{pid}"));
                lines += 1;
            }
        }
        for (i, link) in self.links.iter().enumerate() {
            line(&mut text, format_args!("  l{i}([\"{}\"])", link.name()));
            if marks.has(link, None) {
                line(&mut text, format_args!("  style l{i} stroke:#d00,color:#d00"));
            }
            let arrow = if link.pipe { "-->" } else { "<-->" };
            for (port, from) in link.ports() {
                let Port { pid, fd } = port;
                match from {
                    true => line(&mut text, format_args!("  p{pid} {arrow}|fd {fd}| l{i}")),
                    false => line(&mut text, format_args!("  l{i} {arrow}|fd {fd}| p{pid}")),
                }
                if marks.has(link, Some(port)) {
                    red.push(lines.to_string());
                }
                lines += 1;
            }
            for (side, outside) in [("f", link.from_outside), ("t", link.to_outside)] {
                if outside > 0 {
                    line(&mut text, format_args!("  {side}{i}[/\"{outside} elsewhere\"/] -.- l{i}"));
                    lines += 1;
                }
            }
        }
        if !red.is_empty() {
            line(&mut text, format_args!("  linkStyle {} stroke:#d00,color:#d00", red.join(",")));
        }
        text
    }

    /// The parent, as far as it is in the picture.
    fn parent_of(&self, pid: u32) -> Option<u32> {
        let parent = self.processes.get(&pid)?.parent;
        (pid != self.root && self.processes.contains_key(&parent)).then_some(parent)
    }
}

/// The findings that are almost certainly bugs, by process and by channel.
struct Marks<'a> {
    suspects: BTreeSet<u32>,
    /// By device and inode.
    channels: BTreeMap<(u64, u64), &'a [u32]>,
}

impl<'a> Marks<'a> {
    fn of(map: &'a ProcessMap) -> Self {
        let certain = || map.findings.iter().filter(|finding| finding.certain);
        Self {
            suspects: certain().flat_map(|finding| &finding.pids).copied().collect(),
            // Of one channel there is one finding that is certain at most.
            channels: certain().map(|finding| ((finding.device, finding.inode), &*finding.pids)).collect(),
        }
    }

    /// Returns whether a channel, or one descriptor of it, is marked.
    fn has(&self, link: &Link, port: Option<&Port>) -> bool {
        let pids = self.channels.get(&(link.device, link.inode));
        // The numbers are in order.
        let is_one = |port: &Port| pids.is_some_and(|pids| pids.is_empty() || pids.binary_search(&port.pid).is_ok());
        port.map_or(pids.is_some(), is_one)
    }
}

impl Link {
    fn name(&self) -> String {
        format!("{} {}", if self.pipe { "pipe" } else { "pair" }, self.inode)
    }

    /// Every descriptor of the tree, and whether it is of the first side.
    fn ports(&self) -> impl Iterator<Item = (&Port, bool)> {
        self.from.iter().map(|port| (port, true)).chain(self.to.iter().map(|port| (port, false)))
    }

    /// The use of one side by its holder, and the holders of the other.
    fn seen_from(&self, first: bool) -> String {
        let (ports, outside) = if first { (&self.to, self.to_outside) } else { (&self.from, self.from_outside) };
        let mut others: Vec<_> = ports.iter().take(NAMED).map(|port| format!("{} fd {}", port.pid, port.fd)).collect();
        if ports.len() > NAMED {
            others.push(format!("{} more", ports.len() - NAMED));
        }
        if outside > 0 {
            others.push(format!("{outside} elsewhere"));
        }
        let others = if others.is_empty() { "nobody".to_owned() } else { others.join(", ") };
        match (self.pipe, first) {
            (true, true) => format!("writes {} → {others}", self.name()),
            (true, false) => format!("reads {} ← {others}", self.name()),
            (false, _) => format!("talks over {} ↔ {others}", self.name()),
        }
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}

/// A process names itself: nothing of it may end the quotes, or start markup.
pub(crate) fn quoted(name: &str) -> String {
    let safe = |c: char| if is_obeyed(c) || "\"\\<>&[]{}|#;`$".contains(c) { '?' } else { c };
    name.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::map::Process;

    #[test]
    fn a_fifo_with_the_inode_of_a_pipe_is_not_marked_for_it() {
        let port = || vec![Port { pid: 1, fd: 3 }];
        let link = |device| Link {
            pipe: true,
            device,
            inode: 7,
            from: port(),
            to: port(),
            from_outside: 0,
            to_outside: usize::from(device == 2),
        };
        let links = vec![link(1), link(2)];
        let (device, what) = (1, FindingKind::OnlyItself);
        let finding =
            Finding { device, inode: 7, pair: false, pids: vec![1], elsewhere: 0, what, certain: true, intended: None };
        let map = ProcessMap {
            root: 1,
            processes: [(1, Process { name: "x".to_owned(), parent: 0 })].into(),
            links,
            findings: vec![finding],
            unseen: BTreeSet::new(),
            seen_in_part: 0,
            peers_unknown: false,
            other_namespace: false,
        };
        assert_eq!(map.to_string().matches("  !\n").count(), 2, "{map}");
    }

    #[test]
    fn a_deep_tree_takes_little_stack_and_little_text() {
        const DEEP: u32 = 20_000;
        let parent = |pid| if pid == 1 { DEEP } else { pid - 1 }; // whatever that is
        let processes = (1..=DEEP).map(|pid| (pid, Process { name: "x".to_owned(), parent: parent(pid) })).collect();
        let ports: Vec<Port> = (1..=DEEP).map(|pid| Port { pid, fd: 3 }).collect();
        let (from, to) = (ports.clone(), ports);
        let links = vec![Link { pipe: true, device: 1, inode: 1, from, to, from_outside: 0, to_outside: 0 }];
        let finding = Finding {
            device: 1,
            inode: 1,
            pair: false,
            pids: (1..=DEEP).collect(),
            elsewhere: 0,
            what: FindingKind::BothEnds,
            certain: true,
            intended: None,
        };
        let (findings, unseen) = (vec![finding], BTreeSet::new());
        let map = ProcessMap {
            root: 1,
            processes,
            links,
            findings,
            unseen,
            seen_in_part: 0,
            peers_unknown: false,
            other_namespace: false,
        };
        let drawn = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            assert!(map.to_dot().contains("p20000") && map.to_mermaid().contains("p20000"));
            map.to_string()
        });
        let text = drawn.unwrap().join().unwrap();
        assert_eq!(text.lines().count(), 3 * DEEP as usize + 1);
        assert!(text.len() < 1000 * DEEP as usize, "{}", text.len());
        assert!(text.contains("└─ [19999 deep] 20000 x\n") && text.contains(", 19992 more  !\n"));
    }
}
