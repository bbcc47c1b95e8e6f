//! Standard input, output and error of a program that is started.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::ends::{Ends, one_descriptor};
use crate::error::{Error, Result};
use crate::sys::descriptor::duplicate;

/// The standard input, output or error of a [`Command`](crate::Command): any end, a file, or one of the two here.
///
/// There is no `piped` as std's has: make a [`pipe`](crate::pipe()) and give one end of it, or collect what the program writes
/// with [`Command::output`](crate::Command::output).
#[doc(alias = "piped")]
pub struct Stdio(Kind);

enum Kind {
    Inherit,
    Null,
    End(Box<dyn Ends + Send + Sync>),
}

impl Stdio {
    /// The one of this process, as if nothing was set.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`: nothing to read, and what is written is gone.
    #[must_use]
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self.0, Kind::Inherit)
    }

    /// A descriptor of it, if the program is not to have this process's own.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        match &self.0 {
            Kind::Inherit => Ok(None),
            Kind::Null => {
                let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
                null.map(Some).map_err(|errno| Error::system("open", errno))
            }
            Kind::End(end) => {
                let fd = one_descriptor(&**end)?;
                duplicate(fd).map(Some).map_err(|errno| Error::system("fcntl", errno))
            }
        }
    }
}

impl Stdio {
    /// An end of any kind.
    pub(crate) fn end(end: impl Ends + Send + Sync + 'static) -> Self {
        Self(Kind::End(Box::new(end)))
    }
}

/// Owners of one descriptor. The crate's own ends implement it where they are defined.
macro_rules! from_descriptor {
    ($($owner:ty),* $(,)?) => {$(
        impl From<$owner> for Stdio {
            fn from(owner: $owner) -> Self {
                Self::end(owner)
            }
        }
    )*};
}

from_descriptor!(
    OwnedFd,
    File,
    std::io::PipeReader,
    std::io::PipeWriter,
    std::net::TcpStream,
    std::os::unix::net::UnixStream,
);

/// Which of the kinds it is; of an end, its number.
impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("Stdio");
        match &self.0 {
            Kind::Inherit => debug.field(&format_args!("inherit")),
            Kind::Null => debug.field(&format_args!("null")),
            Kind::End(end) => {
                end.each(&mut |fd| _ = debug.field(&fd.as_raw_fd()));
                &mut debug
            }
        }
        .finish()
    }
}
