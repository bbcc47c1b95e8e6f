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

/// A section: which kinds of work, and what to know about them.
struct Section {
    title: &'static str,
    /// Of the picture's file.
    file: &'static str,
    works: &'static [&'static str],
    log: bool,
    text: &'static str,
}

const SECTIONS: [Section; 10] = [
    Section {
        title: "Streams",
        file: "streams",
        works: &[streams::WORK, streams::ONE_CORE],
        log: true,
        text: "One process writes so much at a time, with `write_all`; the other one reads what there is, up to 64 KiB at a \
               time, and adds up all of it. Where there is a buffer on both sides, what is read is as long as what was \
               written, for that is what one has buffers for. Crates that pass messages are in the next section.",
    },
    Section {
        title: "Messages, one way",
        file: "messages",
        works: &[messages::WORK],
        log: true,
        text: "One process sends, the other one receives. A message has arrived when it is in memory that the sender cannot \
               change any more, and every byte of it was read: shared memory is copied, what a crate returns in a vector or \
               shows in a buffer of its own is not.",
    },
    Section {
        title: "Values, one way",
        file: "values",
        works: &[values::STRUCTS, values::BYTES],
        log: true,
        text: "One process sends values of a type, each made anew; the other one receives them and adds up all that is in \
               them. 16 B is one structure of three numbers, and what is longer a `Vec` of them; bytes are a `ByteBuf` of \
               serde_bytes. Sizes are those in memory.",
    },
    Section {
        title: "Round trips",
        file: "round-trips",
        works: &[round_trips::SLEEPING, round_trips::SPINNING, round_trips::ONE_CORE],
        log: true,
        text: "A message to the other process and one of the same length back. A figure is the median over rounds of the \
               medians over trips, and p99 the median of the 99th percentiles. Who sleeps while it waits has to be woken, \
               which takes most of the time; who spins does not, and keeps a core busy. So these are not compared with one \
               another. On one core that both share, spinning is in vain.",
    },
    Section {
        title: "Under tokio",
        file: "tokio",
        works: &[runtimes::STREAMS, runtimes::MESSAGES, runtimes::ROUND_TRIPS, runtimes::MANY, runtimes::PROGRAMS],
        log: true,
        text: "The same as above, awaited: each process has a runtime on its one thread. A thousand ends are those of a thousand \
               tasks that answer, in one runtime with who asks them; the time is that of one answer. A program is fed so much and \
               gives it back.",
    },
    Section {
        title: "What a call costs",
        file: "calls",
        works: &[calls::BYTES, calls::MESSAGES],
        log: false,
        text: "A write and a read, or a send and a receive, in one process, so that nobody waits: what a wrapper adds to the \
               system calls.",
    },
    Section {
        title: "Making and closing a channel",
        file: "making",
        works: &[making::WORK],
        log: true,
        text: "Both ends, in one process. For `iceoryx2` it is a service with a publisher and a subscriber.",
    },
    Section {
        title: "Fork and wait",
        file: "forking",
        works: &[forking::WORK],
        log: false,
        text: "A child that leaves at once. `ipc::fork` severs every end that it was not given, here all of them, holds back \
               signals meanwhile, and holds the child by a pidfd; the bare calls leave all ends open in the child.",
    },
    Section {
        title: "Starting a program",
        file: "starting",
        works: &[starting::WORK],
        log: true,
        text: "`/bin/true`, started and waited for. A fork has to copy the page tables of the process, so it takes longer the \
               larger that is.",
    },
    Section {
        title: "A worker of a program",
        file: "serving",
        works: &[serving::WORK],
        log: true,
        text: "A worker that leaves at once, until it was waited for. A fork server is a process from before the program had \
               memory and threads, and so a worker costs the same from either. A bare fork beside threads may do nothing but \
               leave, as here; `ipc::fork` refuses it. Python's program is a small one in both columns.",
    },
];

/// Whether the contender is of the crate that this is about.
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
        let _ = write!(text, "## {}\n\n{}\n\n", section.title, section.text);
        for part in of_runs {
            text.push_str(&part?);
        }
    }
    for fragment in fragments(&pictures)? {
        let _ = writeln!(text, "{}\n", fs::read_to_string(fragment)?.trim_end());
    }
    let _ = write!(
        text,
        "## The marks\n\nWhat the crate is held to. `×` is how many times as fast.\n\n{}\n",
        marks::table(runs)
    );
    text.push_str("## How each is used\n\n");
    for (name, note) in &runs[0].notes {
        let version = runs[0].versions.get(name).map(|version| format!(" {version}")).unwrap_or_default();
        let _ = writeln!(text, "- **{name}{version}**: {note}");
    }
    fs::write(folder.join("benchmarks.md"), text)
}

impl Section {
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

/// The panels of a picture. Where two kinds of work have the same cases, they stand beside one another; what is left comes
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
    format!(
        "\
# Benchmarks

<!-- Written by benches/peers. Change that, or measure again. -->

What a program gains with `ipc`, and what that costs beside the bare system calls, the standard library and other crates.

{quick}![How many times as fast with ipc](benchmarks/gains.svg)

{gains}
Each figure is how many times as fast the second is, both in one run. Where `ipc` gains nothing, the sections below say \
so: a short write into a pipe, and a message of its own for each datagram, are as fast as the bare system calls, and no \
faster.

## How to read it

Two processes, each on a core of its own. The contenders of a table take turns, round by round, in one run, so whatever \
the machine does meets all of them. A figure is a median, and the quartiles in brackets say how far it can be trusted.

**What counts are the ratios** between the figures of one table. Another machine, or this one on another day, has other \
figures.

**Near and far.** On a virtual machine the host moves cores about, within seconds. Where the two share a cache, a cache \
line goes to the other core and back in about 110 ns (near); where they do not, in about 480 ns (far), and everything \
that passes between them is slower by more than most contenders differ. So that round trip is probed before and after each \
measurement; a measurement during which it changed is thrown away and made again, and only those of one class are \
compared: near ones, for which the run waits a while, unless a column says far.

What is measured is made with `bare` system calls through `libc`, with nothing around them; with `ipc` as it comes, and \
with the settings that are named; and with the others as their documentation recommends. [What that is](#how-each-is-used) \
stands at the end, after [the marks](#the-marks) that the crate is held to.

Measured on:

{measured}{others}
To measure again, and to write this page again from what is kept:

```sh
cargo run --release --manifest-path benches/peers/Cargo.toml
cargo run --release --manifest-path benches/peers/Cargo.toml -- --render
```

"
    )
}

/// Said while there is nothing to compare with.
const ONE_MACHINE: &str = "
One kind of machine is not every kind: what is best here may not be best on yours. A run on another one is kept beside \
this one, and shown in a column of its own.
";

/// One run: where, when, and where its samples are.
fn measured(run: &Run) -> String {
    let Run { machine, date, .. } = run;
    format!(
        "- {}, {} cores, Linux {}, with {}, on {date}, in {} min: [every sample](../benches/peers/results/{})\n",
        machine.name(),
        machine.cores,
        machine.kernel,
        machine.rustc,
        run.seconds.div_ceil(60),
        run.file_name(),
    )
}
