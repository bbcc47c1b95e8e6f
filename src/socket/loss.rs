//! The loss of messages that were sent and never received, which the kernel reports once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};

/// The loss of messages with the peer. The kernel reports it once, to the call that comes first, and before it
/// hands out what the peer had sent. It is kept here, and passed on to a receiver after that. Clones share it: one may send
/// while another receives. Another process that holds the same end does not, and nothing can be put back for it.
#[derive(Clone, Default)]
pub(super) struct Loss(Arc<AtomicBool>);

impl Loss {
    /// Messages of ours were lost: a receiver is to be told.
    #[cold]
    pub(super) fn note(&self) {
        self.0.store(true, Relaxed);
    }

    /// Sends. A sender that is told of the loss tries again, and is told that the peer is gone.
    #[inline(always)]
    pub(super) fn sending<T>(&self, mut send: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match send() {
                Err(Error::Reset) => self.note(),
                sent => return sent,
            }
        }
    }

    /// The loss, which a receiver is told at EOF, once.
    #[cold]
    pub(super) fn at_eof(&self) -> Result<()> {
        if self.0.swap(false, Relaxed) { Err(Error::Reset) } else { Ok(()) }
    }
}
