//! Ends as fields: an end is encoded as its index among those that go beside the message.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use super::duplex::Duplex;
use super::receiver::Receiver;
use super::scope::{self, ONLY_ON_CHANNELS};
use super::sender::Sender;
use crate::blob::Blob;
use crate::end::{Ends, FromFdError};
use crate::pipe::{PipeReader, PipeWriter};
use crate::socket::{DatagramSocket, StreamSocket};

/// An owner of a descriptor that is no end of this crate, as a field of a value that is sent. It may be a
/// [`File`](std::fs::File), a [`TcpListener`](std::net::TcpListener) or an [`OwnedFd`].
///
/// The owner need only be made of a descriptor and lend one, so other crates' types work as well. The types of the standard
/// library take any descriptor: if the sender is not trusted, check the descriptor that arrived.
///
/// # Examples
///
/// ```
/// use std::fs::File;
///
/// let (sender, receiver) = ipc::channel()?;
/// sender.send(("notes".to_owned(), ipc::Fd(File::open("/dev/null")?)))?;
///
/// let (name, file): (String, ipc::Fd<File>) = receiver.recv()?.expect("the sender is there");
/// assert_eq!(name, "notes");
/// assert_eq!(std::io::read_to_string(file.into_inner())?, "");
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "TcpStream")]
#[doc(alias = "File")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fd<T>(pub T);

impl<T> Fd<T> {
    /// Returns the owner of the descriptor. See the [example](Self#examples). The pattern `Fd(owner)` does the same.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Fd<T> {
    fn from(owner: T) -> Self {
        Self(owner)
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A fork gives the descriptor inside.
impl<T: AsFd> Ends for Fd<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
        visit(self.0.as_fd());
    }
}

impl<T: AsFd> Serialize for Fd<T> {
    /// Only in a value that is sent on a channel; any other format gets an error.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attach(&self.0.as_fd(), serializer)
    }
}

impl<'de, T> Deserialize<'de> for Fd<T>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    /// Only in a value that is received from a channel; any other format gets an error.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        take(deserializer).map(Self)
    }
}

macro_rules! ends_as_fields {
    ($([$($parameter:ident),*] $end:ty),* $(,)?) => {$(
        impl<$($parameter),*> Serialize for $end {
            /// Only in a value that is sent on a channel; any other format gets an error.
            fn serialize<Format: Serializer>(&self, serializer: Format) -> Result<Format::Ok, Format::Error> {
                attach(self, serializer)
            }
        }

        impl<'de, $($parameter),*> Deserialize<'de> for $end {
            /// Only in a value that is received from a channel; any other format gets an error.
            fn deserialize<Format: Deserializer<'de>>(deserializer: Format) -> Result<Self, Format::Error> {
                take(deserializer)
            }
        }
    )*};
}

ends_as_fields!(
    [] PipeReader,
    [] PipeWriter,
    [] StreamSocket,
    [] DatagramSocket,
    [] Blob,
    [T] Sender<T>,
    [T] Receiver<T>,
    [S, R] Duplex<S, R>,
);

fn attach<E: Ends, S: Serializer>(end: &E, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return Err(S::Error::custom(ONLY_ON_CHANNELS));
    }
    let index = scope::attach(end).map_err(S::Error::custom)?;
    serializer.serialize_u32(index)
}

fn take<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<OwnedFd>,
    T::Error: Into<FromFdError>,
{
    if deserializer.is_human_readable() {
        return Err(D::Error::custom(ONLY_ON_CHANNELS));
    }
    let index = u32::deserialize(deserializer)?;
    let end = scope::take(index).map_err(D::Error::custom)?;
    T::try_from(end.into_fd()).map_err(|refused| {
        let FromFdError { error, .. } = refused.into();
        D::Error::custom(format_args!("end {index} of the message: {error}"))
    })
}
