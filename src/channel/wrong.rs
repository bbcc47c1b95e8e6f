//! Why a message is no value, or a value no message.

use std::borrow::Cow;
use std::fmt;

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
        Self(Box::new(Cow::Owned(what.to_string())))
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
