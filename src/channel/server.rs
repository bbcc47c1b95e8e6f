//! A fork server whose orders are values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::unsent::Unsent;
use super::{large, value};
use crate::error::{Error, Result};
use crate::process::{Child, Fork, ForkServer, Outcome};
use crate::socket::Received;
use crate::wait::{Patience, Until};

/// A [`ForkServer`] whose orders are values of one type, with ends in them.
///
/// Everything about [`ForkServer`] holds here: start it as the first thing in `main`, and any thread can start workers with it
/// from then on. A value travels as in a [`channel`](crate::channel()): any type with serde's `Serialize` and
/// `DeserializeOwned`, of any size, with up to 253 ends. [`assert_travels`](crate::assert_travels) tells whether a type
/// survives the way.
///
/// A value that the worker cannot decode is printed there as an error, and the worker leaves with status 1.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum Job {
///     Greet { name: String, output: ipc::PipeWriter },
///     Leave(u8),
/// }
///
/// let server = ipc::TypedForkServer::start(|job: Job| -> ipc::Result<u8> {
///     match job {
///         Job::Greet { name, output } => output.write_atomic(format!("hello, {name}").as_bytes())?,
///         Job::Leave(status) => return Ok(status),
///     }
///     Ok(0)
/// })?; // first thing in main
///
/// let thread = std::thread::spawn(move || -> ipc::Result<()> {
///     let (reader, output) = ipc::pipe()?;
///     let child = server.fork(Job::Greet { name: "thread".to_owned(), output })?;
///     assert_eq!(std::io::read_to_string(reader)?, "hello, thread");
///     assert!(child.wait()?.success());
///     assert_eq!(server.fork(Job::Leave(7))?.wait()?.code(), Some(7));
///     Ok(())
/// });
/// thread.join().unwrap()?;
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "forkserver")]
#[must_use = "dropping it ends the server"]
pub struct TypedForkServer<T> {
    server: ForkServer,
    values: PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned> TypedForkServer<T> {
    /// Starts the server. Each worker runs `entry` with the value of its order, and its status is the value that `entry` returns
    /// ([`Outcome`]). See [`ForkServer::start`].
    ///
    /// # Errors
    ///
    /// The same as [`ForkServer::start`].
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::TypedForkServer::start(|(a, b): (u8, u8)| a + b)?;
    /// assert_eq!(server.fork((3, 4))?.wait()?.code(), Some(7));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn start<F, R>(entry: F) -> Result<Self>
    where
        F: Fn(T) -> R + 'static,
        R: Outcome,
    {
        Self::start_with(Fork::new(), entry)
    }

    /// Starts the server with options for its workers; otherwise the same as [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// The same as [`Fork::serve`].
    ///
    /// # Examples
    ///
    /// ```
    /// let options = ipc::Fork::new().die_with_parent();
    /// let server = ipc::TypedForkServer::start_with(options, |text: String| text.len() as u8)?;
    /// assert_eq!(server.fork("four".to_owned())?.wait()?.code(), Some(4));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn start_with<F, R>(options: Fork, entry: F) -> Result<Self>
    where
        F: Fn(T) -> R + 'static,
        R: Outcome,
    {
        let server = options.serve(move |message, received| open(&message, received).map(&entry))?;
        Ok(Self { server, values: PhantomData })
    }

    /// Blocks until a worker is there, and gives it the value. Does not wait for the worker. Any thread may call it.
    ///
    /// The ends in the value go to the worker, and are closed here.
    ///
    /// # Errors
    ///
    /// The error gives the value back, with its ends open, and `?` turns it into [`Error`]. Nothing has run:
    ///
    /// - [`Error::Encode`]: the value cannot be encoded.
    /// - [`Error::TooLong`]: the value has more than 253 ends, or 252 if it is too large for a message.
    /// - [`Error::System`]: no descriptor is left for a moment's copy of an end, or for the memory of a large value
    ///   (`EMFILE`); no memory.
    ///
    /// And as [`ForkServer::fork`].
    ///
    /// # Examples
    ///
    /// See [`TypedForkServer`].
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn fork(&self, value: T) -> Result<Child, Unsent<T>> {
        order(&self.server, &[], value, None)
    }

    /// Blocks until a worker is there or the time is up; otherwise the same as [`fork`](Self::fork).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the same as [`ForkServer::fork_timeout`]; and as [`fork`](Self::fork).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = ipc::TypedForkServer::start(|(): ()| 7_u8)?;
    /// let child = server.fork_timeout((), Duration::from_secs(60))?;
    /// assert_eq!(child.wait()?.code(), Some(7));
    /// # Ok::<(), ipc::Error>(())
    /// ```
    #[allow(clippy::result_large_err)] // it gives the value back
    pub fn fork_timeout(&self, value: T, timeout: Duration) -> Result<Child, Unsent<T>> {
        order(&self.server, &[], value, Instant::now().checked_add(timeout))
    }
}

impl<T> TypedForkServer<T> {
    /// Returns the number of the server's process. Never blocks.
    ///
    /// # Examples
    ///
    /// See [`ForkServer::id`].
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }
}

impl<T> fmt::Debug for TypedForkServer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedForkServer").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Starts a worker with a value, after a head that may be empty.
#[allow(clippy::result_large_err)] // it gives the value back
pub(super) fn order<T: Serialize>(
    server: &ForkServer,
    head: &[u8],
    value: T,
    deadline: Option<Instant>,
) -> Result<Child, Unsent<T>> {
    let ordered = value::lend(&value, true, |message| {
        let bytes = match head {
            [] => Cow::Borrowed(message.bytes()),
            _ => Cow::Owned([head, message.bytes()].concat()),
        };
        match server.order(&bytes, message, deadline) {
            // The ends are not too many, and so the message is too long: it goes beside the head.
            Err(refused) if matches!(refused.error, Error::TooLong { .. }) => {
                let patience = deadline.map_or(Patience::Blocking, Patience::Until);
                let beside = large::attach(message, patience);
                let beside = beside.map_err(|error| large::in_time(error, Until(patience)))?;
                Ok(server.order(head, beside, deadline)?)
            }
            ordered => Ok(ordered?),
        }
    });
    ordered.map_err(|error| Unsent { value, error })
}

/// Decodes the value, in the worker. Its caller is the program that it is a copy of, and may send any amount.
pub(super) fn open<T: DeserializeOwned>(message: &[u8], received: Received) -> Result<T> {
    match message {
        [] if !received.is_empty() => large::take(received, usize::MAX, value::open)?,
        _ => value::open(message, received),
    }
}
