//! Making everything ready that a program starts with.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Arg, Parts, Place};
use crate::end::{self, Ends};
use crate::process::Stdio;
use crate::process::claim::{Given, VARIABLE, describe};
use crate::sys::descriptor::duplicate;
use crate::sys::ledger;
use crate::sys::spawn::Program;
use crate::{Error, Result};

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
            let (number, device, inode) = one(&**end, |fd| {
                let number = match place {
                    Place::Number(number) => *number,
                    Place::Name(_) | Place::Path => places.own_number(fd)?,
                };
                moves.push((places.copy(fd)?, number));
                let stat = rustix::fs::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                Ok((number, stat.st_dev, stat.st_ino))
            })?;
            if let Place::Name(name) = place {
                described.push(Given { name: name.clone(), number, device, inode });
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
                Place::Number(number) if *number < 0 => return Err(misuse("give_at", "the number is negative")),
                Place::Number(number) if fixed.contains(number) => {
                    return Err(misuse("give_at", "two ends are given the same number"));
                }
                Place::Number(number) => fixed.push(*number),
                Place::Name(name) if names.contains(&name) => {
                    return Err(misuse("give", "two ends are given the same name"));
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

/// Visits the one descriptor of something that is given.
pub(in crate::process) fn one<T>(given: &dyn Ends, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    let mut result = Err(misuse("give", "nothing is given"));
    let mut count = 0;
    given.each(&mut |fd| {
        count += 1;
        if count == 1 {
            // An inert descriptor could be passed on like any other.
            result = if ledger::is_severed(fd.as_raw_fd()) {
                Err(Error::NotGiven)
            } else {
                end::leave(fd);
                visit(fd)
            };
        }
    });
    if count > 1 { Err(misuse("give", "several descriptors are given as one")) } else { result }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| misuse("new", "a nul byte in the command"))
}

/// What the kernel is not even asked.
fn misuse(call: &'static str, why: &'static str) -> Error {
    Error::System { call, source: io::Error::new(io::ErrorKind::InvalidInput, why) }
}
