//! The hello that a writer sends and a reader waits for, and the memory that comes with it. A reader checks both before it
//! uses them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::doorbell::Side;
use super::half::Fault;
use super::layout::{HELLO, LARGEST, capacity, hello};
use crate::end::{self, End};
use crate::error::{Error, Result};
use crate::socket::StreamSocket;
use crate::sys::descriptor::duplicate;
use crate::sys::epoch::Epoch;
use crate::sys::memfd::{self, LENGTH, Unfit};
use crate::sys::shared_memory::{SharedMemory, page_size};
use crate::sys::socket::refuse_descriptors;
use crate::sys::{Errno, ancillary, membarrier};

/// Makes the memory, and sends the hello that takes it to the other side.
pub(super) fn make(socket: &StreamSocket, bytes: usize) -> Result<(Epoch, Side<SharedMemory, true>)> {
    socket.end().check_given()?;
    let capacity = bytes.max(page_size()).checked_next_power_of_two().filter(|capacity| *capacity <= LARGEST);
    let capacity = capacity.ok_or(Error::InvalidInput { what: "a ring holds 1 GiB at most" })?;
    let refused = |call| move |errno| Error::system(call, errno);
    let epoch = Epoch::now().map_err(refused("madvise"))?;
    let memory = memfd::create(c"ipc-ring").map_err(refused("memfd_create"))?;
    let len = (page_size() + capacity) as u64;
    memfd::check_limit(len).and_then(|()| memfd::allocate(memory.as_fd(), len)).map_err(refused("fallocate"))?;
    memfd::seal(memory.as_fd(), LENGTH).map_err(refused("fcntl"))?;
    let words = SharedMemory::map(memory.as_fd(), capacity, epoch).map_err(refused("mmap"))?;
    let side = Side::new(words, capacity, membarrier::register());
    let fd = socket.as_fd();
    match ancillary::send(fd, &hello(capacity), &[memory.as_raw_fd()], false) {
        Ok(_) => {
            // So few bytes go in one piece. The reader has nothing to send but rings.
            refuse_descriptors(fd);
            Ok((epoch, side))
        }
        Err(errno) => Err(socket.end().error("sendmsg", errno)),
    }
}

/// The part of a hello that has arrived.
#[derive(Default)]
pub(super) struct Hello {
    told: Vec<u8>,
    memory: Vec<OwnedFd>,
}

/// The reason why no more of it comes.
pub(super) enum Cut {
    /// The writer has left.
    Over,
    /// It cannot become a ring any more: a descriptor that came with it found no place, or there are too many of them.
    Lost(Fault),
}

impl Hello {
    pub(super) fn is_whole(&self) -> bool {
        self.told.len() == HELLO
    }

    /// The error if nothing more comes: none, where it never began.
    pub(super) fn cut_short(&self) -> Option<Fault> {
        let message = self.told.clone();
        (!message.is_empty()).then_some(Fault::Truncated { message, expected: HELLO as u64 })
    }

    /// Takes a piece of it, and none of what comes after, without blocking.
    pub(super) fn receive(&mut self, end: &End) -> Result<Option<Cut>> {
        // A descriptor that finds no place is lost, and the ring with it. So this looks for a place first.
        drop(duplicate(end.as_fd()).map_err(|errno| end.error("fcntl", errno))?);
        let mut piece = [0; HELLO];
        let room = HELLO - self.told.len();
        match ancillary::receive(end.as_fd(), &mut piece[..room], false) {
            Ok(Some((_, beside))) if beside.lost => {
                Ok(Some(Cut::Lost(Fault::System { call: "recvmsg", errno: Errno::MFILE })))
            }
            // EOF of a socket that asks who sent what.
            Ok(Some((0, _)) | None) | Err(Errno::CONNRESET) => Ok(Some(Cut::Over)),
            Ok(Some((len, beside))) => {
                self.told.extend_from_slice(&piece[..len]);
                self.memory.extend(beside.fds);
                if self.memory.len() > 1 {
                    // Not one more is kept, for however long the rest of the hello does not come.
                    self.memory.clear();
                    return Ok(Some(Cut::Lost(Fault::Malformed(self.told.clone()))));
                }
                if self.is_whole() {
                    // The last close of a descriptor could take long. Those that were queued before this still come.
                    refuse_descriptors(end.as_fd());
                }
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(errno) => Err(end.error("recvmsg", errno)),
        }
    }

    /// Checks all of it, and maps the memory.
    pub(super) fn map(self, max_capacity: usize, epoch: Epoch) -> Result<Side<SharedMemory, false>, Fault> {
        let malformed = || Fault::Malformed(self.told.clone());
        let capacity = self.told.first_chunk().and_then(capacity).ok_or_else(malformed)?;
        let [memory] = &self.memory[..] else { return Err(malformed()) };
        let max = max_capacity.min(LARGEST);
        let len = usize::try_from(capacity).unwrap_or(usize::MAX);
        if len > max {
            return Err(Fault::TooLong { len, max });
        }
        let refused = |call| move |errno| Fault::System { call, errno };
        let file = memfd::check(memory.as_fd(), LENGTH, true).map_err(|unfit| unfit_fault(memory, unfit))?;
        if file != (page_size() + len) as u64 {
            return Err(malformed());
        }
        let words = SharedMemory::map(memory.as_fd(), len, epoch).map_err(refused("mmap"))?;
        // Memory that is not there would be taken from this process at the first look, or be a SIGBUS.
        words.populate(memory.as_fd()).map_err(refused("madvise"))?;
        Ok(Side::new(words, len, membarrier::register()))
    }
}

const EXPECTED: &str = "sealed memory for a ring";

fn unfit_fault(memory: &OwnedFd, unfit: Unfit) -> Fault {
    let found = match unfit {
        Unfit::Unknown(call, errno) => return Fault::System { call, errno },
        Unfit::Seals => "memory whose length can still be changed",
        Unfit::Mode => "memory that cannot be read and written",
        Unfit::Kind => end::kind(memory.as_fd()).unwrap_or("something else"),
    };
    Fault::WrongKind { expected: EXPECTED, found }
}
