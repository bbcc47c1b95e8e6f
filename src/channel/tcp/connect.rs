//! Connections that are made in time, and lead to somebody else.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::error::{Error, Result};

/// Connects to the first of so many addresses, which share the time.
pub(super) fn connect(address: &SocketAddr, until: Instant, share: usize) -> Result<TcpStream> {
    let left = until.saturating_duration_since(Instant::now()) / u32::try_from(share).unwrap_or(u32::MAX);
    if left.is_zero() {
        return Err(Error::TimedOut);
    }
    TcpStream::connect_timeout(address, left).map_err(|source| match source.raw_os_error() {
        None if source.kind() == io::ErrorKind::TimedOut => Error::TimedOut,
        _ => Error::System { call: "connect", source },
    })
}

/// Whether the kernel connected a socket with itself. It does so when a port of this machine at which nobody listens is one that it
/// gives to sockets that connect, and happens to give it to this one.
pub(super) fn leads_to_itself(socket: &TcpStream) -> bool {
    matches!((socket.local_addr(), socket.peer_addr()), (Ok(here), Ok(there)) if here == there)
}
