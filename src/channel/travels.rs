//! Whether a type survives the format, for users' tests.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::buffer::Buffer;
use super::decode::decode;
use super::encode::encode;
use super::scope;

/// Asserts that a value arrives as it was sent: encodes it, decodes it, and compares. For tests of types that travel.
///
/// The format is postcard's, which has no names in it and does not describe itself. These attributes of serde's need more:
///
/// | on a type or field | what happens |
/// |---|---|
/// | `flatten` | cannot be encoded |
/// | `skip_serializing_if` | encodes, and is decoded as garbage, or as another value |
/// | `skip_serializing` alone, `skip_deserializing` alone | the same; `skip`, which does both, works |
/// | `untagged`, `tag = "…"`, and others that call `deserialize_any` | encodes, and cannot be decoded |
/// | `default`, `alias`, `rename` | have no effect: fields are told by their order |
///
/// Values of `serde_json::Value` and the like do not travel either. A type's two sides have to be of one build, or of the same
/// fields in the same order.
///
/// A `Serialize` written by hand may call another format inside, and put its output into a string or bytes. Ends in there are
/// an error if the format is text, like JSON. In a format of bytes, an end is its index among those of the whole value. It
/// works if the bytes are decoded once, while the value is decoded.
///
/// # Panics
///
/// If the value cannot be encoded or decoded, or differs afterwards. A value that is not equal to itself, like one with a NaN,
/// always differs.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Job {
///     name: String,
///     tries: Option<u32>,
/// }
///
/// ipc::assert_travels(&Job { name: "sort".to_owned(), tries: None });
/// ```
///
/// ```should_panic
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Job {
///     #[serde(skip_serializing_if = "Option::is_none")]
///     tries: Option<u32>,
///     name: String,
/// }
///
/// ipc::assert_travels(&Job { tries: None, name: "sort".to_owned() });
/// ```
#[track_caller]
pub fn assert_travels<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let mut buffer = Buffer::new();
    let (encoded, attached) = scope::sending(|| encode(value, &mut buffer));
    if let Err(error) = encoded {
        panic!("{value:?} does not travel: {error}");
    }
    let bytes = buffer.as_slice();
    let ends = attached.ends.into_list().into_iter().map(Some).collect();
    match scope::receiving(ends, || decode::<T>(bytes)) {
        Ok(arrived) => assert!(arrived == *value, "{value:?} does not travel: it arrives as {arrived:?}"),
        Err(wrong) => panic!("{value:?} does not travel: encoded as {bytes:?}, it cannot be decoded: {wrong}"),
    }
}
