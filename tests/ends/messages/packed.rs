//! Many messages in one datagram: each arrives whole and in order, as P4 and P5 promise of plain ones; and when they go.

use std::time::Duration;

use crate::support::{self, Trial, assert_next, assert_same, exit_code, message};
use ipc::{DatagramFlags, DatagramPair, DatagramSocket, Error, PackedSocket, datagram_pair, datagram_pair_with, fork};

pub fn trials() -> Vec<Trial> {
    support::trials![
        messages_of_every_length_arrive_whole_and_in_order within 60,
        empty_messages_are_messages,
        many_messages_are_one_datagram,
        a_pack_goes_when_the_next_message_does_not_fit,
        a_message_longer_than_a_pack_goes_alone_after_those_before_it,
        packs_are_no_longer_than_the_socket_sends,
        a_message_over_the_limit_is_refused_and_nothing_is_lost,
        a_message_over_the_limit_is_refused_also_when_the_queue_is_full,
        the_longest_message_of_all_arrives_whole,
        a_message_that_there_is_no_memory_to_copy_stays,
        nothing_goes_before_it_is_flushed,
        whatever_waits_flushes_first,
        a_request_and_its_answer_need_no_flush,
        closing_flushes,
        dropping_flushes,
        the_socket_comes_back_flushed,
        the_socket_does_not_come_back_while_messages_are_unread,
        what_is_buffered_can_be_seen,
    ]
}

const LONG: Duration = Duration::from_secs(10);

/// So many bytes of messages and their heads share a datagram.
const PACK: usize = 32 << 10;
const HEAD: usize = 4;

fn packed_pair() -> (PackedSocket, PackedSocket) {
    let pair = datagram_pair().unwrap();
    (PackedSocket::new(pair.parent), PackedSocket::new(pair.child))
}

/// One side packs, and the other shows what goes over.
fn half_packed() -> (PackedSocket, DatagramSocket) {
    let pair = datagram_pair().unwrap();
    (PackedSocket::new(pair.parent), pair.child)
}

#[track_caller]
fn assert_nothing_there(socket: &DatagramSocket) {
    let result = socket.try_recv(&mut [0; 16]);
    assert!(matches!(result, Err(Error::WouldBlock)), "{result:?}");
}

/// These messages, as they are in a pack.
fn pack(messages: &[&[u8]]) -> Vec<u8> {
    let pack = messages.iter().flat_map(|message| [&(message.len() as u32).to_le_bytes()[..], message].concat());
    pack.collect()
}

fn messages_of_every_length_arrive_whole_and_in_order() {
    for pair in [datagram_pair().unwrap(), datagram_pair_with(DatagramFlags::CONNECTIONLESS).unwrap()] {
        let max = pair.parent.max_message().unwrap() - HEAD;
        let mut lengths = vec![0, 1, 2, 3, 4, 5, 0, 0, 4095, 4096, 70_000, max - 1, max, 1, 0, max, 0];
        lengths.extend((0..12).map(|less| PACK - less));
        lengths.extend((0..12).map(|less| PACK / 2 - less));
        lengths.extend((0..support::rounds(3000) as usize).map(|number| number * number % 611));
        lengths.extend((0..300).map(|number| number * number % 70_001));
        let expected = lengths.clone();
        let child = fork(pair.child, move |socket| {
            // The child receives all of them and then sends them back.
            let mut socket = PackedSocket::new(socket);
            for (number, len) in expected.iter().enumerate() {
                assert_next(socket.recv(), &message(number, *len));
            }
            for (number, len) in expected.iter().enumerate() {
                socket.send(&message(number, *len)).unwrap();
            }
            socket.close().unwrap();
        })
        .unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        assert_eq!(socket.max_message().unwrap(), max);
        for (number, len) in lengths.iter().enumerate() {
            socket.send(&message(number, *len)).unwrap();
        }
        for (number, len) in lengths.iter().enumerate() {
            assert_next(socket.recv(), &message(number, *len));
        }
        assert_eq!(exit_code(&child), 0);
    }
}

fn empty_messages_are_messages() {
    let (mut from, mut to) = packed_pair();
    for _ in 0..3 {
        from.send(b"").unwrap();
    }
    from.send(b"x").unwrap();
    from.send(b"").unwrap();
    from.flush().unwrap();
    from.send(b"").unwrap(); // one that is alone in its pack, and the last
    from.close().unwrap();
    for message in [&b""[..], b"", b"", b"x", b"", b""] {
        assert_eq!(to.recv().unwrap(), Some(message));
    }
    for _ in 0..3 {
        assert_eq!(to.recv().unwrap(), None);
        assert_eq!(to.try_recv().unwrap(), None);
        assert_eq!(to.recv_timeout(LONG).unwrap(), None);
        assert_eq!(to.recv_timeout(Duration::ZERO).unwrap(), None);
    }
}

fn many_messages_are_one_datagram() {
    let (mut from, to) = half_packed();
    from.send(b"one").unwrap();
    from.try_send(b"").unwrap();
    from.send_timeout(b"three", LONG).unwrap();
    from.flush().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), b"\x03\0\0\0one\0\0\0\0\x05\0\0\0three");
    assert_nothing_there(&to);
    // And the other way.
    to.send(&pack(&[b"", b"to you", &[7; 300]])).unwrap();
    for message in [&b""[..], b"to you", &[7; 300]] {
        assert_next(from.recv(), message);
    }
}

fn a_pack_goes_when_the_next_message_does_not_fit() {
    for (len, count) in [(0, PACK / 4), (12, PACK / 16), (100, PACK / 104), (PACK / 2 - HEAD, 2), (PACK - HEAD, 1)] {
        for send in [PackedSocket::send, PackedSocket::try_send, |socket: &mut PackedSocket, message: &[u8]| {
            socket.send_timeout(message, LONG)
        }] {
            let (mut from, to) = half_packed();
            let messages: Vec<_> = (0..=count).map(|number| message(number, len)).collect();
            let slices: Vec<_> = messages.iter().map(Vec::as_slice).collect();
            for message in &slices[..count] {
                send(&mut from, message).unwrap();
            }
            assert_nothing_there(&to);
            send(&mut from, slices[count]).unwrap();
            assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&slices[..count]));
            assert_nothing_there(&to);
            from.flush().unwrap();
            assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&slices[count..]));
        }
    }
}

fn a_message_longer_than_a_pack_goes_alone_after_those_before_it() {
    let (mut from, to) = half_packed();
    for len in [PACK - HEAD + 1, PACK, 100_000, from.max_message().unwrap()] {
        from.send(b"before").unwrap();
        from.send(&message(1, len)).unwrap(); // at once
        from.send(b"after").unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"before"]));
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[&message(1, len)]));
        assert_nothing_there(&to);
        from.flush().unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"after"]));
    }
}

fn packs_are_no_longer_than_the_socket_sends() {
    let pair = datagram_pair().unwrap();
    let least = pair.parent.set_max_message(0).unwrap();
    assert!(least < PACK, "the kernel's least: {least}");
    let (mut from, to) = (PackedSocket::new(pair.parent), pair.child);
    assert_eq!(from.max_message().unwrap(), least - HEAD);
    let whole = message(0, least - HEAD);
    for round in 0..2 {
        from.send(&whole).unwrap();
        from.send(&whole[1..]).unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[&whole]));
        from.flush().unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[&whole[1..]]));
        let count = least / (HEAD + 100);
        (0..=count).for_each(|number| from.send(&message(number, 100)).unwrap());
        let first: Vec<_> = (0..count).map(|number| message(number, 100)).collect();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&first.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        from.flush().unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[&message(count, 100)]));
        // One byte more than goes, and things are as they were.
        from.send(b"waits").unwrap();
        assert_too_long(from.send(&message(round, least - HEAD + 1)), (least - HEAD + 1, least - HEAD));
        assert_nothing_there(&to);
        from.flush().unwrap();
        assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"waits"]));
    }
}

#[track_caller]
fn assert_too_long(result: ipc::Result<()>, expected: (usize, usize)) {
    match result {
        Err(Error::TooLong { len, max }) => assert_eq!((len, max), expected),
        other => panic!("the message is too long: {other:?}"),
    }
}

fn a_message_over_the_limit_is_refused_and_nothing_is_lost() {
    let (mut from, to) = half_packed();
    let max = from.max_message().unwrap();
    from.send(b"before").unwrap();
    for len in [max + 1, max + 4, max + 5, 5 << 20] {
        let long = vec![0; len];
        assert_too_long(from.send(&long), (len, max));
        assert_too_long(from.try_send(&long), (len, max));
        assert_too_long(from.send_timeout(&long, Duration::ZERO), (len, max));
    }
    assert_nothing_there(&to);
    from.send(b"after").unwrap();
    from.flush().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"before", b"after"]));

    // The limit sinks below what waits already: that stays until it can go.
    let before = from.get_ref().max_message().unwrap();
    (0..100).for_each(|number| from.send(&message(number, 100)).unwrap());
    let least = from.get_ref().set_max_message(0).unwrap();
    for _ in 0..2 {
        assert_too_long(from.flush(), (10_400, least));
        assert!(matches!(from.recv_timeout(Duration::ZERO), Err(Error::TooLong { .. })));
    }
    from.get_ref().set_max_message(before).unwrap();
    from.flush().unwrap();
    assert_eq!(to.recv_vec().unwrap().unwrap().len(), 10_400);
}

fn a_message_over_the_limit_is_refused_also_when_the_queue_is_full() {
    let (mut from, _to) = half_packed();
    let max = from.max_message().unwrap();
    while from.try_send(&[0; 100]).is_ok() {}
    // It would never fit, so a blocking call does not wait.
    assert_too_long(from.send(&vec![0; max + 1]), (max + 1, max));
}

fn the_longest_message_of_all_arrives_whole() {
    let pair = datagram_pair().unwrap();
    let most = pair.parent.set_max_message(usize::MAX).unwrap();
    let child = fork(pair.child, move |socket| {
        let mut socket = PackedSocket::new(socket);
        for number in 0..3 {
            assert_next(socket.recv(), &message(number, most - HEAD));
            assert_next(socket.recv(), b"between");
        }
        assert_eq!(socket.recv().unwrap(), None);
    })
    .unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    for number in 0..3 {
        socket.send(&message(number, most - HEAD)).unwrap();
        socket.send(b"between").unwrap();
    }
    socket.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_message_that_there_is_no_memory_to_copy_stays() {
    let (mut ours, mut theirs) = packed_pair();
    let long = message(1, 150_000);
    theirs.send(&long).unwrap();
    assert_next(ours.recv(), &long); // the buffer is that long from here on
    theirs.send(&long).unwrap();
    support::limit(libc::RLIMIT_AS, |_| support::own_size() as libc::rlim_t);
    let refused = [ours.recv_vec(), ours.try_recv_vec(), ours.recv_vec_timeout(LONG)];
    support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
    for refused in refused {
        assert_eq!(support::refused(refused), ("malloc", libc::ENOMEM));
    }
    assert_next(ours.recv(), &long);
    // One that is no pack cannot be in the error then, and the next one arrives.
    theirs.get_ref().send(&[0xff; 150_000]).unwrap();
    theirs.send(b"next").unwrap();
    theirs.flush().unwrap();
    support::limit(libc::RLIMIT_AS, |_| support::own_size() as libc::rlim_t);
    let refused = ours.recv().map(drop);
    support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
    assert_eq!(support::refused(refused), ("malloc", libc::ENOMEM));
    assert_next(ours.recv(), b"next");
}

fn nothing_goes_before_it_is_flushed() {
    let flushes: [fn(&mut PackedSocket) -> ipc::Result<()>; 4] = [
        PackedSocket::flush,
        PackedSocket::try_flush,
        |socket| socket.flush_timeout(LONG),
        |socket| socket.flush_timeout(Duration::ZERO),
    ];
    for flush in flushes {
        let (mut from, to) = half_packed();
        flush(&mut from).unwrap();
        assert_nothing_there(&to); // nothing at all is no pack
        for round in 0..3 {
            from.send(&message(round, 100)).unwrap();
            assert_nothing_there(&to);
            flush(&mut from).unwrap();
            assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[&message(round, 100)]));
            flush(&mut from).unwrap();
            assert_nothing_there(&to);
        }
    }
}

fn whatever_waits_flushes_first() {
    let (mut from, to) = half_packed();
    let goes = |call: &str| assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[call.as_bytes()]));
    from.send(b"try_recv").unwrap();
    assert!(matches!(from.try_recv(), Err(Error::WouldBlock)));
    goes("try_recv");
    from.send(b"recv_timeout").unwrap();
    assert!(matches!(from.recv_timeout(Duration::from_millis(1)), Err(Error::TimedOut)));
    goes("recv_timeout");
    from.send(b"wait").unwrap();
    from.watch().unwrap();
    goes("wait");
    // Also where there is something to receive, as long as it is not in the buffer.
    to.send(&pack(&[b"one", b"two"])).unwrap();
    from.send(b"recv").unwrap();
    assert_next(from.recv(), b"one");
    goes("recv");
    from.send(b"later").unwrap();
    assert_next(from.recv(), b"two");
    assert_nothing_there(&to); // nobody waited
    drop(from);
    goes("later");
}

fn a_request_and_its_answer_need_no_flush() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut socket = PackedSocket::new(socket);
        while let Some(request) = socket.recv().unwrap() {
            let answer = request.to_ascii_uppercase();
            socket.send(&answer).unwrap();
        }
    })
    .unwrap();
    let mut socket = PackedSocket::new(pair.parent);
    for round in 0..200 {
        for _ in 0..round {
            socket.send(b"request").unwrap();
        }
        for _ in 0..round {
            let answer = if round % 2 == 0 { socket.recv() } else { socket.recv_timeout(LONG) };
            assert_next(answer, b"REQUEST");
        }
    }
    socket.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn closing_flushes() {
    let (mut from, to) = half_packed();
    from.send(b"the last").unwrap();
    from.close().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"the last"]));
    assert_eq!(to.recv_vec().unwrap(), None);
}

fn dropping_flushes() {
    let (mut from, to) = half_packed();
    from.send(b"the last").unwrap();
    drop(from);
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"the last"]));
    assert_eq!(to.recv_vec().unwrap(), None);
}

fn the_socket_comes_back_flushed() {
    let (mut from, to) = half_packed();
    from.send(b"packed").unwrap();
    let socket = from.into_inner().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"packed"]));
    socket.send(b"plain").unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), b"plain");
    to.send(b"back").unwrap();
    assert_same(&socket.recv_vec().unwrap().unwrap(), b"back");
    // And again.
    let mut from = PackedSocket::new(socket);
    from.send(b"packed").unwrap();
    from.close().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"packed"]));
}

fn the_socket_does_not_come_back_while_messages_are_unread() {
    let (mut from, to) = half_packed();
    to.send(&pack(&[b"one", b"two", b"three"])).unwrap();
    assert_next(from.recv(), b"one");
    from.send(b"waits").unwrap();
    let refused = from.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Unread), "{:?}", refused.error);
    let mut from = refused.unflushed;
    assert_nothing_there(&to);
    for message in [b"two".as_slice(), b"three"] {
        assert!(from.has_message());
        assert_next(from.recv(), message);
    }
    assert!(!from.has_message());
    from.into_inner().unwrap();
    assert_same(&to.recv_vec().unwrap().unwrap(), &pack(&[b"waits"]));
}

fn what_is_buffered_can_be_seen() {
    let DatagramPair { parent, child } = datagram_pair().unwrap();
    let text = format!("{parent:?}");
    let mut socket = PackedSocket::new(parent);
    assert_eq!(format!("{socket:?}"), format!("PackedSocket {{ socket: {text}, unflushed: 0, arrived: 0 }}"));
    assert!(!socket.has_message());
    child.send(&pack(&[b"one", b"two"])).unwrap();
    assert!(!socket.has_message(), "nobody looked at the socket");
    assert_next(socket.recv(), b"one");
    assert!(socket.has_message());
    socket.send(b"hello").unwrap();
    assert_eq!(format!("{socket:?}"), format!("PackedSocket {{ socket: {text}, unflushed: 9, arrived: 7 }}"));
    assert_next(socket.recv(), b"two");
    assert!(!socket.has_message());
}
