//! The format (docs/channel.md).

use crate::support::{self, Trial};

pub fn trials() -> Vec<Trial> {
    support::trials![]
}
