//! Counts the words of files with a worker for each core, and prints what `wc -w` prints.
//!
//! The files are handed out as messages over a datagram pair to each worker. A worker gets one at a time, so a slow one
//! holds nobody up. The counts come back as atomic records through one pipe that all workers write to. The master sits in
//! `wait_any` over that pipe and the workers themselves. One that dies is replaced, and its file goes to another. However
//! the master ends, no worker counts on: a lifeline tells them, and the kernel ends those that cannot look at it.

mod count;
mod crew;
mod input;
mod names;
mod records;
mod stdout;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crew::{Counted, Crew};
use input::Input;
use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
usage: count_words [--workers N] [--kill-one] [--help] [FILE…]

Counts words and prints what `LC_ALL=C.UTF-8 wc -w` prints. Without a FILE, or where it is -, those of the standard input.

  --workers N   so many processes count (default: one for each core)
  --kill-one    one of them kills itself half-way through a file, to show that nothing is lost
  --help        this text

Bytes that are not UTF-8 neither make a word nor end one, as for `wc` of GNU coreutils 9.1; other versions may count them.
Characters that Unicode has not assigned make words here, and none for `wc`. Only regular files are read once more when a
worker dies: anything else, such as the standard input, is given up then.
";

struct Options {
    workers: usize,
    kill_one: bool,
    inputs: Vec<Input>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            return match stdout::put(HELP.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => stdout::failed(&error),
            };
        }
        Err(wrong) => {
            say(&format!("{wrong}\n{}", HELP.trim_end()));
            return ExitCode::from(2);
        }
    };
    let counted = match count(&options) {
        Ok(counted) => counted,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    match print(&options.inputs, &counted) {
        Ok(code) => code,
        Err(error) => stdout::failed(&error),
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut options = Options { workers: cores, kill_one: false, inputs: Vec::new() };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => return Ok(None),
            Arg::Long("kill-one") => options.kill_one = true,
            Arg::Long("workers") => options.workers = parser.value()?.parse_with(positive)?,
            Arg::Value(name) => options.inputs.push(Input::named(name)),
            unknown => return Err(unknown.unexpected()),
        }
    }
    if options.inputs.is_empty() {
        options.inputs.push(Input::Stdin { name: None });
    }
    Ok(Some(options))
}

fn positive(number: &str) -> Result<usize, &'static str> {
    number.parse().ok().filter(|number| *number > 0).ok_or("--workers takes a number over 0")
}

/// A line for a person. Without a reader, the program goes on.
fn say(text: &str) {
    let mut out = io::stderr();
    let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(out, "{clear}count_words: {text}");
}

/// The text of an error of the system, without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn count(options: &Options) -> ipc::Result<Vec<Counted>> {
    let inputs = &options.inputs;
    let mut crew = Crew::start(inputs, options.workers.min(inputs.len()), options.kill_one)?;
    let mut terminal = Some(io::stderr()).filter(|stderr| stderr.is_terminal());
    while !crew.is_done() {
        crew.work_on()?;
        crew.news().iter().for_each(|news| say(news));
        if let Some(terminal) = &mut terminal {
            // A terminal that is gone is no reason to stop.
            let _ = write!(terminal, "\r\x1b[K{} of {} files, {} words", crew.done(), inputs.len(), crew.words());
        }
    }
    if let Some(terminal) = &mut terminal {
        let _ = write!(terminal, "\r\x1b[K");
    }
    crew.finish()
}

/// The lines of `wc`, with its column widths.
fn print(inputs: &[Input], counted: &[Counted]) -> io::Result<ExitCode> {
    let width = width(inputs);
    let (mut lines, mut total, mut code) = (Vec::new(), 0, ExitCode::SUCCESS);
    for (input, counted) in inputs.iter().zip(counted) {
        if let Some(error) = &counted.error {
            stdout::put(&std::mem::take(&mut lines))?;
            match input {
                Input::File(path) if path.as_os_str().is_empty() => say("invalid zero-length file name"),
                _ => say(&format!("{input}: {error}")),
            }
            code = ExitCode::FAILURE;
        }
        if let Some(words) = counted.words {
            total += words;
            write!(lines, "{words:width$}")?;
            lines.extend(input.beside_number());
            lines.push(b'\n');
        }
    }
    if inputs.len() > 1 {
        writeln!(lines, "{total:width$} total")?;
    }
    stdout::put(&lines)?;
    Ok(code)
}

/// As wide as the sum of all sizes, and at least 7 if one is no regular file; a single number needs no column.
fn width(inputs: &[Input]) -> usize {
    if inputs.len() == 1 {
        return 1;
    }
    let known: Vec<_> = inputs.iter().filter_map(|input| input.metadata().ok()).collect();
    let regular: u64 = known.iter().filter(|file| file.is_file()).map(|file| file.len()).sum();
    let least = if known.iter().all(|file| file.is_file()) { 1 } else { 7 };
    regular.to_string().len().max(least)
}
