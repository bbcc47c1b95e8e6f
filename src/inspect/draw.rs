//! A [`Map`] as text, and as the source of pictures.

use std::fmt::{self, Write};

use super::map::{Finding, Link, Map, Port, What};
use super::processes::printable;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { pipe, pids, what } = self;
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        let pids = pids.join(", ");
        match what {
            What::NoReader => write!(f, "nobody reads pipe {pipe}: a write to it fails"),
            What::OnlyItself => {
                write!(f, "{pids} alone holds both ends of pipe {pipe}: reading it, its end never comes")
            }
            What::OwnWriter => {
                write!(f, "{pids} reads pipe {pipe} and holds a writer of it: its end never comes")
            }
            What::ManyWriters => write!(f, "{pids} hold a writer of pipe {pipe}: its end comes when all have let go"),
        }
    }
}

impl Finding {
    /// Whether it can hardly be meant.
    pub(super) fn is_sure(&self) -> bool {
        self.what != What::ManyWriters
    }
}

/// The tree of processes, with what each holds; and below it what was found.
impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw(f, self.root, &mut String::new(), "")?;
        for finding in &self.findings {
            writeln!(f, "{} {finding}", if finding.is_sure() { "!" } else { "?" })?;
        }
        if self.peers_unknown {
            writeln!(f, "? sockets are left out: the kernel did not say which are connected")?;
        }
        Ok(())
    }
}

impl Map {
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
                let mark = match self.findings.iter().any(|found| {
                    link.pipe
                        && found.is_sure()
                        && found.pipe == link.inode
                        && (found.pids.contains(&pid) || found.pids.is_empty())
                }) {
                    true => "  !",
                    false => "",
                };
                writeln!(f, "{indent}{bar}{:>4} {}{mark}", port.fd, link.seen_from(writes))?;
            }
        }
        for (i, child) in children.iter().enumerate() {
            self.draw(f, *child, indent, if i + 1 == children.len() { "└─ " } else { "├─ " })?;
        }
        indent.truncate(length);
        Ok(())
    }

    /// The source of a picture for Graphviz: `dot -Tsvg`. Boxes are processes, arrows go from who writes to who reads, with
    /// the numbers of the descriptors; red is what can hardly be meant.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from(
            "digraph ipc {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n",
        );
        for (pid, process) in &self.processes {
            line(
                &mut dot,
                format_args!("  p{pid} [shape=box, style=rounded, label=\"{}\\n{pid}\"];", quoted(&process.name)),
            );
            if self.processes.contains_key(&process.parent) && *pid != self.root {
                line(
                    &mut dot,
                    format_args!("  p{} -> p{pid} [style=dotted, arrowhead=none, color=gray];", process.parent),
                );
            }
        }
        for (i, link) in self.links.iter().enumerate() {
            let red = |port: Option<&Port>| if self.is_marked(link, port) { ", color=red, fontcolor=red" } else { "" };
            line(&mut dot, format_args!("  l{i} [shape=ellipse, label=\"{}\"{}];", link.name(), red(None)));
            let both = if link.pipe { "" } else { ", dir=both" };
            for port in &link.from {
                line(
                    &mut dot,
                    format_args!("  p{} -> l{i} [label=\"{}\"{both}{}];", port.pid, port.fd, red(Some(port))),
                );
            }
            for port in &link.to {
                line(&mut dot, format_args!("  l{i} -> p{} [label=\"{}\"{both}];", port.pid, port.fd));
            }
            if link.from_outside > 0 {
                line(
                    &mut dot,
                    format_args!(
                        "  f{i} [shape=plaintext, label=\"elsewhere\"];\n  f{i} -> l{i} [style=dashed{both}];"
                    ),
                );
            }
            if link.to_outside > 0 {
                line(
                    &mut dot,
                    format_args!(
                        "  t{i} [shape=plaintext, label=\"elsewhere\"];\n  l{i} -> t{i} [style=dashed{both}];"
                    ),
                );
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// The source of a picture for Mermaid, which GitHub draws by itself in a `mermaid` code block. It shows what
    /// [`to_dot`](Self::to_dot) shows.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (pid, process) in &self.processes {
            line(&mut text, format_args!("  p{pid}[\"{} {pid}\"]", quoted(&process.name)));
        }
        for (i, link) in self.links.iter().enumerate() {
            line(&mut text, format_args!("  l{i}([\"{}\"])", link.name()));
            let arrow = if link.pipe { "-->" } else { "<-->" };
            for port in &link.from {
                line(&mut text, format_args!("  p{} {arrow}|{}| l{i}", port.pid, port.fd));
            }
            for port in &link.to {
                line(&mut text, format_args!("  l{i} {arrow}|{}| p{}", port.fd, port.pid));
            }
            for (outside, side) in [(link.from_outside, "from"), (link.to_outside, "to")] {
                if outside > 0 {
                    line(&mut text, format_args!("  l{i} -.- {side}{i}[/elsewhere/]"));
                }
            }
            if self.is_marked(link, None) {
                line(&mut text, format_args!("  style l{i} stroke:#d00,color:#d00"));
            }
        }
        text
    }

    /// Whether something can hardly be meant about a pipe, or about one writer of it.
    fn is_marked(&self, link: &Link, port: Option<&Port>) -> bool {
        let mut of_link = self.findings.iter().filter(|found| link.pipe && found.pipe == link.inode && found.is_sure());
        of_link.any(|found| port.is_none_or(|port| found.pids.contains(&port.pid)))
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
        match outside {
            0 => {}
            1 => others.push("1 elsewhere".to_owned()),
            many => others.push(format!("{many} elsewhere")),
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
    let safe = |c: char| if c.is_control() || "\"\\<>&[]{}|#;`".contains(c) { '?' } else { c };
    name.chars().map(safe).collect()
}
