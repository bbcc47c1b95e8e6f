//! The common part of reader and writer: one side of the memory, the socket, and waiting for the other side.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::doorbell::{Impossible, Side};
use super::layout::Words;
use super::line::{Heard, Line, Rung};
use super::turn::Turn;
use crate::end::Held;
use crate::error::{Error, Result};
use crate::socket::StreamSocket;
use crate::sys::epoch::Epoch;
use crate::sys::poll::{POLLERR, POLLHUP, POLLNVAL, POLLRDHUP};
use crate::sys::shared_memory::SharedMemory;
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin};

/// How long a call looks again before it sleeps, unless it is set otherwise.
const SPIN: Duration = Duration::from_micros(20);

/// How many looks come before the clock is read, and how many of them without a pause, as an answer comes within that.
const LOOKS: u32 = 64;
const LOOKS_AT_ONCE: u32 = 32;

/// How much is copied before the other side is told. It goes on with that while this side copies the rest. Half of the first
/// cache of most processors.
pub(crate) const PIECE: usize = 16 << 10;

/// How many rings a call that does not wait takes before it fails. A peer could ring for ever.
const RINGS: u32 = 16;

/// A call with less time does not give its core away: a third process may keep it for a slice of the scheduler's.
const LONGEST_TURN: Duration = Duration::from_millis(10);

/// How long a side sleeps if the other may not ring, or if its own ring is owed.
const NAP: Duration = Duration::from_millis(1);

/// How often a call that may wait tries a ring that the kernel has no memory for, a [`NAP`] apart.
const TRIES: u32 = 20;

/// A fault that makes a ring useless for good. Each call returns it again.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Malformed(Vec<u8>),
    Truncated { message: Vec<u8>, expected: u64 },
    TooLong { len: usize, max: usize },
    WrongKind { expected: &'static str, found: &'static str },
    System { call: &'static str, errno: Errno },
}

impl Fault {
    fn error(&self) -> Error {
        match self.clone() {
            Fault::Malformed(message) => Error::Malformed { message },
            Fault::Truncated { message, expected } => Error::Truncated { message, expected: Some(expected) },
            Fault::TooLong { len, max } => Error::TooLong { len, max },
            Fault::WrongKind { expected, found } => Error::WrongKind { expected, found },
            Fault::System { call, errno } => Error::system(call, errno),
        }
    }
}

/// The counters, as they were found.
impl From<Impossible> for Fault {
    fn from(found: Impossible) -> Self {
        Fault::Malformed([found.own.to_le_bytes(), found.other.to_le_bytes()].concat())
    }
}

/// Reader or writer. The model puts a socket and words of its own in.
pub(super) struct Half<const WRITER: bool, L: Line = StreamSocket, W: Words = SharedMemory> {
    pub(super) socket: Held<L>,
    pub(super) epoch: Epoch,
    spin: Spin,
    turn: Turn,
    /// `None`: it is not there yet, or there is a fault.
    pub(super) side: Option<Side<W, WRITER>>,
    fault: Option<Fault>,
    /// The socket has said that the peer is gone.
    pub(super) is_over: bool,
}

impl<const WRITER: bool, L: Line, W: Words> Half<WRITER, L, W> {
    pub(super) fn new(socket: L, epoch: Epoch, side: Option<Side<W, WRITER>>) -> Self {
        let mut spin = Spin::default();
        spin.set(SPIN);
        Self { socket: Held::new(socket), epoch, spin, turn: Turn::default(), side, fault: None, is_over: false }
    }

    pub(super) fn set_spin(&mut self, spin: Duration) {
        self.spin.set(spin);
        self.turn = if spin.is_zero() { Turn::off() } else { Turn::default() };
    }

    /// Fails in a child that has a copy of this value: it belongs to the process that made it.
    #[inline(always)]
    pub(super) fn check_process(&self) -> Result<()> {
        if self.epoch.lasts() { Ok(()) } else { Err(Error::NotGiven) }
    }

    pub(super) fn check_fault(&self) -> Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Notes the fault that every later call returns, tells the other side, and unmaps the memory.
    #[cold]
    pub(super) fn fail(&mut self, fault: impl Into<Fault>) -> Error {
        let fault = fault.into();
        let error = fault.error();
        if self.side.is_none() {
            self.socket.hang_up(); // there is no memory to say it in
        }
        self.finish();
        self.fault = Some(fault);
        error
    }

    /// Returns how many bytes can be moved now, after one look.
    #[inline(always)]
    pub(super) fn look(&mut self) -> Result<usize> {
        match self.side.as_mut().map_or(Ok(0), Side::look) {
            Ok(left) => Ok(left),
            Err(impossible) => Err(self.fail(impossible)),
        }
    }

    /// Moves on by that many bytes, and rings if the other side waits for them. A ring that the kernel has no memory for
    /// is owed, and a call that may wait tries it again for a while.
    #[inline(always)]
    pub(super) fn advance(&mut self, by: usize, may_wait: impl FnOnce() -> bool) {
        if self.side.as_mut().is_some_and(|side| side.advance(by)) {
            self.ring();
            if self.owes() && may_wait() {
                self.ring_until_heard();
            }
        }
    }

    #[cold]
    fn ring(&mut self) {
        let core = self.socket.core();
        self.side.iter_mut().for_each(|side| _ = side.is_at(core));
        match self.socket.ring() {
            Ok(Rung::Heard) => {}
            Ok(Rung::Later) => self.side.iter_mut().for_each(Side::ring_later),
            // A writer sees it here first; a reader has still to read the rest.
            Ok(Rung::Nobody) => self.is_over |= WRITER,
            // The bytes were moved all the same. The next call returns the error, and the other side has still to wake.
            Err(errno) => {
                self.side.iter_mut().for_each(Side::ring_later);
                drop(self.fail(Fault::System { call: "send", errno }));
            }
        }
    }

    #[cold]
    fn ring_until_heard(&mut self) {
        for _ in 0..TRIES {
            self.socket.pause(NAP);
            if self.ring_if_owed().is_err() || !self.owes() {
                break;
            }
        }
    }

    /// Makes up for a ring that the kernel had no memory for. Fails if the other side cannot be rung for at all.
    fn ring_if_owed(&mut self) -> Result<()> {
        if self.side.as_mut().is_some_and(Side::take_owed) {
            self.ring();
        }
        self.check_fault()
    }

    fn owes(&self) -> bool {
        self.side.as_ref().is_some_and(Side::owes)
    }

    /// Returns whether the other side has said that it is done, or the socket that it is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.is_over || self.side.as_ref().is_some_and(Side::is_other_closed)
    }

    /// Waits until bytes can be moved, and returns how many. 0: the other side is gone for good.
    #[cold]
    #[inline(never)]
    pub(super) fn wait(&mut self, patience: Patience) -> Result<usize> {
        let spin = std::mem::take(&mut self.spin);
        let result = self.wait_spinning(patience, &spin);
        self.spin = spin;
        result
    }

    fn wait_spinning(&mut self, patience: Patience, spin: &Spin) -> Result<usize> {
        let mut look = patience.look(spin);
        let mut rings = 0;
        loop {
            // In this order, so that moves before the close are seen.
            let is_closed = self.is_closed();
            let left = self.look()?;
            if left > 0 || is_closed {
                look.iter().for_each(|look| look.found());
                return Ok(left);
            }
            if let Some(again) = &mut look {
                if self.looks_in_vain() && !self.socket.looks_again(patience, again) {
                    look = None;
                }
                continue;
            }
            if !matches!(patience, Patience::None) {
                if !self.gives_core_away(patience) {
                    self.sleep(patience)?;
                }
                continue;
            }
            self.ring_if_owed()?;
            match self.hear(false)? {
                Heard::Bell if rings < RINGS => rings += 1,
                Heard::End => {}
                _ => return Err(Error::WouldBlock),
            }
        }
    }

    /// Looks [`LOOKS`] times more. It reads a few words, from the processor's cache until the other side writes to them.
    fn looks_in_vain(&mut self) -> bool {
        (0..LOOKS).all(|number| {
            if number >= LOOKS_AT_ONCE {
                std::hint::spin_loop();
            }
            self.side.as_mut().is_some_and(|side| side.look() == Ok(0) && !side.is_other_closed())
        })
    }

    /// Lets the other side run, if it shares this core. Returns whether there is something to do then, or a fault to return.
    fn gives_core_away(&mut self, patience: Patience) -> bool {
        let core = self.socket.core();
        let Self { side: Some(side), turn, .. } = self else { return false };
        let is_in_time = match patience {
            Patience::Until(deadline) => deadline.saturating_duration_since(Instant::now()) > LONGEST_TURN,
            _ => true,
        };
        is_in_time && turn.give(side.is_at(core), || side.look() != Ok(0) || side.is_other_closed())
    }

    /// Sleeps until the other side rings, or is gone.
    fn sleep(&mut self, patience: Patience) -> Result<()> {
        self.ring_if_owed()?;
        if self.arm()? {
            return Ok(());
        }
        let slept = self.sleep_armed(patience);
        self.disarm();
        slept
    }

    /// Says that this side is about to sleep. Returns whether there is something to do after all.
    pub(super) fn arm(&mut self) -> Result<bool> {
        let Some(side) = &mut self.side else { return Ok(false) };
        side.arm();
        let is_closed = side.is_other_closed();
        if is_closed || self.look()? > 0 {
            self.disarm();
            return Ok(true);
        }
        Ok(false)
    }

    fn disarm(&mut self) {
        self.side.iter_mut().for_each(Side::disarm);
    }

    fn sleep_armed(&mut self, patience: Patience) -> Result<()> {
        if self.sleeps_briefly() {
            self.nap(patience)?;
        } else if matches!(patience, Patience::Blocking) {
            return match self.hear(true)? {
                Heard::Silence => Err(Error::WouldBlock), // an end that never waits
                _ => Ok(()),
            };
        } else {
            self.socket.sleep(patience)?;
        }
        self.hear(false).map(drop)
    }

    /// Returns whether the other side may not ring, or this one still has to: the other may sleep as well.
    fn sleeps_briefly(&self) -> bool {
        self.side.as_ref().is_some_and(|side| side.is_unsure() || side.owes())
    }

    /// Sleeps for a moment, or until the deadline if that is sooner.
    fn nap(&self, patience: Patience) -> Result<()> {
        let end = Instant::now() + NAP;
        match patience {
            Patience::Until(deadline) if deadline < end => self.socket.sleep(patience),
            _ => match self.socket.sleep(Patience::Until(end)) {
                Err(Error::TimedOut) => Ok(()),
                slept => slept,
            },
        }
    }

    /// Takes rings, and notes if the peer is gone.
    pub(super) fn hear(&mut self, wait: bool) -> Result<Heard> {
        let heard = self.socket.hear(wait)?;
        self.is_over |= heard == Heard::End;
        Ok(heard)
    }

    /// For `wait_any`: arms, and returns whether the side is ready at once. It takes old rings first, or a level-triggered
    /// poll would not sleep.
    pub(super) fn watch(&mut self) -> bool {
        if self.check_process().is_err() || self.fault.is_some() || self.is_over {
            return true;
        }
        for _ in 0..RINGS {
            match self.hear(false) {
                Ok(Heard::Bell) => {}
                Ok(Heard::Silence) => break,
                Ok(Heard::End) | Err(_) => return true,
            }
        }
        let is_ready = self.ring_if_owed().and_then(|()| self.arm()).unwrap_or(true);
        if is_ready || !self.sleeps_briefly() {
            return is_ready;
        }
        // The other side may not have seen yet that it has to make the barriers. A moment later it has, and rings.
        self.socket.pause(NAP);
        // The next call makes up for a ring that is still owed, or both may sleep.
        self.owes() || self.is_closed() || self.look().map_or(true, |left| left > 0)
    }

    /// Tells the other side that this one is done, and unmaps the memory. In another process, no side is told.
    pub(super) fn finish(&mut self) {
        let Some(mut side) = self.side.take() else { return };
        if self.epoch.lasts() && side.close() && !matches!(self.socket.ring(), Ok(Rung::Heard | Rung::Nobody)) {
            // No later call makes up for it.
            self.socket.hang_up();
        }
    }
}

impl<const WRITER: bool> Half<WRITER> {
    /// Returns whether the other side has left. Asks the socket too.
    pub(super) fn is_other_gone(&self) -> Result<bool> {
        if self.is_closed() {
            return Ok(true);
        }
        let fd = self.socket.as_fd();
        let events = sys::poll::look(fd, POLLRDHUP).map_err(|errno| self.socket.end().error("poll", errno))?;
        if events & POLLNVAL != 0 {
            return Err(self.socket.end().error("poll", Errno::BADF));
        }
        Ok(events & (POLLRDHUP | POLLHUP | POLLERR) != 0)
    }

    /// Finishes, and closes the socket. It is not used any more.
    pub(super) fn close(&mut self) -> Result<()> {
        self.finish();
        self.is_over = true;
        let given = self.check_process();
        self.socket.take().close()?;
        given
    }
}

impl<const WRITER: bool, L: Line, W: Words> Drop for Half<WRITER, L, W> {
    fn drop(&mut self) {
        // Taken out before: then it is finished.
        if self.side.is_some() {
            self.finish();
        }
    }
}
