//! A fork server, and what it is to answer: workers with the ends of their orders and no other, which leave as they are told to,
//! whatever becomes of the server and of their siblings.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use ipc::{Child, Error, ForkServer, PipeReader, PipeWriter, Received, pipe};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::SOON;
use super::content::{bytes, check, check_message, message};

const KEY: u64 = 0x0f0e;

/// What fits single pages. A longer message needs several pages in a row, of which a busy kernel may have none (`ENOBUFS`).
const LONGEST: usize = 60_000;

/// So many ends go with no order.
const TOO_MANY: usize = 254;

#[derive(Clone, Debug)]
pub enum Op {
    /// With so many ends besides those that every worker has.
    Order(usize),
    OrderTooMuch,
    /// To a server that was stopped, and goes on afterwards.
    OrderInVain,
    KillServer,
    DropServer,
    Ask,
    Tell(Tell),
    Kill,
    Terminate,
    Wait,
    TryWait,
    /// Lets go of the child, which goes on.
    Forget,
}

/// How a worker is told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    Return = 1,
    Panic = 2,
    Exit = 3,
    Eof = 4,
}

/// A step, and which of the workers it concerns.
pub fn op() -> impl Strategy<Value = (Op, usize)> {
    let tell = prop_oneof![Just(Tell::Return), Just(Tell::Panic), Just(Tell::Exit), Just(Tell::Eof)];
    let op = prop_oneof![
        8 => (0..4_usize).prop_map(Op::Order),
        1 => Just(Op::OrderTooMuch),
        1 => Just(Op::OrderInVain),
        1 => Just(Op::KillServer),
        1 => Just(Op::DropServer),
        6 => Just(Op::Ask),
        4 => tell.prop_map(Op::Tell),
        2 => Just(Op::Kill),
        1 => Just(Op::Terminate),
        3 => Just(Op::Wait),
        3 => Just(Op::TryWait),
        1 => Just(Op::Forget),
    ];
    (op, any::<usize>())
}

/// A worker: says what it was given, and does what it is told to.
fn work(message: Vec<u8>, mut ends: Received) -> ipc::Result<u8> {
    let (number, message) = message.split_at(8);
    let number = u64::from_ne_bytes(number.try_into().expect("8 bytes"));
    check_message(KEY, number, LONGEST, message);
    let mut inbox: PipeReader = ends.take()?;
    let outbox: PipeWriter = ends.take()?;
    let _shared: PipeWriter = ends.take()?;
    let mut more = 0;
    while !ends.is_empty() {
        let mut inside = Vec::new();
        ends.take::<PipeReader>()?.read_to_end(&mut inside)?;
        check(number + more, 0, &inside);
        more += 1;
    }
    outbox.write_atomic(&[more as u8, ipc::open_ends() as u8])?;
    loop {
        let mut said = [0];
        match inbox.read(&mut said)? {
            0 => return Ok(Tell::Eof as u8),
            _ if said[0] == Tell::Return as u8 => return Ok(Tell::Return as u8),
            _ if said[0] == Tell::Panic as u8 => panic!("it was told to"),
            _ if said[0] == Tell::Exit as u8 => std::process::exit(Tell::Exit.into()),
            _ => outbox.write_atomic(&said)?,
        }
    }
}

impl From<Tell> for i32 {
    fn from(tell: Tell) -> Self {
        tell as Self
    }
}

/// A worker, and what is known of it.
struct Worker {
    child: Option<Child>,
    inbox: Option<PipeWriter>,
    outbox: PipeReader,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Running,
    /// On its way out, or gone, with this wait status.
    Leaving(i32),
    Gone(i32),
}

impl Worker {
    /// It leaves from now on, and all that it has is closed before it is gone.
    fn leaves(&mut self, status: i32) -> Result<(), TestCaseError> {
        if self.is == Is::Running {
            self.is = Is::Leaving(status);
            prop_assert_eq!(self.outbox.read_timeout(&mut [0], SOON).map_err(in_words), Ok(0));
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), TestCaseError> {
        let Some(inbox) = &self.inbox else { return Ok(()) };
        match self.is {
            Is::Running => {
                inbox.write_atomic(b"?").expect("it reads");
                let mut said = [0];
                prop_assert_eq!(self.outbox.read_timeout(&mut said, SOON).map_err(in_words), Ok(1));
                prop_assert_eq!(&said, b"?");
            }
            Is::Leaving(_) => {}
            Is::Gone(_) => prop_assert_eq!(inbox.write_atomic(b"?").map_err(in_words), Err("Closed".to_owned())),
        }
        Ok(())
    }

    fn tell(&mut self, tell: Tell) -> Result<(), TestCaseError> {
        let Some(mut inbox) = self.inbox.take() else { return Ok(()) };
        if self.is == Is::Running && tell != Tell::Eof {
            inbox.write_all(&[tell as u8]).expect("it reads");
        }
        drop(inbox);
        // What a panic leaves with is the standard library's.
        self.leaves(if tell == Tell::Panic { 101 } else { tell.into() } << 8)
    }

    fn wait(&mut self, blocks: bool) -> Result<(), TestCaseError> {
        let Some(child) = &self.child else { return Ok(()) };
        let waited = match (blocks, self.is) {
            (true, Is::Running) => return Ok(()),
            (true, _) => child.wait_timeout(SOON),
            (false, _) => child.try_wait(),
        };
        let waited = waited.map(|status| status.map(ExitStatus::into_raw)).map_err(in_words);
        match self.is {
            Is::Running => prop_assert_eq!(waited, Ok(None)),
            Is::Leaving(_) if !blocks && waited == Ok(None) => {}
            Is::Leaving(status) | Is::Gone(status) => {
                prop_assert_eq!(waited, Ok(Some(status)));
                self.is = Is::Gone(status);
            }
        }
        Ok(())
    }
}

/// The server, and its workers as far as they were not forgotten and told to leave.
struct Model {
    server: Option<ForkServer>,
    is_alive: bool,
    workers: Vec<Worker>,
    next: u64,
    /// Each worker has a copy of the writer.
    shared: (PipeReader, PipeWriter),
}

impl Model {
    fn order(&mut self, more: usize) -> Result<(), TestCaseError> {
        let Some(server) = &self.server else { return Ok(()) };
        self.next += 16;
        let number = self.next;
        let text = [&number.to_ne_bytes()[..], &message(KEY, number, LONGEST)].concat();
        let (reader, inbox) = pipe().expect("there is room for a pipe");
        let (outbox, writer) = pipe().expect("there is room for a pipe");
        let filled = |at| {
            let (reader, writer) = pipe().expect("there is room for a pipe");
            writer.write_atomic(&bytes(number + at, 0, 100)).expect("an empty pipe");
            reader
        };
        let further: Vec<PipeReader> = (0..more as u64).map(filled).collect();
        let ends = (reader, writer, self.shared.1.try_clone().expect("there is room for an end"), further);
        let open = ipc::open_ends();
        let ordered =
            if more.is_multiple_of(2) { server.fork(&text, ends) } else { server.fork_timeout(&text, ends, SOON) };
        match ordered {
            Ok(child) => {
                prop_assert!(self.is_alive);
                // The line of an order in vain may be closed too.
                prop_assert!(ipc::open_ends() <= open - 3 - more);
                let mut said = [0; 2];
                prop_assert_eq!(outbox.read_timeout(&mut said, SOON).map_err(in_words), Ok(2));
                // Those that it read to their end are closed by now.
                prop_assert_eq!(said, [more as u8, 3]);
                self.workers.push(Worker { child: Some(child), inbox: Some(inbox), outbox, is: Is::Running });
            }
            Err(refused) => {
                prop_assert!(!self.is_alive, "{refused:?}");
                prop_assert_eq!(in_words(refused.error), "Closed");
                // They are as they were.
                let (reader, writer, _, further) = refused.ends;
                prop_assert_eq!(
                    (reader.try_read(&mut [0]).map_err(in_words), further.len()),
                    (Err("WouldBlock".to_owned()), more)
                );
                writer.write_atomic(b"!").expect("an empty pipe");
                for (at, mut reader) in (0..).zip(further) {
                    let mut inside = Vec::new();
                    reader.read_to_end(&mut inside).expect("a pipe can be read");
                    check(number + at, 0, &inside);
                }
            }
        }
        Ok(())
    }

    fn order_too_much(&self) -> Result<(), TestCaseError> {
        let Some(server) = &self.server else { return Ok(()) };
        let clone = |_| self.shared.1.try_clone().expect("there is room for an end");
        let refused = server.fork(b"", (0..TOO_MANY).map(clone).collect::<Vec<_>>()).expect_err("more than go");
        prop_assert_eq!(in_words(refused.error), "TooLong { len: 254, max: 253 }");
        prop_assert_eq!(refused.ends.len(), TOO_MANY);
        Ok(())
    }

    fn order_in_vain(&self) -> Result<(), TestCaseError> {
        let Some(server) = self.server.as_ref().filter(|_| self.is_alive) else { return Ok(()) };
        signal(server, libc::SIGSTOP);
        let ends = self.shared.1.try_clone().expect("there is room for an end");
        let refused = server.fork_timeout(b"", ends, Duration::from_millis(1)).expect_err("it was stopped");
        signal(server, libc::SIGCONT);
        prop_assert_eq!(in_words(refused.error), "TimedOut");
        Ok(())
    }

    fn take(&mut self, op: &Op, which: usize) -> Result<(), TestCaseError> {
        match op {
            Op::Order(more) => return self.order(*more),
            Op::OrderTooMuch => return self.order_too_much(),
            Op::OrderInVain => return self.order_in_vain(),
            Op::KillServer => {
                self.server.iter().filter(|_| self.is_alive).for_each(|server| signal(server, libc::SIGKILL));
                self.is_alive = false;
            }
            Op::DropServer => self.server = None,
            _ => {}
        }
        let Some(which) = which.checked_rem(self.workers.len()) else { return Ok(()) };
        let worker = &mut self.workers[which];
        match (op, &worker.child) {
            // It may be killed before it is gone, or not.
            (Op::Kill | Op::Terminate, _) if matches!(worker.is, Is::Leaving(_)) => Ok(()),
            (Op::Ask, _) => worker.ask(),
            (Op::Tell(tell), _) => worker.tell(*tell),
            (Op::Wait, _) => worker.wait(true),
            (Op::TryWait, _) => worker.wait(false),
            (Op::Kill, Some(child)) => {
                prop_assert_eq!(child.kill().map_err(in_words), Ok(()));
                worker.leaves(libc::SIGKILL)
            }
            (Op::Terminate, Some(child)) => {
                prop_assert_eq!(child.terminate().map_err(in_words), Ok(()));
                worker.leaves(libc::SIGTERM)
            }
            (Op::Forget, _) => {
                worker.child = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Every worker is asked once more, and told to leave; the last one's end is EOF for what all of them had.
    fn end(mut self) -> Result<(), TestCaseError> {
        drop(self.shared.1);
        let runs = self.workers.iter().any(|worker| worker.is == Is::Running);
        let expected = if runs { "WouldBlock" } else { "Ok(0)" };
        // One that leaves has closed this only when it is gone.
        if runs || self.workers.iter().all(|worker| matches!(worker.is, Is::Gone(_))) {
            let answer = self.shared.0.try_read(&mut [0]).map(|read| format!("Ok({read})"));
            prop_assert_eq!(answer.unwrap_or_else(in_words), expected);
        }
        for worker in &mut self.workers {
            worker.ask()?;
            worker.tell(Tell::Eof)?;
            worker.wait(true)?;
        }
        prop_assert_eq!(self.shared.0.read_timeout(&mut [0], SOON).map_err(in_words), Ok(0));
        Ok(())
    }
}

fn in_words(error: Error) -> String {
    format!("{error:?}")
}

fn signal(server: &ForkServer, signal: i32) {
    // SAFETY: numbers; the process is this one's child, and was not waited for.
    assert_eq!(unsafe { libc::kill(server.id() as i32, signal) }, 0, "{}", std::io::Error::last_os_error());
}

/// Takes the steps, and compares each answer with the model's.
pub fn follow(ops: &[(Op, usize)]) -> Result<(), TestCaseError> {
    let server = ForkServer::start(work).expect("there is one thread, and room for a process");
    let shared = pipe().expect("there is room for a pipe");
    let mut model = Model { server: Some(server), is_alive: true, workers: Vec::new(), next: 0, shared };
    for (op, which) in ops {
        model.take(op, *which)?;
    }
    model.end()?;
    // Those that were forgotten, and of a sandbox those that a killed server had not waited for.
    // SAFETY: the status is not asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    prop_assert_eq!(ipc::open_ends(), 0);
    Ok(())
}
