//! Typed channels: values of Rust between processes, with ends in them.

mod calls;
mod ends;
mod formats;
mod hostile;
mod links;
mod nesting;
mod segments;
mod shapes;
mod tcp;
mod tcp_around;
mod values;

use std::process::ExitCode;

use crate::support::{self, Trial};

/// What this program does where a test of this area has started it.
pub fn started() -> Option<ExitCode> {
    if std::env::var_os(ends::WORKER).is_some() {
        ends::work();
    } else if std::env::var_os(values::SEALS).is_some() {
        values::send_to_oneself();
    } else {
        return None;
    }
    Some(ExitCode::SUCCESS)
}

pub fn trials() -> Vec<Trial> {
    support::joined([
        calls::trials(),
        ends::trials(),
        formats::trials(),
        hostile::trials(),
        links::trials(),
        nesting::trials(),
        segments::trials(),
        shapes::trials(),
        tcp::trials(),
        tcp_around::trials(),
        values::trials(),
    ])
}
