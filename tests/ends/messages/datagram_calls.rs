//! Messages from and into several slices, messages that are looked at first, and an iterator over them.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

use crate::support::{self, Trial, exit_code};
use ipc::{DatagramSocket, Error, datagram_pair, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        many_slices_of_one_buffer_are_too_long_and_take_no_memory,
        a_message_fills_several_slices,
        a_message_that_is_looked_at_stays_with_its_ends,
        an_iterator_ends_where_the_peer_is_gone,
    ]
}

fn many_slices_of_one_buffer_are_too_long_and_take_no_memory() {
    let pair = datagram_pair().unwrap();
    let large = vec![0; 64 << 20];
    let parts = vec![IoSlice::new(&large); 200_000];
    let expected = large.len().saturating_mul(parts.len());
    let timeout = Duration::from_secs(5);
    let (all, few) = (&parts[..], &parts[..1024]);
    for refused in [
        pair.parent.try_send_vectored(all),
        pair.parent.send_vectored(all),
        pair.parent.send_vectored_timeout(all, timeout),
    ] {
        assert!(matches!(refused, Err(Error::TooLong { len, max: 212_960 }) if len == expected), "{refused:?}");
    }
    assert!(matches!(pair.parent.try_send_vectored(few), Err(Error::TooLong { .. })));
    assert!(matches!(pair.child.try_recv(&mut []), Err(Error::WouldBlock)), "nothing was sent");
    let small = vec![IoSlice::new(b"x"); 200_000];
    pair.parent.send_vectored(&small).unwrap();
    assert_eq!(pair.child.recv_vec().unwrap().unwrap(), vec![b'x'; 200_000]);
}

fn a_message_fills_several_slices() {
    let pair = datagram_pair().unwrap();
    let receive = |socket: &DatagramSocket| {
        let (mut first, mut second) = ([b'-'; 3], [b'-'; 4]);
        let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
        let len = socket.recv_vectored(&mut parts);
        len.map(|len| (len, first, second))
    };
    for (text, first, second) in
        [("", b"---", b"----"), ("ab", b"ab-", b"----"), ("abc", b"abc", b"----"), ("abcdefg", b"abc", b"defg")]
    {
        pair.child.send(text.as_bytes()).unwrap();
        assert_eq!(receive(&pair.parent).unwrap(), (Some(text.len()), *first, *second));
    }
    // What is too long is whole in the error.
    pair.child.send(b"abcdefgh").unwrap();
    let Err(Error::BufferTooSmall { message }) = receive(&pair.parent) else { panic!("too short") };
    assert_eq!(message, b"abcdefgh");
    pair.child.send(b"x").unwrap();
    assert!(matches!(pair.parent.recv_vectored(&mut []), Err(Error::BufferTooSmall { message }) if message == b"x"));
    // More slices than one call of the kernel's takes.
    let mut bytes = [0; 3000];
    let mut parts: Vec<_> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
    pair.child.send(&[7; 2500]).unwrap();
    assert_eq!(pair.parent.try_recv_vectored(&mut parts).unwrap(), Some(2500));
    assert!(matches!(pair.parent.try_recv_vectored(&mut parts), Err(Error::WouldBlock)));
    assert!(matches!(pair.parent.recv_vectored_timeout(&mut parts, Duration::ZERO), Err(Error::TimedOut)));
    assert_eq!((bytes[2499], bytes[2500]), (7, 0));
    drop(pair.child);
    assert_eq!(receive(&pair.parent).unwrap().0, None);
}

fn a_message_that_is_looked_at_stays_with_its_ends() {
    let pair = datagram_pair().unwrap();
    let mut buf = [0; 4];
    assert!(matches!(pair.parent.try_peek(&mut buf), Err(Error::WouldBlock)));
    pair.child.send_with(b"hello", File::open("/dev/null").unwrap()).unwrap();
    pair.child.send(b"").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..3 {
        assert_eq!(pair.parent.peek(&mut buf).unwrap(), Some(5));
        assert_eq!(&buf, b"hell");
        assert_eq!(pair.parent.peek_len().unwrap(), Some(5));
    }
    assert_eq!(open(), before);
    let mut message = Vec::new();
    assert_eq!(pair.parent.recv_with(&mut message).unwrap().unwrap().len(), 1);
    assert_eq!(message, b"hello");
    assert_eq!(pair.parent.peek(&mut buf).unwrap(), Some(0));
    assert_eq!(pair.parent.recv(&mut buf).unwrap(), Some(0));
    drop(pair.child);
    assert_eq!(pair.parent.peek(&mut buf).unwrap(), None);
}

fn an_iterator_ends_where_the_peer_is_gone() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        for number in 0..3 {
            socket.send(&vec![number; number.into()]).unwrap();
        }
    })
    .unwrap();
    let all: Vec<_> = pair.parent.iter().map(Result::unwrap).collect();
    assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
    assert_eq!(exit_code(&child), 0);
}
