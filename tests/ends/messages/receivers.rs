//! All ways to receive from a pair, as vectors.

use std::time::Duration;

use ipc::DatagramSocket;

/// Longer than any of them takes.
pub const LONG: Duration = Duration::from_secs(10);

pub type Receiver = fn(&DatagramSocket) -> ipc::Result<Option<Vec<u8>>>;

pub const RECEIVERS: [(&str, Receiver); 6] = [
    ("recv", |socket| with_buffer(|buf| socket.recv(buf))),
    ("try_recv", |socket| with_buffer(|buf| socket.try_recv(buf))),
    ("recv_timeout", |socket| with_buffer(|buf| socket.recv_timeout(buf, LONG))),
    ("recv_vec", |socket| socket.recv_vec()),
    ("try_recv_vec", |socket| socket.try_recv_vec()),
    ("recv_vec_timeout", |socket| socket.recv_vec_timeout(LONG)),
];

pub fn with_buffer(recv: impl FnOnce(&mut [u8]) -> ipc::Result<Option<usize>>) -> ipc::Result<Option<Vec<u8>>> {
    let mut buf = [0; 64];
    Ok(recv(&mut buf)?.map(|len| buf[..len].to_vec()))
}
