//! The protocol of sleeping and waking under every interleaving: the same [`Side`]s, over words and a socket of loom's.
//!
//! ```sh
//! RUSTFLAGS="--cfg ipc_loom" cargo test --release --lib ring::model
//! ```
//!
//! A wake-up that is lost is a thread that waits for ever, which loom calls a deadlock. What it cannot model is a barrier that
//! one side makes for both. It is taken for what it promises: a barrier at each side.

use loom::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::doorbell::Side;
use super::layout::{Word, Words};

/// Which barriers there are.
#[derive(Clone, Copy, PartialEq)]
enum Barriers {
    All,
    /// A reader that does not make its own before it looks again.
    NotBeforeSleep,
    /// A writer that does not make its own before it looks who waits.
    NotAfterMove,
}

struct Page {
    words: [AtomicU64; 4],
    barriers: Barriers,
}

impl Page {
    fn new(barriers: Barriers) -> Arc<Self> {
        Arc::new(Self { words: std::array::from_fn(|_| AtomicU64::new(0)), barriers })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words[word as usize / 128]
    }
}

/// A side's view of it: the barriers of a side that moves and of one that is about to sleep are told apart, to leave them out.
struct View(Arc<Page>, bool);

impl Words for View {
    fn load(&self, word: Word) -> u64 {
        self.0.word(word).load(Acquire)
    }

    fn store(&self, word: Word, value: u64) {
        self.0.word(word).store(value, Release);
    }

    fn clear(&self, word: Word, bits: u64) -> u64 {
        self.0.word(word).fetch_and(!bits, AcqRel)
    }

    fn set(&self, word: Word, bits: u64) {
        self.0.word(word).fetch_or(bits, AcqRel);
    }

    fn barrier(&self) {
        let left_out = if self.1 { Barriers::NotAfterMove } else { Barriers::NotBeforeSleep };
        if self.0.barriers != left_out {
            fence(SeqCst);
        }
    }

    fn no_barrier(&self) {
        self.barrier();
    }

    fn barrier_for_both(&self) -> bool {
        self.barrier();
        true
    }
}

/// A socket: rings that were not heard yet, and whether the other side has closed it.
#[derive(Default)]
struct Socket {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Socket {
    fn ring(&self) {
        self.state.lock().unwrap().0 += 1;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_one();
    }

    /// Sleeps until somebody rings. `false`: it was closed.
    fn hear(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while *state == (0, false) {
            state = self.changed.wait(state).unwrap();
        }
        std::mem::take(&mut state.0) > 0 || !state.1
    }
}

/// Waits as [`Half`](super::half::Half) does. 0: the other side is gone.
fn wait<const WRITER: bool>(side: &mut Side<View, WRITER>, socket: &Socket) -> usize {
    let mut is_over = false;
    loop {
        let is_closed = is_over || side.is_other_closed();
        let left = side.look().unwrap();
        if left > 0 || is_closed {
            return left;
        }
        side.arm();
        if !side.is_other_closed() && side.look() == Ok(0) {
            is_over = !socket.hear();
        }
        side.disarm();
    }
}

/// A writer of so many bytes, one by one, and a reader of all of them, through a ring that holds `capacity`.
fn pass(bytes: usize, capacity: usize, registered: bool, barriers: Barriers) {
    let (page, to_reader, to_writer) = (Page::new(barriers), Arc::new(Socket::default()), Arc::new(Socket::default()));
    let (shared, rings, hears) = (page.clone(), to_reader.clone(), to_writer.clone());
    let writer = thread::spawn(move || {
        let mut side = Side::<_, true>::new(View(shared, true), capacity, registered);
        for _ in 0..bytes {
            if side.left() == 0 {
                assert!(wait(&mut side, &hears) > 0, "the reader stays");
            }
            if side.advance(1) {
                rings.ring();
            }
        }
        if side.close() {
            rings.ring();
        }
        rings.close();
    });
    let mut side = Side::<_, false>::new(View(page, false), capacity, registered);
    let mut read = 0;
    while wait(&mut side, &to_reader) > 0 {
        let left = side.left();
        read += left;
        if side.advance(left) {
            to_writer.ring();
        }
    }
    assert_eq!(read, bytes, "everything is read before the end");
    writer.join().unwrap();
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(check);
}

#[test]
fn no_wake_up_is_lost_where_both_sides_sleep() {
    for registered in [false, true] {
        model(move || pass(2, 1, registered, Barriers::All));
    }
}

#[test]
fn no_wake_up_is_lost_where_there_is_room() {
    model(|| pass(2, 4, true, Barriers::All));
}

#[test]
#[ignore = "it fails, as the next one expects"]
fn without_the_barrier_of_who_moves() {
    model(|| pass(2, 1, false, Barriers::NotAfterMove));
}

#[test]
#[ignore = "it fails, as the next one expects"]
fn without_the_barrier_of_who_sleeps() {
    model(|| pass(2, 1, false, Barriers::NotBeforeSleep));
}

/// In processes of their own, as a deadlock of loom's ends the process.
#[test]
fn without_a_barrier_a_wake_up_is_lost_and_the_model_sees_it() {
    for name in ["without_the_barrier_of_who_moves", "without_the_barrier_of_who_sleeps"] {
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        let output = test.args(["--exact", "--ignored", &format!("ring::model::{name}")]).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && said.contains("deadlock; threads"), "{name}: {said}");
    }
}
