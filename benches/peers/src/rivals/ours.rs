//! `ipc`, as it comes and with its settings.

use std::io;
use std::time::Duration;

use ::ipc::{DatagramPair, DatagramSocket, PipeReader, PipeWriter, StreamPair, StreamSocket};

use crate::channel::{Receiver, Records, Sender};

use super::{Made, ended};

pub const NOTE: &str = "`pipe`, `datagram_pair` and `stream_pair` as they come. \"spin 50 µs\" is `set_spin` of 50 µs on every \
                        end, which is off by default. \"buffered\" is `BufReader` and `BufferedWriter` over a pipe, and \
                        \"packed\" is `PackedSocket` over both ends of a pair. \"messages\" is `MessageReader` and \
                        `MessageWriter` over a pipe. \"ring\" is `RingWriter` and `RingReader` with their 256 KiB, read 16 KiB \
                        at a time, as recommended. \"no spin\" is `set_spin` of zero. As messages, it carries records of one \
                        length (\"records\"), or `MessageWriter` and `MessageReader` are put on it (\"messages\").";

const SPIN: Duration = Duration::from_micros(50);

pub fn pipe() -> Made<PipeReader, PipeWriter> {
    Ok(::ipc::pipe()?)
}

pub fn spinning_pipe() -> Made<PipeReader, PipeWriter> {
    let (mut reader, mut writer) = ::ipc::pipe()?;
    reader.set_spin(SPIN);
    writer.set_spin(SPIN);
    Ok((reader, writer))
}

pub fn streams() -> Made<StreamSocket, StreamSocket> {
    let StreamPair { parent, child } = ::ipc::stream_pair()?;
    Ok((parent, child))
}

/// A stream that passes records both ways.
pub fn records() -> Made<Records<StreamSocket>, Records<StreamSocket>> {
    let (parent, child) = streams()?;
    Ok((Records(parent), Records(child)))
}

pub fn datagrams() -> Made<DatagramSocket, DatagramSocket> {
    let DatagramPair { parent, child } = ::ipc::datagram_pair()?;
    Ok((parent, child))
}

pub fn spinning_datagrams() -> Made<DatagramSocket, DatagramSocket> {
    let (mut parent, mut child) = datagrams()?;
    parent.set_spin(SPIN);
    child.set_spin(SPIN);
    Ok((parent, child))
}

impl Sender for DatagramSocket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        Ok(DatagramSocket::send(self, message)?)
    }
}

impl Receiver for DatagramSocket {
    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let len = self.recv(buf)?.ok_or_else(ended)?;
        each(&buf[..len]);
        Ok(1)
    }
}
