//! The values that errors keep beside their cause: how they are printed, and how they are let go.

use std::fmt;

/// Bytes for `Debug`: their number, and the first few.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.0[..self.0.len().min(64)];
        let more = if first.len() < self.0.len() { "…" } else { "" };
        write!(f, "{} bytes: b\"{}\"{more}", self.0.len(), first.escape_ascii())
    }
}

/// The way of an error that gives something back into [`Error`] and [`io::Error`], which drop that.
macro_rules! gives_back {
    ($name:ident $(<$kept:ident>)?) => {
        impl$(<$kept>)? From<$name$(<$kept>)?> for $crate::error::Error {
            fn from(refused: $name$(<$kept>)?) -> Self {
                refused.error
            }
        }

        impl$(<$kept>)? From<$name$(<$kept>)?> for std::io::Error {
            fn from(refused: $name$(<$kept>)?) -> Self {
                refused.error.into()
            }
        }
    };
}
pub(crate) use gives_back;
