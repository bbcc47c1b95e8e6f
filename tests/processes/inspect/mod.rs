//! Who holds an end, and how a tree of processes is connected.

mod held;
mod maps;
mod one_pass;

use std::process::ExitCode;

use crate::support::Trial;

pub fn started() -> Option<ExitCode> {
    one_pass::started()
}

pub fn trials() -> Vec<Trial> {
    [held::trials(), maps::trials(), one_pass::trials()].into_iter().flatten().collect()
}
