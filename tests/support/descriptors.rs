//! Descriptors as such: their table, their flags, and pipes in a special state.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::inventory::Inventory;

/// A full table of descriptors, as long as it lives.
pub struct FullTable {
    before: libc::rlimit,
    _fillers: Vec<OwnedFd>,
}

impl Drop for FullTable {
    fn drop(&mut self) {
        // SAFETY: the limit that was there before.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &self.before) };
    }
}

/// Leaves room for exactly so many more descriptors, until the guard is dropped. What is open keeps its number, below
/// the limit.
#[must_use = "dropping it takes the limit away"]
pub fn limit_descriptors(free: usize) -> FullTable {
    let open: Vec<i32> = Inventory::take().numbers().collect();
    let after_last = open.last().map_or(0, |last| last + 1);
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut before) }, 0);
    let holes = (0..after_last).filter(|number| !open.contains(number));
    let _fillers = holes.map(at_number).collect();
    let limit = libc::rlimit { rlim_cur: after_last as libc::rlim_t + free as libc::rlim_t, ..before };
    // SAFETY: a valid limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0, "{}", std::io::Error::last_os_error());
    FullTable { before, _fillers }
}

/// Something on a number that is free.
fn at_number(number: i32) -> OwnedFd {
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    // SAFETY: the lowest free number from there on is this one; the descriptor is new.
    unsafe {
        if null.as_raw_fd() == number {
            return null.into();
        }
        let fd = libc::fcntl(null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number);
        assert_eq!(fd, number, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// Runs `body` with descriptors 0, 1 and 2 closed, and puts them back. A panic is printed as ever.
pub fn closed_standard_descriptors<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(Vec<OwnedFd>);
    impl Drop for Restore {
        fn drop(&mut self) {
            for (number, saved) in self.0.iter().enumerate() {
                // SAFETY: two numbers; what stands there now was the body's to close.
                unsafe { libc::dup2(saved.as_raw_fd(), number as i32) };
            }
        }
    }
    let saved = (0..=2).map(|number| {
        // SAFETY: the number is open for the call, and the copy is new.
        unsafe {
            let fd = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        }
    });
    let saved = Restore(saved.collect());
    let stderr = std::fs::File::from(saved.0[2].try_clone().expect("a copy of stderr"));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(&stderr, "{panic}");
    }));
    for number in 0..=2 {
        // SAFETY: nothing in Rust owns these three.
        unsafe { libc::close(number) };
    }
    let result = body();
    drop(saved);
    std::panic::set_hook(hook);
    result
}

/// `O_NONBLOCK` and the rest of fcntl's `F_GETFL`.
pub fn status_flags(fd: impl AsFd) -> i32 {
    // SAFETY: an open descriptor; nothing is written to memory.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

/// `FD_CLOEXEC`, fcntl's `F_GETFD`.
pub fn descriptor_flags(fd: impl AsFd) -> i32 {
    // SAFETY: an open descriptor; nothing is written to memory.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFD) }
}

/// A script that prints the status flags of its parent's pipes, but for its standard streams, and reads nothing.
pub const FLAGS_OF_PARENTS_PIPES: &str = r#"for fd in /proc/$PPID/fd/*; do
    number=${fd##*/}
    case $number:$(readlink $fd) in
        [012]:*) ;;
        *:pipe:*) grep flags: /proc/$PPID/fdinfo/$number;;
    esac
done"#;

/// Checks that the script saw at least so many pipes, none of which had `O_NONBLOCK`.
#[track_caller]
pub fn assert_none_is_nonblocking(printed: &[u8], pipes: usize) {
    let text = std::str::from_utf8(printed).unwrap();
    let flags = text.lines().map(|line| i32::from_str_radix(line.trim_start_matches("flags:").trim(), 8).unwrap());
    let flags: Vec<_> = flags.collect();
    assert!(flags.len() >= pipes && flags.iter().all(|flags| flags & libc::O_NONBLOCK == 0), "{text}");
}

/// Splices nothing from or to the end, after which the kernel refuses `RWF_NOWAIT` on it for ever.
pub fn spliced_once(end: impl AsFd) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let splice = |from: BorrowedFd<'_>, to: BorrowedFd<'_>| {
        let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
        let nowhere = std::ptr::null_mut();
        // SAFETY: open descriptors, and no offsets.
        unsafe { libc::splice(from, nowhere, to, nowhere, 1, libc::SPLICE_F_NONBLOCK) }
    };
    let moved = match status_flags(&end) & libc::O_ACCMODE {
        libc::O_RDONLY => splice(end.as_fd(), writer.as_fd()),
        _ => splice(reader.as_fd(), end.as_fd()),
    };
    // It moves nothing: the one that is read from is empty.
    assert_eq!(moved, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
}

/// Both ends of a FIFO with a name, which is gone by then.
pub fn named_fifo() -> (OwnedFd, OwnedFd) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fifo-{}", std::process::id()));
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without nul");
    // SAFETY: a nul-terminated path, and descriptors that are new. A reader that does not wait for a writer is opened
    // first, and is then made to wait like any other.
    unsafe {
        assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0, "{}", std::io::Error::last_os_error());
        let reader = libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let writer = libc::open(name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        assert!(reader >= 0 && writer >= 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::fcntl(reader, libc::F_SETFL, 0), 0);
        assert_eq!(libc::unlink(name.as_ptr()), 0);
        (OwnedFd::from_raw_fd(reader), OwnedFd::from_raw_fd(writer))
    }
}
