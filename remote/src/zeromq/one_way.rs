//! Push and pull: jobs to the next free worker, and results from all of them.

use std::fmt;
use std::time::Duration;

use ipc::{Error, Incoming, Link, Locked, Outbound, Outgoing, Received, Result, Until};

use super::turns::pass_over;
use super::{Arrived, BYE, Engine, GOODBYE, failed, sent, taken};

/// Sends each value to one of the peers that pull: the next one that has room. A [`Link`] for a [`Sender`](ipc::Sender).
/// See [`Options`](super::Options) for an example.
///
/// Closing or dropping it says goodbye to one of those peers.
pub struct Push {
    engine: Engine,
    has_finished: bool,
}

/// Receives values from all peers that push. A [`Link`] for a [`Receiver`](ipc::Receiver). See [`Options`](super::Options)
/// for an example.
///
/// It is at EOF after one goodbye, or after as many as [`writers`](Self::writers) sets. A peer that was killed says none,
/// and a stranger may say one ([A peer that is not trusted](super#a-peer-that-is-not-trusted)). A program that counts its
/// results relies on neither.
pub struct Pull {
    engine: Engine,
    writers: usize,
}

impl Push {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, has_finished: false }
    }

    /// Returns the address that it is bound to, with the port that the kernel chose. See [`Pull::address`] for an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: it has none.
    pub fn address(&self) -> Result<String> {
        address(&self.engine)
    }
}

impl Pull {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, writers: 1 }
    }

    /// Sets how many peers have to say goodbye before this is at EOF. It is one unless it is set, as in the example of
    /// [`Options`](super::Options).
    #[must_use]
    pub fn writers(mut self, count: usize) -> Self {
        self.writers = count;
        self
    }

    /// Returns the address that it is bound to, with the port that the kernel chose. See [`Options`](super::Options) for an
    /// example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: it has none.
    pub fn address(&self) -> Result<String> {
        address(&self.engine)
    }
}

pub(super) fn address(engine: &Engine) -> Result<String> {
    let address = engine.socket.get_last_endpoint().map_err(failed("zmq_getsockopt"))?;
    address.map_err(|_| Error::InvalidInput { what: "the address is not UTF-8" })
}

impl Link for Push {
    type Shared = Locked<Self>;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    fn send(shared: &Locked<Self>, message: Outbound<'_>, until: Until) -> Result<()> {
        let mut push = shared.lock(until)?;
        push.engine.check(message.bytes())?;
        sent(push.engine.send(&[message.bytes()], until.left())?, until)
    }

    fn close(mut self) -> Result<()> {
        self.has_finished = true;
        match self.engine.send(&[b"", BYE], Some(GOODBYE))? {
            true => Ok(()), // dropping the socket waits for its queue, as long as was set
            false => Err(Error::TimedOut),
        }
    }
}

impl Outgoing for Push {}

impl Drop for Push {
    fn drop(&mut self) {
        if !self.has_finished {
            let _ = self.engine.send(&[b"", BYE], Some(Duration::ZERO)); // to see the error, close
        }
    }
}

impl Link for Pull {
    type Shared = Locked<Self>;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    fn recv<R>(
        shared: &Locked<Self>,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> R,
    ) -> Result<Option<R>> {
        let mut passed = 0;
        loop {
            let mut pull = shared.lock(until)?;
            if pull.writers == 0 {
                return Ok(None);
            }
            let first = pull.engine.receive(until.left())?.ok_or_else(|| until.error())?;
            match pull.engine.complete(first)? {
                Some(Arrived::Value(message)) => {
                    drop(pull);
                    return taken(&message, max, take);
                }
                Some(Arrived::Word(word)) if *word == *BYE => pull.writers -= 1,
                Some(Arrived::Word(_)) | None => {}
            }
            pass_over(&mut passed, until)?;
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Incoming for Pull {
    fn limit(&self) -> usize {
        self.engine.max
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Push")
    }
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("writers", &self.writers).finish()
    }
}
