//! The protocol of sleeping and waking under every interleaving with a few preemptions: the same [`Half`]s and [`Side`]s, over words
//! and a socket of loom's. [`Model::check`] has the bounds.
//!
//! ```sh
//! RUSTFLAGS="--cfg ipc_loom" cargo test --release --lib ring::model
//! ```
//!
//! A wake-up that is lost is a thread that waits for ever, which loom calls a deadlock. Loom cannot model a barrier that one
//! side makes for both, so the model has a barrier at each side. Where it is refused, there is none.
//!
//! Each model is there once more with something left out, and has to find the wake-up that is lost then.

use std::cell::Cell;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::doorbell::Side;
use super::half::Half;
use super::layout::bits::{BARS, REGISTERED, WAITING};
use super::layout::{Word, Words};
use super::line::{Heard, Line, Rung};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::epoch::Epoch;
use crate::wait::{Look, Patience};

/// The steps of a model, and the parts of the protocol that it leaves out.
#[derive(Clone, Copy)]
struct Model {
    bytes: usize,
    capacity: usize,
    /// Both have registered, and know it of one another.
    registered: bool,
    /// The barriers that one side makes for both are refused.
    refused: bool,
    /// How many rings of the writer, and of the reader, the kernel has no memory for.
    lost: [usize; 2],
    /// The reader waits as with `wait_any`.
    watches: bool,
    without: Without,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Without {
    Nothing,
    /// A writer that makes no barrier between its move and its look who waits.
    BarrierAfterMove,
    /// A reader that makes none before it looks again.
    BarrierBeforeSleep,
    /// A side that says that it waits, and sleeps.
    SecondLook,
    /// A ring that there is no memory for is forgotten.
    OwedRings,
    /// A side that owes a ring, or that the other may not ring for, sleeps until it is rung for.
    Naps,
    /// A side that could not ring for its end leaves without a word.
    HangingUp,
}

const PLAIN: Model = Model {
    bytes: 2,
    capacity: 1,
    registered: false,
    refused: false,
    lost: [0, 0],
    watches: false,
    without: Without::Nothing,
};

/// A side's view of the words.
struct View {
    words: Arc<[AtomicU64; 4]>,
    is_writer: bool,
    model: Model,
    /// The last state that was seen, for a side that does not look again once it has said that it waits.
    seen: Cell<[u64; 4]>,
    waits: Cell<bool>,
}

impl View {
    fn new(words: Arc<[AtomicU64; 4]>, is_writer: bool, model: Model) -> Self {
        Self { words, is_writer, model, seen: Cell::default(), waits: Cell::new(false) }
    }

    fn place(word: Word) -> usize {
        word as usize / 128
    }
}

impl Words for View {
    fn load(&self, word: Word) -> u64 {
        let (place, mut seen) = (Self::place(word), self.seen.get());
        if !(self.waits.get() && self.model.without == Without::SecondLook) {
            seen[place] = self.words[place].load(Acquire);
            self.seen.set(seen);
        }
        seen[place]
    }

    fn store(&self, word: Word, value: u64) {
        if matches!(word, Word::Head | Word::Tail) {
            return self.words[Self::place(word)].store(value, Release);
        }
        // The other side clears a bit of this word too. Loom keeps no order of plain stores by one and changes by another, and
        // would show the older one for ever.
        self.words[Self::place(word)].swap(value, Release);
        self.waits.set(value & WAITING != 0);
    }

    fn clear(&self, word: Word, bits: u64) -> u64 {
        self.words[Self::place(word)].fetch_and(!bits, AcqRel)
    }

    fn barrier(&self) {
        let left_out = if self.is_writer { Without::BarrierAfterMove } else { Without::BarrierBeforeSleep };
        if self.model.without != left_out {
            fence(SeqCst);
        }
    }

    fn no_barrier(&self) {
        if !self.model.refused {
            self.barrier();
        }
    }

    fn barrier_for_both(&self) -> bool {
        if !self.model.refused {
            self.barrier();
        }
        !self.model.refused
    }
}

/// The places of the bytes. Loom notes which side touches them, and fails if the order is left open.
struct Bytes(Vec<UnsafeCell<()>>);

#[expect(unsafe_code, reason = "a race is what loom looks for")]
// SAFETY: loom runs one thread at a time, and nothing is stored.
unsafe impl Sync for Bytes {}
#[expect(unsafe_code, reason = "a race is what loom looks for")]
// SAFETY: as above.
unsafe impl Send for Bytes {}

impl Bytes {
    fn put(&self, position: u64) {
        self.0[position as usize % self.0.len()].with_mut(|_| ());
    }

    fn take(&self, position: u64) {
        self.0[position as usize % self.0.len()].with(|_| ());
    }
}

/// One direction of a socket: rings that were not heard yet, and whether it has ended.
#[derive(Default)]
struct Wire {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Wire {
    fn change(&self, change: impl FnOnce(&mut (usize, bool))) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_one();
    }
}

/// A side's end of the socket. A copy of it is open elsewhere, so that it does not end with the side.
struct Plug {
    rings: Arc<Wire>,
    hears: Arc<Wire>,
    is_writer: bool,
    /// How many rings find no memory.
    lost: Cell<usize>,
    without: Without,
}

impl Line for Plug {
    fn ring(&self) -> sys::Result<Rung> {
        match self.lost.get().checked_sub(1) {
            Some(left) => {
                self.lost.set(left);
                Ok(if self.without == Without::OwedRings { Rung::Heard } else { Rung::Later })
            }
            None => {
                self.rings.change(|state| state.0 += 1);
                Ok(Rung::Heard)
            }
        }
    }

    fn hear(&self, wait: bool) -> Result<Heard> {
        let mut state = self.hears.state.lock().unwrap();
        while wait && *state == (0, false) {
            state = self.hears.changed.wait(state).unwrap();
        }
        Ok(match (std::mem::take(&mut state.0), state.1) {
            (0, false) => Heard::Silence,
            (0, true) => Heard::End,
            _ => Heard::Bell,
        })
    }

    fn sleep(&self, patience: Patience) -> Result<()> {
        if matches!(patience, Patience::Until(_)) && self.without != Without::Naps {
            thread::yield_now();
            return Err(Error::TimedOut);
        }
        let mut state = self.hears.state.lock().unwrap();
        while *state == (0, false) {
            state = self.hears.changed.wait(state).unwrap();
        }
        Ok(())
    }

    fn pause(&self, _: Duration) {
        thread::yield_now();
    }

    fn hang_up(&self) {
        if self.without != Without::HangingUp {
            self.rings.change(|state| state.1 = true);
            self.hears.change(|state| state.1 = true);
        }
    }

    fn looks_again(&self, _: Patience, _: &mut Look<'_>) -> bool {
        unreachable!("the sides do not spin")
    }

    fn core(&self) -> usize {
        self.is_writer.into()
    }
}

impl Model {
    /// Runs a writer of bytes, one by one, and a reader of all of them.
    fn run(self) {
        let says = if self.registered { REGISTERED | BARS } else { 0 };
        let words = Arc::new([0, 0, says, says].map(AtomicU64::new));
        let wires: [Arc<Wire>; 2] = Default::default();
        let data = Arc::new(Bytes((0..self.capacity).map(|_| UnsafeCell::new(())).collect()));
        let (others_words, others_data, [to_writer, to_reader]) = (words.clone(), data.clone(), wires.clone());
        let writer = thread::spawn(move || {
            let mut half = self.half::<true>(words, to_reader, to_writer);
            for _ in 0..self.bytes {
                if half.look().unwrap() == 0 {
                    assert!(half.wait(Patience::Blocking).unwrap() > 0, "the reader stays");
                }
                half.side.iter().for_each(|side| data.put(side.position()));
                half.advance(1, || false);
            }
            half.finish();
        });
        let [to_writer, to_reader] = wires;
        let mut half = self.half::<false>(others_words, to_writer, to_reader);
        let mut read = 0;
        loop {
            let left = if self.watches { wait_watching(&mut half) } else { half.wait(Patience::Blocking).unwrap() };
            if left == 0 {
                break;
            }
            half.side
                .iter()
                .for_each(|side| (0..left as u64).for_each(|byte| others_data.take(side.position() + byte)));
            read += left;
            half.advance(left, || false);
        }
        assert_eq!(read, self.bytes, "everything is read before the end");
        half.finish();
        writer.join().unwrap();
    }

    fn half<const WRITER: bool>(
        self,
        words: Arc<[AtomicU64; 4]>,
        rings: Arc<Wire>,
        hears: Arc<Wire>,
    ) -> Half<WRITER, Plug, View> {
        let lost = Cell::new(self.lost[usize::from(!WRITER)]);
        let plug = Plug { rings, hears, is_writer: WRITER, lost, without: self.without };
        let side = Side::new(View::new(words, WRITER, self), self.capacity, self.registered);
        let mut half = Half::new(plug, Epoch::now().unwrap(), Some(side));
        half.set_spin(Duration::ZERO);
        half
    }

    /// Checks every interleaving in which threads are stopped at most twice where they need not stop. The limit is once
    /// where sides that sleep briefly look again and again.
    fn check(self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(if self.refused { 1 } else { 2 });
        builder.check(move || self.run());
    }
}

/// Waits as `wait_any` does, and then makes a call that does not.
fn wait_watching(half: &mut Half<false, Plug, View>) -> usize {
    loop {
        if !half.watch() {
            half.socket.sleep(Patience::Endless).unwrap();
        }
        match half.wait(Patience::None) {
            Err(Error::WouldBlock) => {}
            done => return done.unwrap(),
        }
    }
}

#[test]
fn no_wake_up_is_lost_where_both_sides_sleep() {
    PLAIN.check();
}

#[test]
fn no_wake_up_is_lost_where_the_sleeper_makes_the_barriers() {
    Model { registered: true, ..PLAIN }.check();
}

#[test]
fn no_wake_up_is_lost_where_there_is_room() {
    Model { capacity: 4, registered: true, ..PLAIN }.check();
}

#[test]
fn no_wake_up_is_lost_where_barriers_for_both_are_refused() {
    Model { bytes: 1, registered: true, refused: true, ..PLAIN }.check();
}

#[test]
fn no_wake_up_is_lost_by_a_wait_for_several() {
    Model { watches: true, ..PLAIN }.check();
}

#[test]
fn a_ring_of_the_writers_that_found_no_memory_is_made_up_for() {
    Model { lost: [2, 0], ..PLAIN }.check();
}

#[test]
fn a_ring_of_the_readers_that_found_no_memory_is_made_up_for() {
    Model { lost: [0, 2], ..PLAIN }.check();
}

#[test]
fn a_ring_for_the_end_that_found_no_memory_is_made_up_for() {
    Model { bytes: 1, capacity: 4, lost: [9, 0], ..PLAIN }.check();
}

/// The models in which something is left out. Each is a test of its own, ignored, as it fails.
macro_rules! without {
    ($($name:ident: $model:expr;)*) => {
        $(
            #[test]
            #[ignore = "it fails, as `what_is_left_out_is_missed` expects"]
            fn $name() {
                $model.check();
            }
        )*

        const LEFT_OUT: &[&str] = &[$(stringify!($name)),*];
    };
}

without! {
    without_the_barrier_of_who_moves: Model { without: Without::BarrierAfterMove, ..PLAIN };
    without_the_barrier_of_who_sleeps: Model { without: Without::BarrierBeforeSleep, ..PLAIN };
    without_the_second_look: Model { without: Without::SecondLook, ..PLAIN };
    without_the_second_look_of_a_watch: Model { watches: true, without: Without::SecondLook, ..PLAIN };
    without_the_rings_that_are_owed: Model { lost: [1, 0], without: Without::OwedRings, ..PLAIN };
    without_the_naps_of_who_owes_a_ring: Model { lost: [2, 0], without: Without::Naps, ..PLAIN };
    without_the_naps_of_who_may_not_be_rung_for: Model { registered: true, refused: true, without: Without::Naps, ..PLAIN };
    without_hanging_up: Model { bytes: 1, capacity: 4, lost: [9, 0], without: Without::HangingUp, ..PLAIN };
}

/// In processes of their own, as a deadlock of loom's ends the process.
#[test]
fn what_is_left_out_is_missed() {
    for name in LEFT_OUT {
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        let output = test.args(["--exact", "--ignored", &format!("ring::model::{name}")]).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && said.contains("deadlock; threads"), "{name}: {said}");
    }
}
