//! The work: pieces of files, which are taken, done, or given back.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::work::Job;

/// A piece is about so long. It ends behind the next white space, so that no word is in two.
const PIECE: usize = 256 << 10;

pub struct Pieces {
    state: Mutex<State>,
    changed: Condvar,
    half: u64,
}

struct State {
    files: Vec<PathBuf>,
    /// The file that is read, and how many were before it.
    open: Option<BufReader<File>>,
    next_file: usize,
    next_number: u64,
    given_back: Vec<Job>,
    taken: usize,
    counted: u64,
    words: Vec<Result<u64, String>>,
    /// The machine that fails when half of the bytes are counted, until it is gone.
    fails: Option<usize>,
    has_failed: bool,
}

impl Pieces {
    /// The pieces of the files, with the machine that is to fail half-way.
    pub fn new(files: &[PathBuf], fails: Option<usize>) -> Self {
        let bytes: u64 = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
        let state = State {
            files: files.to_vec(),
            open: None,
            next_file: 0,
            next_number: 0,
            given_back: Vec::new(),
            taken: 0,
            counted: 0,
            words: vec![Ok(0); files.len()],
            fails,
            has_failed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), half: bytes / 2 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece for a machine. Waits while others have some that they may give back. `None`: all is done.
    ///
    /// When half is counted, all wait until the machine that fails has failed, and then until it has noticed that with a
    /// piece of its own. The others could be done before.
    pub fn take(&self, machine: usize) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.counted >= self.half && state.fails.is_some_and(|fails| !state.has_failed || fails != machine) {
                state = self.wait(state);
                continue;
            }
            if let Some(job) = state.given_back.pop().or_else(|| state.read()) {
                state.taken += 1;
                return Some(job);
            }
            if state.taken == 0 {
                return None;
            }
            state = self.wait(state);
        }
    }

    pub fn done(&self, job: &Job, words: u64) {
        let mut state = self.state();
        state.taken -= 1;
        state.counted += job.text.len() as u64;
        if let Ok(sum) = &mut state.words[job.file as usize] {
            *sum += words;
        }
        self.changed.notify_all();
    }

    pub fn give_back(&self, job: Job) {
        let mut state = self.state();
        state.taken -= 1;
        state.given_back.push(job);
        self.changed.notify_all();
    }

    /// The machine takes no more pieces.
    pub fn is_gone(&self, machine: usize) {
        let mut state = self.state();
        state.fails = state.fails.filter(|fails| *fails != machine);
        self.changed.notify_all();
    }

    /// The machine that was to fail has failed.
    pub fn has_failed(&self) {
        self.state().has_failed = true;
        self.changed.notify_all();
    }

    /// Blocks until half of the bytes were counted. `false`: no machine counts any more, or the one that is to fail does not.
    pub fn wait_for_half(&self) -> bool {
        let mut state = self.state();
        while state.counted < self.half {
            if state.is_over() || state.taken == 0 && !state.given_back.is_empty() {
                return false;
            }
            state = self.wait(state);
        }
        state.fails.is_some()
    }

    /// Prints what `wc -w` would. `false`: not all could be counted.
    pub fn print(&self, files: &[PathBuf]) -> bool {
        let state = self.state();
        if !state.is_over() {
            eprintln!("count_words_cluster: no machine is left");
            return false;
        }
        let counts: Vec<_> = state.words.iter().map(|words| *words.as_ref().unwrap_or(&0)).collect();
        let total: u64 = counts.iter().sum();
        let width = if files.len() > 1 { digits(&state.files) } else { 1 };
        for ((file, words), count) in files.iter().zip(&state.words).zip(counts) {
            if let Err(error) = words {
                eprintln!("count_words_cluster: {}: {error}", file.display());
            }
            // A folder can be opened, so `wc` has a line for it.
            if words.is_ok() || file.is_dir() {
                println!("{count:width$} {}", file.display());
            }
        }
        if files.len() > 1 {
            println!("{total:width$} total");
        }
        state.words.iter().all(Result::is_ok)
    }
}

/// How wide `wc` makes its columns: as the sum of the files' sizes.
fn digits(files: &[PathBuf]) -> usize {
    let len = |file: &Path| file.metadata().map_or(0, |file| if file.is_file() { file.len() } else { 1_000_000 });
    files.iter().map(|file| len(file)).sum::<u64>().to_string().len()
}

impl State {
    fn is_over(&self) -> bool {
        self.taken == 0 && self.given_back.is_empty() && self.open.is_none() && self.next_file == self.files.len()
    }

    /// Reads the next piece. A file that cannot be read is passed over.
    fn read(&mut self) -> Option<Job> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => {
                    let file = self.files.get(self.next_file)?;
                    self.next_file += 1;
                    match File::open(file) {
                        Ok(file) => BufReader::with_capacity(PIECE, file),
                        Err(error) => {
                            self.words[self.next_file - 1] = Err(said(&error));
                            continue;
                        }
                    }
                }
            };
            match piece(&mut open) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.open = Some(open);
                    self.next_number += 1;
                    return Some(Job { number: self.next_number, file: self.next_file as u32 - 1, text });
                }
                Err(error) => self.words[self.next_file - 1] = Err(said(&error)),
            }
        }
    }
}

/// The next bytes of a file, up to and with white space. None: it is at its end.
fn piece(file: &mut BufReader<File>) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let here = match file.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            here => here?,
        };
        if here.is_empty() {
            return Ok(text);
        }
        let start = PIECE.saturating_sub(text.len()).min(here.len());
        let end = here[start..].iter().position(|byte| *byte == b'\n' || *byte == b' ').map(|at| start + at + 1);
        let count = end.unwrap_or(here.len());
        text.extend_from_slice(&here[..count]);
        file.consume(count);
        if end.is_some() {
            return Ok(text);
        }
        if text.len() > 32 << 20 {
            return Err(std::io::Error::other("a word is longer than 32 MiB"));
        }
    }
}

fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
