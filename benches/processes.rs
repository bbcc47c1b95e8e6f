//! Between two processes, each on a core of its own: round trips, and streams of bytes.
//!
//! Criterion measures one contender after the other. Where the machine is not quiet, `benches/marks.rs` is the better
//! judge: it takes turns.

mod common;

use std::io::{Read, Write};

use common::*;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use ipc::Ends;

const HERE: usize = 0;
const THERE: usize = 1;

fn round_trips(criterion: &mut Criterion) {
    fn contender<R: Read + Ends, W: Write + Ends>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        make: impl Fn() -> (R, W),
    ) {
        let mut contender = RoundTrip::new(make, THERE);
        group.bench_function(name, |bencher| bencher.iter_custom(|count| contender.pass(count)));
    }
    pin(HERE);
    let mut group = criterion.benchmark_group("round trip of 16 bytes");
    contender(&mut group, "bare", bare_pipe);
    contender(&mut group, "std", std_pipe);
    contender(&mut group, "ipc", ipc_pipe);
    contender(&mut group, "ipc, looking for 50 µs", spinning_pipe);
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    fn contender<R: Read, W: Write + Ends>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        pipe: (R, W),
        size: usize,
    ) {
        let mut contender = Stream::new(pipe, size, THERE);
        group.bench_function(name, |bencher| bencher.iter_custom(|count| contender.pass(count)));
    }
    pin(HERE);
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group(format!("stream, writes of {size} bytes"));
        group.throughput(Throughput::Bytes(size as u64));
        contender(&mut group, "bare", bare_pipe(), size);
        contender(&mut group, "std", std_pipe(), size);
        contender(&mut group, "ipc", ipc_pipe(), size);
        group.finish();
    }
}

criterion_group!(benches, round_trips, streams);
criterion_main!(benches);
