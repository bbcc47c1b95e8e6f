//! `shmem-ipc`: a ring in shared memory, with eventfds to wait on.

use std::io::{self, Read, Write};
use std::ptr;

use ::shmem_ipc::sharedring;

use crate::channel::{Receiver, Sender};

use super::{Made, other};

pub const NOTE: &str = "`sharedring` with items of the message's length, in a ring of 1 MiB. It waits with \
                        `block_until_readable` and `block_until_writable`. `receive_raw` takes all the items that are there, as \
                        its example does. \"Spinning\" uses the ring without the signals (`sender_mut`, `receiver_mut`), which \
                        its documentation offers for that. As a stream it is a ring of bytes.";

/// Bytes in the ring.
const RING: usize = 1 << 20;

/// Waits by sleeping on an eventfd, or by looking again and again.
#[derive(Clone, Copy, PartialEq)]
pub enum Wait {
    Sleeping,
    Spinning,
}

pub struct RingSender<const LEN: usize>(sharedring::Sender<[u8; LEN]>, Wait);
pub struct RingReceiver<const LEN: usize>(sharedring::Receiver<[u8; LEN]>, Wait);

/// A ring of items of that length; of one byte, it is a stream.
pub fn ring<const LEN: usize>(wait: Wait) -> Made<RingSender<LEN>, RingReceiver<LEN>> {
    let capacity = RING / LEN;
    // As two processes set it up: the memory and the signals are passed on as descriptors.
    let sender = sharedring::Sender::new(capacity).map_err(other)?;
    let (memory, empty, full) = (sender.memfd().as_file(), sender.empty_signal(), sender.full_signal());
    let receiver = sharedring::Receiver::open(capacity, memory.try_clone()?, empty.try_clone()?, full.try_clone()?);
    Ok((RingSender(sender, wait), RingReceiver(receiver.map_err(other)?, wait)))
}

impl<const LEN: usize> RingSender<LEN> {
    /// Waits for room, and lets `put` fill some of it; it returns how many items that were.
    fn put(&mut self, put: impl Fn(*mut [u8; LEN], usize) -> usize) -> io::Result<usize> {
        loop {
            let mut sent = 0;
            let attempt = |place, room| {
                sent = put(place, room);
                sent
            };
            match self.1 {
                Wait::Sleeping => drop(self.0.send_raw(attempt).map_err(other)?),
                Wait::Spinning => drop(self.0.sender_mut().send(attempt).map_err(other)?),
            }
            match self.1 {
                _ if sent > 0 => return Ok(sent),
                Wait::Sleeping => drop(self.0.block_until_writable().map_err(other)?),
                Wait::Spinning => std::hint::spin_loop(),
            }
        }
    }
}

impl<const LEN: usize> RingReceiver<LEN> {
    /// Waits for items, and lets `take` look at them; it returns how many it took.
    fn take(&mut self, mut take: impl FnMut(*const [u8; LEN], usize) -> usize) -> io::Result<usize> {
        loop {
            let mut taken = 0;
            let attempt = |items, count| {
                taken = take(items, count);
                taken
            };
            match self.1 {
                Wait::Sleeping => drop(self.0.receive_raw(attempt).map_err(other)?),
                Wait::Spinning => drop(self.0.receiver_mut().recv(attempt).map_err(other)?),
            }
            match self.1 {
                _ if taken > 0 => return Ok(taken),
                Wait::Sleeping => drop(self.0.block_until_readable().map_err(other)?),
                Wait::Spinning => std::hint::spin_loop(),
            }
        }
    }
}

impl<const LEN: usize> Sender for RingSender<LEN> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let message: &[u8; LEN] = message.try_into().map_err(other)?;
        let put = |place: *mut [u8; LEN], _| {
            // SAFETY: there is room for at least one item, outside of what this process knows by reference.
            unsafe { ptr::copy_nonoverlapping(message, place, 1) };
            1
        };
        self.put(put).map(drop)
    }
}

impl<const LEN: usize> Receiver for RingReceiver<LEN> {
    fn receive(&mut self, buf: &mut [u8], most: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let buf: &mut [u8; LEN] = buf.try_into().map_err(other)?;
        let taken = self.take(|items: *const [u8; LEN], count| {
            let count = count.min(most as usize);
            for number in 0..count {
                // SAFETY: one of the items that are there.
                unsafe { ptr::copy_nonoverlapping(items.add(number), &mut *buf, 1) };
                each(&*buf);
            }
            count
        });
        Ok(taken? as u64)
    }
}

impl Write for RingSender<1> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.put(|place, room| {
            let len = room.min(buf.len());
            // SAFETY: there is room for so many bytes.
            unsafe { ptr::copy_nonoverlapping(buf.as_ptr(), place.cast(), len) };
            len
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for RingReceiver<1> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.take(|items, count| {
            let len = count.min(buf.len());
            // SAFETY: so many bytes are there.
            unsafe { ptr::copy_nonoverlapping(items.cast(), buf.as_mut_ptr(), len) };
            len
        })
    }
}

/// The ring as a stream, reader first.
pub fn stream() -> Made<RingReceiver<1>, RingSender<1>> {
    let (sender, receiver) = ring(Wait::Sleeping)?;
    Ok((receiver, sender))
}
