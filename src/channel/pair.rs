//! Both ends of a channel of two ways.

use super::duplex::Duplex;
use crate::error::Result;
use crate::socket;

/// Makes two connected ends that send values both ways. Never blocks.
///
/// The parent sends `A`s and receives `B`s, and the child the other way round. Each way keeps all promises of a
/// [`channel`](crate::channel()).
///
/// # Errors
///
/// [`Error::System`](crate::Error::System): no descriptors are left (`EMFILE`, `ENFILE`).
///
/// # Platform
///
/// [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html) with `SOCK_SEQPACKET`.
///
/// # Examples
///
/// ```
/// let pair = ipc::duplex::<String, usize>()?;
/// let child = ipc::fork(pair.child, |calls| -> ipc::Result<()> {
///     while let Some(text) = calls.recv()? {
///         calls.send(text.len())?;
///     }
///     Ok(())
/// })?;
///
/// let mut calls = pair.parent;
/// assert_eq!(calls.call("how long?".to_owned())?, Some(9));
/// calls.close()?;
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[doc(alias = "socketpair")]
pub fn duplex<A, B>() -> Result<DuplexPair<A, B>> {
    let (parent, child) = socket::value_pair()?;
    Ok(DuplexPair { parent: Duplex::new(parent), child: Duplex::new(child) })
}

/// Both ends of a [`duplex`](crate::duplex()), which has an example. The names say which process keeps which; the ends do the
/// same.
#[derive(Debug)]
pub struct DuplexPair<A, B> {
    /// Sends `A`s and receives `B`s.
    pub parent: Duplex<A, B>,
    /// Sends `B`s and receives `A`s.
    pub child: Duplex<B, A>,
}

/// The parent's end and the child's.
///
/// ```
/// let (ours, theirs) = ipc::duplex::<u32, String>()?.into();
/// ours.send(4)?;
/// assert_eq!(theirs.recv()?, Some(4));
/// # Ok::<(), ipc::Error>(())
/// ```
impl<A, B> From<DuplexPair<A, B>> for (Duplex<A, B>, Duplex<B, A>) {
    fn from(pair: DuplexPair<A, B>) -> Self {
        (pair.parent, pair.child)
    }
}
