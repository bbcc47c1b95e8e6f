//! Receiving: from the pack that has arrived, and the next one.

use std::time::Duration;

use super::PackedSocket;
use crate::error::{Error, Result};
use crate::sys::poll::{POLLIN, POLLOUT};
use crate::wait::{Patience, Watch};

impl PackedSocket {
    /// Blocks until a message arrives, and lends it, until the next call; `to_vec` keeps it, as for an answer that is made of
    /// it. `None`: the peer is gone, and all that it sent was received.
    ///
    /// Takes a message that has arrived in the buffer without a system call. If there is none, what waits to be sent is
    /// sent first.
    ///
    /// `None` also where the peer lives and has only finished sending ([`shutdown`](crate::DatagramSocket::shutdown)). Then what
    /// had no room in its queue still waits, and goes with [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// - [`Error::Malformed`]: a datagram is no pack, as from a peer that does not pack. All of it is in the error, and the
    ///   next can be received.
    /// - [`Error::Reset`]: the peer went away with messages of ours that it had not received from its socket, or that had
    ///   not been flushed; said once, after all that it sent.
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::TooLong`], [`Error::System`]: what waits could not be sent, see [`flush`](Self::flush); or no address
    ///   space for a long message (`ENOMEM`).
    ///
    /// # Platform
    ///
    /// recvmsg(2). The buffer grows to the longest message that arrives, which is at most 4160 KiB.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::Blocking)
    }

    /// Receives a message without blocking; else as [`recv`](Self::recv).
    ///
    /// If there is none, what waits to be sent is sent as far as there is room.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]: there is no message, and the peer is open; and as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::None)
    }

    /// Blocks until a message arrives or the time is up; else as [`recv`](Self::recv).
    ///
    /// A timeout of zero looks once and never waits; [`Duration::MAX`] waits for ever. The deadline holds across signals, and
    /// goes for the flushing too. What a peer can do against it is said at
    /// [`DatagramSocket::recv_timeout`](crate::DatagramSocket::recv_timeout).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the time is up; and as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<&[u8]>> {
        self.receive(|| Patience::timeout(timeout))
    }

    #[inline]
    fn receive(&mut self, patience: impl FnOnce() -> Patience) -> Result<Option<&[u8]>> {
        if self.arrived.is_empty() && !self.arrive(patience())? {
            return Ok(None);
        }
        Ok(self.arrived.take())
    }

    /// Waits for a pack, after what waits was sent. `false`: the end.
    #[inline(never)]
    fn arrive(&mut self, patience: Patience) -> Result<bool> {
        loop {
            match self.flush_with(Patience::None) {
                Ok(()) => return self.receive_pack(patience),
                // What the peer sent before it left can still be received.
                Err(Error::Closed) => return self.receive_pack(patience),
                Err(Error::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            match self.receive_pack(Patience::None) {
                Err(Error::WouldBlock) => patience.sleep(&self.socket.end, POLLIN | POLLOUT)?,
                received => return received,
            }
        }
    }

    fn receive_pack(&mut self, patience: Patience) -> Result<bool> {
        match self.socket.receive_growing(self.arrived.buffer(), patience)? {
            Some(len) => self.arrived.fill(len).map(|()| true),
            None => Ok(false),
        }
    }

    /// Whether a message has arrived in the buffer, so that the next [`recv`](Self::recv) takes it without a system call.
    /// Never blocks.
    pub fn has_message(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// For [`wait_any`](crate::wait_any): ready when [`try_recv`](Self::try_recv) has something to say. Never blocks.
    ///
    /// What waits to be sent is sent. If there is no room for it, `wait_any` waits for room too, and
    /// [`try_recv`](Self::try_recv) then sends it. Where a message has arrived in the buffer, `wait_any` returns at once.
    ///
    /// # Errors
    ///
    /// - [`Error::NotGiven`]: this process was not given the end.
    /// - [`Error::TooLong`], [`Error::System`]: what waits could not be sent, see [`flush`](Self::flush).
    ///
    /// # Examples
    ///
    /// A master over several workers:
    ///
    /// ```
    /// use ipc::{Error, Watch};
    ///
    /// let (mut workers, mut children) = (Vec::new(), Vec::new());
    /// for _ in 0..3 {
    ///     let pair = ipc::datagram_pair()?;
    ///     children.push(ipc::fork(pair.child, |socket| -> ipc::Result<()> {
    ///         let mut socket = socket.packed();
    ///         (0..1000_u32).try_for_each(|number| socket.send(&number.to_le_bytes()))?;
    ///         socket.close()
    ///     })?);
    ///     workers.push(pair.parent.packed());
    /// }
    ///
    /// let mut received = 0;
    /// while !workers.is_empty() {
    ///     let mut on = workers.iter_mut().map(|worker| worker.wait()).collect::<Result<Vec<Watch>, _>>()?;
    ///     ipc::wait_any(&mut on, None)?;
    ///     let ready: Vec<bool> = on.iter().map(|wait| !wait.ready().is_empty()).collect();
    ///     for index in (0..workers.len()).rev().filter(|index| ready[*index]) {
    ///         loop {
    ///             match workers[index].try_recv() {
    ///                 Ok(Some(_number)) => received += 1,
    ///                 Ok(None) => break drop(workers.swap_remove(index)), // wait for it no more
    ///                 Err(Error::WouldBlock) => break,
    ///                 Err(error) => return Err(error),
    ///             }
    ///         }
    ///     }
    /// }
    /// assert_eq!(received, 3000);
    /// # for child in children { assert!(child.wait()?.success()); }
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn wait(&mut self) -> Result<Watch<'_>> {
        let waits = match self.flush_with(Patience::None) {
            Ok(()) | Err(Error::Closed) => false, // receiving tells of the loss
            Err(Error::WouldBlock) => true,
            Err(error) => return Err(error),
        };
        let wait = Watch::readable(self.get_ref()).buffered(self.has_message());
        Ok(if waits { wait.or_writable() } else { wait })
    }
}
