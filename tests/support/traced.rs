//! What a program, and every process that it forks, has open at the moment when it leaves (ptrace.2).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that left by itself.
#[derive(Debug)]
pub struct Left {
    pub pid: i32,
    /// It was forked by the program, or by a child of it, and has started no program since.
    pub forked: bool,
    pub status: i32,
    /// What it had open and was not started with.
    pub open: Vec<Open>,
}

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub number: i32,
    pub target: String,
    /// It is open for nothing (`O_PATH`), as an end is that was not given.
    pub inert: bool,
}

/// A process while it runs.
struct Process {
    forked: bool,
    /// What it, or the program that it was forked from, was started with.
    started_with: Vec<Open>,
}

/// Runs a program to its end, and that of every process that comes of it. Those that a signal ended are not among those
/// that left. The process has no other children.
pub fn open_when_leaving(program: &Path, args: &[&str]) -> Vec<Left> {
    let text = |bytes: &[u8]| CString::new(bytes).expect("no nul byte");
    let args: Vec<_> =
        [text(program.as_os_str().as_bytes())].into_iter().chain(args.iter().map(|arg| text(arg.as_bytes()))).collect();
    let pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: the process has one thread. The child makes system calls only: it is traced, stops, and becomes the program.
    let root = unsafe { libc::fork() };
    if root == 0 {
        // SAFETY: numbers, and strings that end with a nul, in an array that ends with a null pointer.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            libc::execv(pointers[0], pointers.as_ptr());
            libc::_exit(127);
        }
    }
    assert!(root > 0, "fork: {}", Error::last_os_error());
    follow(root)
}

fn follow(root: i32) -> Vec<Left> {
    let mut processes = BTreeMap::new();
    let mut left = Vec::new();
    let mut started_with = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: room for a status.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid < 0 {
            return left; // ECHILD: all have left
        }
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let process = processes.entry(pid).or_insert_with(|| {
            // The options go on to the children.
            let options = libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_TRACEEXIT
                | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, pid, options as usize);
            Process { forked: true, started_with: started_with.clone() }
        });
        let signal = match status >> 16 {
            libc::PTRACE_EVENT_EXEC => {
                // Whatever is close-on-exec is gone by now.
                *process = Process { forked: false, started_with: open(pid) };
                if pid == root {
                    started_with.clone_from(&process.started_with);
                }
                0
            }
            libc::PTRACE_EVENT_EXIT => {
                let status = message(pid) as i32;
                if libc::WIFEXITED(status) && is_leader(pid) {
                    let mut open = open(pid);
                    open.retain(|open| !process.started_with.contains(open));
                    left.push(Left { pid, forked: process.forked, status: libc::WEXITSTATUS(status), open });
                }
                0
            }
            0 => match libc::WSTOPSIG(status) {
                libc::SIGSTOP | libc::SIGTRAP => 0, // the first stop of each
                signal => signal,
            },
            _ => 0,
        };
        request(libc::PTRACE_CONT, pid, signal as usize);
    }
}

#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// It may be gone already, by SIGKILL.
fn request(request: Request, pid: i32, data: usize) {
    // SAFETY: requests that take a number and no address.
    let result = unsafe { libc::ptrace(request, pid, 0_usize, data) };
    let gone = Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    assert!(result == 0 || gone, "ptrace: {}", Error::last_os_error());
}

/// What the kernel says about an event.
fn message(pid: i32) -> libc::c_ulong {
    let mut message = 0;
    // SAFETY: room for the message.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0_usize, &raw mut message) };
    assert_eq!(result, 0, "ptrace: {}", Error::last_os_error());
    message
}

/// A thread leaves too, and takes nothing along.
fn is_leader(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Tgid:").is_some_and(|group| group.trim().parse() == Ok(pid)))
}

fn open(pid: i32) -> Vec<Open> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that has not left yet");
    let open = entries.map(|entry| {
        let entry = entry.expect("a descriptor's entry");
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
        let target = fs::read_link(entry.path()).expect("a link").display().to_string();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("a descriptor's flags");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        let flags = i32::from_str_radix(flags.trim(), 8).expect("an octal number");
        Open { number, target, inert: flags & libc::O_PATH != 0 }
    });
    open.collect()
}
