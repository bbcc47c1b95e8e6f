//! The parts of a message beside its bytes: descriptors, and who sent it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use super::descriptor::duplicate;
use super::socket::header;
use super::{Errno, Result, empty, errno};

/// The most descriptors that go with one message ([unix(7)]).
///
/// [unix(7)]: https://man7.org/linux/man-pages/man7/unix.7.html
pub(crate) const MOST: usize = 253;

/// Room for that many descriptors, one set of credentials, and the other control messages that a socket from elsewhere may ask
/// for. It is counted in 8-byte units, so that headers are aligned.
const ROOM: usize = {
    // SAFETY: arithmetic on lengths.
    let bytes = unsafe {
        libc::CMSG_SPACE((MOST * size_of::<RawFd>()) as u32) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32)
    };
    (bytes as usize + 512).div_ceil(8)
};

/// From the beginning of a header to its data.
const HEAD: usize = {
    // SAFETY: arithmetic on lengths.
    let len = unsafe { libc::CMSG_LEN(0) };
    len as usize
};

/// The sender as a descriptor, since Linux 6.5.
const SCM_PIDFD: libc::c_int = 4;

/// The sender that the kernel names for messages from before the option was set. It is no process, and the overflow user and
/// group ([user_namespaces(7)]), which are 65534 unless somebody has set them.
///
/// [user_namespaces(7)]: https://man7.org/linux/man-pages/man7/user_namespaces.7.html
fn is_nobody((pid, uid, gid): (u32, u32, u32)) -> bool {
    static NOBODY: OnceLock<(u32, u32)> = OnceLock::new();
    let set = |path| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_534);
    // A process of another pid namespace has no number either, but a user and a group.
    pid == 0 && (uid, gid) == *NOBODY.get_or_init(|| (set(OVERFLOW_UID), set(OVERFLOW_GID)))
}

const OVERFLOW_UID: &str = "/proc/sys/kernel/overflowuid";
const OVERFLOW_GID: &str = "/proc/sys/kernel/overflowgid";

/// The parts of a message beside its bytes.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) fds: Vec<OwnedFd>,
    /// Process, user and group of the sender, where the socket asks for them.
    pub(crate) sender: Option<(u32, u32, u32)>,
    /// Descriptors were sent that could not be installed.
    pub(crate) lost: bool,
}

/// Sends bytes and descriptors with one call, which never raises `SIGPIPE`. Says how many bytes went.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], wait: bool) -> Result<usize> {
    if fds.len() > MOST {
        return Err(Errno::INVAL);
    }
    let mut control = [0_u64; ROOM];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = header(&mut part, 1);
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer is zeroed, aligned, and has room for MOST descriptors, so that the first header and its
        // data lie inside it. The data are plain integers.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(len) as _;
            let first = libc::CMSG_FIRSTHDR(&message);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(first), len as usize);
        }
    }
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the message points to one part, whose bytes are only read, and to the control buffer or to none.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) };
    usize::try_from(sent).map_err(|_| errno())
}

/// Receives bytes, with all that came beside them. The descriptors are close-on-exec and owned. `None`: EOF.
///
/// On a socket that keeps messages apart, messages have to be marked with the time. A message then has the time beside it, and
/// EOF has nothing. On a stream, 0 bytes are EOF, unless `buf` is empty.
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], wait: bool) -> Result<Option<(usize, Beside)>> {
    // Zeroing all of it would take as long as the rest of a call that has only a message.
    let mut control = [const { MaybeUninit::<u64>::uninit() }; ROOM];
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut message = header(&mut part, 1);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the message points to one part, borrowed exclusively, and to a control buffer of that length.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) };
    let len = usize::try_from(len).map_err(|_| errno())?;
    let filled: usize = message.msg_controllen as _;
    // SAFETY: recvmsg has just filled that many bytes of the buffer, but for the gaps.
    let control = unsafe { close_gaps(&mut control, filled) };
    // SAFETY: recvmsg has just filled it for this message.
    let mut beside = if control.is_empty() { Beside::default() } else { unsafe { open(control) } };
    beside.lost |= message.msg_flags & libc::MSG_CTRUNC != 0;
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Errno::MSGSIZE); // larger than any that the kernel builds
    }
    let end = len == 0 && (control.is_empty() && !beside.lost || empty::are_lost());
    Ok(if end { None } else { Some((len, beside)) })
}

/// Zeroes what the kernel leaves as it is between one header's data and the next header, and returns all that is filled.
///
/// # Safety
///
/// recvmsg must have filled that many bytes of the buffer.
unsafe fn close_gaps(control: &mut [MaybeUninit<u64>], filled: usize) -> &[u8] {
    let filled = filled.min(size_of_val(control));
    let start = control.as_mut_ptr().cast::<u8>();
    let mut at = 0;
    while filled - at >= size_of::<libc::cmsghdr>() {
        // SAFETY: the header's bytes are there, and the kernel writes a header whole, at a multiple of its alignment.
        let head = unsafe { start.add(at).cast::<libc::cmsghdr>().read() };
        let len: usize = head.cmsg_len as _;
        let end = at.saturating_add(len.max(HEAD)).min(filled);
        at = end.next_multiple_of(size_of::<usize>()).min(filled);
        // SAFETY: from the end of the data to the next header, and no further than what is filled.
        unsafe { start.add(end).write_bytes(0, at - end) };
    }
    // SAFETY: a rest that is shorter than a header, of which the kernel leaves none.
    unsafe { start.add(at).write_bytes(0, filled - at) };
    // SAFETY: the kernel wrote the headers and their data, and the rest was zeroed. Nothing writes to it any more.
    unsafe { std::slice::from_raw_parts(start, filled) }
}

/// Takes everything out of the control data of a received message.
///
/// # Safety
///
/// The control data must be as recvmsg left them, and be opened once: the descriptors in them get their owner here.
unsafe fn open(control: &[u8]) -> Beside {
    // SAFETY: the kernel installed the descriptor for this message, so nobody else owns it.
    let own = |raw| (raw >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw) });
    let mut beside = Beside::default();
    for part in parts(control) {
        match part {
            // gVisor has no flag for descriptors that found no place, and leaves the head of an empty list.
            Part::Descriptors([]) => beside.lost = true,
            Part::Descriptors(fds) => beside.fds.extend(words(fds).filter_map(own).map(off_stdio)),
            // A socket that came from elsewhere may ask for this. Nobody here does, so it is closed.
            Part::Pidfd(fd) => drop(own(fd)),
            Part::Sender(pid, uid, gid) => beside.sender = Some((pid, uid, gid)).filter(|sender| !is_nobody(*sender)),
        }
    }
    beside
}

/// One thing in control data. Descriptors are bare numbers here, without an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// [`words`], each of them a descriptor.
    Descriptors(&'a [u8]),
    /// Of the sender; negative where the kernel could not make it.
    Pidfd(RawFd),
    /// Process, user and group.
    Sender(u32, u32, u32),
}

/// The parts of control data. Unknown parts are passed over, and it ends where something is cut short.
pub(crate) fn parts(control: &[u8]) -> impl Iterator<Item = Part<'_>> {
    headers(control).filter_map(|(level, kind, data)| match (level, kind) {
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => Some(Part::Descriptors(data)),
        (libc::SOL_SOCKET, SCM_PIDFD) => words(data).next().map(Part::Pidfd),
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
            // A ucred (unix.7).
            let mut fields = words(data).map(|field| field as u32);
            Some(Part::Sender(fields.next()?, fields.next()?, fields.next()?))
        }
        _ => None,
    })
}

/// Level and type of each header, and the data after it ([cmsg(3)]). The headers are aligned as the first of them is.
///
/// [cmsg(3)]: https://man7.org/linux/man-pages/man3/cmsg.3.html
fn headers(mut rest: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        if rest.len() < size_of::<libc::cmsghdr>() {
            return None;
        }
        // SAFETY: the header's bytes are there, aligned or not. A header is integers, which any bytes are.
        let head = unsafe { rest.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        let len: usize = head.cmsg_len as _;
        let data = rest.get(HEAD..len)?;
        rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        Some((head.cmsg_level, head.cmsg_type, data))
    })
}

/// The whole words of 32 bits in it.
pub(crate) fn words(data: &[u8]) -> impl Iterator<Item = i32> {
    data.chunks_exact(4).map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// The kernel installs a descriptor at the lowest number that is free. 0, 1 and 2 are left free, as long as there is
/// another place.
fn off_stdio(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() > 2 {
        return fd;
    }
    duplicate(fd.as_fd()).unwrap_or(fd)
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::{HEAD, Part, ROOM, RawFd, SCM_PIDFD, close_gaps, parts, words};

    /// A header and data, with what [cmsg(3)] has between this and the next one.
    ///
    /// [cmsg(3)]: https://man7.org/linux/man-pages/man3/cmsg.3.html
    fn header(level: libc::c_int, kind: libc::c_int, data: &[u8]) -> Vec<u8> {
        // SAFETY: zeroed bytes are a valid header: integers.
        let mut head: libc::cmsghdr = unsafe { std::mem::zeroed() };
        (head.cmsg_level, head.cmsg_type) = (level, kind);
        head.cmsg_len = (HEAD + data.len()) as _;
        let mut bytes = vec![0xa5; HEAD];
        // SAFETY: a header fits there, and may stand at any address.
        unsafe { bytes.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(head) };
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0xa5);
        bytes
    }

    fn numbers(fds: &[RawFd]) -> Vec<u8> {
        fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect()
    }

    fn rights(fds: &[RawFd]) -> Vec<u8> {
        header(libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers(fds))
    }

    /// The descriptors alone.
    fn descriptors(control: &[u8]) -> Vec<RawFd> {
        let of = |part| if let Part::Descriptors(fds) = part { words(fds).collect() } else { Vec::new() };
        parts(control).flat_map(of).collect()
    }

    #[test]
    fn everything_is_found_whatever_is_beside_it() {
        let control = [
            header(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &numbers(&[7, 8, 9])),
            header(libc::SOL_SOCKET, libc::SCM_RIGHTS + 1000, b"of a kind that nobody knows"),
            rights(&[3, 4, 5]),
            header(libc::IPPROTO_IP, libc::SCM_RIGHTS, &[1; 8]),
            header(libc::SOL_SOCKET, SCM_PIDFD, &numbers(&[-24])),
            rights(&[6]),
        ];
        let (three, one) = (numbers(&[3, 4, 5]), numbers(&[6]));
        let expected = [Part::Sender(7, 8, 9), Part::Descriptors(&three), Part::Pidfd(-24), Part::Descriptors(&one)];
        assert_eq!(parts(&control.concat()).collect::<Vec<_>>(), expected);
        // At any address.
        let moved = [&[0][..], &control.concat()].concat();
        assert_eq!(parts(&moved[1..]).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn gaps_are_closed_and_nothing_else_changes() {
        let control = [rights(&[3, 4, 5]), rights(&[6, 7]), rights(&[8])].concat();
        let mut filled = [const { MaybeUninit::uninit() }; ROOM];
        // A last word that is not whole, as with 32 bits, is filled up.
        for (word, bytes) in filled.iter_mut().zip(control.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.write(u64::from_ne_bytes(whole));
        }
        for len in [0, control.len() - 4, control.len(), usize::MAX] {
            // SAFETY: that many bytes are filled, or as many as there are headers.
            let closed = unsafe { close_gaps(&mut filled, len.min(control.len())) };
            assert_eq!(descriptors(closed), descriptors(&control[..closed.len()]));
            let expected: Vec<_> = control.iter().map(|byte| if *byte == 0xa5 { 0 } else { *byte }).collect();
            assert_eq!(closed, &expected[..closed.len()]);
        }
    }

    #[test]
    fn an_empty_list_of_descriptors_is_one_that_was_lost() {
        // SAFETY: there is no descriptor in it.
        assert!(unsafe { super::open(&rights(&[])) }.lost);
        // SAFETY: as above.
        assert!(!unsafe { super::open(&header(libc::SOL_SOCKET, SCM_PIDFD, &numbers(&[-24]))) }.lost);
    }

    #[test]
    fn the_last_one_needs_nothing_after_it() {
        let control = rights(&[3]);
        assert_eq!(descriptors(&control[..HEAD + 4]), [3]);
        assert!(descriptors(&control[..HEAD + 3]).is_empty());
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let control = [rights(&[3, 4]), rights(&[5])].concat();
        for len in 0..control.len() {
            let fds = descriptors(&control[..len]);
            assert!([&[][..], &[3, 4], &[3, 4, 5]].contains(&&fds[..]), "{len} bytes: {fds:?}");
        }
        // Lengths that lead nowhere, or back to where it came from.
        for len in [0, 1, HEAD - 1, HEAD, control.len() + 1, usize::MAX - 3, usize::MAX] {
            let mut control = control.clone();
            let at = std::mem::offset_of!(libc::cmsghdr, cmsg_len);
            control[at..][..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert!(descriptors(&control).is_empty(), "{len}");
        }
        let short = |kind, len| parts(&header(libc::SOL_SOCKET, kind, &vec![0; len])).count();
        assert_eq!((short(libc::SCM_CREDENTIALS, 11), short(libc::SCM_CREDENTIALS, 12)), (0, 1));
        assert_eq!((short(SCM_PIDFD, 3), short(SCM_PIDFD, 4)), (0, 1));
    }
}
