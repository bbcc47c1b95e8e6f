//! Connecting within a time, and never to itself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::error::{Error, Result};

/// Connects to an address: the first of `share` that share the time that is left.
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

/// Whether the kernel connected a socket with itself. It does so if no process listens at a local port of its ephemeral
/// range, and it happens to give that port to this socket.
pub(super) fn leads_to_itself(socket: &TcpStream) -> bool {
    matches!((socket.local_addr(), socket.peer_addr()), (Ok(here), Ok(there)) if here == there)
}
