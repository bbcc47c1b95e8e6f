//! Two processes that do what they are told to, one step after the other, each with handles of its own.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ipc::{Child, DatagramSocket, Error, datagram_pair, fork};

/// What a call answered, in words.
pub type Answer = String;

/// Handles that steps are done with.
pub trait Handle: ipc::Ends + Sized {
    type Op: Debug;

    /// Makes the call. `at` is the place of its bytes in the stream, or the number of its message.
    fn perform(&self, op: &Self::Op, at: u64) -> Answer;

    fn clone_of(&self) -> Self;
}

/// What is to be done with a handle.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Perform { op: usize, handle: usize, at: u64 },
    Clone { from: usize, to: usize },
    Close { handle: usize },
}

impl Step {
    /// As it goes from one process to the other.
    fn numbers(self) -> [u64; 4] {
        match self {
            Step::Perform { op, handle, at } => [0, op as u64, handle as u64, at],
            Step::Clone { from, to } => [1, from as u64, to as u64, 0],
            Step::Close { handle } => [2, handle as u64, 0, 0],
        }
    }

    fn of_numbers([what, first, second, third]: [u64; 4]) -> Self {
        let (first, second) = (first as usize, second as usize);
        match what {
            0 => Step::Perform { op: first, handle: second, at: third },
            1 => Step::Clone { from: first, to: second },
            _ => Step::Close { handle: first },
        }
    }
}

/// The handles of one process, by their numbers.
struct Side<'ops, H: Handle> {
    ops: &'ops [H::Op],
    handles: BTreeMap<usize, H>,
}

impl<H: Handle> Side<'_, H> {
    fn take(&mut self, step: Step) -> Answer {
        match step {
            Step::Perform { op, handle, at } => self.handles[&handle].perform(&self.ops[op], at),
            Step::Clone { from, to } => {
                let clone = self.handles[&from].clone_of();
                self.handles.insert(to, clone);
                "cloned".to_owned()
            }
            Step::Close { handle } => match self.handles.remove(&handle) {
                Some(_) => "closed".to_owned(),
                None => "nothing".to_owned(),
            },
        }
    }
}

/// This process and another one.
pub struct Two<'ops, H: Handle> {
    here: Side<'ops, H>,
    control: DatagramSocket,
    there: Child,
}

impl<'ops, H: Handle> Two<'ops, H> {
    /// Puts each handle into the process that it is for: this one, or the other.
    pub fn new(ops: &'ops [H::Op], handles: Vec<(bool, H)>) -> Self {
        let (mut here, mut there) = (BTreeMap::new(), Vec::new());
        for (number, (is_here, handle)) in handles.into_iter().enumerate() {
            if is_here {
                here.insert(number, handle);
            } else {
                there.push((number, handle));
            }
        }
        let (numbers, ends): (Vec<_>, Vec<_>) = there.into_iter().unzip();
        let pair = datagram_pair().expect("there is room for a pair");
        let child = fork((pair.child, ends), |(control, ends)| {
            serve(Side { ops, handles: numbers.into_iter().zip(ends).collect() }, &control)
        });
        let there = child.map_err(Error::from).expect("there is room for a process");
        // Until it says so, it may hold what it was not given.
        assert_eq!(pair.parent.recv_vec_timeout(super::SOON).expect("it starts").as_deref(), Some(&b"ready"[..]));
        Self { here: Side { ops, handles: here }, control: pair.parent, there }
    }

    /// Has a step taken by the process that has its handle.
    pub fn take(&mut self, is_here: bool, step: Step) -> Answer {
        if is_here {
            return self.here.take(step);
        }
        self.control.send(&step.numbers().map(u64::to_ne_bytes).concat()).expect("the other process is there");
        let answer = self.control.recv_vec_timeout(super::SOON).expect("the other process answers");
        String::from_utf8(answer.expect("the other process is there")).expect("text")
    }

    /// Lets both go; says how the other one left.
    pub fn end(self) -> Option<i32> {
        drop((self.here, self.control));
        self.there.wait_timeout(super::SOON).expect("a child can be waited for")?.code()
    }
}

fn serve<H: Handle>(mut side: Side<'_, H>, control: &DatagramSocket) -> ipc::Result<()> {
    control.send(b"ready")?;
    while let Some(step) = control.recv_vec()? {
        let mut numbers = step.chunks_exact(8).map(|number| u64::from_ne_bytes(number.try_into().expect("8 bytes")));
        let step = Step::of_numbers(std::array::from_fn(|_| numbers.next().expect("four numbers")));
        control.send(side.take(step).as_bytes())?;
    }
    Ok(())
}

/// A result in words: what it was, or which error.
pub fn in_words<T: Debug>(result: ipc::Result<T>) -> Answer {
    match result {
        Ok(done) => format!("{done:?}"),
        Err(Error::System { call, source }) => format!("{call}: {:?}", source.raw_os_error()),
        Err(Error::BufferTooSmall { message }) => format!("BufferTooSmall {}", message.len()),
        Err(error) => format!("{error:?}"),
    }
}
