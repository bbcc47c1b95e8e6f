//! A socket of libzmq, as the links use it.

use std::time::{Duration, Instant};

use ipc::{Error, Result};
use zmq::Socket;

use super::{HI, failed};

/// A socket of libzmq, and how it is waited for. It is used by one thread at a time.
pub(super) struct Engine {
    pub(super) socket: Socket,
    pub(super) max: usize,
    /// The socket's timeouts as they are set, in milliseconds.
    send_timeout: i32,
    receive_timeout: i32,
}

/// A message that arrived.
pub(super) enum Arrived {
    Value(zmq::Message),
    Word(zmq::Message),
}

impl Engine {
    pub(super) fn new(socket: Socket, max: usize) -> Self {
        Self { socket, max, send_timeout: -1, receive_timeout: -1 }
    }

    pub(super) fn check(&self, message: &[u8]) -> Result<()> {
        match message.len() > self.max {
            true => Err(Error::TooLong { len: message.len(), max: self.max }),
            false => Ok(()),
        }
    }

    /// Sends a message of that many parts. `Ok(false)`: there is no room within the time.
    pub(super) fn send(&mut self, parts: &[&[u8]], within: Option<Duration>) -> Result<bool> {
        let deadline = within.and_then(|time| Instant::now().checked_add(time));
        let mut rest = parts;
        while let Some(part) = rest.first() {
            let (millis, flag) = millis_left(deadline, within);
            if millis != self.send_timeout {
                self.socket.set_sndtimeo(millis).map_err(failed("zmq_setsockopt"))?;
                self.send_timeout = millis;
            }
            // A signal may come between two parts. Those that libzmq has taken are not sent again.
            let more = if rest.len() > 1 { zmq::SNDMORE } else { 0 };
            match self.socket.send(*part, flag | more) {
                Ok(()) => rest = &rest[1..],
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(failed("zmq_send")(error)),
            }
        }
        Ok(true)
    }

    /// Returns whether the worker of that name is not connected to this router.
    pub(super) fn is_gone(&mut self, name: &[u8]) -> bool {
        matches!(self.send(&[name, b"", HI], Some(Duration::ZERO)), Err(Error::Closed))
    }

    /// Receives a message, of a router's after the name of its sender. `None`: none came within the time.
    pub(super) fn receive(&mut self, within: Option<Duration>) -> Result<Option<zmq::Message>> {
        let deadline = within.and_then(|time| Instant::now().checked_add(time));
        loop {
            let (millis, flag) = millis_left(deadline, within);
            if millis != self.receive_timeout {
                self.socket.set_rcvtimeo(millis).map_err(failed("zmq_setsockopt"))?;
                self.receive_timeout = millis;
            }
            match self.socket.recv_msg(flag) {
                Ok(message) => return Ok(Some(message)),
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(error) => return Err(failed("zmq_recv")(error)),
            }
        }
    }

    /// Receives the rest of a message that begins with this part. `None`: this crate sends no such message.
    pub(super) fn complete(&mut self, first: zmq::Message) -> Result<Option<Arrived>> {
        if !first.get_more() {
            return Ok(Some(Arrived::Value(first)));
        }
        let second = self.rest()?;
        let mut more = second.get_more();
        let is_word = first.is_empty() && !more;
        while more {
            more = self.rest()?.get_more();
        }
        Ok(is_word.then_some(Arrived::Word(second)))
    }

    /// The next part of a message that has begun. All of them arrive at once, but a signal may come between two.
    fn rest(&self) -> Result<zmq::Message> {
        loop {
            match self.socket.recv_msg(0) {
                Err(zmq::Error::EINTR) => {}
                part => return part.map_err(failed("zmq_recv")),
            }
        }
    }
}

/// The timeout and the flag of a call that may take that long.
fn millis_left(deadline: Option<Instant>, within: Option<Duration>) -> (i32, i32) {
    match (within, deadline) {
        (Some(Duration::ZERO), _) => (-1, zmq::DONTWAIT),
        (_, Some(deadline)) => match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => (-1, zmq::DONTWAIT),
            // Rounded up, so that no deadline is early.
            left => (i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX), 0),
        },
        _ => (-1, 0),
    }
}
