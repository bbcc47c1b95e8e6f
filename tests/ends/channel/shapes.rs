//! Values of every shape that serde has, made at random, against postcard: the bytes are the same, and so is what they mean.

use std::cell::RefCell;
use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::support::{self, Trial, rounds};
use ipc::{DatagramSocket, Error, Receiver, Sender, datagram_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        values_of_every_shape_are_what_postcard_makes_of_them within 120,
        bytes_that_were_changed_mean_what_postcard_takes_them_for within 120,
    ]
}

/// A value of any shape. Numbers of floating point are bits, so that a NaN is the same as itself.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Bool(bool),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    U128(u128),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    I128(i128),
    F32(u32),
    F64(u64),
    Char(char),
    Text(String),
    Displayed(String),
    Bytes(Vec<u8>),
    Nothing,
    Something(Box<Node>),
    Unit,
    UnitStruct,
    UnitVariant(u32),
    Newtype(Box<Node>),
    NewtypeVariant(u32, Box<Node>),
    List(Vec<Node>),
    Tuple(Vec<Node>),
    TupleStruct(Vec<Node>),
    TupleVariant(u32, Vec<Node>),
    Map(Vec<(Node, Node)>),
    Struct(Vec<Node>),
    StructVariant(u32, Vec<Node>),
}

/// The names of fields and variants, of which there may be as many as these.
const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h"];

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Bool(truth) => serializer.serialize_bool(*truth),
            Node::U8(number) => serializer.serialize_u8(*number),
            Node::U16(number) => serializer.serialize_u16(*number),
            Node::U32(number) => serializer.serialize_u32(*number),
            Node::U64(number) => serializer.serialize_u64(*number),
            Node::U128(number) => serializer.serialize_u128(*number),
            Node::I8(number) => serializer.serialize_i8(*number),
            Node::I16(number) => serializer.serialize_i16(*number),
            Node::I32(number) => serializer.serialize_i32(*number),
            Node::I64(number) => serializer.serialize_i64(*number),
            Node::I128(number) => serializer.serialize_i128(*number),
            Node::F32(bits) => serializer.serialize_f32(f32::from_bits(*bits)),
            Node::F64(bits) => serializer.serialize_f64(f64::from_bits(*bits)),
            Node::Char(char) => serializer.serialize_char(*char),
            Node::Text(text) => serializer.serialize_str(text),
            Node::Displayed(text) => serializer.collect_str(text),
            Node::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Node::Nothing => serializer.serialize_none(),
            Node::Something(node) => serializer.serialize_some(&**node),
            Node::Unit => serializer.serialize_unit(),
            Node::UnitStruct => serializer.serialize_unit_struct("S"),
            Node::UnitVariant(index) => serializer.serialize_unit_variant("E", *index, "V"),
            Node::Newtype(node) => serializer.serialize_newtype_struct("S", &**node),
            Node::NewtypeVariant(index, node) => serializer.serialize_newtype_variant("E", *index, "V", &**node),
            Node::List(nodes) => {
                let mut list = serializer.serialize_seq(Some(nodes.len()))?;
                nodes.iter().try_for_each(|node| list.serialize_element(node))?;
                list.end()
            }
            Node::Tuple(nodes) => {
                let mut tuple = serializer.serialize_tuple(nodes.len())?;
                nodes.iter().try_for_each(|node| tuple.serialize_element(node))?;
                tuple.end()
            }
            Node::TupleStruct(nodes) => {
                let mut tuple = serializer.serialize_tuple_struct("S", nodes.len())?;
                nodes.iter().try_for_each(|node| tuple.serialize_field(node))?;
                tuple.end()
            }
            Node::TupleVariant(index, nodes) => {
                let mut tuple = serializer.serialize_tuple_variant("E", *index, "V", nodes.len())?;
                nodes.iter().try_for_each(|node| tuple.serialize_field(node))?;
                tuple.end()
            }
            Node::Map(nodes) => {
                let mut map = serializer.serialize_map(Some(nodes.len()))?;
                nodes.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Node::Struct(nodes) => {
                let mut fields = serializer.serialize_struct("S", nodes.len())?;
                nodes.iter().zip(NAMES).try_for_each(|(node, name)| fields.serialize_field(name, node))?;
                fields.end()
            }
            Node::StructVariant(index, nodes) => {
                let mut fields = serializer.serialize_struct_variant("E", *index, "V", nodes.len())?;
                nodes.iter().zip(NAMES).try_for_each(|(node, name)| fields.serialize_field(name, node))?;
                fields.end()
            }
        }
    }
}

/// Decodes something of the shape of a value.
#[derive(Clone, Copy)]
struct Like<'a>(&'a Node);

impl<'de> DeserializeSeed<'de> for Like<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.0 {
            Node::Bool(_) => deserializer.deserialize_bool(self),
            Node::U8(_) => deserializer.deserialize_u8(self),
            Node::U16(_) => deserializer.deserialize_u16(self),
            Node::U32(_) => deserializer.deserialize_u32(self),
            Node::U64(_) => deserializer.deserialize_u64(self),
            Node::U128(_) => deserializer.deserialize_u128(self),
            Node::I8(_) => deserializer.deserialize_i8(self),
            Node::I16(_) => deserializer.deserialize_i16(self),
            Node::I32(_) => deserializer.deserialize_i32(self),
            Node::I64(_) => deserializer.deserialize_i64(self),
            Node::I128(_) => deserializer.deserialize_i128(self),
            Node::F32(_) => deserializer.deserialize_f32(self),
            Node::F64(_) => deserializer.deserialize_f64(self),
            Node::Char(_) => deserializer.deserialize_char(self),
            Node::Text(_) => deserializer.deserialize_str(self),
            Node::Displayed(_) => deserializer.deserialize_string(self),
            Node::Bytes(bytes) if bytes.len() % 2 == 0 => deserializer.deserialize_bytes(self),
            Node::Bytes(_) => deserializer.deserialize_byte_buf(self),
            Node::Nothing | Node::Something(_) => deserializer.deserialize_option(self),
            Node::Unit => deserializer.deserialize_unit(self),
            Node::UnitStruct => deserializer.deserialize_unit_struct("S", self),
            Node::Newtype(_) => deserializer.deserialize_newtype_struct("S", self),
            Node::List(_) => deserializer.deserialize_seq(self),
            Node::Tuple(nodes) => deserializer.deserialize_tuple(nodes.len(), self),
            Node::TupleStruct(nodes) => deserializer.deserialize_tuple_struct("S", nodes.len(), self),
            Node::Map(_) => deserializer.deserialize_map(self),
            Node::Struct(nodes) => deserializer.deserialize_struct("S", &NAMES[..nodes.len()], self),
            Node::UnitVariant(_) | Node::NewtypeVariant(..) | Node::TupleVariant(..) | Node::StructVariant(..) => {
                deserializer.deserialize_enum("E", NAMES, self)
            }
        }
    }
}

macro_rules! visits {
    ($($visit:ident $type:ty => $node:expr;)*) => {$(
        fn $visit<E>(self, value: $type) -> Result<Node, E> {
            Ok($node(value))
        }
    )*};
}

impl<'de> Visitor<'de> for Like<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "something like {:?}", self.0)
    }

    visits! {
        visit_bool bool => Node::Bool;
        visit_u8 u8 => Node::U8;
        visit_u16 u16 => Node::U16;
        visit_u32 u32 => Node::U32;
        visit_u64 u64 => Node::U64;
        visit_u128 u128 => Node::U128;
        visit_i8 i8 => Node::I8;
        visit_i16 i16 => Node::I16;
        visit_i32 i32 => Node::I32;
        visit_i64 i64 => Node::I64;
        visit_i128 i128 => Node::I128;
        visit_f32 f32 => |number: f32| Node::F32(number.to_bits());
        visit_f64 f64 => |number: f64| Node::F64(number.to_bits());
        visit_char char => Node::Char;
        visit_bytes &[u8] => |bytes: &[u8]| Node::Bytes(bytes.to_vec());
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        let text = text.to_owned();
        Ok(if matches!(self.0, Node::Displayed(_)) { Node::Displayed(text) } else { Node::Text(text) })
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let like = if let Node::Something(like) = self.0 { like } else { &Node::Unit };
        Ok(Node::Something(Box::new(Like(like).deserialize(deserializer)?)))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(self.0.clone())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let Node::Newtype(like) = self.0 else { return Err(D::Error::custom("no newtype")) };
        Ok(Node::Newtype(Box::new(Like(like).deserialize(deserializer)?)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let (make, likes): (fn(u32, Vec<Node>) -> Node, _) = match self.0 {
            Node::List(nodes) => (|_, nodes| Node::List(nodes), nodes),
            Node::Tuple(nodes) => (|_, nodes| Node::Tuple(nodes), nodes),
            Node::TupleStruct(nodes) => (|_, nodes| Node::TupleStruct(nodes), nodes),
            Node::Struct(nodes) => (|_, nodes| Node::Struct(nodes), nodes),
            Node::TupleVariant(_, nodes) => (Node::TupleVariant, nodes),
            Node::StructVariant(_, nodes) => (Node::StructVariant, nodes),
            other => return Err(A::Error::custom(format_args!("{other:?} has no elements"))),
        };
        let mut nodes = Vec::new();
        // A list that was made longer repeats itself.
        let mut likes = likes.iter().cycle();
        while let Some(node) = access.next_element_seed(Like(likes.next().unwrap_or(&Node::Unit)))? {
            nodes.push(node);
        }
        let index = if let Node::TupleVariant(index, _) | Node::StructVariant(index, _) = self.0 { *index } else { 0 };
        Ok(make(index, nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let Node::Map(likes) = self.0 else { return Err(A::Error::custom("no map")) };
        let unit = (Node::Unit, Node::Unit);
        let mut likes = likes.iter().cycle();
        let mut nodes = Vec::new();
        loop {
            let (key, value) = likes.next().unwrap_or(&unit);
            match access.next_key_seed(Like(key))? {
                Some(key) => nodes.push((key, access.next_value_seed(Like(value))?)),
                None => return Ok(Node::Map(nodes)),
            }
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Node, A::Error> {
        let (index, variant) = access.variant_seed(Like(&Node::U32(0)))?;
        let Node::U32(index) = index else { return Err(A::Error::custom("no index")) };
        match self.0 {
            Node::UnitVariant(_) => variant.unit_variant().map(|()| Node::UnitVariant(index)),
            Node::NewtypeVariant(_, like) => {
                variant.newtype_variant_seed(Like(like)).map(|node| Node::NewtypeVariant(index, Box::new(node)))
            }
            Node::TupleVariant(_, likes) => {
                variant.tuple_variant(likes.len(), Like(&Node::TupleVariant(index, likes.clone())))
            }
            Node::StructVariant(_, likes) => {
                variant.struct_variant(&NAMES[..likes.len()], Like(&Node::StructVariant(index, likes.clone())))
            }
            other => Err(A::Error::custom(format_args!("{other:?} is no enum"))),
        }
    }
}

thread_local! {
    /// The shape of what is received next.
    static SHAPE: RefCell<Node> = const { RefCell::new(Node::Unit) };
}

#[derive(Debug, PartialEq)]
struct Shaped(Node);

impl<'de> Deserialize<'de> for Shaped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SHAPE.with_borrow(|shape| Like(shape).deserialize(deserializer)).map(Self)
    }
}

fn nodes() -> impl Strategy<Value = Node> {
    // As many bits as not: numbers of every length.
    let bits = |most: u32| (any::<u128>(), 0..most).prop_map(|(number, shift)| number >> shift);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Node::Bool),
        any::<u8>().prop_map(Node::U8),
        bits(128).prop_map(|bits| Node::U16((bits as u16) >> ((bits >> 16) % 16))),
        bits(128).prop_map(|bits| Node::U32((bits as u32) >> ((bits >> 32) % 32))),
        bits(128).prop_map(|bits| Node::U64((bits as u64) >> ((bits >> 64) % 64))),
        bits(128).prop_map(Node::U128),
        any::<i8>().prop_map(Node::I8),
        any::<i16>().prop_map(Node::I16),
        bits(128).prop_map(|bits| Node::I32((bits as i32) >> ((bits >> 32) % 32))),
        bits(128).prop_map(|bits| Node::I64((bits as i64) >> ((bits >> 64) % 64))),
        bits(128).prop_map(|bits| Node::I128(bits as i128)),
        any::<i128>().prop_map(Node::I128),
        any::<u32>().prop_map(Node::F32),
        any::<u64>().prop_map(Node::F64),
        Just(Node::F32(0x7fa0_0001)), // a NaN that signals
        any::<char>().prop_map(Node::Char),
        any::<String>().prop_map(Node::Text),
        any::<String>().prop_map(Node::Displayed),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Node::Bytes),
        Just(Node::Nothing),
        Just(Node::Unit),
        Just(Node::UnitStruct),
        any::<u32>().prop_map(Node::UnitVariant),
    ];
    leaf.prop_recursive(6, 64, NAMES.len() as u32, |node| {
        let several = || prop::collection::vec(node.clone(), 0..NAMES.len());
        let boxed = || node.clone().prop_map(Box::new);
        prop_oneof![
            boxed().prop_map(Node::Something),
            boxed().prop_map(Node::Newtype),
            (any::<u32>(), boxed()).prop_map(|(index, node)| Node::NewtypeVariant(index, node)),
            several().prop_map(Node::List),
            (node.clone(), 0..300_usize).prop_map(|(node, count)| Node::List(vec![node; count])),
            several().prop_map(Node::Tuple),
            several().prop_map(Node::TupleStruct),
            (any::<u32>(), several()).prop_map(|(index, nodes)| Node::TupleVariant(index, nodes)),
            prop::collection::vec((node.clone(), node.clone()), 0..4).prop_map(Node::Map),
            several().prop_map(Node::Struct),
            (any::<u32>(), several()).prop_map(|(index, nodes)| Node::StructVariant(index, nodes)),
        ]
    })
}

fn run<S: Strategy>(cases: u64, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config =
        Config { cases: rounds(cases) as u32, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    TestRunner::new(config).run(&strategy, test).unwrap_or_else(|error| panic!("{error}"));
}

/// A channel for values, and one that takes bytes in.
fn both() -> (Sender<Node>, DatagramSocket, DatagramSocket, Receiver<Shaped>) {
    let (out, back) = (datagram_pair().unwrap(), datagram_pair().unwrap());
    (Sender::new(out.parent), out.child, back.parent, Receiver::new(back.child))
}

fn values_of_every_shape_are_what_postcard_makes_of_them() {
    let (sender, sent, raw, receiver) = both();
    run(300, nodes(), |node| {
        let bytes = postcard::to_allocvec(&node).unwrap();
        // What takes no bytes has a unit in it, or is empty. More than 4096 of them are refused, which has a test of its own.
        let shown = format!("{node:?}");
        prop_assume!(bytes.len() < 100_000 && shown.matches("Unit").count() + shown.matches("[]").count() < 4096);
        sender.send(node.clone()).unwrap();
        let expected = if bytes.is_empty() { &[0][..] } else { &bytes };
        prop_assert_eq!(&sent.recv_vec().unwrap().unwrap()[..], expected);
        SHAPE.set(node.clone());
        raw.send(expected).unwrap();
        prop_assert_eq!(receiver.recv().unwrap().unwrap().0, node);
        Ok(())
    });
}

fn bytes_that_were_changed_mean_what_postcard_takes_them_for() {
    let (_, _, raw, receiver) = both();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4);
    run(250, (nodes(), changes), |(node, changes)| {
        let mut bytes = postcard::to_allocvec(&node).unwrap();
        prop_assume!(!bytes.is_empty() && bytes.len() < 100_000);
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= 1 << (byte % 8),
                1 => bytes.insert(at, byte | 0x80),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] = byte,
            }
        }
        SHAPE.set(node);
        raw.send(&bytes).unwrap();
        match receiver.recv() {
            Ok(value) => {
                let (expected, rest) = postcard::take_from_bytes::<Shaped>(&bytes).unwrap();
                prop_assert_eq!(value.unwrap(), expected);
                prop_assert!(rest.is_empty() || bytes == [0]);
            }
            Err(error) => {
                prop_assert!(matches!(&error, Error::Decode { message, .. } if *message == bytes), "{error:?}")
            }
        }
        Ok(())
    });
}
