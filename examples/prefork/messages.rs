//! Everything that the processes say to each other.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use ipc::{DatagramSocket, Ends, Error, PIPE_BUF, PipeReader, PipeWriter};

/// The ends of a worker: these four, and no other.
pub struct Given {
    /// Orders from the master, as messages.
    pub control: DatagramSocket,
    /// Nothing ever comes out of it. Its writer is the master's alone, so EOF says that the master is gone.
    pub lifeline: PipeReader,
    /// One pipe for the records of all workers.
    pub reports: PipeWriter,
    /// Tells once that the worker serves, or why it cannot.
    pub ready: PipeWriter,
}

impl Ends for Given {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.control.each(visit);
        self.lifeline.each(visit);
        self.reports.each(visit);
        self.ready.each(visit);
    }
}

/// An order of the master's to a worker.
pub enum Order {
    /// Report how it is doing. The state of all workers comes along, for the status page.
    Report(String),
    /// Accept no more, close each connection after its next answer, and leave when there is none.
    Drain,
    /// As `Drain`, but a connection without a request under way is closed at once.
    Stop,
}

impl Order {
    /// Sends it if there is room. A worker whose queue is full does not listen: it hangs, and is judged by that.
    pub fn send(&self, to: &DatagramSocket) -> ipc::Result<()> {
        let sent = match self {
            Self::Report(table) => to.try_send_vectored(&[IoSlice::new(b"r"), IoSlice::new(table.as_bytes())]),
            Self::Drain => to.try_send(b"d"),
            Self::Stop => to.try_send(b"s"),
        };
        match sent {
            // It has died: its exit is seen next.
            Err(Error::WouldBlock | Error::Closed) => Ok(()),
            sent => sent,
        }
    }

    /// Returns the next one, without waiting. The loss of the master is no order: the lifeline tells it.
    pub fn next(from: &DatagramSocket) -> ipc::Result<Option<Self>> {
        match from.try_recv_vec() {
            Ok(Some(message)) => Ok(match message.split_first() {
                Some((b'r', table)) => Some(Self::Report(String::from_utf8_lossy(table).into_owned())),
                Some((b's', _)) => Some(Self::Stop),
                _ => Some(Self::Drain),
            }),
            Ok(None) | Err(Error::WouldBlock | Error::Reset) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How a worker is doing, from its start on: a lost record is made up for by the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub worker: u64,
    /// Open now.
    pub open: u64,
    pub connections: u64,
    pub requests: u64,
    pub bytes: u64,
}

impl Report {
    pub const LEN: usize = 40;

    /// In one piece, so that the records of the workers never mix. When the pipe is full, the master is asleep: this one
    /// is left out then, as the pipe is made not to wait.
    pub fn send(&self, to: &PipeWriter) -> ipc::Result<()> {
        let fields = [self.worker, self.open, self.connections, self.requests, self.bytes];
        let mut record = [0; Self::LEN];
        for (place, field) in record.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        match to.write_atomic(&record) {
            // The master is gone: the lifeline says so too.
            Err(Error::WouldBlock | Error::Closed) => Ok(()),
            written => written,
        }
    }

    /// All that have arrived. Records go in whole, so whole ones come out of a buffer for some.
    pub fn arrived(from: &PipeReader) -> ipc::Result<Vec<Self>> {
        let mut reports = Vec::new();
        let mut buf = [0; Self::LEN * 64];
        loop {
            match from.try_read(&mut buf) {
                Ok(0) | Err(Error::WouldBlock) => return Ok(reports),
                Ok(len) => reports.extend(buf[..len].chunks_exact(Self::LEN).map(Self::from_record)),
                Err(error) => return Err(error),
            }
        }
    }

    fn from_record(record: &[u8]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut fields = record.chunks_exact(8).map(number);
        let mut field = || fields.next().unwrap_or_default();
        Self { worker: field(), open: field(), connections: field(), requests: field(), bytes: field() }
    }

    pub fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.connections += other.connections;
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// Says once that this process serves, or why it cannot. A worker says it to its master, a master to its predecessor.
pub fn tell(ready: PipeWriter, outcome: Result<(), &str>) -> ipc::Result<()> {
    let text = match outcome {
        Ok(()) => "+".to_owned(),
        Err(reason) => format!("-{reason}"),
    };
    match ready.write_atomic(&text.as_bytes()[..text.len().min(PIPE_BUF)]) {
        // Nobody waits for it any more.
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

/// The order, if one has come by now.
pub fn told(ready: &PipeReader) -> ipc::Result<Option<Result<(), String>>> {
    let mut buf = [0; PIPE_BUF];
    match ready.try_read(&mut buf) {
        Ok(0) => Ok(Some(Err("it left without a word".to_owned()))),
        Ok(_) if buf[0] == b'+' => Ok(Some(Ok(()))),
        Ok(len) => Ok(Some(Err(String::from_utf8_lossy(&buf[1..len]).into_owned()))),
        Err(Error::WouldBlock) => Ok(None),
        Err(error) => Err(error),
    }
}
