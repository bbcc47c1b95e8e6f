//! Peers that mean harm: whatever they send, it is an error, and the next value arrives.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::support::{self, Trial, rounds};
use ipc::{DatagramSocket, Error, Fd, PipeReader, PipeWriter, Receiver, datagram_pair, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        bytes_that_are_no_value_are_in_the_error,
        bytes_that_are_left_over_are_an_error,
        an_end_that_is_missing_is_an_error,
        an_end_that_is_there_twice_is_an_error,
        an_end_of_another_kind_is_an_error,
        ends_nobody_asked_for_are_closed,
        elements_without_bytes_are_no_more_than_the_frame_allows,
        a_length_that_lies_takes_no_memory,
        a_string_that_there_is_no_memory_for_is_an_error,
        a_reason_is_short_however_long_the_message,
        a_value_nests_to_a_depth,
        memory_that_is_not_sealed_is_an_error,
        memory_that_is_not_whole_is_an_error,
        memory_that_is_none_is_an_error,
        memory_that_is_no_value_is_in_the_error,
        what_postcard_decodes_is_decoded_the_same within 120,
        arbitrary_bytes_with_ends_do_no_harm within 120,
        arbitrary_descriptors_do_no_harm within 120,
    ]
}

fn raw<T>() -> (DatagramSocket, Receiver<T>) {
    let pair = datagram_pair().unwrap();
    (pair.parent, Receiver::new(pair.child))
}

/// That these bytes are no value, and that what follows is one.
#[track_caller]
fn refused<T: DeserializeOwned + Serialize>(bytes: &[u8], why: &str, next: T) {
    let (peer, receiver) = raw::<T>();
    peer.send(bytes).unwrap();
    peer.send(&postcard::to_allocvec(&next).unwrap()).unwrap();
    assert_refused(receiver.recv(), bytes, why);
    assert!(receiver.recv().unwrap().is_some(), "the next value");
}

#[track_caller]
fn assert_refused<T>(received: ipc::Result<Option<T>>, bytes: &[u8], why: &str) {
    match received {
        Err(Error::Decode { message, source }) => {
            assert_eq!(message, bytes);
            assert!(source.to_string().contains(why), "{source}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(value) => panic!("it is {}", if value.is_some() { "a value" } else { "EOF" }),
    }
}

#[derive(Serialize, Deserialize)]
enum Two {
    One(bool),
    Other(char),
}

fn bytes_that_are_no_value_are_in_the_error() {
    refused(&[], "ends inside", 1_u8);
    refused(&[2], "bool", true);
    refused(&[2], "Option", Some(1_u8));
    refused(&[2], "variant", Two::One(true));
    refused(&[0xff, 0xff, 0xff, 0xff, 0x7f], "larger", Two::Other('x'));
    refused(&[1, 2, b'a', b'b'], "char", Two::Other('x'));
    refused(&[0], "char", 'x');
    refused(&[2, 0xc3, 0x28], "UTF-8", String::new());
    refused(&[5, b'a'], "ends inside", String::new());
    refused(&[0xff, 0xff, 0x04], "larger", 1_u16);
    refused(&[0xff, 0xff, 0xff, 0x01], "larger", 1_u16);
    refused(&[0xff; 20], "larger", 1_u128);
    refused(&[0; 7], "ends inside", 1.0_f64);
    refused(&[0], "nonzero", std::num::NonZeroU8::MIN);
}

fn bytes_that_are_left_over_are_an_error() {
    refused(&[7, 8], "bytes are left over: 1", 1_u8);
    refused(&[1], "bytes are left over: 1", ());
    refused(&[0, 0], "bytes are left over: 2", ());
    refused(&[0, 0], "bytes are left over: 1", Vec::<()>::new());
}

fn an_end_that_is_missing_is_an_error() {
    let (peer, receiver) = raw::<(PipeReader, PipeReader)>();
    for bytes in [&[0, 1][..], &[1, 0], &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let (reader, writer) = pipe().unwrap();
        peer.send_with(bytes, reader).unwrap();
        assert_refused(receiver.recv(), bytes, "missing");
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)), "it is closed");
    }
    peer.send(&[0, 1]).unwrap();
    assert_refused(receiver.recv(), &[0, 1], "missing: 0 came");
}

fn an_end_that_is_there_twice_is_an_error() {
    let (peer, receiver) = raw::<(PipeReader, PipeReader)>();
    peer.send_with(&[0, 0], pipe().unwrap()).unwrap();
    assert_refused(receiver.recv(), &[0, 0], "twice");
}

fn an_end_of_another_kind_is_an_error() {
    let (peer, receiver) = raw::<PipeReader>();
    let (reader, writer) = pipe().unwrap();
    peer.send_with(&[0], writer).unwrap();
    assert_refused(
        receiver.recv(),
        &[0],
        "end 0 of the message: expected the reading end of a pipe, found the writing end",
    );
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0, "it is closed");
    peer.send_with(&[0], reader).unwrap();
    assert!(receiver.recv().unwrap().is_some());
}

fn ends_nobody_asked_for_are_closed() {
    let (peer, receiver) = raw::<u8>();
    let (reader, writer) = pipe().unwrap();
    peer.send_with(&[7], vec![writer]).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(7));
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    assert_eq!(open_ends(), 3);
}

/// Takes no bytes, and memory.
#[derive(Serialize, Deserialize, Default)]
struct Hollow {
    #[serde(skip)]
    _memory: [u64; 8],
}

fn elements_without_bytes_are_no_more_than_the_frame_allows() {
    let billions = [0x80, 0x80, 0x80, 0x80, 0x20];
    refused(&billions, "more elements", vec![()]);
    refused(&billions, "more elements", vec![Hollow::default()]);
    refused(&billions, "more elements", std::collections::BTreeMap::from([((), ())]));
    refused(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "more elements", vec![()]);
    // In many lists, none of which is long.
    let lists = [&[0x80, 0x08][..], &[0x80, 0x20].repeat(1024)].concat();
    refused(&lists, "more elements", vec![vec![()]]);
    // A few are as good as any.
    let (peer, receiver) = raw::<Vec<()>>();
    peer.send(&postcard::to_allocvec(&vec![(); 4096]).unwrap()).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().len(), 4096);
}

fn a_length_that_lies_takes_no_memory() {
    let lengths = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    support::limit(libc::RLIMIT_AS, |_| (support::own_size() + (1 << 30)) as libc::rlim_t);
    refused(&lengths, "more elements", vec![1_u64]);
    refused(&lengths, "ends inside", String::new());
    refused(&lengths, "ends inside", serde_bytes::ByteBuf::new());
    refused(&lengths, "more elements", std::collections::HashMap::from([(1_u8, String::new())]));
}

fn a_string_that_there_is_no_memory_for_is_an_error() {
    fn refused<T: DeserializeOwned + std::fmt::Debug>() {
        let (peer, receiver) = raw::<T>();
        peer.send(&[0]).unwrap();
        assert!(receiver.recv().unwrap().is_some()); // the thread's memory for messages is there
        peer.send(&postcard::to_allocvec(&"x".repeat(200_000)).unwrap()).unwrap();
        peer.send(&[0]).unwrap();
        support::limit(libc::RLIMIT_AS, |_| support::own_size() as libc::rlim_t);
        let free = || {
            let mut memory = Vec::<u8>::new();
            memory.try_reserve_exact(100_000).ok().map(|()| memory)
        };
        let taken: Vec<_> = std::iter::from_fn(free).collect();
        let refused = receiver.recv();
        support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
        drop(taken);
        assert_eq!(support::refused(refused), ("malloc", libc::ENOMEM)); // nor is there any for a copy in the error
        assert!(receiver.recv().unwrap().is_some());
    }
    refused::<String>();
    refused::<serde_bytes::ByteBuf>();
}

/// A type that repeats what it does not like.
#[derive(Debug)]
struct Nobody;

impl<'de> Deserialize<'de> for Nobody {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Err(serde::de::Error::invalid_value(serde::de::Unexpected::Str(&name), &"no name"))
    }
}

fn a_reason_is_short_however_long_the_message() {
    let (peer, receiver) = raw::<Nobody>();
    for (name, len) in [("ab", 100), ("é\u{1}", 50_000)] {
        let message = postcard::to_allocvec(&name.repeat(len)).unwrap();
        peer.send(&message).unwrap();
        let Err(Error::Decode { message: whole, source }) = receiver.recv() else { panic!("it is refused") };
        assert!(whole == message);
        let why = source.to_string();
        assert!(why.starts_with("invalid value: string \"") && why.len() < 1100, "{} bytes", why.len());
        assert_eq!(why.ends_with("expected no name"), len == 100);
    }
}

#[derive(Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[derive(Serialize, Deserialize)]
enum Tree {
    Leaf,
    Branch(Vec<Tree>),
}

fn a_value_nests_to_a_depth() {
    // A newtype and a `Some` are a level each.
    let chain = |len| [vec![1; len], vec![0]].concat();
    let (peer, receiver) = raw::<Chain>();
    peer.send(&chain(63)).unwrap();
    assert!(receiver.recv().unwrap().is_some());
    // With the stack of a thread.
    std::thread::spawn(move || {
        refused(&chain(64), "too deeply", Chain(None));
        refused(&chain(200_000), "too deeply", Chain(None));
        refused(&[1, 1].repeat(100_000), "too deeply", Tree::Leaf);
    })
    .join()
    .unwrap();
    let _ = Tree::Branch(vec![]);
}

/// Memory that can be sealed.
fn memory(bytes: &[u8], len: u64, seals: libc::c_int) -> File {
    // SAFETY: a nul-terminated name; the descriptor is new.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0);
        File::from(OwnedFd::from_raw_fd(fd))
    };
    file.write_all(bytes).unwrap();
    file.set_len(len).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    // SAFETY: seals of our own memory.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    file
}

const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;

fn memory_that_is_not_sealed_is_an_error() {
    let (peer, receiver) = raw::<u8>();
    for missing in [libc::F_SEAL_SHRINK, libc::F_SEAL_GROW, libc::F_SEAL_WRITE, libc::F_SEAL_SEAL] {
        peer.send_with(&[], memory(&[7], 1, SEALS & !missing)).unwrap();
        assert_refused(receiver.recv(), &[], "not sealed");
    }
    peer.send_with(&[], memory(&[7], 1, SEALS)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(7));
}

fn memory_that_is_not_whole_is_an_error() {
    let (peer, receiver) = raw::<Vec<u8>>();
    // Longer than what was written: it has a hole, and reading that would take our memory.
    peer.send_with(&[], memory(&[7], 60 << 20, SEALS)).unwrap();
    assert_refused(receiver.recv(), &[], "holes");
    // Over the limit, however much of it there is.
    peer.send_with(&[], memory(&[7], 1 << 40, SEALS)).unwrap();
    let refused = receiver.recv();
    assert!(matches!(refused, Err(Error::TooLong { len: 0x100_0000_0000, max: 67_108_864 })), "{refused:?}");
    // Shorter than the value says.
    peer.send_with(&[], memory(&[100, 1, 2], 3, SEALS)).unwrap();
    assert_refused(receiver.recv(), &[100, 1, 2], "ends inside");
    // None at all.
    peer.send_with(&[], memory(&[], 0, SEALS)).unwrap();
    assert_refused(receiver.recv(), &[], "ends inside");
}

fn memory_that_is_none_is_an_error() {
    let (peer, receiver) = raw::<u8>();
    peer.send_with(&[], pipe().unwrap()).unwrap();
    assert_refused(receiver.recv(), &[], "not memory");
    peer.send_with(&[], File::open("/dev/zero").unwrap()).unwrap();
    assert_refused(receiver.recv(), &[], "not memory");
    assert_eq!(open_ends(), 2);
}

fn memory_that_is_no_value_is_in_the_error() {
    let (peer, receiver) = raw::<(u8, PipeReader, Vec<u8>)>();
    let bytes = [&[7, 1, 0xe0, 0xa7, 0x12][..], &[9; 300_000]].concat();
    peer.send_with(&[], (memory(&bytes, bytes.len() as u64, SEALS), pipe().unwrap())).unwrap();
    assert_refused(receiver.recv(), &bytes, "found the writing end");
    let bytes = [&[7, 0, 0xe0, 0xa7, 0x12][..], &[9; 300_000]].concat();
    peer.send_with(&[], (memory(&bytes, bytes.len() as u64, SEALS), pipe().unwrap())).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().2.len(), 300_000);
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Anything {
    Numbers(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128),
    Texts { truth: bool, text: String, bytes: serde_bytes::ByteBuf },
    Nested(Vec<Option<Anything>>, std::collections::BTreeMap<u16, bool>),
    Floats([f32; 2], f64),
    Unit,
}

fn what_postcard_decodes_is_decoded_the_same() {
    let (peer, receiver) = raw::<Anything>();
    let config = Config { cases: rounds(1000) as u32, failure_persistence: None, ..Config::default() };
    // Small numbers are what most of a value is made of.
    let byte = prop_oneof![3 => 0_u8..6, 1 => any::<u8>()];
    let tried = TestRunner::new(config).run(&vec(byte, 0..60), |bytes| {
        peer.send(&bytes).unwrap();
        match (postcard::take_from_bytes::<Anything>(&bytes), receiver.recv()) {
            (Ok((expected, [])), Ok(Some(value))) => {
                prop_assert_eq!(format!("{expected:?}"), format!("{value:?}"));
            }
            (Ok((_, [_, ..])) | Err(_), Err(Error::Decode { message, .. })) => prop_assert_eq!(message, bytes),
            (expected, value) => prop_assert!(false, "{:?} instead of {:?}", value, expected),
        }
        Ok(())
    });
    tried.unwrap();
}

fn arbitrary_bytes_with_ends_do_no_harm() {
    type Value = (Vec<Option<PipeReader>>, Option<Fd<File>>, Vec<(PipeWriter, DatagramSocket)>, Vec<()>);
    let (peer, receiver) = raw::<Value>();
    let before = open_ends();
    let config = Config { cases: rounds(500) as u32, failure_persistence: None, ..Config::default() };
    let strategy = (vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..20), 0..5_usize);
    let tried = TestRunner::new(config).run(&strategy, |(bytes, count)| {
        let (reader, writer) = pipe().unwrap();
        let pair = datagram_pair().unwrap();
        let file = memory(&bytes, bytes.len() as u64, SEALS);
        match count {
            0 => {
                drop((reader, writer, pair.child));
                peer.send(&bytes).unwrap();
            }
            1 => peer.send_with(&bytes, (reader, writer, pair.child)).unwrap(),
            2 => peer.send_with(&bytes, (writer, pair.child, reader)).unwrap(),
            3 => peer.send_with(&[], (file, reader, writer, pair.child)).unwrap(),
            _ => peer.send_with(&[], (reader, file, writer, pair.child)).unwrap(),
        }
        drop(pair.parent);
        match receiver.recv() {
            Ok(Some(_)) | Err(Error::Decode { .. }) => {}
            other => prop_assert!(false, "{:?}", other.map(|_| "a value")),
        }
        prop_assert_eq!(open_ends(), before);
        Ok(())
    });
    tried.unwrap();
}

/// A descriptor that a peer sends beside a message.
#[derive(Clone, Debug)]
enum Beside {
    Reader,
    Writer,
    Messages,
    Stream,
    Sealed,
    /// Memory with some of the seals, which is as long as its contents, or shorter or longer by so much.
    Memory {
        seals: libc::c_int,
        contents: usize,
        longer: i64,
    },
    /// The same memory, open for reading alone, or for nothing (`O_PATH`).
    Reopened(libc::c_int),
    File(&'static str),
    /// The one before it again.
    Again,
}

impl Beside {
    fn any() -> impl Strategy<Value = Self> {
        let seals = prop_oneof![Just(SEALS), 0..=SEALS];
        let memory = (seals, 0..20_000_usize, prop_oneof![Just(0), -10_000..10_000_i64]);
        prop_oneof![
            1 => Just(Self::Reader),
            1 => Just(Self::Writer),
            1 => Just(Self::Messages),
            1 => Just(Self::Stream),
            2 => Just(Self::Sealed),
            4 => memory.prop_map(|(seals, contents, longer)| Self::Memory { seals, contents, longer }),
            1 => prop_oneof![Just(libc::O_RDONLY), Just(libc::O_PATH)].prop_map(Self::Reopened),
            1 => prop_oneof![Just("/"), Just("/dev/zero"), Just("/proc/self/status")].prop_map(Self::File),
            1 => Just(Self::Again),
        ]
    }

    /// With memory that holds the message, where it is memory at all.
    fn open(&self, bytes: &[u8], before: Option<&OwnedFd>) -> OwnedFd {
        match *self {
            Self::Reader => pipe().unwrap().0.into(),
            Self::Writer => pipe().unwrap().1.into(),
            Self::Messages => datagram_pair().unwrap().child.into(),
            Self::Stream => ipc::stream_pair().unwrap().child.into(),
            Self::Sealed => memory(bytes, bytes.len() as u64, SEALS).into(),
            Self::Memory { seals, contents, longer } => {
                let contents = [bytes, &vec![0; contents]].concat();
                memory(&contents, contents.len().saturating_add_signed(longer as isize) as u64, seals).into()
            }
            Self::Reopened(flags) => {
                let memory = memory(bytes, bytes.len() as u64, SEALS);
                let path = std::ffi::CString::new(format!("/proc/self/fd/{}", memory.as_raw_fd())).unwrap();
                // SAFETY: a nul-terminated path; the descriptor is new.
                unsafe { OwnedFd::from_raw_fd(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC)) }
            }
            Self::File(path) => File::open(path).unwrap().into(),
            Self::Again => match before {
                Some(fd) => fd.try_clone().unwrap(),
                None => File::open("/dev/null").unwrap().into(),
            },
        }
    }
}

/// Whatever comes beside a message, or instead of one: an error at the most, nothing of it stays, and the next value arrives.
fn arbitrary_descriptors_do_no_harm() {
    type Value = (Vec<Option<PipeReader>>, Option<Fd<File>>, Vec<(PipeWriter, DatagramSocket)>, Option<ipc::Blob>);
    let (peer, receiver) = raw::<Value>();
    receiver.set_max_message(15_000);
    let before = support::Inventory::take();
    let config = Config { cases: rounds(400) as u32, failure_persistence: None, ..Config::default() };
    // The descriptors that a value of this shape asks for by their indices, or anything.
    let index = || 0..4_u8;
    let shape = (vec(of(index()), 0..3), of(index()), vec((index(), index()), 0..2), of(index()));
    let bytes = prop_oneof![
        2 => shape.prop_map(|shape| postcard::to_allocvec(&shape).unwrap()),
        1 => vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..12),
    ];
    let strategy = (bytes, any::<bool>(), vec(Beside::any(), 0..6));
    let outcomes = [(); 3].map(|()| std::cell::Cell::new(0));
    let tried = TestRunner::new(config).run(&strategy, |(bytes, is_beside, beside)| {
        let mut fds: Vec<OwnedFd> = Vec::new();
        for kind in &beside {
            fds.push(kind.open(&bytes, fds.last()));
        }
        let message = if is_beside { &[][..] } else { &bytes };
        if message.is_empty() && fds.is_empty() {
            return Ok(()); // EOF, from whoever sends that
        }
        peer.send_with(message, fds).unwrap();
        let outcome = match receiver.recv() {
            Ok(Some(_)) => 0,
            Err(Error::Decode { .. }) => 1,
            Err(Error::TooLong { max: 15_000, .. }) => 2,
            other => return Err(TestCaseError::fail(format!("{:?}", other.map(|_| "EOF")))),
        };
        outcomes[outcome].set(outcomes[outcome].get() + 1);
        prop_assert_eq!(before.compare(&support::Inventory::take()), None);
        peer.send(&[0; 4]).unwrap();
        prop_assert!(matches!(receiver.recv(), Ok(Some(_))), "the next value");
        Ok(())
    });
    tried.unwrap();
    assert!(outcomes.iter().all(|times| times.get() > 0), "{outcomes:?}");
}
