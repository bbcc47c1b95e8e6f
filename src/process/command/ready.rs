//! Making everything ready that a program starts with.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Arg, Parts, Place};
use crate::end::{Stdio, one_descriptor};
use crate::error::{Error, Result};
use crate::process::given::{Given, VARIABLE, describe};
use crate::sys::descriptor::duplicate;
use crate::sys::spawn::Program;

/// Where a program is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Everything that a program starts with, made ready; what it took is given back when this is dropped.
pub(super) struct Ready {
    pub(super) paths: Vec<CString>,
    args: Vec<CString>,
    environment: Vec<CString>,
    directory: Option<CString>,
    moves: Vec<(OwnedFd, RawFd)>,
    /// Keep numbers free that something is to be moved to.
    _places: Vec<OwnedFd>,
}

impl Ready {
    pub(super) fn program(&self) -> Program<'_> {
        Program {
            args: &self.args,
            environment: &self.environment,
            directory: self.directory.as_deref(),
            moves: &self.moves,
        }
    }
}

impl Parts {
    pub(super) fn ready(&self) -> Result<Ready> {
        let mut places = Places::new(self)?;
        let mut moves = Vec::new();
        let mut described = Vec::new();
        let mut numbers = Vec::new();
        for (number, stdio) in self.stdio.iter().enumerate() {
            if let Some(fd) = stdio.as_ref().map(Stdio::open).transpose()?.flatten() {
                moves.push((places.copy(fd.as_fd())?, number as RawFd));
            }
        }
        for (place, end) in &self.given {
            let fd = one_descriptor(&**end)?;
            let number = match place {
                Place::Number(number) => *number,
                Place::Name(_) | Place::Path => places.own_number(fd)?,
            };
            moves.push((places.copy(fd)?, number));
            if let Place::Name(name) = place {
                let stat = rustix::fs::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                described.push(Given { name: name.clone(), number, device: stat.st_dev, inode: stat.st_ino });
            }
            numbers.push(number);
        }
        let args = self.args.iter().map(|arg| match arg {
            Arg::Text(text) => c_string(text),
            Arg::PathOf(given) => c_string(OsStr::new(&format!("/dev/fd/{}", numbers[*given]))),
        });
        let args = std::iter::once(c_string(&self.program)).chain(args).collect::<Result<_>>()?;
        let environment = self.environment(&described);
        Ok(Ready {
            paths: self.paths(&environment).into_iter().map(|path| c_string(&path)).collect::<Result<_>>()?,
            args,
            environment: environment
                .into_iter()
                .map(|(mut entry, value)| {
                    entry.push("=");
                    entry.push(value);
                    c_string(&entry)
                })
                .collect::<Result<_>>()?,
            directory: self.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?,
            moves,
            _places: places.held,
        })
    }

    fn environment(&self, described: &[Given]) -> BTreeMap<OsString, OsString> {
        let mut environment = BTreeMap::new();
        if !self.clear {
            environment.extend(std::env::vars_os());
        }
        for (key, value) in &self.environment {
            match value {
                Some(value) => environment.insert(key.clone(), value.clone()),
                None => environment.remove(key),
            };
        }
        // What this process was given, it does not pass on by inheritance.
        environment.remove(OsStr::new(VARIABLE));
        if !described.is_empty() {
            environment.insert(VARIABLE.into(), describe(described));
        }
        environment
    }

    /// Where the program may be, in the order to try.
    fn paths(&self, environment: &BTreeMap<OsString, OsString>) -> Vec<OsString> {
        if self.program.as_bytes().contains(&b'/') || self.program.is_empty() {
            return vec![self.program.clone()];
        }
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        let directories = path.as_bytes().split(|byte| *byte == b':');
        directories
            .map(|directory| {
                let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
                OsString::from_vec([directory, b"/", self.program.as_bytes()].concat())
            })
            .collect()
    }
}

/// The numbers that descriptors have in the program.
struct Places {
    /// Those that are asked for.
    fixed: Vec<RawFd>,
    /// Descriptors of this process that keep a number free.
    held: Vec<OwnedFd>,
}

impl Places {
    fn new(parts: &Parts) -> Result<Self> {
        let stdio =
            (0..).zip(&parts.stdio).filter(|(_, stdio)| stdio.as_ref().is_some_and(|stdio| !stdio.is_inherited()));
        let mut fixed: Vec<RawFd> = stdio.map(|(number, _)| number).collect();
        let mut names = Vec::new();
        for (place, _) in &parts.given {
            match place {
                Place::Number(number) if *number < 0 => return Err(invalid("a descriptor number is negative")),
                Place::Number(number) if fixed.contains(number) => {
                    return Err(invalid("two ends are given the same number"));
                }
                Place::Number(number) => fixed.push(*number),
                Place::Name(name) if names.contains(&name) => {
                    return Err(invalid("two ends are given the same name"));
                }
                Place::Name(name) => names.push(name),
                Place::Path => {}
            }
        }
        Ok(Self { fixed, held: Vec::new() })
    }

    /// A copy of a descriptor, at a number that nothing else is to have in the program.
    fn copy(&mut self, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
        loop {
            let copy = duplicate(fd).map_err(|errno| Error::system("fcntl", errno))?;
            if !self.fixed.contains(&copy.as_raw_fd()) {
                return Ok(copy);
            }
            self.held.push(copy);
        }
    }

    /// The number that the descriptor has here; or another, where that is asked for by something else.
    fn own_number(&mut self, fd: BorrowedFd<'_>) -> Result<RawFd> {
        let mut number = fd.as_raw_fd();
        if number <= 2 || self.fixed.contains(&number) {
            let place = self.copy(fd)?;
            number = place.as_raw_fd();
            self.held.push(place);
        }
        self.fixed.push(number);
        Ok(number)
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| invalid("a NUL byte in the program, an argument, the environment or the directory"))
}

fn invalid(what: &'static str) -> Error {
    Error::InvalidInput { what }
}
