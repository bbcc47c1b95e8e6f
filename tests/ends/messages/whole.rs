//! A message arrives whole, or all of it is in the error (P4): never cut, never joined, never lost, whatever its length,
//! the buffer, and the number of parts.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::support::{self, Trial, assert_same, assert_times_out, exit_code, message};
use ipc::{DatagramFlags, DatagramPair, DatagramSocket, Error, datagram_pair, datagram_pair_with, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_of_every_length_arrive_whole_and_in_order,
        the_longest_message_of_all_arrives_whole needs [NetAdmin],
        a_short_buffer_loses_nothing,
        an_empty_buffer_loses_nothing,
        empty_messages_are_no_eof_however_they_are_received,
        a_clone_that_receives_ends_takes_no_mark_from_the_other,
        a_message_over_the_limit_is_not_sent,
        a_message_over_the_limit_is_refused_also_when_the_queue_is_full,
        a_message_of_many_parts_is_one_message,
        a_message_of_many_parts_waits_no_longer_than_it_may,
        the_length_of_the_next_message_can_be_looked_at,
        the_limit_can_be_set_within_bounds,
        without_privileges_the_limit_ends_at_the_systems,
        more_than_the_kernel_builds_is_too_long_whatever_the_limit needs [NetAdmin],
        descriptors_that_nobody_asked_for_are_closed,
        a_long_message_leaves_no_memory_in_use,
    ]
}

/// The message that is inside the error.
#[track_caller]
fn too_small(result: ipc::Result<Option<usize>>) -> Vec<u8> {
    match result {
        Err(Error::BufferTooSmall { message }) => message,
        other => panic!("the message did not fit: {other:?}"),
    }
}

#[track_caller]
fn assert_too_long(result: ipc::Result<()>, expected: (usize, usize)) {
    match result {
        Err(Error::TooLong { len, max }) => assert_eq!((len, max), expected),
        other => panic!("the message is too long: {other:?}"),
    }
}

#[track_caller]
fn assert_nothing_there(socket: &DatagramSocket) {
    let result = socket.try_recv(&mut [0; 16]);
    assert!(matches!(result, Err(Error::WouldBlock)), "{result:?}");
}

fn every_pair() -> [DatagramPair; 2] {
    [datagram_pair().unwrap(), datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()]
}

fn messages_of_every_length_arrive_whole_and_in_order() {
    for pair in every_pair() {
        let max = pair.parent.max_message().unwrap();
        let mut lengths = vec![1, 2, 15, 4095, 4096, 4097, 65535, 65536, 65537, 200_000, max - 1, max, 0];
        lengths.extend((0..300).map(|number| number * number % 7001));
        let expected = lengths.clone();
        let child = fork(pair.child, move |socket| {
            // The child receives all of them and then sends them back.
            let mut buf = vec![0; max];
            for (number, len) in expected.iter().enumerate() {
                assert_eq!(socket.recv(&mut buf).unwrap(), Some(*len));
                assert_same(&buf[..*len], &message(number, *len));
            }
            for (number, len) in expected.iter().enumerate() {
                socket.send(&message(number, *len)).unwrap();
            }
        })
        .unwrap();
        for (number, len) in lengths.iter().enumerate() {
            pair.parent.send(&message(number, *len)).unwrap();
        }
        for (number, len) in lengths.iter().enumerate() {
            assert_same(&pair.parent.recv_vec().unwrap().expect("a message"), &message(number, *len));
        }
        assert_eq!(exit_code(&child), 0);
    }
}

fn the_longest_message_of_all_arrives_whole() {
    for pair in every_pair() {
        let child = fork(pair.child, |socket| {
            let max = socket.set_max_message(usize::MAX).unwrap();
            assert!(max >= 4 << 20, "{max}");
            socket.send(&max.to_ne_bytes()).unwrap();
            for number in 0..3 {
                socket.send(&message(number, max)).unwrap();
            }
            for len in [max + 1, max + (4 << 10), 5 << 20, 16 << 20] {
                assert_too_long(socket.send(&vec![0; len]), (len, max));
                assert_too_long(socket.try_send(&vec![0; len]), (len, max));
            }
            socket.send(b"last").unwrap();
        })
        .unwrap();
        let mut length = [0; size_of::<usize>()];
        pair.parent.recv(&mut length).unwrap();
        let max = usize::from_ne_bytes(length);
        let mut buf = vec![0; max];
        assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(max));
        assert_same(&buf, &message(0, max));
        assert_same(&too_small(pair.parent.recv(&mut [0; 1])), &message(1, max));
        assert_same(&pair.parent.recv_vec().unwrap().expect("a message"), &message(2, max));
        assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), b"last");
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_short_buffer_loses_nothing() {
    for pair in every_pair() {
        let lengths = [2, 100, 512, 513, 1100, 4097, 70_000, 200_000];
        let child = fork(pair.child, move |socket| {
            for (number, len) in lengths.into_iter().enumerate() {
                for call in 0..3 {
                    socket.send(&message(number + call, len)).unwrap();
                    socket.send(b"next").unwrap();
                }
            }
        })
        .unwrap();
        let next = |socket: &DatagramSocket| {
            let mut buf = [0; 4];
            assert_eq!(socket.recv(&mut buf).unwrap(), Some(4));
            assert_eq!(&buf, b"next", "the next message is whole");
        };
        for (number, len) in lengths.into_iter().enumerate() {
            // Of all but one byte, of half, and of one.
            for (call, room) in [len - 1, len / 2, 1].into_iter().enumerate() {
                let mut buf = vec![0; room];
                pair.parent.peek_len().unwrap(); // there is one, also for the second call
                let result = match call {
                    0 => pair.parent.recv(&mut buf),
                    1 => pair.parent.try_recv(&mut buf),
                    _ => pair.parent.recv_timeout(&mut buf, Duration::from_secs(5)),
                };
                assert_same(&too_small(result), &message(number + call, len));
                next(&pair.parent);
            }
        }
        assert_eq!(exit_code(&child), 0);
    }
}

fn empty_messages_are_no_eof_however_they_are_received() {
    const MESSAGES: [&[u8]; 6] = [b"", b"a", b"", b"", b"b", b""];
    for plainly in 0..1_u32 << MESSAGES.len() {
        let pair = datagram_pair().unwrap();
        MESSAGES.iter().for_each(|message| pair.parent.send(message).unwrap());
        drop(pair.parent);
        for (at, expected) in MESSAGES.iter().enumerate() {
            let mut message = vec![7; 8];
            if plainly & 1 << at != 0 {
                assert_eq!(pair.child.peek_len().unwrap(), Some(expected.len()), "{at} of {plainly:b}");
                message = pair.child.recv_vec().unwrap().unwrap_or_else(|| panic!("{at} of {plainly:b}"));
            } else {
                let received = pair.child.recv_with(&mut message).unwrap();
                assert_eq!(received.map(|received| received.len()), Some(0), "{at} of {plainly:b}");
            }
            assert_eq!(message, *expected);
        }
        for _ in 0..2 {
            assert!(pair.child.peek_len().unwrap().is_none() && pair.child.recv_vec().unwrap().is_none());
            assert!(pair.child.recv_with(&mut Vec::new()).unwrap().is_none());
        }
    }
}

fn a_clone_that_receives_ends_takes_no_mark_from_the_other() {
    let pair = datagram_pair().unwrap();
    let clone = pair.child.try_clone().unwrap();
    for _ in 0..4 {
        pair.parent.send(b"").unwrap();
    }
    drop(pair.parent);
    assert!(clone.recv_with(&mut Vec::new()).unwrap().is_some());
    assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(0));
    assert!(pair.child.recv_with(&mut Vec::new()).unwrap().is_some());
    assert_eq!(clone.recv(&mut [0; 8]).unwrap(), Some(0));
    assert_eq!((pair.child.recv(&mut [0; 8]).unwrap(), clone.recv(&mut [0; 8]).unwrap()), (None, None));
}

fn an_empty_buffer_loses_nothing() {
    for pair in every_pair() {
        pair.child.send(b"something").unwrap();
        pair.child.send(b"").unwrap();
        pair.child.send(b"more").unwrap();
        assert_eq!(too_small(pair.parent.recv(&mut [])), b"something");
        assert_eq!(pair.parent.recv(&mut []).unwrap(), Some(0));
        assert_eq!(too_small(pair.parent.try_recv(&mut [])), b"more");
        assert!(matches!(pair.parent.try_recv(&mut []), Err(Error::WouldBlock)));
    }
}

fn a_message_over_the_limit_is_not_sent() {
    for pair in every_pair() {
        let max = pair.parent.max_message().unwrap();
        assert!(max >= 100_000, "the system's default was made very small: {max}");
        for len in [max + 1, max + 100, 5 << 20] {
            let long = vec![7; len];
            assert_too_long(pair.parent.send(&long), (len, max));
            assert_too_long(pair.parent.try_send(&long), (len, max));
            assert_too_long(pair.parent.send_timeout(&long, Duration::ZERO), (len, max));
            assert_too_long(pair.parent.send_vectored(&[IoSlice::new(&long[1..]), IoSlice::new(&[7])]), (len, max));
        }
        assert_nothing_there(&pair.child);
        pair.parent.send(b"the next").unwrap();
        assert_eq!(pair.child.recv_vec().unwrap().expect("a message"), b"the next");
    }
}

fn a_message_over_the_limit_is_refused_also_when_the_queue_is_full() {
    let pair = datagram_pair().unwrap();
    let max = pair.parent.max_message().unwrap();
    while pair.parent.try_send(b"x").is_ok() {}
    // It would never fit, so a blocking call does not wait.
    assert_too_long(pair.parent.send(&vec![0; max + 1]), (max + 1, max));
}

fn a_message_of_many_parts_is_one_message() {
    for pair in every_pair() {
        pair.parent.send_vectored(&[]).unwrap();
        assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(0), "no parts: an empty message");
        pair.parent.send_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).unwrap();
        assert_eq!(pair.child.recv(&mut [0; 8]).unwrap(), Some(0));
        pair.parent.send_vectored(&[IoSlice::new(b""), IoSlice::new(b"one"), IoSlice::new(b"two")]).unwrap();
        assert_eq!(pair.child.recv_vec().unwrap().expect("a message"), b"onetwo");
        for count in [1, 1023, 1024, 1025, 5000] {
            let whole = message(count, count * 3);
            let parts: Vec<_> = whole.chunks(3).map(IoSlice::new).collect();
            assert_eq!(parts.len(), count);
            pair.parent.send_vectored(&parts).unwrap();
            assert_same(&pair.child.recv_vec().unwrap().expect("a message"), &whole);
        }
        // The sum of the parts is over the limit, no part is.
        let max = pair.parent.max_message().unwrap();
        for count in [3, 5000] {
            let part = vec![0; max / count + 1];
            let parts = vec![IoSlice::new(&part); count];
            assert_too_long(pair.parent.send_vectored(&parts), (part.len() * count, max));
        }
        assert_nothing_there(&pair.child);
    }
}

fn a_message_of_many_parts_waits_no_longer_than_it_may() {
    for pair in every_pair() {
        for count in [0, 1, 2, 1025] {
            let whole = message(count, count * 3);
            let parts: Vec<_> = whole.chunks(3).map(IoSlice::new).collect();
            pair.parent.try_send_vectored(&parts).unwrap();
            pair.parent.send_vectored_timeout(&parts, Duration::ZERO).unwrap();
            for _ in 0..2 {
                assert_same(&pair.child.recv_vec().unwrap().expect("a message"), &whole);
            }
            // A full queue takes nothing, whatever the number of parts.
            let mut queued = 0;
            while pair.parent.try_send(b"one of many").is_ok() {
                queued += 1;
            }
            assert!(matches!(pair.parent.try_send_vectored(&parts), Err(Error::WouldBlock)));
            assert_times_out("parts", Duration::from_millis(20), |timeout| {
                pair.parent.send_vectored_timeout(&parts, timeout)
            });
            for _ in 0..queued {
                assert_same(&pair.child.recv_vec().unwrap().expect("a message"), b"one of many");
            }
            assert_nothing_there(&pair.child);
        }
        let max = pair.parent.max_message().unwrap();
        let long = vec![0; max];
        let parts = [IoSlice::new(&long), IoSlice::new(b"x")];
        assert_too_long(pair.parent.try_send_vectored(&parts), (max + 1, max));
        assert_too_long(pair.parent.send_vectored_timeout(&parts, Duration::MAX), (max + 1, max));
    }
}

fn the_length_of_the_next_message_can_be_looked_at() {
    for pair in every_pair() {
        for len in [0, 1, 70_000] {
            pair.parent.send(&message(1, len)).unwrap();
            pair.parent.send(&message(2, len + 1)).unwrap();
            for _ in 0..3 {
                assert_eq!(pair.child.peek_len().unwrap(), Some(len));
            }
            assert_same(&pair.child.recv_vec().unwrap().expect("it stayed"), &message(1, len));
            assert_eq!(pair.child.peek_len().unwrap(), Some(len + 1));
            assert_same(&pair.child.recv_vec().unwrap().expect("it stayed"), &message(2, len + 1));
        }
    }
}

fn the_limit_can_be_set_within_bounds() {
    let pair = datagram_pair().unwrap();
    let exact = |max| {
        assert_eq!(pair.parent.max_message().unwrap(), max);
        pair.parent.send(&message(0, max)).unwrap();
        assert_same(&pair.child.recv_vec().unwrap().expect("a message"), &message(0, max));
        assert_too_long(pair.parent.send(&vec![0; max + 1]), (max + 1, max));
    };
    let least = pair.parent.set_max_message(0).unwrap();
    assert!(least > 0 && least < 10_000, "the kernel's least: {least}");
    exact(least);
    for bytes in [1, 5000, 64 << 10, (64 << 10) + 1, 1 << 20, 4 << 20] {
        let max = pair.parent.set_max_message(bytes).unwrap();
        assert!(max >= bytes && max <= (bytes + 1).max(least), "{bytes}: {max}");
        exact(max);
    }
    let most = pair.parent.set_max_message(usize::MAX).unwrap();
    assert_eq!(most, 4160 << 10);
    exact(most);
    assert_eq!(pair.parent.set_max_message(most).unwrap(), most);
    // It is the sender's, and the other direction keeps its own.
    assert!(pair.child.max_message().unwrap() < 1 << 20);
}

fn without_privileges_the_limit_ends_at_the_systems() {
    let pair = datagram_pair().unwrap();
    let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max").expect("the system's limit");
    let limit: usize = limit.trim().parse().expect("a number");
    let child = fork(pair.child, move |socket| {
        // SAFETY: a number; it gives up root's privileges, if there were any.
        unsafe { libc::setuid(65534) };
        let max = socket.set_max_message(usize::MAX).unwrap();
        assert!(max <= 2 * limit && max > limit, "{max} with a limit of {limit}");
        socket.send(&message(9, max)).unwrap();
        assert_too_long(socket.send(&vec![0; max + 1]), (max + 1, max));
    })
    .unwrap();
    let received = pair.parent.recv_vec().unwrap().expect("a message");
    assert_same(&received, &message(9, received.len()));
    assert_eq!(exit_code(&child), 0);
}

fn more_than_the_kernel_builds_is_too_long_whatever_the_limit() {
    for pair in every_pair() {
        let bytes: libc::c_int = 64 << 20;
        let len = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the option is an int, and the length says so.
        let result = unsafe {
            let bytes = (&raw const bytes).cast();
            libc::setsockopt(pair.parent.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes, len)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let max = pair.parent.max_message().unwrap();
        assert_eq!(max, 4160 << 10);
        for len in [5 << 20, 16 << 20] {
            assert_too_long(pair.parent.send(&vec![0; len]), (len, max));
        }
        pair.parent.send(&message(1, max)).unwrap();
        assert_same(&pair.child.recv_vec().unwrap().expect("a message"), &message(1, max));
        assert_nothing_there(&pair.child);
    }
}

/// What a program that does not use this crate may do: a message with descriptors.
fn send_descriptors(socket: impl AsFd, message: &[u8], fds: &[i32]) {
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: a zeroed header; the control buffer is aligned, and has room for one header and a few descriptors.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of_val(fds) as u32) as _;
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(size_of_val(fds) as u32) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), size_of_val(fds));
        let sent = libc::sendmsg(socket.as_fd().as_raw_fd(), &header, libc::MSG_NOSIGNAL);
        assert_eq!(sent, message.len() as isize, "{}", std::io::Error::last_os_error());
    }
}

fn descriptors_that_nobody_asked_for_are_closed() {
    let pair = datagram_pair().unwrap();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    let (reader, writer) = std::io::pipe().unwrap();
    for message in [&b"abc"[..], b""] {
        for _ in 0..6 {
            send_descriptors(&pair.child, message, &[writer.as_raw_fd(), reader.as_raw_fd(), 2]);
        }
        let mut buf = [0; 8];
        assert_eq!(pair.parent.peek_len().unwrap(), Some(message.len()));
        assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(message.len()));
        assert_eq!(pair.parent.try_recv(&mut buf).unwrap(), Some(message.len()));
        assert_eq!(pair.parent.recv_timeout(&mut buf, Duration::ZERO).unwrap(), Some(message.len()));
        assert_eq!(pair.parent.recv_vec().unwrap().expect("a message"), message);
        assert_eq!(pair.parent.try_recv_vec().unwrap().expect("a message"), message);
        match message {
            [] => assert_eq!(pair.parent.recv(&mut []).unwrap(), Some(0)),
            message => assert_eq!(too_small(pair.parent.recv(&mut [0; 2])), message),
        }
        assert_nothing_there(&pair.parent);
    }
    // The pipe has no writer but this one, nowhere.
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    assert_eq!(count(), before);
}

fn a_long_message_leaves_no_memory_in_use() {
    let resident = || {
        // What was freed and is kept for the next allocation does not count.
        // SAFETY: no conditions.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0)
        };
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let pair = datagram_pair().unwrap();
    let max = pair.child.set_max_message(usize::MAX).unwrap();
    let child = fork(pair.child, move |socket| {
        for number in 0..4 {
            socket.send(&message(number, max)).unwrap();
        }
    })
    .unwrap();
    let before = resident();
    for _ in 0..2 {
        assert_eq!(pair.parent.recv_vec().unwrap().expect("a message").len(), max);
        assert!(resident() < before + (2 << 20), "{} more than before", resident() - before);
        assert_eq!(too_small(pair.parent.recv(&mut [0; 8])).len(), max);
        assert!(resident() < before + (2 << 20), "{} more than before", resident() - before);
    }
    assert_eq!(exit_code(&child), 0);
}
