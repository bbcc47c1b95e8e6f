//! A stream around a connection, such as TLS, which both halves use.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};
use crate::sys::descriptor::off_standard;

/// The stream. Its calls do not wait.
pub(super) trait Around: Read + Write + Send {
    /// Tells the peer that nothing follows.
    fn finish(&mut self) -> io::Result<()>;
}

/// A stream that was handed in, and how it ends.
pub(super) struct Given<S, F> {
    pub(super) stream: S,
    pub(super) finish: F,
}

impl<S: Read, F> Read for Given<S, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl<S: Write, F> Write for Given<S, F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read + Write + Send, F: FnMut(&mut S) -> io::Result<()> + Send> Around for Given<S, F> {
    fn finish(&mut self) -> io::Result<()> {
        (self.finish)(&mut self.stream)
    }
}

/// The stream, for one attempt of either half at a time.
///
/// A stream may read while it is written to, as TLS does where there is no room. The connection does not show those bytes
/// any more, and the half that receives would sleep. So while that half waits, the one that sends looks for them, and rings.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Readable when there is something to ring for.
    bell: OwnedFd,
    /// Readable when the connection or the bell is.
    ready: OwnedFd,
}

struct State {
    stream: Box<dyn Around>,
    /// Whether the half that receives found nothing at its last attempt.
    is_awaited: bool,
    is_rung: bool,
    /// The outcome of a read that the half that sends has made for the other, and the bytes that came.
    found: Option<io::Result<usize>>,
    bytes: Vec<u8>,
    /// Where those of the bytes begin that were not received.
    start: usize,
}

/// How many bytes the half that sends reads for the other one.
const FOUND: usize = 4 << 10;

impl Shared {
    pub(super) fn new(stream: Box<dyn Around>, socket: &TcpStream) -> Result<Self> {
        let refused = |call| move |errno| Error::system(call, errno);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).and_then(off_standard);
        let bell = bell.map_err(refused("eventfd"))?;
        let ready = epoll::create(CreateFlags::CLOEXEC).and_then(off_standard).map_err(refused("epoll_create1"))?;
        for on in [socket.as_fd(), bell.as_fd()] {
            epoll::add(&ready, on, EventData::new_u64(0), EventFlags::IN | EventFlags::RDHUP)
                .map_err(refused("epoll_ctl"))?;
        }
        let (bytes, start) = (Vec::new(), 0);
        let state = Mutex::new(State { stream, is_awaited: false, is_rung: false, found: None, bytes, start });
        Ok(Self { state, bell, ready })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt of the half that receives. After one that would block, this is readable when another is worth it.
    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if std::mem::take(&mut state.is_rung) {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]); // it was rung, so it does not fail
        }
        let read = state.read(buf);
        state.is_awaited = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        read
    }

    /// An attempt of the half that sends.
    pub(super) fn attempt<T>(&self, attempt: impl FnOnce(&mut dyn Around) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        let attempted = attempt(&mut *state.stream);
        if state.is_awaited && state.find() {
            (state.is_awaited, state.is_rung) = (false, true);
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes()); // it was not rung, so it does not fail
        }
        attempted
    }
}

impl State {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.found.take() {
            Some(Ok(here)) => {
                let count = here.min(buf.len());
                buf[..count].copy_from_slice(&self.bytes[self.start..self.start + count]);
                self.start += count;
                self.found = (count < here).then_some(Ok(here - count));
                Ok(count)
            }
            Some(Err(error)) => Err(error),
            None => self.stream.read(buf),
        }
    }

    /// Reads for the half that receives. Returns whether there is something to tell it.
    fn find(&mut self) -> bool {
        self.bytes.resize(FOUND, 0);
        let found = loop {
            match self.stream.read(&mut self.bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                found => break found,
            }
        };
        if matches!(&found, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            return false;
        }
        (self.found, self.start) = (Some(found), 0);
        true
    }
}

/// Readable when the half that receives has something to do.
impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
