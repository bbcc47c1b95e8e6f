//! Counts the words of files with a worker for each core, and prints what `wc -w` prints.
//!
//! The files are handed out as messages over a datagram pair to each worker, one at a time, so that a slow one holds nobody
//! up. The counts come back as atomic records through one pipe that all workers write to. The master sits in `wait_any` over
//! that pipe and the workers themselves; one that dies is replaced, and its file goes to another.

mod count;
mod crew;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crew::{Counted, Crew};

const HELP: &str = "\
usage: count_words [--workers N] [--kill-one] [--help] [FILE…]

Counts words as `wc -w` does in a UTF-8 locale; without a FILE, those of the Markdown files below this folder.

  --workers N   so many processes count (default: one for each core)
  --kill-one    one of them kills itself half-way through a file, to show that nothing is lost
  --help        this text";

struct Options {
    workers: usize,
    kill_one: bool,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("count_words: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match count(&options) {
        Ok(code) => code,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            eprintln!("count_words: {error}{}", source.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, String> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut options = Options { workers: cores, kill_one: false, files: Vec::new() };
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help") => return Ok(None),
            Some("--kill-one") => options.kill_one = true,
            Some("--workers") => {
                let number = args.next().and_then(|number| number.to_str()?.parse().ok());
                options.workers = number.filter(|number| *number > 0).ok_or("--workers takes a number over 0")?;
            }
            Some("--") => options.files.extend(args.by_ref().map(PathBuf::from)),
            Some(unknown) if unknown.starts_with("--") => return Err(format!("there is no option {unknown}")),
            _ => options.files.push(arg.into()),
        }
    }
    if options.files.is_empty() {
        let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from("."));
        markdown(Path::new(&folder), &mut options.files);
        options.files.sort();
        if let Ok(here) = std::env::current_dir() {
            options.files.iter_mut().for_each(|file| *file = file.strip_prefix(&here).unwrap_or(file).to_owned());
        }
        if options.files.is_empty() {
            return Err("there is no Markdown here to count".to_owned());
        }
    }
    Ok(Some(options))
}

/// The Markdown files below a folder; what cargo and git put there is left out.
fn markdown(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.as_encoded_bytes().starts_with(b".") || name == "target";
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !hidden => markdown(&path, files),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") => {
                files.push(path)
            }
            _ => {}
        }
    }
}

fn count(options: &Options) -> ipc::Result<ExitCode> {
    let files = &options.files;
    let mut crew = Crew::start(files, options.workers.min(files.len()), options.kill_one)?;
    let terminal = std::io::stderr().is_terminal();
    while !crew.is_done() {
        crew.work_on()?;
        for words in crew.news() {
            eprintln!("{}count_words: {words}", if terminal { "\r\x1b[K" } else { "" });
        }
        if terminal {
            eprint!("\r\x1b[K{} of {} files, {} words", crew.done(), files.len(), crew.words());
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    print(files, &crew.finish()?)
}

/// The lines of `wc`, with its column widths.
fn print(files: &[PathBuf], counted: &[Counted]) -> ipc::Result<ExitCode> {
    let width = width(files);
    let mut out = std::io::stdout().lock();
    let (mut total, mut code) = (0, ExitCode::SUCCESS);
    for (path, counted) in files.iter().zip(counted) {
        if let Some(error) = &counted.error {
            out.flush()?;
            eprintln!("count_words: {}: {error}", path.display());
            code = ExitCode::FAILURE;
        }
        if let Some(words) = counted.words {
            total += words;
            write!(out, "{words:width$} ")?;
            out.write_all(path.as_os_str().as_encoded_bytes())?;
            writeln!(out)?;
        }
    }
    if files.len() > 1 {
        writeln!(out, "{total:width$} total")?;
    }
    out.flush()?;
    Ok(code)
}

/// As wide as the sum of all sizes, and at least 7 if one is no regular file; a single file needs no column.
fn width(files: &[PathBuf]) -> usize {
    if files.len() == 1 {
        return 1;
    }
    let known: Vec<_> = files.iter().filter_map(|path| std::fs::metadata(path).ok()).collect();
    let regular: u64 = known.iter().filter(|file| file.is_file()).map(|file| file.len()).sum();
    let least = if known.iter().all(|file| file.is_file()) { 1 } else { 7 };
    regular.to_string().len().max(least)
}
