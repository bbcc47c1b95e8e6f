//! An older kernel, or a sandbox, played by the kernel that is there: a filter (seccomp.2) answers in its place.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null;

use super::handed::{MADE_HERE, take_calls};

/// Not wait, for one read or write.
pub const RWF_NOWAIT: u32 = 0x8;
/// No `SIGPIPE`, for one write. Linux 6.18.
pub const RWF_NOSIGNAL: u32 = 0x100;

/// Either half of an offset that stands for none (preadv2.2). Asked without libc, as musl has had the two calls since 1.2.5.
const HERE: libc::c_long = -1;

/// Whether the kernel heeds flags of reads and writes. gVisor takes one that does not exist.
pub fn heeds_flags() -> bool {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let part = libc::iovec { iov_base: [0_u8].as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: an open descriptor, and one part of one byte.
    unsafe { libc::syscall(libc::SYS_pwritev2, writer.as_raw_fd(), &part, 1, HERE, HERE, 1 << 30) == -1 }
}

/// Whether the kernel has the flag for a read or write of a pipe that does not wait (about 6.4).
pub fn has_nowait() -> bool {
    if !heeds_flags() {
        return false;
    }
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let part = libc::iovec { iov_base: [0_u8].as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: an open descriptor, and one part of one byte, which nothing is written to.
    let read = unsafe { libc::syscall(libc::SYS_preadv2, reader.as_raw_fd(), &part, 1, HERE, HERE, RWF_NOWAIT) };
    read == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

/// Whether the kernel has the flag for a write that raises no `SIGPIPE` (6.18).
pub fn has_nosignal() -> bool {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let part = libc::iovec { iov_base: [0_u8].as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: an open descriptor, and one part of one byte.
    let written = unsafe { libc::syscall(libc::SYS_pwritev2, writer.as_raw_fd(), &part, 1, HERE, HERE, RWF_NOSIGNAL) };
    written == 1 && heeds_flags()
}

/// From now on, `preadv2` and `pwritev2` with one of these flags are refused with `EOPNOTSUPP` in this process and its
/// children, as by a kernel that does not know them.
pub fn refuse_flags(flags: u32) {
    let calls = [libc::SYS_preadv2, libc::SYS_pwritev2];
    let kernel =
        calls.iter().fold(Kernel::new(), |kernel, call| kernel.with(*call, 5, Is::AnyOf(flags), libc::EOPNOTSUPP));
    kernel.play();
}

/// From now on, these system calls are refused with that errno in this process and its children, as in a sandbox. With 0,
/// they do nothing and return 0.
pub fn refuse_calls(calls: &[libc::c_long], errno: i32) {
    calls.iter().fold(Kernel::new(), |kernel, call| kernel.without(*call, errno)).play();
}

/// What makes a call one that is refused, of the lower 32 bits of an argument.
#[derive(Clone, Copy, Debug)]
pub enum Is {
    /// At least one of these flags is set.
    AnyOf(u32),
    /// It is this number.
    Equal(u32),
    /// It is another number.
    Not(u32),
}

/// What becomes of a call that a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Errno(i32),
    /// It is handed to this process, which answers as gVisor does.
    Handed,
}

/// Which calls are refused, and how. The first rule that fits answers.
#[derive(Debug)]
pub struct Kernel {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    call: libc::c_long,
    /// Arguments by their places, from 0.
    arguments: Vec<(u32, Is)>,
    answer: Answer,
}

impl Kernel {
    /// One that refuses nothing.
    pub fn new() -> Self {
        Self { rules: Vec::new() }
    }

    /// Refuses a call.
    pub fn without(self, call: libc::c_long, errno: i32) -> Self {
        self.rule(call, Vec::new(), errno)
    }

    /// Refuses a call that has such an argument.
    pub fn with(self, call: libc::c_long, place: u32, is: Is, errno: i32) -> Self {
        self.rule(call, vec![(place, is)], errno)
    }

    /// Refuses a call that has all of these arguments.
    pub fn with_all(self, call: libc::c_long, arguments: &[(u32, Is)], errno: i32) -> Self {
        self.rule(call, arguments.to_vec(), errno)
    }

    /// Counts a call, and answers as if there were no such call.
    pub fn handing(mut self, call: libc::c_long) -> Self {
        self.rules.push(Rule { call, arguments: Vec::new(), answer: Answer::Handed });
        self
    }

    /// Takes every flag of `preadv2` and `pwritev2`, and heeds none, as gVisor does.
    pub fn ignoring_flags(mut self) -> Self {
        for call in [libc::SYS_preadv2, libc::SYS_pwritev2] {
            self.rules.push(Rule { call, arguments: vec![(5, Is::Not(0))], answer: Answer::Handed });
        }
        self
    }

    /// Drops empty messages, with what is beside them, as gVisor does.
    pub fn dropping_empty_messages(mut self) -> Self {
        let arguments = vec![(5, Is::Not(MADE_HERE))];
        self.rules.push(Rule { call: libc::SYS_sendmsg, arguments, answer: Answer::Handed });
        self.with(libc::SYS_sendto, 2, Is::Equal(0), 0)
    }

    fn rule(mut self, call: libc::c_long, arguments: Vec<(u32, Is)>, errno: i32) -> Self {
        self.rules.push(Rule { call, arguments, answer: Answer::Errno(errno) });
        self
    }

    /// From now on this process and its children, and whatever program they start, have that kernel. Sees for itself that
    /// each rule is one.
    pub fn play(&self) {
        if self.rules.iter().any(|rule| rule.answer == Answer::Handed) {
            take_calls();
        }
        let mut steps: Vec<_> = self.rules.iter().flat_map(Rule::steps).collect();
        steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: integers, and a program that lives as long as the call.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "{}", Error::last_os_error());
            let result = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
            assert_eq!(result, 0, "{}", Error::last_os_error());
        }
        self.rules.iter().for_each(Rule::check);
    }
}

fn step(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
}

impl Rule {
    fn steps(&self) -> Vec<libc::sock_filter> {
        // Where seccomp_data(seccomp.2) has the number of the call, and the lower half of an argument.
        const NUMBER: u32 = 0;
        let argument = |place: u32| 16 + place * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
        let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
        let mut tests = vec![(NUMBER, libc::BPF_JEQ, self.call as u32, true)];
        tests.extend(self.arguments.iter().map(|(place, is)| match *is {
            Is::AnyOf(flags) => (argument(*place), libc::BPF_JSET, flags, true),
            Is::Equal(value) => (argument(*place), libc::BPF_JEQ, value, true),
            Is::Not(value) => (argument(*place), libc::BPF_JEQ, value, false),
        }));
        let count = tests.len();
        let mut steps = Vec::new();
        for (i, (offset, compare, value, fits)) in tests.into_iter().enumerate() {
            // Past the tests that are left, two steps each, and the answer.
            let past = (2 * (count - 1 - i) + 1) as u8;
            let (jump_true, jump_false) = if fits { (0, past) } else { (past, 0) };
            let jump = step(libc::BPF_JMP | compare | libc::BPF_K, jump_true, jump_false, value);
            steps.extend([load(offset), jump]);
        }
        let answer = match self.answer {
            Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Answer::Handed => libc::SECCOMP_RET_TRAP,
        };
        steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, answer));
        steps
    }

    /// That a call that fits is refused, and so.
    fn check(&self) {
        let Answer::Errno(errno) = self.answer else { return };
        let mut arguments = [0; 6];
        for (place, is) in &self.arguments {
            arguments[*place as usize] = match *is {
                Is::AnyOf(value) | Is::Equal(value) => value as libc::c_long,
                Is::Not(value) => !value as libc::c_long,
            };
        }
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the filter refuses it before the kernel looks at the arguments; and without the filter it would do nothing,
        // for there is nothing at the address 0.
        let result = unsafe { libc::syscall(self.call, a, b, c, d, e, f) };
        let answer = if result == 0 { 0 } else { Error::last_os_error().raw_os_error().expect("an errno") };
        assert_eq!(answer, errno, "{self:?} is a rule");
    }
}

/// Puts the children that this process makes from now on into a pid namespace of their own. Says whether it may.
pub fn own_pids() -> bool {
    // SAFETY: integers.
    unsafe { libc::unshare(libc::CLONE_NEWPID) == 0 || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) == 0 }
}

/// Gives this process, and the children that it makes from now on, a network of its own. Says whether it may.
pub fn own_network() -> bool {
    // SAFETY: an integer.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// Gives this process, and the children that it makes from now on, a view of the mounts of its own. Says whether it may.
pub fn own_mounts() -> bool {
    // SAFETY: integers, nul-terminated names, and null pointers where nothing is to be said.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(c"none".as_ptr(), c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null()) == 0
    }
}

/// As long as it lives, nothing is mounted on `/proc`, as this process and its children see it.
pub struct WithoutProc(());

impl WithoutProc {
    /// Hides it under an empty file system, in a mount namespace of this process's own.
    pub fn new() -> std::io::Result<Self> {
        let check = |result| if result == 0 { Ok(()) } else { Err(Error::last_os_error()) };
        let none = c"none".as_ptr();
        // SAFETY: numbers, and nul-terminated strings. A namespace of users is tried where this one's root is asked for.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS))
                .or_else(|_| check(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)))?;
            check(libc::mount(none, c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null()))?;
            check(libc::mount(none, c"/proc".as_ptr(), c"tmpfs".as_ptr(), 0, null()))?;
        }
        Ok(Self(()))
    }
}

impl Drop for WithoutProc {
    fn drop(&mut self) {
        // SAFETY: a nul-terminated string; what is unmounted was mounted above.
        let result = unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) };
        assert_eq!(result, 0, "{}", Error::last_os_error());
    }
}

/// A descriptor for faults that are handled by the process itself ([userfaultfd(2)]), also those within system calls.
///
/// [userfaultfd(2)]: https://man7.org/linux/man-pages/man2/userfaultfd.2.html
pub fn userfaults() -> Option<OwnedFd> {
    // SAFETY: a flag; the descriptor is new.
    unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// New memory of huge pages that can be sealed, if this kernel has some.
pub fn huge_memory() -> Option<OwnedFd> {
    // SAFETY: a nul-terminated name; the descriptor is new.
    unsafe {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
        let fd = libc::memfd_create(c"huge".as_ptr(), flags);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// Whether a Unix socket sends urgent bytes, outside of the stream.
pub fn sends_urgent_bytes() -> bool {
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    // SAFETY: one byte.
    unsafe { libc::send(socket.as_raw_fd(), [b'!'].as_ptr().cast(), 1, libc::MSG_OOB | libc::MSG_NOSIGNAL) == 1 }
}

/// Whether a socket knows the option against descriptors.
pub fn refuses_rights() -> bool {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let (mut on, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: room for an int, and the length says so.
    unsafe {
        let on: *mut libc::c_int = &mut on;
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, on.cast(), &mut len) == 0
    }
}
