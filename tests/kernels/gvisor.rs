//! gVisor, a kernel in user space, as far as this one can play it: it takes flags of reads and writes and heeds none, drops empty
//! messages, repeats a reset in the place of EOF, and wipes no pages in the child of a fork (docs/platforms.md).

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use super::promises::keeps_all_but;
use crate::support::{
    self, Is, Kernel, Sigpipe, Trial, asleep_in, assert_times_out, exit_code, fill, handed, limit_descriptors,
    read_all, read_some, refuse_calls, sigpipe,
};
use ipc::{
    Command, DatagramFlags, DatagramSocket, Deadline, Error, Fifo, PIPE_BUF, PipeReader, PipeWriter, Received,
    RingReader, RingWriter, StreamSocket, datagram_pair, datagram_pair_with, fork, pipe, stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        where_flags_do_nothing_every_promise_holds,
        where_flags_do_nothing_and_vmsplice_is_missing_every_promise_holds,
        flags_that_do_nothing_are_noticed_however_an_end_came_here,
        flags_that_do_nothing_are_noticed_before_the_first_read,
        a_full_table_asks_again_at_the_next_end,
        deadlines_are_kept_where_flags_do_nothing,
        a_reader_that_sleeps_is_woken_where_flags_do_nothing,
        a_short_write_goes_in_whole_where_flags_do_nothing,
        no_signal_is_raised_where_flags_do_nothing,
        a_copy_raises_no_signal_where_flags_do_nothing,
        an_empty_message_that_would_be_lost_is_refused_and_gives_its_ends_back,
        an_empty_message_through_an_end_that_was_not_given_says_that,
        where_empty_messages_are_lost_nothing_received_is_eof,
        a_reset_that_is_repeated_is_told_once,
        a_sender_is_not_kept_by_a_reset_that_is_repeated,
        rings_work_where_no_page_is_wiped,
        rings_make_no_barrier_where_no_page_is_wiped,
        rings_notice_every_kind_of_fork_where_no_page_is_wiped,
        rings_notice_a_child_of_the_same_number_where_no_page_is_wiped needs [OwnPids],
        a_program_with_other_descriptors_closed_starts_where_numbers_end_earlier,
    ]
}

/// Some time, for what is to time out.
const SHORT: Duration = Duration::from_millis(2);

fn ignoring_flags() -> Kernel {
    Kernel::new().ignoring_flags()
}

fn where_flags_do_nothing_every_promise_holds() {
    keeps_all_but(&ignoring_flags(), &[]);
}

/// As in gVisor.
fn where_flags_do_nothing_and_vmsplice_is_missing_every_promise_holds() {
    keeps_all_but(&ignoring_flags().without(libc::SYS_vmsplice, libc::ENOSYS), &[]);
}

fn assert_does_not_wait(kind: &str, reader: &PipeReader, writer: &PipeWriter) {
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)), "{kind}");
    assert_eq!(writer.try_write(b"abc").unwrap(), 3, "{kind}");
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 3, "{kind}");
    fill(writer);
    assert!(matches!(writer.try_write(b"x"), Err(Error::WouldBlock)), "{kind}");
}

/// In a process that has made no end so far.
fn in_a_new_process(kind: &str, body: impl FnOnce() -> (PipeReader, PipeWriter)) {
    let verdict = support::judge(support::LIMIT, || {
        ignoring_flags().play();
        let (reader, writer) = body();
        assert_does_not_wait(kind, &reader, &writer);
        Ok(())
    });
    assert_eq!(verdict, Ok(()), "{kind}");
}

fn flags_that_do_nothing_are_noticed_however_an_end_came_here() {
    in_a_new_process("made", || pipe().unwrap());
    in_a_new_process("from the library", || {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    });
    in_a_new_process("from a descriptor", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        (reader.try_into().unwrap(), writer.try_into().unwrap())
    });
    in_a_new_process("a FIFO", || {
        let folder = support::Folder::new();
        let path = folder.0.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let both = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let Fifo { reader, writer, .. } = Fifo::try_from(OwnedFd::from(both)).unwrap();
        (reader, writer)
    });
    in_a_new_process("received", || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, theirs) = (StreamSocket::from(ours), StreamSocket::from(theirs));
        let (reader, writer) = std::io::pipe().unwrap();
        ours.send_with(b"x", (OwnedFd::from(reader), OwnedFd::from(writer))).unwrap();
        let mut received: Received = theirs.recv_with(&mut [0; 8]).unwrap().1;
        (received.take().unwrap(), received.take().unwrap())
    });
}

/// A process may enter a sandbox that kills for calls it does not expect, once it has its ends.
fn flags_that_do_nothing_are_noticed_before_the_first_read() {
    ignoring_flags().play();
    let (reader, writer) = pipe().unwrap();
    let asked = handed();
    assert!(asked > 0, "the question was asked");
    assert_does_not_wait("a pipe", &reader, &writer);
    let (reader, writer) = pipe().unwrap();
    assert_does_not_wait("another pipe", &reader, &writer);
    assert_eq!(handed(), asked, "no call with flags any more");
}

/// A socket too has it asked: ends may come in its messages.
fn a_full_table_asks_again_at_the_next_end() {
    ignoring_flags().play();
    let (reader, writer) = std::io::pipe().unwrap();
    let full = limit_descriptors(0);
    let (reader, writer) = (PipeReader::from(reader), PipeWriter::from(writer));
    assert_eq!(handed(), 0, "there was no place for it");
    drop(full);
    let _socket = stream_pair().unwrap();
    assert_eq!(handed(), 1);
    assert_does_not_wait("a pipe", &reader, &writer);
}

fn deadlines_are_kept_where_flags_do_nothing() {
    ignoring_flags().play();
    let (mut reader, writer) = pipe().unwrap();
    for spin in [Duration::ZERO, Duration::from_micros(20)] {
        reader.set_spin(spin);
        assert_times_out("reading", SHORT, |timeout| reader.read_timeout(&mut [0; 8], timeout));
    }
    let line = Deadline::after(&reader, SHORT).read_exact(&mut [0; 8]);
    assert_eq!(line.unwrap_err().kind(), ErrorKind::TimedOut);
    fill(&writer);
    assert_times_out("writing", SHORT, |timeout| writer.write_timeout(b"x", timeout));
}

fn a_reader_that_sleeps_is_woken_where_flags_do_nothing() {
    ignoring_flags().play();
    let (reader, writer) = pipe().unwrap();
    let child = fork(reader, |reader| {
        assert_eq!(reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 3);
    })
    .unwrap();
    asleep_in(child.id(), &[libc::SYS_ppoll]);
    writer.write_atomic(b"abc").unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_short_write_goes_in_whole_where_flags_do_nothing() {
    ignoring_flags().without(libc::SYS_vmsplice, libc::ENOSYS).play();
    let (reader, mut writer) = pipe().unwrap();
    for _ in 1..writer.capacity().unwrap() / PIPE_BUF {
        writer.write_all(&[1; PIPE_BUF]).unwrap();
    }
    writer.write_all(&[1; PIPE_BUF - 100]).unwrap();
    let queued = reader.available().unwrap();
    for len in [101, PIPE_BUF] {
        assert!(matches!(writer.try_write(&vec![2; len]), Err(Error::WouldBlock)), "{len}");
        assert!(matches!(writer.write_timeout(&vec![2; len], SHORT), Err(Error::TimedOut)), "{len}");
        assert_eq!(reader.available().unwrap(), queued, "{len}");
    }
    assert_eq!(read_some(&reader, queued), vec![1; queued]);
}

fn no_signal_is_raised_where_flags_do_nothing() {
    ignoring_flags().play();
    sigpipe(Sigpipe::Default);
    let (reader, mut writer) = pipe().unwrap();
    drop(reader);
    for _ in 0..2 {
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let parts = [IoSlice::new(b"x"), IoSlice::new(b"y")];
        assert_eq!(writer.write_vectored(&parts).unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(matches!(writer.write_atomic(b"x"), Err(Error::Closed)));
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
        assert!(matches!(writer.write_timeout(b"x", SHORT), Err(Error::Closed)));
    }
}

/// It knows no more than their descriptors, and this process has made no end.
fn a_copy_raises_no_signal_where_flags_do_nothing() {
    ignoring_flags().without(libc::SYS_splice, libc::EPERM).play();
    sigpipe(Sigpipe::Default);
    let ((from, mut writer), (reader, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    writer.write_all(b"abc").unwrap();
    drop(reader);
    assert!(matches!(Error::from(ipc::copy(&from, &to).unwrap_err()), Error::Closed));
}

fn dropping_empty_messages() -> Kernel {
    Kernel::new().dropping_empty_messages()
}

fn an_empty_message_that_would_be_lost_is_refused_and_gives_its_ends_back() {
    dropping_empty_messages().play();
    let refused = |sent: ipc::Result<()>| assert!(matches!(sent, Err(Error::InvalidInput { .. })), "{sent:?}");
    let adopted = UnixDatagram::pair().unwrap();
    let pairs: [(DatagramSocket, DatagramSocket); 3] = [
        datagram_pair().unwrap().into(),
        datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap().into(),
        (adopted.0.try_into().unwrap(), adopted.1.try_into().unwrap()),
    ];
    for (ours, theirs) in &pairs {
        refused(ours.send(b""));
        refused(ours.try_send(b""));
        refused(ours.send_timeout(b"", SHORT));
        refused(ours.send_vectored(&[]));
        refused(ours.send_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]));
        let (reader, writer) = pipe().unwrap();
        let unsent = ours.send_with(b"", writer).unwrap_err();
        refused(Err(unsent.error));
        unsent.ends.write_atomic(b"still ours").unwrap();
        let unsent = ours.try_send_with(b"", unsent.ends).unwrap_err();
        drop(unsent);
        assert_eq!(read_all(reader), b"still ours");
        ours.send(b"x").unwrap();
        assert_eq!(theirs.recv_vec().unwrap().unwrap(), b"x", "nothing came before it");
    }
}

fn an_empty_message_through_an_end_that_was_not_given_says_that() {
    dropping_empty_messages().play();
    let pair = datagram_pair().unwrap();
    let child = fork((), |()| assert!(matches!(pair.parent.send(b""), Err(Error::NotGiven)))).unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// gVisor has credentials beside EOF, as this kernel has on a stream.
fn where_empty_messages_are_lost_nothing_received_is_eof() {
    dropping_empty_messages().play();
    let pair = datagram_pair().unwrap();
    // SAFETY: a message without parts, of which the handler looks at the number alone.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = std::ptr::dangling_mut();
        // As if the kernel had something beside EOF: a message of no bytes that did come.
        libc::syscall(libc::SYS_sendmsg, pair.child.as_raw_fd(), &raw const message, 0, 0, 0, support::MADE_HERE)
    };
    assert_eq!(sent, 0);
    pair.parent.set_passcred(true).unwrap();
    drop(pair.child);
    assert_eq!(pair.parent.peek_len().unwrap(), None);
    assert!(pair.parent.recv_with(&mut Vec::new()).unwrap().is_none());
    assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), None);
}

/// From now on every receive says that the peer went away with messages unread.
fn repeat_resets() {
    refuse_calls(&[libc::SYS_recvmsg, libc::SYS_recvfrom], libc::ECONNRESET);
}

fn a_reset_that_is_repeated_is_told_once() {
    let pair = datagram_pair().unwrap();
    let (receiver, other) = (pair.parent, pair.child);
    let stream = stream_pair().unwrap();
    repeat_resets();
    assert!(matches!(receiver.recv(&mut [0; 8]), Err(Error::Reset)));
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), None);
    assert_eq!(receiver.try_recv_vec().unwrap(), None);
    assert_eq!(receiver.peek_len().unwrap(), None);
    assert!(receiver.try_clone().unwrap().recv_with(&mut Vec::new()).unwrap().is_none());
    assert!(matches!(other.recv_timeout(&mut [0; 8], Duration::MAX), Err(Error::Reset)));
    assert!(other.recv_with_timeout(&mut Vec::new(), Duration::MAX).unwrap().is_none());
    assert_eq!(other.iter().count(), 0);
    assert!(matches!(stream.parent.read_timeout(&mut [0; 8], Duration::MAX), Err(Error::Reset)));
    assert_eq!(stream.parent.try_read(&mut [0; 8]).unwrap(), 0);
    let (mut child, mut all) = (stream.child, Vec::new());
    let reset = child.read_to_end(&mut all).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert_eq!(child.read_to_end(&mut all).unwrap(), 0);
}

fn a_sender_is_not_kept_by_a_reset_that_is_repeated() {
    let (pair, mut stream) = (datagram_pair().unwrap(), stream_pair().unwrap());
    refuse_calls(&[libc::SYS_sendmsg, libc::SYS_sendto], libc::ECONNRESET);
    assert!(matches!(pair.parent.send(b"x"), Err(Error::Closed)));
    assert!(matches!(pair.parent.send_timeout(b"x", Duration::MAX), Err(Error::Closed)));
    assert_eq!(stream.parent.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(pair.child);
    // It is told to a receiver, once.
    assert!(matches!(pair.parent.recv(&mut [0; 8]), Err(Error::Reset)));
    assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), None);
}

/// As gVisor and older versions of qemu-user.
fn wiping_nothing(errno: i32) -> Kernel {
    Kernel::new().with(libc::SYS_madvise, 2, Is::Equal(libc::MADV_WIPEONFORK as u32), errno)
}

/// Runs something in a child that one of libc's calls makes, so that it works in gVisor itself. The child has what this process has.
#[track_caller]
fn in_a_child(fork: impl FnOnce() -> libc::c_long, body: impl FnOnce()) {
    match fork() {
        0 => {
            body();
            // SAFETY: no conditions.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: room for a status.
            assert_eq!(unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) }, pid as libc::pid_t);
            assert_eq!(status, 0);
        }
    }
}

fn bare_fork() -> libc::c_long {
    // SAFETY: this process has one thread.
    unsafe { libc::fork() }.into()
}

/// One that libc knows nothing of. The child has a stack and memory as after a fork.
fn bare_clone() -> libc::c_long {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) }
}

fn rings_work_where_no_page_is_wiped() {
    for errno in [libc::EINVAL, libc::EPERM] {
        let verdict = support::judge(support::LIMIT, || {
            wiping_nothing(errno).play();
            let pair = stream_pair().unwrap();
            let pid = bare_fork() as libc::pid_t;
            if pid == 0 {
                drop(pair.parent);
                let mut ring = RingWriter::with_capacity(pair.child, 1 << 16).unwrap();
                ring.write_all(&[7; 1 << 20]).unwrap();
                ring.close().unwrap();
                // SAFETY: no conditions.
                unsafe { libc::_exit(0) }
            }
            drop(pair.child);
            let (mut ring, mut received) = (RingReader::new(pair.parent).unwrap(), Vec::new());
            ring.read_to_end(&mut received).unwrap();
            assert!(received == [7; 1 << 20]);
            let mut status = 0;
            // SAFETY: room for a status.
            assert_eq!((unsafe { libc::waitpid(pid, &mut status, 0) }, status), (pid, 0));
            Ok(())
        });
        assert_eq!(verdict, Ok(()), "{errno}");
    }
}

/// One takes 13 ms in gVisor, and a fence none.
fn rings_make_no_barrier_where_no_page_is_wiped() {
    wiping_nothing(libc::EINVAL).handing(libc::SYS_membarrier).play();
    let pair = stream_pair().unwrap();
    let (mut writer, mut reader) = (RingWriter::new(pair.parent).unwrap(), RingReader::new(pair.child).unwrap());
    assert!(matches!(reader.read_timeout(&mut [0; 8], SHORT), Err(Error::TimedOut)));
    writer.write_all(b"abc").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 3);
    assert_eq!(handed(), 0);
}

fn rings_notice_every_kind_of_fork_where_no_page_is_wiped() {
    wiping_nothing(libc::EINVAL).play();
    let pair = stream_pair().unwrap();
    let mut writer = RingWriter::new(pair.parent).unwrap();
    let mut reader = RingReader::new(pair.child).unwrap();
    writer.write_all(b"abc").unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    for fork in [bare_fork, bare_clone] {
        in_a_child(fork, || {
            assert!(matches!(writer.try_write(b"x"), Err(Error::NotGiven)));
            assert!(matches!(reader.try_read(&mut [0]), Err(Error::NotGiven)));
            // The child's own are its own.
            let pair = stream_pair().unwrap();
            let mut own = RingWriter::new(pair.parent).unwrap();
            own.write_all(b"x").unwrap();
            in_a_child(fork, || assert!(matches!(own.try_write(b"x"), Err(Error::NotGiven))));
            own.write_all(b"x").unwrap();
        });
    }
    // Here they are what they were.
    writer.write_all(b"d").unwrap();
    writer.close().unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bcd");
}

/// The first process of a pid namespace, and its child that is the first of another, are both number 1.
fn rings_notice_a_child_of_the_same_number_where_no_page_is_wiped() {
    wiping_nothing(libc::EINVAL).play();
    let of_its_own = |body: &dyn Fn()| {
        assert!(support::own_pids());
        in_a_child(bare_fork, || {
            assert_eq!(std::process::id(), 1);
            body();
        });
    };
    of_its_own(&|| {
        let pair = stream_pair().unwrap();
        let ring = std::cell::RefCell::new(RingWriter::new(pair.parent).unwrap());
        ring.borrow_mut().write_all(b"x").unwrap();
        of_its_own(&|| assert!(matches!(ring.borrow_mut().try_write(b"x"), Err(Error::NotGiven))));
        ring.borrow_mut().write_all(b"x").unwrap();
    });
}

fn a_program_with_other_descriptors_closed_starts_where_numbers_end_earlier() {
    let last = Is::Equal(u32::MAX);
    Kernel::new().with(libc::SYS_close_range, 1, last, libc::EINVAL).play();
    let (reader, writer) = pipe().unwrap();
    let secret = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: a descriptor that is open, and a flag.
    assert_eq!(unsafe { libc::fcntl(secret.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let program = format!("echo out; test -e /proc/self/fd/{} || echo closed", secret.as_raw_fd());
    let child = Command::new("sh").args(["-c", &program]).stdout(writer).close_others().spawn().unwrap();
    assert_eq!(read_all(reader), b"out\nclosed\n");
    assert_eq!(exit_code(&child), 0);
}
