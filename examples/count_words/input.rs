//! The input: files, and the standard input.

use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::names::quoted;
use crate::stdout::stdin_was_closed;

pub enum Input {
    File(PathBuf),
    /// It has a name where the command line gives it one.
    Stdin {
        name: Option<&'static str>,
    },
}

impl Input {
    pub fn named(name: OsString) -> Self {
        if name == "-" { Self::Stdin { name: Some("-") } } else { Self::File(name.into()) }
    }

    pub fn is_stdin(&self) -> bool {
        matches!(self, Self::Stdin { .. })
    }

    /// Blocks until a FIFO has a writer.
    pub fn open(&self) -> io::Result<File> {
        match self {
            Self::File(path) => File::open(path),
            Self::Stdin { .. } if stdin_was_closed() => Err(Errno::BADF.into()),
            Self::Stdin { .. } => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
        }
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::File(path) => std::fs::metadata(path),
            Self::Stdin { .. } => self.open()?.metadata(),
        }
    }

    /// Returns whether another worker can begin anew with it. Bytes from a FIFO or a terminal are gone, and all processes have
    /// one place in the standard input.
    pub fn can_be_read_again(&self) -> bool {
        !self.is_stdin() && self.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// The name beside a number of words, with the blank before it. A name of several lines is put on one.
    pub fn beside_number(&self) -> Vec<u8> {
        let name = match self {
            Self::File(path) => path.as_os_str().as_encoded_bytes(),
            Self::Stdin { name: Some(name) } => name.as_bytes(),
            Self::Stdin { name: None } => return Vec::new(),
        };
        if name.contains(&b'\n') { [b" ", &*quoted(name)].concat() } else { [b" ", name].concat() }
    }
}

/// The name in a message.
impl Display for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let quoted = match self {
            Self::File(path) => quoted(path.as_os_str().as_encoded_bytes()),
            Self::Stdin { name } => quoted(name.unwrap_or("standard input").as_bytes()),
        };
        // Bytes that are no text are escaped, so none is lost.
        f.write_str(&String::from_utf8_lossy(&quoted))
    }
}
