//! Postcard's format, encoded. The encoder is this crate's own, for values that go a million times a second. It spreads a
//! number over its bytes at once instead of one by one.

use std::fmt::{Display, Write};

use serde::ser::{self, Serialize, Serializer};

use super::buffer::Buffer;
use super::decode::{DEPTH, FREE};
use super::wrong::{self, Wrong};

/// Writes the value's bytes into an empty buffer.
#[inline]
pub(super) fn encode<T: Serialize + ?Sized>(value: &T, bytes: &mut Buffer) -> Result<(), Wrong> {
    let mut encoder = Encoder { bytes, depth: DEPTH as u32, free: 0 };
    value.serialize(&mut encoder)?;
    let most = FREE.saturating_add(encoder.bytes.len());
    if encoder.free > most { Err(wrong::too_many()) } else { Ok(()) }
}

struct Encoder<'a> {
    bytes: &'a mut Buffer,
    /// How much deeper it may nest. The receiver refuses deeper values, which would be lost then.
    ///
    /// It is not as wide as the buffer's length: the compiler would add to both at once, and wait for the stores before to do so.
    depth: u32,
    /// How many elements took no bytes. The receiver has a bound for these too.
    free: usize,
}

/// The bytes of a number that has no more than 56 bits, and how many they are. It is called, so that the types' own code is
/// short enough to become one piece. It touches no memory, so that this code keeps the buffer's length in a register.
#[inline(never)]
fn spread(number: u64) -> (u64, usize) {
    let spread = number & 0x0fff_ffff | (number & 0xff_ffff_f000_0000) << 4;
    let spread = spread & 0x3fff_0000_3fff | (spread & 0x0fff_c000_0fff_c000) << 2;
    let spread = spread & 0x7f_007f_007f_007f | (spread & 0x3f80_3f80_3f80_3f80) << 1;
    let last = (number | 1).ilog2() / 7;
    let more = 0x0080_8080_8080_8080 & ((1 << (8 * last)) - 1);
    (spread | more, 1 + last as usize)
}

impl Encoder<'_> {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes.put([byte], 1);
    }

    /// A number: seven bits in a byte, the lowest first, and the eighth says that there are more.
    #[inline(always)]
    fn number(&mut self, number: u64) {
        if number < 0x80 {
            self.push(number as u8);
        } else if number >> 56 == 0 {
            let (bytes, len) = spread(number);
            self.bytes.put(bytes.to_le_bytes(), len);
        } else {
            self.wide(number.into());
        }
    }

    #[cold]
    fn wide(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    /// A signed number: its sign becomes the lowest bit.
    #[inline]
    fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    #[inline]
    fn down(&mut self, levels: u32) -> Result<(), Wrong> {
        self.depth = self.depth.checked_sub(levels).ok_or_else(wrong::too_deep)?;
        Ok(())
    }

    /// An element of a list, or a key of a map.
    #[inline]
    fn counted<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Wrong> {
        let before = self.bytes.len();
        value.serialize(&mut *self)?;
        self.free += usize::from(self.bytes.len() == before);
        Ok(())
    }

    #[inline]
    fn len(&mut self, len: Option<usize>) -> Result<(), Wrong> {
        self.number(len.ok_or_else(wrong::uncounted)? as u64);
        Ok(())
    }
}

impl<'b> Encoder<'b> {
    #[inline]
    fn elements(&mut self, levels: u32) -> Result<Elements<'_, 'b>, Wrong> {
        self.down(levels)?;
        Ok(Elements { encoder: self, levels })
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty, $how:ident as $wide:ty;)*) => {$(
        #[inline]
        fn $method(self, number: $type) -> Result<(), Wrong> {
            self.$how(<$wide>::from(number));
            Ok(())
        }
    )*};
}

impl<'a, 'b> Serializer for &'a mut Encoder<'b> {
    type Ok = ();
    type Error = Wrong;
    type SerializeSeq = Elements<'a, 'b>;
    type SerializeTuple = Elements<'a, 'b>;
    type SerializeTupleStruct = Elements<'a, 'b>;
    type SerializeTupleVariant = Elements<'a, 'b>;
    type SerializeMap = Elements<'a, 'b>;
    type SerializeStruct = Elements<'a, 'b>;
    type SerializeStructVariant = Elements<'a, 'b>;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        serialize_u16 u16, number as u64;
        serialize_u32 u32, number as u64;
        serialize_u64 u64, number as u64;
        serialize_u128 u128, wide as u128;
        serialize_i16 i16, signed as i64;
        serialize_i32 i32, signed as i64;
        serialize_i64 i64, signed as i64;
    }

    fn serialize_i128(self, number: i128) -> Result<(), Wrong> {
        self.wide((number << 1 ^ number >> 127) as u128);
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, number: u8) -> Result<(), Wrong> {
        self.push(number);
        Ok(())
    }

    #[inline]
    fn serialize_i8(self, number: i8) -> Result<(), Wrong> {
        self.serialize_u8(number as u8)
    }

    #[inline]
    fn serialize_bool(self, truth: bool) -> Result<(), Wrong> {
        self.serialize_u8(truth.into())
    }

    #[inline]
    fn serialize_f32(self, number: f32) -> Result<(), Wrong> {
        let bytes = number.to_le_bytes();
        self.bytes.put(bytes, bytes.len());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, number: f64) -> Result<(), Wrong> {
        let bytes = number.to_le_bytes();
        self.bytes.put(bytes, bytes.len());
        Ok(())
    }

    fn serialize_char(self, char: char) -> Result<(), Wrong> {
        self.serialize_str(char.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Wrong> {
        self.serialize_bytes(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Wrong> {
        self.number(bytes.len() as u64);
        self.bytes.extend(bytes);
        Ok(())
    }

    /// Without memory of its own: the length is appended last, and turned to where it belongs.
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Wrong> {
        struct Text<'a>(&'a mut Buffer);
        impl Write for Text<'_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.extend(text.as_bytes());
                Ok(())
            }
        }
        let start = self.bytes.len();
        write!(Text(self.bytes), "{value}").map_err(<Wrong as ser::Error>::custom)?;
        let end = self.bytes.len();
        self.number((end - start) as u64);
        let head = self.bytes.len() - end;
        self.bytes.since(start).rotate_right(head);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Wrong> {
        self.serialize_u8(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Wrong> {
        self.push(1);
        self.serialize_newtype_struct("", value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Wrong> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Wrong> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, variant: u32, _: &'static str) -> Result<(), Wrong> {
        self.number(variant.into());
        self.down(1)?;
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Wrong> {
        self.down(1)?;
        value.serialize(&mut *self)?;
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Wrong> {
        self.number(variant.into());
        self.serialize_newtype_struct(name, value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'a, 'b>, Wrong> {
        self.len(len)?;
        self.elements(1)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Elements<'a, 'b>, Wrong> {
        self.elements(1)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'a, 'b>, Wrong> {
        self.elements(1)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'a, 'b>, Wrong> {
        self.number(variant.into());
        self.elements(2)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'a, 'b>, Wrong> {
        self.len(len)?;
        self.elements(1)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Elements<'a, 'b>, Wrong> {
        self.elements(1)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'a, 'b>, Wrong> {
        self.number(variant.into());
        self.elements(2)
    }
}

/// A value with elements or fields.
struct Elements<'a, 'b> {
    encoder: &'a mut Encoder<'b>,
    /// How many levels end with it.
    levels: u32,
}

macro_rules! elements {
    ($($kind:ident: $($($method:ident)+),*;)*) => {$(
        impl ser::$kind for Elements<'_, '_> {
            type Ok = ();
            type Error = Wrong;

            $(elements!(@ $($method)+);)*

            #[inline]
            fn end(self) -> Result<(), Wrong> {
                self.encoder.depth += self.levels;
                Ok(())
            }
        }
    )*};
    (@ named) => {
        #[inline]
        fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Wrong> {
            value.serialize(&mut *self.encoder)
        }
    };
    (@ counted $method:ident) => {
        #[inline]
        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Wrong> {
            self.encoder.counted(value)
        }
    };
    (@ $method:ident) => {
        #[inline]
        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Wrong> {
            value.serialize(&mut *self.encoder)
        }
    };
}
elements! {
    SerializeSeq: counted serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
    SerializeMap: counted serialize_key, serialize_value;
    SerializeStruct: named;
    SerializeStructVariant: named;
}
