//! How calls wait: deadlines, signals, looking again, several ends at once, and the errors that they end with.

mod deadlines;
mod errors;
mod signals;
mod spin;
mod wait_any;

use crate::support::{self, Trial};

pub fn trials() -> Vec<Trial> {
    support::joined([deadlines::trials(), errors::trials(), signals::trials(), spin::trials(), wait_any::trials()])
}
