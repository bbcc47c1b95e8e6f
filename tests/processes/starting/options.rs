//! Users, limits, the environment and the hook of a program, and how a start that fails says why.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::{errno, said, sh};
use crate::support::{self, Is, Kernel, Trial, exit_code, is_root};
use ipc::{Command, Error, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        user_groups_and_limits_are_set,
        a_change_of_user_leaves_this_process_dumpable,
        what_is_not_allowed_is_refused_by_name,
        question_mark_keeps_the_name_of_a_program_whose_options_are_refused,
        question_mark_names_no_program_where_no_descriptor_is_left,
        the_hook_runs_last_and_its_error_is_the_starts,
        a_panicking_hook_starts_nothing,
        a_missing_directory_is_told_from_a_missing_program,
        a_path_through_a_file_is_not_a_directory,
        argument_0_can_be_another,
        its_own_number_is_in_its_environment,
        sigchld_is_at_its_default_in_a_program,
    ]
}

fn user_groups_and_limits_are_set() {
    let text = said(sh("umask; ulimit -n; ulimit -Hn; nice").umask(0o027).rlimit(libc::RLIMIT_NOFILE, 50, 60).nice(3));
    // SAFETY: numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    assert_eq!(text, format!("0027\n50\n60\n{}\n", (nice + 3).min(19)));
    if !is_root() {
        return;
    }
    let command = Command::new("id").uid(12_345).gid(23_456).groups([1, 2]);
    assert_eq!(said(command), "uid=12345 gid=23456 groups=23456,1(daemon),2(bin)\n");
    assert_eq!(said(Command::new("id").arg("-G").uid(12_345).gid(23_456)), "23456\n", "root's groups are given up");
    assert_eq!(said(Command::new("id").arg("-G").gid(23_456).groups([7].iter())), "23456 7\n");
    assert_eq!(said(sh("id -u; ulimit -n").uid(12_345).rlimit(libc::RLIMIT_NOFILE, 77, 77).nice(-1)), "12345\n77\n");
    // The death signal survives the change of user.
    let (reader, writer) = pipe().unwrap();
    let start = move || sh("exec sleep 1000").stdout(writer).uid(12_345).die_with_parent().spawn().unwrap();
    let child = std::thread::spawn(start).join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    drop(reader);
}

fn a_change_of_user_leaves_this_process_dumpable() {
    if !is_root() {
        return;
    }
    // SAFETY: numbers.
    let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    let before = dumpable();
    assert_eq!(said(Command::new("id").arg("-u").uid(12_345)), "12345\n");
    assert_eq!(dumpable(), before);
}

fn what_is_not_allowed_is_refused_by_name() {
    let of = |command: Command| {
        let (reader, writer) = pipe().unwrap();
        let refused = command.stdout(writer).spawn().unwrap_err();
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "the command has it");
        errno(&refused.error)
    };
    assert_options_are_refused(of);
    let yes = || Command::new("yes");
    for command in [yes().uid(u32::MAX), yes().gid(u32::MAX), yes().groups([1, u32::MAX]), yes().rlimit(u64::MAX, 1, 1)]
    {
        assert!(matches!(command.spawn().unwrap_err().error, Error::InvalidInput { .. }));
    }
}

/// Of each option that the kernel refuses anybody or a plain user, `of` returns the call and the errno.
fn assert_options_are_refused(of: impl Fn(Command) -> (&'static str, i32)) {
    let yes = || Command::new("yes");
    assert_eq!(of(yes().process_group(i32::MAX)), ("setpgid", libc::EPERM));
    assert_eq!(of(yes().rlimit(1000, 1, 1)), ("setrlimit", libc::EINVAL));
    assert_eq!(of(yes().rlimit(libc::RLIMIT_NOFILE, 2, 1)), ("setrlimit", libc::EINVAL));
    assert_eq!(of(yes().give_at(1 << 30, File::open("/dev/null").unwrap())), ("dup2", libc::EBADF));
    let child = fork((), |()| {
        support::become_nobody();
        assert_eq!(of(yes().uid(12_345)), ("setuid", libc::EPERM));
        assert_eq!(of(yes().gid(12_345)), ("setgid", libc::EPERM));
        assert_eq!(of(yes().groups([1])), ("setgroups", libc::EPERM));
        assert_eq!(of(yes().nice(-5)), ("setpriority", libc::EACCES));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn question_mark_keeps_the_name_of_a_program_whose_options_are_refused() {
    let of = |command: Command| {
        let refused = Error::from(command.spawn().unwrap_err());
        let text = refused.to_string();
        assert!(text.starts_with("\"yes\" could not be started: "), "{text}");
        assert!(matches!(&refused, Error::NotStarted { program, .. } if program == "yes"), "{refused:?}");
        errno(&refused)
    };
    assert_options_are_refused(of);
    let yes = || Command::new("yes");
    for (call, option) in [
        (libc::SYS_setsid, Command::new_session as fn(Command) -> Command),
        (libc::SYS_close_range, Command::close_others),
        (libc::SYS_prctl, Command::die_with_parent),
    ] {
        let child = fork((), |()| {
            match call {
                libc::SYS_prctl => {
                    let asks = Is::Equal(libc::PR_SET_PDEATHSIG as u32);
                    Kernel::new().with(call, 0, asks, libc::EPERM).play();
                }
                call => support::refuse_calls(&[call], libc::EPERM),
            }
            assert_eq!(of(option(yes())).1, libc::EPERM);
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    // An io::Error has room for the errno or for the name. The straight way is std's.
    let refused = yes().rlimit(libc::RLIMIT_NOFILE, 2, 1).spawn().unwrap_err();
    assert_eq!(std::io::Error::from(refused).raw_os_error(), Some(libc::EINVAL));
    let refused = Error::from(yes().rlimit(libc::RLIMIT_NOFILE, 2, 1).spawn().unwrap_err());
    let refused = std::io::Error::from(refused);
    assert!(refused.to_string().contains("\"yes\"") && refused.raw_os_error().is_none(), "{refused:?}");
}

fn question_mark_names_no_program_where_no_descriptor_is_left() {
    for (lack, is_named) in [(libc::EMFILE, false), (libc::ENFILE, false), (libc::ELOOP, true)] {
        let child = fork((), |()| {
            support::refuse_calls(&[libc::SYS_execve], lack);
            let refused = Error::from(Command::new("/bin/true").spawn().unwrap_err());
            assert_eq!(matches!(refused, Error::NotStarted { .. }), is_named, "{refused:?}");
            assert_eq!(errno(&refused), ("execve", lack));
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn the_hook_runs_last_and_its_error_is_the_starts() {
    // SAFETY: system calls alone.
    let command = unsafe {
        sh("pwd; umask").current_dir("/usr").umask(0o011).pre_exec(|| match std::env::current_dir()?.to_str() {
            Some("/usr") => {
                libc::umask(0o077);
                Ok(())
            }
            _ => Err(std::io::Error::from_raw_os_error(libc::EDOM)),
        })
    };
    assert_eq!(said(command), "/usr\n0077\n");
    // What it writes, this process does not see; and it may be tried again.
    static RAN: AtomicBool = AtomicBool::new(false);
    // SAFETY: a store.
    let command = unsafe {
        Command::new("true").pre_exec(|| {
            RAN.store(true, SeqCst);
            Err(std::io::Error::from_raw_os_error(libc::EDOM))
        })
    };
    let refused = command.spawn().unwrap_err();
    assert_eq!((errno(&refused.error), RAN.load(SeqCst)), (("pre_exec", libc::EDOM), false));
    assert_eq!(errno(&refused.command.spawn().unwrap_err().error), ("pre_exec", libc::EDOM));
}

fn a_panicking_hook_starts_nothing() {
    // SAFETY: this process has one thread.
    let command = unsafe { Command::new("true").pre_exec(|| panic!("on purpose")) };
    assert_eq!(errno(&command.spawn().unwrap_err().error), ("pre_exec", libc::ECANCELED));
}

fn a_missing_directory_is_told_from_a_missing_program() {
    let refused = Command::new("true").current_dir("/no/such/directory").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOENT));
    let refused = Command::new("/no/such/program").current_dir("/").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
    let refused = Command::new("true").current_dir("/etc/passwd").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOTDIR));
    let refused = Command::new("true").current_dir("/no/such/directory").exec();
    assert_eq!(errno(&refused.error), ("chdir", libc::ENOENT));
}

fn a_path_through_a_file_is_not_a_directory() {
    let refused = Command::new("/etc/passwd/x").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOTDIR));
    assert_eq!(errno(&Command::new("/etc/passwd/x").exec().error), ("execve", libc::ENOTDIR));
    // Along a path, it is one that is passed over.
    let refused = Command::new("no-such-program").env("PATH", "/etc/passwd:/no/such:/usr").spawn().unwrap_err();
    assert_eq!(errno(&refused.error), ("execve", libc::ENOENT));
}

fn argument_0_can_be_another() {
    assert_eq!(
        said(Command::new("sh").arg0("other name").args(["-c", "tr '\\0' '|' </proc/$$/cmdline"])).split('|').next(),
        Some("other name")
    );
}

fn its_own_number_is_in_its_environment() {
    let text = said(sh("echo $LISTEN_PID $OTHER $$").env_pid("LISTEN_PID").env_pid("OTHER").env("OTHER", "text"));
    let [own, other, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((own, other), (pid, "text"));
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| Err::<(), _>(sh("echo $OWN $$").stdout(writer).env_pid("OWN").exec())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{0} {0}\n", child.id()));
    assert_eq!(exit_code(&child), 0);
}

fn sigchld_is_at_its_default_in_a_program() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        // SAFETY: no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Err::<(), _>(sh("grep SigIgn /proc/self/status").stdout(writer).exec())
    });
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let ignored = u64::from_str_radix(text.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & 1 << (libc::SIGCHLD - 1), 0);
    assert_eq!(exit_code(&child.unwrap()), 0);
}
