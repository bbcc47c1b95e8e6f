//! Typed channels: values of Rust between processes, with ends in them.

mod calls;
mod ends;
mod formats;
mod hostile;
mod links;
mod nesting;
mod shapes;
#[path = "../support/mod.rs"]
mod support;
mod tcp;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(ends::WORKER).is_some() {
        ends::work();
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(values::SEALS).is_some() {
        values::send_to_oneself();
        return ExitCode::SUCCESS;
    }
    support::run([
        calls::trials(),
        ends::trials(),
        formats::trials(),
        hostile::trials(),
        links::trials(),
        nesting::trials(),
        shapes::trials(),
        tcp::trials(),
        values::trials(),
    ])
}
