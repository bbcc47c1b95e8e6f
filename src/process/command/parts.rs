//! The parts of a command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::end::{Ends, Stdio};
use crate::sys::start::Options;

pub(super) struct Parts {
    pub(super) program: OsString,
    pub(super) arg0: Option<OsString>,
    pub(super) args: Vec<Arg>,
    pub(super) clear: bool,
    pub(super) environment: BTreeMap<OsString, Value>,
    pub(super) directory: Option<PathBuf>,
    pub(super) stdio: [Option<Stdio>; 3],
    pub(super) given: Vec<(Place, Box<dyn Ends + Send + Sync>)>,
    pub(super) options: Options,
    /// A setting that makes no sense. The start returns it.
    pub(super) invalid: Option<&'static str>,
}

/// Of a variable of the environment.
pub(super) enum Value {
    Text(OsString),
    /// The number of the program's process.
    OwnPid,
    Removed,
}

/// An argument.
pub(super) enum Arg {
    Text(OsString),
    /// The path of that element of `given`.
    PathOf(usize),
}

/// Where the program finds something.
pub(super) enum Place {
    Name(String),
    Number(RawFd),
    Path,
}

impl Parts {
    pub(super) fn new(program: &OsStr) -> Self {
        Self {
            program: program.to_owned(),
            arg0: None,
            args: Vec::new(),
            clear: false,
            environment: BTreeMap::new(),
            directory: None,
            stdio: [None, None, None],
            given: Vec::new(),
            options: Options::default(),
            invalid: None,
        }
    }
}
