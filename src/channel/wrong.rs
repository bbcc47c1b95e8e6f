//! Why a message is no value, or a value no message.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::{de, ser};

/// The faults of a message. Behind a pointer, so that what may fail is returned in registers.
#[derive(Debug)]
pub(super) struct Wrong(Box<Cow<'static, str>>);

impl Wrong {
    #[cold]
    #[inline(never)]
    pub(super) fn new(what: &'static str) -> Self {
        Self(Box::new(Cow::Borrowed(what)))
    }

    #[cold]
    #[inline(never)]
    fn say(what: fmt::Arguments<'_>) -> Self {
        let mut said = Said(String::new());
        if said.write_fmt(what).is_err() {
            said.0.push('…');
        }
        Self(Box::new(Cow::Owned(said.0)))
    }
}

/// The longest reason, in bytes.
const LONGEST: usize = 1024;

/// A type's words about a message. They may repeat all of it, escaped, and be several times as long. The message is in the error
/// already.
struct Said(String);

impl Write for Said {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut len = text.len().min(LONGEST - self.0.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.0.push_str(&text[..len]);
        if len < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

macro_rules! faults {
    ($($name:ident $what:literal)*) => {$(
        #[cold]
        #[inline(never)]
        pub(super) fn $name() -> Wrong {
            Wrong::new($what)
        }
    )*};
}
faults! {
    short "the message ends inside the value"
    too_large "a number is larger than its type"
    too_many "a list has more elements than the message has bytes"
    too_deep "the value is nested too deeply"
    uncounted "the number of elements is not known before they are encoded"
    no_memory "there is no memory for a string or for bytes"
    undescribed "this type needs a format that describes itself: look at its serde attributes"
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::say(format_args!("{what}"))
    }
}

impl ser::Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::say(format_args!("{what}"))
    }
}
