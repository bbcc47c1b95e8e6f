//! Who holds an end, and how a tree of processes is connected.

mod held;
mod maps;
mod one_pass;

use std::process::ExitCode;

use crate::support::{self, Trial};

pub fn started() -> Option<ExitCode> {
    one_pass::started()
}

pub fn trials() -> Vec<Trial> {
    support::joined([held::trials(), maps::trials(), one_pass::trials()])
}
