//! What a test needs that not every machine has. Where it is missing the test is ignored, and says what to do about it.
//!
//! `IPC_TESTS_IGNORE=nothing` makes a failure of each test that would be ignored, and `IPC_TESTS_IGNORE=privileges` of each
//! that would be for want of a program. What only a newer kernel has is never a failure.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{
    WithoutProc, has_nosignal, has_nowait, huge_memory, own_mounts, own_network, own_pids, python, refuses_rights,
    sends_urgent_bytes, userfaults,
};

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// A program on the `PATH`, and the package of Debian that has it.
    Program(&'static str, &'static str),
    /// The compiler that built the tests, which may be one user's own.
    Compiler,
    /// That compiler, with what it links to a program that counts which lines have run.
    Profiler,
    /// To set the buffers of a socket past the administrator's limit (`CAP_NET_ADMIN`).
    NetAdmin,
    /// A view of the mounts of its own (`CAP_SYS_ADMIN`).
    OwnMounts,
    /// To hide `/proc`, which a namespace of users allows too.
    HiddenProc,
    /// Children that are in a pid namespace of their own, which a namespace of users allows too.
    OwnPids,
    /// A network of its own (`CAP_NET_ADMIN`, `CAP_SYS_ADMIN`).
    OwnNetwork,
    /// File systems in user space.
    Fuse,
    /// Faults of a system call that the process handles itself (`CAP_SYS_PTRACE`, or `vm.unprivileged_userfaultfd`).
    Userfaults,
    /// Memory of huge pages that can be sealed. There need be no such page.
    HugeMemory,
    /// A socket that refuses descriptors.
    RefusedRights,
    /// Unix sockets with urgent bytes.
    UrgentBytes,
    /// A read or write of a pipe that does not wait.
    NoWait,
    /// A write that raises no `SIGPIPE`.
    NoSignal,
    /// That no other test runs at the same time: it measures how long something takes, or uses up what all processes of one
    /// user share.
    Alone,
}

pub const BASH: Need = Need::Program("bash", "bash");
pub const CC: Need = Need::Program("cc", "gcc");
pub const CURL: Need = Need::Program("curl", "curl");
pub const DOT: Need = Need::Program("dot", "graphviz");
pub const IP: Need = Need::Program("ip", "iproute2");
pub const LSOF: Need = Need::Program("lsof", "lsof");
pub const NODE: Need = Need::Program("node", "nodejs");
pub const PYTHON: Need = Need::Program("python3", "python3");
pub const STRACE: Need = Need::Program("strace", "strace");
pub const WRK: Need = Need::Program("wrk", "wrk");

/// What is missing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub why: String,
    /// The test has failed, as somebody wants to have it run.
    pub fails: bool,
}

impl Need {
    /// What is missing here, if something is.
    pub fn missing(self) -> Option<Missing> {
        let (there, why) = match self {
            Need::Alone => return None,
            Need::Program(name, package) => {
                let there = program(name).is_some();
                if there && self == PYTHON {
                    python(); // the processes of the tests have it from this one
                }
                (there, format!("needs {name}: `apt-get install {package}`, or the like"))
            }
            Need::Compiler => (
                program("rustc").is_some(),
                "needs rustc, of the toolchain that built the tests, on the PATH".to_owned(),
            ),
            Need::Profiler => (
                has_profiler(),
                "needs rustc on the PATH, of a toolchain with profiler_builtins, as rustup's are".to_owned(),
            ),
            Need::NetAdmin => (may_force_buffers(), "needs CAP_NET_ADMIN: run it as root".to_owned()),
            Need::OwnMounts => (forked(own_mounts), "needs to mount: run it as root".to_owned()),
            Need::HiddenProc => (
                forked(|| WithoutProc::new().is_ok()),
                "needs to mount, or namespaces of users: run it as root".to_owned(),
            ),
            Need::OwnPids => (forked(own_pids), "needs namespaces of pids or of users: run it as root".to_owned()),
            Need::OwnNetwork => (forked(own_network), "needs a network namespace: run it as root".to_owned()),
            Need::Fuse => (Path::new("/dev/fuse").exists(), "needs /dev/fuse: `modprobe fuse`".to_owned()),
            Need::Userfaults => (userfaults().is_some(), "needs userfaultfd(2): run it as root".to_owned()),
            Need::HugeMemory => {
                (huge_memory().is_some(), "needs memory of huge pages: a kernel with CONFIG_HUGETLBFS".to_owned())
            }
            Need::RefusedRights => (refuses_rights(), "needs Linux 6.16".to_owned()),
            Need::UrgentBytes => (sends_urgent_bytes(), "needs Linux 5.15".to_owned()),
            Need::NoWait => (has_nowait(), "needs Linux 6.4".to_owned()),
            Need::NoSignal => (has_nosignal(), "needs Linux 6.18".to_owned()),
        };
        (!there).then(|| Missing { why, fails: self.must_be_there() })
    }

    fn must_be_there(self) -> bool {
        let ignored = std::env::var("IPC_TESTS_IGNORE");
        match (self, ignored.as_deref()) {
            (Need::NoWait | Need::NoSignal | Need::RefusedRights | Need::UrgentBytes, _) | (_, Err(_)) => false,
            (_, Ok("nothing")) => true,
            (Need::Program(..), Ok("privileges")) => true,
            (_, Ok("privileges")) => false,
            (_, Ok(other)) => panic!("IPC_TESTS_IGNORE is `nothing` or `privileges`, and not `{other}`"),
        }
    }
}

/// Where the program is that a command would start.
fn program(name: &str) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(runs)
}

fn has_profiler() -> bool {
    let Ok(output) = std::process::Command::new("rustc").args(["--print", "target-libdir"]).output() else {
        return false;
    };
    let folder = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let mut names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("libprofiler_builtins"))
}

fn may_force_buffers() -> bool {
    let (socket, _peer) = std::os::unix::net::UnixDatagram::pair().expect("a pair of sockets");
    let bytes: libc::c_int = 64 << 20;
    let len = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option is an int, and the length says so.
    unsafe {
        let bytes = (&raw const bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes, len) == 0
    }
}

/// Whether something works, tried in a child.
fn forked(works: fn() -> bool) -> bool {
    // SAFETY: the caller has one thread; the child leaves with _exit, and is waited for.
    unsafe {
        match libc::fork() {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => libc::_exit(i32::from(!works())),
            pid => {
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                status == 0
            }
        }
    }
}
