//! Two processes that take steps one after the other, each with handles of its own, and the model that they are held against.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ipc::{Child, DatagramSocket, Error, datagram_pair, fork};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// What a call answered, in words.
pub type Answer = String;

/// Handles that take steps.
pub trait Handle: ipc::Ends + Sized {
    type Op: Debug;

    /// Makes the call. `at` is the place of its bytes in the stream, or the number of its message.
    fn perform(&self, op: &Self::Op, at: u64) -> Answer;

    fn clone_of(&self) -> Self;
}

/// A step of one handle.
#[derive(Clone, Copy, Debug)]
enum Step {
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
struct Two<'ops, H: Handle> {
    here: Side<'ops, H>,
    control: DatagramSocket,
    there: Child,
}

impl<'ops, H: Handle> Two<'ops, H> {
    /// Puts each handle into the process that it is for: this one, or the other.
    fn new(ops: &'ops [H::Op], handles: impl Iterator<Item = (bool, H)>) -> Self {
        let (mut here, mut there) = (BTreeMap::new(), Vec::new());
        for (number, (is_here, handle)) in handles.enumerate() {
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
    fn take(&mut self, is_here: bool, step: Step) -> Answer {
        if is_here {
            return self.here.take(step);
        }
        self.control.send(&step.numbers().map(u64::to_ne_bytes).concat()).expect("the other process is there");
        let answer = self.control.recv_vec_timeout(super::SOON).expect("the other process answers");
        String::from_utf8(answer.expect("the other process is there")).expect("text")
    }

    /// Lets both go, and returns the status of the other one.
    fn end(self) -> Option<i32> {
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

/// The handles of both processes, by their numbers: the side of each, and whether it is in this process. `None`: closed.
pub struct Handles(Vec<Option<(usize, bool)>>);

impl Handles {
    /// One of each side.
    pub fn new(here: [bool; 2]) -> Self {
        Self((0..).zip(here).map(Some).collect())
    }

    /// How many of that side are open.
    pub fn count(&self, side: usize) -> usize {
        self.0.iter().flatten().filter(|(of, _)| *of == side).count()
    }

    /// One of the open handles of that side, or of both.
    fn choose(&self, side: Option<usize>, which: usize) -> Option<usize> {
        let fits = |handle: &Option<(usize, bool)>| handle.is_some_and(|(of, _)| side.is_none_or(|side| side == of));
        let able: Vec<usize> = (0..self.0.len()).filter(|&number| fits(&self.0[number])).collect();
        able.get(which.checked_rem(able.len())?).copied()
    }
}

pub enum Kind {
    Call,
    Clone,
    Close,
}

/// What handles of two sides are to answer.
pub trait Model {
    type Op: Debug;

    fn kind(op: &Self::Op) -> Kind;

    /// The side that can do it. `None`: both.
    fn side(op: &Self::Op) -> Option<usize>;

    fn handles(&mut self) -> &mut Handles;

    /// The place of the call's bytes, or the number of its message, and what is to be answered. `None`: the call would wait,
    /// and is not made.
    fn answer(&mut self, side: usize, op: &Self::Op) -> Option<(u64, Answer)>;

    /// A handle of that side was closed.
    fn closed(&mut self, _side: usize) {}
}

/// Takes the steps, each with one of the handles that can, and compares each answer with the model's.
pub fn follow<M: Model, H: Handle<Op = (M::Op, usize)>>(
    mut model: M,
    ops: &[(M::Op, usize)],
    here: [bool; 2],
    handles: [H; 2],
) -> Result<(), TestCaseError> {
    let mut two = Two::new(ops, here.into_iter().zip(handles));
    for (number, (op, which)) in ops.iter().enumerate() {
        let Some(handle) = model.handles().choose(M::side(op), *which) else { continue };
        let (side, is_here) = model.handles().0[handle].expect("a handle that is open");
        let (step, expected) = match M::kind(op) {
            Kind::Clone => {
                let handles = &mut model.handles().0;
                handles.push(Some((side, is_here)));
                (Step::Clone { from: handle, to: handles.len() - 1 }, "cloned".to_owned())
            }
            Kind::Close => {
                model.handles().0[handle] = None;
                model.closed(side);
                (Step::Close { handle }, "closed".to_owned())
            }
            Kind::Call => {
                let Some((at, expected)) = model.answer(side, op) else { continue };
                (Step::Perform { op: number, handle, at }, expected)
            }
        };
        let answer = two.take(is_here, step);
        prop_assert_eq!(answer, expected, "step {}: {:?} with handle {} of side {}", number, op, handle, side);
    }
    prop_assert_eq!(two.end(), Some(0));
    prop_assert_eq!(ipc::open_ends(), 0);
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
