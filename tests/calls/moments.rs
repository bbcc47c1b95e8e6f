//! What holds at the very moment of a system call: nothing is made that a program could inherit (P7), as strace sees it; a
//! number is given up before it is free (P2); a child that cannot be held, or whose parent is gone, does not run on; and what
//! there was no descriptor to look with is not taken for gone (P10).
//!
//! The functions at the end stand in for libc's of the same names, which this crate and the standard library call.

use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::support::{
    self, TRACED, Trial, await_orphans, exit_code, fill, limit_descriptors, measured, refuse_calls, spliced_once,
    traced_calls,
};
use ipc::{
    Blob, Command, DatagramFlags, Fork, PipeFlags, PipeReader, ProcessMap, RingReader, RingWriter, Stdio,
    datagram_pair, datagram_pair_with, fork, holders, open_ends, pipe, pipe_with, stream_pair,
};

/// What the traced program is to do.
const EVERYTHING: &str = "everything";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::var_os(TRACED)? != EVERYTHING {
        return None;
    }
    measured(make_everything);
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        whatever_is_made_is_close_on_exec_from_the_first_moment needs [STRACE],
        whether_children_can_be_held_is_asked_once needs [STRACE],
        a_number_is_given_up_before_it_is_free,
        a_close_that_was_interrupted_is_no_error_and_is_not_repeated,
        a_child_whose_parent_left_before_it_could_ask_dies_too,
        a_child_that_cannot_be_held_is_ended_and_waited_for,
        a_program_that_could_not_be_held_is_not_started,
        a_process_that_there_is_no_descriptor_to_look_into_is_not_gone,
    ]
}

/// In the traced program: every way to a new descriptor.
fn make_everything() {
    let (reader, writer) = pipe().unwrap();
    drop(pipe_with(PipeFlags::NONBLOCK).unwrap());
    let pair = datagram_pair().unwrap();
    drop(datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap());
    let stream = stream_pair().unwrap();
    drop((writer.try_clone().unwrap(), pair.child.try_clone().unwrap(), stream.child.try_clone().unwrap()));

    pair.parent.send_with(b"x", reader.as_fd()).unwrap();
    assert_eq!(pair.child.recv_with(&mut Vec::new()).unwrap().unwrap().len(), 1);
    stream.parent.send_with(b"x", (reader.as_fd(), writer.as_fd())).unwrap();
    assert_eq!(stream.child.recv_with(&mut [0]).unwrap().1.len(), 2);

    assert_eq!(exit_code(&fork(writer.try_clone().unwrap(), drop).unwrap()), 0);
    let command = Command::new("true").give("reader", reader.try_clone().unwrap()).give_at(9, stream.child);
    assert_eq!(exit_code(&command.stdin(Stdio::null()).stdout(stream.parent).spawn().unwrap()), 0);
    assert_eq!(Command::new("echo").output().unwrap().stdout, b"\n");

    let blob = Blob::new(b"shared").unwrap();
    assert_eq!(*Blob::try_from(blob.into_fd().unwrap()).unwrap(), *b"shared");
    let ring = stream_pair().unwrap();
    RingWriter::new(ring.parent).unwrap().write_all(b"x").unwrap();
    assert_eq!(RingReader::new(ring.child).unwrap().read(&mut [0]).unwrap(), 1);
    #[cfg(feature = "channel")]
    {
        let (sender, receiver) = ipc::channel::<Vec<u8>>().unwrap();
        sender.send(vec![0; 1 << 20]).unwrap(); // in memory beside a message
        assert!(receiver.recv().unwrap().is_some());
    }

    holders(&pair.child).unwrap();
    ProcessMap::current().unwrap();

    // The private pipes of the ways round what the kernel refuses.
    fill(&writer);
    spliced_once(&writer);
    writer.try_write(b"x").unwrap_err();
    let (fifo, _writer) = support::named_fifo();
    let both = std::fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fifo.as_raw_fd()));
    let both = PipeReader::from(std::io::PipeReader::from(OwnedFd::from(both.unwrap())));
    both.try_read(&mut [0]).unwrap_err();

    // What stands in for the inert descriptor that has no path.
    refuse_calls(&[libc::SYS_open_tree], libc::ENOSYS);
    assert_eq!(exit_code(&fork(writer, drop).unwrap()), 0);
}

/// Set afterwards, it would be too late for a thread that starts a program at the same moment.
fn whatever_is_made_is_close_on_exec_from_the_first_moment() -> Result<(), String> {
    let calls = traced_calls(EVERYTHING)?;
    let makes = |line: &&String| {
        let call = line.split('(').next().unwrap_or_default();
        match call {
            _ if line.contains(" = -1 ") => false,
            // A pidfd is close-on-exec by itself.
            "fcntl" => line.contains("F_DUPFD"),
            "recvmsg" => line.contains("SCM_RIGHTS"),
            _ => ["open", "pipe", "socket", "dup", "eventfd", "accept", "memfd"]
                .iter()
                .any(|make| call.starts_with(make)),
        }
    };
    let made: Vec<_> = calls.iter().filter(makes).collect();
    for call in [
        "openat(",
        "open_tree(",
        "pipe2(",
        "socketpair(",
        "socket(",
        "fcntl(",
        "eventfd2(",
        "recvmsg(",
        "memfd_create(",
    ] {
        assert!(made.iter().any(|line| line.starts_with(call)), "{call} was to be looked at: {made:#?}");
    }
    let leaks: Vec<_> = made.into_iter().filter(|line| !line.contains("CLOEXEC")).collect();
    if leaks.is_empty() { Ok(()) } else { Err(format!("a program could inherit what these made: {leaks:#?}")) }
}

/// As no process is its own child, a sandbox that allows the call says so.
fn whether_children_can_be_held_is_asked_once() {
    let calls = traced_calls(EVERYTHING).unwrap();
    let asked = calls.iter().filter(|line| line.starts_with("waitid(") && line.contains("EBADF"));
    assert_eq!(asked.count(), 1);
}

/// Otherwise another thread could get the number for an end of its own, and that would not be severed.
fn a_number_is_given_up_before_it_is_free() {
    let (reader, writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    assert_eq!(open_ends(), 4);
    drop(reader);
    assert_eq!(OPEN_ENDS.load(SeqCst), 3);
    writer.close().unwrap();
    assert_eq!(OPEN_ENDS.load(SeqCst), 2);
    drop(pair.parent);
    assert_eq!(OPEN_ENDS.load(SeqCst), 1);
    drop(OwnedFd::from(pair.child));
    assert_eq!(OPEN_ENDS.load(SeqCst), 0);
}

/// The number is free all the same (close.2), and may be somebody else's already.
fn a_close_that_was_interrupted_is_no_error_and_is_not_repeated() {
    let (reader, writer) = pipe().unwrap();
    INTERRUPTED.store(true, SeqCst);
    let before = CLOSED.load(SeqCst);
    let closed = reader.close();
    let calls = CLOSED.load(SeqCst) - before;
    INTERRUPTED.store(false, SeqCst);
    closed.unwrap();
    assert_eq!(calls, 1);
    assert!(writer.is_closed().unwrap());
}

/// The kernel tells a child of its parent's end only if it has asked before.
fn a_child_whose_parent_left_before_it_could_ask_dies_too() {
    let (mut reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        LATE.store(true, SeqCst);
        let grandchild = Fork::new().die_with_parent().spawn(writer, |mut writer| writer.write_all(b"alive"));
        grandchild.unwrap(); // and leaves
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert!(said.is_empty(), "the grandchild ran without its parent");
    await_orphans(1);
}

/// As where another thread takes the last descriptor.
fn a_child_that_cannot_be_held_is_ended_and_waited_for() {
    let (mut reader, writer) = pipe().unwrap();
    let mut before = 0;
    support::limit(libc::RLIMIT_NOFILE, |limit| {
        before = limit.rlim_cur;
        before
    });
    FULL.store(true, SeqCst);
    let refused = fork(writer, |_writer| {
        loop {
            // SAFETY: no conditions. It is to be killed.
            unsafe { libc::pause() };
        }
    });
    support::limit(libc::RLIMIT_NOFILE, |_| before);
    FULL.store(false, SeqCst);
    let refused = refused.unwrap_err();
    assert_eq!(support::refused::<()>(Err(refused.error)), ("pidfd_open", libc::EMFILE));
    drop(refused.ends);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the child is gone");
    // SAFETY: no status is asked for.
    let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
    assert_eq!(waited, -1, "and was waited for");
}

/// To end it in the middle of what it does would be too late.
fn a_program_that_could_not_be_held_is_not_started() {
    let commands: [fn() -> Command; 2] =
        [|| Command::new("/bin/true"), || Command::new("/bin/true").stdin(Stdio::null())];
    // The first start finds out how things are here, and takes more.
    assert_eq!(exit_code(&Command::new("true").spawn().unwrap()), 0);
    for (places, command) in commands.iter().enumerate() {
        for free in 0.. {
            let before = STARTED.load(SeqCst);
            let full = limit_descriptors(free);
            let started = command().spawn();
            drop(full);
            let calls = STARTED.load(SeqCst) - before;
            match started {
                Ok(child) => {
                    assert_eq!((calls, exit_code(&child)), (1, 0));
                    assert_eq!(free, 1 + places, "one for the child, and one for its standard input");
                    break;
                }
                Err(refused) => assert_eq!(calls, 0, "{free} places: {:?}", refused.error),
            }
        }
    }
}

/// As where another thread takes the last descriptor in the middle of the look.
fn a_process_that_there_is_no_descriptor_to_look_into_is_not_gone() {
    let (reader, _writer) = pipe().unwrap();
    NO_DIRECTORIES.store(true, SeqCst);
    let looks = [holders(&reader).map(drop), ProcessMap::current().map(drop)];
    NO_DIRECTORIES.store(false, SeqCst);
    for look in looks {
        assert_eq!(support::refused(look), ("open", libc::EMFILE));
    }
}

/// How many ends were counted when something was closed last.
static OPEN_ENDS: AtomicUsize = AtomicUsize::new(0);
/// How often something was closed.
static CLOSED: AtomicUsize = AtomicUsize::new(0);
/// How often a program was started.
static STARTED: AtomicUsize = AtomicUsize::new(0);
/// Whether closing is to be interrupted by a signal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether a child is to be so late that its parent has left.
static LATE: AtomicBool = AtomicBool::new(false);
/// Whether a parent is to find its table full.
static FULL: AtomicBool = AtomicBool::new(false);
/// Whether there is no descriptor to look into a process with.
static NO_DIRECTORIES: AtomicBool = AtomicBool::new(false);

/// Notes what is so when something is closed.
#[unsafe(export_name = "close")]
extern "C" fn noting_close(fd: libc::c_int) -> libc::c_int {
    OPEN_ENDS.store(open_ends(), SeqCst);
    CLOSED.fetch_add(1, SeqCst);
    // SAFETY: what libc does with a number that its caller owns.
    let result = unsafe { libc::syscall(libc::SYS_close, fd) } as libc::c_int;
    if INTERRUPTED.load(SeqCst) {
        // SAFETY: this thread's errno.
        unsafe { *libc::__errno_location() = libc::EINTR };
        return -1;
    }
    result
}

/// Lets the parent go first, or takes its descriptors.
#[unsafe(export_name = "fork")]
extern "C" fn late_fork() -> libc::pid_t {
    // SAFETY: the name of the function that this one stands in for, and its type.
    let (pid, parent) = unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"fork".as_ptr());
        let next: Option<unsafe extern "C" fn() -> libc::pid_t> = std::mem::transmute(next);
        let parent = libc::getpid();
        (next.expect("libc has fork")(), parent)
    };
    if pid > 0 && FULL.load(SeqCst) {
        support::limit(libc::RLIMIT_NOFILE, |_| 0);
    }
    if pid == 0 && LATE.load(SeqCst) {
        // SAFETY: no conditions.
        support::poll_until("the parent has left", || unsafe { libc::getppid() } != parent);
    }
    pid
}

type Clone = unsafe extern "C" fn(
    extern "C" fn(*mut libc::c_void) -> libc::c_int,
    *mut libc::c_void,
    libc::c_int,
    *mut libc::c_void,
    *mut libc::c_int,
    *mut libc::c_void,
    *mut libc::c_int,
) -> libc::c_int;

/// Counts what is started.
#[unsafe(export_name = "clone")]
extern "C" fn counting_clone(
    function: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    stack: *mut libc::c_void,
    flags: libc::c_int,
    argument: *mut libc::c_void,
    pidfd: *mut libc::c_int,
    tls: *mut libc::c_void,
    tid: *mut libc::c_int,
) -> libc::c_int {
    // SAFETY: the name of the function that this one stands in for, its type, and what it was called with.
    let pid = unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"clone".as_ptr());
        let next: Option<Clone> = std::mem::transmute(next);
        next.expect("libc has clone")(function, stack, flags, argument, pidfd, tls, tid)
    };
    STARTED.fetch_add(usize::from(pid > 0), SeqCst);
    pid
}

/// Finds the table full at the descriptors of a process.
#[unsafe(export_name = "opendir")]
extern "C" fn starved_opendir(path: *const libc::c_char) -> *mut libc::DIR {
    // SAFETY: the name of the function that this one stands in for, and its type; a path with a nul at its end, as for that
    // one; and this thread's errno.
    unsafe {
        if NO_DIRECTORIES.load(SeqCst) && CStr::from_ptr(path).to_bytes().ends_with(b"/fd") {
            *libc::__errno_location() = libc::EMFILE;
            return std::ptr::null_mut();
        }
        let next = libc::dlsym(libc::RTLD_NEXT, c"opendir".as_ptr());
        let next: Option<unsafe extern "C" fn(*const libc::c_char) -> *mut libc::DIR> = std::mem::transmute(next);
        next.expect("libc has opendir")(path)
    }
}
