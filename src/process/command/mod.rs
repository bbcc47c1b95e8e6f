//! Starting another program, with ends given to it: the builder.

mod communicate;
mod error;
mod parts;
mod ready;
mod run;

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;

pub use communicate::CommunicateError;
#[cfg(feature = "tokio")]
pub(crate) use communicate::Conversation;
pub use error::SpawnError;

use crate::end::{Ends, Stdio};
use parts::{Arg, Parts, Place, Value};

/// Another program to be started, with the ends that it is given.
///
/// A builder by value, with the method names of [`std::process::Command`] where the meaning is the same. Outside of one
/// expression, each call is `command = command.arg("--fast")`. std's `Command` keeps the descriptors of its stdin and stdout for
/// as long as it lives, and EOF does not come. [`spawn`](Self::spawn) consumes this one, so it keeps no descriptor.
///
/// The program gets the ends that are given here, and nothing else of this crate: every end is close-on-exec. Its descriptors
/// are set in the new process alone, where no other thread's program can inherit them. A given descriptor is open in the
/// program at the number where it is given and at no other.
///
/// The program starts with no signal blocked and none caught. `SIGPIPE` and `SIGCHLD` are at their defaults: a program that
/// begins with `SIGCHLD` ignored cannot wait for its children. Other signals that this process ignores stay ignored, as
/// `nohup` needs it.
///
/// Starting costs the same however large this process is. It costs what a fork costs where the user, the group or the groups
/// change, or there is a [`pre_exec`](Self::pre_exec). It works in a process with threads. A process that was started is
/// held from its first moment, even if other code waits for children here. Where a step fails, no process is left, and no
/// `SIGCHLD` comes.
///
/// **A script without `#!`** is refused with `ENOEXEC`. A shell and `execvp` would run it, and would run a damaged program, or
/// one for another processor, as a script too. Start `sh` with the path as its argument.
///
/// In the guide: [programs](crate::guide::programs), [travelling](crate::guide::travelling#into-another-program).
///
/// # Platform
///
/// [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html) with `CLONE_VM`, `CLONE_VFORK` and `CLONE_PIDFD`, and
/// [execve(2)](https://man7.org/linux/man-pages/man2/execve.2.html). A sandbox or an emulator that refuses it gets a
/// clone without `CLONE_PIDFD`, and then [posix_spawn(3)](https://man7.org/linux/man-pages/man3/posix_spawn.3.html),
/// which knows ends, environment and directory. Every other option is an [`Error::System`](crate::Error::System) of `clone` then.
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
/// With options, in several statements:
///
/// ```
/// let mut shell = ipc::Command::new("sh").arg0("worker").args(["-c", "echo $GREETING from $PWD"]);
/// shell = shell.current_dir("/").env("GREETING", "hello").env_remove("LANG");
/// shell = shell.umask(0o027).nice(1).rlimit(4, 0, 0).new_session().die_with_parent(); // 4: no core dumps
/// assert_eq!(shell.output()?.stdout, b"hello from /\n");
/// assert_eq!(ipc::Command::new("env").env_clear().envs([("A", "1"), ("B", "2")]).output()?.stdout, b"A=1\nB=2\n");
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// A program that uses this crate takes its ends by name, with [`claim`](crate::claim). Another user needs privileges:
///
/// ```no_run
/// # let (reader, writer) = ipc::pipe()?;
/// let worker = ipc::Command::new("worker").arg("--fast").give("results", writer).stdin(reader);
/// let child = worker.uid(1000).gid(1000).groups([1000, 44]).spawn()?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "popen")]
#[doc(alias = "subprocess")]
#[doc(alias = "posix_spawn")]
#[must_use = "nothing is started before `spawn`"]
pub struct Command(Box<Parts>);

impl Command {
    /// Makes a command that starts a program. A name without a slash is searched along its own `PATH`. See [examples](Self#examples).
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self(Box::new(Parts::new(program.as_ref())))
    }

    /// Sets the program's argument 0. By default it is the name in [`new`](Self::new). See [examples](Self#examples).
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.0.arg0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds an argument. See [examples](Self#examples).
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.args.push(Arg::Text(arg.as_ref().to_owned()));
        self
    }

    /// Adds several arguments. See [examples](Self#examples).
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args.extend(args.into_iter().map(|arg| Arg::Text(arg.as_ref().to_owned())));
        self
    }

    /// Sets a variable of the program's environment. The others are this process's. See [examples](Self#examples).
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.0.environment.insert(key.as_ref().to_owned(), Value::Text(value.as_ref().to_owned()));
        self
    }

    /// Sets several variables; otherwise the same as [`env`](Self::env). See [examples](Self#examples).
    pub fn envs(self, variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        variables.into_iter().fold(self, |command, (key, value)| command.env(key, value))
    }

    /// Sets a variable to the process number that the program will have, as `LISTEN_PID` wants it ([sd_listen_fds(3)]).
    ///
    /// # Examples
    ///
    /// ```
    /// let said = ipc::Command::new("sh").arg("-c").arg("test $LISTEN_PID = $$ && echo mine").env_pid("LISTEN_PID").output()?;
    /// assert_eq!(said.stdout, b"mine\n");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// [sd_listen_fds(3)]: https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html
    pub fn env_pid(mut self, key: impl AsRef<OsStr>) -> Self {
        self.0.environment.insert(key.as_ref().to_owned(), Value::OwnPid);
        self
    }

    /// Removes a variable. See [examples](Self#examples).
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.0.environment.insert(key.as_ref().to_owned(), Value::Removed);
        self
    }

    /// Empties the environment, variables that were set before included. See [examples](Self#examples).
    pub fn env_clear(mut self) -> Self {
        self.0.clear = true;
        self.0.environment.clear();
        self
    }

    /// Sets the directory that the program starts in. A relative path of the program itself is then looked for from there. See
    /// [examples](Self#examples).
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.0.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets the standard input: an end, a file, or a [`Stdio`]. By default it is this process's. See [examples](Self#examples).
    pub fn stdin(self, stdin: impl Into<Stdio>) -> Self {
        self.stdio(0, stdin.into())
    }

    /// Sets the standard output: an end, a file, or a [`Stdio`]. By default it is this process's. See [examples](Self#examples).
    pub fn stdout(self, stdout: impl Into<Stdio>) -> Self {
        self.stdio(1, stdout.into())
    }

    /// Sets the standard error: an end, a file, or a [`Stdio`]. By default it is this process's. See [`Stdio`] for an example.
    pub fn stderr(self, stderr: impl Into<Stdio>) -> Self {
        self.stdio(2, stderr.into())
    }

    fn stdio(mut self, number: usize, stdio: Stdio) -> Self {
        self.0.stdio[number] = Some(stdio);
        self
    }

    /// Gives an end under a name, which the program asks [`claim`](crate::claim) for. See [examples](Self#examples).
    ///
    /// The command owns the end. To keep it as well, give an `Arc` of it, or a clone.
    ///
    /// The end keeps its descriptor number, unless a [`give_at`](Self::give_at) takes it. A program in another language
    /// finds the number in the environment variable `IPC_ENDS` ([the format](crate::guide::given_ends)).
    pub fn give(self, name: impl Into<String>, end: impl Ends + Send + Sync + 'static) -> Self {
        self.give_to(Place::Name(name.into()), end)
    }

    /// Gives an end under that descriptor number. Permutations come out right. [A shell](crate::guide::given_ends) knows 3 to 9.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let (reader, mut writer) = ipc::pipe()?;
    /// let command = ipc::Command::new("sh").args(["-c", "cat <&7"]).give_at(7, reader);
    /// writer.write_all(b"at 7")?;
    /// drop(writer);
    /// assert_eq!(command.output()?.stdout, b"at 7");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[doc(alias = "dup2")]
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

    /// Puts the program in the process group of that number; 0 makes a new one, which it leads.
    ///
    /// A terminal's Ctrl-C then hits this process's group without the program.
    /// [`Child::shut_down`](crate::Child::shut_down) and [`kill_on_drop`](crate::Child::kill_on_drop) stop the program with its
    /// new group, and [`signal_group`](crate::Child::signal_group), which has an example, signals both.
    #[doc(alias = "setpgid")]
    pub fn process_group(mut self, group: i32) -> Self {
        match group {
            0.. => self.0.options.group = Some(group),
            _ => self.0.invalid = Some("the number of a process group is negative"),
        }
        self
    }

    /// Makes the program the leader of a new session, and of a new group in it, without a terminal. The group is stopped as with
    /// [`process_group(0)`](Self::process_group). See [examples](Self#examples).
    #[doc(alias = "setsid")]
    pub fn new_session(mut self) -> Self {
        self.0.options.session = true;
        self
    }

    /// Kills the program with `SIGKILL` when the thread that starts it ends, however it ends.
    ///
    /// See [examples](Self#examples). **The thread counts, and not the process** ([prctl(2)], `PR_SET_PDEATHSIG`): start from one that lasts, such as the main
    /// thread. A thread of a pool that ends when it is idle takes its programs along.
    ///
    /// The program's own children are not killed, nor is a program that changes its user (setuid programs).
    ///
    /// [prctl(2)]: https://man7.org/linux/man-pages/man2/prctl.2.html
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn die_with_parent(mut self) -> Self {
        self.0.options.die_with_parent = true;
        self
    }

    /// Closes every descriptor but the standard three and those that are given, also those without close-on-exec.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsFd;
    ///
    /// let leaked = rustix::io::dup(std::io::stdin().as_fd()).map_err(std::io::Error::from)?; // not close-on-exec
    /// let look = format!("test -e /proc/$$/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&leaked));
    /// assert!(ipc::Command::new("sh").args(["-c", &look]).status()?.success());
    /// assert!(!ipc::Command::new("sh").args(["-c", &look]).close_others().status()?.success());
    /// # drop(leaked);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    ///
    /// # Platform
    ///
    /// [close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html).
    #[doc(alias = "close_range")]
    #[doc(alias = "close_fds")]
    pub fn close_others(mut self) -> Self {
        self.0.options.close_others = true;
        self
    }

    /// Sets the user that the program runs as. It has no supplementary groups then, unless [`groups`](Self::groups) sets
    /// them. See [examples](Self#examples).
    #[doc(alias = "setuid")]
    pub fn uid(mut self, uid: u32) -> Self {
        match uid {
            u32::MAX => self.0.invalid = Some("no user has the number -1"),
            _ => self.0.options.uid = Some(uid),
        }
        self
    }

    /// Sets the group that the program runs as. See [examples](Self#examples).
    #[doc(alias = "setgid")]
    pub fn gid(mut self, gid: u32) -> Self {
        match gid {
            u32::MAX => self.0.invalid = Some("no group has the number -1"),
            _ => self.0.options.gid = Some(gid),
        }
        self
    }

    /// Sets the supplementary groups that the program has. See [examples](Self#examples).
    #[doc(alias = "setgroups")]
    pub fn groups(mut self, groups: impl IntoIterator<Item = impl Borrow<u32>>) -> Self {
        let groups: Vec<u32> = groups.into_iter().map(|group| *group.borrow()).collect();
        match groups.contains(&u32::MAX) {
            true => self.0.invalid = Some("no group has the number -1"),
            false => self.0.options.groups = Some(groups),
        }
        self
    }

    /// Sets the permissions that the program's new files do not have. See [examples](Self#examples).
    pub fn umask(mut self, mask: u32) -> Self {
        self.0.options.umask = Some(mask & 0o777);
        self
    }

    /// Adds to the program's niceness: positive numbers leave more of the processors to others. The sum is kept between −20 and
    /// 19. See [examples](Self#examples).
    #[doc(alias = "setpriority")]
    pub fn nice(mut self, by: i32) -> Self {
        self.0.options.nice = Some(by);
        self
    }

    /// Sets a resource limit of the program, by its number (`RLIMIT_NOFILE` and so on, [getrlimit(2)], which libc has as an
    /// `i32` or a `u32`). `u64::MAX` is no limit. See [examples](Self#examples).
    ///
    /// [getrlimit(2)]: https://man7.org/linux/man-pages/man2/getrlimit.2.html
    #[doc(alias = "setrlimit")]
    pub fn rlimit(mut self, resource: impl TryInto<i32>, soft: u64, hard: u64) -> Self {
        match resource.try_into() {
            Ok(resource) => self.0.options.limits.push((resource, soft, hard)),
            Err(_) => self.0.invalid = Some("no resource has that number"),
        }
        self
    }

    /// Calls a function in the new process, after everything else is set and before the program runs. It is the last resort:
    /// prefer an option.
    ///
    /// Its error is the start's: the errno, as an [`Error::System`](crate::Error::System) of `pre_exec`. A panic is `ECANCELED`.
    /// A hook that is killed leaves no error: the start succeeds, and the status has the signal. `SIGPIPE` is at its default
    /// there, so a write without a reader kills.
    ///
    /// # Safety
    ///
    /// The hook runs in a copy of this process, with this thread alone. A lock that another thread holds stays locked there,
    /// malloc's among them. It may only make async-signal-safe calls
    /// ([signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html)), and must leave alone the descriptors
    /// of others. This thread waits until it returns.
    ///
    /// # Examples
    ///
    /// ```
    /// let command = ipc::Command::new("cat").arg("/proc/self/comm");
    /// let command = unsafe {
    ///     // SAFETY: one system call.
    ///     command.pre_exec(|| rustix::thread::set_no_new_privs(true).map_err(std::io::Error::from))
    /// };
    /// assert_eq!(command.output()?.stdout, b"cat\n");
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[allow(unsafe_code)] // unsafe by its nature
    pub unsafe fn pre_exec(mut self, hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.0.options.hooks.push(Box::new(hook));
        self
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
