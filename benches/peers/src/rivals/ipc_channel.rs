//! `ipc-channel`: channels of bytes, and of whatever serde can write.

use std::io;

use ::ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{Receiver, Sender};
use crate::work::values;

use super::{Made, other};

pub const NOTE: &str = "`bytes_channel`, and `channel::<Vec<u8>>` as \"typed\"; `send` of the latter takes the message by value, \
                        so it is made anew each time. `recv` returns a vector of its own, so nothing is copied out of it.";

impl Sender for IpcBytesSender {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        IpcBytesSender::send(self, message)
    }
}

impl Receiver for IpcBytesReceiver {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        each(&self.recv().map_err(other)?);
        Ok(1)
    }
}

impl Sender for IpcSender<Vec<u8>> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        IpcSender::send(self, message.to_vec()).map_err(other)
    }
}

impl Receiver for IpcReceiver<Vec<u8>> {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        each(&self.recv().map_err(other)?);
        Ok(1)
    }
}

pub fn bytes() -> Made<IpcBytesSender, IpcBytesReceiver> {
    ipc::bytes_channel()
}

pub fn typed() -> Made<IpcSender<Vec<u8>>, IpcReceiver<Vec<u8>>> {
    ipc::channel()
}

impl<T: Serialize> values::Sender<T> for IpcSender<T> {
    fn send(&mut self, value: T) -> io::Result<()> {
        IpcSender::send(self, value).map_err(other)
    }
}

impl<T: Serialize + DeserializeOwned> values::Receiver<T> for IpcReceiver<T> {
    fn receive(&mut self) -> io::Result<T> {
        self.recv().map_err(other)
    }
}

pub fn values<T: Serialize + DeserializeOwned>() -> Made<IpcSender<T>, IpcReceiver<T>> {
    ipc::channel()
}
