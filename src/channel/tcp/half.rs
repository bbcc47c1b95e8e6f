//! The two halves of a connection: each waits for its peer in turns. Between them it asks the kernel whether there is one.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::around::{Around, Shared};
use crate::error::{Error, Result};
use crate::framed::{ByteReader, ByteWriter, Outlet, Source};
use crate::sys::epoch::Epoch;
use crate::sys::poll::{POLLIN, POLLOUT, look};
use crate::sys::{self, Errno};
use crate::wait::{Patience, Spin, TimedRead, TimedWrite, Until, Watch};

/// How many bytes are buffered before they go: a message of 64 KiB goes in one write, with its head.
const BATCH: usize = 68 << 10;

/// A stream that cannot be written may be waiting to read instead (a handshake), and does not say so. So it is tried again
/// after this time.
const LOOK: Duration = Duration::from_millis(10);

/// The state that both halves share.
struct Connection {
    socket: TcpStream,
    around: Option<Shared>,
    deadline: Duration,
    /// How long a call waits before it looks whether the peer is there.
    turn: Duration,
    /// Of the half that receives.
    spin: Spin,
    epoch: Epoch,
    /// Whether the peer is gone without a word.
    is_lost: AtomicBool,
}

impl Connection {
    fn vanished() -> Error {
        Error::system("recv", Errno::TIMEDOUT)
    }

    fn read(&self, buf: &mut [u8], patience: Patience) -> Result<usize> {
        if self.around.is_none() {
            let read = |wait| one_turn(sys::socket::read(self.socket.as_fd(), buf, wait));
            return patience.persist(&self.socket, &self.spin, "recv", POLLIN, None, read);
        }
        self.persist_around(patience, POLLIN, |around| around.read(buf))
    }

    fn write(&self, bytes: &[u8], patience: Patience) -> Result<usize> {
        if self.around.is_none() {
            let write = |wait| one_turn(sys::socket::write(self.socket.as_fd(), bytes, wait));
            return patience.persist(&self.socket, &Spin::default(), "send", POLLOUT, None, write);
        }
        let written = self.persist_around(patience, POLLOUT, |around| around.attempt(|stream| stream.write(bytes)))?;
        if written == 0 {
            return Err(Error::System { call: "write", source: ErrorKind::WriteZero.into() });
        }
        match self.flush(patience) {
            // It has the bytes, and the next call sends what it holds of them.
            Err(Error::WouldBlock | Error::TimedOut) => Ok(written),
            flushed => flushed.map(|()| written),
        }
    }

    /// Sends what the stream around it holds.
    fn flush(&self, patience: Patience) -> Result<()> {
        match &self.around {
            None => Ok(()),
            Some(_) => self.persist_around(patience, POLLOUT, |around| around.attempt(|stream| stream.flush())),
        }
    }

    /// Sends what the stream around it holds, and lets it tell the peer that nothing follows.
    fn say_last_word(&self, patience: Patience) -> Result<()> {
        if self.around.is_none() {
            return Ok(());
        }
        let flushed = self.flush(patience);
        flushed.and(self.persist_around(patience, POLLOUT, |around| around.attempt(|stream| stream.finish())))
    }

    /// Attempts something until it works, fails, or the patience is over. The stream is locked for an attempt alone, and not
    /// while this waits.
    fn persist_around<T>(
        &self,
        patience: Patience,
        events: i16,
        mut attempt: impl FnMut(&Shared) -> io::Result<T>,
    ) -> Result<T> {
        let Some(around) = &self.around else {
            return Err(Error::InvalidInput { what: "nothing is around this connection" });
        };
        loop {
            match attempt(around) {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(around, patience, events)?,
                Err(error) => {
                    return Err(match error.kind() {
                        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Error::Reset,
                        ErrorKind::BrokenPipe => Error::Closed,
                        _ => Error::from(error),
                    });
                }
            }
        }
    }

    fn wait(&self, around: &Shared, patience: Patience, events: i16) -> Result<()> {
        match patience {
            Patience::Until(deadline)
                if events == POLLOUT && look(self.socket.as_fd(), POLLOUT).is_ok_and(|is| is & POLLOUT != 0) =>
            {
                if deadline <= Instant::now() {
                    return Err(Error::TimedOut);
                }
                Patience::Until(deadline.min(Instant::now() + LOOK)).sleep(&self.socket, POLLIN)
            }
            patience if events == POLLIN => patience.sleep(around, POLLIN),
            patience => patience.sleep(&self.socket, events),
        }
    }
}

/// A signal ends a turn. A call that is made again has all of its time again: under a clock that ticks, it would never end, and
/// nobody would look whether the peer is there.
#[inline]
fn one_turn<T>(called: sys::Result<T>) -> sys::Result<T> {
    called.map_err(|errno| if errno == Errno::INTR { Errno::AGAIN } else { errno })
}

/// One half of a connection. Dropping the one that sends tells the peer that nothing follows.
pub struct Half {
    connection: Arc<Connection>,
    is_outgoing: bool,
    /// Whether the stream around may hold bytes that arrived, which the descriptor does not tell.
    may_hold: bool,
    /// When to look at the peer again, and whether it was silent for too long at the last look.
    next_look: Option<Instant>,
    was_silent: bool,
}

/// Makes the two halves: one receives, and the other sends.
pub(super) fn halves(
    socket: TcpStream,
    around: Option<Box<dyn Around>>,
    deadline: Duration,
    spin: Duration,
) -> Result<(Half, Half)> {
    let turn = deadline / 4;
    let refused = |call| move |errno| Error::system(call, errno);
    sys::tcp::prepare(socket.as_fd(), deadline, turn).map_err(refused("setsockopt"))?;
    let epoch = Epoch::now().map_err(refused("mmap"))?;
    let around = around.map(|stream| Shared::new(stream, &socket)).transpose()?;
    let is_lost = AtomicBool::new(false);
    let connection = Arc::new(Connection { socket, around, deadline, turn, spin: Spin::of(spin), epoch, is_lost });
    let half = |is_outgoing| Half {
        connection: Arc::clone(&connection),
        is_outgoing,
        may_hold: false,
        next_look: None,
        was_silent: false,
    };
    Ok((half(false), half(true)))
}

impl Half {
    /// Attempts something in turns. A call that may wait for ever ends when the peer is gone.
    #[inline]
    fn in_turns<T>(
        &mut self,
        patience: Patience,
        mut attempt: impl FnMut(&Connection, Patience) -> Result<T>,
    ) -> Result<T> {
        if !self.connection.epoch.lasts() {
            return Err(Error::NotGiven);
        }
        if self.connection.is_lost.load(Relaxed) {
            return Err(Connection::vanished());
        }
        loop {
            match attempt(&self.connection, self.turn(patience)) {
                Err(Error::WouldBlock | Error::TimedOut) => self.after_turn(patience)?,
                Err(Error::System { source, .. }) if is_lost(&source) => {
                    self.connection.is_lost.store(true, Relaxed);
                    return Err(Connection::vanished());
                }
                done => return done,
            }
        }
    }

    /// How long the next attempt may wait.
    #[inline]
    fn turn(&self, patience: Patience) -> Patience {
        match patience {
            Patience::None => Patience::None,
            // The socket has a timeout.
            Patience::Blocking if self.connection.around.is_none() => Patience::Blocking,
            Patience::Until(deadline) => Patience::Until(deadline.min(Instant::now() + self.connection.turn)),
            Patience::Blocking | Patience::Endless => Patience::Until(Instant::now() + self.connection.turn),
        }
    }

    /// After a turn in which nothing happened: fails if the peer is gone, or the time is up.
    #[cold]
    fn after_turn(&mut self, patience: Patience) -> Result<()> {
        let now = Instant::now();
        self.look_when_due(now)?;
        match patience {
            Patience::None => Err(Error::WouldBlock),
            Patience::Until(deadline) if deadline <= now => Err(Error::TimedOut),
            _ => Ok(()),
        }
    }

    /// Fails if the peer is gone. It is looked at once in a turn.
    #[inline]
    fn look_when_due(&mut self, now: Instant) -> Result<()> {
        if self.next_look.is_none_or(|next| next <= now) { self.look(now) } else { Ok(()) }
    }

    #[cold]
    fn look(&mut self, now: Instant) -> Result<()> {
        self.next_look = Some(now + self.connection.turn);
        let silence = sys::tcp::silence(self.connection.socket.as_fd());
        let is_silent = silence.is_ok_and(|silence| silence.is_asked && silence.lasts >= self.connection.deadline);
        // Twice, since it may have been asked a moment ago, after a time without a question.
        if is_silent && self.was_silent {
            self.connection.is_lost.store(true, Relaxed);
            return Err(Connection::vanished());
        }
        self.was_silent = is_silent;
        Ok(())
    }

    /// Reads what had arrived before the peer was gone. The other half may have noticed that first.
    #[cold]
    fn read_rest(&self, buf: &mut [u8]) -> Option<usize> {
        let is_ours = self.connection.epoch.lasts();
        is_ours.then(|| self.connection.read(buf, Patience::None).ok()).flatten().filter(|count| *count > 0)
    }

    /// Sends what a stream around the connection holds.
    pub(super) fn flush_until(&mut self, until: Until) -> Result<()> {
        self.in_turns(until.0, Connection::flush)
    }

    /// Tells the peer that nothing follows.
    fn finish(&mut self) -> Result<()> {
        self.is_outgoing = false;
        if !self.connection.epoch.lasts() {
            return Ok(()); // a fork copied it, and it is the other process's to tell
        }
        let said = match self.connection.is_lost.load(Relaxed) {
            false => self.connection.say_last_word(Patience::linger()),
            true => Ok(()),
        };
        // EOF goes also where the last word does not. Otherwise each side may wait for the other one's.
        let shut = match self.connection.socket.shutdown(Shutdown::Write) {
            // It was reset, and that was or will be told by a call that receives.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            shut => shut.map_err(|source| Error::System { call: "shutdown", source }),
        };
        said.and(shut)
    }

    /// Says no last word: there is no time for it.
    pub(super) fn give_up(&mut self) {
        self.is_outgoing = false;
    }
}

/// How many reads throw away what the peer had sent: more than the kernel keeps, and an end to a peer that goes on sending.
const READS: usize = 2048;

/// Throws away what was not read. The kernel resets a connection that is closed with something unread, and then loses what this side
/// has sent and the peer's kernel had no room for.
impl Drop for Connection {
    fn drop(&mut self) {
        let mut bytes = [0; 16 << 10];
        if !self.epoch.lasts() {
            return; // a fork copied it, and it is the other process's to read
        }
        for _ in 0..READS {
            match sys::socket::read(self.socket.as_fd(), &mut bytes, false) {
                Ok(1..) | Err(Errno::INTR) => {}
                _ => break,
            }
        }
    }
}

/// Whether the kernel gave the connection up. It says why, if a router or its own tables did.
fn is_lost(error: &io::Error) -> bool {
    let gone = [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::HOSTDOWN, Errno::NETDOWN];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

impl TimedRead for Half {
    #[inline]
    fn read_until(&mut self, buf: &mut [u8], until: Until) -> Result<usize> {
        let read = match self.in_turns(until.0, |connection, patience| connection.read(buf, patience)) {
            Err(error) if self.connection.is_lost.load(Relaxed) => self.read_rest(buf).ok_or(error),
            read => read,
        };
        self.may_hold = self.connection.around.is_some() && matches!(read, Ok(1..));
        read
    }
}

impl TimedWrite for Half {
    fn write_until(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
        // A write is a success as long as there is room here, also where nobody has been there for long.
        self.look_when_due(Instant::now())?;
        self.in_turns(until.0, |connection, patience| connection.write(bytes, patience))
    }
}

impl Source for Half {
    fn watch(&mut self) -> Result<Watch<'_>> {
        Ok(Watch::readable(&*self).buffered(self.may_hold || self.connection.is_lost.load(Relaxed)))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Outlet for Half {
    fn batch_size(&self) -> usize {
        BATCH
    }

    #[inline]
    fn put(&mut self, bytes: &[u8], until: Until) -> Result<usize> {
        match self.write_until(bytes, until) {
            Err(Error::Reset) => Err(Error::Closed),
            written => written,
        }
    }

    fn close(mut self) -> Result<()> {
        let holds = self.connection.around.is_some() && self.connection.epoch.lasts();
        let flushed = if holds { self.flush_until(Until(Patience::Blocking)) } else { Ok(()) };
        flushed.and(self.finish())
    }
}

impl ByteReader for Half {}
impl ByteWriter for Half {}

/// Readable when receiving is worth a try.
impl AsFd for Half {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.around.as_ref().map_or(self.connection.socket.as_fd(), AsFd::as_fd)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if self.is_outgoing {
            let _ = self.finish(); // to see the error, close
        }
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.connection.socket, f)
    }
}
