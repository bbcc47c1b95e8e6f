//! `unix-ipc`: raw messages, and whatever serde can write, over a unix stream socket.

use std::io;

use ::unix_ipc::{RawReceiver, RawSender};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{Receiver, Sender};
use crate::work::values;

use super::Made;

pub const NOTE: &str = "`raw_channel`, and `channel::<Vec<u8>>` as \"typed\", made anew for each `send`. `recv` returns a vector \
                        of its own, so nothing is copied out of it.";

impl Sender for RawSender {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        RawSender::send(self, message, &[]).map(drop)
    }
}

impl Receiver for RawReceiver {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let (message, _) = self.recv()?;
        each(&message);
        Ok(1)
    }
}

impl Sender for ::unix_ipc::Sender<Vec<u8>> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        ::unix_ipc::Sender::send(self, message.to_vec())
    }
}

impl Receiver for ::unix_ipc::Receiver<Vec<u8>> {
    fn receive(&mut self, _: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        each(&self.recv()?);
        Ok(1)
    }
}

pub fn raw() -> Made<RawSender, RawReceiver> {
    ::unix_ipc::raw_channel()
}

pub fn typed() -> Made<::unix_ipc::Sender<Vec<u8>>, ::unix_ipc::Receiver<Vec<u8>>> {
    ::unix_ipc::channel()
}

impl<T: Serialize + DeserializeOwned> values::Sender<T> for ::unix_ipc::Sender<T> {
    fn send(&mut self, value: T) -> io::Result<()> {
        ::unix_ipc::Sender::send(self, value)
    }
}

impl<T: Serialize + DeserializeOwned> values::Receiver<T> for ::unix_ipc::Receiver<T> {
    fn receive(&mut self) -> io::Result<T> {
        self.recv()
    }
}

pub fn values<T: Serialize + DeserializeOwned>() -> Made<::unix_ipc::Sender<T>, ::unix_ipc::Receiver<T>> {
    ::unix_ipc::channel()
}
