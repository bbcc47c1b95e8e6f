//! A [`ProcessMap`] as text, and as the source of pictures.

use std::fmt::{self, Write};

use super::map::{Finding, FindingKind, Link, Port, ProcessMap};
use super::processes::printable;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut who: Vec<_> = self.pids.iter().map(u32::to_string).collect();
        if self.elsewhere > 0 {
            who.push(format!("{} elsewhere", self.elsewhere));
        }
        let who = who.join(", ");
        let channel = format_args!("{} {}", if self.pair { "pair" } else { "pipe" }, self.inode);
        match self.what {
            FindingKind::NoReader if self.certain => write!(f, "nobody reads {channel}: a write to it fails"),
            FindingKind::NoReader => {
                write!(f, "nobody that could be seen reads {channel}: if nobody does, a write to it fails")
            }
            FindingKind::OnlyItself => write!(f, "both ends of {channel} are held by {who} alone: its end never comes"),
            FindingKind::BothEnds => {
                write!(f, "both ends of {channel} are held by {who}: until one is closed, its end never comes")
            }
            FindingKind::ManyWriters => {
                write!(f, "a writer of {channel} is held by {who}: its end comes when all have let go")
            }
            FindingKind::ManyReaders => {
                write!(f, "a reader of {channel} is held by {who}: a write fails when all have let go")
            }
            FindingKind::ManyOnOneSide => {
                write!(f, "one side of {channel} is held by {who}: the end comes to the other when all have let go")
            }
        }
    }
}

/// The tree of processes, with what each holds; and below it what was found.
impl fmt::Display for ProcessMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw(f, self.root, &mut String::new(), "")?;
        for finding in &self.findings {
            writeln!(f, "{} {finding}", if finding.certain { "!" } else { "?" })?;
        }
        if self.peers_unknown {
            writeln!(f, "? sockets are left out: the kernel did not say which are connected")?;
        }
        match self.unseen.len() {
            0 => Ok(()),
            1 => writeln!(f, "? 1 process could not be looked into: it may hold an end too"),
            unseen => writeln!(f, "? {unseen} processes could not be looked into: one of them may hold an end too"),
        }
    }
}

impl ProcessMap {
    fn draw(&self, f: &mut fmt::Formatter<'_>, pid: u32, indent: &mut String, branch: &str) -> fmt::Result {
        let Some(process) = self.processes.get(&pid) else { return Ok(()) };
        let unseen = if self.unseen.contains(&pid) { "  (could not be looked into)" } else { "" };
        writeln!(f, "{indent}{branch}{pid} {}{unseen}", printable(&process.name))?;
        let length = indent.len();
        indent.push_str(match branch {
            "" => "",
            "└─ " => "   ",
            _ => "│  ",
        });
        // A process that is its own parent would be drawn for ever; /proc shows none, but it is not ours to vouch for.
        let children: Vec<u32> = self
            .processes
            .iter()
            .filter(|(child, process)| process.parent == pid && **child != pid && **child != self.root)
            .map(|(child, _)| *child)
            .collect();
        let bar = if children.is_empty() { "   " } else { "│  " };
        for link in &self.links {
            for (port, writes) in link.ports().filter(|(port, _)| port.pid == pid) {
                let mark = if self.is_marked(link, Some(port)) { "  !" } else { "" };
                writeln!(f, "{indent}{bar}{:>4} {}{mark}", port.fd, link.seen_from(writes))?;
            }
        }
        for (i, child) in children.iter().enumerate() {
            self.draw(f, *child, indent, if i + 1 == children.len() { "└─ " } else { "├─ " })?;
        }
        indent.truncate(length);
        Ok(())
    }

    /// The source of a picture for Graphviz: `dot -Tsvg`. Boxes are processes, with dotted lines to their parents; arrows go
    /// from who writes to who reads, with the numbers of the descriptors; red is what can hardly be meant.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from(
            "digraph ipc {\n  rankdir=LR; ranksep=0.8; nodesep=0.4;\n  node [fontname=\"sans-serif\", fontsize=11];\n  \
             edge [fontname=\"sans-serif\", fontsize=9];\n",
        );
        let red = |marked| if marked { ", color=red, fontcolor=red" } else { "" };
        for (pid, process) in &self.processes {
            let style = if self.unseen.contains(pid) { "\"rounded,dashed\"" } else { "rounded" };
            let (name, color) = (quoted(&process.name), red(self.is_suspect(*pid)));
            line(&mut dot, format_args!("  p{pid} [shape=box, style={style}, label=\"{name}\\n{pid}\"{color}];"));
            if let Some(parent) = self.parent_of(*pid) {
                line(&mut dot, format_args!("  p{parent} -> p{pid} [style=dotted, arrowhead=none, color=gray50];"));
            }
        }
        for (i, link) in self.links.iter().enumerate() {
            let (name, color) = (link.name(), red(self.is_marked(link, None)));
            line(&mut dot, format_args!("  l{i} [shape=ellipse, label=\"{name}\"{color}];"));
            let both = if link.pipe { "" } else { ", dir=both" };
            for (port, from) in link.ports() {
                let (Port { pid, fd }, color) = (port, red(self.is_marked(link, Some(port))));
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

    /// The source of a picture for Mermaid, which GitHub draws by itself in a `mermaid` code block. It shows what
    /// [`to_dot`](Self::to_dot) shows. Mermaid refuses pictures of more than 500 lines between things (its `maxEdges`).
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        // Lines have no names in Mermaid: they are coloured by their number, in the order in which they come.
        let (mut lines, mut red) = (0, Vec::new());
        for (pid, process) in &self.processes {
            line(&mut text, format_args!("  p{pid}[\"{} {pid}\"]", quoted(&process.name)));
            if self.is_suspect(*pid) {
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
            if self.is_marked(link, None) {
                line(&mut text, format_args!("  style l{i} stroke:#d00,color:#d00"));
            }
            let arrow = if link.pipe { "-->" } else { "<-->" };
            for (port, from) in link.ports() {
                let Port { pid, fd } = port;
                match from {
                    true => line(&mut text, format_args!("  p{pid} {arrow}|fd {fd}| l{i}")),
                    false => line(&mut text, format_args!("  l{i} {arrow}|fd {fd}| p{pid}")),
                }
                if self.is_marked(link, Some(port)) {
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

    /// Whether a process holds something that it can hardly be meant to.
    fn is_suspect(&self, pid: u32) -> bool {
        self.findings.iter().any(|found| found.certain && found.pids.contains(&pid))
    }

    /// Whether something can hardly be meant about a channel, or about one descriptor of it.
    fn is_marked(&self, link: &Link, port: Option<&Port>) -> bool {
        let mut of_link =
            self.findings.iter().filter(|found| found.certain && found.inode == link.inode && found.pair != link.pipe);
        of_link.any(|found| found.pids.is_empty() || port.is_none_or(|port| found.pids.contains(&port.pid)))
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

    /// What a holder of one side does with it, and who is at the other.
    fn seen_from(&self, first: bool) -> String {
        let (ports, outside) = if first { (&self.to, self.to_outside) } else { (&self.from, self.from_outside) };
        let mut others: Vec<_> = ports.iter().map(|port| format!("{} fd {}", port.pid, port.fd)).collect();
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
    let safe = |c: char| if c.is_control() || "\"\\<>&[]{}|#;`$".contains(c) { '?' } else { c };
    name.chars().map(safe).collect()
}
