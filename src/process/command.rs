//! Starting another program, with ends given to it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

use super::Child;
use super::claim::{Given, VARIABLE, describe};
use super::stdio::Stdio;
use crate::end::{End, Ends};
use crate::sys::descriptor::duplicate;
use crate::sys::poll::POLLIN;
use crate::sys::signal::Mask;
use crate::sys::spawn::{Program, first_that_works};
use crate::sys::{self, ledger, signal};
use crate::wait::{Patience, Spin, Wait, wait_any};
use crate::{Error, Result};

/// Where a program is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Another program to be started, with the ends that it is given.
///
/// A builder by value, with the method names of [`std::process::Command`] where the meaning is the same. The classic trap
/// of that one is that it keeps the descriptors that it was given as standard input and output for as long as it lives,
/// so that a stream does not end while it lies around; this one is used up by [`spawn`](Self::spawn), and keeps nothing.
///
/// The program gets the ends that are given here, and nothing else of this crate: every end is close-on-exec. It starts
/// with `SIGPIPE` at its default and no signal blocked. Its descriptors are set in the new process alone, so that nothing
/// that another thread starts at the same moment can see them.
///
/// It costs the same however large this process is, and may be used in a process with threads.
///
/// # Platform
///
/// posix_spawn(3), pidfd_open(2).
///
/// # Examples
///
/// ```
/// use std::io::Read;
///
/// let (mut reader, writer) = ipc::pipe()?;
/// let child = ipc::Command::new("echo").arg("hello").stdout(writer).spawn()?;
///
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "hello\n");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// A program that uses this crate takes its ends by name, with [`claim`](crate::claim):
///
/// ```no_run
/// # let (reader, writer) = ipc::pipe()?;
/// let child = ipc::Command::new("worker").arg("--fast").give("results", writer).stdin(reader).spawn()?;
/// # Ok::<(), ipc::Error>(())
/// ```
pub struct Command(Box<Parts>);

struct Parts {
    program: OsString,
    args: Vec<Arg>,
    clear: bool,
    /// `None`: removed.
    environment: BTreeMap<OsString, Option<OsString>>,
    directory: Option<PathBuf>,
    stdio: [Option<Stdio>; 3],
    given: Vec<(Place, Box<dyn Ends + Send + Sync>)>,
}

enum Arg {
    Text(OsString),
    /// The path of that element of `given`.
    PathOf(usize),
}

/// Where the program finds something.
enum Place {
    Name(String),
    Number(RawFd),
    Path,
}

impl Command {
    /// A program to be started. Without a slash in its name it is looked for along the `PATH` that it will have.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self(Box::new(Parts {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            clear: false,
            environment: BTreeMap::new(),
            directory: None,
            stdio: [None, None, None],
            given: Vec::new(),
        }))
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.args.push(Arg::Text(arg.as_ref().to_owned()));
        self
    }

    /// Adds several arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args.extend(args.into_iter().map(|arg| Arg::Text(arg.as_ref().to_owned())));
        self
    }

    /// Sets a variable of the program's environment, which is else this process's.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.0.environment.insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets several variables.
    pub fn envs(self, variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        variables.into_iter().fold(self, |command, (key, value)| command.env(key, value))
    }

    /// Removes a variable.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.0.environment.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Starts with an empty environment. Variables that were set before are gone too.
    pub fn env_clear(mut self) -> Self {
        self.0.clear = true;
        self.0.environment.clear();
        self
    }

    /// Sets the directory that the program starts in. A relative path of the program itself is then looked for from there.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.0.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets the standard input: an end, a file, or a [`Stdio`]. Else it is this process's.
    pub fn stdin(self, stdin: impl Into<Stdio>) -> Self {
        self.stdio(0, stdin.into())
    }

    /// Sets the standard output: an end, a file, or a [`Stdio`]. Else it is this process's.
    pub fn stdout(self, stdout: impl Into<Stdio>) -> Self {
        self.stdio(1, stdout.into())
    }

    /// Sets the standard error: an end, a file, or a [`Stdio`]. Else it is this process's.
    pub fn stderr(self, stderr: impl Into<Stdio>) -> Self {
        self.stdio(2, stderr.into())
    }

    fn stdio(mut self, number: usize, stdio: Stdio) -> Self {
        self.0.stdio[number] = Some(stdio);
        self
    }

    /// Gives an end under a name, which the program asks [`claim`](crate::claim) for.
    ///
    /// It keeps its descriptor number, unless that is wanted by a [`give_at`](Self::give_at). A program in another language
    /// finds the number in the environment variable `IPC_ENDS` (`docs/given-ends.md`).
    pub fn give(self, name: impl Into<String>, end: impl Ends + Send + Sync + 'static) -> Self {
        self.give_to(Place::Name(name.into()), end)
    }

    /// Gives an end under that descriptor number. Permutations come out right.
    pub fn give_at(self, number: RawFd, end: impl Ends + Send + Sync + 'static) -> Self {
        self.give_to(Place::Number(number), end)
    }

    /// Gives an end, and adds `/dev/fd/N` as an argument, for a program that wants the name of a file.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let (reader, mut writer) = ipc::pipe()?;
    /// writer.write_all(b"three\nlittle\nlines\n")?;
    /// drop(writer);
    /// let counted = ipc::Command::new("wc").arg("-l").give_path(reader).output()?;
    /// assert!(counted.stdout.starts_with(b"3 /dev/fd/"));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn give_path(mut self, end: impl Ends + Send + Sync + 'static) -> Self {
        self.0.args.push(Arg::PathOf(self.0.given.len()));
        self.give_to(Place::Path, end)
    }

    fn give_to(mut self, place: Place, end: impl Ends + Send + Sync + 'static) -> Self {
        self.0.given.push((place, Box::new(end)));
        self
    }

    /// Starts the program, and does not wait for it. What it was given is closed in this process.
    ///
    /// # Errors
    ///
    /// The error gives the command back, with its ends, and `?` turns it into [`Error`]. Nothing runs:
    ///
    /// - [`Error::System`] of `posix_spawn`: `ENOENT` there is no such program (or directory), `EACCES` it may not be
    ///   started, `EBADF` a [`give_at`](Self::give_at) number over `RLIMIT_NOFILE`; of `fcntl`, `EMFILE`: no descriptor is
    ///   left, of which every given end takes one or two for the length of the call; of `give` or `new`: a number or a name
    ///   that is given twice, something given that is not exactly one descriptor, a nul byte; of `pidfd_open` or `waitid`: the
    ///   program could not be held, because no descriptor is left or a sandbox refuses it.
    /// - [`Error::NotGiven`]: one of the ends was not given to this process.
    /// - [`Error::SigchldIgnored`]: the program could not be waited for.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        match self.0.spawn() {
            Ok(child) => Ok(child),
            Err(error) => Err(SpawnError { command: self, error }),
        }
    }

    /// Starts the program and blocks until it has left; says how.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    pub fn status(self) -> Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Starts the program, blocks until it has left and closed its standard output and error, and returns what it wrote to
    /// them.
    ///
    /// If nothing was set, its standard input is `/dev/null`. What was set otherwise is left so, and the part of the result
    /// is empty.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`]. [`Error::System`] of `read`: what it writes cannot be read, as with no
    /// descriptor left for what stands in for `RWF_NOWAIT`; the program was killed.
    pub fn output(mut self) -> Result<Output> {
        self.0.stdio[0].get_or_insert_with(Stdio::null);
        let mut readers = [None, None];
        for (reader, stdio) in readers.iter_mut().zip(&mut self.0.stdio[1..]) {
            if stdio.is_none() {
                let (ours, theirs) = sys::pipe::pair(false).map_err(|errno| Error::system("pipe2", errno))?;
                *reader = Some(End::new(ours)?);
                *stdio = Some(Stdio::end(End::new(theirs)?));
            }
        }
        let child = self.spawn()?;
        let read = read_both(readers);
        if read.is_err() {
            // One that runs as another user by now cannot be killed. It has lost its readers, and is waited for all the same.
            let _ = child.kill();
        }
        let status = child.wait();
        let [stdout, stderr] = read?;
        Ok(Output { status: status?, stdout, stderr })
    }

    /// Becomes the program: this process runs it from here on. Returns only if that does not work.
    ///
    /// For a child that gives something up first, such as privileges. Descriptors that are not close-on-exec stay open.
    /// Rust's stdout is flushed. If it fails, everything that was changed is put back.
    ///
    /// Other threads are ended by it, and see the descriptors change before: best in a process with a single thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let (mut reader, writer) = ipc::pipe()?;
    /// let child = ipc::fork(writer, |writer| {
    ///     let refused = ipc::Command::new("echo").arg("hello").stdout(writer).exec();
    ///     Err::<(), _>(refused)
    /// })?;
    /// assert_eq!(std::io::read_to_string(&mut reader)?, "hello\n");
    /// assert!(child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn exec(self) -> SpawnError {
        let error = self.0.exec();
        SpawnError { command: self, error }
    }
}

/// Everything that a program starts with, made ready; what it took is given back when this is dropped.
struct Ready {
    paths: Vec<CString>,
    args: Vec<CString>,
    environment: Vec<CString>,
    directory: Option<CString>,
    moves: Vec<(OwnedFd, RawFd)>,
    /// Keep numbers free that something is to be moved to.
    _places: Vec<OwnedFd>,
}

impl Ready {
    fn program(&self) -> Program<'_> {
        Program {
            args: &self.args,
            environment: &self.environment,
            directory: self.directory.as_deref(),
            moves: &self.moves,
        }
    }
}

impl Parts {
    fn spawn(&self) -> Result<Child> {
        if signal::loses_children() {
            return Err(Error::SigchldIgnored);
        }
        Child::check()?;
        let ready = self.ready()?;
        // A place for the pidfd, so that a full table refuses the start instead of losing the child.
        let place = sys::process::pidfd(sys::process::own_pid()).map_err(|errno| Error::system("pidfd_open", errno))?;
        let program = ready.program();
        // Signals wait until it is held: a handler that waits for whatever child has left would take it away before.
        let mask = Mask::block_all();
        let started = first_that_works(&ready.paths, |path| program.spawn(path));
        drop(place);
        let child = started.map_err(|errno| Error::system("posix_spawn", errno)).and_then(Child::hold);
        mask.restore();
        child
    }

    fn exec(&self) -> Error {
        let ready = match self.ready() {
            Ok(ready) => ready,
            Err(error) => return error,
        };
        if let Err(source) = io::Write::flush(&mut io::stdout()) {
            return Error::System { call: "write", source };
        }
        Error::system("execve", ready.program().exec(&ready.paths))
    }

    fn ready(&self) -> Result<Ready> {
        let mut places = Places::new(self)?;
        let mut moves = Vec::new();
        let mut described = Vec::new();
        let mut numbers = Vec::new();
        for (number, stdio) in self.stdio.iter().enumerate() {
            if let Some(fd) = stdio.as_ref().map(Stdio::open).transpose()?.flatten() {
                moves.push((places.copy(fd.as_fd())?, number as RawFd));
            }
        }
        for (place, end) in &self.given {
            let (number, device, inode) = one(&**end, |fd| {
                let number = match place {
                    Place::Number(number) => *number,
                    Place::Name(_) | Place::Path => places.own_number(fd)?,
                };
                moves.push((places.copy(fd)?, number));
                let stat = rustix::fs::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                Ok((number, stat.st_dev, stat.st_ino))
            })?;
            if let Place::Name(name) = place {
                described.push(Given { name: name.clone(), number, device, inode });
            }
            numbers.push(number);
        }
        let args = self.args.iter().map(|arg| match arg {
            Arg::Text(text) => c_string(text),
            Arg::PathOf(given) => c_string(OsStr::new(&format!("/dev/fd/{}", numbers[*given]))),
        });
        let args = std::iter::once(c_string(&self.program)).chain(args).collect::<Result<_>>()?;
        let environment = self.environment(&described);
        Ok(Ready {
            paths: self.paths(&environment).into_iter().map(|path| c_string(&path)).collect::<Result<_>>()?,
            args,
            environment: environment
                .into_iter()
                .map(|(mut entry, value)| {
                    entry.push("=");
                    entry.push(value);
                    c_string(&entry)
                })
                .collect::<Result<_>>()?,
            directory: self.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?,
            moves,
            _places: places.held,
        })
    }

    fn environment(&self, described: &[Given]) -> BTreeMap<OsString, OsString> {
        let mut environment = BTreeMap::new();
        if !self.clear {
            environment.extend(std::env::vars_os());
        }
        for (key, value) in &self.environment {
            match value {
                Some(value) => environment.insert(key.clone(), value.clone()),
                None => environment.remove(key),
            };
        }
        // What this process was given, it does not pass on by inheritance.
        environment.remove(OsStr::new(VARIABLE));
        if !described.is_empty() {
            environment.insert(VARIABLE.into(), describe(described));
        }
        environment
    }

    /// Where the program may be, in the order to try.
    fn paths(&self, environment: &BTreeMap<OsString, OsString>) -> Vec<OsString> {
        if self.program.as_bytes().contains(&b'/') || self.program.is_empty() {
            return vec![self.program.clone()];
        }
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        let directories = path.as_bytes().split(|byte| *byte == b':');
        directories
            .map(|directory| {
                let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
                OsString::from_vec([directory, b"/", self.program.as_bytes()].concat())
            })
            .collect()
    }
}

/// The numbers that descriptors have in the program.
struct Places {
    /// Those that are asked for.
    fixed: Vec<RawFd>,
    /// Descriptors of this process that keep a number free.
    held: Vec<OwnedFd>,
}

impl Places {
    fn new(parts: &Parts) -> Result<Self> {
        let stdio =
            (0..).zip(&parts.stdio).filter(|(_, stdio)| stdio.as_ref().is_some_and(|stdio| !stdio.is_inherited()));
        let mut fixed: Vec<RawFd> = stdio.map(|(number, _)| number).collect();
        let mut names = Vec::new();
        for (place, _) in &parts.given {
            match place {
                Place::Number(number) if *number < 0 => return Err(misuse("give_at", "the number is negative")),
                Place::Number(number) if fixed.contains(number) => {
                    return Err(misuse("give_at", "two ends are given the same number"));
                }
                Place::Number(number) => fixed.push(*number),
                Place::Name(name) if names.contains(&name) => {
                    return Err(misuse("give", "two ends are given the same name"));
                }
                Place::Name(name) => names.push(name),
                Place::Path => {}
            }
        }
        Ok(Self { fixed, held: Vec::new() })
    }

    /// A copy of a descriptor, at a number that nothing else is to have in the program.
    fn copy(&mut self, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
        loop {
            let copy = duplicate(fd).map_err(|errno| Error::system("fcntl", errno))?;
            if !self.fixed.contains(&copy.as_raw_fd()) {
                return Ok(copy);
            }
            self.held.push(copy);
        }
    }

    /// The number that the descriptor has here; or another, where that is asked for by something else.
    fn own_number(&mut self, fd: BorrowedFd<'_>) -> Result<RawFd> {
        let mut number = fd.as_raw_fd();
        if number <= 2 || self.fixed.contains(&number) {
            let place = self.copy(fd)?;
            number = place.as_raw_fd();
            self.held.push(place);
        }
        self.fixed.push(number);
        Ok(number)
    }
}

/// Visits the one descriptor of something that is given.
pub(super) fn one<T>(end: &dyn Ends, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    let mut result = Err(misuse("give", "nothing is given"));
    let mut count = 0;
    end.each(&mut |fd| {
        count += 1;
        if count == 1 {
            // An inert descriptor could be passed on like any other.
            result = if ledger::is_severed(fd.as_raw_fd()) { Err(Error::NotGiven) } else { visit(fd) };
        }
    });
    if count > 1 { Err(misuse("give", "several descriptors are given as one")) } else { result }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| misuse("new", "a nul byte in the command"))
}

/// What the kernel is not even asked.
fn misuse(call: &'static str, why: &'static str) -> Error {
    Error::System { call, source: io::Error::new(io::ErrorKind::InvalidInput, why) }
}

/// Reads both to their ends, as it comes: a program that fills one must not wait for a reader of the other.
fn read_both(mut readers: [Option<End>; 2]) -> Result<[Vec<u8>; 2]> {
    let mut texts = [Vec::new(), Vec::new()];
    let mut buf = vec![0; 64 << 10];
    while readers.iter().any(Option::is_some) {
        let mut on: Vec<_> = readers.iter().flatten().map(Wait::readable).collect();
        wait_any(&mut on, None)?;
        for (reader, text) in readers.iter_mut().zip(&mut texts) {
            let Some(end) = reader else { continue };
            let bufs = &mut [io::IoSliceMut::new(&mut buf)];
            let read = |_| sys::pipe::read_nowait(end.as_fd(), bufs);
            match Patience::None.persist(end, &Spin::default(), "read", POLLIN, read) {
                Ok(0) => *reader = None,
                Ok(len) => text.extend_from_slice(&buf[..len]),
                Err(Error::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(texts)
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |arg: &'_ Arg| match arg {
            Arg::Text(text) => text.clone(),
            Arg::PathOf(_) => "/dev/fd/…".into(),
        };
        let args: Vec<_> = self.0.args.iter().map(text).collect();
        f.debug_struct("Command").field("program", &self.0.program).field("args", &args).finish_non_exhaustive()
    }
}

/// A program that could not be started, and why. The command is given back, with its ends.
///
/// `?` turns it into [`Error`], [`io::Error`] or `Box<dyn Error>`.
///
/// # Examples
///
/// ```
/// use std::io::ErrorKind;
///
/// let (reader, writer) = ipc::pipe()?;
/// let refused = ipc::Command::new("/no/such/program").stdout(writer).spawn().unwrap_err();
/// let command = refused.command; // still holds the writer
/// assert_eq!(std::io::Error::from(refused.error).kind(), ErrorKind::NotFound);
/// assert!(matches!(reader.try_read(&mut [0]), Err(ipc::Error::WouldBlock)));
/// drop(command);
/// assert_eq!(reader.try_read(&mut [0])?, 0);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct SpawnError {
    /// What was to be started.
    pub command: Command,
    /// What went wrong.
    pub error: Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} could not be started", self.command.0.program)
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<SpawnError> for Error {
    fn from(refused: SpawnError) -> Self {
        refused.error
    }
}

impl From<SpawnError> for io::Error {
    fn from(refused: SpawnError) -> Self {
        refused.error.into()
    }
}
