//! Making everything ready that a program starts with.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::parts::{Arg, Parts, Place, Value};
use crate::end::{Leaving, Opened, one_descriptor};
use crate::error::{Error, Result};
use crate::process::given::{Given, VARIABLE, describe};
use crate::sys::descriptor::is_open;
use crate::sys::start::{Failed, Options, Plan};

/// Where a program is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The descriptors, arguments and options of a start, made ready. Dropping it gives back what it took.
pub(super) struct Ready<'a> {
    paths: Vec<CString>,
    args: Vec<CString>,
    environment: Vec<CString>,
    own_pids: Vec<usize>,
    directory: Option<CString>,
    descriptors: Vec<(Opened<'a>, RawFd)>,
}

impl Ready<'_> {
    /// Hands it to the kernel's side. Where no program is started, the ends stay as they were: others may share them.
    pub(super) fn plan<T>(
        &self,
        options: &mut Options,
        start: impl FnOnce(Plan<'_>) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let moves: Vec<_> = self.descriptors.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
        let mut leaving = Leaving::default();
        let marked: Vec<_> = moves.iter().map(|(fd, _)| *fd).filter(|fd| leaving.leave(*fd)).collect();
        let started = start(Plan {
            paths: &self.paths,
            args: &self.args,
            environment: &self.environment,
            own_pids: &self.own_pids,
            directory: self.directory.as_deref(),
            moves: &moves,
            options,
        });
        if started.is_err() {
            marked.into_iter().for_each(|fd| leaving.stay(fd));
        }
        started
    }

    /// Returns whether it gets no descriptors, and is in this process's directory.
    pub(super) fn changes_nothing(&self) -> bool {
        self.descriptors.is_empty() && self.directory.is_none()
    }
}

impl Parts {
    pub(super) fn ready(&self) -> Result<Ready<'_>> {
        if let Some(what) = self.invalid {
            return Err(invalid(what));
        }
        let given =
            self.given.iter().map(|(place, end)| Ok((place, one_descriptor(&**end)?))).collect::<Result<Vec<_>>>()?;
        let mut descriptors = Vec::new();
        for (number, stdio) in self.stdio.iter().enumerate() {
            if let Some(fd) = stdio.as_ref().map(|stdio| stdio.open()).transpose()?.flatten() {
                descriptors.push((fd, number as RawFd));
            }
        }
        let numbers = self.numbers(&given)?;
        let mut described = Vec::new();
        for ((place, fd), &number) in given.into_iter().zip(&numbers) {
            if let Place::Name(name) = place {
                let stat = rustix::fs::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                described.push(Given { name: name.clone(), number, device: stat.st_dev, inode: stat.st_ino });
            }
            descriptors.push((Opened::Given(fd), number));
        }
        let args = self.args.iter().map(|arg| match arg {
            Arg::Text(text) => c_string(text),
            Arg::PathOf(given) => c_string(OsStr::new(&format!("/dev/fd/{}", numbers[*given]))),
        });
        let name = self.arg0.as_ref().unwrap_or(&self.program);
        let args = std::iter::once(c_string(name)).chain(args).collect::<Result<_>>()?;
        let environment = self.environment(&described);
        let paths = self.paths(environment.get(OsStr::new("PATH")).and_then(Option::as_deref));
        let own_pids = environment.values().enumerate().filter(|(_, value)| value.is_none()).map(|(i, _)| i).collect();
        Ok(Ready {
            paths: paths.into_iter().map(|path| c_string(&path)).collect::<Result<_>>()?,
            args,
            environment: environment
                .into_iter()
                .map(|(mut entry, value)| {
                    entry.push("=");
                    entry.push(value.unwrap_or_default());
                    c_string(&entry)
                })
                .collect::<Result<_>>()?,
            own_pids,
            directory: self.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?,
            descriptors,
        })
    }

    /// The numbers of the given ends in the program.
    fn numbers(&self, given: &[(&Place, BorrowedFd<'_>)]) -> Result<Vec<RawFd>> {
        let stdio =
            (0..).zip(&self.stdio).filter(|(_, stdio)| stdio.as_ref().is_some_and(|stdio| !stdio.is_inherited()));
        let mut taken: Vec<RawFd> = stdio.map(|(number, _)| number).collect();
        let mut names = Vec::new();
        for (place, _) in given {
            match place {
                Place::Number(number) if *number < 0 => return Err(invalid("a descriptor number is negative")),
                Place::Number(number) if taken.contains(number) => {
                    return Err(invalid("two ends are given the same number"));
                }
                Place::Number(number) => taken.push(*number),
                Place::Name(name) if names.contains(&name) => {
                    return Err(invalid("two ends are given the same name"));
                }
                Place::Name(name) => names.push(name),
                Place::Path => {}
            }
        }
        // Each keeps the number that it has here, unless another one asks for that.
        let own = given.iter().map(|(place, fd)| match place {
            Place::Number(number) => Some(*number),
            Place::Name(_) | Place::Path => {
                let own = fd.as_raw_fd();
                let keeps_it = own > 2 && !taken.contains(&own);
                keeps_it.then(|| taken.push(own)).map(|()| own)
            }
        });
        let own: Vec<_> = own.collect();
        let mut free = (3..).filter(|number| !taken.contains(number) && !is_open(*number));
        Ok(own.into_iter().map(|own| own.or_else(|| free.next()).unwrap_or(RawFd::MAX)).collect())
    }

    /// The variables and their values; `None` for the number of the program's process.
    fn environment(&self, described: &[Given]) -> BTreeMap<OsString, Option<OsString>> {
        let mut environment = BTreeMap::new();
        if !self.clear {
            environment.extend(std::env::vars_os().map(|(key, value)| (key, Some(value))));
        }
        for (key, value) in &self.environment {
            match value {
                Value::Text(value) => environment.insert(key.clone(), Some(value.clone())),
                Value::OwnPid => environment.insert(key.clone(), None),
                Value::Removed => environment.remove(key),
            };
        }
        // Ends that this process was given are not passed on by inheritance.
        environment.remove(OsStr::new(VARIABLE));
        if !described.is_empty() {
            environment.insert(VARIABLE.into(), Some(describe(described)));
        }
        environment
    }

    /// Where the program may be, in the order to try.
    fn paths(&self, path: Option<&OsStr>) -> Vec<OsString> {
        if self.program.as_bytes().contains(&b'/') || self.program.is_empty() {
            return vec![self.program.clone()];
        }
        let directories = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|byte| *byte == b':');
        directories
            .map(|directory| {
                let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
                OsString::from_vec([directory, b"/", self.program.as_bytes()].concat())
            })
            .collect()
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| invalid("a NUL byte in the program, an argument, the environment or the directory"))
}

fn invalid(what: &'static str) -> Error {
    Error::InvalidInput { what }
}
