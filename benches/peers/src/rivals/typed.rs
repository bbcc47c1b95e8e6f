//! `ipc`'s typed channels, and the same written by hand over its datagrams.

use std::io;

use ipc::{DatagramSocket, PackedSocket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::channel::{Receiver, Sender};
use crate::work::values;

use super::{Made, ended, other, ours};

pub const NOTE: &str = "\"typed\" is `channel::<ByteBuf>` (of serde_bytes), with a value that is made anew for each `send`. \"by \
                        hand\" is postcard over a `datagram_pair`, with a buffer that is used again.";

type Out<L = DatagramSocket> = ipc::Sender<ByteBuf, L>;
type In<L = DatagramSocket> = ipc::Receiver<ByteBuf, L>;

pub fn typed() -> Made<Out, In> {
    Ok(ipc::channel()?)
}

pub fn packed() -> Made<Out<PackedSocket>, In<PackedSocket>> {
    let (parent, child) = super::packed::packed()?;
    Ok((ipc::Sender::new(parent), ipc::Receiver::new(child)))
}

pub fn values<T>() -> Made<ipc::Sender<T>, ipc::Receiver<T>> {
    Ok(ipc::channel()?)
}

pub fn packed_values<T>() -> Made<ipc::Sender<T, PackedSocket>, ipc::Receiver<T, PackedSocket>> {
    let (parent, child) = super::packed::packed()?;
    Ok((ipc::Sender::new(parent), ipc::Receiver::new(child)))
}

/// Longer than every value, so that the socket says which are too long for it.
const LONGEST: usize = 2 << 20;

pub fn by_hand() -> Made<ByHand, ByHand> {
    let (parent, child) = ours::datagrams()?;
    Ok((ByHand(parent, vec![0; LONGEST]), ByHand(child, vec![0; LONGEST])))
}

macro_rules! typed {
    ($($link:ty),*) => {$(
        impl Sender for Out<$link> {
            fn send(&mut self, message: &[u8]) -> io::Result<()> {
                Ok(Out::<$link>::send(self, ByteBuf::from(message))?)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(Out::<$link>::flush(self)?)
            }
        }

        impl Receiver for In<$link> {
            fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
                each(&self.recv()?.ok_or_else(ended)?);
                Ok(1)
            }
        }
    )*};
}
typed!(DatagramSocket, PackedSocket);

/// A datagram's socket, and a buffer for what is encoded.
pub struct ByHand(DatagramSocket, Vec<u8>);

impl Sender for ByHand {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let encoded = postcard::to_slice(&ByteBuf::from(message), &mut self.1).map_err(other)?;
        Ok(self.0.send(encoded)?)
    }
}

impl Receiver for ByHand {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let len = self.0.recv(&mut self.1)?.ok_or_else(ended)?;
        each(&postcard::from_bytes::<ByteBuf>(&self.1[..len]).map_err(other)?);
        Ok(1)
    }
}

impl<T: Serialize, L: ipc::Link> values::Sender<T> for ipc::Sender<T, L> {
    fn send(&mut self, value: T) -> io::Result<()> {
        Ok(ipc::Sender::send(self, value)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(ipc::Sender::flush(self)?)
    }
}

impl<T: DeserializeOwned, L: ipc::Link> values::Receiver<T> for ipc::Receiver<T, L> {
    fn receive(&mut self) -> io::Result<T> {
        self.recv()?.ok_or_else(ended)
    }
}

impl<T: Serialize> values::Sender<T> for ByHand {
    fn send(&mut self, value: T) -> io::Result<()> {
        let encoded = postcard::to_slice(&value, &mut self.1).map_err(other)?;
        Ok(self.0.send(encoded)?)
    }
}

impl<T: DeserializeOwned> values::Receiver<T> for ByHand {
    fn receive(&mut self) -> io::Result<T> {
        let len = self.0.recv(&mut self.1)?.ok_or_else(ended)?;
        postcard::from_bytes(&self.1[..len]).map_err(other)
    }
}
