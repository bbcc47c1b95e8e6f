//! Values of Rust's types from one process to another.

use std::io;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::machine::Core;
use crate::peer::Peer;
use crate::rivals::{Made, ipc_channel, typed, unix_ipc};
use crate::turns::{Contender, Entry, Pass, Turns, USUAL};

use super::size_name;

pub const STRUCTS: &str = "values, structures";
pub const BYTES: &str = "values, bytes";

pub const SIZES: [usize; 4] = [16, 4 << 10, 64 << 10, 1 << 20];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    let (one, size) = (Sample::number(1), SIZES[0]);
    turns.take(STRUCTS, &size_name(size), size as u64, USUAL, contenders(one))?;
    for size in &SIZES[1..] {
        let list: Vec<_> = (0..(size / size_of::<Sample>()) as u32).map(Sample::number).collect();
        turns.take(STRUCTS, &size_name(*size), *size as u64, USUAL, contenders(list))?;
    }
    for size in SIZES {
        turns.take(BYTES, &size_name(size), size as u64, USUAL, contenders(ByteBuf::from(vec![7; size])))?;
    }
    Ok(())
}

/// A structure of 16 bytes.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Sample {
    time: u64,
    place: u32,
    value: f32,
}

impl Sample {
    fn number(number: u32) -> Self {
        Self { time: 1_700_000_000_000 + u64::from(number), place: number % 1000, value: number as f32 }
    }
}

/// What is sent, and what it adds up to.
pub trait Value: Clone + Serialize + DeserializeOwned + 'static {
    fn sum(&self) -> u64;
}

impl Value for Sample {
    fn sum(&self) -> u64 {
        self.time.wrapping_add(self.place.into()).wrapping_add(self.value.to_bits().into())
    }
}

impl Value for Vec<Sample> {
    fn sum(&self) -> u64 {
        self.iter().fold(0, |sum, sample| sum.wrapping_add(sample.sum()))
    }
}

impl Value for ByteBuf {
    fn sum(&self) -> u64 {
        crate::channel::sum(self)
    }
}

/// Sends values.
pub trait Sender<T> {
    fn send(&mut self, value: T) -> io::Result<()>;

    /// Comes after the last value for a while.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives values.
pub trait Receiver<T> {
    fn receive(&mut self) -> io::Result<T>;
}

fn contenders<T: Value>(value: T) -> Vec<Entry> {
    vec![
        values("ipc-channel, typed", value.clone(), ipc_channel::values),
        values("unix-ipc, typed", value.clone(), unix_ipc::values),
        values("postcard by hand over ipc", value.clone(), typed::by_hand),
        values("ipc typed", value.clone(), typed::values),
        values("ipc typed, packed", value, typed::packed_values),
    ]
}

fn values<T: Value, S, R>(name: &'static str, value: T, make: fn() -> Made<S, R>) -> Entry
where
    S: Sender<T> + 'static,
    R: Receiver<T> + 'static,
{
    Entry::new(name, move || Values::new(make()?, value))
}

/// Values from a peer to here, each made anew by its sender.
struct Values<T, R> {
    receiver: R,
    value: T,
    peer: Peer,
}

impl<T: Value, R> Values<T, R> {
    fn new((mut sender, receiver): (impl Sender<T>, R), value: T) -> io::Result<Self> {
        let model = value.clone();
        let peer = Peer::start(Core::There, move |count| {
            (0..count).try_for_each(|_| sender.send(model.clone()))?;
            sender.flush()?;
            Ok(0)
        })?;
        Ok(Self { receiver, value, peer })
    }
}

impl<T: Value, R: Receiver<T>> Contender for Values<T, R> {
    fn pass(&mut self, count: u64) -> io::Result<Pass> {
        let mut total = 0_u64;
        let started = Instant::now();
        self.peer.order(count)?;
        for _ in 0..count {
            let value = self.receiver.receive().map_err(|error| self.peer.reason(error))?;
            total = total.wrapping_add(value.sum());
        }
        let time = started.elapsed();
        self.peer.answer()?;
        if total != self.value.sum().wrapping_mul(count) {
            return Err(io::Error::other("what arrived is not what was sent"));
        }
        Ok(Pass::of(time, count))
    }
}
