//! Types that do more than encode themselves: nothing of them sticks to the thread, or to the next value.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use crate::support::{self, Trial};
use ipc::{
    Error, Fd, Incoming, Link, MessageReader, MessageWriter, PackedSocket, PipeReader, PipeWriter, Receiver, Sender,
    channel, datagram_pair, open_ends, pipe,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_serialize_that_fails_leaves_nothing_behind,
        a_serialize_that_panics_leaves_nothing_behind,
        a_serialize_that_sends_keeps_its_ends_apart,
        a_serialize_that_is_sent_to_itself_works,
        a_serialize_that_sends_over_its_own_buffered_link_works,
        a_deserialize_that_receives_from_its_own_link_works,
        a_serialize_that_lies_is_an_error_at_the_receiver,
        a_serialize_that_forks_keeps_its_ends,
        a_value_that_nests_too_deeply_comes_back,
        a_value_of_too_many_elements_without_bytes_comes_back,
        a_temporary_end_is_sent,
        a_deserialize_that_panics_leaves_nothing_behind,
        a_deserialize_that_receives_keeps_its_ends_apart,
        an_end_outside_of_a_channel_is_an_error,
        json_inside_of_a_value_has_no_ends,
        bytes_of_another_format_may_have_ends,
        ends_without_bytes_are_an_error,
        an_end_that_another_thread_encodes_is_an_error,
        values_are_sent_while_a_thread_ends,
    ]
}

/// Encodes an end, and then does something.
struct Then<F>(PipeReader, F);

impl<F: Fn() -> Result<(), String>> Serialize for Then<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        (self.1)().map_err(S::Error::custom)?;
        tuple.serialize_element(&7_u8)?;
        tuple.end()
    }
}

/// That a channel works, with ends that are the right ones.
#[track_caller]
fn assert_works<T>(sender: &Sender<T>, receiver: &Receiver<(PipeReader, u8)>) {
    let (reader, mut writer) = pipe().unwrap();
    let sender = Sender::new(sender.try_clone().unwrap().into_inner());
    let before = open_ends();
    sender.send((reader, 7_u8)).unwrap();
    let (reader, seven) = receiver.recv().unwrap().unwrap();
    assert_eq!((seven, open_ends()), (7, before));
    std::io::Write::write_all(&mut writer, b"the right one").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "the right one");
}

fn pair<T>() -> (Sender<T>, Receiver<(PipeReader, u8)>) {
    let (sender, receiver) = channel::<T>().unwrap();
    (sender, Receiver::new(receiver.into_inner()))
}

fn a_serialize_that_fails_leaves_nothing_behind() {
    let (sender, receiver) = pair();
    let (reader, writer) = pipe().unwrap();
    let unsent = sender.send(Then(reader, || Err("no".to_owned()))).unwrap_err();
    assert!(matches!(unsent.error, Error::Encode { .. }), "{unsent:?}");
    drop(unsent);
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    assert_works(&sender, &receiver);
}

fn a_serialize_that_panics_leaves_nothing_behind() {
    let (sender, receiver) = pair();
    let (reader, writer) = pipe().unwrap();
    let sent = catch_unwind(AssertUnwindSafe(|| sender.send(Then(reader, || panic!("expected")))));
    assert!(sent.is_err());
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    assert_works(&sender, &receiver);
}

fn a_serialize_that_sends_keeps_its_ends_apart() {
    let (sender, receiver) = pair();
    let (inner, inner_receiver) = channel::<(PipeWriter, String)>().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let (inner_reader, inner_writer) = pipe().unwrap();
    let inner_writer = RefCell::new(Some(inner_writer));
    let sends = || {
        let writer = inner_writer.borrow_mut().take().unwrap();
        inner.send((writer, "x".repeat(300_000))).map_err(|unsent| unsent.to_string())
    };
    assert!(sender.send(Then(reader, sends)).is_ok());
    let (mut inner_writer, text) = inner_receiver.recv().unwrap().unwrap();
    assert_eq!(text.len(), 300_000);
    let (reader, seven) = receiver.recv().unwrap().unwrap();
    assert_eq!(seven, 7);
    std::io::Write::write_all(&mut writer, b"outer").unwrap();
    std::io::Write::write_all(&mut inner_writer, b"inner").unwrap();
    drop((writer, inner_writer));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "outer");
    assert_eq!(std::io::read_to_string(inner_reader).unwrap(), "inner");
}

fn a_serialize_that_is_sent_to_itself_works() {
    let (other, receiver) = pair::<(PipeReader, u8)>();
    let sender = Sender::new(other.try_clone().unwrap().into_inner());
    let (first, _one) = pipe().unwrap();
    let (second, _two) = pipe().unwrap();
    let second = RefCell::new(Some(second));
    let sends = || other.send((second.borrow_mut().take().unwrap(), 8)).map_err(|unsent| unsent.to_string());
    assert!(sender.send(Then(first, sends)).is_ok());
    assert_eq!(receiver.recv().unwrap().unwrap().1, 8);
    assert_eq!(receiver.recv().unwrap().unwrap().1, 7);
}

thread_local! {
    static OUT: RefCell<Option<Rc<Sender<Countdown, MessageWriter>>>> = const { RefCell::new(None) };
}

/// Sends the one below it while it is encoded itself.
struct Countdown(u8);

impl Serialize for Countdown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 > 0 {
            let out = OUT.with_borrow(Clone::clone).unwrap();
            out.send(Countdown(self.0 - 1)).map_err(S::Error::custom)?;
            out.flush().map_err(S::Error::custom)?;
        }
        self.0.serialize(serializer)
    }
}

fn a_serialize_that_sends_over_its_own_buffered_link_works() {
    let (reader, writer) = pipe().unwrap();
    let sender = Rc::new(Sender::new(MessageWriter::new(writer)));
    let receiver = Receiver::<u8, _>::new(MessageReader::new(reader));
    OUT.set(Some(sender.clone()));
    sender.send(Countdown(3)).unwrap();
    OUT.set(None);
    Rc::into_inner(sender).unwrap().close().unwrap();
    assert_eq!(receiver.iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

type Next = Rc<dyn Fn() -> Option<Again>>;

thread_local! {
    static NEXT: RefCell<Option<Next>> = const { RefCell::new(None) };
}

/// Receives the next one while it is decoded itself.
struct Again(u8, Option<Box<Again>>);

impl<'de> Deserialize<'de> for Again {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let next = NEXT.with_borrow(Clone::clone).unwrap();
        Ok(Self(u8::deserialize(deserializer)?, next().map(Box::new)))
    }
}

fn a_deserialize_that_receives_from_its_own_link_works() {
    fn works(sender: Sender<u8, impl Link>, receiver: impl Incoming + 'static) {
        let receiver = Rc::new(Receiver::new(receiver));
        let own = Rc::clone(&receiver);
        NEXT.set(Some(Rc::new(move || own.try_recv().ok().flatten())));
        (1..=3_u8).for_each(|number| sender.send(number).unwrap());
        sender.flush().unwrap();
        let Again(1, Some(second)) = receiver.recv().unwrap().unwrap() else { panic!() };
        let Again(2, Some(third)) = *second else { panic!() };
        assert!(matches!(*third, Again(3, None)));
        NEXT.set(None);
    }
    let (reader, writer) = pipe().unwrap();
    works(Sender::new(MessageWriter::new(writer)), MessageReader::new(reader));
    let pair = datagram_pair().unwrap();
    works(Sender::new(PackedSocket::new(pair.parent)), PackedSocket::new(pair.child));
    let pair = datagram_pair().unwrap();
    works(Sender::new(pair.parent), pair.child);
}

fn a_serialize_that_lies_is_an_error_at_the_receiver() {
    struct Lies(usize);
    impl Serialize for Lies {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut list = serializer.serialize_seq(Some(self.0))?;
            list.serialize_element(&300_u16)?;
            list.end()
        }
    }
    let (sender, receiver) = channel().unwrap();
    let receiver: Receiver<Vec<u16>> = Receiver::new(receiver.into_inner());
    for (said, is_value) in [(2, false), (0, false), (usize::MAX, false), (1, true)] {
        assert!(sender.send(Lies(said)).is_ok());
        match receiver.recv() {
            Ok(Some(list)) => assert!(is_value && list == [300]),
            Err(error) => assert!(!is_value && matches!(error, Error::Decode { .. }), "{error:?}"),
            Ok(None) => panic!("the sender is there"),
        }
    }
}

fn a_serialize_that_forks_keeps_its_ends() {
    let (sender, receiver) = pair();
    let (reader, mut writer) = pipe().unwrap();
    let forks = || {
        let (numbers, there) = channel::<(PipeReader, u8)>().unwrap();
        let child = ipc::fork(there, |there| {
            let (reader, seven) = there.recv().unwrap().unwrap();
            assert_eq!((std::io::read_to_string(reader).unwrap().as_str(), seven), ("in the child", 7));
        });
        let (reader, mut writer) = pipe().unwrap();
        numbers.send((reader, 7)).map_err(|unsent| unsent.to_string())?;
        std::io::Write::write_all(&mut writer, b"in the child").unwrap();
        drop(writer);
        assert!(child.unwrap().wait().unwrap().success());
        Ok(())
    };
    assert!(sender.send(Then(reader, forks)).is_ok());
    let (reader, seven) = receiver.recv().unwrap().unwrap();
    std::io::Write::write_all(&mut writer, b"here").unwrap();
    drop(writer);
    assert_eq!((std::io::read_to_string(reader).unwrap().as_str(), seven), ("here", 7));
}

fn a_value_that_nests_too_deeply_comes_back() {
    #[derive(serde::Serialize, serde::Deserialize)]
    enum Tree {
        Leaf(Option<PipeWriter>),
        Bare,
        Branch(Vec<Tree>),
    }
    // An enum and a list are a level each, and so is a `Some`.
    let tree = |levels, writer| (0..levels).fold(Tree::Leaf(Some(writer)), |tree, _| Tree::Branch(vec![tree]));
    let (sender, receiver) = channel().unwrap();
    let (reader, writer) = pipe().unwrap();
    sender.send(tree(63, writer)).unwrap();
    drop(receiver.recv().unwrap().unwrap());
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    for levels in [64, 1000] {
        let (reader, writer) = pipe().unwrap();
        let unsent = sender.send(tree(levels, writer)).unwrap_err();
        assert!(
            matches!(unsent.error, Error::Encode { .. }) && unsent.to_string().contains("too deeply"),
            "{unsent:?}"
        );
        assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "its end is open");
        drop(unsent);
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    }
    // A variant without a field is a level.
    let bare = |levels| (0..levels).fold(Tree::Bare, |tree, _| Tree::Branch(vec![tree]));
    let unsent = sender.send(bare(64)).unwrap_err();
    assert!(matches!(unsent.error, Error::Encode { .. }), "{unsent:?}");
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    sender.send(bare(63)).unwrap();
    receiver.recv().unwrap().unwrap();
}

fn a_value_of_too_many_elements_without_bytes_comes_back() {
    let (sender, receiver) = channel::<(Vec<()>, String, Vec<Vec<[u8; 0]>>)>().unwrap();
    // The lengths take five bytes, which allow for as many elements more than 4096.
    let value = |count| (vec![(); 4000], String::new(), vec![vec![[]; count]]);
    sender.send(value(101)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(value(101)));
    for count in [102, 103, 100_000] {
        let unsent = sender.send(value(count)).unwrap_err();
        assert!(matches!(unsent.error, Error::Encode { .. }), "{unsent:?}");
        assert_eq!(unsent.value, value(count));
    }
    sender.send(value(0)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(value(0)));
}

fn a_temporary_end_is_sent() {
    struct Copies<'a>(&'a PipeWriter);
    impl Serialize for Copies<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            // Both have the same number, one after the other.
            let (one, two) = (self.0.try_clone().unwrap(), ());
            let _ = (&one, two);
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(2)?;
            tuple.serialize_element(&one)?;
            drop(one);
            tuple.serialize_element(&Fd(std::fs::File::open("/dev/null").unwrap()))?;
            tuple.end()
        }
    }
    let (sender, receiver) = channel().unwrap();
    let receiver: Receiver<(PipeWriter, Fd<std::fs::File>)> = Receiver::new(receiver.into_inner());
    let (reader, writer) = pipe().unwrap();
    assert!(sender.send(Copies(&writer)).is_ok());
    let (mut arrived, _file) = receiver.recv().unwrap().unwrap();
    std::io::Write::write_all(&mut arrived, b"x").unwrap();
    drop((arrived, writer));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
}

/// Takes an end, and then does not go on.
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _reader = PipeReader::deserialize(deserializer)?;
        panic!("expected")
    }
}

fn a_deserialize_that_panics_leaves_nothing_behind() {
    let (sender, receiver) = channel::<(PipeReader, u8)>().unwrap();
    let panics: Receiver<Panics> = Receiver::new(receiver.try_clone().unwrap().into_inner());
    let (reader, writer) = pipe().unwrap();
    sender.send((reader, 7)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| panics.recv())).is_err());
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    drop(panics);
    assert_works(&sender, &receiver);
}

thread_local! {
    static OTHER: RefCell<Option<Receiver<(PipeReader, u8)>>> = const { RefCell::new(None) };
}

struct Receives(PipeReader, u8);

impl<'de> Deserialize<'de> for Receives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let other = OTHER.with_borrow(|other| other.as_ref().unwrap().recv().unwrap().unwrap());
        let (reader, seven) = <(PipeReader, u8)>::deserialize(deserializer)?;
        assert_eq!(seven, 7);
        drop(reader);
        Ok(Self(other.0, other.1))
    }
}

fn a_deserialize_that_receives_keeps_its_ends_apart() {
    let (sender, receiver) = channel::<(PipeReader, u8)>().unwrap();
    let (other, other_receiver) = channel().unwrap();
    OTHER.set(Some(other_receiver));
    let receiver: Receiver<Receives> = Receiver::new(receiver.into_inner());
    let (outer, writer) = pipe().unwrap();
    let (inner, mut inner_writer) = pipe().unwrap();
    sender.send((outer, 7)).unwrap();
    other.send((inner, 8)).unwrap();
    let Receives(reader, eight) = receiver.recv().unwrap().unwrap();
    assert_eq!(eight, 8);
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
    std::io::Write::write_all(&mut inner_writer, b"inner").unwrap();
    drop(inner_writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "inner");
    OTHER.set(None);
}

fn an_end_outside_of_a_channel_is_an_error() {
    let (reader, _writer) = pipe().unwrap();
    let said = |error: String| assert!(error.contains("ipc's channels"), "{error}");
    said(serde_json::to_string(&reader).unwrap_err().to_string());
    said(serde_json::from_str::<PipeReader>("0").unwrap_err().to_string());
    assert!(postcard::to_allocvec(&(1, &reader)).is_err());
    assert!(postcard::from_bytes::<PipeReader>(&[0]).is_err());
    assert!(postcard::from_bytes::<Fd<std::fs::File>>(&[0]).is_err());
}

fn json_inside_of_a_value_has_no_ends() {
    struct Json(PipeReader);
    impl Serialize for Json {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serde_json::to_string(&self.0).map_err(S::Error::custom)?.serialize(serializer)
        }
    }
    let (sender, receiver) = channel().unwrap();
    let (reader, _writer) = pipe().unwrap();
    assert!(matches!(sender.send(Json(reader)).unwrap_err().error, Error::Encode { .. }));
    drop(sender);
    assert!(Receiver::<String>::new(receiver.into_inner()).recv().unwrap().is_none());

    // A text that means the end beside it is no end.
    impl<'de> Deserialize<'de> for Json {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            serde_json::from_str(&String::deserialize(deserializer)?).map(Json).map_err(D::Error::custom)
        }
    }
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    pair.parent.send_with(b"\x010", reader).unwrap();
    let error = Receiver::<Json>::new(pair.child).recv().map(drop).unwrap_err();
    assert!(matches!(&error, Error::Decode { message, .. } if message == b"\x010"), "{error:?}");
    assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)));
}

fn bytes_of_another_format_may_have_ends() {
    struct Inside(PipeWriter);
    impl Serialize for Inside {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            postcard::to_allocvec(&self.0).map_err(S::Error::custom)?.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Inside {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let bytes = Vec::<u8>::deserialize(deserializer)?;
            postcard::from_bytes(&bytes).map(Inside).map_err(serde::de::Error::custom)
        }
    }
    let (sender, receiver) = channel().unwrap();
    let (reader, writer) = pipe().unwrap();
    sender.send((Inside(writer), 7_u8)).unwrap();
    let (Inside(mut writer), _) = receiver.recv().unwrap().unwrap();
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
}

fn ends_without_bytes_are_an_error() {
    struct Forgets(PipeWriter);
    impl Serialize for Forgets {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            postcard::to_allocvec(&self.0).map_err(S::Error::custom)?;
            serializer.serialize_unit()
        }
    }
    let (sender, _receiver) = channel().unwrap();
    let (_reader, writer) = pipe().unwrap();
    assert!(matches!(sender.send(Forgets(writer)).unwrap_err().error, Error::Encode { .. }));
}

fn an_end_that_another_thread_encodes_is_an_error() {
    struct Elsewhere(PipeReader);
    impl Serialize for Elsewhere {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let bytes = thread::scope(|scope| scope.spawn(|| postcard::to_allocvec(&self.0)).join().unwrap());
            bytes.map_err(S::Error::custom)?.serialize(serializer)
        }
    }
    let (sender, _receiver) = channel().unwrap();
    let (reader, _writer) = pipe().unwrap();
    assert!(matches!(sender.send(Elsewhere(reader)).unwrap_err().error, Error::Encode { .. }));
}

fn values_are_sent_while_a_thread_ends() {
    struct Last(Sender<(String, Option<PipeReader>)>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.send(("the last words".to_owned(), None)).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let (sender, receiver) = channel::<(String, Option<PipeReader>)>().unwrap();
    let thread = thread::spawn(move || {
        LAST.set(Some(Last(sender.try_clone().unwrap())));
        sender.send(("the first words".to_owned(), None)).unwrap();
    });
    thread.join().unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().0, "the first words");
    assert_eq!(receiver.recv().unwrap().unwrap().0, "the last words");
    assert!(receiver.recv().unwrap().is_none());
}
