//! The loss of messages that were sent and never received, which the kernel reports once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::error::{Error, Result};

/// The loss of messages with the peer. The kernel reports it once, to the call that comes first, and before it
/// hands out what the peer had sent. It is kept here, and passed on to a receiver after that. Clones share it: one may send
/// while another receives. Another process that holds the same end does not, and nothing can be put back for it.
///
/// gVisor reports it after everything that the peer had sent, and again at every call, in the place of EOF.
#[derive(Clone, Default)]
pub(super) struct Loss(Arc<AtomicU8>);

const NONE: u8 = 0;
/// A receiver is to be told.
const NOTED: u8 = 1;
/// A receiver was told.
const TOLD: u8 = 2;

impl Loss {
    /// Messages of ours were lost: a receiver is to be told.
    #[cold]
    pub(super) fn note(&self) {
        self.0.store(NOTED, Relaxed);
    }

    /// The kernel has reported the loss: a receiver is to be told, if none was.
    #[cold]
    pub(super) fn note_reset(&self) {
        let _ = self.0.compare_exchange(NONE, NOTED, Relaxed, Relaxed); // it may be noted already
    }

    /// Sends. A sender that is told of the loss tries again, and is told that the peer is gone.
    #[inline(always)]
    pub(super) fn sending<T>(&self, mut send: impl FnMut() -> Result<T>) -> Result<T> {
        let mut was_reset = false;
        loop {
            match send() {
                Err(Error::Reset) if was_reset => return Err(Error::Closed),
                Err(Error::Reset) => {
                    self.note_reset();
                    was_reset = true;
                }
                sent => return sent,
            }
        }
    }

    /// The loss, which a receiver is told at EOF, once.
    #[cold]
    pub(super) fn at_eof(&self) -> Result<()> {
        match self.0.compare_exchange(NOTED, TOLD, Relaxed, Relaxed) {
            Ok(_) => Err(Error::Reset),
            Err(_) => Ok(()),
        }
    }
}
