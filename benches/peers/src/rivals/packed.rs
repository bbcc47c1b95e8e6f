//! `ipc`, where many messages or writes share one call.

use std::io::{self, BufReader};

use ipc::{BufferedWriter, MessageReader, MessageWriter, PackedSocket, PipeReader};

use crate::channel::{Receiver, Sender};

use super::{Made, ended, ours};

pub fn buffered() -> Made<BufReader<PipeReader>, BufferedWriter> {
    let (reader, writer) = ours::pipe()?;
    Ok((BufReader::new(reader), BufferedWriter::new(writer)))
}

pub fn packed() -> Made<PackedSocket, PackedSocket> {
    let (parent, child) = ours::datagrams()?;
    Ok((PackedSocket::new(parent), PackedSocket::new(child)))
}

pub fn messages() -> Made<MessageWriter, MessageReader> {
    let (reader, writer) = ours::pipe()?;
    Ok((MessageWriter::new(writer), MessageReader::new(reader)))
}

/// The message is shown where it has arrived: in memory of this process, as with a vector of its own.
macro_rules! receiver {
    ($receiver:ty) => {
        impl Receiver for $receiver {
            fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
                each(self.recv()?.ok_or_else(ended)?);
                Ok(1)
            }
        }
    };
}

macro_rules! sender {
    ($sender:ty) => {
        impl Sender for $sender {
            fn send(&mut self, message: &[u8]) -> io::Result<()> {
                Ok(<$sender>::send(self, message)?)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(<$sender>::flush(self)?)
            }
        }
    };
}

sender!(PackedSocket);
receiver!(PackedSocket);
sender!(MessageWriter);
receiver!(MessageReader);
