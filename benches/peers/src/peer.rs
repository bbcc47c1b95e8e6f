//! The process on the other side.

use std::io::{self, Read};
use std::time::Duration;

use ipc::{Child, Fork, PipeReader, PipeWriter};

use crate::machine::{Core, pin};
use crate::watchdog;

/// The order to leave.
const LEAVE: u64 = u64::MAX;

/// The answer of one that failed; why follows, and then it leaves.
const FAILED: u64 = u64::MAX;

/// The most bytes of a reason, so that it stays in one piece.
const MOST: usize = 1024;

/// A process that does something as often as it is told, and answers when it is done.
pub struct Peer {
    child: Child,
    orders: PipeWriter,
    answers: PipeReader,
}

impl Peer {
    /// `work` is called with each number that is [`order`](Self::order)ed, and returns the answer. Its captures live in the
    /// peer from here on. All else stays open in both.
    pub fn start(core: Core, work: impl FnMut(u64) -> io::Result<u64>) -> io::Result<Self> {
        // The ends of other crates are open on both sides, so those of this one are too.
        Self::start_with(Fork::new().keep_all_ends(), core, work)
    }

    /// A peer that holds two ends, those that its orders come through.
    pub fn start_with_two_ends(core: Core, work: impl FnMut(u64) -> io::Result<u64>) -> io::Result<Self> {
        Self::start_with(Fork::new(), core, work)
    }

    fn start_with(fork: Fork, core: Core, mut work: impl FnMut(u64) -> io::Result<u64>) -> io::Result<Self> {
        let (their_orders, orders) = ipc::pipe()?;
        let (answers, their_answers) = ipc::pipe()?;
        let child = fork.die_with_parent().spawn(
            (their_orders, their_answers),
            move |(mut orders, answers)| -> io::Result<()> {
                pin(core)?;
                loop {
                    match read_number(&mut orders)? {
                        LEAVE => return Ok(()),
                        order => match work(order) {
                            Ok(answer) => answers.write_atomic(&answer.to_ne_bytes())?,
                            Err(error) => return fail(&answers, &error),
                        },
                    }
                }
            },
        )?;
        watchdog::add_child(child.id());
        Ok(Self { child, orders, answers })
    }

    pub fn order(&self, number: u64) -> io::Result<()> {
        Ok(self.orders.write_atomic(&number.to_ne_bytes())?)
    }

    /// Blocks until the last order is carried out. Fails if the peer did.
    pub fn answer(&self) -> io::Result<u64> {
        match read_number(&mut &self.answers)? {
            FAILED => Err(io::Error::other(io::read_to_string(&self.answers)?)),
            answer => Ok(answer),
        }
    }

    /// Why what the peer sends ended: its own error, if it has failed.
    pub fn reason(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.answer().err().unwrap_or(error),
            _ => error,
        }
    }
}

fn fail(answers: &PipeWriter, error: &io::Error) -> io::Result<()> {
    let reason = error.to_string();
    // A process that waits for its messages sees EOF, and no answer.
    eprintln!("peers: a peer has failed: {reason}");
    answers.write_atomic(&FAILED.to_ne_bytes())?;
    Ok(answers.write_atomic(&reason.as_bytes()[..reason.len().min(MOST)])?)
}

fn read_number(from: &mut impl Read) -> io::Result<u64> {
    let mut number = [0; 8];
    from.read_exact(&mut number)?;
    Ok(u64::from_ne_bytes(number))
}

/// Waits for it, and ends it if it does not leave when told.
impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.order(LEAVE); // one that has failed is leaving already
        if !matches!(self.child.wait_timeout(Duration::from_secs(5)), Ok(Some(_))) {
            let _ = self.child.kill(); // has left meanwhile, or cannot be ended: the wait says so
        }
        match self.child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("peers: a peer left with {status}"),
            Err(error) => eprintln!("peers: a peer cannot be waited for: {error}"),
        }
        watchdog::remove_child(self.child.id());
    }
}
