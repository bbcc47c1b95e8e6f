//! Values without ends: whole, in order, of any size and shape, until EOF; and back where they cannot go.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::support::{self, FAR, Gate, Is, Kernel, Trial, assert_times_out, exit_code, with_interval_timer};
use ipc::{Error, Receiver, Sender, Unsent, channel, datagram_pair, duplex, fork, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        every_shape_arrives_as_it_was,
        values_arrive_in_order_and_then_eof,
        a_value_of_any_size_arrives within 120,
        a_value_that_leaves_no_room_for_a_second_goes_as_memory,
        a_value_that_is_too_long_for_the_socket_goes_as_memory,
        a_value_of_many_mebibytes_leaves_no_memory_in_use,
        a_large_value_arrives_in_another_process,
        a_value_that_no_file_may_hold_comes_back,
        a_value_without_bytes_is_no_eof,
        a_channels_socket_tells_empty_messages_from_eof,
        eof_comes_when_the_last_sender_is_gone,
        a_dead_receiver_gives_the_value_back,
        a_killed_sender_is_eof_after_what_it_sent,
        a_receiver_that_dies_before_it_receives_is_seen,
        no_call_makes_the_socket_non_blocking,
        a_full_queue_gives_the_value_back,
        deadlines_hold_under_signals,
        several_receivers_get_each_value_once,
        several_senders_tear_nothing,
        a_value_over_the_limit_is_skipped,
        the_limit_is_looked_at_before_memory_is_taken,
        what_is_not_given_says_so,
        a_channel_can_be_waited_for,
        an_iterator_goes_on_after_a_value_that_is_none,
        what_has_arrived_is_iterated_over_without_waiting,
        an_iterator_that_owns_its_receiver_closes_it,
        memory_that_stays_busy_gives_the_value_back,
        where_empty_messages_are_dropped_a_large_value_is_a_datagram_or_too_long,
        memory_that_is_busy_for_a_while_is_sealed_later needs [STRACE],
        a_call_that_does_not_wait_seals_once_and_no_more needs [STRACE],
        errors_of_any_value_are_errors,
        a_channel_turns_into_its_socket_and_back,
        what_travels_is_asserted,
    ]
}

#[derive(Serialize, Deserialize, PartialEq, Clone, Debug)]
enum Shape {
    Unit,
    Newtype(i64),
    Tuple(u8, char, String),
    Struct { bytes: Vec<u8>, maybe: Option<Box<Shape>>, pair: (f32, f64) },
}

#[derive(Serialize, Deserialize, PartialEq, Clone, Debug)]
struct Everything {
    bools: [bool; 2],
    numbers: (u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize),
    smallest: (i8, i16, i32, i64, i128, isize),
    text: String,
    char: char,
    unit: (),
    units: Vec<()>,
    maps: BTreeMap<String, HashMap<u16, Vec<Option<bool>>>>,
    shapes: Vec<Shape>,
    address: IpAddr,
    time: Duration,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    result: Result<u8, String>,
}

fn everything() -> Everything {
    let inner = Shape::Tuple(255, '\u{10ffff}', "in a box".to_owned());
    Everything {
        bools: [true, false],
        numbers: (
            255,
            300,
            1 << 31,
            u64::MAX,
            u128::MAX,
            usize::MAX,
            127,
            300,
            1 << 30,
            i64::MAX,
            i128::MAX,
            isize::MAX,
        ),
        smallest: (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, isize::MIN),
        text: "größer als ASCII".to_owned(),
        char: 'ß',
        unit: (),
        units: vec![(); 1000],
        maps: BTreeMap::from([
            ("a".to_owned(), HashMap::from([(7, vec![None, Some(true)])])),
            (String::new(), HashMap::new()),
        ]),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(-1),
            inner.clone(),
            Shape::Struct { bytes: vec![0, 255], maybe: Some(Box::new(inner)), pair: (-0.5, 1e300) },
        ],
        address: "2001:db8::1".parse().unwrap(),
        time: Duration::new(1, 999_999_999),
        bytes: support::bytes(300),
        result: Err("no".to_owned()),
    }
}

fn every_shape_arrives_as_it_was() {
    let (sender, receiver) = channel().unwrap();
    sender.send(everything()).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(everything()));
    ipc::assert_travels(&everything());
}

fn values_arrive_in_order_and_then_eof() {
    let (sender, receiver) = channel::<(u32, String)>().unwrap();
    let child = fork(sender, |sender| {
        for number in 0..10_000 {
            sender.send((number, "x".repeat(number as usize % 100))).unwrap();
        }
    })
    .unwrap();
    for (number, value) in receiver.iter().enumerate() {
        assert_eq!(value.unwrap(), (number as u32, "x".repeat(number % 100)));
    }
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
}

fn a_value_of_any_size_arrives() {
    let (sender, receiver) = channel::<serde_bytes::ByteBuf>().unwrap();
    let usual = datagram_pair().unwrap().parent.max_message().unwrap();
    let max = sender.try_clone().unwrap().into_inner().max_message().unwrap();
    assert!(max >= usual, "{max} bytes, and {usual} elsewhere");
    // A length is encoded in three bytes here.
    for len in [0, 1, 4095, 4096, usual, max / 2, max - 4, max - 3, max - 2, max, 1 << 20, 5 << 20, 40 << 20] {
        sender.send(support::bytes(len).into()).unwrap();
        let arrived = receiver.recv().unwrap().unwrap();
        assert!(arrived == support::bytes(len), "{len}");
    }
}

fn a_value_that_leaves_no_room_for_a_second_goes_as_memory() {
    let goes_as_memory = |sender: Sender<serde_bytes::ByteBuf>, receiver: Receiver<serde_bytes::ByteBuf>, len| {
        sender.send(support::bytes(len).into()).unwrap();
        let mut message = Vec::new();
        let received = receiver.into_inner().recv_with(&mut message).unwrap().unwrap();
        assert_eq!(message.is_empty(), !received.is_empty());
        message.is_empty()
    };
    let (sender, receiver) = channel().unwrap();
    assert!(!goes_as_memory(sender, receiver, 200 << 10));
    let (sender, receiver) = channel().unwrap();
    assert!(goes_as_memory(sender, receiver, 300 << 10));
    // A queue that is longer, where this process may have one.
    let pair = datagram_pair().unwrap();
    let max = pair.parent.set_max_message(1 << 20).unwrap();
    assert_eq!(goes_as_memory(Sender::new(pair.parent), Receiver::new(pair.child), 300 << 10), max < 600 << 10);
}

fn a_value_that_no_file_may_hold_comes_back() {
    support::limit(libc::RLIMIT_FSIZE, |_| 4096);
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let unsent = sender.send(vec![7; 1 << 20]).unwrap_err();
    assert_eq!(std::io::Error::from(unsent.error).kind(), std::io::ErrorKind::FileTooLarge);
    sender.send(unsent.value[..10].to_vec()).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), [7; 10]);
}

fn a_value_that_is_too_long_for_the_socket_goes_as_memory() {
    let pair = datagram_pair().unwrap();
    let max = pair.parent.set_max_message(10_000).unwrap();
    assert!(max < 100_000, "{max}");
    let (sender, receiver) = (Sender::new(pair.parent), Receiver::<String>::new(pair.child));
    for len in [100_000, max, max - 10, 1] {
        sender.send("x".repeat(len)).unwrap();
        assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(len));
    }
}

fn a_value_of_many_mebibytes_leaves_no_memory_in_use() {
    let (sender, receiver) = channel::<serde_bytes::ByteBuf>().unwrap();
    let before = support::own_size();
    sender.send(vec![7; 32 << 20].into()).unwrap();
    let value = receiver.recv().unwrap().unwrap();
    assert_eq!(value.len(), 32 << 20);
    drop(value);
    let more = support::own_size().saturating_sub(before);
    assert!(more < 16 << 20, "{more} bytes more than before");
}

fn a_large_value_arrives_in_another_process() {
    let count = support::rounds(3) as usize;
    let (sender, receiver) = channel::<Vec<u64>>().unwrap();
    let child = fork(receiver, |receiver| {
        let values: Vec<Vec<u64>> = receiver.iter().collect::<ipc::Result<_>>().unwrap();
        assert_eq!(values.len(), count);
        assert!(values.iter().all(|value| *value == (0..100_000).collect::<Vec<_>>()));
    })
    .unwrap();
    for _ in 0..count {
        sender.send((0..100_000).collect()).unwrap();
    }
    sender.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_value_without_bytes_is_no_eof() {
    let (sender, receiver) = channel().unwrap();
    sender.send(()).unwrap();
    sender.send(()).unwrap();
    drop(sender);
    assert_eq!(receiver.iter().map(Result::unwrap).count(), 2);
    // One of another program, which sends nothing for it, as well.
    let (sender, receiver) = channel::<()>().unwrap();
    let bare = sender.try_clone().unwrap().into_inner();
    bare.send(&[]).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(()));
    sender.send(()).unwrap();
    drop((sender, bare));
    assert_eq!(receiver.recv().unwrap(), Some(()));
    assert_eq!(receiver.recv().unwrap(), None);
    // Of a pair of sockets also as the last.
    let pair = datagram_pair().unwrap();
    pair.parent.send(&[]).unwrap();
    drop(pair.parent);
    let receiver = Receiver::<()>::new(pair.child);
    assert_eq!(receiver.recv().unwrap(), Some(()));
    assert_eq!(receiver.recv().unwrap(), None);
}

fn a_channels_socket_tells_empty_messages_from_eof() {
    let (sender, receiver) = channel::<u8>().unwrap();
    let calls = duplex::<u8, u8>().unwrap();
    for (one, other) in
        [(sender.into_inner(), receiver.into_inner()), (calls.parent.into_inner(), calls.child.into_inner())]
    {
        one.send(b"").unwrap();
        drop(one);
        assert_eq!(other.recv(&mut [0]).unwrap(), Some(0));
        assert_eq!(other.recv(&mut [0]).unwrap(), None);
    }
}

fn eof_comes_when_the_last_sender_is_gone() {
    let (sender, receiver) = channel::<u8>().unwrap();
    let other = sender.try_clone().unwrap();
    drop(sender);
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    other.send(7).unwrap();
    drop(other);
    assert_eq!(receiver.recv().unwrap(), Some(7));
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(receiver.try_recv().unwrap(), None);
}

fn a_dead_receiver_gives_the_value_back() {
    let (sender, receiver) = channel::<String>().unwrap();
    drop(receiver);
    let unsent = sender.send("a".to_owned()).unwrap_err();
    assert!(matches!(unsent.error, Error::Closed), "{unsent:?}");
    assert_eq!(unsent.value, "a");
    // One that is too large for a datagram as well.
    let unsent = sender.send("b".repeat(1 << 20)).unwrap_err();
    assert!(matches!(unsent.error, Error::Closed), "{unsent:?}");
}

fn a_killed_sender_is_eof_after_what_it_sent() {
    let (sender, receiver) = channel::<String>().unwrap();
    let gate = Gate::new();
    let child = fork(sender, |sender| {
        sender.send("before".to_owned()).unwrap();
        sender.send("x".repeat(1 << 20)).unwrap();
        gate.open();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    gate.pass();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), "before");
    assert_eq!(receiver.recv().unwrap().unwrap().len(), 1 << 20);
    assert_eq!(receiver.recv().unwrap(), None);
}

fn a_receiver_that_dies_before_it_receives_is_seen() {
    let (sender, receiver) = channel::<(String, Option<ipc::PipeWriter>)>().unwrap();
    let (reader, writer) = ipc::pipe().unwrap();
    let gate = Gate::new();
    let child = fork(receiver, |_receiver| {
        gate.pass();
        std::process::abort();
    })
    .unwrap();
    sender.send(("unread".to_owned(), Some(writer))).unwrap();
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "it is under way");
    gate.open();
    child.wait().unwrap();
    let unsent = loop {
        // What was lost with it may be told first.
        match sender.send_timeout(("late".to_owned(), None), FAR).unwrap_err() {
            Unsent { error: Error::Reset, .. } => {}
            unsent => break unsent,
        }
    };
    assert!(matches!(unsent.error, Error::Closed) && unsent.value.0 == "late", "{unsent:?}");
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0, "what was under way is closed");
}

fn no_call_makes_the_socket_non_blocking() {
    let (sender, receiver) = channel::<String>().unwrap();
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    assert!(matches!(receiver.recv_timeout(Duration::from_millis(1)), Err(Error::TimedOut)));
    fill(&sender);
    assert!(sender.send_timeout("x".repeat(1 << 20), Duration::from_millis(1)).is_err());
    for fd in [std::os::fd::AsRawFd::as_raw_fd(&sender), std::os::fd::AsRawFd::as_raw_fd(&receiver)] {
        // SAFETY: asks an open descriptor for its flags.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK, 0);
    }
}

fn fill(sender: &Sender<String>) -> Unsent<String> {
    loop {
        if let Err(unsent) = sender.try_send("a value".to_owned()) {
            return unsent;
        }
    }
}

fn a_full_queue_gives_the_value_back() {
    let (sender, receiver) = channel().unwrap();
    let unsent = fill(&sender);
    assert!(matches!(unsent.error, Error::WouldBlock), "{unsent:?}");
    assert_eq!(unsent.value, "a value");
    let unsent = sender.try_send("x".repeat(1 << 20)).unwrap_err();
    assert!(matches!(unsent.error, Error::WouldBlock), "{unsent:?}");
    receiver.recv().unwrap().unwrap();
    sender.try_send(unsent.value).unwrap();
}

fn deadlines_hold_under_signals() {
    let (sender, receiver) = channel::<String>().unwrap();
    let timeout = Duration::from_millis(50);
    with_interval_timer(Duration::from_millis(3), || {
        assert_times_out("receiving", timeout, |timeout| receiver.recv_timeout(timeout));
        fill(&sender);
        assert_times_out("sending", timeout, |timeout| Ok(sender.send_timeout("late".to_owned(), timeout)?));
        assert_times_out("sending much", timeout, |timeout| Ok(sender.send_timeout("x".repeat(1 << 20), timeout)?));
    });
    assert_eq!(receiver.recv_timeout(FAR).unwrap().unwrap(), "a value");
}

fn several_receivers_get_each_value_once() {
    let (sender, receiver) = channel::<u32>().unwrap();
    let (results, sums) = channel::<(u32, u32)>().unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            fork((receiver.try_clone().unwrap(), results.try_clone().unwrap()), |(receiver, results)| {
                let (mut count, mut sum) = (0, 0);
                for value in receiver.iter() {
                    (count, sum) = (count + 1, sum + value.unwrap());
                }
                results.send((count, sum)).unwrap();
            })
            .unwrap()
        })
        .collect();
    drop((receiver, results));
    (0..3000).for_each(|number| sender.send(number).unwrap());
    drop(sender);
    let (count, sum) = sums.iter().map(Result::unwrap).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!((count, sum), (3000, 2999 * 3000 / 2));
    children.iter().for_each(|child| assert_eq!(exit_code(child), 0));
}

fn several_senders_tear_nothing() {
    let each = support::rounds(6) as usize;
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let children: Vec<_> = (1..=3_u8)
        .map(|number| {
            fork(sender.try_clone().unwrap(), move |sender| {
                // Small, long, and too large for a datagram.
                for len in [100, 60_000, 300_000].into_iter().cycle().take(each) {
                    sender.send(vec![number; len]).unwrap();
                }
            })
            .unwrap()
        })
        .collect();
    drop(sender);
    let mut count = 0;
    for value in receiver.iter() {
        let value = value.unwrap();
        assert!(value == vec![value[0]; value.len()]);
        count += 1;
    }
    assert_eq!(count, 3 * each);
    children.iter().for_each(|child| assert_eq!(exit_code(child), 0));
}

fn a_value_over_the_limit_is_skipped() {
    let (sender, receiver) = channel::<String>().unwrap();
    receiver.set_max_message(1000);
    assert_eq!(receiver.max_message(), 1000);
    for len in [998, 999, 300_000, 3] {
        sender.send("x".repeat(len)).unwrap();
    }
    assert_eq!(receiver.recv().unwrap().unwrap().len(), 998); // two bytes of length before it
    for len in [1001, 300_003] {
        let refused = receiver.recv();
        assert!(matches!(refused, Err(Error::TooLong { len: l, max: 1000 }) if l == len), "{refused:?}");
    }
    assert_eq!(receiver.recv().unwrap().unwrap().len(), 3);
    // Clones have it too, and it can be anything.
    assert_eq!(receiver.try_clone().unwrap().max_message(), 1000);
    for max in [300_003, usize::MAX] {
        receiver.set_max_message(max);
        sender.send("x".repeat(300_000)).unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap().len(), 300_000);
    }
}

fn the_limit_is_looked_at_before_memory_is_taken() {
    let (sender, receiver) = channel::<serde_bytes::ByteBuf>().unwrap();
    sender.send(vec![7; (64 << 20) + 1].into()).unwrap();
    support::limit(libc::RLIMIT_AS, |_| (support::own_size() + (32 << 20)) as libc::rlim_t);
    assert!(matches!(receiver.recv(), Err(Error::TooLong { max: 67_108_864, .. })));
}

fn what_is_not_given_says_so() {
    let (sender, receiver) = channel::<u8>().unwrap();
    let child = fork((), move |()| {
        assert!(matches!(sender.send(1).unwrap_err().error, Error::NotGiven));
        assert!(matches!(sender.try_clone(), Err(Error::NotGiven)));
        assert!(matches!(receiver.recv(), Err(Error::NotGiven)));
        assert!(matches!(receiver.try_clone(), Err(Error::NotGiven)));
        assert_eq!(receiver.iter().count(), 1);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_channel_can_be_waited_for() {
    let (first, mut one) = channel::<u8>().unwrap();
    let (second, two) = channel::<u8>().unwrap();
    let gate = Gate::new();
    let child = fork(second, |second| {
        gate.pass();
        second.send(2).unwrap();
    })
    .unwrap();
    gate.open();
    assert_eq!(wait_any(&mut [one.watch().unwrap(), ipc::Watch::readable(&two)], Some(FAR)).unwrap(), 1);
    assert_eq!(two.recv().unwrap(), Some(2));
    assert!(matches!(one.try_recv(), Err(Error::WouldBlock)));
    drop(first);
    assert_eq!(exit_code(&child), 0);
}

fn an_iterator_goes_on_after_a_value_that_is_none() {
    let pair = datagram_pair().unwrap();
    let receiver: Receiver<u16> = Receiver::new(pair.child);
    for message in [&[7][..], &[1, 2], &[8]] {
        pair.parent.send(message).unwrap();
    }
    drop(pair.parent);
    let values: Vec<_> = receiver.iter().collect();
    assert!(matches!(&values[..], [Ok(7), Err(Error::Decode { message, .. }), Ok(8)] if message == &[1, 2]));
}

fn errors_of_any_value_are_errors() {
    struct Silent;
    impl Serialize for Silent {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it never does"))
        }
    }
    fn through_io(sender: &Sender<Silent>) -> std::io::Result<()> {
        Ok(sender.send(Silent)?)
    }
    fn through_error(sender: &Sender<Silent>) -> ipc::Result<()> {
        Ok(sender.send(Silent)?)
    }
    fn through_box(sender: &Sender<Silent>) -> Result<(), Box<dyn std::error::Error>> {
        Ok(sender.send(Silent)?)
    }
    let (sender, _receiver) = channel().unwrap();
    let error: Error = through_io(&sender).unwrap_err().into();
    assert!(matches!(error, Error::Encode { .. }), "{error:?}");
    assert!(matches!(through_error(&sender), Err(Error::Encode { .. })));
    assert!(through_box(&sender).unwrap_err().to_string().starts_with("the value could not be sent: "));
    let call = ipc::CallError::from(sender.send(Silent).unwrap_err());
    assert!(format!("{call} {call:?}").starts_with("the value could not be sent: "));
}

fn a_channel_turns_into_its_socket_and_back() {
    let (sender, receiver) = channel::<u8>().unwrap();
    let sender: Sender<u8> = std::os::fd::OwnedFd::from(sender).try_into().unwrap();
    let receiver: Receiver<u8> = Receiver::new(receiver.into_inner());
    sender.send(1).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(1));
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = Sender::<u8>::try_from(std::os::fd::OwnedFd::from(file)).unwrap_err();
    assert!(matches!(refused.error, Error::WrongKind { .. }));
    assert!(format!("{sender:?} {receiver:?}").starts_with("Sender(DatagramSocket("));
}

fn what_travels_is_asserted() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        skipped: Option<u8>,
        number: u8,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Flat {
        #[serde(flatten)]
        inner: BTreeMap<String, u8>,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "kind")]
    enum Tagged {
        One { number: u8 },
    }
    support::panics(|| ipc::assert_travels(&Skips { skipped: None, number: 1 }));
    support::panics(|| ipc::assert_travels(&Flat { inner: BTreeMap::from([("a".to_owned(), 1)]) }));
    support::panics(|| ipc::assert_travels(&Untagged::Number(1)));
    support::panics(|| ipc::assert_travels(&Tagged::One { number: 1 }));
    ipc::assert_travels(&Skips { skipped: Some(1), number: 1 });
}

fn what_has_arrived_is_iterated_over_without_waiting() {
    let (sender, receiver) = channel::<(u8, bool)>().unwrap();
    assert_eq!(receiver.try_iter().count(), 0);
    sender.send((1, true)).unwrap();
    Sender::<u8>::new(sender.try_clone().unwrap().into_inner()).send(2).unwrap(); // no pair
    sender.send((3, false)).unwrap();
    let arrived: Vec<_> = receiver.try_iter().collect();
    assert!(matches!(arrived[..], [Ok((1, true)), Err(Error::Decode { .. }), Ok((3, false))]), "{arrived:?}");
    assert_eq!(receiver.try_iter().count(), 0);

    sender.send((4, true)).unwrap();
    drop(sender);
    assert_eq!(receiver.try_iter().map(Result::unwrap).collect::<Vec<_>>(), [(4, true)]);
    assert_eq!((&receiver).into_iter().count(), 0); // EOF
}

fn an_iterator_that_owns_its_receiver_closes_it() {
    let (sender, receiver) = channel::<(u32, bool)>().unwrap();
    sender.send((1, true)).unwrap();
    Sender::<u8>::new(sender.try_clone().unwrap().into_inner()).send(2).unwrap(); // no pair
    sender.send((3, false)).unwrap();
    let mut values = receiver.into_iter();
    assert!(matches!(values.next(), Some(Ok((1, true)))));
    assert!(matches!(values.next(), Some(Err(Error::Decode { .. }))));
    assert!(matches!(values.next(), Some(Ok((3, false)))));
    drop(values);
    assert!(matches!(sender.send((4, true)).unwrap_err().error, Error::Closed));

    let pair = duplex::<u32, u32>().unwrap();
    pair.child.send(1).unwrap();
    drop(pair.child);
    assert_eq!(pair.parent.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1]);
}

/// More than a datagram holds.
const LARGE: usize = 1 << 20;

fn memory_that_stays_busy_gives_the_value_back() {
    let (sender, receiver) = channel::<String>().unwrap();
    let child = fork(sender, |sender| {
        Kernel::new().with(libc::SYS_fcntl, 1, Is::Equal(libc::F_ADD_SEALS as u32), libc::EBUSY).play();
        let unsent = sender.try_send("x".repeat(LARGE)).unwrap_err();
        assert!(matches!(unsent.error, Error::WouldBlock) && unsent.value.len() == LARGE, "{unsent:?}");
        let unsent = sender.send_timeout(unsent.value, Duration::ZERO).unwrap_err();
        assert!(matches!(unsent.error, Error::TimedOut) && unsent.value.len() == LARGE, "{unsent:?}");
        let unsent = sender.send(unsent.value).unwrap_err();
        assert_eq!(unsent.value.len(), LARGE);
        assert_eq!(support::refused::<()>(Err(unsent.error)), ("fcntl", libc::EBUSY));
        sender.send("short".to_owned()).unwrap();
    });
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("short"));
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// As in gVisor, where memory beside an empty message is lost with it.
fn where_empty_messages_are_dropped_a_large_value_is_a_datagram_or_too_long() {
    Kernel::new().dropping_empty_messages().play();
    let (sender, receiver) = channel::<String>().unwrap();
    // So much goes as memory elsewhere.
    sender.send("x".repeat(300_000)).unwrap();
    assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(300_000));
    let unsent = sender.send("x".repeat(LARGE)).unwrap_err();
    assert!(matches!(unsent.error, Error::TooLong { max: 425_952, .. }), "{unsent:?}");
    assert_eq!(unsent.value.len(), LARGE);
    sender.send("short".to_owned()).unwrap();
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("short"));
}

/// The variable that makes this program send a large value to itself.
pub const SEALS: &str = "CHANNEL_TEST_SEALS";

/// What the program does then.
pub fn send_to_oneself() {
    // In another thread, whose calls are not counted: a process's first pair takes more of them.
    let (sender, receiver) = std::thread::spawn(|| channel::<String>().unwrap()).join().unwrap();
    if std::env::var(SEALS).unwrap() == "try" {
        let tried = sender.try_send("x".repeat(LARGE));
        return assert!(tried.is_ok() || matches!(tried, Err(Unsent { error: Error::WouldBlock, .. })));
    }
    sender.send("x".repeat(LARGE)).unwrap();
    assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(LARGE));
}

fn seals(how: &str, expression: &str) -> Vec<String> {
    let mut calls = support::sealing_under_strace(SEALS, how, expression);
    calls.retain(|line| line.contains("F_ADD_SEALS"));
    calls
}

/// The kernel sleeps in each attempt for a tenth of a second.
fn a_call_that_does_not_wait_seals_once_and_no_more() {
    let calls = seals("try", "inject=fcntl:error=EBUSY");
    assert!(calls.len() == 1 && calls[0].contains("EBUSY"), "{calls:?}");
}

fn memory_that_is_busy_for_a_while_is_sealed_later() {
    // Which of the calls it is, and then that it is made again.
    assert_eq!(seals("blocking", "trace=fcntl").len(), 1);
    let calls = seals("blocking", "inject=fcntl:error=EBUSY:when=1..3");
    assert!(calls.len() > 1 && calls[0].contains("EBUSY") && calls.last().unwrap().ends_with("= 0"), "{calls:?}");
}
