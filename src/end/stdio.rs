//! Standard input, output and error of a program that is started.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use super::End;
use super::ends::{Ends, one_descriptor};
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::descriptor::duplicate;

/// The standard input, output or error of a [`Command`](crate::Command): any end, a file, [`inherit`](Self::inherit) or
/// [`null`](Self::null).
///
/// There is no `piped`: make a [`pipe`](crate::pipe()) and give one end of it, or collect the output with
/// [`Command::output`](crate::Command::output).
///
/// # Examples
///
/// ```
/// use ipc::Stdio;
///
/// let (reader, writer) = ipc::pipe()?;
/// let sorts = ipc::Command::new("sort").stdin(Stdio::null()).stdout(writer).stderr(Stdio::inherit()).spawn()?;
/// assert_eq!(std::io::read_to_string(reader)?, ""); // there was nothing to sort
/// assert!(sorts.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "piped")]
pub struct Stdio(Kind);

enum Kind {
    Inherit,
    Null,
    End(Box<dyn Ends + Send + Sync>),
    Lent(std::result::Result<End, Refused>),
}

impl Stdio {
    /// Shares this process's own, as by default. See [`Stdio`] for an example.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// Opens `/dev/null`: a read is EOF, and written bytes are gone. See [`Stdio`] for an example.
    #[must_use]
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self.0, Kind::Inherit)
    }

    /// A descriptor of it, if the program is not to have this process's own.
    pub(crate) fn open(&self) -> Result<Option<Opened<'_>>> {
        match &self.0 {
            Kind::Inherit => Ok(None),
            Kind::Null => {
                let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
                let null = null.map_err(|errno| Error::system("open", errno))?;
                Ok(Some(Opened::Own(End::new(null)?)))
            }
            Kind::End(end) => Ok(Some(Opened::Given(one_descriptor(&**end)?))),
            Kind::Lent(Ok(copy)) => Ok(Some(Opened::Given(copy.as_fd()))),
            Kind::Lent(Err(refused)) => Err(refused.error()),
        }
    }
}

/// A descriptor that a program is to get: the caller's, or one that was opened for it.
pub(crate) enum Opened<'a> {
    Given(BorrowedFd<'a>),
    Own(End),
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Opened::Given(fd) => *fd,
            Opened::Own(end) => end.as_fd(),
        }
    }
}

/// The reason why a lent end could not be copied. Each start of the command returns it.
enum Refused {
    NotGiven,
    InvalidInput(&'static str),
    Duplicate(Errno),
}

impl Refused {
    fn error(&self) -> Error {
        match *self {
            Refused::NotGiven => Error::NotGiven,
            Refused::InvalidInput(what) => Error::InvalidInput { what },
            Refused::Duplicate(errno) => Error::system("fcntl", errno),
        }
    }
}

/// Lends: the program gets a copy, and the end stays here.
///
/// The copy is made now, and closed when the command is started or dropped. If it cannot be made, starting the command fails.
///
/// # Examples
///
/// Two programs, one after the other, write to one pipe:
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// for word in ["one", "two"] {
///     assert!(ipc::Command::new("echo").arg(word).stdout(&writer).status()?.success());
/// }
/// drop(writer);
/// assert_eq!(std::io::read_to_string(reader)?, "one\ntwo\n");
/// # Ok::<(), ipc::Error>(())
/// ```
impl<T: Ends> From<&T> for Stdio {
    fn from(lent: &T) -> Self {
        let copy = match one_descriptor(lent) {
            Ok(fd) => duplicate(fd).map(|copy| End::copy(copy, fd)).map_err(Refused::Duplicate),
            Err(Error::InvalidInput { what }) => Err(Refused::InvalidInput(what)),
            Err(_) => Err(Refused::NotGiven),
        };
        Self(Kind::Lent(copy))
    }
}

/// Shares: one end that several programs get, or one program twice, such as a [`StreamSocket`](crate::StreamSocket) as
/// its standard input and output. This process has it for as long as one of the `Arc`s lives.
impl<T: Ends + Send + Sync + 'static> From<Arc<T>> for Stdio {
    fn from(shared: Arc<T>) -> Self {
        Self::end(shared)
    }
}

impl Stdio {
    /// An end of any kind.
    pub(crate) fn end(end: impl Ends + Send + Sync + 'static) -> Self {
        Self(Kind::End(Box::new(end)))
    }
}

/// The crate's own ends implement it where they are defined.
macro_rules! from_descriptor {
    ($($owner:ty),* $(,)?) => {$(
        impl From<$owner> for Stdio {
            fn from(owner: $owner) -> Self {
                Self::end(owner)
            }
        }
    )*};
}

super::std_owners!(from_descriptor);

/// Shows the kind, or the number of an end.
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
            Kind::Lent(Ok(copy)) => debug.field(copy),
            Kind::Lent(Err(refused)) => debug.field(&refused.error()),
        }
        .finish()
    }
}
