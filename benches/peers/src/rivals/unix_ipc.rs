//! `unix-ipc`: raw messages, and whatever serde can write, over a unix stream socket.

use std::io;

use ::unix_ipc::{RawReceiver, RawSender};

use crate::channel::{Receiver, Sender};

use super::Made;

pub const NOTE: &str = "`raw_channel`, and `channel::<Vec<u8>>` as \"typed\", made anew for each `send`. What `recv` returns is a vector of \
                        its own, so nothing is copied out of it.";

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
