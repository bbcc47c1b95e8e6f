//! The document: what was measured, in tables and pictures, and whether the marks were met.

mod gains;
mod marks;
mod plots;
mod scale;
pub mod tables;

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::results::{Group, Run};
use crate::work::{calls, forking, making, messages, round_trips, runtimes, serving, starting, streams, values};

/// A section: its kinds of work, and how they are done.
struct Section {
    title: &'static str,
    /// Of the picture's file.
    file: &'static str,
    works: &'static [&'static str],
    log: bool,
    /// The program that the section is for, after "A program that…".
    program: &'static str,
    text: &'static str,
}

const SECTIONS: [Section; 10] = [
    Section {
        title: "Streams",
        file: "streams",
        works: &[streams::WORK, streams::ONE_CORE],
        log: true,
        program: "passes bytes from one process to another",
        text: "One process writes the given number of bytes at a time, with `write_all`. The other one reads up to 64 KiB at a \
               time and adds up every byte. A reader with a buffer reads as many bytes at a time as were written. Crates \
               that pass messages are in the next section.",
    },
    Section {
        title: "Messages, one way",
        file: "messages",
        works: &[messages::WORK],
        log: true,
        program: "sends jobs, results or events as bytes",
        text: "One process sends, the other one receives. A message counts as received when the sender cannot change it any more \
               and every byte of it was read. So messages in shared memory are copied out. A vector that a crate returns, or a \
               buffer of its own that it shows, is not copied again.",
    },
    Section {
        title: "Values, one way",
        file: "values",
        works: &[values::STRUCTS, values::BYTES],
        log: true,
        program: "sends values of its own types",
        text: "One process sends values of one type, and makes each anew. The other one receives them and adds up their \
               fields. Structures: 16 B are one structure of three numbers, and larger values are a `Vec` of them. Bytes: a \
               `ByteBuf` of serde_bytes. Sizes are those in memory.",
    },
    Section {
        title: "Round trips",
        file: "round-trips",
        works: &[round_trips::SLEEPING, round_trips::SPINNING, round_trips::ONE_CORE],
        log: true,
        program: "asks another process and waits for its answer",
        text: "One message goes to the other process, and one of the same length comes back. A figure is the median over the \
               rounds of each round's median trip; p99 is the median of the 99th percentiles. A side that sleeps has to be \
               woken, which takes most of the time. A side that spins does not, and keeps a core busy. Compare sleeping \
               with sleeping, and spinning with spinning. Spinning is in vain on one core that both sides share.",
    },
    Section {
        title: "Under tokio",
        file: "tokio",
        works: &[runtimes::STREAMS, runtimes::MESSAGES, runtimes::ROUND_TRIPS, runtimes::MANY, runtimes::PROGRAMS],
        log: true,
        program: "does any of this on a runtime",
        text: "The work of the sections above, awaited. Each process has a runtime on its one thread. Of a thousand ends, each \
               belongs to a task that answers. They share one runtime with the task that asks. A figure is the time of one \
               answer. A program is fed the given number of bytes and writes them back. `UnixDatagram` is a socket of another \
               kind than the datagrams of `ipc` and `tokio-seqpacket`, which are `SOCK_SEQPACKET`.",
    },
    Section {
        title: "The cost of a call",
        file: "calls",
        works: &[calls::BYTES, calls::MESSAGES],
        log: false,
        program: "counts nanoseconds",
        text: "A write and a read, or a send and a receive, in one process. No side waits, so the difference to the bare calls \
               is what a wrapper costs.",
    },
    Section {
        title: "Making and closing a channel",
        file: "making",
        works: &[making::WORK],
        log: true,
        program: "makes a channel for each task or child",
        text: "Both ends are made and closed in one process. With `iceoryx2` that is a service with a publisher and a \
               subscriber.",
    },
    Section {
        title: "Fork and wait",
        file: "forking",
        works: &[forking::WORK],
        log: false,
        program: "forks its workers",
        text: "The child leaves at once. `ipc::fork` severs every end that the child was not given, which is each one here. It \
               holds back signals meanwhile, and holds the child by a pidfd. The bare calls leave all ends open in the \
               child.",
    },
    Section {
        title: "Starting a program",
        file: "starting",
        works: &[starting::WORK],
        log: true,
        program: "starts other programs",
        text: "`/bin/true` is started and waited for. A fork copies the page tables of the process, so it takes longer in a \
               larger one.",
    },
    Section {
        title: "A worker of a program",
        file: "serving",
        works: &[serving::WORK],
        log: true,
        program: "has threads or much memory, and needs workers",
        text: "The worker leaves at once, and is waited for. A fork server was forked before the program had memory and threads. \
               So a worker costs the same from a small program and from a large one. The bare fork beside threads is there for \
               comparison: its child may do nothing but leave, and `ipc::fork` refuses it. Python's program is small in both \
               columns.",
    },
];

/// Returns whether the contender is of the crate that this is about.
fn is_ours(name: &str) -> bool {
    name.starts_with("ipc ") || name.starts_with("ipc::")
}

fn is_bare(name: &str) -> bool {
    name.starts_with("bare ")
}

/// Writes `benchmarks.md` and the pictures in `benchmarks/` into that folder, from a run on each kind of machine.
pub fn write(runs: &[Run], folder: &Path) -> io::Result<()> {
    let pictures = folder.join("benchmarks");
    fs::create_dir_all(&pictures)?;
    gains::draw(&runs[0], &pictures.join("gains.svg"))?;
    let mut text = head(runs);
    for section in &SECTIONS {
        let of_runs: Vec<_> =
            runs.iter().filter_map(|run| section.of(run, runs.len() > 1, &pictures).transpose()).collect();
        if of_runs.is_empty() {
            continue;
        }
        let _ = write!(text, "## {}\n\nFor a program that {}. {}\n\n", section.title, section.program, section.text);
        for part in of_runs {
            text.push_str(&part?);
        }
    }
    for fragment in fragments(&pictures)? {
        let _ = writeln!(text, "{}\n", fs::read_to_string(fragment)?.trim_end());
    }
    let _ = write!(text, "## The marks\n\n{}\n{}\n", marks::summary(runs), marks::table(runs));
    text.push_str("## How each is used\n\n");
    for (name, note) in &runs[0].notes {
        let version = runs[0].versions.get(name).map(|version| format!(" {version}")).unwrap_or_default();
        let _ = writeln!(text, "- **{name}{version}**: {note}");
    }
    fs::write(folder.join("benchmarks.md"), text)
}

impl Section {
    /// Its row in the table of contents.
    fn row(&self) -> String {
        let anchor = self.title.to_lowercase().replace(',', "").replace(' ', "-");
        format!("| {} | [{}](#{anchor}) |\n", self.program, self.title)
    }

    /// The picture and the tables of one run, if it has any.
    fn of(&self, run: &Run, is_one_of_several: bool, pictures: &Path) -> io::Result<Option<String>> {
        let groups = |work: &&'static str| run.groups(work).collect::<Vec<_>>();
        let groups: Vec<Vec<&Group>> = self.works.iter().map(groups).filter(|groups| !groups.is_empty()).collect();
        if groups.is_empty() {
            return Ok(None);
        }
        let file = format!("{}-{}.svg", self.file, run.machine.slug());
        plots::draw(&in_rows(&groups), self.title, self.log, &pictures.join(&file))?;
        let mut text = String::new();
        if is_one_of_several {
            let _ = write!(text, "### {}: {}\n\n", self.title, run.machine.name());
        }
        let _ = writeln!(text, "![{}](benchmarks/{file})", self.title);
        for groups in groups {
            let unit = scale::Scale::of(&groups[0].work).unit;
            let _ = write!(text, "\n{}, {unit}:\n\n{}", capital(&groups[0].work), tables::in_columns(&groups));
        }
        text.push('\n');
        Ok(Some(text))
    }
}

/// The panels of a picture. Where two kinds of work have the same cases, they stand beside one another. The rest comes
/// last.
fn in_rows<'run>(works: &[Vec<&'run Group>]) -> Vec<&'run Group> {
    let most = works.iter().map(Vec::len).max().unwrap_or(0);
    let (beside, last): (Vec<_>, Vec<_>) = works.iter().partition(|groups| groups.len() == most);
    let row = |place: usize| beside.iter().map(move |groups| groups[place]);
    (0..most).flat_map(row).chain(last.into_iter().flatten().copied()).collect()
}

/// Sections that were written elsewhere, from measurements of their own: `benchmarks/*.md`, in the order of their names. Each
/// begins with its heading, `## …`, and has its links as they are to be in the document.
fn fragments(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = files.into_iter().filter(|file| file.extension().is_some_and(|it| it == "md")).collect();
    files.sort();
    Ok(files)
}

fn capital(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

fn head(runs: &[Run]) -> String {
    let quick = if runs[0].quick { "**A quick run: the figures mean nothing.**\n\n" } else { "" };
    let measured: String = runs.iter().map(measured).collect();
    let (gains, others) = (gains::table(runs), if runs.len() == 1 { ONE_MACHINE } else { "" });
    let sections: String = SECTIONS.iter().map(Section::row).collect();
    format!(
        "\
# Benchmarks

<!-- Written by benches/peers. Change that, or measure again. -->

`ipc` beside the bare system calls, the standard library and other crates, all in one run.

{quick}![How many times as fast with ipc](benchmarks/gains.svg)

{gains}
`2×` means twice as fast, both measured in turns within one run. A short write into a pipe, and a datagram for each \
message, gain nothing: they are about as fast as the bare system calls.

| A program that… | finds its figures in |
|---|---|
{sections}
## How to read a table

- **Compare the figures of one table only.** Its contenders take turns within one run, so a disturbance meets all of them. \
Another machine, or this one on another day, has other figures; the ratios are what lasts.
- A figure is a **median**, with the quartiles in brackets. The best figure of a column is bold, and so are the names of \
this crate's rows.
- The two processes have **a core each**, unless the section says otherwise.
- **`bare`** rows make the system calls through `libc`, with nothing around them. **`ipc`** rows use the crate as it comes, \
with the settings that are named. All others are used as their documentation recommends. [The details](#how-each-is-used) \
are at the end.
- A column marked **(far)** was measured on two cores that share no cache. A virtual machine's host moves the cores about, \
within seconds. On the EPYC, two cores that share a cache pass a cache line there and back in about 110 ns, others in \
about 480 ns. \
The difference slows everything between the two processes, by more than most contenders differ. So it is probed before and after \
each measurement, which is thrown away if it changed.

Measured on:

{measured}{others}
To measure again, and to write this page again from the kept samples:

```sh
cargo run --release --manifest-path benches/peers/Cargo.toml
cargo run --release --manifest-path benches/peers/Cargo.toml -- --render
```

"
    )
}

/// Said while there is one run.
const ONE_MACHINE: &str = "
Another kind of machine may have another order. Its run is kept beside this one, and gets columns of its own.
";

/// One run: where, when, and where its samples are.
fn measured(run: &Run) -> String {
    let Run { machine, date, .. } = run;
    format!(
        "- {}, {} cores, Linux {}, with {}, commit {}, on {date}, in {} min: [every sample](../benches/peers/results/{})\n",
        machine.name(),
        machine.cores,
        machine.kernel,
        machine.rustc,
        machine.commit.as_deref().unwrap_or("unknown"),
        run.seconds.div_ceil(60),
        run.file_name(),
    )
}
