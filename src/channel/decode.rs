//! Postcard's format, decoded with bounds: it comes from another process, which may mean harm.
//!
//! Postcard's own decoder believes the length of a list whose elements take no bytes, and nests as deep as the bytes say.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use super::access::{Counted, Fields};
use super::link::NOTHING;
use super::wrong::{self, Wrong};

/// How deep structures, tuples, lists, maps, enums with contents, `Some`s and newtypes nest.
pub(super) const DEPTH: usize = 128;

/// How many elements of lists and maps may take no bytes, besides as many as the message has bytes.
pub(super) const FREE: usize = 4096;

/// Decodes a value that takes all of the bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Wrong> {
    let mut decoder = Decoder { rest: bytes, depth: DEPTH, free: FREE.saturating_add(bytes.len()) };
    let value = T::deserialize(&mut decoder)?;
    match decoder.rest.len() {
        0 => Ok(value),
        // A type without bytes, for which a byte is sent all the same.
        1 if *bytes == NOTHING => Ok(value),
        left => Err(Wrong::custom(format_args!("bytes are left over: {left}"))),
    }
}

pub(super) struct Decoder<'de> {
    rest: &'de [u8],
    /// How much deeper it may nest.
    depth: usize,
    /// How many more elements may take no bytes.
    free: usize,
}

/// A number of so many bits after its first byte: seven in a byte, the lowest first, and the eighth says that there are more.
macro_rules! long_numbers {
    ($($name:ident $type:ty),*) => {$(
        #[inline]
        fn $name(&mut self, first: u8, bits: u32) -> Result<$type, Wrong> {
            let mut number = <$type>::from(first & 0x7f);
            for shift in (7..bits).step_by(7) {
                let byte = self.byte()?;
                let part = <$type>::from(byte & 0x7f);
                if bits - shift < 7 && part >> (bits - shift) != 0 {
                    return Err(wrong::too_large());
                }
                number |= part << shift;
                if byte < 0x80 {
                    return Ok(number);
                }
            }
            Err(wrong::too_large())
        }
    )*};
}

impl<'de> Decoder<'de> {
    #[inline]
    fn byte(&mut self) -> Result<u8, Wrong> {
        let (first, rest) = self.rest.split_first().ok_or_else(wrong::short)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> Result<&'de [u8], Wrong> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(wrong::short)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(wrong::short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A number of so many bits. It is called, so that the types' own code is short enough to become one piece.
    #[inline(never)]
    pub(super) fn number<const BITS: u32>(&mut self) -> Result<u64, Wrong> {
        if let Some((first @ 0..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok((*first).into());
        }
        let Some(head) = self.rest.first_chunk::<8>() else { return self.late_number(BITS) };
        let spread = u64::from_le_bytes(*head);
        // The eighth bit of the last byte is not set. A number of more than eight bytes has none such here.
        let stop = !spread & 0x8080_8080_8080_8080;
        let count = stop.trailing_zeros() / 8 + 1;
        if count > const { if BITS < 56 { BITS.div_ceil(7) } else { 8 } } {
            return self.late_number(BITS);
        }
        self.rest = &self.rest[count as usize..];
        let number = spread & (stop ^ (stop - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
        let number = number & 0x7f_007f_007f_007f | (number & 0x7f00_7f00_7f00_7f00) >> 1;
        let number = number & 0x3fff_0000_3fff | (number & 0x3fff_0000_3fff_0000) >> 2;
        let number = number & 0x0fff_ffff | (number & 0x0fff_ffff_0000_0000) >> 4;
        if BITS < 56 && number >> BITS != 0 { Err(wrong::too_large()) } else { Ok(number) }
    }

    /// The same, byte by byte: at the end of a message, and for long numbers.
    #[cold]
    fn late_number(&mut self, bits: u32) -> Result<u64, Wrong> {
        let first = self.byte()?;
        if first < 0x80 { Ok(first.into()) } else { self.long_number(first, bits) }
    }

    long_numbers!(long_number u64, wide_number u128);

    /// A number of 128 bits.
    fn wide<const BITS: u32>(&mut self) -> Result<u128, Wrong> {
        let first = self.byte()?;
        if first < 0x80 { Ok(first.into()) } else { self.wide_number(first, BITS) }
    }

    /// A signed number, the sign of which is its lowest bit.
    #[inline]
    fn signed<const BITS: u32>(&mut self) -> Result<i64, Wrong> {
        let number = self.number::<BITS>()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A signed number of 128 bits.
    fn wide_signed<const BITS: u32>(&mut self) -> Result<i128, Wrong> {
        let number = self.wide::<BITS>()?;
        Ok((number >> 1) as i128 ^ -((number & 1) as i128))
    }

    #[inline]
    fn len(&mut self) -> Result<usize, Wrong> {
        usize::try_from(self.number::<64>()?).map_err(|_| wrong::short())
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Wrong> {
        let len = self.len()?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Wrong::new("a string is not UTF-8"))
    }

    /// Decodes one level deeper.
    #[inline]
    fn nested<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        self.depth = self.depth.checked_sub(1).ok_or_else(wrong::too_deep)?;
        let decoded = decode(self);
        self.depth += 1;
        decoded
    }

    /// Decodes one of so many as a length said, which may be many if they take no bytes.
    #[inline]
    pub(super) fn counted<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let before = self.rest.len();
        let decoded = decode(self)?;
        if self.rest.len() == before {
            self.free = self.free.checked_sub(1).ok_or_else(wrong::too_many)?;
        }
        Ok(decoded)
    }

    /// The number of elements of a list or a map: no more than there can be.
    #[inline]
    fn count(&mut self) -> Result<usize, Wrong> {
        let count = self.len()?;
        if count > self.rest.len().saturating_add(self.free) { Err(wrong::too_many()) } else { Ok(count) }
    }
}

/// Numbers of more than a byte.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $how:ident);* $(;)?) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            visitor.$visit(self.$how::<{ <$type>::BITS }>()? as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Wrong;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_u16 visit_u16 u16, number;
        deserialize_u32 visit_u32 u32, number;
        deserialize_u64 visit_u64 u64, number;
        deserialize_u128 visit_u128 u128, wide;
        deserialize_i16 visit_i16 i16, signed;
        deserialize_i32 visit_i32 i32, signed;
        deserialize_i64 visit_i64 i64, signed;
        deserialize_i128 visit_i128 i128, wide_signed;
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_u8(self.byte()?)
    }

    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_i8(self.byte()? as i8)
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Wrong::new("a bool is neither 0 nor 1")),
        }
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let mut chars = self.text()?.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(Wrong::new("a char is not one character")),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.text()?;
        let mut owned = String::new();
        owned.try_reserve_exact(text.len()).map_err(|_| wrong::no_memory())?;
        owned.push_str(text);
        visitor.visit_string(owned)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let len = self.len()?;
        visitor.visit_borrowed_bytes(self.bytes(len)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let len = self.len()?;
        let bytes = self.bytes(len)?;
        let mut owned = Vec::new();
        owned.try_reserve_exact(len).map_err(|_| wrong::no_memory())?;
        owned.extend_from_slice(bytes);
        visitor.visit_byte_buf(owned)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|decoder| visitor.visit_some(decoder)),
            _ => Err(Wrong::new("an Option is neither 0 nor 1")),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        self.nested(|decoder| visitor.visit_newtype_struct(decoder))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let left = self.count()?;
        self.nested(|decoder| visitor.visit_seq(Counted::new(decoder, left)))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.nested(|decoder| visitor.visit_seq(Fields::new(decoder, len)))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let left = self.count()?;
        self.nested(|decoder| visitor.visit_map(Counted::new(decoder, left)))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.nested(|decoder| visitor.visit_enum(decoder))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        Err(wrong::undescribed())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        Err(wrong::undescribed())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        Err(wrong::undescribed())
    }
}
