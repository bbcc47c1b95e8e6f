//! Starting a program and becoming one: what it starts with, and what is given back when it cannot be started.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crate::support::{
    self, Sigpipe, Trial, block_signal, exit_code, read_all, refuse_calls, refused, sigpipe, tcp_pair,
};
use ipc::{Command, Error, SpawnError, Stdio, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_misused_command_says_so_and_gives_everything_back,
        a_program_that_does_not_exist_is_not_found,
        a_command_that_was_refused_can_be_started_later,
        what_may_not_be_started_is_refused,
        a_number_over_the_limit_is_refused,
        children_that_nobody_could_wait_for_are_not_started,
        signals_are_as_a_shell_has_them,
        the_environment_is_this_ones_with_changes,
        a_description_is_never_inherited,
        the_program_is_looked_for_along_its_own_path,
        the_directory_is_set_before_the_program_is_looked_for,
        the_standard_three_can_be_anything,
        status_waits_and_says_how,
        output_reads_both_however_much_comes,
        output_leaves_alone_what_was_set,
        a_program_whose_output_cannot_be_read_is_waited_for_all_the_same,
        a_path_stands_for_an_end,
    ]
}

#[track_caller]
fn text(command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::System { source, .. } => source.raw_os_error(),
        Error::NotStarted { error, .. } => errno(error),
        other => panic!("{other:?}"),
    }
}

/// A directory of the test's own, gone afterwards.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("command-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    /// Puts a script there, or what else the content makes it.
    pub(super) fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        // Closed before it is started, or it would be busy.
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn a_misused_command_says_so_and_gives_everything_back() {
    let end = || pipe().unwrap().0;
    let cases: Vec<(&str, Command)> = vec![
        ("the same number", Command::new("true").give_at(9, end()).give_at(9, end())),
        ("the same number", Command::new("true").stdout(end()).give_at(1, end())),
        ("the same number", Command::new("true").give_at(0, end()).stdin(Stdio::null())),
        ("the same name", Command::new("true").give("a", end()).give("a", end())),
        ("negative", Command::new("true").give_at(-1, end())),
        ("negative", Command::new("true").give_at(RawFd::MIN, end())),
        ("several descriptors", Command::new("true").give("both", (end(), end()))),
        ("several descriptors", Command::new("true").give_at(9, vec![end(), end(), end()])),
        ("several descriptors", Command::new("true").give_path((end(), end()))),
        ("without a descriptor", Command::new("true").give("a", end()).give("nothing", ())),
        ("without a descriptor", Command::new("true").give_at(9, None::<ipc::PipeReader>).stdin(end())),
        ("NUL byte", Command::new("tr\0ue").give("a", end())),
        ("NUL byte", Command::new("true").arg("a\0b").give("a", end())),
        ("NUL byte", Command::new("true").env("A", "a\0b").give("a", end())),
        ("NUL byte", Command::new("true").env("A\0B", "a").give("a", end())),
        ("NUL byte", Command::new("true").current_dir("/\0").give("a", end())),
    ];
    for (why, command) in cases {
        let what = format!("{command:?}");
        let open = open_ends();
        let SpawnError { command, error } = command.spawn().unwrap_err();
        assert!(matches!(&error, Error::InvalidInput { what } if what.contains(why)), "{what}: {error:?}");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{what}");
        let SpawnError { command, error } = command.exec();
        assert!(matches!(&error, Error::InvalidInput { what } if what.contains(why)), "{what}: {error:?}");
        assert_eq!(open_ends(), open, "{what}");
        drop(command);
    }
    assert_eq!(open_ends(), 0, "a command that is dropped closes what it was given");
}

fn a_program_that_does_not_exist_is_not_found() {
    let directory = Directory::new();
    let file = directory.file("file", "", 0o644);
    for program in
        ["/no/such/program", "no-such-program", "", "./no-such-program", file.join("below").to_str().unwrap()]
    {
        let (reader, writer) = pipe().unwrap();
        let refused = Command::new(program).stdout(writer).spawn().unwrap_err();
        assert!(refused.to_string().contains(program), "{refused}");
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "the command has the writer");
        let SpawnError { command, error } = refused;
        if program.contains("below") {
            // The kernel says what is in the way; with a path of several directories it would be the next one's turn.
            assert!(matches!(errno(&error), Some(libc::ENOTDIR | libc::ENOENT)), "{error:?}");
        } else {
            assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound, "{program:?}");
        }
        drop(command);
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    }
    let refused = Command::new("true").current_dir("/no/such/directory").spawn().unwrap_err();
    assert_eq!(std::io::Error::from(refused).kind(), std::io::ErrorKind::NotFound);
    let refused = Command::new("true").current_dir(file).spawn().unwrap_err();
    assert!(matches!(errno(&refused.error), Some(libc::ENOTDIR | libc::ENOENT)), "{refused:?}");
}

fn a_command_that_was_refused_can_be_started_later() {
    let directory = Directory::new();
    let (from, mut to) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let command = Command::new(directory.0.join("later")).stdin(from).stdout(writer);
    let refused = command.spawn().unwrap_err();
    assert_eq!(errno(&refused.error), Some(libc::ENOENT));
    let path = directory.file("later", "#!/bin/sh\nexec cat\n", 0o644);
    // Root may read everything, but not start what nobody may.
    let refused = refused.command.spawn().unwrap_err();
    assert_eq!(std::io::Error::from(refused.error).kind(), std::io::ErrorKind::PermissionDenied);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let child = refused.command.spawn().unwrap();
    to.write_all(b"at last").unwrap();
    drop(to);
    assert_eq!(read_all(reader), b"at last");
    assert_eq!(exit_code(&child), 0);
}

fn what_may_not_be_started_is_refused() {
    let directory = Directory::new();
    let no_program = directory.file("no-program", "neither a program nor a script", 0o755);
    let cases = [
        (Command::new(&directory.0), libc::EACCES),
        (Command::new(no_program), libc::ENOEXEC),
        (Command::new("true").arg("x".repeat(1 << 20)), libc::E2BIG),
    ];
    for (command, expected) in cases {
        let (reader, writer) = pipe().unwrap();
        let refused = command.give("writer", writer).spawn().unwrap_err();
        assert_eq!(errno(&refused.error), Some(expected), "{refused:?}");
        let refused = refused.command.exec();
        assert_eq!(errno(&refused.error), Some(expected), "{refused:?}");
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
    }
}

fn a_number_over_the_limit_is_refused() {
    let (reader, writer) = pipe().unwrap();
    for number in [1 << 30, RawFd::MAX] {
        let given = writer.try_clone().unwrap();
        let refused = Command::new("true").give_at(number, given).spawn().unwrap_err();
        assert_eq!(errno(&refused.error), Some(libc::EBADF), "{refused:?}");
        let refused = refused.command.exec();
        assert_eq!(errno(&refused.error), Some(libc::EBADF), "{refused:?}");
    }
    drop(writer);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

fn children_that_nobody_could_wait_for_are_not_started() {
    let directory = Directory::new();
    let trace = directory.0.join("trace");
    for (handler, flags) in [(libc::SIG_IGN, 0), (libc::SIG_DFL, libc::SA_NOCLDWAIT)] {
        // SAFETY: zeroed bytes are a valid action, and these two handlers are no functions.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (action.sa_sigaction, action.sa_flags) = (handler, flags);
            assert_eq!(libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()), 0);
        }
        let (reader, writer) = pipe().unwrap();
        let refused = Command::new("touch").arg(&trace).stdout(writer).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::SigchldIgnored), "{refused:?}");
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)));
        assert!(!trace.exists());
        // SAFETY: as it was at first.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        assert!(refused.command.status().unwrap().success());
        std::fs::remove_file(&trace).unwrap();
    }
}

/// A line of /proc/PID/status that is a set of signals.
///
/// Without the two that glibc keeps for itself, and that its posix_spawn leaves ignored in the program.
pub(super) fn set_of(status: &str, line: &str) -> u64 {
    const LIBCS_OWN: u64 = 3 << 31;
    let value = status.lines().find_map(|other| other.strip_prefix(line)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap() & !LIBCS_OWN
}

fn signals_are_as_a_shell_has_them() {
    let bit = |signal: i32| 1_u64 << (signal - 1);
    support::handle_signal(libc::SIGUSR2);
    block_signal(libc::SIGUSR1);
    block_signal(libc::SIGPIPE);
    for disposition in [Sigpipe::Ignore, Sigpipe::Default] {
        sigpipe(disposition);
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        for exec in [false, true] {
            let status = if exec {
                let (reader, writer) = pipe().unwrap();
                let child = fork(writer, |writer| {
                    Err::<(), _>(Command::new("cat").arg("/proc/self/status").stdout(writer).exec())
                });
                let status = String::from_utf8(read_all(reader)).unwrap();
                assert_eq!(exit_code(&child.unwrap()), 0);
                status
            } else {
                text(Command::new("cat").arg("/proc/self/status"))
            };
            assert_eq!(set_of(&status, "SigBlk:"), 0);
            assert_eq!(set_of(&status, "SigCgt:"), 0);
            assert_eq!(set_of(&status, "SigIgn:"), set_of(&own, "SigIgn:") & !bit(libc::SIGPIPE));
        }
        let after = std::fs::read_to_string("/proc/self/status").unwrap();
        for line in ["SigBlk:", "SigCgt:", "SigIgn:"] {
            assert_eq!(set_of(&after, line), set_of(&own, line), "{line}");
        }
    }
    // A program that writes to nobody dies of it, as in a shell.
    let (reader, writer) = pipe().unwrap();
    let child = Command::new("yes").stdout(writer).spawn().unwrap();
    drop(reader);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGPIPE));
}

fn variables(command: Command) -> BTreeMap<String, String> {
    let text = text(command.arg("-0"));
    let lines = text.split_terminator('\0').map(|line| line.split_once('=').unwrap());
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn the_environment_is_this_ones_with_changes() {
    let own: BTreeMap<String, String> = std::env::vars().collect();
    assert!(own.len() > 1);
    assert_eq!(variables(Command::new("env")), own);

    let (gone, kept) = (own.keys().next().unwrap(), own.keys().nth(1).unwrap());
    let changed = Command::new("env").env("IPC_TEST_NEW", "a=b\nc").env(kept, "").env_remove(gone);
    let changed = changed.envs([("IPC_TEST_ONE", "1"), ("IPC_TEST_TWO", "2")]).env("IPC_TEST_ONE", "one");
    let changed = changed.env("IPC_TEST_NEVER", "x").env_remove("IPC_TEST_NEVER");
    let mut expected = own.clone();
    expected.remove(gone);
    for (key, value) in [("IPC_TEST_NEW", "a=b\nc"), (kept, ""), ("IPC_TEST_ONE", "one"), ("IPC_TEST_TWO", "2")] {
        expected.insert(key.to_owned(), value.to_owned());
    }
    assert_eq!(variables(changed), expected);

    let cleared = Command::new("/usr/bin/env").env("BEFORE", "x").env_clear().env("AFTER", "y");
    assert_eq!(variables(cleared), BTreeMap::from([("AFTER".to_owned(), "y".to_owned())]));
}

fn a_description_is_never_inherited() {
    let (_reader, writer) = pipe().unwrap();
    assert!(!variables(Command::new("env").env("IPC_ENDS", "forged:3:1:1")).contains_key("IPC_ENDS"));
    let given = variables(Command::new("env").env("IPC_ENDS", "forged:3:1:1").env_clear().give("true", writer));
    assert!(given["IPC_ENDS"].starts_with("true:"), "{given:?}");
    assert_eq!(given.len(), 1);
}

fn the_program_is_looked_for_along_its_own_path() {
    let directory = Directory::new();
    for (part, mode) in [("one", 0o644), ("two", 0o755), ("three", 0o755)] {
        std::fs::create_dir(directory.0.join(part)).unwrap();
        directory.file(&format!("{part}/ipc-test-tool"), &format!("#!/bin/sh\necho {part}\n"), mode);
    }
    let path = |parts: &[&str]| {
        let parts = parts.iter().map(|part| directory.0.join(part).display().to_string());
        parts.collect::<Vec<_>>().join(":")
    };
    let tool = |path: String| Command::new("ipc-test-tool").env("PATH", path);
    assert_eq!(text(tool(path(&["two", "three"]))), "two\n");
    assert_eq!(text(tool(path(&["none", "three/ipc-test-tool", "three", "two"]))), "three\n");
    assert_eq!(text(tool(path(&["one", "two"]))), "two\n", "what may not be started is passed over");
    let refused = tool(path(&["one", "none"])).spawn().unwrap_err();
    assert_eq!(errno(&refused.error), Some(libc::EACCES), "but said, if there is nothing else");
    assert_eq!(errno(&tool(path(&["none"])).spawn().unwrap_err().error), Some(libc::ENOENT));
    // An empty part is the directory that the program starts in.
    assert_eq!(text(tool(":/bin".to_owned()).current_dir(directory.0.join("two"))), "two\n");
    // Without a path there is a default one.
    assert_eq!(text(Command::new("echo").arg("found").env_remove("PATH")), "found\n");
    assert_eq!(text(Command::new("echo").arg("found").env_clear()), "found\n");
}

fn the_directory_is_set_before_the_program_is_looked_for() {
    let directory = Directory::new();
    directory.file("here", "#!/bin/sh\npwd -P\n", 0o755);
    let here = format!("{}\n", directory.0.display());
    assert_eq!(text(Command::new("./here").current_dir(&directory.0)), here);
    assert_eq!(text(Command::new("pwd").arg("-P").current_dir(&directory.0)), here);
    assert_ne!(std::env::current_dir().unwrap(), directory.0, "this process stays where it is");
}

fn the_standard_three_can_be_anything() {
    // Files, from where they stand.
    let directory = Directory::new();
    let mut input = File::open(directory.file("in", "skipped, read", 0o644)).unwrap();
    input.seek(std::io::SeekFrom::Start(9)).unwrap();
    let output = directory.file("out", "", 0o644);
    let writer = File::options().write(true).open(&output).unwrap();
    assert!(Command::new("cat").stdin(input).stdout(writer).status().unwrap().success());
    assert_eq!(std::fs::read(&output).unwrap(), b"read");

    // Nothing.
    assert_eq!(text(Command::new("cat").stdin(Stdio::null())), "");
    let null = Command::new("sh").args(["-c", "echo x; echo y >&2"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(null.status().unwrap().success());

    // What the standard library has.
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(b"pipes").unwrap();
    drop(to);
    let (mut reader, writer) = std::io::pipe().unwrap();
    assert!(Command::new("cat").stdin(from).stdout(writer).status().unwrap().success());
    assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "pipes");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"unix").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(Command::new("cat").stdin(theirs)), "unix");
    let (mut ours, theirs) = tcp_pair();
    ours.write_all(b"tcp").unwrap();
    drop(ours);
    assert_eq!(text(Command::new("cat").stdin(theirs)), "tcp");

    // What it is can be seen.
    assert_eq!(format!("{:?} {:?}", Stdio::inherit(), Stdio::null()), "Stdio(inherit) Stdio(null)");
    let number = reader.as_raw_fd();
    assert_eq!(format!("{:?}", Stdio::from(reader)), format!("Stdio({number})"));

    // This process's own, said or not. A file stands in for its stdout.
    let shown = File::options().read(true).write(true).create_new(true).open(directory.0.join("shown")).unwrap();
    let (reader, errors) = pipe().unwrap();
    let child = fork((), |()| {
        // SAFETY: two open numbers; nothing in Rust owns 1.
        assert_eq!(unsafe { libc::dup2(shown.as_raw_fd(), 1) }, 1);
        assert!(Command::new("echo").arg("unsaid").status().unwrap().success());
        assert!(Command::new("echo").arg("said").stdout(Stdio::inherit()).status().unwrap().success());
        let last_counts = Command::new("echo").arg("last").stdout(Stdio::null()).stdout(Stdio::inherit());
        assert!(last_counts.status().unwrap().success());
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    let said = std::fs::read_to_string(directory.0.join("shown")).unwrap();
    assert_eq!(said, "unsaid\nsaid\nlast\n");

    // A socket, and one pipe for two.
    let mut pair = ipc::stream_pair().unwrap();
    let both = errors.try_clone().unwrap();
    let child =
        Command::new("sh").args(["-c", "cat; echo y >&2"]).stdin(pair.child).stdout(both).stderr(errors).spawn();
    pair.parent.write_all(b"x\n").unwrap();
    drop(pair.parent);
    assert_eq!(read_all(reader), b"x\ny\n");
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn status_waits_and_says_how() {
    assert_eq!(Command::new("sh").args(["-c", "exit 7"]).status().unwrap().code(), Some(7));
    assert_eq!(Command::new("sh").args(["-c", "kill -9 $$"]).status().unwrap().signal(), Some(libc::SIGKILL));
    let refused = Command::new("/no/such/program").status().unwrap_err();
    assert_eq!(errno(&refused), Some(libc::ENOENT));
}

fn output_reads_both_however_much_comes() {
    // One after the other, in both orders, and both at once: whoever read one to its end first would wait for ever.
    let write = "head -c 1048576 /dev/zero";
    for script in
        [format!("{write}; {write} >&2"), format!("{write} >&2; {write}"), format!("{write} & {write} >&2; wait")]
    {
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (1 << 20, 1 << 20), "{script}");
        assert!(output.status.success());
    }
    let output = Command::new("sh").args(["-c", "echo said; echo wrong >&2; exit 3"]).output().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr, output.status.code()), (&b"said\n"[..], &b"wrong\n"[..], Some(3)));
    // It closes one early, and goes on.
    let output = Command::new("sh").args(["-c", "exec >&-; echo late >&2"]).output().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b"late\n"[..]));
    let target = text(Command::new("readlink").arg("/proc/self/fd/0"));
    assert_eq!(target, "/dev/null\n");
    assert_eq!(errno(&Command::new("/no/such/program").output().unwrap_err()), Some(libc::ENOENT));
}

fn output_leaves_alone_what_was_set() {
    let (reader, writer) = pipe().unwrap();
    let (from, mut to) = pipe().unwrap();
    to.write_all(b"input").unwrap();
    drop(to);
    let output = Command::new("sh").args(["-c", "cat; echo e >&2"]).stdin(from).stdout(writer).output().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b"e\n"[..]));
    assert_eq!(read_all(reader), b"input");
}

fn a_program_whose_output_cannot_be_read_is_waited_for_all_the_same() {
    // Nor can it be killed.
    refuse_calls(&[libc::SYS_ppoll, libc::SYS_pidfd_send_signal], libc::EPERM);
    assert_eq!(refused(Command::new("true").output()), ("poll", libc::EPERM));
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }, -1, "no child is left");
}

fn a_path_stands_for_an_end() {
    let (one, mut to_one) = pipe().unwrap();
    let (two, mut to_two) = pipe().unwrap();
    to_one.write_all(b"first ").unwrap();
    to_two.write_all(b"second").unwrap();
    drop((to_one, to_two));
    assert_eq!(text(Command::new("cat").give_path(one).arg("/dev/null").give_path(two)), "first second");

    // Its number is wanted by another one.
    let (one, mut to_one) = pipe().unwrap();
    let (two, to_two) = pipe().unwrap();
    to_one.write_all(b"mine").unwrap();
    drop((to_one, to_two));
    let number = one.as_raw_fd();
    assert_eq!(text(Command::new("cat").give_path(one).give_at(number, two)), "mine");

    // For writing.
    let (reader, writer) = pipe().unwrap();
    let child = Command::new("cp").arg("/proc/self/comm").give_path(writer).spawn().unwrap();
    assert_eq!(read_all(reader), b"cp\n");
    assert_eq!(exit_code(&child), 0);
}
