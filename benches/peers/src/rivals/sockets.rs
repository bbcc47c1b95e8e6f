//! The standard library's socket pairs.

use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::channel::{Receiver, Records, Sender};

use super::Made;

impl Sender for UnixDatagram {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        UnixDatagram::send(self, message).map(drop)
    }
}

impl Receiver for UnixDatagram {
    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let len = self.recv(buf)?;
        each(&buf[..len]);
        Ok(1)
    }
}

pub fn datagrams() -> Made<UnixDatagram, UnixDatagram> {
    UnixDatagram::pair()
}

pub fn streams() -> Made<UnixStream, UnixStream> {
    UnixStream::pair()
}

/// A stream that passes records both ways.
pub fn records() -> Made<Records<UnixStream>, Records<UnixStream>> {
    let (one, other) = UnixStream::pair()?;
    Ok((Records(one), Records(other)))
}
