//! Types that do more than encode themselves: nothing of them sticks to the thread, or to the next value.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};

use crate::support::{self, Trial};
use ipc::{Error, Fd, PipeReader, PipeWriter, Receiver, Sender, channel, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_serialize_that_fails_leaves_nothing_behind,
        a_serialize_that_panics_leaves_nothing_behind,
        a_serialize_that_sends_keeps_its_ends_apart,
        a_serialize_that_is_sent_to_itself_works,
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
