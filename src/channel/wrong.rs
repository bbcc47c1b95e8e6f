//! Why a message is no value.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error;

/// The faults of a message.
#[derive(Debug)]
pub(super) struct Wrong(Cow<'static, str>);

impl Wrong {
    pub(super) const fn new(what: &'static str) -> Self {
        Self(Cow::Borrowed(what))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string().into())
    }
}
