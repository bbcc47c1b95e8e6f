//! What the benchmarks share: the contenders, a peer process on the other core, and how to run both.

#![allow(dead_code, unused_imports)] // no benchmark uses all of it

mod turns;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ipc::{Child, Ends, PipeReader, PipeWriter};

pub use turns::{Contender, compare, median, probe, repeated, report, take_turns};

/// read(2) and write(2), and nothing around them.
pub struct Bare(pub OwnedFd);

impl Read for Bare {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: an open descriptor, and a buffer of that length.
        let len = unsafe { libc::read(self.0.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }
}

impl Write for Bare {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: an open descriptor, and a buffer of that length.
        let len = unsafe { libc::write(self.0.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ends for Bare {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        self.0.each(visit);
    }
}

pub fn bare_pipe() -> (Bare, Bare) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are new.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (Bare(OwnedFd::from_raw_fd(fds[0])), Bare(OwnedFd::from_raw_fd(fds[1])))
    }
}

pub fn bare_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are new.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// send(2), as bare as it can be and not raise a signal.
pub fn bare_send(socket: &OwnedFd, message: &[u8]) {
    // SAFETY: an open descriptor, and a buffer of that length.
    let len = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(len, message.len() as isize);
}

/// recvmsg(2), as bare as it can be and see a message cut.
pub fn bare_recvmsg(socket: &OwnedFd, buf: &mut [u8]) -> usize {
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: zeroed bytes are a valid msghdr, and it points to one buffer of that length.
    let len = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        libc::recvmsg(socket.as_raw_fd(), &mut message, 0)
    };
    assert!(len >= 0, "{}", io::Error::last_os_error());
    len as usize
}

/// recv(2), which is told nothing but the bytes.
pub fn bare_recv(socket: &OwnedFd, buf: &mut [u8]) -> usize {
    // SAFETY: an open descriptor, and a buffer of that length.
    let len = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
    usize::try_from(len).expect("a message")
}

/// Runs this process on that core from here on. If there is no such core, the kernel chooses.
pub fn pin(core: usize) {
    // SAFETY: a set that is zeroed and then has one member.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// A process on the other core, that does something as often as it is told.
pub struct Peer {
    child: Option<Child>,
    orders: Option<PipeWriter>,
}

impl Peer {
    /// `work` is called with each number that is [`order`](Self::order)ed.
    pub fn start<E: Ends>(core: usize, ends: E, mut work: impl FnMut(&mut E, u64)) -> Self {
        let (orders, writer): (PipeReader, _) = ipc::pipe().expect("a pipe");
        let child = ipc::fork((ends, orders), |(mut ends, mut orders)| {
            pin(core);
            let mut order = [0; 8];
            while orders.read_exact(&mut order).is_ok() {
                work(&mut ends, u64::from_ne_bytes(order));
            }
        });
        Self { child: Some(child.expect("a benchmark has one thread")), orders: Some(writer) }
    }

    /// Seconds that its process took of its core so far.
    pub fn processor_time(&self) -> f64 {
        let pid = self.child.as_ref().expect("it runs").id() as libc::pid_t;
        // SAFETY: zeroed bytes are a valid timespec; room for a clock's number and a time.
        let time = unsafe {
            let (mut clock, mut time) = (0, std::mem::zeroed::<libc::timespec>());
            assert_eq!(libc::clock_getcpuclockid(pid, &mut clock), 0);
            assert_eq!(libc::clock_gettime(clock, &mut time), 0);
            time
        };
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }

    pub fn order(&self, number: u64) {
        self.orders.as_ref().expect("it runs").write_atomic(&number.to_ne_bytes()).expect("the peer is there");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.orders = None;
        let status = self.child.take().expect("it was started").wait().expect("it can be waited for");
        assert!(status.success(), "the peer: {status}");
    }
}

/// A neighbour on that core who never sleeps, for as long as this lives.
pub struct Busy(Child);

impl Busy {
    pub fn on(core: usize) -> Self {
        let child = ipc::Fork::new().die_with_parent().spawn((), |()| {
            pin(core);
            loop {
                std::hint::spin_loop();
            }
        });
        Self(child.expect("a benchmark has one thread"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it can be waited for");
    }
}

/// Looks at every byte, as a reader does that has a use for them.
#[inline]
pub fn look_at(bytes: &[u8]) {
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
    std::hint::black_box(words.fold(0_u64, u64::wrapping_add));
}

/// A stream from a peer on `core` to here. Its writes have that size; it is read 64 KiB at a time, and every byte is
/// looked at.
pub struct Stream<R> {
    reader: R,
    size: usize,
    buf: Vec<u8>,
    peer: Peer,
}

impl<R: Read> Stream<R> {
    pub fn new<W: Write + Ends>((reader, writer): (R, W), size: usize, core: usize) -> Self {
        let message = vec![7; size];
        let peer = Peer::start(core, writer, move |writer, count| {
            (0..count).for_each(|_| writer.write_all(&message).expect("the reader is there"));
        });
        Self::from_peer(reader, size, peer)
    }

    /// From a peer that writes as often as it is ordered to, and in its own way.
    pub fn from_peer(reader: R, size: usize, peer: Peer) -> Self {
        Self { reader, size, buf: vec![0; 64 << 10], peer }
    }

    pub fn pass(&mut self, count: u64) -> Duration {
        let mut left = count as usize * self.size;
        let started = Instant::now();
        self.peer.order(count);
        while left > 0 {
            let len = self.reader.read(&mut self.buf).expect("the pipe can be read");
            assert!(len > 0, "the peer is there");
            look_at(&self.buf[..len]);
            left -= len;
        }
        started.elapsed()
    }
}

/// Seconds that this process and those of its children that were waited for took so far.
pub fn processor_time() -> f64 {
    let of = |who| {
        // SAFETY: zeroed bytes are a valid rusage, and the call fills it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut usage);
            usage
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

/// The one that so large a part of them is not above.
pub fn quantile(part: f64, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * part) as usize]
}

/// How much to pass in a round, how many rounds, and which of the rates to take.
pub struct Plan {
    pub bytes: usize,
    pub rounds: usize,
    pub quantile: f64,
}

impl Plan {
    /// Plans the median of rounds with that many bytes. With `--busy`, for a machine that has other work, plans the
    /// best tenth of many short rounds. With `--test`, plans next to nothing.
    pub fn from_arguments(bytes: usize, rounds: usize) -> Self {
        match std::env::args().find(|arg| ["--test", "--busy"].contains(&arg.as_str())).as_deref() {
            Some("--test") => Self { bytes: 2 << 20, rounds: 1, quantile: 0.5 },
            Some(_) => Self { bytes: 4 << 20, rounds: 8 * rounds, quantile: 0.9 },
            None => Self { bytes, rounds, quantile: 0.5 },
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let which = if self.quantile == 0.5 { "medians" } else { "the best tenth" };
        write!(f, "{which} of {} rounds of {} MiB, in turns", self.rounds, self.bytes >> 20)
    }
}

/// Round trips of 16 bytes with a peer on `core`.
pub struct RoundTrip<R, W> {
    reader: R,
    writer: W,
    peer: Peer,
}

impl<R: Read + Ends, W: Write + Ends> RoundTrip<R, W> {
    pub fn new(make: impl Fn() -> (R, W), core: usize) -> Self {
        let ((peer_reader, writer), (reader, peer_writer)) = (make(), make());
        let peer = Peer::start(core, (peer_reader, peer_writer), |(reader, writer), count| {
            let mut buf = [0; 16];
            for _ in 0..count {
                reader.read_exact(&mut buf).expect("the other side is there");
                writer.write_all(&buf).expect("the other side is there");
            }
        });
        Self { reader, writer, peer }
    }

    pub fn pass(&mut self, count: u64) -> Duration {
        let mut buf = [7; 16];
        self.peer.order(count);
        let started = Instant::now();
        for _ in 0..count {
            self.writer.write_all(&buf).expect("the peer is there");
            self.reader.read_exact(&mut buf).expect("the peer is there");
        }
        started.elapsed()
    }
}

/// A pipe that looks again before it sleeps.
pub fn spinning_pipe() -> (PipeReader, PipeWriter) {
    let (mut reader, mut writer) = ipc::pipe().expect("a pipe");
    reader.set_spin(Duration::from_micros(50));
    writer.set_spin(Duration::from_micros(50));
    (reader, writer)
}

pub fn ipc_pipe() -> (PipeReader, PipeWriter) {
    ipc::pipe().expect("a pipe")
}

pub fn std_pipe() -> (io::PipeReader, io::PipeWriter) {
    io::pipe().expect("a pipe")
}

/// Writes and reads of that size in one process.
pub fn write_and_read((mut reader, mut writer): (impl Read, impl Write), size: usize) -> impl FnMut(u64) -> Duration {
    let message = vec![7; size];
    let mut buf = vec![0; size];
    move |count| {
        let started = Instant::now();
        for _ in 0..count {
            writer.write_all(&message).expect("there is room");
            reader.read_exact(&mut buf).expect("there is a message");
        }
        started.elapsed()
    }
}

/// The same over the bare socket pair.
pub fn bare_send_and_recv(size: usize) -> impl FnMut(u64) -> Duration {
    let (from, to) = bare_pair();
    let message = vec![7; size];
    let mut buf = vec![0; size];
    move |count| {
        let started = Instant::now();
        for _ in 0..count {
            bare_send(&from, &message);
            bare_recvmsg(&to, &mut buf);
        }
        started.elapsed()
    }
}

pub fn send_and_recv(size: usize) -> impl FnMut(u64) -> Duration {
    let pair = ipc::datagram_pair().expect("a pair");
    let message = vec![7; size];
    let mut buf = vec![0; size];
    move |count| {
        let started = Instant::now();
        for _ in 0..count {
            pair.parent.send(&message).expect("there is room");
            pair.child.recv(&mut buf).expect("there is a message");
        }
        started.elapsed()
    }
}
