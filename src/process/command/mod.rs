//! Starting another program, with ends given to it: what it is to start with.

mod ready;
mod run;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::end::{Ends, Stdio};
use crate::error::Error;

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
/// `?` turns it into [`Error`] or [`io::Error`], and closes the ends. An error that is about the program itself becomes
/// [`Error::NotStarted`] then, which keeps its name.
///
/// `anyhow::Error` and `Box<dyn Error>` take the whole value, and the ends stay open in it: the stream does not end as long as
/// the error lives. `.map_err(ipc::Error::from)?` closes them first.
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
#[derive(Debug, thiserror::Error)]
#[error("{:?} could not be started: {error}", command.0.program)]
pub struct SpawnError {
    /// What was to be started.
    pub command: Command,
    /// What went wrong.
    pub error: Error,
}

impl From<SpawnError> for Error {
    fn from(refused: SpawnError) -> Self {
        match refused.error {
            // The fault is the program's, so its name belongs to it.
            error @ Error::System { call: "posix_spawn" | "execve" | "chdir", .. }
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory) =>
            {
                let program = refused.command.0.program.clone();
                Error::NotStarted { program, error: Box::new(error) }
            }
            // The fault is this process's: a limit, or a sandbox.
            error => error,
        }
    }
}

impl From<SpawnError> for io::Error {
    fn from(refused: SpawnError) -> Self {
        // As std's own: with the errno, which a boxed error would hide.
        refused.error.into()
    }
}
